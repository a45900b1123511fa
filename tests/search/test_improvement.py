"""Closed forms against Monte Carlo and against differences of the exact hypervolume."""

import numpy as np
import pytest

from lkspace.search.improvement import Belief, expected_improvement
from lkspace.study.pareto import hypervolume


def front_of(m: int, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, m, n])
    on = np.abs(rng.normal(size=(n, m))) + 1e-3
    return 4 - 3.5 * on / np.linalg.norm(on, axis=1, keepdims=True)


def improvement(front: np.ndarray, point: np.ndarray, corner: np.ndarray) -> float:
    return hypervolume(np.vstack([front, point]), corner) - hypervolume(front, corner)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 12])
def test_of_known_values_it_is_the_gain_in_hypervolume(m, n):
    front, corner = front_of(m, n), np.full(m, 4.2)
    places = np.random.default_rng(1).uniform(0, 4.5, (40, m))
    gains = expected_improvement([Belief.known(places[:, j]) for j in range(m)], front, corner)
    assert gains == pytest.approx([improvement(front, p, corner) for p in places], abs=1e-9)


@pytest.mark.parametrize(("m", "learnt"), [(1, [0]), (2, [0]), (2, [0, 1]), (3, [1]), (3, [0, 2]), (4, [3])])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_of_predictions_it_is_the_mean_over_draws(m, learnt, logarithmic):
    front, corner = front_of(m, 10), np.full(m, 4.2)
    rng = np.random.default_rng(2)
    places = rng.uniform(1.0, 3.5, (4, m))
    spread = rng.uniform(0.1, 0.8, (4, m))
    beliefs, drawn = [], np.repeat(places[:, None], 4000, axis=1)
    for j in range(m):
        if j not in learnt:
            beliefs.append(Belief.known(places[:, j]))
            continue
        mean = np.log(places[:, j]) if logarithmic else places[:, j]
        beliefs.append(Belief(mean, spread[:, j], logarithmic))
        sample = mean[:, None] + spread[:, j, None] * rng.normal(size=(4, 4000))
        drawn[:, :, j] = np.exp(sample) if logarithmic else sample
    gains = expected_improvement(beliefs, front, corner)
    for gain, draws in zip(gains, drawn, strict=True):
        simulated = expected_improvement([Belief.known(draws[:, j]) for j in range(m)], front, corner)
        error = simulated.std() / np.sqrt(len(simulated))
        assert gain == pytest.approx(simulated.mean(), abs=4 * error + 1e-3)


def test_one_objective_is_expected_improvement():
    from scipy.stats import norm

    mean, deviation, best = np.array([0.3, 1.0, 2.0]), np.array([0.5, 0.2, 1.0]), 0.9
    z = (best - mean) / deviation
    expected = (best - mean) * norm.cdf(z) + deviation * norm.pdf(z)
    assert expected_improvement([Belief(mean, deviation)], [[best], [1.5]], [3.0]) == pytest.approx(expected)


def test_in_two_objectives_it_is_the_sum_over_the_sorted_front():
    """With one objective known, the gain falls in straight pieces as the other one rises; term by term, by hand."""
    front, corner, known = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]], [4.0, 4.0], 1.5
    belief = Belief(np.array([2.2]), np.array([0.7]))
    put = belief.shortfall(np.array([1.0, 2.0, 3.0, 4.0]))[0]
    # Below 2 the new point is the only one left of 2 ... 4 at its height; up to 3 the second one holds 2 ... 4; up to 4
    # only what lies left of the second one, from 1.5 to 2, is new, the first one (1, 3) dominating from 3 on.
    widths = {(-np.inf, 1.0): 4 - known, (1.0, 2.0): 3 - known, (2.0, 3.0): 2 - known, (3.0, 4.0): 0.0}
    expected = sum(w * (put[int(b) - 1] - (put[int(a) - 1] if a > 0 else 0)) for (a, b), w in widths.items())
    assert expected_improvement([Belief.known([known]), belief], front, corner)[0] == pytest.approx(expected)


def test_what_cannot_improve_and_what_is_unknown_give_nothing():
    front, corner = [[1.0, 1.0]], [2.0, 2.0]
    known = [Belief.known([1.0, 1.5, np.nan, 3.0, np.inf]), Belief.known([1.0, 1.5, 0.0, 0.0, 0.0])]
    assert expected_improvement(known, front, corner).tolist() == [0.0] * 5
    far = [Belief.known([0.5]), Belief(np.array([90.0]), np.array([1e-3]))]
    assert expected_improvement(far, front, corner)[0] == 0.0


def test_large_sets_are_worked_off_in_parts(monkeypatch):
    front, corner = front_of(3, 20), np.full(3, 4.2)
    places = np.random.default_rng(5).uniform(0, 4, (50, 3))
    beliefs = [Belief.known(places[:, 0]), Belief.known(places[:, 1]), Belief(places[:, 2], np.full(50, 0.3))]
    whole = expected_improvement(beliefs, front, corner)
    monkeypatch.setattr("lkspace.search.improvement.CHUNK", 100)
    assert expected_improvement(beliefs, front, corner) == pytest.approx(whole)
