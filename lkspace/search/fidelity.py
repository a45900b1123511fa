"""What a partial training says of the whole one: a line through the trials that have both."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
TRUST = 4  # pairs for which it is assumed beforehand that a value keeps its distance from the mean


def expected_final(begun: Floats, pairs: Floats) -> tuple[Floats, float]:
    """What values at a fidelity come to at the end, and the variance of that.

    begun: (k,) values at the fidelity of trials without an end. pairs: (n, 2), the value there and the final one of
    trials that have both. A straight line through the pairs, drawn towards slope 1 as long as there are few; with fewer
    than two nothing can be said and the variance is infinite.
    """
    if len(pairs) < 2:
        return begun, math.inf
    first, last = pairs.T
    centred = first - first.mean()
    spread = float(centred @ centred)
    prior = TRUST * float(np.var(first)) + 1e-12
    slope = (float(centred @ (last - last.mean())) + prior) / (spread + prior)
    rest = last - last.mean() - slope * centred
    # The spread of few residuals is a weak estimate: as many again of the spread of the values are assumed beside them.
    variance = (float(rest @ rest) + float(np.var(last)) + 1e-12) / (len(pairs) - 1)
    distance = (begun - first.mean()) ** 2 / (spread + prior)
    return last.mean() + slope * (begun - first.mean()), variance * (1 + float(np.mean(distance)) if len(begun) else 1)
