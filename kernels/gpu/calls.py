"""Both directions of the operator as calls of chosen paths."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lkspace.kernels.checks import memory_format
from lkspace.kernels.gpu import paths, tuning
from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.problem import Problem, problem


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """See `depthwise_conv2d`."""
    return _convolution(x, weight.contiguous(), None if bias is None else bias.contiguous(), activation, flip=False)


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward`; the input gradient is the convolution of grad with the turned kernel."""
    weight = weight.contiguous()
    if any(stride == 0 and size > 1 for size, stride in zip(grad.shape, grad.stride(), strict=True)):
        # One value seen many times, as y.sum() sends it: read without vectors, and its times would be no other's.
        grad = grad.contiguous(memory_format=memory_format(x))
    into_x, into_weight, into_bias = x.new_empty(0), x.new_empty(0), x.new_empty(0)
    if wanted[0]:
        into_x = _convolution(grad, weight, None, "", flip=True).contiguous(memory_format=memory_format(x))
    if wanted[1]:
        into_weight = _weight_gradient(grad, x, weight)
    if wanted[2]:
        into_bias = torch.sum(grad, (0, 2, 3), dtype=torch.float32).to(weight.dtype)
    return into_x, into_weight, into_bias


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, flip: bool) -> Tensor:
    posed = problem("input gradient" if flip else "forward", x, weight)

    def compute(choice: Choice) -> Tensor:
        return paths.convolution(choice, x, weight, bias, flip, activation, posed.precision)

    def prepare(choice: Choice) -> None:
        paths.prepare(choice, x, weight, flip, activation)

    return _computed(posed, x.device, compute, prepare)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    posed = problem("weight gradient", x, weight, grad)

    def compute(choice: Choice) -> Tensor:
        return paths.gradient_of_weight(choice, grad, x, weight, posed.precision)

    def prepare(choice: Choice) -> None:
        paths.prepare_gradient(choice, grad, x, weight)

    return _computed(posed, x.device, compute, prepare)


def _computed(
    posed: Problem, device: torch.device, compute: Callable[[Choice], Tensor], prepare: Callable[[Choice], None]
) -> Tensor:
    """As chosen; by torch if that was a guess, or timed by another process, and cannot run in this one."""
    choice = tuning.choose(posed, device, lambda choice: lambda: compute(choice), prepare)
    try:
        return compute(choice)
    except Exception as error:
        if choice.path == "torch" or tuning.lacking(error) in ("", tuning.MEMORY):
            raise
    return compute(Choice("torch"))
