"""A recorded space as a search problem: every architecture's learning curve and costs, read from a file.

The file is JSON as `record.py` writes it: "space" (a search space's fields), "epochs", and "architectures", a list with
"architecture" (its JSON fields), "params", "flops", and "curves", per seed the accuracy after each epoch.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from problems import Problem

from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace
from lkspace.study.pareto import non_dominated
from lkspace.study.proposals import distribution


@dataclass(frozen=True)
class Entry:
    """One architecture: costs, and per seed the accuracy after each epoch, (seeds, epochs)."""

    params: float
    flops: float
    curves: npt.NDArray[np.float64]


class Record:
    """All architectures of a space by id."""

    def __init__(self, space: SearchSpace, epochs: int, entries: Mapping[str, Entry]) -> None:
        self.space, self.epochs, self.entries = space, epochs, dict(entries)
        self._names = [v.name for v in space.variables]
        self._id = functools.lru_cache(maxsize=100_000)(self._decoded)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Of a file; ValueError that says how many architectures are missing if it is not whole."""
        stored = json.loads(path.read_text())
        space = SearchSpace.from_dict(stored["space"])
        entries = {}
        for item in stored["architectures"]:
            curves = np.array([curve for curve in item["curves"].values() if len(curve) == stored["epochs"]])
            if len(curves):
                identity = Architecture.from_dict(item["architecture"]).id
                entries[identity] = Entry(item["params"], item["flops"], curves)
        missing = sum(a.id not in entries for a in space.enumerate())
        if missing:
            raise ValueError(f"{path}: {missing} architectures have no whole curve yet; go on with record.py")
        return cls(space, stored["epochs"], entries)

    def entry(self, params: Mapping[str, Any]) -> Entry | None:
        """Of a point; None if it breaks a constraint of the space."""
        return self.entries.get(self._id(tuple(params[name] for name in self._names)))

    def _decoded(self, choices: tuple[Any, ...]) -> str:
        return self.space.decode(dict(zip(self._names, choices, strict=True))).id


def recorded(path: Path, cost: str = "flops", budgets: Sequence[int] = (25, 50, 100, 150, 200)) -> Problem:
    """Accuracy against a cost in a recorded space; true is the mean over seeds, noise their pooled deviation."""
    record = Record.read(path)
    finals = [entry.curves[:, -1] for entry in record.entries.values()]
    several = [f for f in finals if len(f) > 1]
    noise = float(np.sqrt(np.mean([f.var(ddof=1) for f in several]))) if several else 0.0
    worst = max(getattr(entry, cost) for entry in record.entries.values())

    def truth(params: Mapping[str, Any]) -> list[float]:
        entry = record.entry(params)
        return [0.0, 2 * worst] if entry is None else [float(entry.curves[:, -1].mean()), getattr(entry, cost)]

    def front() -> npt.NDArray[np.float64]:
        rows = np.array([[e.curves[:, -1].mean(), getattr(e, cost)] for e in record.entries.values()])
        return rows[non_dominated(rows * [-1, 1])]

    def on_front(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        members = {tuple(row) for row in front().tolist()}
        return np.array([tuple(row) in members for row in values.tolist()])

    def features(params: Mapping[str, Any]) -> list[float]:
        entry = record.entry(params)
        return [0.0, 0.0] if entry is None else [float(np.log(entry.flops)), float(np.log(entry.params))]

    def curve(params: Mapping[str, Any], rng: np.random.Generator) -> list[float]:
        entry = record.entry(params)
        return [0.0] * record.epochs if entry is None else entry.curves[rng.integers(len(entry.curves))].tolist()

    space = {v.name: distribution(v.choices) for v in record.space.variables}
    return Problem(
        name=f"recorded {record.space.name}",
        space=space,
        directions=["maximize", "minimize"],
        truth=truth,
        noise=[noise, 0.0],
        cheap=[1],
        make_front=front,
        features=features,
        budgets=budgets,
        curve=curve,
        on_front=on_front,
    )
