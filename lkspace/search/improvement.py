"""Expected hypervolume improvement in closed form, for any mix of known and predicted objectives.

A point improves the front by the part of its box that falls into the boxes the front leaves undominated, a product over
objectives; predictions of different objectives are independent, so the expectation is the same product of each one's
expected width (Yang et al., J. Glob. Optim. 2019). A known objective is a prediction without spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from lkspace.search.boxes import undominated_boxes

Floats = npt.NDArray[np.float64]
CHUNK = 4_000_000  # candidates times boxes that are held in memory at once


@dataclass(frozen=True)
class Belief:
    """What is believed of one objective, to be minimised, at n points.

    mean, deviation: (n,), of a normal distribution; a deviation of 0 is knowledge. logarithmic: they are of the
    logarithm of the value.
    """

    mean: Floats
    deviation: Floats
    logarithmic: bool = False

    @classmethod
    def known(cls, values: npt.ArrayLike) -> "Belief":
        """Values that are certain."""
        mean = np.asarray(values, dtype=np.float64)
        return cls(mean, np.zeros_like(mean))

    @property
    def middle(self) -> Floats:
        """The median, in the objective's own unit."""
        return np.exp(self.mean) if self.logarithmic else self.mean

    @property
    def hopeful(self) -> Floats:
        """One deviation better than the median, in the objective's own unit."""
        better = self.mean - self.deviation
        return np.exp(better) if self.logarithmic else better

    def at(self, rows: slice) -> "Belief":
        """The belief at some of the points."""
        return Belief(self.mean[rows], self.deviation[rows], self.logarithmic)

    def shortfall(self, bounds: Floats) -> Floats:
        """Expectation of max(bound - value, 0): (n, k) for bounds (k,), of which -inf gives 0."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.logarithmic:
                # The put option's price (Black & Scholes, 1973): the value is log-normal.
                distance = (np.log(np.maximum(bounds, 0.0))[None] - self.mean[:, None]) / self.deviation[:, None]
                mean = np.exp(self.mean + self.deviation**2 / 2)[:, None]
                uncertain = bounds[None] * ndtr(distance) - mean * ndtr(distance - self.deviation[:, None])
            else:
                gap = bounds[None] - self.mean[:, None]
                distance = gap / self.deviation[:, None]
                density = np.exp(-(distance**2) / 2) / np.sqrt(2 * np.pi)
                uncertain = gap * ndtr(distance) + self.deviation[:, None] * density
            certain = np.maximum(bounds[None] - self.middle[:, None], 0.0)
        value = np.where(self.deviation[:, None] > 0, np.maximum(uncertain, 0.0), certain)
        value[:, bounds == -np.inf] = 0.0
        return np.asarray(value)


def expected_improvement(beliefs: Sequence[Belief], front: npt.ArrayLike, corner: npt.ArrayLike) -> Floats:
    """Expected growth of the hypervolume of `front` below `corner` by each of n points alone: (n,), at least 0.

    beliefs: one an objective. front: (any, m), see `undominated_boxes`. A point of which a mean is NaN gives 0.
    """
    lower, upper = undominated_boxes(front, corner)
    count = len(beliefs[0].mean)
    step = max(1, CHUNK // max(1, len(lower)))
    found = [_expected([b.at(slice(i, i + step)) for b in beliefs], lower, upper) for i in range(0, count, step)]
    gains = np.concatenate(found) if found else np.zeros(0)
    return np.where(np.isfinite(gains), gains, 0.0)


def _expected(beliefs: Sequence[Belief], lower: Floats, upper: Floats) -> Floats:
    product = np.ones((len(beliefs[0].mean), len(lower)))
    for j, belief in enumerate(beliefs):
        bounds, place = np.unique(np.concatenate([lower[:, j], upper[:, j]]), return_inverse=True)
        shortfall = belief.shortfall(bounds)
        product *= shortfall[:, place[len(lower) :]] - shortfall[:, place[: len(lower)]]
    return np.asarray(product.sum(axis=1))
