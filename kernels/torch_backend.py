"""The operator on torch's own convolution: always there, for every device and dtype, and the yardstick of the rest."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lkspace.kernels.checks import memory_format

# From this kernel size on, torch's CPU forward leaves its depthwise kernel for a matrix product of one row if the
# tensor is contiguous: 4 to 20 times slower than channels_last (oneDNN refuses padding beyond its unroll of 4 to 6).
_CHANNELS_LAST_FROM = 11


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `depthwise_conv2d`."""
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    y = torch.conv2d(_faster(x, weight), weight, bias, 1, padding, 1, x.shape[1])
    return y.contiguous(memory_format=memory_format(x))


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward` in operator.py."""
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


def _faster(x: Tensor, weight: Tensor) -> Tensor:
    """x in the layout that torch convolves faster, where that is known."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and weight.shape[3] >= _CHANNELS_LAST_FROM:
        return x.contiguous(memory_format=torch.channels_last)
    return x
