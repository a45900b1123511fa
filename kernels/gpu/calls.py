"""Both directions of the operator as calls of chosen paths."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lkspace.kernels.checks import memory_format
from lkspace.kernels.gpu import paths, tuning
from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.problem import problem


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """See `depthwise_conv2d`."""
    return _convolution(x, weight.contiguous(), None if bias is None else bias.contiguous(), activation, flip=False)


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward`; the input gradient is the convolution of grad with the turned kernel."""
    weight = weight.contiguous()
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

    return compute(tuning.choose(posed, x.device, lambda choice: lambda: compute(choice), prepare))


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    posed = problem("weight gradient", x, weight)

    def compute(choice: Choice) -> Tensor:
        return paths.gradient_of_weight(choice, grad, x, weight, posed.precision)

    def prepare(choice: Choice) -> None:
        paths.prepare_gradient(choice, grad, x, weight)

    return compute(tuning.choose(posed, x.device, lambda choice: lambda: compute(choice), prepare))
