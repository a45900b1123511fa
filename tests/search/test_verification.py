import pytest
from rich.console import Console

from lkspace.errors import UserError
from lkspace.report import trust_table
from lkspace.report.tables import front_table
from lkspace.scores import pace
from lkspace.scores.score import Setting
from lkspace.search import run, verification, verify
from lkspace.search.room import Room
from lkspace.search.verification import _length
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study
from lkspace.study.trust import Longer


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "studied"
    call = {"data": "digits:train=128,val=64", "overrides": {"epochs": 1}, "sampler": "random", "concurrency": 2}
    return run(SearchSpace.load("replknet-micro"), budget=5, folder=folder, objectives=("accuracy", "latency"), **call)


def text(renderable):
    console = Console(width=100)
    with console.capture() as shown:
        console.print(renderable)
    return shown.get()


def test_what_cannot_be_verified_is_refused(studied, tmp_path):
    for wrong in ("", "0", "1x", "1", "2.5x", "x", "-3"):
        with pytest.raises(UserError, match="expected more than the proxy's 1"):
            verify(studied.folder, epochs=wrong)
    with pytest.raises(UserError, match="top is 0"):
        verify(studied.folder, top=0)
    with pytest.raises(UserError, match="seeds is 0"):
        verify(studied.folder, seeds=0)
    with pytest.raises(UserError, match="expected 0: the run was made on the CPU"):
        verify(studied.folder, gpus_per_trial=0.5)
    with pytest.raises(UserError, match="no run"):
        verify(tmp_path)
    assert "not verified" in text(front_table(studied))
    assert "not verified" in text(trust_table(studied))


def test_lengths():
    assert (_length("5x", 4), _length("30", 4)) == (20, 30)


def test_longer_trainings_are_kept_continued_and_told(studied, monkeypatch, tmp_path):
    first = verify(studied.folder, top=1, epochs="2x", seeds=1, concurrency=2)
    counts = {n: len(runs) for n, runs in first.longer().items()}
    assert sum(counts.values()) == 2
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "cleared"))
    monkeypatch.setattr(pace, "seconds_now", lambda: 1.0)  # by which the machine's own pace would be another
    again = verify(studied.folder, top=2, epochs="2", seeds=2, concurrency=2)
    found = again.trust()
    assert len(found.candidates) >= 3
    assert (found.epochs, found.seeds) == (2, 2)
    assert all(len(c.accuracies) == 2 for c in found.candidates)
    kept = {(n, r.seed): r for n, runs in again.longer().items() for r in runs}
    assert all(kept[n, r.seed] == r for n, runs in first.longer().items() for r in runs)
    assert all(Study.open(studied.folder).trial(c.number).remeasured["latency"] for c in found.candidates)
    (standard,) = {t.measurements["latency"]["standard"] for t in again.trials}
    assert {t.remeasured["latency"]["standard"] for t in again.trials if "latency" in t.remeasured} == {standard}
    assert "trained for 2 epochs with 2 seeds" in text(front_table(again))
    assert "stays on it" in text(trust_table(again))


@pytest.mark.parametrize("shares", [True, False])
def test_what_needs_the_memory_for_itself_has_it(studied, monkeypatch, shares):
    started, most = [], []

    class Remote:
        def options(self, **_):
            return self

        def remote(self, architecture, setting):
            started.append(architecture)
            most.append(len(started))
            return len(most)

    def wait(running, num_returns):
        started.pop()
        return running[:1], running[1:]

    monkeypatch.setattr("ray.remote", lambda _: Remote())
    monkeypatch.setattr("ray.wait", wait)
    monkeypatch.setattr("lkspace.search.tune.result_of", lambda *_: Longer(9, len(most), 0.5, 1.0))
    monkeypatch.setattr(Study, "trained_longer", lambda *_: None)
    monkeypatch.setattr(Room, "shares", lambda *_: shares)
    setting = Setting(**studied.plan.setting)
    verification._train(studied, [(t, setting) for t in studied.trials], 3, 0, Room.of(setting, 3), None)
    assert len(most) == 5
    assert max(most) == (3 if shares else 1)
