from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lkspace.errors import UserError
from lkspace.search.request import request
from lkspace.space.search_space import SearchSpace

SPACE = SearchSpace.load("replknet-micro")
GOOD = dict(  # noqa: C408
    budget=5,
    objectives=["params", "flops"],
    constraints=["params<=2M"],
    data="digits",
    overrides={"epochs": 2},
    sampler="nsga2",
    seed=1,
    device="cpu",
    command="",
)
CORNER = {"params": 1e6, "flops": 1e9}


def test_a_request_knows_what_each_trial_measures():
    asked = request(SPACE, **GOOD)
    assert asked.scores == ("flops", "params")
    assert (asked.setting.size, asked.setting.classes, asked.setting.epochs, asked.setting.seed) == (32, 10, 2, 1)
    assert asked.objectives[0].direction == "minimize"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget": 0}, "budget is 0, expected at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"sampler": "cma"}, "unknown sampler 'cma'; known: gp, nsga2"),
        ({"early_stopping": "asha"}, "unknown early stopping 'asha'; known: front, halving, none"),
        ({"objectives": ["speed"]}, "unknown score 'speed'; known: .*flops"),
        ({"objectives": []}, "name at least one score"),
        ({"objectives": ["flops", "flops"]}, "each once"),
        ({"constraints": ["size<=3"]}, "unknown score 'size'"),
        ({"constraints": ["flops<3"]}, "expected NAME<=VALUE"),
        ({"data": "imagenet"}, "imagenet"),
        ({"overrides": {"epoch": 3}}, "unknown setting 'epoch'; known: .*epochs"),
        ({"overrides": {"epochs": 0}}, "epochs is 0, expected a whole number of at least 1"),
        ({"overrides": {"threads": True}}, "threads is True"),
    ],
)
def test_what_is_wrong_is_named_with_the_mend(changed, message):
    with pytest.raises(UserError, match=message):
        request(SPACE, **{**GOOD, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 2}, "seed 1, this call has 2"),
        ({"objectives": ["params"]}, "objectives params,flops, this call has params"),
        ({"constraints": []}, r"constraints params<=2M, this call has none"),
        ({"overrides": {"epochs": 3}}, "epochs 2, this call has 3"),
        ({"sampler": "tpe"}, "sampler nsga2, this call has tpe"),
        ({"data": "digits:train=500"}, "data digits, this call has digits:train=500"),
        ({"device": "cuda"}, "device cpu, this call has cuda"),
    ],
)
def test_another_run_in_the_folder_is_named_with_what_differs(changed, message):
    plan = request(SPACE, **GOOD).plan("run", CORNER, {"data_key": "k"})
    key = "other" if "data" in changed else "k"
    with pytest.raises(UserError, match=message) as error:
        request(SPACE, **{**GOOD, **changed}).check_continues(plan, Path("runs/x"), key)
    assert "name another folder with --run" in str(error.value)


def test_another_space_or_other_images_are_another_run():
    plan = request(SPACE, **GOOD).plan("run", CORNER, {"data_key": "k"})
    other = SearchSpace.from_dict({**SPACE.to_dict(), "constraints": []})
    with pytest.raises(UserError, match="the search space's constraints"):
        request(other, **GOOD).check_continues(plan, Path("runs/x"), "k")
    with pytest.raises(UserError, match="a run on other images: the files of digits, or how lkspace reads them"):
        request(SPACE, **GOOD).check_continues(plan, Path("runs/x"), "other")


def test_the_same_images_may_lie_elsewhere(tmp_path, monkeypatch):
    arrays = {"x": np.zeros((4, 8, 8), np.uint8), "y": np.array([0, 1, 0, 1])}
    for folder in ("before", "now"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "a.npz", **{f"{n}_{s}": v for s in ("train", "val") for n, v in arrays.items()})
    monkeypatch.chdir(tmp_path / "before")
    began = request(SPACE, **{**GOOD, "data": "npz:a.npz"})
    assert began.setting.data == f"npz:{tmp_path}/before/a.npz"
    plan = began.plan("run", CORNER, {"data_key": "k"})
    now = request(SPACE, **{**GOOD, "data": f"npz:{tmp_path}/now/a.npz"})
    now.check_continues(plan, Path("runs/x"), "k")
    with pytest.raises(UserError, match="holds a run with data npz:"):
        now.check_continues(plan, Path("runs/x"), "other")


def test_budget_and_command_may_change_and_a_plan_read_back_still_fits():
    plan = request(SPACE, **GOOD).plan("run", CORNER, {"data_key": "k"})
    read = type(plan).from_dict(plan.to_dict())
    request(SPACE, **{**GOOD, "budget": 50, "command": "x"}).check_continues(read, Path("runs/x"), "k")
    request(SPACE, **GOOD).check_continues(replace(read, name="moved"), Path("runs/x"), "k")
