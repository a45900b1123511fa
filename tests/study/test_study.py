"""The record: what is written comes back, from any moment on; wrong places are told in one line."""

import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from lkspace.errors import RunError, UserError
from lkspace.quantity import Bound
from lkspace.scores.score import Measurement
from lkspace.space.architecture import Architecture
from lkspace.study import Study, storage
from lkspace.study.record import FORMAT, Objective, Plan
from lkspace.study.trust import Longer

OBJECTIVES = (Objective("accuracy", "%", "maximize"), Objective("latency", "ms", "minimize"))
CHOICES: dict[str, list[Any]] = {
    "kernels": [[3, 3], [7, 5], [13, 7]],
    "blocks_1": [1, 2, 3],
    "blocks_2": [1, 2, 3],
    "reparam": [None, 3, 5],
    "shortcut": [True, False],
    "ffn_ratio": [2.0, 4.0],
}


def plan(**fields: Any) -> Plan:
    given = {
        "name": "first",
        "space": {"name": "replknet-micro", "stages": [1, None, [2.5, True]]},
        "objectives": OBJECTIVES,
        "reference_point": {"accuracy": 0.2, "latency": 10.0},
        "constraints": (Bound("params", "<=", 2e6),),
        "setting": {"data": "digits", "size": 64, "cache": None},
        "sampler": "nsga2",
        "seed": 7,
        "budget": 20,
        "command": "lkspace search",
        "environment": {"cores": 2},
    }
    return Plan(**{**given, **fields})


def architecture(params: dict[str, Any]) -> Architecture:
    return Architecture(
        family="replknet",
        blocks=(params["blocks_1"], params["blocks_2"]),
        channels=(8, 16),
        kernels=tuple(params["kernels"]),
        reparam=(params["reparam"],) * 2,
        shortcut=(params["shortcut"],) * 2,
        ffn_ratio=params["ffn_ratio"],
    )


def scored(accuracy: float, latency: float, params: float = 1e6) -> dict[str, Measurement]:
    return {"accuracy": Measurement(accuracy), "latency": Measurement(latency), "params": Measurement(params)}


def add(study: Study, outcome: str = "complete", *values: float, **fields: Any) -> int:
    """One trial from asking to its end, with these scores."""
    asked = study.ask(optuna.samplers.RandomSampler(seed=len(study.trials)), CHOICES)
    number = study.start(asked, architecture(dict(asked.params)))
    measurements = fields.pop("measurements", scored(*values) if values else {})
    study.finish(number, outcome, measurements=measurements, **fields)  # type: ignore[arg-type]
    return number


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "first", plan())


# What is written comes back.


def test_plan_comes_back_whole(study: Study) -> None:
    assert study.folder is not None
    opened = Study.open(study.folder)
    assert json.loads(json.dumps(opened.plan.to_dict())) == json.loads(json.dumps(plan().to_dict()))
    assert opened.plan == Plan.from_dict(json.loads(json.dumps(plan().to_dict())))
    assert opened.plan.objectives == OBJECTIVES
    assert opened.plan.constraints == (Bound("params", "<=", 2e6),)
    assert opened.reference_point == {"accuracy": 0.2, "latency": 10.0}
    assert (opened.name, opened.folder) == ("first", study.folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objectives": ()}, "at least one objective"),
        ({"reference_point": {"accuracy": 0.1}}, "does not name the objectives"),
        ({"reference_point": {"accuracy": 1.0, "latency": 1.0}}, "accuracy=1.0 is not worse"),
        ({"reference_point": {"accuracy": 0.1, "latency": 0.0}}, "latency=0.0 is not worse"),
        ({"reference_point": {"accuracy": 0.1, "latency": float("nan")}}, "latency=nan is not worse"),
    ],
)
def test_a_plan_that_gives_no_hypervolume_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(**fields)


def test_trials_come_back_with_all_they_are_made_of(study: Study) -> None:
    asked = study.ask(optuna.samplers.RandomSampler(seed=0), CHOICES)
    number = study.start(asked, architecture(dict(asked.params)), "reference point")
    measurements = scored(0.8, 4.0) | {
        "latency": Measurement(
            np.float64(4.0), {"interval": (3.9, np.float32(4.5)), "repeats": np.int64(9), "at": Path("x")}
        )
    }
    curve = [
        {"epoch": 1, "epochs": 2, "accuracy": np.float32(0.5), "loss": float("nan")},
        {"epoch": 2, "epochs": 2, "accuracy": 0.8, "loss": 0.1},
    ]
    study.finish(number, "complete", "", measurements, curve, {"accuracy": 12.5})
    (trial,) = Study.open(str(study.folder)).trials
    assert trial.number == number == 0
    assert trial.architecture == architecture(dict(asked.params))
    assert (trial.id, trial.origin, trial.outcome) == (trial.architecture.id, "reference point", "complete")
    assert trial.values == {"accuracy": 0.8, "latency": 4.0, "params": 1e6}
    assert trial.measurements["latency"] == {"value": 4.0, "interval": [3.9, 4.5], "repeats": 9, "at": "x"}
    assert trial.curve == (
        {"epoch": 1, "epochs": 2, "accuracy": 0.5, "loss": None},
        {"epoch": 2, "epochs": 2, "accuracy": 0.8, "loss": 0.1},
    )
    assert trial.seconds == {"accuracy": 12.5}
    assert trial.started is not None
    assert trial.finished is not None
    assert trial.started <= trial.finished


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("complete", "COMPLETE"),
        ("diverged", "FAIL"),
        ("failed", "FAIL"),
        ("infeasible", "PRUNED"),
        ("stopped", "PRUNED"),
    ],
)
def test_every_outcome_has_its_state_in_optuna(study: Study, outcome: str, state: str) -> None:
    add(study, outcome, 0.5, 3.0, reason="so it is")
    (theirs,) = optuna.load_study(study_name="first", storage=f"sqlite:///{study.folder}/study.db").trials
    (ours,) = study.trials
    assert (theirs.state.name, ours.outcome, ours.reason) == (state, outcome, "so it is")
    assert theirs.values == ([0.5, 3.0] if outcome == "complete" else None)
    assert set(theirs.params) == set(CHOICES)


def test_optunas_tools_agree_on_the_front_and_on_what_is_feasible(study: Study) -> None:
    rng = np.random.default_rng(0)
    for _ in range(15):
        add(study, "complete", float(rng.integers(1, 6)) / 10, float(rng.integers(1, 6)), float(rng.choice([1e6, 3e6])))
    theirs = optuna.load_study(study_name="first", storage=f"sqlite:///{study.folder}/study.db")
    assert {t.number for t in theirs.best_trials} == {t.number for t in study.front()}
    assert theirs.metric_names == ["accuracy", "latency"]


def test_a_value_that_is_not_finite_is_missing(study: Study) -> None:
    add(study, "failed", measurements={"accuracy": Measurement(float("nan")), "latency": Measurement(2.0)})
    (trial,) = study.trials
    assert trial.values == {"latency": 2.0}
    assert trial.measurements["accuracy"] == {"value": None}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_complete_trial_needs_finite_objectives(study: Study, value: float | None) -> None:
    measurements = {"accuracy": Measurement(0.5)} | ({} if value is None else {"latency": Measurement(value)})
    with pytest.raises(ValueError, match="no finite latency"):
        add(study, "complete", measurements=measurements)
    assert [t.outcome for t in study.trials] == ["running"]


def test_a_trial_ends_once_and_a_reader_writes_nothing(study: Study) -> None:
    number = add(study, "failed")
    with pytest.raises(ValueError, match="trial 0 is finished already"):
        study.finish(number, "failed")
    reader = Study.open(str(study.folder))
    with pytest.raises(ValueError, match="opened for reading"):
        reader.start(reader.given(None, {}), study.trials[0].architecture)


def test_later_measurements_stand_beside_the_first(study: Study) -> None:
    number = add(study, "complete", 0.5, 3.0)
    study.remeasured(number, {"latency": Measurement(3.3, {"repeats": 5})})
    study.remeasured(number, {"accuracy": Measurement(0.6)})
    (trial,) = Study.open(str(study.folder)).trials
    assert trial.values["latency"] == 3.0
    assert trial.remeasured == {"latency": {"value": 3.3, "repeats": 5}, "accuracy": {"value": 0.6}}


def test_the_budget_grows(study: Study) -> None:
    study.set_budget(40)
    assert study.plan.budget == Study.open(str(study.folder)).plan.budget == 40
    assert study.plan.seed == 7


def test_a_reader_sees_what_is_written_after_it_opened(study: Study) -> None:
    reader = Study.open(str(study.folder))
    assert (reader.trials, reader.front(), reader.hypervolume(), reader.counts()) == ([], [], 0.0, {})
    asked = study.ask(optuna.samplers.RandomSampler(seed=0), CHOICES)
    number = study.start(asked, architecture(dict(asked.params)))
    assert [t.outcome for t in reader.trials] == ["running"]
    study.finish(number, "complete", measurements=scored(0.6, 5.0))
    assert [t.outcome for t in reader.trials] == ["complete"]
    assert reader.front() == reader.trials


# Front and hypervolume.


def test_front_of_mixed_directions(study: Study) -> None:
    values = [(0.5, 5.0), (0.6, 5.0), (0.6, 5.0), (0.9, 9.0), (0.3, 1.0), (0.3, 2.0), (0.2, 9.5)]
    for value in values:
        add(study, "complete", *value)
    add(study, "infeasible", 0.99, 0.1)
    add(study, "complete", 0.99, 0.1, 3e6)  # breaks params<=2M
    add(study, "complete", measurements={"accuracy": Measurement(0.99), "latency": Measurement(0.1)})  # params unknown
    add(study, "failed", 0.99, 0.1)

    def better(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] >= b[0] and a[1] <= b[1]

    expected = {i for i, v in enumerate(values) if not any(better(w, v) for w in values)}
    assert {t.number for t in study.front()} == expected == {1, 2, 3, 4}
    assert [t.values["accuracy"] for t in study.front()] == [0.9, 0.6, 0.6, 0.3]
    assert [t.feasible for t in study.trials] == [True] * 7 + [False, False, False, True]


def test_hypervolume_is_a_share_of_the_box(study: Study) -> None:
    # The box: accuracy 0.2 to 1, latency 10 ms to 0.
    add(study, "complete", 0.6, 5.0)
    assert study.hypervolume() == pytest.approx(0.5 * 0.5)
    add(study, "complete", 0.8, 7.5)
    assert study.hypervolume() == pytest.approx(0.25 + 0.25 * 0.25)
    add(study, "complete", 0.1, 1.0)  # worse than the reference point in accuracy
    add(study, "infeasible", 1.0, 0.0)
    add(study, "complete", 0.6, 5.0)
    history = study.hypervolume_history()
    assert [v for _, v in history] == pytest.approx([0.25, 0.3125, 0.3125, 0.3125, 0.3125])


def test_history_follows_the_order_in_which_trials_finished(study: Study) -> None:
    asked = [study.ask(optuna.samplers.RandomSampler(seed=i), CHOICES) for i in range(3)]
    numbers = [study.start(a, architecture(dict(a.params))) for a in asked]
    for number in reversed(numbers[1:]):
        study.finish(number, "complete", measurements=scored(0.6, 5.0))
    assert [n for n, _ in study.hypervolume_history()] == [2, 1]


def test_table_has_a_row_per_trial(study: Study) -> None:
    add(study, "complete", 0.6, 5.0, seconds={"accuracy": 2.0, "latency": 1.0})
    add(study, "failed", reason="no memory")
    table = study.table()
    assert table.index.tolist() == [0, 1]
    assert table["front"].tolist() == [True, False]
    assert table["reason"].tolist() == ["", "no memory"]
    assert table["seconds"].tolist() == [3.0, 0.0]
    assert table["accuracy"].isna().tolist() == [False, True]
    assert table.loc[0, "kernels"] == list(study.trials[0].architecture.kernels)
    assert {"id", "outcome", "latency", "params", "blocks", "shortcut", "ffn_ratio"} <= set(table.columns)


def test_an_empty_table_has_its_columns(study: Study) -> None:
    assert len(study.table()) == 0
    assert {"outcome", "accuracy", "latency"} <= set(study.table().columns)


def test_no_such_trial(study: Study) -> None:
    with pytest.raises(UserError, match="no trials yet"):
        study.trial(0)
    add(study, "failed")
    assert study.trial(0).outcome == "failed"
    with pytest.raises(UserError, match="no trial 5 in 'first': it has trials 0 to 0"):
        study.trial(5)


# Asking.


def test_values_come_back_as_the_choices_have_them(study: Study) -> None:
    for seed in range(20):
        asked = study.ask(optuna.samplers.RandomSampler(seed=seed), CHOICES)
        for name, value in asked.params.items():
            assert any(value is c for c in CHOICES[name])
    assert study.trials == []


def test_rejected_candidates_are_counted_and_take_no_number(study: Study) -> None:
    for reason in ("duplicate", "params<=2M", "duplicate"):
        study.reject(study.ask(optuna.samplers.RandomSampler(seed=0), CHOICES), reason)
    assert add(study, "complete", 0.5, 3.0) == 0
    assert Study.open(str(study.folder)).counts() == {
        "complete": 1,
        "rejected: duplicate": 2,
        "rejected: params<=2M": 1,
    }
    continued = Study.open(str(study.folder), writable=True)
    continued.reject(continued.ask(optuna.samplers.RandomSampler(seed=0), CHOICES), "duplicate")
    add(continued, "failed")
    assert study.rejected() != continued.rejected() == {"duplicate": 3, "params<=2M": 1}


class ByNumber(optuna.samplers.NSGAIISampler):
    """Parents in one order: Optuna's differs between the first suggestion of a generation and the later ones."""

    def get_parent_population(self, study: Any, generation: int) -> list[Any]:
        return sorted(super().get_parent_population(study, generation), key=lambda t: t.number)


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: ByNumber(population_size=4, seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(n_startup_trials=4, seed=seed),
}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_continued_study_asks_as_if_it_had_not_stopped(tmp_path: Path, name: str) -> None:
    def asked_for(folder: Path, reopen: bool) -> list[dict[str, Any]]:
        study, suggestions = Study.create(folder, plan()), []
        for i in range(12):
            if reopen:
                assert study.folder is not None
                study = Study.open(study.folder, writable=True)
            asked = study.ask(SAMPLERS[name](i), CHOICES)
            if i == 6:
                study.reject(asked, "duplicate")
                continue
            suggestions.append(dict(asked.params))
            number = study.start(asked, architecture(dict(asked.params)))
            blocks = asked.params["blocks_1"]
            if i % 5 == 4:
                study.finish(number, "infeasible", "too slow", {"latency": Measurement(30.0)})
            else:
                study.finish(number, "complete", measurements=scored(0.3 + 0.1 * blocks, 2.0 * blocks))
        return suggestions

    assert asked_for(tmp_path / "one", reopen=False) == asked_for(tmp_path / "two", reopen=True)


def test_a_candidate_from_outside_the_space_does_not_blind_the_samplers(study: Study) -> None:
    """Optuna's samplers relate only variables that all trials have; a trial without any would leave none."""
    outside = Architecture("replknet", (1, 1), (8, 8), (3, 3), (None, None), (True, True))
    number = study.start(study.given(None, {}), outside, "reference point")
    study.finish(number, "complete", measurements=scored(0.5, 5.0))
    inside = {name: values[0] for name, values in CHOICES.items()}
    number = study.start(study.given(inside, CHOICES), architecture(inside), "reference point")
    study.finish(number, "complete", measurements=scored(0.5, 5.0))
    for _ in range(4):
        add(study, "complete", 0.5, 3.0)

    seen = []

    class Spy(optuna.samplers.NSGAIISampler):
        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            seen.append(set(search_space))
            return super().sample_relative(study, trial, search_space)

    for reader in (study, Study.open(str(study.folder), writable=True)):
        reader.ask(Spy(population_size=4, seed=0), CHOICES)
    assert seen == [set(CHOICES)] * 2
    assert [t.origin for t in study.trials[:3]] == ["reference point", "reference point", "sampler"]


# Killed.


def test_a_driver_killed_between_result_and_state_leaves_a_running_trial(study: Study) -> None:
    asked = study.ask(optuna.samplers.RandomSampler(seed=0), CHOICES)
    number = study.start(asked, architecture(dict(asked.params)))

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study._database, "set_trial_state_values", die)
        with pytest.raises(KeyboardInterrupt):
            study.finish(number, "complete", measurements=scored(0.9, 1.0))
    continued = Study.open(str(study.folder), writable=True)
    (pending,) = continued.pending()
    assert (pending.number, pending.values, pending.architecture) == (0, {}, architecture(dict(asked.params)))
    assert continued.front() == []
    continued.finish(0, "complete", measurements=scored(0.4, 3.0))
    assert continued.pending() == []
    assert continued.trials[0].values["accuracy"] == 0.4


def test_killed_with_sigkill_the_study_goes_on(tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_study import *
        study = Study.create({str(tmp_path / "run")!r}, plan())
        add(study, "complete", 0.5, 3.0)
        asked = study.ask(optuna.samplers.RandomSampler(seed=5), CHOICES)
        study.start(asked, architecture(dict(asked.params)))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    study = Study.open(tmp_path / "run", writable=True)
    assert [t.outcome for t in study.trials] == ["complete", "running"]
    study.finish(study.pending()[0].number, "complete", measurements=scored(0.6, 3.5))
    assert add(study, "failed") == 2


# Places.


def foreign(folder: Path) -> Path:
    folder.mkdir()
    optuna.create_study(storage=f"sqlite:///{folder}/study.db", study_name="theirs")
    return folder


def newer(folder: Path) -> Path:
    Study.create(folder, plan())._optuna.set_user_attr("lkspace:format", FORMAT + 1)
    return folder


def holding(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "study.db").write_bytes(content)
    return folder


def executed(folder: Path, statement: str) -> Path:
    """The folder, after a statement on its study's database."""
    connection = sqlite3.connect(folder / "study.db")
    connection.execute(statement)
    connection.commit()
    connection.close()
    return folder


def unrelated(folder: Path) -> Path:
    folder.mkdir()
    return executed(folder, "create table t (x)")


def truncated(folder: Path) -> Path:
    Study.create(folder, plan())
    file = folder / "study.db"
    file.write_bytes(file.read_bytes()[:9000])
    return folder


def older_optuna(folder: Path) -> Path:
    Study.create(folder, plan())
    return executed(folder, "update alembic_version set version_num = 'v0.9.0.a'")


def zeroed(file: Path, table: str) -> None:
    """Nothing but zeros where a table begins, as after an error of the disk."""
    connection = sqlite3.connect(file)
    (page,) = connection.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    connection.close()
    with file.open("r+b") as disk:
        disk.seek((page - 1) * size)
        disk.write(bytes(size))


def damaged(folder: Path) -> Path:
    Study.create(folder, plan())
    zeroed(folder / "study.db", "study_user_attributes")
    return folder


def garbled(folder: Path) -> Path:
    Study.create(folder, plan())
    return executed(folder, "update study_user_attributes set value_json = '{' where key = 'lkspace:plan'")


WRONG: dict[str, tuple[Callable[[Path], Path | str], str]] = {
    "missing": (lambda p: p, r"no run at '.*wrong': no such folder; runs in '.*': first"),
    "no study.db": (lambda p: (p.mkdir(), p)[1], "the folder has no study.db; expected the folder of a run"),
    "parent of runs": (lambda p: p.parent, "the folder has no study.db; runs in '.*': first"),
    "nothing in it": (lambda p: holding(p, b""), "is not a study that can be read"),
    "not a database": (lambda p: holding(p, b"hello " * 1000), "file is not a database"),
    "truncated": (truncated, "is not a study that can be read"),
    "damaged": (damaged, r"is not a study that can be read \(.*malformed\)"),
    "garbled": (garbled, r"is not a study that can be read \(Expecting"),
    "another database": (unrelated, "is not a study that can be read"),
    "not of lkspace": (foreign, "no study of lkspace at"),
    "newer": (newer, f"has format {FORMAT + 1}, this lkspace reads up to {FORMAT}; update"),
    "other Optuna": (older_optuna, "written by another version of Optuna"),
    "url without file": (lambda p: f"sqlite:///{p}.db", "no such file"),
    "url without path": (lambda p: "sqlite://", "names no file"),
    "url of nothing": (lambda p: "nonsense://user:secret@host/db", "not a database URL"),
    "url without driver": (lambda p: "mysql+pymysql://user:secret@host/db", "needs a database driver"),
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_a_wrong_place_is_one_line_and_stays_as_it_was(tmp_path: Path, kind: str) -> None:
    Study.create(tmp_path / "first", plan())
    make, words = WRONG[kind]
    place = make(tmp_path / "wrong")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=words) as raised:
        Study.open(place)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("table", ["trials", "trial_params", "trial_user_attributes"])
def test_trials_that_cannot_be_read_are_one_line(study: Study, table: str) -> None:
    add(study, "complete", 0.5, 3.0)
    assert study.folder is not None
    zeroed(study.folder / "study.db", table)
    reader = Study.open(study.folder)
    assert reader.plan == study.plan
    with pytest.raises(UserError, match=r"first' is not a study that can be read \(.*malformed\)") as raised:
        reader.front()
    assert "\n" not in str(raised.value)


def test_a_plan_that_is_lost_is_one_line(study: Study) -> None:
    assert study.folder is not None
    executed(study.folder, "delete from study_user_attributes where key = 'lkspace:plan'")
    with pytest.raises(UserError, match=r"is not a study that can be read \('lkspace:plan'\)"):
        Study.open(study.folder).front()


def test_no_study_is_made_in_a_database_that_cannot_be_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    Study.create(tmp_path / "one", plan(name="one"), url)
    zeroed(tmp_path / "all.db", "studies")
    with pytest.raises(UserError, match=r"all.db' is not a study that can be read"):
        Study.create(tmp_path / "two", plan(name="two"), url)


def test_a_storage_that_no_longer_answers_is_not_called_damaged(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    add(study, "failed")
    gone = StorageInternalError("an error of the storage")
    gone.__cause__ = OperationalError("select", None, sqlite3.OperationalError("disk I/O error"))
    monkeypatch.setattr(study._optuna, "get_trials", lambda *_, **__: (_ for _ in ()).throw(gone))
    with pytest.raises(RunError, match=r"first': the study cannot be read \(disk I/O error\); see that its storage"):
        study.front()


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+pysqlite"])
def test_a_storage_file_lies_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "notes").write_text("mine")
    for good in ("all.db", "runs/all.db", f"{tmp_path}/all.db", "runs/all.db#mine", "notes"):
        storage.check_url(f"{driver}:///{good}")
    wrong = {
        "none/all.db": "no folder '.*/none'; make it",
        f"{tmp_path}/no/such/all.db#mine": "no folder '.*/no/such'; make it",
        "notes/all.db": "no folder '.*/notes'",
        "runs": "'.*/runs' is a folder; name a file in it",
        f"{tmp_path}/runs#mine": "'.*/runs' is a folder",
        "": "names no file",
        ":memory:": "names no file",
    }
    for bad, words in wrong.items():
        with pytest.raises(UserError, match=words):
            storage.check_url(f"{driver}:///{bad}")
    for made in ("none", "none/run"):  # by the search, before it opens the file
        storage.check_url(f"{driver}:///none/all.db", tmp_path / made)
    storage.check_url("sqlite+pysqlite:///file:/none/all.db?uri=true")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "runs"]


def test_a_server_that_does_not_answer_is_no_mistake_of_the_users(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(RunError, match="does not answer") as raised:
        Study.open("postgresql://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(raised.value)


def test_no_password_is_recorded_or_shown(tmp_path: Path) -> None:
    url = "postgresql://user:secret@host:5432/runs"
    assert storage.masked(f"search --storage {url}#x --seed 1") == (
        "search --storage postgresql://user:***@host:5432/runs#x --seed 1"
    )
    assert storage.without_password(url, "x") == "postgresql://user@host:5432/runs#x"
    for odd in ("postgresql://a@b:se/cret@host/db", "postgresql://host/db?user=a&password=secret&x=1"):
        assert not re.search("se/?cret", storage.masked(f"--storage '{odd}#x'"))
        assert "secret" not in storage.without_password(odd, "x").replace("/", "")
    for odd in ("""x://u:sec'r"et x@host/db""", "--storage=x://a@b:sec:r/et@host/db", "x://h/?password=sec ret"):
        assert not re.search(r"sec|r.?et", storage.masked_word(odd))
        assert "sec" not in storage.shown(odd)
    assert storage.masked("https://host:80/path and a@b") == "https://host:80/path and a@b"
    study = Study.create(tmp_path / "run", plan(command=f"lkspace --storage {url}", environment={"argv": [url]}))
    assert "secret" not in json.dumps(study.plan.to_dict())
    assert study.plan.command == "lkspace --storage postgresql://user:***@host:5432/runs"
    for wrong in (
        "nonsense://user:secret@host/db",
        "postgresql://user:secret@host:x/db",
        "postgresql+none://user:secret@host/db",
    ):
        with pytest.raises(UserError) as raised:
            Study.open(wrong)
        assert "secret" not in str(raised.value)


@pytest.fixture
def postgres() -> str:
    """A database to make studies in, from LKSPACE_TEST_POSTGRES; the test is skipped without."""
    url = os.environ.get("LKSPACE_TEST_POSTGRES")
    if not url:
        pytest.skip("LKSPACE_TEST_POSTGRES names no PostgreSQL database")
    return url


def test_a_study_in_postgresql(postgres: str, tmp_path: Path) -> None:
    names = [f"test-{uuid.uuid4()}" for _ in range(2)]
    for name in names:
        study = Study.create(tmp_path / name, plan(name=name), postgres)
        add(study, "complete", 0.6, 5.0)
        add(study, "failed", reason="no memory")
        study.remeasured(0, {"latency": Measurement(4.9)})
    for place in (f"{postgres}#{names[1]}", tmp_path / names[1]):
        opened = Study.open(place)
        assert (opened.name, opened.folder) == (names[1], tmp_path / names[1])
        assert [t.outcome for t in opened.trials] == ["complete", "failed"]
        assert opened.trials[0].remeasured == {"latency": {"value": 4.9}}
        assert opened.hypervolume() == pytest.approx(0.25)
    with pytest.raises(UserError, match=r"add '#NAME' to .*, NAME one of"):
        Study.open(postgres)
    with pytest.raises(UserError, match="already"):
        Study.create(tmp_path / names[0], plan(name=names[0]), postgres)


def test_what_names_a_run(study: Study) -> None:
    assert study.folder is not None
    file = study.folder / "study.db"
    for place in (study.folder, str(study.folder), file, f"sqlite:///{file}", f"sqlite:///{file}#first"):
        opened = Study.open(place)
        assert (opened.name, opened.folder) == ("first", study.folder)


def test_a_database_of_several_studies(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    Study.create(tmp_path / "one", plan(name="one"), url)
    assert Study.open(url).name == "one"
    add(Study.create(tmp_path / "two", plan(name="two"), url), "failed")
    optuna.create_study(storage=url, study_name="theirs")
    with pytest.raises(UserError, match=r"2 studies at .*: add '#NAME' to .*, NAME one of one, two"):
        Study.open(url)
    with pytest.raises(UserError, match=r"no study 'three' at .*: one, two"):
        Study.open(f"{url}#three")
    with pytest.raises(UserError, match="no study 'theirs'"):
        Study.open(f"{url}#theirs")
    assert Study.open(f"{url}#two").trials[0].outcome == "failed"
    # The run's folder says where its study is, without the password that the URL may hold.
    by_folder = Study.open(tmp_path / "two")
    assert (by_folder.name, by_folder.folder, len(by_folder.trials)) == ("two", tmp_path / "two", 1)
    assert not (tmp_path / "two" / "study.db").exists()


def test_a_relative_url_means_the_same_file_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Study.create(tmp_path / "run", plan(), "sqlite:///all.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Study.open(tmp_path / "run").name == "first"


def test_a_study_in_a_database_is_created_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    Study.create(tmp_path / "run", plan(), url)
    optuna.create_study(storage=url, study_name="theirs").add_trial(optuna.trial.create_trial(value=1.0))
    for name in ("first", "theirs"):
        with pytest.raises(UserError, match=rf"there is a study '{name}' at .* already"):
            Study.create(tmp_path / "run", plan(name=name), url)
    with pytest.raises(UserError, match=r"there is a study 'first' at .* already"):
        Study.create(tmp_path / "another", plan(), url)
    assert Study.open(url).folder == tmp_path / "run"


def test_a_study_is_created_once(study: Study) -> None:
    add(study, "failed")
    assert study.folder is not None
    with pytest.raises(UserError, match=r"there is a study 'first' at .* already"):
        Study.create(study.folder, plan())
    assert len(Study.open(study.folder).trials) == 1


@pytest.mark.parametrize("url", [None, "sqlite:///{}/all.db"])
@pytest.mark.parametrize("writes", range(5))
def test_a_study_whose_making_was_cut_short_is_made_anew(tmp_path: Path, url: str | None, writes: int) -> None:
    url = url and url.format(tmp_path)
    folder, left, set_attribute = tmp_path / "run", [writes], optuna.storages.RDBStorage.set_study_user_attr

    def die(*given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        set_attribute(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "set_study_user_attr", die)
        if writes < (needed := 3 if url is None else 4):
            with pytest.raises(KeyboardInterrupt):
                Study.create(folder, plan(), url)
            assert not (folder / "study.db").exists()
            assert not (folder / "study.url").exists()
        else:
            Study.create(folder, plan(), url)
    if writes < needed:
        assert Study.create(folder, plan(seed=9), url).plan.seed == 9
    assert Study.open(folder).trials == []
    assert not (folder / ".study.begun").exists()


@pytest.mark.parametrize("whose", ["another host's, of the same path", "not ours", "not ours and bare"])
def test_a_study_that_somebody_else_has_just_made_is_left_alone(tmp_path: Path, whose: str) -> None:
    """Without a trial, as what a killed driver leaves."""
    url, folder = f"sqlite:///{tmp_path}/all.db", tmp_path / "run"
    if whose == "another host's, of the same path":
        Study.create(folder, plan(), url)
        (folder / "study.url").unlink()
    else:
        theirs = optuna.create_study(storage=url, study_name="first")
        if whose == "not ours":
            theirs.set_user_attr("spam", 1)
    for left in (None, f"another-mark {url}#other"):  # and what another making in the folder left when it was killed
        if left is not None:
            folder.mkdir(exist_ok=True)
            (folder / ".study.begun").write_text(left)
        with pytest.raises(UserError, match=r"there is a study 'first' at .* already; name another with --storage"):
            Study.create(folder, plan(), url)
    assert [s.study_name for s in optuna.get_all_study_summaries(url)] == ["first"]


def test_the_folder_of_a_database_file_is_where_the_run_is(tmp_path: Path) -> None:
    """Not where the file is; study.db is what lies in a run's folder."""
    Study.create(tmp_path / "runs" / "first", plan(), f"sqlite:///{tmp_path}/all.db")
    assert Study.open(tmp_path / "all.db").folder == tmp_path / "runs" / "first"
    (tmp_path / "runs" / "first").rename(tmp_path / "gone")
    assert Study.open(tmp_path / "all.db").folder is None
    study = Study.open(tmp_path / "gone", writable=True)
    study.move(tmp_path / "gone")
    assert Study.open(f"sqlite:///{tmp_path}/all.db").folder == tmp_path / "gone"
    Study.create(tmp_path / "two", plan(name="two"))
    assert Study.open(tmp_path / "two" / "study.db").folder == tmp_path / "two"


def test_a_study_named_in_a_database_is_found_through_its_folder(tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        study = Study.create(tmp_path / name, plan(name=name), f"sqlite:///{tmp_path}/all.db#{name}")
        add(study, "failed")
        opened = Study.open(tmp_path / name)
        assert (opened.name, opened.folder, len(opened.trials)) == (name, tmp_path / name, 1)


@pytest.mark.parametrize("broken", ["create_new_study", "set_study_user_attr"])
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    full = StorageInternalError("an error of the storage")
    full.__cause__ = sqlite3.OperationalError("database or disk is full")
    monkeypatch.setattr(optuna.storages.RDBStorage, broken, lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(RunError, match=r"run: the study cannot be written \(database or disk is full\)"):
        Study.create(tmp_path / "run", plan())


def test_a_moved_run_and_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / "a run? #1 {x} 100%'"
    add(Study.create(odd, plan(name=odd.name)), "failed")
    moved = odd.rename(tmp_path / "moved & renamed")
    opened = Study.open(moved)
    assert (opened.name, opened.folder, len(opened.trials)) == (odd.name, moved, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_on_a_read_only_disk(study: Study) -> None:
    add(study, "failed")
    assert study.folder is not None
    study.folder.chmod(0o555)
    try:
        assert len(Study.open(study.folder).trials) == 1
    finally:
        study.folder.chmod(0o755)


def test_a_run_that_may_not_be_entered_is_not_called_empty(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access  # replaced, because root may enter everything
    monkeypatch.setattr(os, "access", lambda path, mode: allowed(path, mode) and Path(path) != study.folder)
    with pytest.raises(UserError, match="permission denied"):
        Study.open(str(study.folder))


def test_a_trial_that_another_tool_queued_is_not_ours(study: Study) -> None:
    theirs = optuna.load_study(study_name="first", storage=f"sqlite:///{study.folder}/study.db")
    theirs.enqueue_trial({"blocks_1": 1})
    assert study.trials == []
    assert add(study, "complete", 0.5, 3.0) == 1
    assert [t.number for t in study.front()] == [1]


# Manners.


def test_reading_needs_neither_ray_nor_torch(study: Study) -> None:
    add(study, "complete", 0.5, 3.0)
    code = f"""
        import sys
        from lkspace.study import Study
        study = Study.open({str(study.folder)!r})
        study.trials, study.table(), study.front(), study.hypervolume(), study.hypervolume_history(), study.plan
        print(sorted({{"ray", "torch", "sklearn", "plotly"}} & set(sys.modules)))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""


@pytest.mark.filterwarnings("error")
def test_optuna_is_quiet_in_here_and_as_it_was_outside(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("optuna").level
    study = Study.create(tmp_path / "run", plan())
    add(study, "complete", 0.5, 3.0)
    add(study, "failed")
    Study.open(tmp_path / "run").table()
    assert capfd.readouterr().err == ""
    assert logging.getLogger("optuna").level == level


@pytest.mark.parametrize("write", ["remeasured", "trained_longer", "set_budget", "set_latency_table"])
def test_a_disk_that_is_full_is_no_bug(study: Study, monkeypatch: pytest.MonkeyPatch, write: str) -> None:
    add(study, "failed")
    full = StorageInternalError("an error of the storage")
    full.__cause__ = sqlite3.OperationalError("database or disk is full")
    monkeypatch.setattr(study._optuna, "set_user_attr", lambda *_: (_ for _ in ()).throw(full))
    calls: dict[str, Callable[[], None]] = {
        "remeasured": lambda: study.remeasured(0, {}),
        "trained_longer": lambda: study.trained_longer(0, Longer(20, 0, 0.5, 1.0)),
        "set_budget": lambda: study.set_budget(9),
        "set_latency_table": lambda: study.set_latency_table("text"),
    }
    with pytest.raises(RunError, match=r"first: the study cannot be written \(database or disk is full\)"):
        calls[write]()
