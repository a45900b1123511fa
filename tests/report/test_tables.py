"""The front for a terminal, for a spreadsheet and for a program say the same."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lkspace.quantity import Bound
from lkspace.report import front_csv, front_json, front_table
from lkspace.scores.score import Measurement
from lkspace.space.architecture import Architecture
from lkspace.study import Study

Make = Callable[..., Study]


def printed(study: Study, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(front_table(study))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def study(make_study: Make, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    made = make_study(folder, ["complete"] * 8 + ["infeasible", "failed"])
    made.remeasured(made.front()[0].number, {"latency": Measurement(5.4321)})
    return made


def test_table_has_the_front_with_units_and_what_became_of_the_rest(study: Study) -> None:
    text, front = printed(study), study.front()
    assert f"Front of demo: {len(front)} of 10 trials" in text
    for trial in front:
        a = trial.architecture
        (line,) = [row for row in text.splitlines() if re.match(rf"\s*{trial.number}\s", row)]
        for part in (a.blocks, a.channels, a.kernels):
            assert f" {' '.join(map(str, part))} " in line
        cells = line.split()
        assert cells[:3] == [str(trial.number), f"{100 * trial.values['accuracy']:.1f}", "%"]
        assert cells[4] == "M"
        assert cells[6] == "ms"
    assert "5.43 ms" in text
    assert f"8 complete, 1 infeasible, 1 failed; hypervolume {study.hypervolume():.4g}" in text


def test_table_fits_a_narrow_terminal(study: Study) -> None:
    text, front = printed(study, 80), study.front()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for trial in front:
        assert " ".join(map(str, trial.architecture.kernels)) in text
    assert len([row for row in text.splitlines() if " ms" in row]) == len(front)
    assert "re-param" not in text
    assert "re-param" in printed(study)


def test_table_without_a_front(make_study: Make, tmp_path: Path) -> None:
    assert "No front yet" in printed(make_study(tmp_path / "none", []))
    assert "no trials" in printed(Study.open(tmp_path / "none"))
    infeasible = make_study(tmp_path / "bad", ["complete"] * 2, constraints=[Bound("params", "<=", 1.0)])
    assert "2 complete" in printed(infeasible)
    assert "No front yet" in printed(infeasible)


def test_csv_reads_back_as_the_front(study: Study) -> None:
    rows = list(csv.DictReader(io.StringIO(front_csv(study))))
    assert [int(r["number"]) for r in rows] == [t.number for t in study.front()]
    for row, trial in zip(rows, study.front(), strict=True):
        assert float(row["accuracy"]) == trial.values["accuracy"]
        assert float(row["latency"]) == trial.values["latency"]
        assert json.loads(row["kernels"]) == list(trial.architecture.kernels)
        assert json.loads(row["reparam"]) == list(trial.architecture.reparam)
        assert row["id"] == trial.id
    assert float(rows[0]["latency again"]) == 5.4321
    assert rows[1]["latency again"] == ""


def test_csv_of_all_trials(study: Study) -> None:
    rows = list(csv.DictReader(io.StringIO(front_csv(study, everything=True))))
    assert [int(r["number"]) for r in rows] == [t.number for t in study.trials]
    assert [r["outcome"] for r in rows] == [t.outcome for t in study.trials]
    front = [t.number for t in study.front()]
    assert sorted(int(r["number"]) for r in rows if r["front"] == "True") == sorted(front)
    assert next(r for r in rows if int(r["number"]) == front[0])["latency again"] == "5.4321"


def test_csv_of_no_front_is_its_head(make_study: Make, tmp_path: Path) -> None:
    lines = front_csv(make_study(tmp_path / "none", [])).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("number,id,outcome")


def test_json_builds_the_architectures_again(study: Study) -> None:
    content = json.loads(front_json(study))
    assert content["run"] == "demo"
    assert content["hypervolume"] == study.hypervolume()
    assert content["reference_point"] == study.reference_point
    assert content["counts"] == study.counts()
    assert [o["direction"] for o in content["objectives"]] == ["maximize", "minimize", "minimize"]
    assert content["objectives"][0] == {"name": "accuracy", "unit": "fraction", "direction": "maximize"}
    assert [Architecture.from_dict(t["architecture"]) for t in content["front"]] == [
        t.architecture for t in study.front()
    ]
    assert content["front"][0]["values"] == study.front()[0].values
    assert content["front"][0]["remeasured"] == {"latency": {"value": 5.4321}}
