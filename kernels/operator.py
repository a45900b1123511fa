"""Registration of the depthwise operator with torch: schema, fake tensor, autograd, autocast.

Two operators, so that compiled graphs and exported programs hold both directions as single nodes:

    lkspace::depthwise_conv2d(x, weight, bias?, activation="")  -> y
    lkspace::depthwise_conv2d_backward(grad, x, weight, wanted) -> (x's, weight's, bias's gradient)

One backward for all three gradients, because a backend may share work between them. A gradient that is not wanted is
an empty tensor.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lkspace.kernels.backends import choose
from lkspace.kernels.checks import ACTIVATIONS, check, check_backward, memory_format
from lkspace.kernels.flops import register
from lkspace.kernels.torch_backend import activated

_library: Any = torch.library.Library("lkspace", "DEF")  # type: ignore[no-untyped-call]
_library.define("depthwise_conv2d(Tensor x, Tensor weight, Tensor? bias=None, str activation='') -> Tensor")
_library.define(
    "depthwise_conv2d_backward(Tensor grad, Tensor x, Tensor weight, bool[3] wanted) -> (Tensor, Tensor, Tensor)"
)
_forward = torch.ops.lkspace.depthwise_conv2d.default
_backward = torch.ops.lkspace.depthwise_conv2d_backward.default

Gradients = tuple[Tensor, Tensor, Tensor]


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "") -> Tensor:
    """Each channel of x correlated with its own kernel, stride 1, zero padding that keeps the size.

    x: (N, C, H, W) of any strides; weight: (C, 1, Kh, Kw), Kh and Kw odd, possibly larger than the map; bias: (C,).
    All on one device, of one dtype: float32, bfloat16, float16 (both summed in float32) or float64.
    activation: "", "relu" or "gelu" (the exact one), applied to the result; without a pass of its own over memory where
    nothing needs a gradient. With gradients it is torch's, so that what it needs is saved rather than computed again.
    Returns (N, C, H, W) of x's dtype, channels_last if x is, else contiguous. Differentiable twice.
    Raises ValueError that names the argument if a shape, dtype or device does not fit.
    """
    result: Tensor
    if activation in ACTIVATIONS[1:] and torch.is_grad_enabled() and _any_needs_gradient(x, weight, bias):
        result = activated(_forward(x, weight, bias), activation)
    else:
        result = _forward(x, weight, bias, activation)
    return result


def _any_needs_gradient(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _compute(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "") -> Tensor:
    check(x, weight, bias, activation)
    if x.numel() == 0:
        return torch.empty_like(x, memory_format=memory_format(x))
    return choose(x, weight).forward(x, weight, bias, activation)


def _compute_backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> Gradients:
    check_backward(grad, x, weight)
    if x.numel() == 0:
        gradients = _compute_backward_fake(grad, x, weight, wanted)
        return gradients[0], gradients[1].zero_(), gradients[2].zero_()
    return choose(x, weight).backward(grad, x, weight, wanted)


def _compute_fake(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "") -> Tensor:
    check(x, weight, bias, activation)
    return torch.empty_like(x, memory_format=memory_format(x))


def _compute_backward_fake(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> Gradients:
    check_backward(grad, x, weight)
    return (
        torch.empty_like(x, memory_format=memory_format(x)) if wanted[0] else x.new_empty(0),
        weight.new_empty(weight.shape) if wanted[1] else x.new_empty(0),
        weight.new_empty(weight.shape[0]) if wanted[2] else x.new_empty(0),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight = inputs[:2]
    bias = inputs[2] if len(inputs) > 2 else None  # what was left out is not there
    activation = inputs[3] if len(inputs) > 3 else ""
    ctx.save_for_backward(x, weight, bias if activation else None)
    ctx.activation = activation


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    if ctx.activation:
        grad = _before_activation(ctx.activation, grad, _forward(x, weight, bias))
    needed = list(ctx.needs_input_grad)  # as long as the arguments that were given: a missing bias may be left out
    wanted = [*needed, False][:3]
    gradients = _backward(grad, x, weight, wanted)
    by_argument = (*gradients, None)
    return tuple(gradient if want else None for gradient, want in zip(by_argument, needed, strict=False))


def _before_activation(activation: str, grad: Tensor, y: Tensor) -> Tensor:
    """The gradient of what went into the activation, y, from that of what came out."""
    aten = torch.ops.aten
    result: Tensor = aten.threshold_backward(grad, y, 0) if activation == "relu" else aten.gelu_backward(grad, y)
    return result


def _remember_backward(ctx: Any, inputs: tuple[Any, ...], output: Gradients) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.wanted = inputs[3]
    ctx.set_materialize_grads(False)  # a gradient that nobody used is None, not zeros to convolve with


def _differentiate_backward(
    ctx: Any, from_x: Tensor | None, from_weight: Tensor | None, from_bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Every gradient is linear in grad and in x or weight, so its own gradients are the same three operations."""
    grad, x, weight = ctx.saved_tensors
    into_grad = into_x = into_weight = None
    if ctx.wanted[0] and from_x is not None:
        into_grad = _forward(from_x, weight, None)
        into_weight = _backward(grad, from_x, weight, [False, True, False])[1]
    if ctx.wanted[1] and from_weight is not None:
        second = _forward(x, from_weight, None)
        into_grad = second if into_grad is None else into_grad + second
        into_x = _backward(grad, x, from_weight, [True, False, False])[0]
    if ctx.wanted[2] and from_bias is not None:
        third = from_bias[None, :, None, None].expand_as(grad)
        into_grad = third if into_grad is None else into_grad + third
    return into_grad, into_x, into_weight, None


def _autocast(device: str) -> Any:
    """The kernel that casts to autocast's dtype on `device`, as torch does for its own convolutions."""
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device.upper()}"))

    def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        eligible = tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64
        return tensor.to(dtype) if eligible and tensor is not None else tensor

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "") -> Tensor:
        dtype = torch.get_autocast_dtype(device)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            result: Tensor = _forward(cast(x, dtype), cast(weight, dtype), cast(bias, dtype), activation)
            return result

    return run


_library.impl("depthwise_conv2d", _compute, "CompositeExplicitAutograd")
_library.impl("depthwise_conv2d_backward", _compute_backward, "CompositeExplicitAutograd")
torch.library.register_fake("lkspace::depthwise_conv2d", _compute_fake, lib=_library)
torch.library.register_fake("lkspace::depthwise_conv2d_backward", _compute_backward_fake, lib=_library)
torch.library.register_autograd("lkspace::depthwise_conv2d", _differentiate, setup_context=_remember, lib=_library)
torch.library.register_autograd(
    "lkspace::depthwise_conv2d_backward",
    _differentiate_backward,
    setup_context=_remember_backward,
    lib=_library,
)
_library.impl("depthwise_conv2d", _autocast("cpu"), "AutocastCPU")
_library.impl("depthwise_conv2d", _autocast("cuda"), "AutocastCUDA")
register()
