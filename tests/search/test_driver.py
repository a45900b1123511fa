"""Searches through Ray, end to end: a whole one, one where everything diverges, and one that is killed all the time."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from safetensors import safe_open

from lkspace.errors import RunError, UserError
from lkspace.scores.score import Measurement
from lkspace.search import cluster, run
from lkspace.search.driver import _Search, standard_of
from lkspace.search.request import request
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study

CALL = {"data": "digits:train=128,val=64", "overrides": {"epochs": 1}, "sampler": "pareto", "concurrency": 2}
MARK = "LKSPACE_TEST_MARK"
PATIENCE = 120.0


def until(happened: Callable[[], object], what: str) -> object:
    """What `happened` gives as soon as it is true; polls, since another process makes it so."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := happened():
            return result
        time.sleep(0.02)
    pytest.fail(f"{what} did not happen within {PATIENCE:g} s")


def processes(mark: str) -> dict[int, str]:
    """Living processes that descend from a driver with this mark: id to command line.

    Without the two agents of a killed Ray, which wait up to a minute to report its death.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
                    if "Agent" in found[int(entry.name)]:
                        del found[int(entry.name)]
            except OSError:
                continue
    return found


class Run:
    """A run in a folder, driven by other processes."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder = folder
        options = {"space": "replknet-micro", "data": CALL["data"], "epochs": 1, "objectives": "accuracy,flops"}
        options |= {"concurrency": CALL["concurrency"], "budget": budget, "run": folder}
        self.command = [sys.executable, "-m", "lkspace", "search"]
        self.command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, MARK: self.folder.name}
        return subprocess.Popen(
            self.command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def outcomes(self) -> dict[str, int]:
        try:
            return Study.open(self.folder).counts()
        except UserError:
            return {}

    def await_complete(self, count: int) -> None:
        until(lambda: self.outcomes().get("complete", 0) >= count, f"trial {count}")

    def await_quiet(self) -> None:
        until(lambda: not processes(self.folder.name), "the end of all processes")

    def await_death(self) -> None:
        """Of a killed driver's processes, but for a server that at times survives: the next driver ends it."""
        until(lambda: all("gcs_server" in c for c in processes(self.folder.name).values()), "the death of processes")


def requested(space, **call):
    fixed = {"data": "digits", "overrides": {}, "sampler": "pareto", "seed": 0, "device": "cpu", "command": ""}
    return request(space, **{"budget": 2, "constraints": [], **fixed, **call})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    objectives = ("accuracy", "flops", "latency")
    return run(SearchSpace.load("replknet-micro"), budget=5, folder=folder, objectives=objectives, **CALL)


def test_a_search_fills_its_budget_with_different_architectures(whole):
    trials = whole.trials
    assert [t.number for t in trials] == list(range(5))
    assert [t.outcome for t in trials] == ["complete"] * 5, [t.reason for t in trials]
    assert len({t.id for t in trials}) == 5
    assert trials[0].origin == "reference point"
    for trial in trials:
        assert set(trial.values) == {"accuracy", "flops", "latency", "params"}
        assert len(trial.curve) == 1
        assert set(trial.seconds) == {"accuracy", "flops", "latency", "params"}


def test_the_run_leaves_what_the_page_and_an_export_need(whole):
    assert SearchSpace.load(whole.folder / "space.yaml").to_dict() == whole.plan.space
    seen = json.loads((whole.folder / "environment.json").read_text())
    assert seen["packages"]["torch"]
    assert (seen["concurrency"], seen["gpus_per_trial"]) == (CALL["concurrency"], 0)
    for trial in whole.trials:
        folder = whole.folder / "trials" / str(trial.number)
        assert json.loads((folder / "curve.json").read_text())[-1]["accuracy"] == trial.values["accuracy"]
        with safe_open(folder / "weights.safetensors", "pt") as weights:
            assert Architecture.from_json(weights.metadata()["architecture"]) == trial.architecture
            assert len(weights.keys()) > 10


def test_the_front_was_measured_again_and_nothing_else(whole):
    front = {t.number for t in whole.front()}
    assert front
    for trial in Study.open(whole.folder).trials:
        assert ("latency" in trial.remeasured) == (trial.number in front)


def test_the_table_of_parts_is_compared_with_what_was_measured(whole):
    assert "5 networks measured whole" in whole.latency_table


def test_a_run_that_goes_on_keeps_its_pace(tmp_path):
    space, objectives = SearchSpace.load("replknet-micro"), ["latency", "params"]
    asked = requested(space, objectives=objectives, sampler="random")
    study = Study.create(tmp_path / "run", asked.plan("run", {"latency": 1e3, "params": 1e9}, {"data_key": ""}))
    number = study.start(study.given(None, {}), space.reference_points[0])
    first = {"latency": Measurement(1.0, {"standard": 0.0123}), "params": Measurement(1.0)}
    study.finish(number, "complete", measurements=first)
    call = {"budget": 2, "folder": tmp_path / "run", "objectives": objectives, "data": "digits", "sampler": "random"}
    trials = run(space, **call).trials
    assert [t.measurements["latency"]["standard"] for t in trials] == [0.0123] * 2


def test_a_bound_on_latency_alone_has_one_pace_too(tmp_path):
    asked = requested(SearchSpace.load("replknet-micro"), objectives=["flops"], constraints=["latency<=1s"])
    search = _Search(asked, tmp_path, None, 1, 0.0, None, None)
    study = search._create("", 1)
    assert search._standard > 0
    assert standard_of(study) == search._standard  # also for a call that comes before any trial has ended


def test_the_same_call_again_changes_nothing_and_needs_no_ray(whole, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    again = run(
        SearchSpace.load("replknet-micro"),
        budget=5,
        folder=whole.folder,
        objectives=("accuracy", "flops", "latency"),
        **CALL,
    )
    assert [t.id for t in again.trials] == [t.id for t in whole.trials]


def test_another_call_in_the_folder_is_refused(whole):
    with pytest.raises(UserError, match="seed 0, this call has 3: name another folder with --run"):
        run(
            SearchSpace.load("replknet-micro"),
            budget=5,
            folder=whole.folder,
            objectives=("accuracy", "flops", "latency"),
            seed=3,
            **CALL,
        )


def test_trainings_that_diverge_are_told_apart_and_named(tmp_path):
    call = {**CALL, "overrides": {"epochs": 1, "rate": 1e30}}
    with pytest.raises(RunError, match=r"no trial completed \(3 diverged\); trial 2 diverged: loss is"):
        run(SearchSpace.load("replknet-micro"), budget=3, folder=tmp_path, objectives=["accuracy", "flops"], **call)
    study = Study.open(tmp_path)
    assert [t.state.name for t in study._optuna.get_trials()] == ["FAIL"] * 3
    assert all(t.values["flops"] > 0 and "accuracy" not in t.values for t in study.trials)


def test_early_stopping_ends_trials_in_the_middle_of_their_training_the_same_ones_twice(tmp_path):
    call = {**CALL, "overrides": {"epochs": 2}, "concurrency": 1}
    space, objectives = SearchSpace.load("replknet-micro"), ["accuracy", "flops"]
    study = run(space, budget=10, folder=tmp_path / "run", objectives=objectives, early_stopping="halving", **call)
    assert study.counts().keys() <= {"complete", "stopped", "rejected: params<=20K", "rejected: kernels non-increasing"}
    stopped = [t for t in study.trials if t.outcome == "stopped"]
    assert stopped
    assert len(study.trials) == 10
    for trial in stopped:
        assert len(trial.curve) == 1
        assert trial.reason == "others of its cost were ahead after epoch 1 of 2"
        assert trial.number not in {t.number for t in study.front()}
    again = run(space, budget=10, folder=tmp_path / "again", objectives=objectives, early_stopping="halving", **call)
    for one, other in zip(study.trials, again.trials, strict=True):
        assert (one.id, one.outcome, one.values) == (other.id, other.outcome, other.values)
    with pytest.raises(UserError, match="early stopping halving, this call has none"):
        run(space, budget=10, folder=tmp_path / "run", objectives=objectives, early_stopping="none", **call)


def test_a_run_survives_every_kind_of_death(tmp_path):
    """SIGKILL to the driver while it starts and while trials run, SIGKILL to a worker, Ctrl-C; then it ends as if
    nothing had been."""
    budget = 5
    killed = Run(tmp_path / "killed", budget)
    driver = killed.start()
    until((killed.folder / ".lock").exists, "the start")
    driver.kill()
    driver.wait()
    killed.await_death()

    driver = killed.start()
    killed.await_complete(1)
    driver.kill()
    driver.wait()
    killed.await_death()
    before = {t.number: t.id for t in Study.open(killed.folder).trials}

    driver = killed.start()
    killed.await_complete(2)
    # Ray titles a process after the method it runs.
    worker = until(lambda: [p for p, c in processes("killed").items() if ".train" in c], "a trial in a worker")
    os.kill(worker[0], signal.SIGKILL)
    killed.await_complete(3)
    driver.send_signal(signal.SIGINT)
    printed, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130, printed
    assert "interrupted; the same command continues" in printed
    page = killed.folder / "front.html"
    assert page.exists()
    page.unlink()
    killed.await_quiet()

    driver = killed.start()
    printed, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, printed
    assert page.exists()
    killed.await_quiet()
    trials = Study.open(killed.folder).trials
    assert [t.number for t in trials] == list(range(budget))
    assert [t.outcome for t in trials] == ["complete"] * budget
    assert len({t.id for t in trials}) == budget
    assert before.items() <= {t.number: t.id for t in trials}.items()
    scratch = json.loads((killed.folder / ".lock").read_text())["scratch"]
    assert not Path(scratch).exists()


@pytest.mark.parametrize("again", ["the same storage", "no storage"])
def test_a_run_in_another_database_is_found_again(tmp_path, monkeypatch, again):
    """Also when its folder has been moved since."""
    space, call = SearchSpace.load("replknet-micro"), {"budget": 2, "objectives": ["flops"], "folder": tmp_path / "run"}
    url = f"sqlite:///{tmp_path}/all.db"
    asked = requested(space, objectives=["flops"])
    study = Study.create(tmp_path / "before", asked.plan("run", {"flops": 1e9}, {"data_key": ""}), url)
    study.folder.rename(tmp_path / "run")
    for architecture in list(space.enumerate())[:2]:
        number = study.start(study.given(None, {}), architecture)
        study.finish(number, "complete", measurements={"flops": Measurement(1.0)})
    monkeypatch.setattr(cluster, "ray_cluster", lambda *_, **__: pytest.fail("Ray was started"))
    found = run(space, **call, storage=url if again == "the same storage" else None)
    assert (found.folder, len(found.trials)) == (tmp_path / "run", 2)
    assert not (tmp_path / "run" / "study.db").exists()


def test_a_bound_that_the_latency_table_thinks_impossible_is_named(tmp_path):
    console = Console(width=200)
    bounds = ["latency<=4ms", "latency<=6ms"]
    asked = requested(SearchSpace.load("replknet-micro"), objectives=["flops", "latency"], constraints=bounds)
    search = _Search(asked, tmp_path, None, 1, 0.0, None, console)
    for slowest, said in ((5.0, "latency<=4"), (math.nan, "")):
        with console.capture() as printed:
            for bound in asked.constraints:
                search._warn_of(bound, SimpleNamespace(sum=lambda _, ms=slowest: ms))
        assert printed.get().startswith(said)
        assert len(printed.get().splitlines()) == bool(said)


def test_a_run_with_a_file_is_not_moved_to_a_database(whole, tmp_path):
    with pytest.raises(UserError, match=r"keeps its study in study\.db: leave --storage away"):
        run(
            SearchSpace.load("replknet-micro"),
            budget=5,
            folder=whole.folder,
            objectives=("accuracy", "flops", "latency"),
            storage=f"sqlite:///{tmp_path}/all.db",
            **CALL,
        )
