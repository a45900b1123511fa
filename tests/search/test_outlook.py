"""Expectations against refits by brute force, decisions on trainings whose end is known."""

import numpy as np
import pytest

from lkspace.search.outlook import AHEAD, FEW, distance_left, expected_end, goes_on

RNG = np.random.default_rng(0)


def ridge(known, ends, row, pull=3.0):
    """By the normal equations on standardised columns, intercept apart."""
    x = (known - known.mean(axis=0)) / known.std(axis=0)
    slopes = np.linalg.lstsq(
        np.vstack([x, np.sqrt(pull) * np.eye(x.shape[1])]), np.r_[ends - ends.mean(), np.zeros(x.shape[1])], rcond=None
    )[0]
    return ends.mean() + ((row - known.mean(axis=0)) / known.std(axis=0)) @ slopes


@pytest.mark.parametrize(("n", "d"), [(10, 2), (40, 5), (12, 20)])
def test_the_expectation_is_a_ridge_regression(n, d):
    known, ends, row = RNG.normal(size=(n, d)) * 10 + 3, RNG.normal(size=n), RNG.normal(size=d) * 10
    assert expected_end(known, ends, row)[0] == pytest.approx(ridge(known, ends, row), abs=1e-9)


def test_the_deviation_is_about_the_error_on_new_ones():
    slopes = RNG.normal(size=6)
    errors, claimed = [], []
    for _ in range(300):
        known = RNG.normal(size=(41, 6))
        ends = known @ slopes + 0.5 * RNG.normal(size=41)
        expected, deviation = expected_end(known[:-1], ends[:-1], known[-1])
        errors.append(ends[-1] - expected)
        claimed.append(deviation)
    assert 0.9 < np.sqrt(np.mean(np.square(claimed))) / np.std(errors) < 1.6


def test_units_and_what_is_constant_do_not_matter():
    known, ends, row = RNG.normal(size=(15, 3)), RNG.normal(size=15), RNG.normal(size=3)
    expected = expected_end(known, ends, row)
    scaled = np.column_stack([1e6 * known + 5, np.full(15, 7.0)])
    assert expected_end(scaled, ends, np.r_[1e6 * row + 5, 7.0]) == pytest.approx(expected)
    assert expected_end(known, ends + 100, row) == pytest.approx((expected[0] + 100, expected[1]))


def trainings(n=30, seed=1):
    """One feature decides the end but for 0.01; what is seen at the rung is noise. Costs: all the same."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(0, 1, (n, 1))
    ends = -features + 0.01 * rng.normal(size=(n, 1))
    return rng.normal(size=(n, 1)), ends, np.ones((n, 1)), features


def asked(feature, cost=1.0, data=None, value=0.0):
    learnt, ends, fixed, features = data or trainings()
    return goes_on(
        np.vstack([learnt, [[value]]]),
        np.vstack([ends, [[np.nan]]]),
        np.vstack([fixed, [[cost]]]),
        np.vstack([features, [[feature]]]),
        len(ends),
    )


def test_who_is_expected_behind_stops_and_who_may_lead_goes_on():
    assert not asked(0.2)
    assert asked(1.1)


def test_only_what_costs_no_more_counts():
    assert asked(0.2, cost=0.5)
    assert not asked(0.2, cost=1.5)


def test_what_is_seen_at_the_rung_counts_if_it_tells_the_end():
    rng = np.random.default_rng(2)
    ends = rng.uniform(-1, 0, (40, 1))
    data = ends + 0.01 * rng.normal(size=(40, 1)), ends, np.ones((40, 1)), rng.normal(size=(40, 1))
    assert asked(0.0, data=data, value=-1.05)
    assert not asked(0.0, data=data, value=-0.5)


def test_nobody_stops_before_enough_have_ended():
    learnt, ends, fixed, features = trainings()
    ends[FEW - 1 :] = np.nan
    assert asked(0.2, data=(learnt, ends, fixed, features))
    ends[FEW - 1] = -1.0
    assert not asked(0.1, data=(learnt, ends, fixed, features))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_stops(value):
    assert not asked(1.1, value=value)


def test_others_without_a_number_are_left_out():
    learnt, ends, fixed, features = trainings()
    learnt[3], ends[7] = np.nan, np.inf
    assert asked(1.1, data=(learnt, ends, fixed, features))
    assert not asked(0.2, data=(learnt, ends, fixed, features))


def test_the_order_of_trainings_does_not_matter():
    learnt, ends, fixed, features = trainings()
    fixed = RNG.uniform(size=fixed.shape)
    order = RNG.permutation(len(ends))
    for feature in np.linspace(0, 1, 21):
        assert asked(feature, 0.6, (learnt, ends, fixed, features)) == asked(
            feature, 0.6, (learnt[order], ends[order], fixed[order], features[order])
        )


@pytest.mark.parametrize("learnt", [1, 2, 3])
def test_a_rival_must_be_ahead_in_every_learnt_objective(learnt):
    """Against the definition, written out: the expectation of each objective, then every rival in turn."""
    rng = np.random.default_rng(learnt)
    for _ in range(40):
        n = 25
        features, fixed = rng.normal(size=(n, 2)), rng.integers(0, 3, (n, 2)).astype(float)
        values = features @ rng.normal(size=(2, learnt)) + 0.3 * rng.normal(size=(n, learnt))
        ends = values + 0.2 * rng.normal(size=values.shape)
        row = n - 1
        expected = [
            expected_end(
                np.column_stack([values[:row, j], features[:row]]), ends[:row, j], np.r_[values[row, j], features[row]]
            )
            for j in range(learnt)
        ]
        stopped = any(
            (fixed[i] <= fixed[row]).all()
            and all(mean - ends[i, j] > AHEAD * deviation for j, (mean, deviation) in enumerate(expected))
            for i in range(row)
        )
        ends[row] = np.nan
        assert goes_on(values, ends, fixed, features, row) == (not stopped)


def test_an_error_that_is_halved_counts_the_same_everywhere():
    accuracies = -np.array([0.5, 0.75, 0.875, 0.9999])
    values, ends = distance_left(accuracies, accuracies[:3], -1.0)
    assert np.diff(ends) == pytest.approx(-np.log(2))
    assert np.diff(values[:3]) == pytest.approx(-np.log(2))
    assert values[3] == pytest.approx(np.log(0.25 / 20))


@pytest.mark.parametrize(
    ("values", "ends"), [([-1.5, 0.0], [-0.5, 0.0]), ([-0.5], [-1.5]), ([-0.5], [np.nan]), ([-0.5], [-1.0, -1.0])]
)
def test_what_lies_beyond_the_ideal_or_on_it_is_left_as_it_is(values, ends):
    found = distance_left(np.array(values), np.array(ends), -1.0)
    assert np.array_equal(found[0], values)
    assert np.array_equal(found[1], ends, equal_nan=True)
