"""How what is known of a network beforehand becomes its latency, and how well it tells it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from lkspace.ranking import kendall_tau

Floats = NDArray[np.float64]

FEW = 10  # networks measured whole, with fewer only the first term counts


@dataclass(frozen=True)
class Agreement:
    """How estimates compare with the same networks measured whole.

    factor: measured over the first term, the median. The errors are relative to what was measured; each network is
    estimated by the factors that the others give. tau: Kendall's, None if all are equal.
    """

    networks: int
    factor: float
    median_error: float
    error_p95: float
    tau: float | None

    @property
    def text(self) -> str:
        """In one line."""
        tau = "" if self.tau is None else f", Kendall's tau {self.tau:.2f}"
        return (
            f"median error {self.median_error:.1%}, 95 % of errors under {self.error_p95:.1%}{tau}"
            f" ({self.networks} networks measured whole; what the sums leave out: {self.factor - 1:+.0%})"
        )


def factors(terms: Floats, measured: Floats) -> Floats:
    """What each term counts for, (k,), none less than nothing; terms: (n, k), measured: (n,), all positive.

    Least squares of the relative errors, scaled so that half the networks are estimated too low. Of few networks only
    the first term counts, of none it is what will be measured. Rows that are not finite are left out.
    """
    terms, measured = _finite(terms, measured)
    found = np.zeros(terms.shape[1])
    found[0] = 1.0
    if len(measured) >= FEW:
        relative = terms / measured[:, None]
        scale = np.maximum(relative.max(axis=0), np.finfo(np.float64).tiny)  # the solver is at home near 1
        fitted = nnls(relative / scale, np.ones(len(measured)))[0] / scale
        found = fitted if fitted.any() else found
    return found * np.median(measured / (terms @ found)) if len(measured) else found


def agreement(pairs: Iterable[tuple[Sequence[float], float]]) -> Agreement | None:
    """Of (terms, measured); those that are not finite are left out. None if fewer than three are left."""
    rows = np.array([[measured, *terms] for terms, measured in pairs], dtype=np.float64)
    if len(rows) == 0:
        return None
    terms, measured = _finite(rows[:, 1:], rows[:, 0])
    n = len(measured)
    if n < 3:
        return None
    others = ~np.eye(n, dtype=np.bool_)
    expected = np.array([terms[i] @ factors(terms[others[i]], measured[others[i]]) for i in range(n)])
    errors = np.abs(expected / measured - 1)
    return Agreement(
        n,
        float(np.median(measured / terms[:, 0])),
        float(np.median(errors)),
        float(np.percentile(errors, 95)),
        kendall_tau(expected, measured),
    )


def _finite(terms: Floats, measured: Floats) -> tuple[Floats, Floats]:
    whole = np.isfinite(terms).all(axis=1) & np.isfinite(measured)
    return terms[whole], measured[whole]
