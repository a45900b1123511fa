"""The samplers that `--sampler` names: functions that make an Optuna sampler for one suggestion.

A sampler is made anew for every trial and seeded from the run's seed and the trial's number, so it keeps nothing
in memory: what it knows it reads from the study, and a continued run suggests what an uninterrupted one would.
"""

from collections.abc import Callable

import numpy as np
from optuna import Study
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from lkspace.registry import samplers

# (seed of this suggestion, budget of the run) -> sampler; what an entry of lkspace.registry.samplers is.
MakeSampler = Callable[[int, int], BaseSampler]


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
def random(seed: int, budget: int) -> BaseSampler:
    """Every choice uniform."""
    return RandomSampler(seed=seed)


@samplers.register("nsga2")
def nsga2(seed: int, budget: int) -> BaseSampler:
    """NSGA-II (Deb et al., 2002), about ten generations: Optuna's population of 50 leaves 200 trials only four."""
    return RepeatableNSGAII(seed=seed, population_size=max(4, round(budget / 10)))


@samplers.register("tpe")
def tpe(seed: int, budget: int) -> BaseSampler:
    """Tree-structured Parzen estimator, multi-objective (Ozaki et al., 2022)."""
    return TPESampler(seed=seed, n_startup_trials=_startup(budget), multivariate=False)


@samplers.register("gp")
def gp(seed: int, budget: int) -> BaseSampler:
    """Gaussian process with log expected hypervolume improvement; seconds a suggestion at hundreds of trials."""
    return GPSampler(seed=seed, n_startup_trials=_startup(budget))


def _startup(budget: int) -> int:
    """Random trials before a model is fitted: Optuna's ten, fewer where that would be most of the budget."""
    return max(2, min(10, budget // 4))
