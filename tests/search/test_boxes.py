import numpy as np
import pytest

from lkspace.search.boxes import undominated_boxes
from lkspace.study.pareto import hypervolume


def points(m: int, n: int, kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng([m, n, seed])
    if kind == "ties":
        return rng.integers(0, 5, (n, m)).astype(float)
    if kind == "front":
        on = np.abs(rng.normal(size=(n, m))) + 1e-3
        return 4 - 3.9 * on / np.linalg.norm(on, axis=1, keepdims=True)
    return rng.uniform(-1, 6, (n, m))


CASES = [(m, n, k) for m in (1, 2, 3, 4, 5) for n in (0, 1, 2, 7, 25) for k in ("ties", "front", "any")]


@pytest.mark.parametrize(("m", "n", "kind"), CASES)
def test_the_boxes_hold_just_what_the_hypervolume_lacks(m, n, kind):
    corner, floor = np.full(m, 4.5), np.full(m, -2.0)
    front = points(m, n, kind, 0)
    lower, upper = undominated_boxes(front, corner)
    volume = np.prod(upper - np.maximum(lower, floor), axis=1).sum()
    assert volume == pytest.approx(np.prod(corner - floor) - hypervolume(front, corner))


@pytest.mark.parametrize(("m", "n", "kind"), CASES)
def test_every_undominated_place_is_in_one_box_and_no_other_place_in_any(m, n, kind):
    corner, front = np.full(m, 4.5), points(m, n, kind, 1)
    lower, upper = undominated_boxes(front, corner)
    places = np.random.default_rng(2).uniform(-3, 5.5, (500, m))
    counted = ((lower[None] <= places[:, None]) & (places[:, None] < upper[None])).all(axis=2).sum(axis=1)
    dominated = (front[None] <= places[:, None]).all(axis=2).any(axis=1)
    assert counted.tolist() == (~dominated & (places < corner).all(axis=1)).astype(int).tolist()


def test_there_are_no_more_boxes_than_published():
    for m, most in ((1, 1), (2, 61), (3, 121)):
        assert len(undominated_boxes(points(m, 60, "front", 3), np.full(m, 4.5))[0]) <= most


def test_rows_that_are_not_finite_or_beyond_the_corner_count_for_nothing():
    front = [[1.0, 2.0], [2.0, 1.0]]
    odd = [[np.nan, 0.0], [0.0, np.inf], [-np.inf, 1.5], [5.0, 0.0]]
    assert np.array_equal(undominated_boxes(front, [3.0, 3.0]), undominated_boxes(front + odd, [3.0, 3.0]))
