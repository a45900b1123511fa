"""The operator in C++ on the CPU, for tensors of any strides; schemes.py says which scheme computes a call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lkspace.kernels import library, native_calls
from lkspace.kernels.checks import memory_format
from lkspace.kernels.schemes import scheme_for


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


def fingerprint() -> str:
    """Digest of the compiled library; "" if it is missing."""
    return "" if native_reason() else library.fingerprint()


def refuses(x: Tensor, weight: Tensor) -> str:
    """Why these tensors are not for this backend; "" if they are."""
    if x.device.type != "cpu":
        return f"the native backend computes on the CPU, x is on {x.device}"
    if x.dtype not in native_calls.TYPES:
        return f"the native backend computes float32, bfloat16 and float16, x is {x.dtype}"
    return ""


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "") -> Tensor:
    """See `depthwise_conv2d`."""
    y = torch.empty_like(x, memory_format=memory_format(x))
    native_calls.convolve(scheme_for("convolution", x, weight), x, y, weight, bias, activation)
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
    bias_too = into_bias if wanted[2] else None
    operation = "both gradients" if wanted[0] and wanted[1] else "weight gradient" if wanted[1] else "convolution"
    scheme = scheme_for(operation, x, weight) if wanted[0] or wanted[1] else "direct"
    if wanted[1] and scheme == "frequency":
        native_calls.frequency_gradients(grad, x, weight, into_x if wanted[0] else None, into_weight, bias_too)
        return into_x, into_weight, into_bias
    if wanted[0]:
        native_calls.convolve(scheme, grad, into_x, weight, flip=True)
    if wanted[1]:
        native_calls.direct_weight_gradient(grad, x, into_weight, bias_too)
    elif wanted[2]:
        # torch.sum would add one channel's parts in as many parts as there are threads.
        native_calls.direct_weight_gradient(grad, grad, weight.new_empty(weight.shape[0], 1, 1, 1), into_bias)
    return into_x, into_weight, into_bias
