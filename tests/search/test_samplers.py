import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from lkspace import registry
from lkspace.errors import UserError
from lkspace.search.candidates import Candidates
from lkspace.search.samplers import Suggestion, suggestion_seed
from lkspace.space.search_space import SearchSpace
from lkspace.study.record import Objective

OBJECTIVES = (Objective("accuracy", "", "maximize"), Objective("flops", "", "minimize"))
SPACE = {"a": CategoricalDistribution([1, 3, 5, 7]), "b": CategoricalDistribution(["x", "y", "z"])}


def suggestion(seed: int = 0, number: int = 0, budget: int = 20) -> Suggestion:
    """Of a space that the samplers which only read the study do not look at."""
    space = SearchSpace.load("replknet-micro")
    return Suggestion(number, seed, budget, Candidates(space, space.costs), OBJECTIVES, {"accuracy": 0.1, "flops": 1e9})


def first_suggestions(name: str, seed: int, told: int = 6) -> list[dict[str, object]]:
    """A few suggestions after `told` trials whose values follow from their parameters, two of them without values."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    rng = np.random.default_rng(3)
    for i in range(told):
        params = {n: d.choices[rng.integers(len(d.choices))] for n, d in SPACE.items()}
        state = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL][
            0 if i < told - 2 else i - told + 3
        ]
        values = [float(params["a"]), float(len(params["b"]))] if i < told - 2 else None
        study.add_trial(optuna.trial.create_trial(state=state, params=params, distributions=dict(SPACE), values=values))
    suggested = []
    for _ in range(3):
        study.sampler = registry.samplers.get(name)(suggestion(seed, len(study.trials)))
        suggested.append(dict(study.ask(dict(SPACE)).params))
    return suggested


@pytest.mark.parametrize("name", ["random", "nsga2", "tpe", "gp"])
@pytest.mark.parametrize("told", [2, 14])
def test_every_sampler_suggests_the_same_for_the_same_seed_and_history(name, told):
    suggested = first_suggestions(name, 0, told)
    assert suggested == first_suggestions(name, 0, told)
    assert all(set(s) == set(SPACE) and all(s[n] in SPACE[n].choices for n in s) for s in suggested)


def test_another_seed_suggests_otherwise():
    assert first_suggestions("random", 0) != first_suggestions("random", 1)


def test_suggestion_seeds_differ_between_trials_and_runs():
    seeds = {suggestion_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000


@pytest.mark.parametrize(("budget", "population"), [(1, 4), (20, 4), (60, 6), (200, 20)])
def test_population_is_a_tenth_of_the_budget_and_at_least_four(budget, population):
    assert registry.samplers.get("nsga2")(suggestion(budget=budget)).population_size == population


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"unknown sampler 'nsga3'; known: gp, nsga2, pareto, random, tpe"):
        registry.samplers.get("nsga3")
