"""Estimates of latency against networks measured whole: the factors are known here."""

import numpy as np
import pytest

from lkspace.scores.agreement import FEW, agreement, factors

RNG = np.random.default_rng(0)


def test_of_none_the_first_term_is_taken_as_it_is():
    assert factors(np.zeros((0, 2)), np.zeros(0)).tolist() == [1, 0]
    assert factors(np.full((3, 2), np.nan), np.ones(3)).tolist() == [1, 0]


def test_of_few_networks_only_the_first_term_counts():
    terms = RNG.uniform(1, 2, (FEW - 1, 2))
    assert factors(terms, 1.5 * terms[:, 0] + terms[:, 1])[1] == 0
    assert factors(terms, 1.5 * terms[:, 0]) == pytest.approx([1.5, 0])


def test_of_more_both_terms_are_found():
    terms = RNG.uniform(1, 2, (FEW, 2))
    assert factors(terms, 1.5 * terms[:, 0] + 0.3 * terms[:, 1]) == pytest.approx([1.5, 0.3])


def test_no_term_counts_for_less_than_nothing():
    terms = RNG.uniform(1, 2, (50, 2))
    found = factors(terms, 3 * terms[:, 0] - 0.5 * terms[:, 1])
    assert found[1] == 0
    assert found[0] == pytest.approx(np.median(3 - 0.5 * terms[:, 1] / terms[:, 0]))


def test_half_the_networks_are_estimated_too_low_whatever_a_few_were_measured_at():
    terms = RNG.uniform(1, 2, (50, 2))
    measured = terms @ [1.1, 0.2] * np.exp(0.01 * RNG.normal(size=50))
    measured[:3] *= 4
    estimated = terms @ factors(terms, measured)
    assert abs((estimated < measured).mean() - 0.5) <= 0.02


def test_agreement_of_sums_that_are_off_by_one_factor():
    found = agreement([([1.0], 1.2), ([2.0], 2.4), ([4.0], 4.8), ([np.nan], 1.0)])
    assert (found.networks, found.tau) == (3, 1.0)
    assert found.factor == pytest.approx(1.2)
    assert found.error_p95 == pytest.approx(0, abs=1e-12)
    assert "3 networks measured whole; what the sums leave out: +20%" in found.text
    assert agreement([([1.0], 1.2), ([2.0], 2.4)]) is None
    assert agreement([]) is None
    assert agreement([([1.0], 1.2)] * 3).tau is None


def test_errors_are_relative_to_what_was_measured_and_each_network_is_estimated_by_the_others():
    found = agreement([([1.0], 1.0), ([1.0], 1.0), ([1.0], 2.0)])
    assert found.factor == 1.0
    # By the other two: 1.5, 1.5 and 1.
    assert (found.median_error, found.error_p95) == (0.5, 0.5)


def test_a_second_term_is_no_help_where_it_tells_nothing():
    """Fitted to what it is judged by, it would seem to be."""
    sums, noise = RNG.uniform(1, 2, 40), np.exp(0.02 * RNG.normal(size=40))
    plain = agreement(([s], m) for s, m in zip(sums, sums * noise, strict=True))
    more = agreement(([s, t], m) for s, m, t in zip(sums, sums * noise, RNG.uniform(0, 1, 40), strict=True))
    assert more.median_error > 0.8 * plain.median_error
