"""What a run tries next: the space's reference points, then what a sampler suggests, never the same twice.

A suggestion that was tried before or breaks a cheap constraint is turned down and counted, and the sampler is asked
again a few times; then a uniformly drawn architecture takes its place. So no trial is spent on a duplicate.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna import Study as OptunaStudy
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from lkspace.scores.agreement import factors
from lkspace.search.candidates import Candidates
from lkspace.search.samplers import MakeSampler, Suggestion
from lkspace.space.architecture import Architecture
from lkspace.study import Asked, Study
from lkspace.study.record import Origin, Plan

_CAPS = {"minimize": "<=", "maximize": ">="}
TRIES = 5  # a Gaussian process takes a quarter of a second each time


class Proposer:
    """Makes new trials of a study, one at a time; a continued run goes on as an uninterrupted one would."""

    def __init__(self, study: Study, candidates: Candidates, make: MakeSampler, seed: int, budget: int) -> None:
        self._study = study
        self._candidates = candidates
        self._make = make
        self._seed = seed
        self._budget = budget
        plan = study.plan
        self._corner = _corner(plan)
        self._bounds = plan.constraints
        self._choices = {v.name: v.choices for v in candidates.space.variables}
        self._trials = len(study.trials)
        self._fresh = self._trials == 0
        self._references = list(candidates.space.reference_points)

    @property
    def trials(self) -> int:
        """How many trials the study has, running ones included."""
        return self._trials

    def start(self) -> tuple[int, Architecture] | None:
        """Start the next trial: its number and architecture; None if the space has nothing new to offer."""
        found = self._reference() or self._suggestion() or self._uniform()
        if found is None:
            return None
        asked, architecture, origin = found
        number = self._study.start(asked, architecture, origin)
        self._candidates.take(architecture)
        self._trials += 1
        return number, architecture

    def _reference(self) -> tuple[Asked, Architecture, Origin] | None:
        """The first of the reference points that is not a trial yet."""
        while self._references:
            architecture = self._references.pop(0)
            params = self._candidates.space.params_of(architecture)
            objection = self._candidates.objection(architecture)
            if objection is None:
                asked = self._given(params) if params is not None else self._study.given(None, self._choices)
                return asked, architecture, "reference point"
            if self._fresh:  # once a run, not once a call
                self._study.reject(self._study.given(params, self._choices), f"reference point: {objection}")
        return None

    def _suggestion(self) -> tuple[Asked, Architecture, Origin] | None:
        sampler = self._sampler()
        for _ in range(TRIES):
            asked = self._study.ask(sampler, self._choices)
            architecture = self._candidates.space.decode(asked.params)
            objection = self._candidates.objection(architecture)
            if objection is None:
                return asked, architecture, "sampler"
            self._study.reject(asked, objection)
        return None

    def _uniform(self) -> tuple[Asked, Architecture, Origin] | None:
        architecture = self._candidates.draw(np.random.default_rng([self._seed, self._trials]))
        if architecture is None:
            return None
        return self._given(self._candidates.space.params_of(architecture) or {}), architecture, "sampler"

    def _given(self, params: Mapping[str, Any]) -> Asked:
        return self._study.ask(Given(self._sampler(), params), self._choices)

    def _sampler(self) -> BaseSampler:
        return self._make(
            Suggestion(
                number=self._trials,
                run_seed=self._seed,
                budget=self._budget,
                candidates=self._candidates,
                objectives=self._study.objectives,
                corner=self._corner,
                factors=self.factors(),
                bounds=self._bounds,
            )
        )

    def factors(self) -> dict[str, list[float]]:
        """What the terms of each estimate count for, by what was measured of the trials so far; before, the first."""
        found = {}
        for name, estimate in self._candidates.estimates.items():
            measured = [t for t in self._study.trials if name in t.values]
            terms = np.array([estimate(t.architecture) for t in measured])
            values = np.array([t.values[name] for t in measured])
            found[name] = factors(terms, values).tolist() if measured else [1.0]
        return found


def _corner(plan: Plan) -> dict[str, float]:
    """The reference point, drawn in to the bounds on objectives: what breaks a bound is worth nothing."""
    corner = dict(plan.reference_point)
    for o in plan.objectives:
        caps = [b.value for b in plan.constraints if b.name == o.name and b.relation == _CAPS[o.direction]]
        corner[o.name] = o.sign * min(o.sign * value for value in (corner[o.name], *caps))
    return corner


class Given(BaseSampler):
    """Proposes `params`, whatever the base says; the base is asked all the same.

    A genetic sampler notes on a trial the generation it belongs to when it is asked, and breeds only from trials
    with such a note.
    """

    def __init__(self, base: BaseSampler, params: Mapping[str, Any]) -> None:
        self._base = base
        self._params = dict(params)

    def infer_relative_search_space(self, study: OptunaStudy, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The base's."""
        return self._base.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: every parameter is then asked for by itself."""
        self._base.sample_relative(study, trial, search_space)
        return {}

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The given one."""
        return self._params[param_name]
