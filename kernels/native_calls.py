"""The compiled library's functions on tensors: addresses and strides go into the struct, nothing is chosen here."""

import torch
from torch import Tensor

from lkspace.kernels import library

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # all numbered as in interface.h
SCHEMES = {"direct": 0, "frequency": 1}
ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2}
_NOWHERE = library.View()


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
    options = {"flip": int(flip), "scheme": SCHEMES[scheme], "activation": ACTIVATIONS[activation]}
    _call("lkspace_convolve", x, weight, threads, options, map=y, kernel=weight, bias=bias)


def direct_weight_gradient(
    grad: Tensor, x: Tensor, into_weight: Tensor, into_bias: Tensor | None, threads: int | None = None
) -> None:
    """Writes into_weight and, if it is there, into_bias."""
    _call("lkspace_weight_gradient", x, into_weight, threads, {}, map=grad, kernel=into_weight, bias=into_bias)


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
    tensors = {"kernel": weight, "image_gradient": into_x, "kernel_gradient": into_weight, "bias": into_bias}
    _call("lkspace_frequency_gradients", x, weight, threads, {}, map=grad, **tensors)


def _call(
    function: str,
    image: Tensor,
    weight: Tensor,
    threads: int | None,
    options: dict[str, int],
    **tensors: Tensor | None,
) -> None:
    n, c, h, w = image.shape
    call = library.Call(
        isa=library.selected(),
        type=TYPES[image.dtype],
        threads=threads or torch.get_num_threads(),
        n=n,
        c=c,
        h=h,
        w=w,
        kh=weight.shape[2],
        kw=weight.shape[3],
        image=_view("image", image),
        **{name: _view(name, tensor) for name, tensor in tensors.items()},
        **options,
    )
    if getattr(library.load(), function)(call):
        raise MemoryError(f"depthwise_conv2d: no working memory for {tuple(image.shape)}")


def _view(name: str, tensor: Tensor | None) -> library.View:
    """Where a tensor lies: (n, c, h, w), a kernel (c, 1, h, w) or a bias (c,)."""
    if tensor is None:
        return _NOWHERE
    if name == "bias":
        return library.View(tensor.data_ptr(), 0, tensor.stride(0), 0, 0)
    if name.startswith("kernel"):
        return library.View(tensor.data_ptr(), 0, tensor.stride(0), *tensor.stride()[2:])
    return library.View(tensor.data_ptr(), *tensor.stride())
