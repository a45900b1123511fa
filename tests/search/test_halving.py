"""Places against a rank that is computed by definition, one pair at a time; and who is a peer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lkspace.search.halving import crowding, goes_on, peers, places
from lkspace.study.record import Objective

VALUES = st.one_of(st.integers(0, 3).map(float), st.floats(-5, 5, width=16), st.sampled_from([math.nan, math.inf]))
MATRICES = st.integers(1, 4).flatmap(
    lambda m: arrays(np.float64, st.tuples(st.integers(1, 9), st.just(m)), elements=VALUES)
)


def dominates(a, b, better):
    """better: per objective which values are, "<" or ">"."""
    pairs = [(x, y) if sign == "<" else (y, x) for x, y, sign in zip(a, b, better, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def fronts_by_definition(rows, better):
    """Peel: whom nobody left dominates is on this front."""
    left = [i for i in range(len(rows)) if all(math.isfinite(x) for x in rows[i])]
    found = []
    while left:
        front = [i for i in left if not any(dominates(rows[j], rows[i], better) for j in left)]
        found.append(front)
        left = [i for i in left if i not in front]
    return found


def loneliness(rows, front, i):
    total = 0.0
    for j in range(len(rows[i])):
        here = [rows[k][j] for k in front]
        if max(here) > min(here):
            below = [v for v in here if v < rows[i][j]]
            above = [v for v in here if v > rows[i][j]]
            if not below or not above:
                return math.inf
            total += (min(above) - max(below)) / (max(here) - min(here))
    return total


def places_by_definition(rows, better="<<<<"):
    fronts = fronts_by_definition(rows, better[: len(rows[0])])
    keys = []
    for i in range(len(rows)):
        on = [f for f, front in enumerate(fronts) if i in front]
        keys.append((on[0], -loneliness(rows, fronts[on[0]], i)) if on else (len(rows), 0.0))
    return [sum(other < own for other in keys) for own in keys]


@given(MATRICES)
@settings(max_examples=400, deadline=None)
def test_places_are_front_rank_then_crowding(rows):
    assert places(rows).tolist() == places_by_definition(rows.tolist())


@given(MATRICES, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_arrival_does_not_matter(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    assert places(rows[order]).tolist() == places(rows)[order].tolist()


@given(MATRICES, st.text("<>", min_size=4, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_search_turns_what_is_maximised(rows, better):
    """As `Stopping` hands values over; told by definition on the values as they were."""
    directions = ["minimize" if sign == "<" else "maximize" for sign in better]
    signs = [Objective(f"o{j}", "", d).sign for j, d in enumerate(directions)]
    assert places(rows * signs[: rows.shape[1]]).tolist() == places_by_definition(rows.tolist(), better)


def test_places_of_sorted_and_unsorted_rows():
    """Released code once gave sorted indices where ranks were wanted; only a permutation shows the difference."""
    assert places([[3.0, 3.0], [1.0, 1.0], [2.0, 2.0]]).tolist() == [2, 0, 1]
    assert places([[2.0], [math.nan], [1.0], [2.0]]).tolist() == [1, 3, 0, 1]


def test_crowding_of_one_value_and_of_a_line():
    assert crowding([[1.0, 2.0]]).tolist() == [0.0]
    assert crowding([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0]]).tolist() == [math.inf, 2.0, math.inf]


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_without_costs_the_best_part_goes_on(n, kept, seed):
    values = np.random.default_rng(seed).permutation(n).astype(float)[:, None]
    on = [goes_on(values, np.zeros((n, 0)), i, kept) for i in range(n)]
    expected = n if n < 3 * kept else math.ceil(n / kept)
    assert sum(on) == expected
    assert set(np.flatnonzero(on)) == set(np.argsort(values[:, 0])[:expected])


def test_a_cheap_objective_does_not_mask_a_bad_accuracy():
    """All are on the front of accuracy, FLOPs and latency; still those go on that are good for their cost."""
    rng = np.random.default_rng(0)
    flops = np.sort(rng.uniform(1, 100, 90))
    residual = rng.normal(size=90)
    error = 100 - 10 * np.log(flops) + residual
    costs = np.column_stack([flops, flops[::-1]])
    on = np.array([goes_on(error[:, None], costs, i, kept=3) for i in range(90)])
    assert 20 <= on.sum() <= 40
    assert residual[on].mean() < residual[~on].mean() - 0.8


def test_small_networks_learn_sooner_and_do_not_push_out_the_large_ones():
    rng = np.random.default_rng(1)
    flops = rng.permutation(np.linspace(1, 100, 60))
    early_error = flops + rng.normal(size=60)
    on = np.array([goes_on(early_error[:, None], flops[:, None], i) for i in range(60)])
    assert on[flops > 66].sum() >= 3
    together = np.array([goes_on(early_error[:, None], np.zeros((60, 0)), i) for i in range(60)])
    assert together[flops > 66].sum() == 0


def test_peers_are_the_nearest_in_cost_in_whatever_unit():
    costs = np.random.default_rng(2).uniform(1, 5, (40, 2))
    for row in range(40):
        found = peers(costs, row)
        assert row in found
        assert len(found) >= 14
        assert found.tolist() == peers(np.column_stack([np.exp(costs[:, 0]), 1e6 * costs[:, 1]]), row).tolist()
    assert peers(costs[:5], 2).tolist() == [0, 1, 2, 3, 4]
    assert len(peers(np.ones((40, 1)), 3)) == 40
    assert len(peers(np.full((40, 1), math.nan), 3)) == 40


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_who_has_no_value_stops_and_stands_in_nobodys_way(bad):
    values = np.array([[bad], [1.0], [bad], [2.0], [bad], [3.0]])
    assert [goes_on(values, np.zeros((6, 0)), i) for i in range(6)] == [False, True, False, True, False, True]
