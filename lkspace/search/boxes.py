"""The region that a front leaves undominated, cut into boxes that do not overlap.

Local upper bounds (Lacour, Klamroth & Fonseca, Comput. Oper. Res. 2017): 2n+1 boxes at most in three objectives,
O(n^(m/2)) in m. Their method assumes that no two points share a coordinate; here ties are broken by position, which
leaves boxes of no width and is exact.
"""

import numpy as np
import numpy.typing as npt

from lkspace.study.pareto import non_dominated

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def undominated_boxes(points: npt.ArrayLike, corner: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Lower and upper corners, each (boxes, m), of disjoint boxes that together are what `points` leave below `corner`.

    Every objective is minimised. points: (n, m), any order; rows that are dominated, not finite or not below the corner
    everywhere count for nothing. corner: (m,), finite. A lower corner is -inf where a box has no end.
    """
    rows, top = np.asarray(points, dtype=np.float64), np.asarray(corner, dtype=np.float64)
    rows = rows.reshape(-1, top.size)
    rows = rows[np.isfinite(rows).all(axis=1) & (rows < top).all(axis=1)]
    rows = np.unique(rows[non_dominated(rows)], axis=0)
    n, m = rows.shape
    # Ranks in place of values: position 0 is -inf, 1 to n the points, n + 1 the corner.
    scale = np.vstack([np.full(m, -np.inf), np.sort(rows, axis=0), top])
    order = np.empty_like(rows, dtype=np.int64)
    for j in range(m):
        order[np.argsort(rows[:, j], kind="stable"), j] = np.arange(1, n + 1)
    upper, defining = _upper_bounds(order, n + 1)
    lower = np.zeros_like(upper)
    for j in range(1, m):
        lower[:, j] = defining[:, :j, j].max(axis=1)
    columns = np.arange(m)
    low, high = scale[lower, columns], scale[upper, columns]
    kept = (low < high).all(axis=1)
    return low[kept], high[kept]


def _upper_bounds(points: Ints, top: int) -> tuple[Ints, Ints]:
    """Local upper bounds, (u, m), and the points that define them, (u, m, m): row j of one has its coordinate j.

    points: (n, m), no two equal in a coordinate, all in 1 ... top - 1.
    """
    m = points.shape[1]
    upper = np.full((1, m), top)
    defining = np.zeros((1, m, m), dtype=np.int64)
    defining[0, np.arange(m), np.arange(m)] = top
    for point in points:
        cut = (point < upper).all(axis=1)
        uppers, definings = [upper[~cut]], [defining[~cut]]
        old_upper, old_defining = upper[cut], defining[cut]
        for j in range(m):
            others = np.delete(old_defining[:, :, j], j, axis=1)
            holds = point[j] > others.max(axis=1, initial=-1)
            new_upper, new_defining = old_upper[holds].copy(), old_defining[holds].copy()
            new_upper[:, j] = point[j]
            new_defining[:, j] = point
            uppers.append(new_upper)
            definings.append(new_defining)
        upper, defining = np.concatenate(uppers), np.concatenate(definings)
    return upper, defining
