import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lkspace.search.parameters import Parameters

SPACE = {
    "choice": CategoricalDistribution([31, 3, 7]),
    "words": CategoricalDistribution(["a", "b", None]),
    "flag": CategoricalDistribution([True, False]),
    "whole": IntDistribution(1, 100, log=True),
    "even": IntDistribution(2, 8, step=2),
    "real": FloatDistribution(1e-3, 10.0, log=True),
    "stepped": FloatDistribution(0.0, 1.0, step=0.25),
}


def inside(params):
    return all(SPACE[n]._contains(SPACE[n].to_internal_repr(v)) for n, v in params.items())


def test_what_is_drawn_stepped_to_and_crossed_lies_in_the_space():
    rng, parameters = np.random.default_rng(0), Parameters(SPACE)
    drawn = parameters.random(300, rng)
    assert all(inside(p) and set(p) == set(SPACE) for p in drawn)
    for a, b in zip(drawn[:30], drawn[30:60], strict=True):
        child = parameters.cross(a, b, rng)
        assert all(child[n] in (a[n], b[n]) for n in SPACE)
        steps = parameters.steps(a)
        assert all(inside(s) and sum(s[n] != a[n] for n in SPACE) == 1 for s in steps)
        assert {s["even"] for s in steps} >= {v for v in (a["even"] - 2, a["even"] + 2) if 2 <= v <= 8}
        assert {s["words"] for s in steps} == {"a", "b", None}


def test_draws_are_uniform_ends_of_steps_and_whole_numbers_included():
    drawn = Parameters(SPACE).random(8000, np.random.default_rng(1))
    for name, values in (("even", [2, 4, 6, 8]), ("stepped", [0.0, 0.25, 0.5, 0.75, 1.0]), ("choice", [31, 3, 7])):
        shares = [np.mean([p[name] == v for p in drawn]) for v in values]
        assert shares == pytest.approx([1 / len(values)] * len(values), abs=0.03)
    logs = [math.log10(p["real"]) for p in drawn]
    assert np.mean(np.array(logs) < -1) == pytest.approx(0.5, abs=0.03)


def test_all_points_of_a_finite_space_once():
    parameters = Parameters({n: SPACE[n] for n in ("choice", "flag", "even", "stepped")})
    points = list(parameters.all())
    assert len(points) == parameters.size == 3 * 2 * 4 * 5
    assert len({parameters.key(p) for p in points}) == len(points)
    assert Parameters(SPACE).size == math.inf


def test_the_vector_follows_order_scale_and_names_in_any_order():
    parameters = Parameters(SPACE)
    params = {
        "choice": 7,
        "words": "b",
        "flag": False,
        "whole": 10,
        "even": 8,
        "real": 10.0,
        "stepped": 0.25,
    }
    by_name = {"choice": [0.5], "even": [1.0], "flag": [1.0], "real": [1.0], "stepped": [0.25], "whole": [0.5]}
    by_name["words"] = [0.0, 1.0, 0.0]
    expected = [x for name in sorted(by_name) for x in by_name[name]]
    assert parameters.encode(params) == pytest.approx(expected)
    assert parameters.encode(dict(reversed(params.items()))) == pytest.approx(expected)
