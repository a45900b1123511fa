"""The operator in C++ on the CPU: hands addresses and strides to the compiled library, which takes any strides."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lkspace.kernels import library
from lkspace.kernels.checks import memory_format

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # numbered as in interface.h
_NOWHERE = library.View()


def native_available() -> bool:
    """Whether the compiled library was found and fits this version."""
    return not native_reason()


def native_reason() -> str:
    """Why the native backend is missing on this machine; "" if it is there."""
    found = library.load()
    return found if isinstance(found, str) else ""


def isa() -> str:
    """Instruction set in use, "avx512", "avx2" or "portable"; "" if the library is missing.

    UserError if `LKSPACE_ISA` forces one that is not there.
    """
    return "" if native_reason() else library.ISAS[library.selected()]


def refuses(x: Tensor, weight: Tensor) -> str:
    """Why these tensors are not for this backend; "" if they are."""
    if x.device.type != "cpu":
        return f"the native backend computes on the CPU, x is on {x.device}"
    if x.dtype not in _TYPES:
        return f"the native backend computes float32, bfloat16 and float16, x is {x.dtype}"
    return ""


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `depthwise_conv2d`."""
    y = torch.empty_like(x, memory_format=memory_format(x))
    _run("lkspace_convolve", x, y, weight, bias)
    return y


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward` in operator.py. Same bits for any number of threads."""
    into_x, into_weight, into_bias = x.new_empty(0), x.new_empty(0), x.new_empty(0)
    if wanted[0]:
        into_x = torch.empty_like(x, memory_format=memory_format(x))
        _run("lkspace_convolve", grad, into_x, weight, None, flip=1)
    if wanted[2]:
        into_bias = weight.new_empty(weight.shape[0])
    if wanted[1]:
        # Taps that no pixel of the map can reach are left as they are: they must be zero.
        beyond = weight.shape[2] > 2 * x.shape[2] - 1 or weight.shape[3] > 2 * x.shape[3] - 1
        into_weight = weight.new_zeros(weight.shape) if beyond else weight.new_empty(weight.shape)
        _run("lkspace_weight_gradient", x, grad, into_weight, into_bias if wanted[2] else None)
    elif wanted[2]:
        torch.sum(grad, (0, 2, 3), out=into_bias)
    return into_x, into_weight, into_bias


def _run(function: str, image: Tensor, map: Tensor, kernel: Tensor, bias: Tensor | None, flip: int = 0) -> None:
    n, c, h, w = image.shape
    views = (
        library.View(image.data_ptr(), *image.stride()),
        library.View(map.data_ptr(), *map.stride()),
        library.View(kernel.data_ptr(), kernel.stride(0), *kernel.stride()[0:1], *kernel.stride()[2:]),
        _NOWHERE if bias is None else library.View(bias.data_ptr(), 0, bias.stride(0), 0, 0),
    )
    call = library.Call(
        library.selected(),
        _TYPES[image.dtype],
        torch.get_num_threads(),
        *(n, c, h, w, kernel.shape[2], kernel.shape[3], flip),
        *views,
    )
    if getattr(library.load(), function)(call):
        raise MemoryError(f"depthwise_conv2d: no working memory for {tuple(image.shape)}")
