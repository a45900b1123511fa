"""The operator on torch's own convolution: always there, for every device and dtype, and the yardstick of the rest."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lkspace.kernels.checks import memory_format

# From this kernel size on, torch's CPU forward leaves its depthwise kernel for a matrix product of one row if the
# tensor is contiguous: 10 to 30 times slower than channels_last (oneDNN refuses padding beyond its unroll of 4 to 6).
_CHANNELS_LAST_FROM = 11


_HALVES = (torch.bfloat16, torch.float16)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "") -> Tensor:
    """See `depthwise_conv2d`."""
    if _widened(x):
        return forward(x.float(), weight.float(), None if bias is None else bias.float(), activation).to(x.dtype)
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    y = activated(torch.conv2d(_faster(x, weight), weight, bias, 1, padding, 1, x.shape[1]), activation)
    return y.contiguous(memory_format=memory_format(x))


def activated(y: Tensor, activation: str) -> Tensor:
    """y after the activation of that name, "" for none; GELU is the exact one."""
    if activation == "relu":
        return torch.relu(y)
    return torch.nn.functional.gelu(y) if activation == "gelu" else y


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward` in operator.py."""
    if _widened(x):
        gradients = backward(grad.float(), x.float(), weight.float(), wanted)
        return gradients[0].to(x.dtype), gradients[1].to(x.dtype), gradients[2].to(x.dtype)
    channels = x.shape[1]
    padding = [weight.shape[2] // 2, weight.shape[3] // 2]
    into_x, into_weight, into_bias = torch.ops.aten.convolution_backward(
        grad, x, weight, [channels], [1, 1], padding, [1, 1], False, [0, 0], channels, list(wanted)
    )
    return (
        into_x.contiguous(memory_format=memory_format(x)) if wanted[0] else x.new_empty(0),
        into_weight.contiguous() if wanted[1] else x.new_empty(0),
        into_bias if wanted[2] else x.new_empty(0),
    )


def _widened(x: Tensor) -> bool:
    """Whether x is computed as float32: processors without bfloat16 arithmetic sum it in bfloat16, and slowly."""
    return x.device.type == "cpu" and x.dtype in _HALVES


def _faster(x: Tensor, weight: Tensor) -> Tensor:
    """x in the layout that torch convolves faster, where that is known."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and weight.shape[3] >= _CHANNELS_LAST_FROM:
        return x.contiguous(memory_format=torch.channels_last)
    return x
