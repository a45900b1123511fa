from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lkspace.space import Architecture, SearchSpace

from .conftest import build, keeps, make, points, spaces


def oracle(fields: dict[str, Any], a: Architecture) -> set[Architecture]:
    """From every raw point that builds `a`: change one variable by one step, by the words of `neighbours`."""
    found = set()
    for point in points(fields):
        if build(fields, point) != a:
            continue
        for other in points(fields):
            if one_step_apart(fields, point, other):
                found.add(build(fields, other))
    return {b for b in found - {a} if keeps(fields, b)}


def one_step_apart(fields: dict[str, Any], p: dict[str, Any], q: dict[str, Any]) -> bool:
    changed = [name for name in p if p[name] != q[name]]
    if len(changed) != 1:
        return False
    name = changed[0]
    if name in ("dw_ratio", "ffn_ratio"):
        choices: list[Any] = sorted(fields.get(name, [1.0]))
        return abs(choices.index(p[name]) - choices.index(q[name])) == 1
    [(kind, given_choices)] = fields[name].items()
    stages = fields["stages"]
    if kind == "whole":
        table = [tuple(c) if isinstance(c, list) else (c,) * stages for c in given_choices]
        table = [tuple(0 if v in (None, "none") else v for v in row) for row in table]
        rising = sorted(table)
        chain = all(all(x <= y for x, y in zip(a, b, strict=True)) for a, b in pairwise(rising))
        a, b = (tuple(v or 0 for v in point[name]) for point in (p, q))
        return not chain or abs(rising.index(a) - rising.index(b)) == 1
    lists = given_choices if isinstance(given_choices[0], list) else [given_choices] * stages
    stages_changed = [s for s in range(stages) if p[name][s] != q[name][s]]
    if len(stages_changed) != 1:
        return False
    s = stages_changed[0]
    order = sorted(0 if v in (None, "none") else v for v in lists[s])
    return abs(order.index(p[name][s] or 0) - order.index(q[name][s] or 0)) == 1


@settings(deadline=None, max_examples=60)
@given(spaces(points=60), st.integers(0, 10**9))
def test_neighbours_by_their_words(fields: dict[str, Any], index: int) -> None:
    space = SearchSpace.from_dict(fields)
    all_points = [build(fields, point) for point in points(fields)]
    a = all_points[index % len(all_points)]
    found = space.neighbours(a)
    assert len(found) == len(set(found))
    assert set(found) == oracle(fields, a)


@settings(deadline=None, max_examples=30)
@given(spaces(points=60))
def test_a_neighbour_is_one_back(fields: dict[str, Any]) -> None:
    space = SearchSpace.from_dict(fields)
    feasible = list(space.enumerate())
    around = {a: set(space.neighbours(a)) for a in feasible}
    assert all(a in around[b] for a in feasible for b in around[a])


def test_a_hidden_re_param_kernel_comes_back_when_its_kernel_grows() -> None:
    space = SearchSpace.from_dict(make())
    hidden = Architecture("toy", (1, 1), (4, 8), (9, 3), (5, None), (True, True), ffn_ratio=2, stem_stride=1)
    grown = Architecture("toy", (1, 1), (4, 8), (9, 7), (5, 5), (True, True), ffn_ratio=2, stem_stride=1)
    assert grown in space.neighbours(hidden)
    assert hidden in space.neighbours(grown)


def test_from_outside_to_the_choices_next_to_it() -> None:
    space = SearchSpace.from_dict(
        make(channels={"whole": [8]}, reparam=..., shortcut=..., ffn_ratio=..., blocks={"per_stage": [1]})
    )
    outside = Architecture("toy", (1, 1), (8, 8), (11, 7), (None, None), (True, True), stem_stride=1)
    assert space.params_of(outside) is None
    kernels = {a.kernels for a in space.neighbours(outside)}
    # Stage 1 chooses from 3, 9, 31 (11 is none of them); stage 2 from 3, 7, 15 (31 is 15 there).
    assert kernels == {(9, 7), (31, 7), (11, 3), (11, 15)}


@pytest.mark.parametrize("largest", [1, 99])
def test_from_beyond_the_choices_to_the_last(largest: int) -> None:
    space = SearchSpace.from_dict(make(image_size=64, reparam=..., shortcut=..., ffn_ratio=...))
    outside = Architecture("toy", (1, 1), (4, 8), (largest, 7), (None, None), (True, True), stem_stride=1)
    firsts = {a.kernels[0] for a in space.neighbours(outside)} - {largest}
    assert firsts == ({3} if largest == 1 else {31})
