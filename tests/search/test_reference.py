import numpy as np
import pytest

from lkspace import registry
from lkspace.quantity import Bound
from lkspace.scores.score import Setting
from lkspace.search.candidates import Candidates, cheap_scores
from lkspace.search.reference import reference_point
from lkspace.study.record import Objective

SETTING = Setting(data="digits", size=32, classes=10)


def corner(micro, names, bounds=(), measured=20.0, seed=0):
    asked = []

    def measure(name, architecture):
        asked.append(architecture)
        return measured

    objectives = [Objective(n, "", d) for n, d in names]
    setting = Setting(data="digits", size=32, classes=10, seed=seed)
    candidates = Candidates(micro, cheap_scores(micro, setting, []), bounds)
    return reference_point(objectives, bounds, candidates, setting, measure), asked


def test_cheap_scores_lie_a_tenth_beyond_the_costliest_seen(micro):
    found, asked = corner(micro, [("params", "minimize"), ("flops", "minimize")])
    costs = [micro.costs(a) for a in micro.enumerate()]
    for name in ("params", "flops"):
        everything = sorted(c[name] for c in costs)
        assert found[name] / 1.1 in [pytest.approx(v) for v in everything[-len(everything) // 10 :]]
    assert not asked


def test_latency_is_measured_once_on_the_costliest_and_chance_is_the_corner_of_accuracy(micro):
    found, asked = corner(micro, [("accuracy", "maximize"), ("latency", "minimize")])
    if "latency" not in registry.scores.names():
        pytest.skip("no latency score here")
    assert found == {"accuracy": 0.1, "latency": pytest.approx(22.0)}
    assert len(asked) == 1
    flops = [micro.costs(a)["flops"] for a in micro.enumerate()]
    assert micro.costs(asked[0])["flops"] >= np.quantile(flops, 0.9)


def test_the_same_seed_gives_the_same_corner(micro):
    names = [("params", "minimize"), ("flops", "minimize")]
    assert corner(micro, names)[0] == corner(micro, names)[0]


def test_a_bound_caps_the_corner(micro):
    bound = Bound.parse("flops<=500K")
    found, _ = corner(micro, [("flops", "minimize")], [bound])
    assert found["flops"] <= 1.1 * 500_000
