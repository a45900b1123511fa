"""Early stopping as a search meets it: reports come in, trials stop, a continued run remembers."""

import pytest

from lkspace.scores.score import Measurement
from lkspace.search.evaluate import Report
from lkspace.search.stopping import Stopping
from lkspace.study.record import Objective

OBJECTIVES = (Objective("accuracy", "%", "maximize"), Objective("flops", "", "minimize"))


def report(accuracies: list[float], flops: float = 1e6, epochs: int = 4, outcome: str | None = None) -> Report:
    """After as many epochs as there are accuracies."""
    curve = [{"accuracy": a, "epoch": e, "epochs": epochs} for e, a in enumerate(accuracies, 1)]
    measured = {"flops": Measurement(flops), "params": Measurement(1.0)}
    if curve:
        measured["accuracy"] = Measurement(accuracies[-1], curve[-1])
    return Report(measured, tuple(curve), {}, outcome)


def test_who_is_behind_at_a_rung_stops_and_says_after_which_epoch():
    stopping = Stopping(OBJECTIVES, 4)
    found = [stopping.reason(i, report([a])) for i, a in enumerate([0.9, 0.3, 0.2, 0.8, 0.1, 0.7, 0.95, 0.6])]
    assert found[:7] == [None] * 7  # too few at first, then among the better half
    assert found[7] == "others of its cost were ahead after epoch 1 of 4"


def test_nothing_stops_between_rungs_before_the_training_or_at_its_end():
    stopping = Stopping(OBJECTIVES, 8)
    for i in range(9):
        stopping.reason(i, report([0.9], epochs=8))
    assert stopping.reason(20, report([], epochs=8)) is None
    assert stopping.reason(20, report([0.1, 0.1, 0.1], epochs=8)) is None
    assert stopping.reason(20, report([0.1] * 8, epochs=8, outcome="complete")) is None
    assert stopping.reason(20, report([0.1], epochs=8)) is not None


def test_accuracy_is_maximised_whatever_the_order_of_objectives():
    for objectives in (OBJECTIVES, OBJECTIVES[::-1], OBJECTIVES[:1]):
        stopping = Stopping(objectives, 4)
        found = [stopping.reason(i, report([a])) for i, a in enumerate([0.2, 0.3, 0.4, 0.5, 0.1, 0.6, 0.1])]
        assert found[5] is None
        assert found[6] is not None


def test_objectives_that_no_training_changes_stop_nothing():
    stopping = Stopping(OBJECTIVES[1:], 4)
    assert all(stopping.reason(i, report([0.9 - i / 10])) is None for i in range(9))


def test_a_trial_that_is_begun_again_is_counted_once():
    stopping = Stopping(OBJECTIVES, 4)
    for _ in range(9):
        stopping.reason(0, report([0.9]))
    assert stopping.reason(1, report([0.1])) is None  # two at the rung, too few to stop one


def test_a_continued_search_knows_the_curves_of_the_study(new_study, micro, fake):
    fake.direction = "maximize"
    study = new_study(objectives=("flops", "params"))
    whole = Stopping(OBJECTIVES, 4)
    for i, architecture in enumerate(list(micro.enumerate())[:7]):
        number = study.start(study.given(None, {}), architecture)
        given = report([0.5 + i / 100, 0.6], flops=1e6)
        whole.reason(number, given)
        study.finish(number, "stopped", "behind", given.measurements, given.curve)
    again = Stopping(OBJECTIVES, 4, study.trials)
    for accuracy in (0.1, 0.505, 0.6):
        fresh = report([accuracy])
        assert (whole.reason(99, fresh) is None) == (again.reason(99, fresh) is None)


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
