"""Batch norm of a training step and the activation behind it, which a small network spends much of its time on.

For channels_last torch takes a vector of one pixel's channels at a time, most of it empty where they are few.
The compiled library (native/norm.cpp) fills its vectors, and reads memory once for the statistics and once for the
result with the activation.
"""

import os
import struct
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lkspace.kernels import library, native_backend
from lkspace.kernels.backends import VARIABLE
from lkspace.kernels.checks import check_activation
from lkspace.kernels.native_calls import ACTIVATIONS
from lkspace.kernels.torch_backend import activated

_CALL = struct.Struct("=5q2d11q")  # `Norm` of interface.h


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    activation: str = "",
) -> Tensor:
    """`torch.nn.functional.batch_norm(..., training=True)`, then the activation: "", "relu" or "gelu".

    x: (N, C, H, W); weight, bias, running_mean, running_var: (C,); the last two are moved by `momentum` towards x's.
    Returns (N, C, H, W). float32 in channels_last on the CPU is computed by the compiled library, if it is there, in
    the same bits for any number of threads; everything else by torch. Differentiable in x, weight and bias: once by
    the library, again by torch. `LKSPACE_KERNEL=torch` forces torch's. Raises ValueError if a channel has one value
    only, or the activation is another.
    """
    check_activation(activation)
    running = (running_mean, running_var)
    if _native(x, (weight, bias, *running)):
        y: Tensor = _BatchNorm.apply(x, weight, bias, running, momentum, eps, activation)  # type: ignore[no-untyped-call]
        return y
    return activated(F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps), activation)


def _native(x: Tensor, vectors: tuple[Tensor, ...]) -> bool:
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if traced or torch._C._are_functorch_transforms_active():  # first: a compiler must not look behind this
        return False
    return (
        x.device.type == "cpu"
        and type(x) is Tensor
        and x.dtype == torch.float32
        and x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > x.shape[1]
        and all(
            t.dtype == torch.float32 and t.device == x.device and t.shape == x.shape[1:2] and t.is_contiguous()
            for t in vectors
        )
        and os.environ.get(VARIABLE) != "torch"
        and native_backend.native_available()
    )


class _BatchNorm(torch.autograd.Function):
    """x, weight, bias, running mean and variance, momentum, eps, activation -> y."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor, Tensor],
        momentum: float,
        eps: float,
        activation: str,
    ) -> Tensor:
        y = torch.empty_like(x)
        statistics = weight.new_empty(2, x.shape[1])
        _call("lkspace_batch_norm", x, y, weight, bias, statistics, activation, (eps, momentum), running=running)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.eps, ctx.activation = eps, activation
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, statistics = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            return *_differentiable(ctx, grad, x, weight, bias), *(None,) * 4
        grad = grad.contiguous(memory_format=torch.channels_last)
        into = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
        _call("lkspace_batch_norm_gradients", x, grad, weight, bias, statistics, ctx.activation, into=into)
        return *into, *(None,) * 4


def _differentiable(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor | None, ...]:
    """Those gradients of x, weight and bias that are needed, by torch."""
    y = activated(F.batch_norm(x, None, None, weight, bias, True, 0.0, ctx.eps), ctx.activation)
    needed = [t for t, need in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if need]
    found = iter(torch.autograd.grad(y, needed, grad, create_graph=True))
    return tuple(next(found) if need else None for need in ctx.needs_input_grad[:3])


def _call(
    function: str,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: Tensor,
    activation: str,
    numbers: tuple[float, float] = (0.0, 0.0),
    *,
    running: tuple[Tensor | None, ...] = (None,) * 2,
    into: tuple[Tensor | None, ...] = (None,) * 3,
) -> None:
    """numbers: eps, momentum. running: mean and variance. into: gradients of x, weight and bias."""
    channels = x.shape[1]
    mean = statistics.data_ptr()
    packed = _CALL.pack(
        library.selected(),
        torch.get_num_threads(),
        x.numel() // channels,
        channels,
        ACTIVATIONS[activation],
        *numbers,
        x.data_ptr(),
        y.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        mean,
        mean + 4 * channels,
        *(0 if tensor is None else tensor.data_ptr() for tensor in (*running, *into)),
    )
    if getattr(library.load(), function)(packed):
        raise MemoryError(f"batch_norm: no working memory for {tuple(x.shape)}")
