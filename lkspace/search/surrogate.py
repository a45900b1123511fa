"""Beliefs in the objectives: those that are cheap by computing them, the others by a Gaussian process each."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lkspace.search.fidelity import expected_final
from lkspace.search.gaussian_process import GaussianProcess
from lkspace.search.history import History
from lkspace.search.improvement import Belief
from lkspace.search.parameters import Params
from lkspace.study.pareto import MISSING, ranks

Floats = npt.NDArray[np.float64]
ROWS = 1000  # trials that a process is given, those stopped early among them: 2,000 would take it a second more
Exact = Callable[[Params], Floats]  # the objectives to be minimised, NaN for those to be learnt
Features = Callable[[Params], Floats]


class Surrogate:
    """What a history says of every point; made for one suggestion.

    exact, features: of a point. learnt: which objectives have a process. logarithmic: which of those on a log scale;
    one that has a value of 0 or less is not.
    """

    def __init__(
        self,
        history: History,
        exact: Exact,
        features: Features,
        learnt: Sequence[int],
        logarithmic: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        self._exact, self._features = exact, features
        self._processes: dict[int, GaussianProcess] = {}
        self._logarithmic: dict[int, bool] = {}
        unseen = _stack(features, history.pending) if history.pending else None
        known = _stack(features, history.known) if learnt else np.zeros((0, 0))
        for j in learnt:
            values = history.values[:, j]
            self._logarithmic[j] = j in logarithmic and bool((values[np.isfinite(values)] > 0).all())
            finite = np.isfinite(values)
            have, partial = np.flatnonzero(finite), self._partial(history, j)
            begun = sum(len(points) for points, _, _ in partial)
            share = min(begun, max(ROWS - len(have), ROWS // 4))
            have = have[_chosen(history.values[have], rng, ROWS - share)]
            rows, targets, extra = [known[have]], [self._scaled(j, values[have])], [np.zeros(len(have))]
            for points, expected, variance in partial:
                kept = np.arange(len(points))
                if share < begun:
                    kept = rng.permutation(kept)[: len(kept) * share // begun]
                rows.append(_stack(features, [points[i] for i in kept]))
                targets.append(expected[kept])
                extra.append(np.full(len(kept), variance))
            self._processes[j] = GaussianProcess(
                np.vstack(rows), np.concatenate(targets), rng, np.concatenate(extra), unseen
            )

    def beliefs(self, points: Sequence[Params], exact: Floats | None = None) -> list[Belief]:
        """One belief an objective in these points. exact: (n, m) what is computed of them, if it is there already."""
        rows = _stack(self._exact, points) if exact is None else exact
        features = _stack(self._features, points) if self._processes else rows
        found = []
        for j in range(rows.shape[1]):
            if j in self._processes:
                mean, deviation = self._processes[j].predict(features)
                found.append(Belief(mean, deviation, self._logarithmic[j]))
            else:
                found.append(Belief.known(rows[:, j]))
        return found

    def _scaled(self, j: int, values: Floats) -> Floats:
        return np.log(values) if self._logarithmic[j] else values

    def _partial(self, history: History, j: int) -> list[tuple[list[Params], Floats, float]]:
        """Points that were stopped early, what they are expected to come to, and the variance of that."""
        found = []
        for fidelity, (points, rows) in history.begun.items():
            first, last = history.pairs.get(fidelity, (rows[:0], rows[:0]))
            pairs = np.column_stack([first[:, j], last[:, j]])
            pairs, have = pairs[np.isfinite(pairs).all(axis=1)], np.isfinite(rows[:, j])
            if self._logarithmic[j] and ((rows[have, j] <= 0).any() or (pairs <= 0).any()):
                continue
            expected, variance = expected_final(self._scaled(j, rows[have, j]), self._scaled(j, pairs))
            if have.any() and math.isfinite(variance):
                found.append(([p for p, has in zip(points, have, strict=True) if has], expected, variance))
        return found


def _chosen(values: Floats, rng: np.random.Generator, most: int) -> npt.NDArray[np.bool_]:
    """All rows, or of more than `most` those on the first fronts, up to a half, and others at random."""
    n = len(values)
    if n <= most:
        return np.ones(n, dtype=np.bool_)
    fronts = ranks(values)
    shuffled = rng.permutation(n)
    best = shuffled[np.argsort(np.where(fronts == MISSING, n, fronts)[shuffled], kind="stable")][: most // 2]
    chosen = np.zeros(n, dtype=np.bool_)
    chosen[best] = True
    rest = shuffled[~chosen[shuffled]]
    chosen[rest[: most - len(best)]] = True
    return chosen


def _stack(function: Callable[[Params], Floats], points: Sequence[Params]) -> Floats:
    return np.vstack([function(point) for point in points]) if points else np.zeros((0, 0))
