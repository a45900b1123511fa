import pytest
from rich.console import Console

from lkspace.errors import UserError
from lkspace.report import trust_table
from lkspace.report.tables import front_table
from lkspace.scores import pace
from lkspace.search import run, verify
from lkspace.search.verification import _length
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study


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


def test_longer_trainings_are_kept_continued_and_told(studied, monkeypatch):
    first = verify(studied.folder, top=1, epochs="2x", seeds=1, concurrency=2)
    counts = {n: len(runs) for n, runs in first.longer().items()}
    assert sum(counts.values()) == 2
    again = verify(studied.folder, top=2, epochs="2", seeds=2, concurrency=2)
    found = again.trust()
    assert len(found.candidates) >= 3
    assert (found.epochs, found.seeds) == (2, 2)
    assert all(len(c.accuracies) == 2 for c in found.candidates)
    kept = {(n, r.seed): r for n, runs in again.longer().items() for r in runs}
    assert all(kept[n, r.seed] == r for n, runs in first.longer().items() for r in runs)
    assert all(Study.open(studied.folder).trial(c.number).remeasured["latency"] for c in found.candidates)
    assert "trained for 2 epochs with 2 seeds" in text(front_table(again))
    assert "stays on it" in text(trust_table(again))


def test_latency_is_measured_at_the_pace_of_the_run(studied, monkeypatch, tmp_path):
    """Whatever became of the cache in which the standard is kept."""
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "another"))
    verify(studied.folder, top=1, epochs="2x", seeds=1, concurrency=2)
    standard = studied.trials[0].measurements["latency"]["standard"]
    assert pace.known_standard(pace.standard_file(1)) == pytest.approx(standard / 1e3)
