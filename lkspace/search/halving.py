"""Who goes on at a rung: asynchronous successive halving by Pareto rank, among candidates of comparable cost.

Successive halving as it stops trials one by one (Li et al., MLSys 2020), with front rank and crowding (Deb et al.,
2002) in place of one value (Schmucker et al., 2021). With FLOPs or latency among the objectives nearly every trial is
on the front, however bad its accuracy, and a small network has learnt more after an epoch than a large one. So what is
settled beforehand is not ranked: it says who the peers are and what is to be expected of them, and what is ranked is
how much better than that they learn.
"""

import math

import numpy as np
import numpy.typing as npt

from lkspace.study.pareto import MISSING, ranks

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KEPT = 2  # one in so many goes on: two rungs leave a quarter, and of 200 trials a sixth are on the front
FEW = 3  # times `kept`: among fewer peers nobody is stopped, as they tell little of what a cost can buy
SHARE = 3  # one in so many of those at a rung are a trial's peers, the nearest in cost


def goes_on(learnt: npt.ArrayLike, costs: npt.ArrayLike, row: int, kept: int = KEPT) -> bool:
    """Whether the trial in this row is worth going on with.

    learnt: (n, m) what all that reached the rung had of the objectives that training changes, to be minimised. costs:
    (n, c) their other objectives; c may be 0. It goes on if fewer than 1/kept of its peers are better, itself counted
    among them, and always if there are fewer than three times `kept` of them; never if a learnt value is not finite.
    Better is meant after the peers' trend with cost is taken away.
    """
    values, fixed = np.asarray(learnt, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    if not np.isfinite(values[row]).all():
        return False
    among = peers(fixed, row, kept)
    if len(among) < FEW * kept:
        return True
    better = places(without_trend(values[among], fixed[among]))[int(np.flatnonzero(among == row)[0])]
    return bool(better < len(among) / kept)


def peers(costs: npt.ArrayLike, row: int, kept: int = KEPT) -> Ints:
    """Rows that the given one is compared with, itself included: a third of all, the nearest in cost.

    costs: (n, c). Near is meant in the order of costs, each one's for itself, so that units and scales do not matter;
    of equally near ones all are peers. At least three times `kept`, or all if there are fewer; all if c is 0.
    """
    rows = np.asarray(costs, dtype=np.float64)
    n, wanted = len(rows), max(FEW * kept, math.ceil(len(rows) / SHARE))
    if rows.shape[1] == 0 or wanted >= n:
        return np.arange(n)
    order = np.column_stack([_middle_rank(column) for column in rows.T])
    distance = np.abs(order - order[row]).sum(axis=1)
    return np.flatnonzero(distance <= np.partition(distance, wanted - 1)[wanted - 1])


def without_trend(values: Floats, costs: Floats) -> Floats:
    """The values less a plane through them over the order of costs, (n, m); as they are if there are no costs.

    A third of all is wide enough that its smaller networks are ahead of its larger ones, which would then stop for
    their size. The plane is drawn through the order of values: one that learnt nothing does not tilt it. Rows that are
    not finite stay so and count for nothing.
    """
    known = np.isfinite(values).all(axis=1)
    if costs.shape[1] == 0 or known.sum() <= costs.shape[1] + 1:
        return values
    order = np.column_stack([_middle_rank(column) for column in costs[known].T])
    plane = np.column_stack([np.ones(len(order)), order - order.mean(axis=0)])
    height = np.column_stack([_middle_rank(column) for column in values[known].T])
    left = np.full_like(values, np.nan)
    # Rounded, so that what is equal but for the last bits of the arithmetic is equal.
    left[known] = np.round(height - plane @ np.linalg.lstsq(plane, height, rcond=None)[0], 9)
    return left


def places(values: npt.ArrayLike) -> Ints:
    """How many rows come before each one: lower front rank first, then the less crowded; equal rows have equal places.

    values: (n, m), to be minimised, in any order -> (n,). A row with a value that is not finite comes after all others.
    """
    rows = np.asarray(values, dtype=np.float64)
    rank = ranks(rows)
    rank = np.where(rank == MISSING, len(rows), rank)
    loneliness = np.zeros(len(rows))
    for front in np.unique(rank[rank < len(rows)]):
        loneliness[rank == front] = crowding(rows[rank == front])
    before = (rank[None] < rank[:, None]) | ((rank[None] == rank[:, None]) & (loneliness[None] > loneliness[:, None]))
    return np.asarray(before.sum(axis=1), dtype=np.int64)


def crowding(front: npt.ArrayLike) -> Floats:
    """Crowding distance of the rows of one front, (n, m) finite -> (n,): large if neighbours are far, inf at the ends.

    Per objective the gap between the next smaller and the next larger value, in parts of its range. Neighbours are
    values, not rows, so the order of rows does not matter and equal rows have equal distances.
    """
    rows = np.asarray(front, dtype=np.float64)
    total = np.zeros(len(rows))
    for column in rows.T:
        values, place = np.unique(column, return_inverse=True)
        if len(values) == 1:
            continue
        gap = np.full(len(values), np.inf)
        gap[1:-1] = (values[2:] - values[:-2]) / (values[-1] - values[0])
        total += gap[place]
    return total


def _middle_rank(column: Floats) -> Floats:
    """Position of each value in their order, in the middle of its equals; what is not a number comes last."""
    known = np.where(np.isnan(column), np.inf, column)
    _, place, counts = np.unique(known, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[place.reshape(-1)], dtype=np.float64)
