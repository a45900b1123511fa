from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau

from lkspace.ranking import kendall_tau, tau_interval
from lkspace.space.architecture import Architecture
from lkspace.study.record import Objective, Trial
from lkspace.study.trust import Longer, trust

OBJECTIVES = (Objective("accuracy", "%", "maximize"), Objective("flops", "", "minimize"))
ARCHITECTURE = Architecture("replknet", (1,), (4,), (3,), (None,), (True,))


def trial(number, accuracy, flops, latency=None, later=None):
    scores = {"accuracy": {"value": accuracy}, "flops": {"value": flops}}
    scores |= {"latency": {"value": latency}} if latency else {}
    again = {"latency": {"value": later}} if later else {}
    return Trial(number, ARCHITECTURE, "complete", measurements=scores, remeasured=again)


def runs(*accuracies, epochs=20):
    return [Longer(epochs, seed, a, 1.0) for seed, a in enumerate(accuracies)]


@pytest.mark.parametrize("ties", [1, 3])
def test_tau_is_scipys(ties):
    rng = np.random.default_rng(0)
    for n in (3, 8, 40):
        pairs = (rng.integers(0, 100, (n, 2)) // ties).astype(float)
        assert kendall_tau(*pairs.T) == pytest.approx(kendalltau(*pairs.T).statistic)
    assert kendall_tau(*np.ones((2, 5))) is None
    assert kendall_tau(*np.eye(2)) is None


def test_an_interval_of_tau_holds_the_true_one_nearly_as_often_as_it_says():
    """Bivariate normal pairs of correlation r have tau 2/pi asin r (Kendall, 1949)."""
    rng = np.random.default_rng(0)
    for n, r in ((6, 0.9), (6, 0.8), (12, 0.5), (12, 0.0)):
        draws = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], (150, n))
        intervals = [tau_interval(*draw.T, 100) for draw in draws]
        assert np.mean([low <= 2 / np.pi * np.arcsin(r) <= high for low, high in intervals]) > 0.92


def test_no_longer_training_is_no_trust():
    assert trust(OBJECTIVES, [trial(0, 0.5, 1)], {0}, {}) is None


def test_an_order_that_holds_and_one_that_turns():
    trials = [trial(i, 0.1 * i, 1 + i) for i in range(1, 7)]
    kept = trust(OBJECTIVES, trials, {1}, {i: runs(0.5 + 0.05 * i, 0.51 + 0.05 * i) for i in range(1, 7)})
    assert (kept.tau, kept.seeds, kept.epochs, len(kept.candidates)) == (1.0, 2, 20, 6)
    assert kept.interval == pytest.approx((0.383, 1.0), abs=1e-3)  # six in order do not prove that all are
    assert "Kendall's tau 1.00 (95 % interval 0.38 to 1.00)" in kept.text
    assert [c.on_front for c in kept.candidates] == [True] + [False] * 5
    turned = trust(OBJECTIVES, trials, set(), {i: runs(0.9 - 0.05 * i) for i in range(1, 7)})
    assert (turned.tau, turned.deviation) == (-1.0, None)
    assert all(c.membership is None for c in turned.candidates)


def test_membership_is_certain_where_noise_is_small_and_even_where_it_rules():
    trials = [trial(0, 0.9, 10), trial(1, 0.8, 20), trial(2, 0.7, 10)]
    sure = trust(OBJECTIVES, trials, {0}, {0: runs(0.90, 0.901), 1: runs(0.80, 0.801), 2: runs(0.70, 0.701)})
    assert [c.membership for c in sure.candidates] == [1.0, 0.0, 0.0]
    alike = trust(OBJECTIVES, trials[::2], {0}, {0: runs(0.8, 0.9), 2: runs(0.9, 0.8)})
    assert sum(c.membership for c in alike.candidates) == pytest.approx(1.0)
    assert all(0.45 < c.membership < 0.55 for c in alike.candidates)


def test_the_length_that_most_have_counts():
    trials = [trial(i, 0.1 * i, 1 + i) for i in range(1, 4)]
    longer = {i: runs(0.5) for i in range(1, 4)}
    longer[1] = [*longer[1], *runs(0.9, epochs=40)]  # another verification that was only begun
    assert trust(OBJECTIVES, trials, set(), longer).epochs == 20
    longer = {n: [*longer[n], *runs(0.9, epochs=40)] for n in (1, 2, 3)}
    assert trust(OBJECTIVES, trials, set(), longer).epochs == 40


def test_only_one_length_counts_and_a_diverged_training_does_not():
    trials = [trial(0, 0.9, 10, latency=2.0, later=2.2), trial(1, 0.8, 20)]
    found = trust(OBJECTIVES, trials, {0}, {0: [*runs(0.5, epochs=10), *runs(0.7, None)], 1: runs(None)})
    (only,) = found.candidates
    assert (only.accuracies, only.latency, only.latency_now, found.tau) == ((0.7,), 2.0, 2.2, None)
    assert "too few for an order; 2 of the trainings diverged" in found.text


def test_the_proxy_of_one_that_was_stopped_is_its_whole_training():
    trials = [trial(i, 0.1 * i, 1 + i) for i in range(1, 7)]
    trials[0] = replace(trials[0], outcome="stopped")
    longer = {i: runs(0.5 + 0.05 * i) for i in range(1, 7)}
    assert [c.number for c in trust(OBJECTIVES, trials, set(), longer, 4).candidates] == [2, 3, 4, 5, 6]
    longer[1] = [*longer[1], Longer(4, 0, 0.65, 1.0)]
    found = trust(OBJECTIVES, trials, set(), longer, 4)
    assert (found.epochs, found.candidates[0].proxy) == (20, 0.65)
    assert trust(OBJECTIVES, trials, set(), {1: longer[1][1:]}, 4) is None


def test_deviations_are_pooled_by_their_degrees_of_freedom():
    trials = [trial(1, 0.5, 1), trial(2, 0.6, 2)]
    found = trust(OBJECTIVES, trials, set(), {1: runs(0.5, 0.6), 2: runs(0.5, 0.5, 0.8)})
    assert found.deviation == pytest.approx(((0.005 + 0.06) / 3) ** 0.5)


def test_a_latency_that_moved_between_two_measurements_is_not_certain():
    objectives = (OBJECTIVES[0], Objective("latency", "ms", "minimize"))
    longer = {1: runs(0.5, 0.5), 2: runs(0.5, 0.5)}
    trials = [trial(1, 0.5, 1, latency=1.9, later=2.1), trial(2, 0.5, 1, latency=2.2, later=2.2)]
    moved = [c.membership for c in trust(objectives, trials, set(), longer).candidates]
    assert 0.7 < moved[0] < 0.85  # 0.1 apart, and the first one varies by 0.14
    assert moved[0] + moved[1] == pytest.approx(1.0)
