import dataclasses
import errno
import math

import pytest
import torch
from safetensors.torch import load_file

from lkspace.errors import RunError
from lkspace.quantity import Bound
from lkspace.scores.score import Diverged, Measurement, Setting
from lkspace.search.checkpoint import NAME
from lkspace.search.evaluate import SEEN, Job, evaluate, order

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


def test_a_bound_that_is_barely_broken_shows_by_how_much(tmp_path, micro, fake):
    fake.then = [Measurement(5.0003)]
    assert final(tmp_path, micro, [Bound("fake", "<=", 5.0)]).reason == "fake 5.0003 breaks fake<=5"


@pytest.mark.parametrize(
    ("raised", "outcome", "reason"),
    [
        (Diverged("loss is nan at epoch 1, step 3"), "diverged", "loss is nan at epoch 1, step 3"),
        (MemoryError("32 GiB"), "memory", "out of memory: 32 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "out of memory: Default"),
        (RuntimeError("CUDA error: out of memory"), "memory", "out of memory: CUDA"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "memory", "out of memory: CUBLAS"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "memory", "out of memory: CUDA out of memory"),
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


TRAINED = Setting("digits:train=64,val=32", size=32, classes=10, epochs=3, batch=16)


def trained(tmp_path, micro, which=0, **changed):
    """The reports of a real training, one after the other, in a run's folder."""
    setting = dataclasses.replace(TRAINED, cache=tmp_path / "cache", **changed)
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / SEEN).write_text("the run")
    job = Job(setting, ("params", "flops", "accuracy"), (), tmp_path, "the run")
    return evaluate(job, 7, list(micro.enumerate())[which])


def test_a_training_that_was_left_goes_on_from_its_last_epoch(tmp_path, micro):
    *_, straight = trained(tmp_path / "straight", micro)
    reports = trained(tmp_path, micro)
    assert [len(next(reports).curve) for _ in range(2)] == [1, 2]
    reports.close()  # its worker turned to another candidate, or died
    assert (tmp_path / "trials" / "7" / NAME).is_file()
    *rest, last = trained(tmp_path, micro)
    assert [len(r.curve) for r in rest] == [2, 3]  # the second was perhaps not heard
    assert last.outcome == "complete"
    assert last.measurements["params"] == straight.measurements["params"]
    assert [e["loss"] for e in last.curve] == [e["loss"] for e in straight.curve]
    assert last.seconds["accuracy"] > rest[1].curve[0]["seconds"]
    ours, expected = (load_file(p / "trials" / "7" / "weights.safetensors") for p in (tmp_path, tmp_path / "straight"))
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


@pytest.mark.parametrize("other", ["architecture", "setting", "broken", "none"])
def test_a_checkpoint_of_something_else_or_nothing_counts_as_none(tmp_path, micro, other):
    reports = trained(tmp_path, micro)
    next(reports)
    reports.close()
    path = tmp_path / "trials" / "7" / NAME
    if other == "broken":
        path.write_bytes(path.read_bytes()[:500])
    elif other == "none":
        path.unlink()
    changed = {"seed": 1} if other == "setting" else {}
    again = trained(tmp_path, micro, 1 if other == "architecture" else 0, **changed)
    assert len(next(again).curve) == 1


def test_other_images_than_those_of_the_run_end_it(tmp_path, micro):
    (report,) = trained(tmp_path, micro, data_key="of other images")
    assert report.outcome is None
    assert "the files of digits:train=64,val=32, or how lkspace reads them, have changed since" in report.fatal


def test_a_folder_of_another_run_at_the_same_place_is_not_the_drivers(tmp_path, micro):
    job = Job(SETTING, (), (), tmp_path, "the run")
    assert not job.shares_files()
    (tmp_path / SEEN).write_text("another run")
    assert not job.shares_files()
    (tmp_path / SEEN).write_text("the run")
    assert job.shares_files()
    assert not dataclasses.replace(job, seen="").shares_files()


def test_a_host_without_the_images_is_no_fault_of_the_candidate(tmp_path, micro):
    (report,) = trained(tmp_path, micro, data="folder:/not/there")
    assert report.outcome is None
    assert "data folder /not/there: no such folder" in report.fatal
