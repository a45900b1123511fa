"""The sampler in plain Optuna: its contract, what it respects, and that what it knows makes it better than chance."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from lkspace.search import ParetoSampler, pareto_sampler
from lkspace.search.surrogate import Surrogate
from lkspace.study import partial
from lkspace.study.pareto import hypervolume

kit = pytest.importorskip("optuna.testing.pytest_samplers")

SPACE = {
    "width": CategoricalDistribution([8, 16, 32, 64]),
    "depth": IntDistribution(1, 6),
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "act": CategoricalDistribution(["relu", "gelu", None]),
}


@pytest.fixture(autouse=True)
def fewer_candidates(monkeypatch):
    """Hundreds in place of thousands: what is tested here does not depend on how many."""
    for name, count in (("POOL", 200), ("FRESH", 50), ("NEAR", 60)):
        monkeypatch.setattr(f"lkspace.search.pareto_sampler.{name}", count)


class TestContractOfOptunasSamplers(
    kit.BasicSamplerTestCase, kit.RelativeSamplerTestCase, kit.MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self):
        return lambda: ParetoSampler(lambda params: [None], seed=0)


def cost(p):
    return p["width"] * p["depth"]


def quality(p):
    loss = (math.log10(p["rate"]) + 2.5) ** 2 + 0.3 * (p["act"] is None) - 0.2 * (p["act"] == "gelu")
    return math.log(cost(p)) - loss


def everything(p):
    """Four objectives, two of them to be maximised; the first and the last have to be learnt."""
    return [quality(p), cost(p), float(p["depth"]), 2.0 ** (p["depth"] / 3) + 1e3 * p["rate"]]


DIRECTIONS = ["maximize", "minimize", "maximize", "minimize"]


def partly(learnt, count=4):
    return lambda p: [None if j in learnt else v for j, v in enumerate(everything(p)[:count])]


def search(sampler, count, n, values=everything, space=SPACE, study=None):
    study = study or optuna.create_study(directions=DIRECTIONS[:count], sampler=sampler)
    for _ in range(n):
        trial = study.ask(space)
        study.tell(trial, values(trial.params)[:count])
    return study


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("learnt", [(), (0,), (0, 3), (0, 1, 2, 3)])
def test_any_number_of_objectives_any_of_them_cheap(count, learnt):
    study = search(ParetoSampler(partly(learnt, count), seed=1, logarithmic=[3]), count, 22)
    points = [tuple(t.params.items()) for t in study.trials]
    assert len(set(points)) == 22
    for trial in study.trials:
        assert all(SPACE[n]._contains(SPACE[n].to_internal_repr(v)) for n, v in trial.params.items())


def front_volume(study):
    rows = [[-t.values[0], t.values[1]] for t in study.trials]
    return hypervolume(rows, [0.0, 400.0])


def test_knowing_the_cost_beats_chance_and_knowing_all_beats_learning():
    ours, exact, chance = [], [], []
    for seed in range(3):
        ours.append(front_volume(search(ParetoSampler(partly((0,), 2), seed=seed), 2, 30)))
        exact.append(front_volume(search(ParetoSampler(partly((), 2), seed=seed), 2, 30)))
        chance.append(front_volume(search(optuna.samplers.RandomSampler(seed=seed), 2, 30)))
    assert min(ours) > max(chance)
    assert np.mean(exact) > np.mean(ours)


def test_the_same_seed_and_history_suggest_the_same_whether_the_sampler_is_kept_or_made_anew():
    kept = search(ParetoSampler(partly((0,), 2), seed=3, space=SPACE), 2, 16)
    study = optuna.create_study(directions=DIRECTIONS[:2])
    for _ in range(16):
        study.sampler = ParetoSampler(partly((0,), 2), seed=3, space=SPACE)
        search(None, 2, 1, study=study)
    assert [t.params for t in study.trials] == [t.params for t in kept.trials]
    other = search(ParetoSampler(partly((0,), 2), seed=4, space=SPACE), 2, 16)
    assert [t.params for t in other.trials] != [t.params for t in kept.trials]


def test_points_that_are_not_allowed_are_never_suggested():
    def allowed(p):
        return cost(p) <= 60 and p["act"] is not None

    study = search(ParetoSampler(partly((0,), 2), seed=0, allowed=allowed, space=SPACE), 2, 25)
    assert all(allowed(t.params) for t in study.trials)


GRID = {"a": CategoricalDistribution([0, 1, 2, 3]), "b": IntDistribution(0, 4)}


@pytest.mark.parametrize("ends", ["complete", "fail", "pruned", "running", "mixed"])
def test_a_small_space_is_gone_through_without_a_repeat_however_trials_end(ends):
    sampler = ParetoSampler(lambda p: [None, float(p["a"])], seed=0, space=GRID)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    kinds = ["complete", "fail", "pruned", "running"]
    for i in range(20):
        trial = study.ask(GRID)
        end = kinds[i % 4] if ends == "mixed" else ends
        if end == "complete":
            study.tell(trial, [trial.params["b"] * 1.0, trial.params["a"] * 1.0])
        elif end != "running":
            study.tell(trial, state=TrialState.FAIL if end == "fail" else TrialState.PRUNED)
    assert len({tuple(t.params.values()) for t in study.trials}) == 20
    assert set(study.ask(GRID).params) == {"a", "b"}  # nothing is left: any point, and no crash


def test_trials_under_way_count_as_if_they_had_ended_as_predicted():
    """Asked for many at once, the sampler spreads them instead of asking for neighbours of one place."""
    sampler = ParetoSampler(partly((0,), 2), seed=0, space=SPACE)
    study = search(sampler, 2, 20)
    batch = [study.ask(SPACE).params for _ in range(6)]
    costs = sorted(cost(p) for p in batch)
    assert len(set(costs)) >= 5
    assert costs[-1] > 3 * costs[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_do_no_harm(bad):
    sampler = ParetoSampler(lambda p: [None, bad if p["a"] == 1 else float(p["a"])], seed=0, space=GRID, startup=3)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for i in range(10):
        params = {"a": i % 4, "b": i // 4}
        values = [bad if i % 3 == 0 else float(i), 1.0]
        failed = any(math.isnan(v) for v in values)  # Optuna itself takes a NaN for a failure
        state, told = (TrialState.FAIL, None) if failed else (TrialState.COMPLETE, values)
        study.add_trial(create_trial(state=state, params=params, distributions=GRID, values=told))
    assert study.ask(GRID).params["a"] != 1 or not np.isfinite(bad)


def test_constant_values_do_no_harm():
    sampler = ParetoSampler(lambda p: [None, None, 1.0], seed=0)
    study = search(sampler, 3, 16, values=lambda p: [0.5, 2.0, 1.0])
    assert len(study.trials) == 16


def test_half_of_the_uncertainty_counts(monkeypatch):
    told, judged = [], []
    real_beliefs, real_improvement = Surrogate.beliefs, pareto_sampler.expected_improvement

    def beliefs(self, points, exact=None):
        found = real_beliefs(self, points, exact)
        told.extend(found[0].deviation if exact is not None else [])
        return found

    def improvement(found, *rest):
        judged.extend(found[0].deviation)
        return real_improvement(found, *rest)

    monkeypatch.setattr(Surrogate, "beliefs", beliefs)
    monkeypatch.setattr(pareto_sampler, "expected_improvement", improvement)
    search(ParetoSampler(partly([0], 2), seed=0), 2, 12)
    assert min(told) > 0
    assert judged == pytest.approx(0.5 * np.array(told))


def test_the_corner_keeps_the_search_below_it():
    """A bound on an objective is given as its corner; of what lies beyond nothing is gained."""
    sampler = ParetoSampler(partly((0,), 2), seed=0, corner=[-10.0, 50.0], space=SPACE)
    study = search(sampler, 2, 30)
    assert all(cost(t.params) < 50 for t in study.trials[10:])


def test_cheap_must_speak_of_every_objective():
    with pytest.raises(ValueError, match="cheap gave 1 values, the study has 2 objectives"):
        search(ParetoSampler(lambda p: [None], seed=0, space=SPACE), 2, 1)


def test_partial_trainings_are_learnt_from():
    """Trials that were stopped early show where nothing good is; without what they reached it is found out again."""

    def history(told):
        study = optuna.create_study(directions=["maximize", "minimize"])
        rng = np.random.default_rng(0)
        for i in range(60):
            params = {
                "width": int(rng.choice([8, 16, 32, 64])),
                "depth": int(rng.integers(1, 7)),
                "rate": float(10 ** rng.uniform(-4, -1)),
                "act": ["relu", "gelu", None][i % 3],
            }
            reached, noise = 0.5 * quality(params), 0.05 * rng.normal()
            whole = i < 10
            attributes = {partial.ATTRIBUTE: partial.as_json({0.25: [reached + noise, None]})} if told or whole else {}
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if whole else TrialState.PRUNED,
                    params=params,
                    distributions=SPACE,
                    values=[quality(params), cost(params)] if whole else None,
                    user_attrs=attributes,
                )
            )
        return study

    def believed(study):
        from lkspace.search import history as reading
        from lkspace.search.parameters import Parameters
        from lkspace.search.surrogate import Surrogate

        parameters = Parameters(SPACE)
        past = reading.read(study.trials, parameters, SPACE, study.directions)
        exact = lambda p: np.array([np.nan, cost(p)])  # noqa: E731
        surrogate = Surrogate(past, exact, parameters.encode, [0], [], np.random.default_rng(0))
        places = parameters.random(200, np.random.default_rng(1))
        belief = surrogate.beliefs(places)[0]
        return np.abs(-belief.mean - [quality(p) for p in places]).mean(), belief.deviation.mean()

    error, deviation = believed(history(True))
    alone_error, alone_deviation = believed(history(False))
    assert error < 0.7 * alone_error
    assert deviation < alone_deviation


def test_what_broke_a_bound_after_a_whole_training_counts_once():
    from lkspace.search import history
    from lkspace.search.parameters import Parameters

    study = optuna.create_study(directions=["maximize", "minimize"])
    params = {"width": 8, "depth": 2, "rate": 1e-3, "act": None}
    told = {partial.ATTRIBUTE: partial.as_json({0.25: [0.4, None], 1.0: [0.7, 16.0]})}
    study.add_trial(create_trial(state=TrialState.PRUNED, params=params, distributions=SPACE, user_attrs=told))
    past = history.read(study.trials, Parameters(SPACE), SPACE, study.directions)
    assert (len(past.known), past.begun) == (1, {})
    first, last = past.pairs[0.25]
    assert (first[0, 0], last.tolist()) == (-0.4, [[-0.7, 16.0]])


def test_trials_that_end_between_their_parameters_do_no_harm():
    """In plain Optuna an objective suggests one after the other, and may give up or fail in between."""

    def objective(trial):
        width = trial.suggest_int("width", 1, 8)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        if trial.number % 3 == 2:
            raise ValueError
        depth = trial.suggest_int("depth", 1, 8)
        return 1 - 1 / (width + depth), width * depth

    sampler = ParetoSampler(lambda params: [None, params["width"] * params["depth"]], seed=0, startup=3)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=24, catch=(ValueError,))
    assert len(study.get_trials(states=[TrialState.COMPLETE])) == 8


def test_a_parameter_of_a_single_value_is_known_to_those_who_compute():
    def objective(trial):
        width, depth = trial.suggest_int("width", 1, 8), trial.suggest_int("depth", 2, 2)
        return 1 - 1 / width, width * depth

    sampler = ParetoSampler(lambda params: [None, params["width"] * params["depth"]], seed=0, startup=2)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=8)
    assert {t.params["width"] for t in study.trials} == set(range(1, 9))


def test_a_copy_in_another_process_suggests_otherwise():
    sampler = ParetoSampler(partly((0,), 2), seed=0, space=SPACE)
    first = optuna.create_study(directions=DIRECTIONS[:2], sampler=sampler).ask(SPACE).params
    sampler.reseed_rng()
    assert optuna.create_study(directions=DIRECTIONS[:2], sampler=sampler).ask(SPACE).params != first


def test_of_many_trials_the_best_and_some_others_are_learnt_from(monkeypatch):
    from lkspace.search import surrogate

    monkeypatch.setattr(surrogate, "ROWS", 12)
    values = np.random.default_rng(0).uniform(size=(40, 2))
    values[0] = -1.0
    values[1] = np.nan
    chosen = surrogate._chosen(values, np.random.default_rng(1), 12)
    assert chosen.sum() == 12
    assert chosen[0]
    assert np.isfinite(front_volume(search(ParetoSampler(partly((0,), 2), seed=0), 2, 30)))


@pytest.mark.parametrize("stopped", [0, 2, 30])
def test_trials_without_a_value_take_no_place_and_stopped_ones_a_quarter(monkeypatch, stopped):
    """Of 20 with a value, 20 without and some that were stopped, no more than 16 rows are learnt from, all of use."""
    from lkspace.search import surrogate
    from lkspace.search.history import History

    given = []

    class Recorder(surrogate.GaussianProcess):
        def __init__(self, rows, targets, *others):
            given.append((rows, targets))
            super().__init__(rows, targets, *others)

    monkeypatch.setattr(surrogate, "ROWS", 16)
    monkeypatch.setattr(surrogate, "GaussianProcess", Recorder)
    rng = np.random.default_rng(0)
    points = [{"a": x} for x in rng.uniform(size=40 + stopped).tolist()]
    values = rng.uniform(size=(40, 2))
    values[20:, 0] = np.nan
    pair = rng.uniform(size=(20, 2))
    begun = {0.25: (points[40:], rng.uniform(size=(stopped, 2)))} if stopped else {}
    history = History(set(), points[:40], values, np.ones(40, bool), [], begun, {0.25: (pair, pair + 0.1)})
    features = lambda point: np.array([point["a"]])  # noqa: E731
    exact = lambda point: np.array([np.nan, point["a"]])  # noqa: E731
    surrogate.Surrogate(history, exact, features, [0], [], rng)
    (rows, targets), *_ = given
    assert len(rows) == 16
    assert np.isfinite(targets).all()
    late = {point["a"] for point in points[40:]}
    assert sum(row in late for row in rows[:, 0]) == min(stopped, 4)
