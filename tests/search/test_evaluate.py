import errno
import math

import pytest

from lkspace.errors import RunError
from lkspace.quantity import Bound
from lkspace.scores.score import Diverged, Measurement, Setting
from lkspace.search.evaluate import Job, evaluate, order

SETTING = Setting(data="digits", size=32, classes=10)


def final(tmp_path, micro, constraints=(), scores=("params", "flops", "fake")):
    job = Job(SETTING, scores, tuple(constraints), tmp_path)
    reports = list(evaluate(job, 7, micro.reference_points[0]))
    assert all(r.outcome is None and not r.fatal for r in reports[:-1])
    return reports[-1]


def test_scores_are_measured_cheap_ones_first_and_accuracy_last(fake):
    assert order(["accuracy", "fake", "flops"]) == ("flops", "params", "fake", "accuracy")
    assert order(["params"]) == ("flops", "params")


def test_a_candidate_that_goes_well_is_complete(tmp_path, micro, fake):
    fake.then = [Measurement(2.0, {"epoch": 1, "loss": 1.5}), Measurement(1.0, {"epoch": 2, "loss": 1.25})]
    report = final(tmp_path, micro)
    assert report.outcome == "complete"
    assert {n: m.value for n, m in report.measurements.items()} == {
        **micro.costs(micro.reference_points[0]),
        "fake": 1.0,
    }
    assert report.curve == ({"fake": 2.0, "epoch": 1, "loss": 1.5}, {"fake": 1.0, "epoch": 2, "loss": 1.25})
    assert set(report.seconds) == {"params", "flops", "fake"}


def test_a_broken_constraint_ends_it_before_the_next_score(tmp_path, micro, fake):
    report = final(tmp_path, micro, [Bound.parse("flops<=1K")])
    assert report.outcome == "infeasible"
    assert report.reason.startswith("flops ")
    assert report.reason.endswith("breaks flops<=1K")
    assert not fake.asked


@pytest.mark.parametrize(
    ("raised", "outcome", "reason"),
    [
        (Diverged("loss is nan at epoch 1, step 3"), "diverged", "loss is nan at epoch 1, step 3"),
        (MemoryError("32 GiB"), "memory", "out of memory: 32 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "out of memory: Default"),
        (RunError("the lock cannot be had"), "failed", "the lock cannot be had"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ],
)
def test_what_goes_wrong_is_an_outcome_with_its_reason(tmp_path, micro, fake, raised, outcome, reason):
    fake.then = [Measurement(2.0), raised]
    report = final(tmp_path, micro)
    assert report.outcome == outcome
    assert report.reason.startswith(reason)
    assert report.measurements["flops"].value > 0


def test_a_bug_leaves_its_traceback_beside_the_trial(tmp_path, micro, fake):
    fake.then = [ZeroDivisionError("oops")]
    final(tmp_path, micro)
    assert "ZeroDivisionError: oops" in (tmp_path / "trials" / "7" / "error.txt").read_text()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_fails(tmp_path, micro, fake, value):
    fake.then = [Measurement(value)]
    report = final(tmp_path, micro)
    assert (report.outcome, report.reason) == ("failed", f"fake is {value}")


def test_a_score_that_says_nothing_fails(tmp_path, micro, fake):
    assert "fake gave no measurement" in final(tmp_path, micro).reason


def test_a_full_disk_is_no_verdict_on_the_candidate(tmp_path, micro, fake):
    fake.then = [OSError(errno.ENOSPC, "No space left on device", "/runs/x")]
    report = final(tmp_path, micro)
    assert (report.outcome, report.fatal) == (None, "/runs/x: No space left on device")
