"""An exact Gaussian process for a few thousand points on one core.

Matern-5/2 with a length per feature plus a linear trend, noise learnt (Rasmussen & Williams, 2006, sections 2.7, 4.2
and 5.4); the hyperparameters are those of the highest posterior density. scikit-learn's takes the gradient through an
array of (n, n, features), which makes it too slow to be fitted anew for every suggestion.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]
FITTED = 200  # rows that hyperparameters are fitted to: cubic in them, and more change little
STEPS = 40  # evaluations of the density; the last digits of a length are worth nothing
JITTER = 1e-8
_ROOT5 = np.sqrt(5.0)
# Of the logarithms, normal: mean and deviation. Lengths are for features scaled to a deviation of 1 each and grow with
# their number, as distances do (Hvarfner et al., ICML 2024).
_LENGTH, _AMPLITUDE, _TREND, _NOISE = (0.5, 1.0), (-0.5, 1.0), (-3.0, 1.5), (-4.0, 1.5)
_BOUNDS = (-9.0, 6.0)


@dataclass(frozen=True)
class _Scale:
    """Data brought to mean 0 and deviation 1; what is constant stays 0."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, rows: Floats) -> "_Scale":
        deviation = rows.std(axis=0)
        tiny = deviation <= 1e-12 * np.maximum(1.0, np.abs(rows).max(axis=0))
        return cls(rows.mean(axis=0), np.where(tiny, 1.0, deviation))

    def apply(self, rows: Floats) -> Floats:
        return (rows - self.mean) / self.deviation


class GaussianProcess:
    """Fitted to data when made; `predict` is then the belief in the function behind the noisy values.

    features: (n, d); targets: (n,), finite, n at least 1. extra: (n,) variance of each target beyond the common noise,
    in the target's unit squared; 0 by default. unseen: (p, d) places where a target is on its way: the prediction
    stays, the uncertainty shrinks as if it had arrived. rng: picks the rows to fit if there are many.
    """

    def __init__(
        self,
        features: Floats,
        targets: Floats,
        rng: np.random.Generator,
        extra: Floats | None = None,
        unseen: Floats | None = None,
    ) -> None:
        n = len(targets)
        self._inputs, self._output = _Scale.of(features), _Scale.of(targets)
        x, y = self._inputs.apply(features), self._output.apply(targets)
        extra = (np.zeros(n) if extra is None else extra) / self._output.deviation**2
        chosen = np.arange(n) if n <= FITTED else np.sort(rng.choice(n, FITTED, replace=False))
        self._theta = _fit(x[chosen], y[chosen], extra[chosen])
        self.noise = float(np.exp(self._theta[-1] / 2) * self._output.deviation)
        seen = x if unseen is None else np.vstack([x, self._inputs.apply(unseen)])
        more = np.concatenate([extra, np.zeros(len(seen) - n)])
        # The leading block of the factor of all rows is the factor of those that have a target.
        self._factor = _factor(_kernel(seen, seen, self._theta), np.exp(self._theta[-1]) + more)
        self._seen, self._count = seen, n
        self._weights = cho_solve((self._factor[:n, :n], True), y)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, each (k,), at features (k, d), in the target's unit and without its noise."""
        x = self._inputs.apply(features)
        across = _kernel(self._seen, x, self._theta)
        mean = across[: self._count].T @ self._weights
        solved = solve_triangular(self._factor, across, lower=True, check_finite=False, overwrite_b=True)
        variance = _prior_variance(x, self._theta) - np.einsum("ij,ij->j", solved, solved)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        return mean * self._output.deviation + self._output.mean, deviation * self._output.deviation


# theta: logarithms of d lengths, of the variances of Matern part, of linear trend and of noise.


def _kernel(a: Floats, b: Floats, theta: Floats) -> Floats:
    scaled = np.exp(-theta[:-3])
    distance = _distances(a * scaled, b * scaled)
    smooth = np.exp(theta[-3]) * (1 + _ROOT5 * distance + 5 / 3 * distance**2) * np.exp(-_ROOT5 * distance)
    return np.asarray(smooth + np.exp(theta[-2]) * (a @ b.T) / a.shape[1])


def _prior_variance(x: Floats, theta: Floats) -> Floats:
    return np.asarray(np.exp(theta[-3]) + np.exp(theta[-2]) * np.einsum("ij,ij->i", x, x) / x.shape[1])


def _distances(a: Floats, b: Floats) -> Floats:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _factor(kernel: Floats, noise: Floats) -> Floats:
    kernel = kernel.copy()
    kernel[np.diag_indices_from(kernel)] += noise + JITTER
    return np.asarray(cholesky(kernel, lower=True, check_finite=False, overwrite_a=True))


def _priors(d: int) -> tuple[Floats, Floats]:
    length = (_LENGTH[0] + np.log(d) / 2, _LENGTH[1])
    pairs = np.array([length] * d + [_AMPLITUDE, _TREND, _NOISE])
    return pairs[:, 0], pairs[:, 1]


def _fit(x: Floats, y: Floats, extra: Floats) -> Floats:
    """The theta of highest posterior density from the prior's middle on."""
    start, _ = _priors(x.shape[1])
    bounds = [_BOUNDS] * len(start)
    found = minimize(
        _loss, start, args=(x, y, extra), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxfun": STEPS}
    )
    return np.asarray(found.x if np.isfinite(found.fun) else start)


def _loss(theta: Floats, x: Floats, y: Floats, extra: Floats) -> tuple[float, Floats]:
    """Negative logarithm of the density of theta, up to a constant, and its gradient."""
    n, d = x.shape
    mean, deviation = _priors(d)
    scaled = x * np.exp(-theta[:-3])
    distance = _distances(scaled, scaled)
    decay = np.exp(theta[-3] - _ROOT5 * distance)
    smooth = (1 + _ROOT5 * distance + 5 / 3 * distance**2) * decay
    trend = np.exp(theta[-2]) * (x @ x.T) / d
    noise = np.exp(theta[-1])
    try:
        factor = _factor(smooth + trend, noise + extra)
    except np.linalg.LinAlgError:
        return np.inf, np.zeros_like(theta)
    weights = cho_solve((factor, True), y, check_finite=False)
    z = (theta - mean) / deviation
    loss = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * z @ z
    # Derivative by the kernel matrix, then the chain rule; the sums over pairs of (x_i - x_j)^2 are matrix products.
    by_kernel = 0.5 * (cho_solve((factor, True), np.eye(n), check_finite=False) - np.outer(weights, weights))
    slope = by_kernel * (5 / 3) * (1 + _ROOT5 * distance) * decay
    squares = 2 * (slope.sum(axis=1) @ scaled**2 - np.einsum("id,id->d", scaled, slope @ scaled))
    gradient = np.concatenate(
        [squares, [(by_kernel * smooth).sum(), (by_kernel * trend).sum(), noise * np.trace(by_kernel)]]
    )
    return float(loss), gradient + z / deviation
