"""The compiled library's functions on tensors: addresses and strides go into the struct, nothing is chosen here."""

import struct

import torch
from torch import Tensor

from lkspace.kernels import library

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # all numbered as in interface.h
SCHEMES = {"direct": 0, "frequency": 1}
ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2}
_CALL = struct.Struct("=42q")  # `Call` of interface.h: 12 numbers, then 6 times `View`, an address and four strides
_NOWHERE = (0, 0, 0, 0, 0)


def convolve(
    scheme: str,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "",
    flip: bool = False,
    threads: int | None = None,
) -> None:
    """Writes y; with `flip`, the input gradient into y from y's gradient x. threads: torch's number if None."""
    numbers = int(flip), SCHEMES[scheme], ACTIVATIONS[activation]
    _call("lkspace_convolve", x, weight, threads, numbers, map=y, kernel=weight, bias=bias)


def direct_weight_gradient(
    grad: Tensor, x: Tensor, into_weight: Tensor, into_bias: Tensor | None, threads: int | None = None
) -> None:
    """Writes into_weight and, if it is there, into_bias."""
    _call("lkspace_weight_gradient", x, into_weight, threads, map=grad, kernel=into_weight, bias=into_bias)


def frequency_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    into_x: Tensor | None,
    into_weight: Tensor,
    into_bias: Tensor | None,
    threads: int | None = None,
) -> None:
    """Writes those of the gradients that are there, from one transform of grad."""
    _call(
        "lkspace_frequency_gradients",
        x,
        weight,
        threads,
        map=grad,
        kernel=weight,
        bias=into_bias,
        image_gradient=into_x,
        kernel_gradient=into_weight,
    )


def _call(
    function: str,
    image: Tensor,
    weight: Tensor,
    threads: int | None,
    numbers: tuple[int, int, int] = (0, 0, 0),
    *,
    map: Tensor,
    kernel: Tensor | None = None,
    bias: Tensor | None = None,
    image_gradient: Tensor | None = None,
    kernel_gradient: Tensor | None = None,
) -> None:
    """numbers: flip, scheme, activation. Packed at once, for a ctypes.Structure takes long to fill."""
    packed = _CALL.pack(
        library.selected(),
        TYPES[image.dtype],
        threads or torch.get_num_threads(),
        *image.shape,
        *weight.shape[2:],
        *numbers,
        *_image(image),
        *_image(map),
        *_kernel(kernel),
        *_bias(bias),
        *_image(image_gradient),
        *_kernel(kernel_gradient),
    )
    if getattr(library.load(), function)(packed):
        raise MemoryError(f"depthwise_conv2d: no working memory for {tuple(image.shape)}")


def _image(tensor: Tensor | None) -> tuple[int, ...]:
    """`View` of (n, c, h, w)."""
    return _NOWHERE if tensor is None else (tensor.data_ptr(), *tensor.stride())


def _kernel(tensor: Tensor | None) -> tuple[int, ...]:
    """`View` of (c, 1, h, w)."""
    if tensor is None:
        return _NOWHERE
    c, _, h, w = tensor.stride()
    return tensor.data_ptr(), 0, c, h, w


def _bias(tensor: Tensor | None) -> tuple[int, ...]:
    """`View` of (c,)."""
    return _NOWHERE if tensor is None else (tensor.data_ptr(), 0, tensor.stride(0), 0, 0)
