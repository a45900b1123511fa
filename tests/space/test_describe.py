from pathlib import Path
from typing import Any

import pytest
import yaml

from lkspace.errors import UserError
from lkspace.space import SearchSpace, check, describe

from .conftest import make


def remarks(tmp_path: Path, **changes: Any) -> list[str]:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(make(**changes)))
    return check(file)


def test_description_of_a_shipped_space() -> None:
    lines = describe(SearchSpace.load("replknet")).splitlines()
    assert "replknet, 224 px, 1000 classes, stem stride 4, 4 stages with maps of 56, 28, 14, 7 px" in lines
    assert "46,656,000 points in 13 variables" in lines
    assert "kernels_4  3, 7, 13" in lines
    assert "reparam    none, 3, 5, 7" in lines
    assert "constraints: kernels non-increasing" in lines
    [published] = [line for line in lines if line.startswith("replknet-31b")]
    assert published.split()[1:5] == ["79.5", "M", "15.4", "G"]


def test_description_of_what_is_fixed() -> None:
    text = describe(SearchSpace.from_dict(make(reparam=..., ffn_ratio=...)))
    assert "fixed: reparam none; dw_ratio 1; ffn_ratio 4" in text
    assert "constraints: none" in text
    assert "reference point" not in text


def test_remarks_on_a_sound_space(tmp_path: Path) -> None:
    lines = remarks(tmp_path, kernels={"per_stage": [3, 7, 15]}, constraints=["kernels non-increasing"])
    assert lines[0] == "small is valid: 864 points in 8 variables"
    share = float(lines[1].removesuffix(" % of 1000 random points keep the constraints"))
    assert share == pytest.approx(100 * 6 / 9, abs=6)
    assert lines[2].startswith("params of those: ")
    assert lines[3].startswith("FLOPs of those: ")
    assert len(lines) == 4


def test_choices_that_are_the_same_function(tmp_path: Path) -> None:
    warnings = [line for line in remarks(tmp_path) if line.startswith("warning")]
    words = "warning: kernels_2 31 builds the same as 15: kernels beyond 2S-1 (15 here) have no further effect at 16 px"
    assert warnings == [words]
    lines = remarks(tmp_path, kernels={"whole": [3, 5]}, reparam={"whole": [None, 3, 5]})
    words = "warning: reparam 5 builds the same as none: a re-param kernel must be smaller than its large kernel"
    assert lines[-1] == f"{words} (at most 5, 5 here)"


def test_nothing_to_choose_and_hardly_anything_left(tmp_path: Path) -> None:
    one: dict[str, Any] = {f: {"whole": [v]} for f, v in (("blocks", 1), ("channels", 8), ("kernels", 3))}
    fixed = remarks(tmp_path, **one, reparam=..., shortcut=..., ffn_ratio=...)
    assert fixed[0] == "small is valid: 1 points in 0 variables"
    assert fixed[-1] == "warning: there is nothing to choose: every field has one choice"
    few = remarks(tmp_path, constraints=["params<=271"])
    assert few[-1].startswith("warning: ")
    assert any("fewer than 1 %" in line for line in few)


def test_nothing_left_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lkspace.space.search_space.SAMPLE_TRIES", 2000)
    with pytest.raises(UserError, match="none of 2000 random points keeps the constraints"):
        remarks(tmp_path, constraints=["params<=5"])
