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
    """95 % interval of tau: of each end the farther one of two.

    By bootstrap over pairs, seeded; resamples without a tau are left out, None if all are. And by its approximate
    standard error (Fieller, Hartley & Pearson, 1957) around a tau that is at least one pair short of perfect: where all
    pairs agree, so do they in every resample, and the bootstrap alone would be certain after five.
    """
    picks = np.random.default_rng(0).integers(0, len(a), (resamples, len(a)))
    taus = [tau for pick in picks if (tau := kendall_tau(a[pick], b[pick])) is not None]
    if not taus:
        return None
    low, high = map(float, np.percentile(taus, [2.5, 97.5]))
    tau, n = kendall_tau(a, b), len(a)
    if tau is not None and n > 4:
        most = 1 - 4 / (n * (n - 1))  # one pair turned
        middle, half = math.atanh(min(max(tau, -most), most)), 1.96 * math.sqrt(0.437 / (n - 4))
        low, high = min(low, math.tanh(middle - half)), max(high, math.tanh(middle + half))
    return low, high
