from dataclasses import replace
from itertools import islice

import pytest
import ray
from rich.console import Console

from lkspace.errors import RunError, UserError
from lkspace.report import trust_table
from lkspace.report.tables import front_table
from lkspace.scores import pace
from lkspace.scores.score import Diverged, Measurement, Setting
from lkspace.search import verification, verify
from lkspace.search.room import Room
from lkspace.search.tune import WorkerDied, result_of
from lkspace.search.verification import _length
from lkspace.study import Study
from lkspace.study.record import Objective, Plan
from lkspace.study.trust import Longer

STANDARD = 0.01


@pytest.fixture
def invented(tmp_path, micro):
    """Six trials, each worse than the one before: two complete, four stopped after the first of two epochs."""
    objectives = (Objective("accuracy", "%", "maximize"), Objective("latency", "ms", "minimize"))
    setting = {"data": "digits:train=128,val=64", "size": 32, "classes": 10, "epochs": 2}
    plan = Plan("run", micro.to_dict(), objectives, {"accuracy": 0.1, "latency": 1e3}, setting=setting)
    study = Study.create(tmp_path / "run", plan)
    for i, architecture in enumerate(islice(micro.enumerate(), 6)):
        number = study.start(study.given(None, {}), architecture)
        latency = Measurement(10.0 + i, details={"standard": STANDARD})
        scores = {"accuracy": Measurement(0.9 - 0.1 * i), "latency": latency}
        study.finish(number, "complete" if i < 2 else "stopped", measurements=scores)
    return study


def text(renderable):
    console = Console(width=100)
    with console.capture() as shown:
        console.print(renderable)
    return shown.get()


def test_what_cannot_be_verified_is_refused(invented, tmp_path, monkeypatch):
    for wrong in ("", "0", "1x", "2", "2.5x", "x", "-3"):
        with pytest.raises(UserError, match="expected more than the proxy's 2"):
            verify(invented.folder, epochs=wrong)
    with pytest.raises(UserError, match="top is 0"):
        verify(invented.folder, top=0)
    with pytest.raises(UserError, match="seeds is 0"):
        verify(invented.folder, seeds=0)
    with pytest.raises(UserError, match="expected 0: the run was made on the CPU"):
        verify(invented.folder, gpus_per_trial=0.5)
    with pytest.raises(UserError, match="no run"):
        verify(tmp_path)
    on_gpu = replace(invented.plan, setting={**invented.plan.setting, "device": "cuda"})
    monkeypatch.setattr(type(invented), "plan", on_gpu)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for asked in (None, 0.0, 1.0):
        with pytest.raises(UserError, match="made on a GPU, and torch finds none here: verify it where there is one"):
            verify(invented.folder, gpus_per_trial=asked)
    monkeypatch.undo()
    assert "not verified" in text(front_table(invented))
    assert "not verified" in text(trust_table(invented))


def test_lengths():
    assert (_length("5x", 4), _length("30", 4)) == (20, 30)


def test_longer_trainings_are_kept_continued_and_told(invented, monkeypatch):
    first = Longer(4, 1, 0.5, 1.0)
    invented.trained_longer(0, first)
    monkeypatch.setattr(pace, "seconds_now", lambda: 1.0)  # by which the machine's own pace would be another
    again = verify(invented.folder, top=1, epochs="2x", seeds=2, concurrency=2)
    runs = again.longer()
    assert runs[0][0] == first
    (other,) = runs.keys() - {0}
    assert [(r.epochs, r.seed) for r in runs[0]] == [(4, 1), (4, 2)]
    assert {(r.epochs, r.seed) for r in runs[other]} == {(4, 1), (4, 2)} | ({(2, 0)} if other > 1 else set())
    found = again.trust()
    assert (found.epochs, found.seeds, len(found.candidates)) == (4, 2, 2)
    timed = [Study.open(invented.folder).trial(c.number).remeasured["latency"] for c in found.candidates]
    assert {t["standard"] for t in timed} == {STANDARD}
    assert "trained for 4 epochs with 2 seeds" in text(front_table(again))
    assert "front of" in text(trust_table(again))


class Remote:
    """Ray as `_train` sees it; what began first ends first. began: each architecture, and how many ran with it."""

    def __init__(self, patch, answer):
        self.began, self.running = [], 0
        patch.setattr("ray.remote", lambda **_: lambda _: self)
        patch.setattr("ray.wait", self.wait)
        patch.setattr("lkspace.search.tune.result_of", lambda called, _: answer(self.began[called][0]))

    def remote(self, architecture, setting):
        self.running += 1
        self.began.append((architecture, self.running))
        return len(self.began) - 1

    def wait(self, running, num_returns):
        self.running -= 1
        return running[:1], running[1:]


def train(study, console=None):
    setting = Setting(**study.plan.setting)
    missing = [verification._Training(t, setting) for t in study.trials]
    verification._train(study, missing, 3, 0, Room.of(setting, 3), console)


@pytest.mark.parametrize("shares", [True, False])
def test_what_needs_the_memory_for_itself_has_it(invented, monkeypatch, shares):
    remote = Remote(monkeypatch, lambda _: Longer(9, 1, 0.5, 1.0))
    monkeypatch.setattr(Room, "shares", lambda *_: shares)
    train(invented)
    assert [beside for _, beside in remote.began] == ([1, 2, 3, 3, 3, 3] if shares else [1] * 6)


@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_what_runs_out_of_memory_is_trained_again_alone_and_then_left_out(invented, monkeypatch, times, died):
    second, left = invented.trials[1].architecture.to_json(), [times]

    def answer(architecture):
        if architecture != second or not left[0]:
            return Longer(9, 1, 0.5, 1.0)
        left[0] -= 1
        if died:
            raise WorkerDied("killed")
        return None

    remote = Remote(monkeypatch, answer)
    monkeypatch.setattr(Room, "shares", lambda *_: True)
    console = Console(width=200)
    with console.capture() as said:
        train(invented, console)
    assert [beside for architecture, beside in remote.began if architecture == second] == [2, 1]
    assert set(invented.longer()) == {0, 1, 2, 3, 4, 5} - ({1} if times == 2 else set())
    assert ("no memory for 1 of 6 trainings" in said.get()) == (times == 2)


def test_a_machine_that_can_train_none_says_so(invented, monkeypatch):
    Remote(monkeypatch, lambda _: None)
    with pytest.raises(RunError, match="no memory for 6 of 6 trainings"):
        train(invented)


def test_a_worker_tells_lack_of_memory_from_divergence_and_from_a_bug(invented, monkeypatch):
    def ended(error):
        def measure(*_):
            raise error

        monkeypatch.setattr("lkspace.scores.accuracy.Accuracy.measure", measure)
        return verification._longer(invented.trials[0].architecture.to_json(), Setting(**invented.plan.setting))

    monkeypatch.setattr("lkspace.search.trainable.prepare_process", lambda _: None)  # it is for a process's whole life
    given_back = []
    monkeypatch.setattr("lkspace.search.verification.give_back", given_back.append)
    assert ended(MemoryError("32 GiB")) is None
    assert given_back == ["cpu"]  # the process stays, beside those that train
    assert ended(RuntimeError("DefaultCPUAllocator: can't allocate memory")) is None
    assert ended(Diverged("loss is nan")).accuracy is None
    assert given_back == ["cpu"] * 3
    with pytest.raises(KeyError):
        ended(KeyError("x"))


def test_a_worker_that_died_is_told_from_an_error(monkeypatch):
    def get(_):
        raise ray.exceptions.WorkerCrashedError

    monkeypatch.setattr("ray.get", get)
    with pytest.raises(WorkerDied, match="trial 1: its worker died"):
        result_of(None, "trial 1")


def test_stopped_ones_are_trained_whole_too_and_no_longer_seed_is_the_proxys(invented):
    setting, chosen = Setting(**invented.plan.setting), verification._chosen(invented, 8)
    assert [t.number for t in chosen] == [0, 1, 2, 3, 4, 5]
    missing = verification._missing(invented, chosen, setting, 10, 2)
    asked = [(m.trial.number, m.setting.epochs, m.setting.seed) for m in missing]
    assert asked == [(n, 10, seed) for seed in (1, 2) for n in range(6)] + [(n, 2, 0) for n in (2, 3, 4, 5)]
    invented.trained_longer(3, Longer(10, 1, 0.5, 1.0))
    assert len(verification._missing(invented, chosen, setting, 10, 2)) == len(asked) - 1
