"""Early stopping of a search: what all its trials had at each rung, and whether one of them goes on."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from lkspace.search import halving, outlook
from lkspace.search.evaluate import Report
from lkspace.space.architecture import Architecture
from lkspace.study import Objective, Trial

Floats = npt.NDArray[np.float64]
EarlyStopping = Literal["front", "halving", "none"]
KINDS: tuple[str, ...] = get_args(EarlyStopping)
Features = Callable[[Architecture], Floats]


def rungs(epochs: int) -> tuple[int, ...]:
    """Epochs after which trials are compared: an eighth of the whole training, from 1 on, a quarter and a half."""
    first = max(1, epochs // 8)
    return tuple(rung for rung in (first, 2 * first, 4 * first) if rung < epochs)


class Stopping:
    """Asked after each epoch of a trial. Trials of earlier calls count with the curves that the study has of them.

    rule: "front" stops a training that is not expected to end on the front, "halving" one that is behind others of its
    cost. What the epochs of a training report is learnt; the objectives settled before it are what a trial costs, and
    so are, in halving, its FLOPs, objective or not, as how fast a network learns goes with its size. features: what is
    known of an architecture beforehand. A trial that is begun again replaces what was known of it.
    """

    def __init__(
        self,
        rule: str,
        objectives: Sequence[Objective],
        epochs: int,
        features: Features,
        trials: Iterable[Trial] = (),
    ) -> None:
        self._rule = rule
        self._objectives = {o.name: o for o in objectives}
        self._epochs = epochs
        self._features = features
        self._rungs = rungs(epochs)[: 2 if rule == "halving" else None]
        self._known: dict[int, _Known] = {}
        self._learnt: list[str] = []
        for trial in trials:
            self._note(trial.number, trial.architecture, trial.curve, trial.values)

    def reason(self, number: int, architecture: Architecture, report: Report) -> str | None:
        """Why the trial is to be stopped after this report; None if it goes on."""
        values = {name: m.value for name, m in report.measurements.items()}
        self._note(number, architecture, report.curve, values)
        epoch = report.curve[-1].get("epoch") if report.curve else None
        if report.outcome is not None or epoch not in self._rungs or not self._learnt:
            return None
        here = {n: known for n, known in self._known.items() if epoch in known.at}
        row, rows = list(here).index(number), list(here.values())
        learnt = np.array([[known.at[epoch].get(name, math.nan) for name in self._learnt] for known in rows])
        costs = [name for name in self._objectives if name not in self._learnt]
        if self._rule == "halving":
            fixed = _table(rows, costs if "flops" in costs else [*costs, "flops"])
            return None if halving.goes_on(learnt, fixed, row) else f"others of its cost were ahead {self._at(epoch)}"
        ends = np.where([[known.ended] for known in rows], _table(rows, self._learnt), math.nan)
        for j, name in enumerate(self._learnt):
            learnt[:, j], ends[:, j] = outlook.distance_left(learnt[:, j], ends[:, j], self._ideal(name))
        features = np.array([known.features for known in rows])
        on = outlook.goes_on(learnt, ends, _table(rows, costs), features, row)
        return None if on else f"not expected to reach the front, {self._at(epoch)}"

    def _at(self, epoch: int) -> str:
        return f"after epoch {epoch} of {self._epochs}"

    def _minimised(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Of all values, NaN where there is none; scores that are no objective, such as FLOPs, are costs."""
        signs = {name: o.sign for name, o in self._objectives.items()}
        return {n: math.nan if v is None else signs.get(n, 1.0) * v for n, v in values.items()}

    def _ideal(self, name: str) -> float:
        return self._objectives[name].sign * self._objectives[name].ideal

    def _note(
        self,
        number: int,
        architecture: Architecture,
        curve: Sequence[Mapping[str, Any]],
        values: Mapping[str, float],
    ) -> None:
        names = {name for entry in curve for name in entry if name in self._objectives}
        self._learnt += sorted(names - set(self._learnt))
        at = {entry["epoch"]: entry for entry in curve if entry.get("epoch") in self._rungs}
        if not at:
            return
        known = self._known.get(number)
        self._known[number] = _Known(
            self._features(architecture) if known is None else known.features,
            {epoch: self._minimised({n: entry.get(n) for n in names}) for epoch, entry in at.items()},
            self._minimised(values),
            curve[-1].get("epoch") == self._epochs,
        )


@dataclass(frozen=True)
class _Known:
    """What is known of a trial, to be minimised. at: per rung the learnt objectives. ended: trained whole."""

    features: Floats
    at: Mapping[int, Mapping[str, float]]
    values: Mapping[str, float]
    ended: bool


def _table(rows: Sequence[_Known], names: Sequence[str]) -> Floats:
    """(n, len(names)), NaN where a trial has no value."""
    return np.array([[known.values.get(name, math.nan) for name in names] for known in rows]).reshape(len(rows), -1)
