"""Against brute force, inclusion-exclusion, closed forms and Optuna's own, on grids that are full of ties."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lkspace.study.pareto import hypervolume, hypervolume_history, non_dominated, ranks

Points = np.ndarray
GRID = st.integers(0, 4).map(float)  # few values, so that ties in one, some and all objectives are common


@st.composite
def points(draw: st.DrawFn, most: int = 12, missing: bool = False) -> Points:
    shape = (draw(st.integers(0, most)), draw(st.integers(1, 5)))
    elements = st.one_of(GRID, st.sampled_from([np.nan, np.inf, -np.inf])) if missing else GRID
    return draw(arrays.arrays(np.float64, shape, elements=elements))


def dominates(a: Points, b: Points) -> bool:
    return bool((a <= b).all() and (a < b).any())


def known(rows: Points) -> np.ndarray:
    return np.isfinite(rows).all(axis=1)


def brute_front(rows: Points) -> list[bool]:
    alive = rows[known(rows)]
    return [
        bool(k) and not any(dominates(other, row) for other in alive) for k, row in zip(known(rows), rows, strict=True)
    ]


def inclusion_exclusion(rows: Points, corner: Points) -> float:
    """Volume of a union of boxes, all of which end in the corner: of subsets' maxima, in turn + and -."""
    rows = np.minimum(rows, corner)
    return sum(
        (-1.0) ** (size + 1) * float(np.prod(corner - np.max(subset, axis=0)))
        for size in range(1, len(rows) + 1)
        for subset in combinations(rows, size)
    )


@given(points(missing=True))
def test_front_is_what_brute_force_finds(rows: Points) -> None:
    assert non_dominated(rows).tolist() == brute_front(rows)


@given(points(missing=True))
def test_ranks_are_fronts_peeled_one_after_another(rows: Points) -> None:
    expected = np.full(len(rows), -1)
    left = known(rows)
    for rank in range(len(rows)):
        masked = np.where(left[:, None], rows, np.nan)
        front = np.array(brute_front(masked), dtype=bool)
        expected[front] = rank
        left &= ~front
    assert ranks(rows).tolist() == expected.tolist()


@given(points(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(rows: Points, random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert non_dominated(rows[order]).tolist() == non_dominated(rows)[order].tolist()
    assert ranks(rows[order]).tolist() == ranks(rows)[order].tolist()
    corner = np.full(rows.shape[1], 3.5)
    assert hypervolume(rows[order], corner) == pytest.approx(hypervolume(rows, corner))


@given(points(most=9))
def test_hypervolume_is_inclusion_and_exclusion(rows: Points) -> None:
    corner = np.full(rows.shape[1], 3.5)
    assert hypervolume(rows, corner) == pytest.approx(inclusion_exclusion(rows, corner))


@settings(deadline=None)
@given(points(most=40))
def test_hypervolume_is_optunas(rows: Points) -> None:
    reference = pytest.importorskip("optuna._hypervolume.wfg")
    corner = np.full(rows.shape[1], 4.0)
    assert hypervolume(rows, corner) == pytest.approx(reference.compute_hypervolume(rows, corner))


@given(points(missing=True))
def test_history_is_the_hypervolume_of_every_beginning(rows: Points) -> None:
    corner = np.full(rows.shape[1], 3.5)
    history = hypervolume_history(rows, corner)
    assert history == pytest.approx([hypervolume(rows[: i + 1], corner) for i in range(len(rows))])
    assert (np.diff(history) >= 0).all()


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_closed_forms(m: int) -> None:
    corner = np.ones(m)
    assert hypervolume(np.full((1, m), 0.25), corner) == pytest.approx(0.75**m)
    # On the diagonal each point dominates the next.
    assert hypervolume(np.repeat(np.linspace(0.5, 0.9, 5)[:, None], m, axis=1), corner) == pytest.approx(0.5**m)
    # Point i reaches whatever is beyond h in objective i: all but the cube of side h at the origin.
    h = 0.3
    assert hypervolume(np.eye(m) * h, corner) == pytest.approx(1 - h**m)
    steps = np.stack([np.arange(10) / 10, 0.9 - np.arange(10) / 10], axis=1)
    assert hypervolume(steps, np.ones(2)) == pytest.approx(0.55)  # 10 + 9 + ... + 1 squares of 0.01


def test_equal_points_are_on_the_front_together_and_count_once() -> None:
    rows = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    assert non_dominated(rows).tolist() == [True, True, True, False]
    assert hypervolume(rows, [3.0, 3.0]) == 3.0


def test_points_that_miss_a_value_or_the_box_add_nothing() -> None:
    rows = np.array([[1.0, 1.0], [0.0, np.nan], [np.inf, 0.0], [0.0, 2.0], [2.5, -9.0], [-np.inf, 1.0]])
    assert hypervolume(rows, [2.0, 2.0]) == 1.0
    assert non_dominated(rows).tolist() == [True, False, False, True, True, False]


def test_nothing_at_all() -> None:
    empty = np.empty((0, 3))
    assert non_dominated(empty).shape == ranks(empty).shape == hypervolume_history(empty, np.ones(3)).shape == (0,)
    assert hypervolume(empty, np.ones(3)) == 0.0


@pytest.mark.parametrize(
    ("rows", "corner", "words"),
    [
        (np.ones((2, 3)), np.ones(2), "3 objectives"),
        (np.ones((2, 2)), [1.0, np.inf], "not finite"),
        (np.ones(3), np.ones(3), r"expected \(n, m\)"),
    ],
)
def test_wrong_shapes_are_refused(rows: Points, corner: Points, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hypervolume(rows, corner)


def test_five_thousand_points_agree_with_a_slab_by_slab_sum() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((5000, 3)) ** 0.3
    corner = np.ones(3)
    front = rows[non_dominated(rows)]
    # Integrate the two-dimensional volume over the third objective.
    cuts = np.unique(np.append(front[:, 2], 1.0))
    slabs = [hypervolume(front[front[:, 2] <= low][:, :2], corner[:2]) * (high - low) for low, high in pairwise(cuts)]
    assert hypervolume(rows, corner) == pytest.approx(sum(slabs))
    assert hypervolume_history(rows, corner)[-1] == pytest.approx(sum(slabs))
    assert (ranks(rows) == 0).tolist() == non_dominated(rows).tolist()
