"""Dominance and hypervolume on plain arrays; every objective minimised (negate one that is to be maximised).

Ranks: efficient non-dominated sort (Zhang et al., IEEE Trans. Evol. Comput. 2015). Hypervolume: a sweep over the
last objective in three dimensions (Beume et al., 2009), WFG beyond (While et al., 2012); all exact.
"""

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MISSING = -1  # rank of a row with a value that is not finite


def non_dominated(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which rows no other row dominates.

    points: (n, m), any order -> (n,) bool. A row dominates another if it is nowhere larger and somewhere smaller, so
    equal rows are on the front together. A row with a value that is not finite is never on it and dominates nothing.
    """
    rows = _matrix(points)
    known = np.isfinite(rows).all(axis=1)
    front = np.zeros(len(rows), dtype=np.bool_)
    unique, inverse = np.unique(rows[known], axis=0, return_inverse=True)
    front[known] = _first_front(unique)[inverse.reshape(-1)]
    return front


def ranks(points: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Number of the front that each row is on: 0 for the front, 1 for the front without those, and so on.

    points: (n, m), any order -> (n,) int64. Equal rows have equal ranks; a row with a value that is not finite has -1.
    """
    rows = _matrix(points)
    known = np.isfinite(rows).all(axis=1)
    result = np.full(len(rows), MISSING, dtype=np.int64)
    unique, inverse = np.unique(rows[known], axis=0, return_inverse=True)
    fronts: list[_Growing] = []
    found = np.zeros(len(unique), dtype=np.int64)
    # In lexicographic order nothing that follows dominates a row, so its front never changes afterwards; and the
    # fronts that hold something dominating it are the first so many: a binary search finds their number.
    for i, row in enumerate(unique):
        low, high = 0, len(fronts)
        while low < high:
            middle = (low + high) // 2
            if (fronts[middle].rows <= row).all(axis=1).any():
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append(_Growing(row.size))
        fronts[low].append(row)
        found[i] = low
    result[known] = found[inverse.reshape(-1)]
    return result


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Volume dominated by `points` and bounded by `reference`.

    points: (n, m), any order; rows with a value that is not finite or not below the reference everywhere add nothing;
    ties count once. reference: (m,), finite, the fixed corner. Raises ValueError if m differs or it is not finite.
    """
    rows, corner = _inside(points, reference)
    return _volume(_front(rows), corner)


def hypervolume_history(points: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Hypervolume of the first 1, 2, ..., n rows; arguments as `hypervolume` takes them -> (n,), never falling.

    Each row adds the part of its own box that the front so far does not reach, so a row off the front is cheap.
    """
    rows = _matrix(points)
    corner = _corner(reference, rows)
    history, front, volume = np.zeros(len(rows)), np.empty((0, rows.shape[1])), 0.0
    counted = _counted(rows, corner)
    for i, row in enumerate(rows):
        if counted[i] and not (front <= row).all(axis=1).any():
            gain = float(np.prod(corner - row)) - _volume(_front(np.maximum(front, row)), corner)
            volume += max(gain, 0.0)
            front = np.vstack([front[~(row <= front).all(axis=1)], row])
        history[i] = volume
    return history


class _Growing:
    """Rows that are appended one by one without copying all of them each time."""

    def __init__(self, width: int) -> None:
        self._buffer, self._count = np.empty((4, width)), 0

    @property
    def rows(self) -> Floats:
        return self._buffer[: self._count]

    def append(self, row: Floats) -> None:
        if self._count == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.empty_like(self._buffer)])
        self._buffer[self._count] = row
        self._count += 1


def _matrix(points: npt.ArrayLike) -> Floats:
    rows = np.asarray(points, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"points have shape {rows.shape}, expected (n, m)")
    return rows


def _corner(reference: npt.ArrayLike, rows: Floats) -> Floats:
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (rows.shape[1],):
        raise ValueError(f"reference has shape {corner.shape}, points have {rows.shape[1]} objectives")
    if not np.isfinite(corner).all():
        raise ValueError(f"reference {corner.tolist()} is not finite")
    return corner


def _inside(points: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Floats, Floats]:
    rows = _matrix(points)
    corner = _corner(reference, rows)
    return rows[_counted(rows, corner)], corner


def _counted(rows: Floats, corner: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray((np.isfinite(rows) & (rows < corner)).all(axis=1), dtype=np.bool_)


def _first_front(ordered: Floats) -> npt.NDArray[np.bool_]:
    """Mask of the front among rows in lexicographic order, once if equal: the first row left is on it."""
    front = np.zeros(len(ordered), dtype=np.bool_)
    left = np.arange(len(ordered))
    while left.size:
        first = left[0]
        front[first] = True
        left = left[(ordered[left] < ordered[first]).any(axis=1)]
    return front


def _front(rows: Floats) -> Floats:
    """The front's distinct rows in lexicographic order."""
    ordered = rows[np.lexsort(rows.T[::-1])]
    return ordered[_first_front(ordered)]


def _volume(front: Floats, corner: Floats) -> float:
    """Hypervolume of what `_front` gives, all rows below the corner."""
    if not len(front):
        return 0.0
    if corner.size == 1:
        return float(corner[0] - front[0, 0])
    if corner.size == 2:
        heights = np.concatenate([corner[1:], front[:-1, 1]]) - front[:, 1]
        return float((corner[0] - front[:, 0]) @ heights)
    if corner.size == 3:
        return _sweep(front, corner)
    return _wfg(front, corner)


def _sweep(front: Floats, corner: Floats) -> float:
    """Three objectives: move a plane along the last one and keep the staircase, and its area, of the first two."""
    right, top, end = corner.tolist()
    xs, ys = [right], [-np.inf]  # the staircase: x rising, y falling; the last entry is a sentinel
    area = volume = previous = 0.0
    for x, y, z in front[np.argsort(front[:, 2], kind="stable")].tolist():
        volume += area * (z - previous)
        previous = z
        at = bisect_left(xs, x)
        ceiling = ys[at - 1] if at else top
        if ceiling <= y or (xs[at] == x and ys[at] <= y):
            continue
        stop, left = at, x
        while ys[stop] >= y:  # steps that the new corner covers
            area += (xs[stop] - left) * (ceiling - y)
            left, ceiling = xs[stop], ys[stop]
            stop += 1
        area += (xs[stop] - left) * (ceiling - y)
        xs[at:stop], ys[at:stop] = [x], [y]
    return float(volume + area * (end - previous))


def _wfg(front: Floats, corner: Floats) -> float:
    """Any number of objectives: each row's box less what the rows after it cover of it."""
    boxes = np.prod(corner - front, axis=1)
    covered = (_volume(_front(np.maximum(front[i + 1 :], row)), corner) for i, row in enumerate(front[:-1]))
    return float(boxes.sum() - sum(covered))
