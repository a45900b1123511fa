"""How far a run's proxy can be trusted: what longer trainings with several seeds say of its order and of its front."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lkspace.ranking import kendall_tau, tau_interval
from lkspace.study.pareto import non_dominated
from lkspace.study.record import Objective, Trial

RESAMPLES = 2000
_FEWEST = 5  # candidates of which resamples tell anything
_HALF_95 = 1.96  # standard deviations from the middle of a normal distribution's 95 % interval to its end


@dataclass(frozen=True)
class Longer:
    """One longer training of a candidate. accuracy: None if it diverged. seconds: it took."""

    epochs: int
    seed: int
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Verified:
    """A candidate that was trained longer.

    proxy: its accuracy after the search's epochs. accuracies: after the longer trainings, one a seed. latency,
    latency_now: in ms, in the search and the last time it was measured. membership: how likely it is on the front of
    the verified ones; None with a single seed, from which no noise can be told.
    """

    number: int
    on_front: bool
    proxy: float
    accuracies: tuple[float, ...]
    latency: float | None
    latency_now: float | None
    membership: float | None

    @property
    def mean(self) -> float:
        """Mean accuracy of the longer trainings."""
        return float(np.mean(self.accuracies))


@dataclass(frozen=True)
class Trust:
    """What is known.

    tau: Kendall's, between proxy and mean of the longer trainings; interval: of 95 %, see `tau_interval`;
    None where there are too few or all are equal. deviation: between seeds, pooled; None with one seed. diverged:
    trainings that came to nothing; the rest does not know of them. front: members of the run's.
    """

    epochs: int
    seeds: int
    candidates: tuple[Verified, ...]
    tau: float | None
    interval: tuple[float, float] | None
    deviation: float | None
    diverged: int = 0
    front: int = 0

    @property
    def text(self) -> str:
        """In one line."""
        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        members = f"{sum(c.on_front for c in self.candidates)} of the front's {self.front}"
        how = f"{len(self.candidates)} candidates, {members}, trained for {self.epochs} epochs with {seeds}"
        lost = f"; {self.diverged} of the trainings diverged and count for nothing here" if self.diverged else ""
        if self.tau is None:
            return f"{how}: too few for an order{lost}"
        between = "" if self.interval is None else f" (95 % interval {self.interval[0]:.2f} to {self.interval[1]:.2f})"
        return f"{how}: the proxy orders them with Kendall's tau {self.tau:.2f}{between}{lost}"


def trust(
    objectives: Sequence[Objective],
    trials: Sequence[Trial],
    front: set[int],
    longer: Mapping[int, Sequence[Longer]],
    epochs: int = 0,
) -> Trust | None:
    """Of the trainings in `longer`, by trial number, of the length that most candidates have; None if there are none.

    trials: at least those in `longer`. front: numbers of the run's front. epochs: of the proxy; a training of as many
    is the proxy of a trial that was stopped early, which counts only with one.
    """
    lengths = Counter(n for runs in longer.values() for n in {run.epochs for run in runs} if n > epochs)
    if not lengths:
        return None
    length = max(lengths, key=lambda n: (lengths[n], n))
    found = {}
    proxies = {}
    for trial in trials:
        runs = [run for run in longer.get(trial.number, ()) if run.epochs == length]
        accuracies = tuple(run.accuracy for run in sorted(runs, key=lambda r: r.seed) if run.accuracy is not None)
        whole = [run.accuracy for run in longer.get(trial.number, ()) if run.epochs == epochs]
        proxy = trial.values.get("accuracy") if trial.outcome == "complete" else next(iter(whole), None)
        if accuracies and proxy is not None:
            found[trial.number] = (trial, accuracies)
            proxies[trial.number] = proxy
    freedom = sum(len(a) - 1 for _, a in found.values())
    squares = sum(len(a) * float(np.var(a)) for _, a in found.values())
    deviation = math.sqrt(squares / freedom) if freedom else None
    chances = _memberships(objectives, list(found.values()), deviation)
    candidates = tuple(
        Verified(
            number,
            number in front,
            proxies[number],
            accuracies,
            trial.values.get("latency"),
            trial.remeasured.get("latency", {}).get("value"),
            chance,
        )
        for (number, (trial, accuracies)), chance in zip(found.items(), chances, strict=True)
    )
    before, after = np.array([c.proxy for c in candidates]), np.array([c.mean for c in candidates])
    interval = tau_interval(before, after, RESAMPLES) if len(candidates) >= _FEWEST else None
    seeds = max((len(c.accuracies) for c in candidates), default=0)
    diverged = sum(run.epochs == length and run.accuracy is None for runs in longer.values() for run in runs)
    return Trust(length, seeds, candidates, kendall_tau(before, after), interval, deviation, diverged, len(front))


def _memberships(
    objectives: Sequence[Objective], candidates: Sequence[tuple[Trial, tuple[float, ...]]], deviation: float | None
) -> list[float | None]:
    """How often each is on the front of all when accuracies and latencies are drawn within what is known of them."""
    if deviation is None or not candidates:
        return [None] * len(candidates)
    rng = np.random.default_rng(0)
    columns = []
    for objective in objectives:
        middles, spreads = zip(*(_known(objective.name, t, a, deviation) for t, a in candidates), strict=True)
        noise = rng.normal(size=(RESAMPLES, len(candidates)))
        columns.append(objective.sign * (np.array(middles) + np.array(spreads) * noise))
    draws = np.stack(columns, axis=2)
    return [float(share) for share in np.mean([non_dominated(rows) for rows in draws], axis=0)]


def _known(name: str, trial: Trial, accuracies: tuple[float, ...], deviation: float) -> tuple[float, float]:
    """Middle and standard deviation of what is known of a candidate's score.

    Of two measurements of a latency the later counts; they differ by more than either varies within itself.
    """
    if name == "accuracy":
        return float(np.mean(accuracies)), deviation / math.sqrt(len(accuracies))
    first: Mapping[str, Any] = trial.measurements.get(name, {})
    last: Mapping[str, Any] = trial.remeasured.get(name) or first
    value, before, ends = last.get("value"), first.get("value"), last.get("interval")
    if value is None:
        return math.nan, 0.0
    within = (float(ends[1]) - float(ends[0])) / (2 * _HALF_95) if ends else 0.0
    between = 0.0 if before is None else abs(float(value) - float(before)) / math.sqrt(2)
    return float(value), max(within, between)
