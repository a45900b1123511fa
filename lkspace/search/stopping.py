"""Early stopping of a search: what all its trials had at each rung, and whether one of them goes on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from lkspace.search.evaluate import Report
from lkspace.search.halving import goes_on, rungs
from lkspace.study import Objective, Trial

EarlyStopping = Literal["halving", "none"]
KINDS: tuple[str, ...] = get_args(EarlyStopping)


class Stopping:
    """Asked after each epoch of a trial. Trials of earlier calls count with the curves that the study has of them.

    What the epochs of a training report is ranked; objectives settled before it are what it costs, and so are its
    FLOPs, objective or not, as how fast a network learns goes with its size. A trial that is begun again replaces what
    was known of it.
    """

    def __init__(self, objectives: Sequence[Objective], epochs: int, trials: Iterable[Trial] = ()) -> None:
        self._signs = {o.name: o.sign for o in objectives}
        self._signs.setdefault("flops", 1.0)
        self._ranked = {o.name for o in objectives}
        self._epochs = epochs
        self._rungs = rungs(epochs)
        # Per rung and trial: the values of objectives and FLOPs there, to be minimised, NaN where there is none.
        self._reached: dict[int, dict[int, list[float]]] = {rung: {} for rung in self._rungs}
        self._learnt: set[str] = set()
        for trial in trials:
            self._note(trial.number, trial.curve, trial.values)

    def reason(self, number: int, report: Report) -> str | None:
        """Why the trial is to be stopped after this report; None if it goes on."""
        values = {name: m.value for name, m in report.measurements.items()}
        self._note(number, report.curve, values)
        epoch = report.curve[-1].get("epoch") if report.curve else None
        if report.outcome is not None or epoch not in self._reached:
            return None
        here = self._reached[epoch]
        rows = np.array(list(here.values()), dtype=np.float64)
        changes = np.array([name in self._learnt for name in self._signs])
        if not changes.any() or goes_on(rows[:, changes], rows[:, ~changes], list(here).index(number)):
            return None
        return f"others of its cost were ahead after epoch {epoch} of {self._epochs}"

    def _note(self, number: int, curve: Sequence[Mapping[str, Any]], values: Mapping[str, float]) -> None:
        for entry in curve:
            epoch = entry.get("epoch")
            if epoch in self._reached:
                self._learnt |= {name for name in self._ranked if name in entry}
                known = {**values, **{n: v for n, v in entry.items() if n in self._learnt}}
                self._reached[epoch][number] = [
                    math.nan if (value := known.get(name)) is None else sign * value
                    for name, sign in self._signs.items()
                ]
