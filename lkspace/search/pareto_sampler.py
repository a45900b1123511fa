"""A sampler that learns only what it must: objectives that can be computed are computed, for thousands of candidates.

Begins with a space-filling design, then fits a Gaussian process to each objective that has to be learnt and suggests
the candidate of the largest expected hypervolume improvement among random points and the front's neighbours and
crossings. Works with plain Optuna; `--sampler pareto` is this one.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from lkspace.search import history
from lkspace.search.history import History
from lkspace.search.improvement import Belief, expected_improvement
from lkspace.search.parameters import Parameters, Params
from lkspace.search.surrogate import Surrogate
from lkspace.study.pareto import non_dominated

Floats = npt.NDArray[np.float64]
Cheap = Callable[[dict[str, Any]], Sequence[float | None]]

STARTUP = 10  # trials before a model is fitted
DESIGN = 40  # random points of which a space-filling design takes the farthest: more would go for the corners
POOL = 1200  # random candidates, the same ones for every suggestion so that `cheap` can remember them
FRESH = 150  # random candidates that are new each time
NEAR = 300  # neighbours and crossings of the front, of each
ENUMERATED = 3000  # a space up to this size is looked at whole
CLIMBS, CLIMBERS = 3, 4  # rounds of looking at the neighbours of the best few
MARGIN = 0.1  # of the front's extent, by which the corner lies beyond it
# Part of the uncertainty that counts: few trials repay less exploring than the whole of it asks for (De Ath et al.,
# "Greed is good", ACM TELO 2021).
CURIOSITY = 0.5


class ParetoSampler(BaseSampler):
    """Suggests by expected hypervolume improvement, with the cheap objectives exact.

    cheap: the objectives' values of a point in the study's order and directions, None for each one that has to be
    learnt; the same ones for every point. A value that is not finite marks a point of no use.
    features: a vector for the models, by default the encoded parameters; what is cheap makes good features.
    seed: the same seed and the same history give the same suggestion; None for another one every time.

    allowed: which points may be suggested, all by default. corner: the worst value of each objective that is worth
    anything; by default a little beyond the front so far. logarithmic: indices of learnt objectives whose logarithm is
    modelled, such as times. space: the search space; by default what the trials so far have in common.
    startup: trials before a model is fitted. pool_seed: of the candidates that come again for every suggestion, by
    default the same as `seed`. number: of the trial that is suggested for, where its own is another each time.

    All it knows it reads from the study. Trials under way count as ended at their predicted value. A point that has
    been tried is not suggested again, however it ended. Partial trainings count if a trial tells of them:
    `lkspace.study.partial.note`.
    """

    def __init__(
        self,
        cheap: Cheap,
        *,
        features: Callable[[dict[str, Any]], npt.ArrayLike] | None = None,
        seed: int | None = None,
        allowed: Callable[[dict[str, Any]], bool] | None = None,
        corner: Sequence[float] | None = None,
        logarithmic: Sequence[int] = (),
        space: Mapping[str, BaseDistribution] | None = None,
        startup: int = STARTUP,
        pool_seed: int | None = None,
        number: int | None = None,
    ) -> None:
        self._cheap = cheap
        self._features = features
        self._allowed = allowed or (lambda params: True)
        self._corner = corner
        self._logarithmic = tuple(logarithmic)
        self._space = dict(space) if space is not None else None
        self._startup = startup
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._pool_seed = self._seed if pool_seed is None else pool_seed
        self._number = number
        self._independent = np.random.default_rng([self._seed, 1])

    def reseed_rng(self) -> None:
        """For a copy in another process, which would suggest the same otherwise."""
        self._seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._independent = np.random.default_rng([self._seed, 1])

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What was given, or what all trials have in common."""
        return {name: d for name, d in self._whole(study).items() if not d.single()}

    def _whole(self, study: Study) -> Mapping[str, BaseDistribution]:
        """With the parameters of a single value, which `cheap` and `features` are given too."""
        return history.shared_space(study.get_trials(deepcopy=False)) if self._space is None else self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The suggestion; nothing as long as the search space is not known."""
        if not search_space:
            return {}
        parameters = Parameters(search_space)
        past = history.read(study.get_trials(deepcopy=False), parameters, search_space, study.directions)
        rng = np.random.default_rng([self._seed, trial.number if self._number is None else self._number])
        single = {name: _only(d) for name, d in self._whole(study).items() if d.single()}
        choice = _Choice(self, parameters, past, study.directions, single, rng)
        return choice.best()

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Uniform: for parameters that are not in the search space yet."""
        value: Any = Parameters({param_name: param_distribution}).random(1, self._independent)[0][param_name]
        return value


class _Choice:
    """The making of one suggestion."""

    def __init__(
        self,
        sampler: ParetoSampler,
        parameters: Parameters,
        past: History,
        directions: Sequence[StudyDirection],
        single: Params,
        rng: np.random.Generator,
    ) -> None:
        self.sampler, self.parameters, self.past, self.rng = sampler, parameters, past, rng
        self.single = single
        self.signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
        self.seen = set(past.tried)
        self.points: list[Params] = []
        self.exact: list[Floats] = []

    def best(self) -> Params:
        """The point to suggest."""
        pool = np.random.default_rng(self.sampler._pool_seed)
        small = self.parameters.size <= ENUMERATED
        started = len(self.past.known) + len(self.past.pending)
        learnt = self._learnt()
        if (started < self.sampler._startup and learnt) or not self._learnable(learnt):
            return self._design(list(self.parameters.all()) if small else self.parameters.random(DESIGN, self.rng))
        surrogate = Surrogate(self.past, self._exact, self._features, learnt, self.sampler._logarithmic, self.rng)
        points, rows = self._front(surrogate)
        # The whole of a small space, or points from everywhere; what lies near the front in any case.
        wide = self.parameters.all() if small else self.parameters.random(POOL, pool)
        self._admit([*wide, *self.parameters.random(FRESH, self.rng), *self._near(points)])
        if not self.points:
            return self._design([])
        beliefs = self._beliefs(surrogate, 0)
        corner = self._corner(rows, np.column_stack([belief.hopeful for belief in beliefs]))
        gains = expected_improvement(beliefs, rows, corner)
        for _ in range(CLIMBS):
            top = np.argsort(-gains, kind="stable")[:CLIMBERS]
            count = len(self.points)
            self._admit([step for i in top if gains[i] > 0 for step in self.parameters.steps(self.points[i])])
            if len(self.points) == count:
                break
            beliefs = self._beliefs(surrogate, count)
            gains = np.concatenate([gains, expected_improvement(beliefs, rows, corner)])
            if int(np.argmax(gains)) < count:
                break
        return self.points[int(np.argmax(gains))] if gains.max() > 0 else self._design([])

    def _learnt(self) -> list[int]:
        """Which objectives have to be: those that are None, of some point."""
        return [j for j, v in enumerate(self._values(self.parameters.random(1, self.rng)[0])) if v is None]

    def _learnable(self, learnt: Sequence[int]) -> bool:
        return all(np.isfinite(self.past.values[:, j]).any() for j in learnt)

    def _values(self, params: Params) -> Sequence[float | None]:
        values = self.sampler._cheap({**params, **self.single})
        if len(values) != len(self.signs):
            raise ValueError(f"cheap gave {len(values)} values, the study has {len(self.signs)} objectives")
        return values

    def _exact(self, params: Params) -> Floats:
        return self.signs * np.array([np.nan if v is None else v for v in self._values(params)], dtype=np.float64)

    def _features(self, params: Params) -> Floats:
        if self.sampler._features is None:
            return self.parameters.encode(params)
        return np.asarray(self.sampler._features({**params, **self.single}), dtype=np.float64)

    def _admit(self, points: Sequence[Params]) -> None:
        """Add the points that are new and allowed to the candidates."""
        for params in points:
            key = self.parameters.key(params)
            if key not in self.seen:
                self.seen.add(key)
                if self.sampler._allowed({**params, **self.single}):
                    self.points.append(params)
                    self.exact.append(self._exact(params))

    def _beliefs(self, surrogate: Surrogate, first: int) -> list[Belief]:
        """Of the candidates from this one on, with the uncertainty that counts."""
        found = surrogate.beliefs(self.points[first:], np.vstack(self.exact[first:]))
        return [dataclasses.replace(belief, deviation=CURIOSITY * belief.deviation) for belief in found]

    def _front(self, surrogate: Surrogate) -> tuple[list[Params], Floats]:
        """Points of the front, and what is believed of them, (n, m): of all whole trials and those under way.

        Learnt values are the model's, so that one lucky measurement does not hide a region.
        """
        points = [p for p, whole in zip(self.past.known, self.past.complete, strict=True) if whole] + self.past.pending
        if not points:
            return [], np.zeros((0, len(self.signs)))
        rows = np.column_stack([belief.middle for belief in surrogate.beliefs(points)])
        on = non_dominated(rows)
        return [p for p, kept in zip(points, on, strict=True) if kept], rows[on]

    def _corner(self, front: Floats, hopeful: Floats) -> Floats:
        """The given one, or one beyond the worst values of what may be the front by a tenth of its extent.

        What may be the front: hopeful, (n, m), what the candidates come to if they do better than expected. The front
        so far would not do: it lacks the ends that nobody has looked at yet.
        """
        if self.sampler._corner is not None:
            return self.signs * np.asarray(self.sampler._corner, dtype=np.float64)
        rows = np.vstack([front, hopeful])
        rows = rows[non_dominated(rows)]
        if not len(rows):
            return np.zeros(len(self.signs))
        low, high = rows.min(axis=0), rows.max(axis=0)
        extent = np.where(high > low, high - low, np.maximum(np.abs(high), 1e-6))
        return np.asarray(high + MARGIN * extent)

    def _near(self, front: Sequence[Params]) -> list[Params]:
        """Neighbours and crossings of front members, at random so many."""
        if not front:
            return []
        steps = [step for params in front for step in self.parameters.steps(params)]
        kept = self.rng.permutation(len(steps))[:NEAR]
        pairs = self.rng.integers(len(front), size=(NEAR if len(front) > 1 else 0, 2))
        return [steps[i] for i in kept] + [self.parameters.cross(front[a], front[b], self.rng) for a, b in pairs]

    def _design(self, points: Sequence[Params]) -> Params:
        """The point farthest from all tried ones (Mitchell's best candidate, 1991); any if all have been tried."""
        if not self.points:
            self._admit(points)
        for _ in range(50):
            if self.points:
                break
            self._admit(self.parameters.random(DESIGN, self.rng))
        if not self.points:
            return self.parameters.random(1, self.rng)[0]
        order = self.rng.permutation(len(self.points))[:DESIGN]
        candidates: list[Params] = [self.points[i] for i in order]
        there = [*self.past.known, *self.past.pending, *(p for ps, _ in self.past.begun.values() for p in ps)]
        if not there:
            return candidates[0]
        a = np.vstack([self.parameters.encode(p) for p in candidates])
        b = np.vstack([self.parameters.encode(p) for p in there])
        distances = ((a[:, None] - b[None]) ** 2).sum(axis=2).min(axis=1)
        return candidates[int(np.argmax(distances))]


def _only(distribution: BaseDistribution) -> Any:
    """The one value of a distribution that has one."""
    only: Any = Parameters({"": distribution}).random(1, np.random.default_rng(0))[0][""]
    return only
