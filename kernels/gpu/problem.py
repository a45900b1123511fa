"""What is to be computed, as far as the choice of a kernel depends on it, and how its tensors lie in memory."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lkspace.kernels.checks import memory_format

Direction = Literal["forward", "input gradient", "weight gradient"]
VECTOR = 16  # bytes of the widest load of one thread


@dataclass(frozen=True)
class Problem:
    """One call: its shape, type, layout, alignment and direction. Equal problems are computed by equal kernels.

    precision: of the matrix product, as Triton calls it: "tf32" rounds float32 factors and means nothing for halves,
    "ieee" rounds nothing and takes the FP32 units; "widened" is the interpreter's, for halves (common.py).
    vector: see the function. The upstream gradient that a weight gradient reads beside x lies in memory in a way of its
    own; where none is read its fields say what x's say.
    """

    direction: Direction
    n: int
    c: int
    h: int
    w: int
    kh: int
    kw: int
    dtype: str
    precision: str
    channels_last: bool
    vector: int
    grad_channels_last: bool
    grad_vector: int

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return 4 if self.dtype == "float32" else 2


def problem(direction: Direction, x: Tensor, weight: Tensor, grad: Tensor | None = None) -> Problem:
    """The problem that these tensors pose; x stands for the map that is read: the image, or the upstream gradient.

    grad: what the weight gradient reads beside the image; it lies as x does if it is left out.
    """
    half = x.dtype != torch.float32
    precision = "tf32" if half or tf32_allowed() else "ieee"
    if half and x.device.type == "cpu":
        precision = "widened"
    last, elements = _layout(x)
    grad_last, grad_elements = (last, elements) if grad is None else _layout(grad)
    return Problem(
        direction,
        n=x.shape[0],
        c=x.shape[1],
        h=x.shape[2],
        w=x.shape[3],
        kh=weight.shape[2],
        kw=weight.shape[3],
        dtype=str(x.dtype).removeprefix("torch."),
        precision=precision,
        channels_last=last,
        vector=elements,
        grad_channels_last=grad_last,
        grad_vector=grad_elements,
    )


def _layout(x: Tensor) -> tuple[bool, int]:
    return memory_format(x) == torch.channels_last, vector(x)


def tf32_allowed() -> bool:
    """Whether torch's own convolutions may round float32 factors to tf32, as the user has set it."""
    convolutions = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return bool(convolutions == "tf32")


def alignment(*tensors: Tensor, flat: bool = False) -> int:
    """Largest power of two, up to a vector's elements, that divides the widths and all strides but the columns'.

    flat: a plane is read as one row of all its pixels.
    """
    most = VECTOR // tensors[0].element_size()
    for tensor in tensors:
        (images, channels, height, width), (n, c, h, w) = tensor.shape, tensor.stride()
        rows = (height * width,) if flat else (width, h)
        lengths = (*rows, n if images > 1 else 0, c if channels > 1 else 0)
        while any(length % most for length in lengths) or w != 1:
            if most == 1:
                break
            most //= 2
    return most


def vector(*maps: Tensor) -> int:
    """Elements that one copy may take of a row: their address, like all strides, is a multiple of it."""
    elements = alignment(*maps)
    while any(one.data_ptr() % (elements * one.element_size()) for one in maps):
        elements //= 2
    return elements
