"""The operator in C++ on the CPU: finds and loads the compiled library, hands it pointers and strides."""

from collections.abc import Sequence

from torch import Tensor


def native_available() -> bool:
    """Whether the compiled library was found and fits this version."""
    return not native_reason()


def native_reason() -> str:
    """Why the native backend is missing; "" if it is there."""
    return "not built yet"


def isa() -> str:
    """Instruction set in use: "avx512", "avx2" or "portable"; "" if the library is missing."""
    return ""


def refuses(x: Tensor, weight: Tensor) -> str:
    """Why these tensors are not for this backend; "" if they are."""
    return ""


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `depthwise_conv2d`."""
    raise NotImplementedError


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward` in operator.py."""
    raise NotImplementedError
