"""Early stopping as a search meets it: reports come in, trials stop, a continued run remembers."""

import numpy as np
import pytest

from lkspace.scores.score import Measurement
from lkspace.search.evaluate import Report
from lkspace.search.stopping import Stopping, rungs
from lkspace.space.architecture import Architecture
from lkspace.study.record import Objective

TINY = Architecture("replknet", (1, 1), (8, 12), (5, 3), (3, None), (True, True), 1.0, 2.0, 2)
OBJECTIVES = (Objective("accuracy", "%", "maximize"), Objective("flops", "", "minimize"))


def nothing(architecture):
    """No features."""
    return np.zeros(1)


def report(accuracies: list[float], flops: float = 1e6, epochs: int = 4, outcome: str | None = None) -> Report:
    """After as many epochs as there are accuracies."""
    curve = [{"accuracy": a, "epoch": e, "epochs": epochs} for e, a in enumerate(accuracies, 1)]
    measured = {"flops": Measurement(flops), "params": Measurement(1.0)}
    if curve:
        measured["accuracy"] = Measurement(accuracies[-1], curve[-1])
    return Report(measured, tuple(curve), {}, outcome)


def test_who_is_behind_at_a_rung_stops_and_says_after_which_epoch():
    stopping = Stopping("halving", OBJECTIVES, 4, nothing)
    found = [stopping.reason(i, TINY, report([a])) for i, a in enumerate([0.9, 0.3, 0.2, 0.8, 0.1, 0.7, 0.95, 0.6])]
    assert found[:7] == [None] * 7  # too few at first, then among the better half
    assert found[7] == "others of its cost were ahead after epoch 1 of 4"


def test_nothing_stops_between_rungs_before_the_training_or_at_its_end():
    stopping = Stopping("halving", OBJECTIVES, 8, nothing)
    for i in range(9):
        stopping.reason(i, TINY, report([0.9], epochs=8))
    assert stopping.reason(20, TINY, report([], epochs=8)) is None
    assert stopping.reason(20, TINY, report([0.1, 0.1, 0.1], epochs=8)) is None
    assert stopping.reason(20, TINY, report([0.1] * 8, epochs=8, outcome="complete")) is None
    assert stopping.reason(20, TINY, report([0.1], epochs=8)) is not None


def test_accuracy_is_maximised_whatever_the_order_of_objectives():
    for objectives in (OBJECTIVES, OBJECTIVES[::-1], OBJECTIVES[:1]):
        stopping = Stopping("halving", objectives, 4, nothing)
        found = [stopping.reason(i, TINY, report([a])) for i, a in enumerate([0.2, 0.3, 0.4, 0.5, 0.1, 0.6, 0.1])]
        assert found[5] is None
        assert found[6] is not None


def test_learnt_objectives_of_both_directions_count_each_in_its_own():
    objectives = (Objective("accuracy", "%", "maximize"), Objective("loss", "", "minimize"))

    def reported(accuracy: float, loss: float) -> Report:
        entry = {"accuracy": accuracy, "loss": loss, "epoch": 1, "epochs": 2}
        measured = {name: Measurement(entry[name], entry) for name in ("accuracy", "loss")}
        return Report(measured, (entry,))

    stopping = Stopping("halving", objectives, 2, nothing)
    for i in range(12):  # a line on which each is best in its way
        stopping.reason(i, TINY, reported(0.3 + i / 100, 1.0 + i / 100))
    assert stopping.reason(20, TINY, reported(0.9, 0.1)) is None
    assert stopping.reason(21, TINY, reported(0.1, 9.0)) is not None
    assert stopping.reason(22, TINY, reported(0.95, 9.0)) is None
    assert stopping.reason(23, TINY, reported(0.1, 0.05)) is None


def test_objectives_that_no_training_changes_stop_nothing():
    stopping = Stopping("halving", OBJECTIVES[1:], 4, nothing)
    assert all(stopping.reason(i, TINY, report([0.9 - i / 10])) is None for i in range(9))


def test_a_trial_that_is_begun_again_is_counted_once():
    stopping = Stopping("halving", OBJECTIVES, 4, nothing)
    for _ in range(9):
        stopping.reason(0, TINY, report([0.9]))
    assert stopping.reason(1, TINY, report([0.1])) is None  # two at the rung, too few to stop one


def test_a_continued_search_knows_the_curves_of_the_study(new_study, micro, fake):
    fake.direction = "maximize"
    study = new_study(objectives=("flops", "params"))
    whole = Stopping("halving", OBJECTIVES, 4, nothing)
    for i, architecture in enumerate(list(micro.enumerate())[:7]):
        number = study.start(study.given(None, {}), architecture)
        given = report([0.5 + i / 100, 0.6], flops=1e6)
        whole.reason(number, TINY, given)
        study.finish(number, "stopped", "behind", given.measurements, given.curve)
    again = Stopping("halving", OBJECTIVES, 4, nothing, study.trials)
    for accuracy in (0.1, 0.505, 0.6):
        fresh = report([accuracy])
        assert (whole.reason(99, TINY, fresh) is None) == (again.reason(99, TINY, fresh) is None)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, ()), (2, (1,)), (3, (1, 2)), (4, (1, 2)), (8, (1, 2, 4)), (20, (2, 4, 8))]
)
def test_rungs(epochs, expected):
    assert rungs(epochs) == expected


def wide(architecture):
    return np.array([float(architecture.channels[0])])


def width(channels):
    return Architecture("replknet", (1, 1), (channels, 12), (5, 3), (3, None), (True, True), 1.0, 2.0, 2)


def fed(stopping, count=12):
    """Whole trainings: the wider, the better."""
    for number in range(count):
        curve = [0.1 + number / 1000, 0.2, 0.3, 0.5 + number / 40]
        for epochs in range(1, 5):
            stopping.reason(number, width(8 + number), report(curve[:epochs], flops=1e6 * (1 + number % 2)))
    return stopping


def test_who_will_not_reach_the_front_stops_and_says_after_which_epoch():
    stopping = fed(Stopping("front", OBJECTIVES, 4, wide))
    assert stopping.reason(50, width(30), report([0.1])) is None
    assert stopping.reason(50, width(30), report([0.1, 0.2])) is None
    reason = stopping.reason(51, width(8), report([0.1], flops=3e6))
    assert reason == "not expected to reach the front, after epoch 1 of 4"
    assert stopping.reason(52, width(8), report([0.1], flops=1e5)) is None  # nothing is as cheap
    assert stopping.reason(53, width(8), report([0.1, 0.2, 0.3], flops=3e6)) is None  # no rung


def test_trainings_under_way_or_stopped_are_no_rivals():
    stopping = fed(Stopping("front", OBJECTIVES, 4, wide), 9)
    for number in range(20, 30):
        stopping.reason(number, width(40), report([0.9, 0.9], flops=1e5))
    assert stopping.reason(51, width(8), report([0.1], flops=3e6)) is None


def test_a_continued_search_knows_the_ends_of_the_study(new_study, micro):
    study = new_study(objectives=("flops", "params"))
    for i, architecture in enumerate(list(micro.enumerate())[:12]):
        number = study.start(study.given(None, {}), architecture)
        given = report([0.1, 0.2, 0.3, 0.8 + i / 100], flops=1e6)
        study.finish(number, "complete", "", given.measurements, given.curve)
    fresh = report([0.1], flops=1e7)
    assert Stopping("front", OBJECTIVES, 4, nothing, study.trials).reason(99, TINY, fresh) is not None
    assert Stopping("front", OBJECTIVES, 4, nothing, study.trials[:9]).reason(99, TINY, fresh) is None


@pytest.mark.parametrize("outcome", ["stopped", "infeasible", "complete"])
def test_what_a_trial_reached_is_kept_for_the_sampler(new_study, micro, outcome):
    """In the study and in its mirror, which a sampler reads, now and after the study is opened again."""
    from lkspace.study import Study, partial

    study = new_study(objectives=("params", "flops"))
    asked = study.given({v.name: v.choices[0] for v in micro.variables}, {v.name: v.choices for v in micro.variables})
    number = study.start(asked, micro.decode(asked.params))
    assert study._proposals  # the mirror is made from what is running
    measured = {"params": Measurement(5.0), "flops": Measurement(7.0)}
    if outcome == "infeasible":
        del measured["flops"]
    curve = [{"flops": 9.0, "epoch": 1, "epochs": 4}, {"flops": 7.0, "epoch": 2, "epochs": 4}]
    study.finish(number, outcome, "why", measured, () if outcome == "infeasible" else curve)
    expected = {0.25: [None, 9.0], 0.5: [None, 7.0]}
    if outcome == "stopped":
        expected[1.0] = [5.0, None]
    if outcome == "infeasible":
        expected = {1.0: [5.0, None]}
    opened = Study.open(study.folder, writable=True)
    for mirror in (study._proposals._study, opened._proposals._study, opened._optuna):
        assert mirror.trials[-1].user_attrs[partial.ATTRIBUTE] == partial.as_json(expected)
