"""Which scheme computes a call: the one that a cost model, fitted to this machine once, says takes less time.

Both schemes work on groups of channels, one after the other, so the model is of one group:

    direct      a * multiply-adds inside the map          + b * pixels
    frequency   a * transforms, in units of fourier.h     + b * products of frequencies

with a and b measured (calibration.py) for each of the operations below. The number of threads is left out on purpose: a
shape must pick the same scheme, and so give the same bits, for every number of threads. `LKSPACE_SCHEME` forces one.
"""

import os
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from lkspace.errors import UserError
from lkspace.kernels import library
from lkspace.kernels.native_calls import SCHEMES

VARIABLE = "LKSPACE_SCHEME"
# Up to this kernel width and height rows.h keeps a kernel row in registers, and 49 multiply-adds beat any transform.
SMALL = 7

Work = tuple[float, float]


class Shape(NamedTuple):
    """What the choice depends on; channels do not matter."""

    n: int
    h: int
    w: int
    kh: int
    kw: int

    @classmethod
    def of(cls, x: Tensor, weight: Tensor) -> "Shape":
        """Taps that cannot reach the map cost nothing."""
        n, _, h, w = x.shape
        return cls(n, h, w, min(weight.shape[2], 2 * h - 1), min(weight.shape[3], 2 * w - 1))


def scheme_for(operation: str, x: Tensor, weight: Tensor) -> str:
    """ "direct" or "frequency" for operation "convolution", "weight gradient" or "both gradients".

    UserError if `LKSPACE_SCHEME` names no scheme.
    """
    if forced := forced_scheme():
        return forced
    shape = Shape.of(x, weight)
    if shape.kh <= SMALL and shape.kw <= SMALL:
        return "direct"
    return cheaper(operation, shape, library.selected())


def forced_scheme() -> str:
    """The scheme that `LKSPACE_SCHEME` names, "" if it is not set; UserError if there is none of that name."""
    forced = os.environ.get(VARIABLE, "")
    if forced and forced not in SCHEMES:
        raise UserError(f"{VARIABLE}={forced}: no such scheme; known: {', '.join(SCHEMES)}")
    return forced


@lru_cache(maxsize=4096)
def cheaper(operation: str, shape: Shape, isa: int) -> str:
    """The scheme of less predicted time; calibrates this machine if nobody has yet."""
    from lkspace.kernels.calibration import coefficients

    costs = coefficients(isa)
    return min(SCHEMES, key=lambda scheme: predicted(costs, scheme, operation, shape))


def predicted(costs: dict[str, list[float]], scheme: str, operation: str, shape: Shape) -> float:
    """Seconds for one group of channels on one thread. costs: a and b by "scheme operation"."""
    if scheme == "direct" and operation == "both gradients":
        return sum(predicted(costs, scheme, part, shape) for part in ("convolution", "weight gradient"))
    a, b = costs[f"{scheme} {operation}"]
    first, second = work(scheme, operation, shape)
    return a * first + b * second


def work(scheme: str, operation: str, shape: Shape) -> Work:
    """What a and b are multiplied by."""
    return _direct_work(shape) if scheme == "direct" else _frequency_work(operation, shape)


def _direct_work(shape: Shape) -> Work:
    return float(shape.n * inside(shape.h, shape.kh) * inside(shape.w, shape.kw)), float(shape.n * shape.h * shape.w)


def inside(size: int, kernel: int) -> int:
    """Pairs of a tap and an output whose pixel lies inside the map, along one side."""
    reach = kernel // 2
    return sum(min(size, i + reach + 1) - max(0, i - reach) for i in range(size))


def _frequency_work(operation: str, shape: Shape) -> Work:
    points = library.transform_points
    down, along = points(shape.h + shape.kh // 2), points(shape.w + shape.kw // 2)
    bins = along // 2 + 1
    columns = bins * library.transform_cost(down)
    plane = -(-shape.h // 2) * library.transform_cost(along) + columns
    kernel = -(-shape.kh // 2) * library.transform_cost(along) + columns
    planes, kernels = (3, 2) if operation == "both gradients" else (2, 1)
    return shape.n * planes * plane + kernels * kernel, float(shape.n * bins * down)
