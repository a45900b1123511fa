"""The operator in C++ on the CPU: hands addresses and strides to the compiled library, which takes any strides.

Which scheme computes a call is asked of schemes.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lkspace.kernels import library
from lkspace.kernels.checks import memory_format
from lkspace.kernels.schemes import scheme_for

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # numbered as in interface.h
_SCHEMES = {"direct": 0, "frequency": 1}
_ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2}
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


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "") -> Tensor:
    """See `depthwise_conv2d`."""
    y = torch.empty_like(x, memory_format=memory_format(x))
    _convolve(scheme_for("forward", x, weight), x, y, weight, bias, activation=activation)
    return y


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward` in operator.py. Same bits for any number of threads."""
    into_x, into_weight, into_bias = x.new_empty(0), x.new_empty(0), x.new_empty(0)
    if wanted[0]:
        into_x = torch.empty_like(x, memory_format=memory_format(x))
    if wanted[1]:
        # Taps that no pixel of the map can reach are left as they are: they must be zero.
        beyond = weight.shape[2] > 2 * x.shape[2] - 1 or weight.shape[3] > 2 * x.shape[3] - 1
        into_weight = weight.new_zeros(weight.shape) if beyond else weight.new_empty(weight.shape)
    if wanted[2]:
        into_bias = weight.new_empty(weight.shape[0])
    if wanted[0] and wanted[1]:
        scheme = scheme_for("both gradients", x, weight)
        if scheme == "frequency":
            _frequency_gradients(grad, x, weight, into_x, into_weight, into_bias if wanted[2] else None)
            return into_x, into_weight, into_bias
        into_x_scheme = into_weight_scheme = scheme
    else:
        into_x_scheme = scheme_for("input gradient", x, weight)
        into_weight_scheme = scheme_for("weight gradient", x, weight)
    if wanted[0]:
        _convolve(into_x_scheme, grad, into_x, weight, None, flip=1)
    if wanted[1] and into_weight_scheme == "frequency":
        _frequency_gradients(grad, x, weight, None, into_weight, into_bias if wanted[2] else None)
    elif wanted[1]:
        _call("lkspace_weight_gradient", x, weight, map=grad, kernel=into_weight, bias=into_bias if wanted[2] else None)
    elif wanted[2]:
        torch.sum(grad, (0, 2, 3), out=into_bias)
    return into_x, into_weight, into_bias


def _convolve(
    scheme: str, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "", flip: int = 0
) -> None:
    options = {"flip": flip, "scheme": _SCHEMES[scheme], "activation": _ACTIVATIONS[activation]}
    _call("lkspace_convolve", x, weight, options, map=y, kernel=weight, bias=bias)


def _frequency_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, into_x: Tensor | None, into_weight: Tensor, into_bias: Tensor | None
) -> None:
    results = {"image_gradient": into_x, "kernel_gradient": into_weight, "bias": into_bias}
    _call("lkspace_frequency_gradients", x, weight, map=grad, kernel=weight, **results)


def _call(
    function: str, image: Tensor, weight: Tensor, options: dict[str, int] | None = None, **tensors: Tensor | None
) -> None:
    """Fill in the struct and hand it over; the tensors are named as in interface.h."""
    n, c, h, w = image.shape
    call = library.Call(
        isa=library.selected(),
        type=_TYPES[image.dtype],
        threads=torch.get_num_threads(),
        n=n,
        c=c,
        h=h,
        w=w,
        kh=weight.shape[2],
        kw=weight.shape[3],
        image=_view("image", image),
        **{name: _view(name, tensor) for name, tensor in tensors.items()},
        **(options or {}),
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
