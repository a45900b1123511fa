import contextlib
import gc
import itertools
import math
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from lkspace.scores import timing
from lkspace.scores.timing import judged, median_interval, repeated


@pytest.mark.parametrize("n", [6, 7, 8, 9, 17, 50, 101, 1000])
def test_interval_has_the_ranks_of_the_binomial_distribution(n):
    low, high = median_interval(np.random.default_rng(n).permutation(n) + 1.0)
    rank = int(low)
    assert high == n + 1 - rank
    assert binom.cdf(rank - 1, n, 0.5) <= 0.025 < binom.cdf(rank, n, 0.5)


def test_interval_covers_the_median_of_a_skewed_distribution():
    samples = np.random.default_rng(0).exponential(size=(2000, 25))
    bounds = np.array([median_interval(row) for row in samples])
    covered = ((bounds[:, 0] <= math.log(2)) & (math.log(2) <= bounds[:, 1])).mean()
    assert 0.945 < covered < 0.98


def test_five_values_have_no_interval():
    with pytest.raises(ValueError, match="5 values"):
        median_interval(np.arange(5.0))


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=60))
def test_interval_holds_the_median(values):
    low, high = median_interval(np.array(values))
    assert min(values) <= low <= median(values) <= high <= max(values)


class Machine:
    """Time is what passes and sentinels took; both slow down alike where `slowdown(time)` says so."""

    def __init__(self, slowdown, once=2e-3, noise=None):
        self.time = 0.0
        self.slowdown = slowdown
        self.once_takes = once
        self.noise = noise or itertools.repeat(1.0)

    def once(self):
        return self._pass(self.once_takes * next(self.noise))

    def sentinel(self):
        return self._pass(1e-4)

    def _pass(self, seconds):
        seconds *= self.slowdown(self.time)
        self.time += seconds
        return seconds


def steady(time):
    return 1.0


def test_quiet_machine_is_measured_for_the_shortest_time():
    machine = Machine(steady)
    timed = repeated(machine.once, machine.sentinel)
    assert timed.median == pytest.approx(2e-3)
    assert timed.undisturbed
    assert timed.counted.all()
    assert timing.SHORTEST <= machine.time <= 1.2 * timing.SHORTEST


def test_slow_spells_leave_no_trace():
    machine = Machine(lambda time: 1.3 if time % 0.2 < 0.15 else 1.0)
    timed = repeated(machine.once, machine.sentinel)
    assert np.median(timed.seconds) == pytest.approx(2.6e-3)
    assert timed.median == pytest.approx(2e-3)
    assert timed.undisturbed


def never_the_same(time):
    return 1 + 37 * time % 1


def test_quiet_is_waited_for_beyond_the_limit():
    machine = Machine(lambda time: 1.0 if time > 2.0 else never_the_same(time), once=2e-2)
    timed = repeated(machine.once, machine.sentinel)
    assert timed.undisturbed
    assert timed.median == pytest.approx(2e-2)
    assert timing.LIMIT < machine.time < timing.LAST_LIMIT


def test_machine_that_does_not_become_quiet_is_told():
    machine = Machine(never_the_same, once=2e-2)
    timed = repeated(machine.once, machine.sentinel)
    assert not timed.undisturbed
    assert timed.median < np.median(timed.seconds)
    assert timing.LAST_LIMIT <= machine.time < 1.2 * timing.LAST_LIMIT


def test_passes_are_not_chosen_by_their_own_time():
    machine = Machine(steady, noise=itertools.cycle([1.0, 1.0, 3.0, 3.0, 3.0]))
    timed = repeated(machine.once, machine.sentinel)
    assert timed.counted.all()
    assert timed.median == pytest.approx(6e-3)


def test_wide_interval_ends_at_the_limit():
    rng = np.random.default_rng(0)
    machine = Machine(steady, noise=iter(lambda: rng.uniform(0.2, 5), None), once=2e-2)
    timed = repeated(machine.once, machine.sentinel)
    assert timing.LIMIT <= machine.time < 1.2 * timing.LIMIT
    low, high = timed.interval
    assert high - low > 2 * timing.PRECISION * timed.median


def test_slow_network_is_passed_as_often_as_an_interval_needs():
    machine = Machine(steady, once=10.0)
    timed = repeated(machine.once, machine.sentinel)
    assert len(timed.seconds) == timing.LEAST
    assert timed.interval == pytest.approx((10.0, 10.0))


def test_ratios_to_the_yardstick_do_not_feel_two_speeds():
    """Half of the time 1.3 times as slow, at every level of detail: no sentinel tells, the yardstick beside does."""
    machine = Machine(lambda time: 1.3 if time % 0.2 < 0.1 else 1.0)
    timed = repeated(machine.once, machine.sentinel, yardstick=lambda: machine._pass(1e-3))
    assert timing.LEAST < len(timed.yardstick) < len(timed.seconds) / timing.EVERY
    assert len(timed.ratios) == len(timed.yardstick) - 1
    assert np.median(timed.ratios) == pytest.approx(2.0)
    assert timed.narrow
    none = repeated(machine.once, machine.sentinel)
    assert len(none.yardstick) == len(none.ratios) == 0


def test_a_gap_gives_the_middle_pass_over_the_mean_of_both_runs():
    seconds = np.array([9.0, 1.0, 4.0, 6.0, 5.0, 3.0] + [8.0, 8.0, 8.0, 4.0] * 5)
    fixed = np.zeros(len(seconds), dtype=bool)
    fixed[1::4] = True
    ratios = timing.to_yardstick(seconds, fixed)
    assert len(ratios) == fixed.sum() - 1 == timing.LEAST
    assert ratios[0] == 5 / 2
    assert (ratios[1:] == 8 / 3.5).sum() == 1
    assert (ratios[1:] == 2.0).sum() == len(ratios) - 2


def test_of_few_runs_of_the_yardstick_every_pass_counts():
    machine = Machine(steady, once=10.0)
    timed = repeated(machine.once, machine.sentinel, yardstick=lambda: machine._pass(1e-3))
    assert len(timed.seconds) == timing.LEAST
    assert len(timed.yardstick) == timing.LEAST - 1  # after each of the slow passes
    assert timed.ratios == pytest.approx(np.full(timing.LEAST, 1e4))


def test_a_slow_pass_does_not_hang_on_one_run_of_the_yardstick():
    machine, runs = Machine(steady, once=0.4), iter(range(10_000))
    timed = repeated(machine.once, machine.sentinel, yardstick=lambda: machine._pass(3e-3 if next(runs) % 3 else 9e-3))
    assert timed.ratios == pytest.approx(np.full(len(timed.ratios), 0.4 / 3e-3))


def test_every_pass_counts_without_a_sentinel():
    machine = Machine(steady)
    timed = repeated(machine.once, None)
    assert timed.counted.all()
    assert timed.undisturbed


def test_pass_counts_only_between_two_good_sentinels():
    sentinels = np.ones(31)
    sentinels[[4, 17]] = timing.TOLERANCE + 0.01
    sentinels[25] = timing.TOLERANCE - 0.01
    out = np.flatnonzero(~judged(np.ones(30), sentinels).counted)
    assert out.tolist() == [3, 4, 16, 17]


def test_least_disturbed_passes_count_where_all_are():
    sentinels = 2.0 + np.random.default_rng(0).permutation(101)
    timed = judged(np.arange(100.0), sentinels)
    around = np.maximum(sentinels[:-1], sentinels[1:])
    assert not timed.undisturbed
    assert timed.counted.sum() == timing.ENOUGH
    assert around[timed.counted].max() <= around[~timed.counted].min()  # neighbours share a sentinel


def test_warm_up_gives_the_fastest_pass_but_the_first():
    times = iter([0.001, 0.03, 0.02, 0.04, 1.0])
    assert timing.warmed_up(lambda: next(times), 0.08) == 0.02
    assert timing.warmed_up(iter([5.0, 7.0]).__next__, 0.0) == 7.0


def test_pass_on_a_gpu_replays_one_captured_graph_between_two_events(monkeypatch):
    # The order of calls only; tests/scores/test_latency.py measures where there is a GPU.
    calls = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def __getattr__(self, method):
            return lambda *_, **__: calls.append(f"{self.name}.{method}")

        def elapsed_time(self, end):
            calls.append(f"{self.name} to {end.name}")
            return 2.0

    names = iter(["start", "end"])
    scope = contextlib.contextmanager(lambda name: (yield calls.append(name)))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Fake("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Fake("current"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: scope("on side"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Fake("graph"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: calls.append("sleep"))
    monkeypatch.setattr(timing, "_stream", timing._stream.__wrapped__)  # which remembers the fake otherwise
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Fake(next(names)))
    once = timing.pass_on_gpu(lambda images: calls.append("network" if gc.isenabled() else "captured"), torch.zeros(1))
    assert gc.isenabled()
    warm_up = ["side.wait_stream", "on side", *["network"] * 3, "current.wait_stream"]
    capture = ["synchronize", "on side", "graph.capture_begin", "captured", "graph.capture_end"]
    assert calls == [*warm_up, *capture]
    calls.clear()
    assert once() == 2e-3
    assert calls == ["sleep", "start.record", "graph.replay", "end.record", "end.synchronize", "start to end"]
