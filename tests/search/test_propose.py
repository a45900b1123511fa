import pytest

from lkspace import registry
from lkspace.quantity import Bound
from lkspace.scores.score import Measurement, Setting
from lkspace.search.candidates import Candidates, cheap_scores
from lkspace.search.propose import Proposer
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study

SETTING = Setting(data="digits", size=32, classes=10)


def proposer(study, space, sampler="nsga2", budget=40, bounds=(), seed=0):
    candidates = Candidates(space, cheap_scores(space, SETTING, []), bounds, [t.id for t in study.trials])
    return Proposer(study, candidates, registry.samplers.get(sampler), seed, budget)


def finish(study, space, number, architecture):
    costs = {name: Measurement(value) for name, value in space.costs(architecture).items()}
    study.finish(number, "complete", measurements=costs)


def test_reference_points_come_first_and_nothing_comes_twice(new_study, micro):
    for sampler in ("random", "nsga2", "tpe", "pareto"):
        study = new_study(sampler)
        propose = proposer(study, micro, sampler)
        for _ in range(15):
            finish(study, micro, *propose.start())
        trials = study.trials
        assert trials[0].architecture == micro.reference_points[0]
        assert [t.origin for t in trials] == ["reference point"] + ["sampler"] * 14
        assert len({t.id for t in trials}) == 15
        assert all(micro.feasible(t.architecture) for t in trials)
        # What breaks a constraint is turned down, but for the sampler that knows the constraints.
        assert ("kernels non-increasing" in study.rejected()) == (sampler != "pareto")


def test_a_space_that_is_used_up_ends_in_none(new_study, micro):
    fields = {**micro.to_dict(), "channels": {"whole": [[4, 8]]}, "blocks": {"per_stage": [[1], [1]]}}
    space = SearchSpace.from_dict({**fields, "reference_points": []})
    count = len(list(space.enumerate()))
    study = new_study()
    propose = proposer(study, space, budget=200)
    for _ in range(count):
        finish(study, space, *propose.start())
    assert propose.start() is None
    assert len(study.trials) == count


def test_a_continued_run_proposes_what_an_uninterrupted_one_would(new_study, micro):
    for sampler in ("nsga2", "tpe", "pareto"):
        whole, cut = new_study(f"{sampler}-whole"), new_study(f"{sampler}-cut")
        propose = proposer(whole, micro, sampler)
        for _ in range(14):
            finish(whole, micro, *propose.start())
        for stop in (1, 6, 13, 14):
            cut = Study.open(cut.folder, writable=True)
            propose = proposer(cut, micro, sampler)
            while propose.trials < stop:
                finish(cut, micro, *propose.start())
        assert [t.id for t in cut.trials] == [t.id for t in whole.trials]


def test_the_same_seed_proposes_the_same_fifty(new_study, micro, fake):
    """One at a time, with an objective that has to be learnt; that trainings repeat is test_accuracy.py's."""
    ids = []
    for name in ("first", "again"):
        study = new_study(name, objectives=("fake", "flops"))
        propose = proposer(study, micro, "pareto", budget=50)
        for _ in range(50):
            number, architecture = propose.start()
            costs = micro.costs(architecture)
            learnt = sum(architecture.kernels) / (1 + architecture.blocks[0]) + costs["params"] / 1e4
            study.finish(
                number, "complete", measurements={"fake": Measurement(learnt), "flops": Measurement(costs["flops"])}
            )
        ids.append([t.id for t in study.trials])
    assert ids[0] == ids[1]


def test_another_seed_proposes_otherwise(new_study, micro):
    ids = []
    for seed in (0, 1):
        study = new_study(f"seed{seed}")
        propose = proposer(study, micro, seed=seed)
        for _ in range(6):
            finish(study, micro, *propose.start())
        ids.append([t.id for t in study.trials])
    assert ids[0] != ids[1]


def test_nsga2_breeds_from_reference_points_and_fallbacks_too(new_study, micro):
    study = new_study()
    propose = proposer(study, micro, "nsga2")
    for _ in range(30):
        finish(study, micro, *propose.start())
    frozen = study._optuna.get_trials()
    generations = [t.system_attrs["RepeatableNSGAII:generation"] for t in frozen]
    assert generations[0] == 0
    assert max(generations) >= 5


def test_a_reference_point_that_breaks_a_bound_is_counted_once(new_study, micro):
    study = new_study()
    bound = Bound.parse("params<=2K")
    for _ in range(2):
        study = Study.open(study.folder, writable=True)
        propose = proposer(study, micro, bounds=[bound])
        finish(study, micro, *propose.start())
    assert study.rejected()["reference point: params<=2K"] == 1
    assert all(t.origin == "sampler" for t in study.trials)


def test_reference_points_that_break_a_bound_are_counted_wherever_they_stand(new_study, micro):
    first = micro.reference_points[0].to_dict()
    points = [{**first, "channels": channels, "name": str(channels[0])} for channels in ([4, 8], [64, 128], [96, 192])]
    space = SearchSpace.from_dict({**micro.to_dict(), "reference_points": points})
    study = new_study()
    propose = proposer(study, space, bounds=[Bound.parse("params<=20K")])
    for _ in range(3):
        finish(study, space, *propose.start())
    assert [t.origin for t in study.trials] == ["reference point", "sampler", "sampler"]
    assert study.rejected()["reference point: params<=20K"] == 2


def test_a_trial_of_another_tool_is_not_counted(new_study, micro):
    study = new_study()
    study._optuna.enqueue_trial({"a": 1})
    propose = proposer(study, micro)
    for count in range(1, 4):
        finish(study, micro, *propose.start())
        assert propose.trials == len(study.trials) == count


def test_a_reference_point_outside_the_space_is_tried_as_it_is(new_study, micro):
    fields = {**micro.to_dict(), "reference_points": []}
    outside = {**micro.reference_points[0].to_dict(), "channels": [6, 12], "name": "mine"}
    space = SearchSpace.from_dict({**fields, "reference_points": [outside]})
    study = new_study()
    propose = proposer(study, space)
    for _ in range(3):
        finish(study, space, *propose.start())
    assert study.trials[0].architecture.channels == (6, 12)
    assert study.trials[0].origin == "reference point"


def test_estimates_are_scaled_by_what_was_measured_and_keep_bounds(new_study, micro, fake):
    """A sampler that looks measured scores up suggests nothing that would break a bound, once it knows the factor."""
    study = new_study(objectives=("params", "fake"), constraints=(Bound.parse("fake<=40000"),))
    estimate = lambda architecture: (float(micro.costs(architecture)["flops"]), 1.0)  # noqa: E731
    candidates = Candidates(micro, cheap_scores(micro, SETTING, []), estimates={"fake": estimate})
    propose = Proposer(study, candidates, registry.samplers.get("pareto"), 0, 40)
    assert propose.factors() == {"fake": [1.0]}
    for _ in range(12):
        number, architecture = propose.start()
        values = {**micro.costs(architecture), "fake": 0.1 * estimate(architecture)[0]}
        study.finish(number, "complete", measurements={name: Measurement(value) for name, value in values.items()})
    assert propose.factors() == {"fake": pytest.approx([0.1, 0.0])}
    assert all(t.feasible for t in study.trials[2:])
