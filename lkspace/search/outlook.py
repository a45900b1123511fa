"""Who goes on at a rung: a training that may still end on the front, going by what others like it came to.

Early in a training its accuracy says little of the end, and what the architecture is says more. So a training is
expected to end where a ridge regression on all of them puts it, and stops if one that has ended and costs no more is
ahead of that by a good part of the error.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

AHEAD = 1.2  # deviations of the expectation by which another one must be ahead
FEW = 10  # trainings must have ended before one is stopped
_PULL = 3.0  # of the ridge, in observations


def goes_on(learnt: Floats, ends: Floats, fixed: Floats, features: Floats, row: int) -> bool:
    """Whether the training in this row may still end on the front.

    All to be minimised, n trainings that reached the rung. learnt: (n, m) what they had there of the objectives that
    training changes. ends: (n, m) what those came to, NaN for trainings that have not ended. fixed: (n, c) the other
    objectives; c may be 0. features: (n, d) what is known of a candidate beforehand.

    True as long as fewer than ten have ended; False if a learnt value is not finite.
    """
    if not np.isfinite(learnt[row]).all():
        return False
    others = np.arange(len(ends)) != row
    ended = others & np.isfinite(ends).all(axis=1) & np.isfinite(learnt).all(axis=1)
    if ended.sum() < FEW:
        return True
    lead = np.full(int(ended.sum()), np.inf)
    for j in range(learnt.shape[1]):
        known = np.column_stack([learnt[:, j], features])
        expected, deviation = expected_end(known[ended], ends[ended, j], known[row])
        lead = np.minimum(lead, (expected - ends[ended, j]) / deviation)
    rivals = (fixed[ended] <= fixed[row]).all(axis=1)
    return bool((lead[rivals] <= AHEAD).all())


def expected_end(known: Floats, ends: Floats, row: Floats) -> tuple[float, float]:
    """Where a training ends of which `row` (d,) is known, and the standard deviation of that.

    known: (n, d) and ends: (n,) of others. A ridge regression on standardised columns; the deviation is that of the
    residuals with each training left out, wider away from the middle (Hastie et al., "The Elements of Statistical
    Learning", 2009, sections 3.4 and 7.10), with one observation's worth of the deviation of all ends.
    """
    n = len(ends)
    middle, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 1e-9 * np.maximum(1.0, np.abs(middle)), scale, np.inf)  # what is constant tells nothing
    x, centred = (known - middle) / scale, ends - ends.mean()
    inverse = np.linalg.inv(x.T @ x + _PULL * np.eye(x.shape[1]))
    slopes = inverse @ (x.T @ centred)
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x) + 1 / n
    left_out = (centred - x @ slopes) / (1 - np.minimum(leverage, 0.95))
    variance = (left_out @ left_out + centred.var()) / (n + 1)
    here = (row - middle) / scale
    far = (1 + here @ inverse @ here + 1 / n) / (1 + leverage.mean())
    return float(ends.mean() + here @ slopes), float(np.sqrt(variance * far) + 1e-12)


def distance_left(values: Floats, ends: Floats, ideal: float) -> tuple[Floats, Floats]:
    """Logarithms of what is left to the ideal, (n,) each, so that to halve an error counts the same everywhere.

    values: at a rung; ends: NaN where there is none yet; both to be minimised. Nothing is nearer to the ideal than a
    twentieth of the middle end, which is noise. As they are if one lies beyond the ideal or most have reached it.
    """
    left = ends[np.isfinite(ends)] - ideal
    if not len(left) or (left < 0).any() or (values - ideal < 0).any() or not (middle := np.median(left)) > 0:
        return values, ends
    return np.log(np.maximum(values - ideal, middle / 20)), np.log(np.maximum(ends - ideal, middle / 20))
