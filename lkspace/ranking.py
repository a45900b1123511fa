"""Whether two rankings agree. Imports nothing of the package: scores, study and benchmarks ask alike."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def kendall_tau(a: Floats, b: Floats) -> float | None:
    """Tau-b of two (n,); None for fewer than three pairs or if one side is constant (Kendall, 1945)."""
    if len(a) < 3:
        return None
    upper = np.triu_indices(len(a), 1)
    signs = [np.sign(side[:, None] - side[None])[upper] for side in (a, b)]
    weight = math.sqrt(float((signs[0] ** 2).sum() * (signs[1] ** 2).sum()))
    return float((signs[0] * signs[1]).sum() / weight) if weight else None


def tau_interval(a: Floats, b: Floats, resamples: int) -> tuple[float, float] | None:
    """95 % percentile interval of tau by bootstrap over pairs, seeded; resamples without a tau are left out, None if
    all are."""
    picks = np.random.default_rng(0).integers(0, len(a), (resamples, len(a)))
    taus = [tau for pick in picks if (tau := kendall_tau(a[pick], b[pick])) is not None]
    if not taus:
        return None
    low, high = np.percentile(taus, [2.5, 97.5])
    return float(low), float(high)
