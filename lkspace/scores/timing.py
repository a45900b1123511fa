"""How long one pass of a network takes, on a machine that is never quite quiet.

Other programs and other guests of the same host slow a core by tens of percent for seconds at a time, which no
lock of ours can prevent. So a short fixed piece of work, the sentinel, runs before and after every pass, and a
pass counts only if both sentinels ran at nearly their best speed: what is left out is decided by the machine's
state, never by the pass's own time. Passes are repeated until the interval of their median is narrow.
What is slow for longer, or flickers between two speeds, leaves no sentinel at its best speed. There a second, longer
piece of work helps, the yardstick (`pace.py`): it runs after every few passes, and each gap between two of its runs
gives the time of a pass in parts of the yardstick's there and then. All passes count then; the sentinels only say
whether to go on for longer.
The interval is that of order statistics (Hahn and Meeker, Statistical Intervals, 1991, section 5.2), which
assumes nothing on how times are distributed, only that passes are independent.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lkspace.kernels.gpu.graphs import captured
from lkspace.scores import pace

# Tuned on two cores of a shared virtual machine with other work beside (benchmarks/latency.py shows the outcome).
TOLERANCE = 1.15  # sentinels slower than their best by more than this mark a disturbed pass
PRECISION = 0.01  # half the interval's width over the median at which it is narrow
SHORTEST = 0.6  # seconds: a slow spell is often longer than what a narrow interval would need
LIMIT = 1.5  # seconds after which the interval is taken as it is
LAST_LIMIT = 4.0  # seconds after which too few undisturbed passes are taken as well
ENOUGH = 20  # undisturbed passes without which the first limit does not hold
EVERY = 3  # passes between two runs of the yardstick
SLOW = 0.05  # seconds: of a pass from which on the yardstick runs after each
RUNS = 9  # of the yardstick at a time then: there are few times, so each must be sure
LEAST = 6  # passes below which no 95 % interval of the median exists
_LAUNCH = 100_000  # cycles, some 50 us: a graph's launch takes 5 to 20 us to reach the GPU
_SENTINEL = 128  # side of the matrices; 0.1 ms on a core of 2023, and small enough for its own cache


@dataclass(frozen=True)
class Timing:
    """All passes in the order they ran, and which of them count.

    seconds, counted: (n,). undisturbed: whether enough passes were; if not, the least disturbed ones count.
    yardstick: (m,) seconds of the yardstick's runs between them. ratios: (k,) of passes to the yardstick beside them.
    m and k are 0 without a yardstick.
    """

    seconds: NDArray[np.float64]
    counted: NDArray[np.bool_]
    undisturbed: bool
    yardstick: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    ratios: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def values(self) -> NDArray[np.float64]:
        """What is judged: the ratios where there is a yardstick, else the seconds of the passes that count."""
        return self.ratios if len(self.ratios) else self.seconds[self.counted]

    @property
    def median(self) -> float:
        """Of the values."""
        return float(np.median(self.values))

    @property
    def interval(self) -> tuple[float, float]:
        """Values between which the median lies at 95 %."""
        return median_interval(self.values)

    @property
    def narrow(self) -> bool:
        """Whether the interval is as narrow as PRECISION asks, from enough passes."""
        if int(self.counted.sum()) < ENOUGH or not self.undisturbed:
            return False
        low, high = self.interval
        return high - low <= 2 * PRECISION * self.median


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Bounds of the median at 95 % or the next higher level that order statistics allow; values: (n,), any order.

    Raises ValueError for fewer than six values: not even their whole range is sure enough.
    """
    n = len(values)
    # The widest symmetric pair of ranks that leaves at most 2.5 % to each side, by the binomial distribution.
    below, rank, weight = 0, 0, 1
    while 40 * (below + weight) <= 2**n:
        below += weight
        weight = weight * (n - rank) // (rank + 1)
        rank += 1
    if rank == 0:
        raise ValueError(f"{n} values have no 95 % interval of the median")
    ordered = np.sort(values)
    return float(ordered[rank - 1]), float(ordered[n - rank])


def repeated(
    once: Callable[[], float],
    sentinel: Callable[[], float] | None,
    share: float = 1.0,
    yardstick: Callable[[], float] | None = None,
) -> Timing:
    """Passes until their median is known; `once` and `sentinel` run one pass or sentinel and give its seconds.

    share: of the usual time limits, for what need not be known as well. yardstick: that of `pace.py`, after every few
    passes.
    """
    seconds: list[float] = []
    sentinels = [sentinel()] if sentinel else []
    fixed: list[bool] = []  # which of them are the yardstick's
    spent = next_look = 0.0
    every, runs = EVERY, 1
    while True:
        fixed.append(yardstick is not None and len(fixed) % (every + 1) == every)
        if yardstick is not None and fixed[-1]:
            seconds.append(float(np.median([yardstick() for _ in range(runs)])))
            spent += seconds[-1] * pace.PASSES * runs
        else:
            seconds.append(once())
            spent += seconds[-1]
            if seconds[-1] > SLOW:
                every, runs = 1, RUNS
        if sentinel:
            sentinels.append(sentinel())
            spent += sentinels[-1]
        if len(seconds) - sum(fixed) < LEAST or spent < next_look:
            continue
        next_look = 1.1 * spent
        timing = judged(np.array(seconds), np.array(sentinels), np.array(fixed))
        if spent >= share * SHORTEST and timing.narrow:
            return timing
        if spent >= share * (LIMIT if timing.undisturbed else LAST_LIMIT):
            return timing


def judged(
    seconds: NDArray[np.float64], sentinels: NDArray[np.float64], fixed: NDArray[np.bool_] | None = None
) -> Timing:
    """Which passes count; seconds: (n,), sentinels: (n + 1,) around them, or (0,) where every pass counts.

    fixed: (n,) which of them are the yardstick's.
    """
    fixed = np.zeros(len(seconds), dtype=np.bool_) if fixed is None else fixed
    ratios = to_yardstick(seconds, fixed)
    if len(sentinels) == 0:
        return Timing(seconds[~fixed], np.ones(int((~fixed).sum()), dtype=np.bool_), True, seconds[fixed], ratios)
    best = float(np.percentile(sentinels, 5))  # not the minimum: that of many is luck
    around = np.maximum(sentinels[:-1], sentinels[1:])
    counted, undisturbed = _least_disturbed(around[~fixed], TOLERANCE * best)
    return Timing(seconds[~fixed], counted, undisturbed, seconds[fixed], ratios)


def to_yardstick(seconds: NDArray[np.float64], fixed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ratios of the passes to the yardstick's runs among them, (k,); seconds, fixed: (n,).

    One for each gap between two runs, the middle pass to the mean of both: so many values are nearly independent. Of
    few gaps every pass gives one, to what the yardstick would have taken then, on a line between its runs.
    """
    runs, passes = np.flatnonzero(fixed), np.flatnonzero(~fixed)
    if len(runs) == 0:
        return np.zeros(0)
    if len(runs) > LEAST:
        between = [2 * np.median(seconds[a + 1 : b]) / (seconds[a] + seconds[b]) for a, b in itertools.pairwise(runs)]
        return np.array(between)
    return np.asarray(seconds[passes] / np.interp(passes, runs, seconds[runs]), dtype=np.float64)


def _least_disturbed(around: NDArray[np.float64], bound: float) -> tuple[NDArray[np.bool_], bool]:
    """Which of the passes with these sentinels count, (n,), and whether they are all those within the bound."""
    n = len(around)
    enough = max(LEAST, min(ENOUGH, n // 2))
    counted = around <= bound
    if int(counted.sum()) >= enough:
        return counted, True
    counted = np.zeros(n, dtype=np.bool_)
    counted[np.argsort(around, kind="stable")[:enough]] = True
    return counted, False


def sentinel_on_cpu() -> Callable[[], float]:
    """A fixed piece of work on as many threads as torch uses now.

    The network leaves it part of the cache, so it feels who else uses cache and memory; warmed up first, it would not,
    and would tell little (tried). Its best time depends on the network (90 us after a small one, 122 us after
    RepLKNet-31B) and is good for one measurement only.
    """
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(_SENTINEL, _SENTINEL, generator=generator)
    out = torch.empty_like(matrix)

    def sentinel() -> float:
        start = time.perf_counter()
        torch.mm(matrix, matrix, out=out)
        torch.mm(matrix, matrix, out=out)
        return time.perf_counter() - start

    return sentinel


def pass_on_cpu(network: nn.Module, images: Tensor) -> Callable[[], float]:
    """One call of the network, timed by the clock."""

    def once() -> float:
        start = time.perf_counter()
        network(images)
        return time.perf_counter() - start

    return once


def pass_on_gpu(network: nn.Module, images: Tensor) -> Callable[[], float]:
    """One replay of the network captured as a CUDA graph, timed by CUDA events: no Python, no launch from the host.

    The GPU is kept waiting until the launch has reached it, or the time would begin with that of the launch.
    """
    stream = _stream(images.device)
    stream.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(stream):  # capture needs libraries to be set up and memory to be pooled before
        for _ in range(3):
            network(images)
    torch.cuda.current_stream(images.device).wait_stream(stream)
    torch.cuda.empty_cache()
    graph = captured(lambda: network(images), stream)
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def once() -> float:
        torch.cuda._sleep(_LAUNCH)  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return once


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps memory for every stream that it has seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def warmed_up(once: Callable[[], float], seconds: float) -> float:
    """Seconds of the fastest pass while warming up for `seconds`, the first pass not counted."""
    once()
    fastest, spent = math.inf, 0.0
    while spent < seconds or fastest == math.inf:
        took = once()
        fastest, spent = min(fastest, took), spent + took
    return fastest
