"""The samplers that `--sampler` names: functions that make an Optuna sampler for one suggestion.

A sampler is made anew for every trial and seeded from the run's seed and the trial's number, so it keeps nothing
in memory: what it knows it reads from the study, and a continued run suggests what an uninterrupted one would.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna import Study
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from lkspace import registry
from lkspace.quantity import Bound
from lkspace.registry import samplers
from lkspace.search.candidates import Candidates, Point
from lkspace.search.pareto_sampler import ParetoSampler
from lkspace.study.proposals import distribution
from lkspace.study.record import Objective


@dataclass(frozen=True)
class Suggestion:
    """One suggestion to be made, and all that a sampler may know beside the study.

    number: of the trial. run_seed, budget: of the whole run. candidates: the space, its cheap scores and what may still
    be tried. objectives: in the study's order. corner: per objective the worst value that is worth anything. factors:
    what the terms of the candidates' estimates count for, those left out nothing. bounds: of the run.
    """

    number: int
    run_seed: int
    budget: int
    candidates: Candidates
    objectives: tuple[Objective, ...]
    corner: Mapping[str, float]
    factors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    bounds: Sequence[Bound] = ()

    @property
    def seed(self) -> int:
        """Of this suggestion alone."""
        return suggestion_seed(self.run_seed, self.number)


USE_ESTIMATES = ("pareto",)  # the samplers that look at estimates, which take time to have
ESTIMATED = "latency"  # the measured score that there are estimates of
# What an entry of lkspace.registry.samplers is.
MakeSampler = Callable[[Suggestion], BaseSampler]


def suggestion_seed(seed: int, number: int) -> int:
    """The seed of trial `number`'s suggestion in a run seeded with `seed`: 32 bits, unrelated between trials."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class RepeatableNSGAII(NSGAIISampler):
    """NSGA-II whose parents come in the same order whether they were selected just now or read from the study.

    Optuna's come best first when a generation begins and by number after that, so a run continued in the middle of
    a generation would draw other pairs.
    """

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The parents of a generation by number."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


@samplers.register("random")
def random(suggestion: Suggestion) -> BaseSampler:
    """Every choice uniform."""
    return RandomSampler(seed=suggestion.seed)


@samplers.register("nsga2")
def nsga2(suggestion: Suggestion) -> BaseSampler:
    """NSGA-II (Deb et al., 2002), about ten generations: Optuna's population of 50 leaves 200 trials only four."""
    return RepeatableNSGAII(seed=suggestion.seed, population_size=max(4, round(suggestion.budget / 10)))


@samplers.register("tpe")
def tpe(suggestion: Suggestion) -> BaseSampler:
    """Tree-structured Parzen estimator, multi-objective (Ozaki et al., 2022)."""
    return TPESampler(seed=suggestion.seed, n_startup_trials=startup(suggestion.budget), multivariate=False)


@samplers.register("gp")
def gp(suggestion: Suggestion) -> BaseSampler:
    """Gaussian process with log expected hypervolume improvement; seconds a suggestion at hundreds of trials."""
    return GPSampler(seed=suggestion.seed, n_startup_trials=startup(suggestion.budget))


@samplers.register("pareto")
def pareto(suggestion: Suggestion) -> BaseSampler:
    """Gaussian processes for what must be learnt, the rest computed or looked up; see `ParetoSampler`."""
    candidates, objectives = suggestion.candidates, suggestion.objectives
    cheap = {o.name for o in objectives if registry.scores.get(o.name).cheap}
    known = [o.name in cheap or o.name in suggestion.factors for o in objectives]
    estimated = [b for b in suggestion.bounds if b.name in suggestion.factors]

    def expected(point: Point) -> dict[str, float]:
        return {
            name: sum(f * term for f, term in zip(factors, point.estimates[name], strict=False))
            for name, factors in suggestion.factors.items()
        }

    def values(params: Mapping[str, Any]) -> list[float | None]:
        point = candidates.point(params)
        found = {**point.costs, **expected(point)}
        return [found[o.name] if exact else None for o, exact in zip(objectives, known, strict=True)]

    def allowed(params: Mapping[str, Any]) -> bool:
        point = candidates.point(params)
        return candidates.allows(point) and all(b.holds(expected(point)[b.name]) for b in estimated)

    return ParetoSampler(
        values,
        features=lambda params: candidates.point(params).features,
        seed=suggestion.seed,
        number=suggestion.number,
        pool_seed=suggestion.run_seed,
        allowed=allowed,
        corner=[suggestion.corner[o.name] for o in objectives],
        # What is measured and to be small is a cost, of which ratios matter.
        logarithmic=[j for j, o in enumerate(objectives) if not known[j] and o.direction == "minimize"],
        space={v.name: distribution(v.choices) for v in candidates.space.variables},
        startup=startup(suggestion.budget),
    )


def startup(budget: int) -> int:
    """Random trials before a model is fitted: Optuna's ten, fewer where that would be most of the budget."""
    return max(2, min(10, budget // 4))
