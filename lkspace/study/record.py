"""What a study consists of: the objectives, the plan it was started with, its trials. Plain data, JSON both ways."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from lkspace.quantity import Bound
from lkspace.space.architecture import Architecture

FORMAT = 1  # of what is written into the storage; a reader refuses a higher one

Outcome = Literal["complete", "diverged", "failed", "infeasible", "stopped", "running"]
Origin = Literal["reference point", "sampler"]


@dataclass(frozen=True)
class Objective:
    """A score to optimise. `unit` as the score gives it; `direction` says which way is better."""

    name: str
    unit: str
    direction: Literal["minimize", "maximize"]

    @property
    def ideal(self) -> float:
        """The value that cannot be beaten: 0 for a cost, 1 for a fraction such as accuracy."""
        return 0.0 if self.direction == "minimize" else 1.0

    @property
    def sign(self) -> float:
        """Factor that turns the objective into one to minimise."""
        return 1.0 if self.direction == "minimize" else -1.0


@dataclass(frozen=True)
class Plan:
    """What a study was started with; all that the same candidates and the same front follow from.

    name: of the run. space: `SearchSpace.to_dict()` as searched. setting: `Setting` as a dict of JSON types.
    reference_point: one value per objective, the fixed corner that hypervolume is measured from.
    early_stopping: which rule ended trainings early, "none" if no rule did.
    budget: number of trials; it may grow when a run is continued. command, environment: for the reader.
    """

    name: str
    space: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    reference_point: Mapping[str, float]
    constraints: tuple[Bound, ...] = ()
    setting: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = "random"
    early_stopping: str = "none"
    seed: int = 0
    budget: int = 0
    command: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ValueError("a plan needs at least one objective")
        if set(self.reference_point) != {o.name for o in self.objectives}:
            raise ValueError(f"reference point {dict(self.reference_point)} does not name the objectives")
        for o in self.objectives:
            span = o.sign * (self.reference_point[o.name] - o.ideal)
            if not (math.isfinite(span) and span > 0):
                raise ValueError(f"reference point {o.name}={self.reference_point[o.name]} is not worse than {o.ideal}")

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; fields that a later version added are ignored."""
        known = {f.name for f in dataclasses.fields(cls)}
        plain = {name: value for name, value in fields.items() if name in known}
        plain["objectives"] = tuple(Objective(**o) for o in fields["objectives"])
        plain["constraints"] = tuple(Bound(**b) for b in fields["constraints"])
        return cls(**plain)


@dataclass(frozen=True)
class Trial:
    """One candidate's evaluation.

    values: every score that was measured, by name, in the score's own unit. measurements: per score "value" and what
    it is made of. curve: one dict per epoch of the proxy training. seconds: spent, by what on. reason: why, if the
    outcome is not "complete". remeasured: per score the later measurement, as in `measurements`.
    started, finished: local time. feasible: no constraint is broken; one on a score that is missing is, except while
    the outcome is not known yet.
    """

    number: int
    architecture: Architecture
    outcome: Outcome
    origin: Origin = "sampler"
    reason: str = ""
    measurements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    curve: tuple[Mapping[str, Any], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    started: datetime | None = None
    finished: datetime | None = None
    remeasured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    feasible: bool = True

    @property
    def id(self) -> str:
        """The architecture's."""
        return self.architecture.id

    @property
    def values(self) -> dict[str, float]:
        """Score name to value, as first measured; a score whose value was not finite is missing."""
        return {name: float(m["value"]) for name, m in self.measurements.items() if m["value"] is not None}


def feasible(values: Mapping[str, float], constraints: tuple[Bound, ...]) -> bool:
    """Whether every bound holds; one on a score that has no value does not."""
    return all(b.name in values and b.holds(values[b.name]) for b in constraints)


def violations(values: Mapping[str, float], constraints: tuple[Bound, ...]) -> list[float]:
    """By how much each bound is broken, in the score's unit, 0 or less if it holds, 0 if unknown; as Optuna has it."""
    signs = {"<=": 1.0, ">=": -1.0}
    return [signs[b.relation] * (values[b.name] - b.value) if b.name in values else 0.0 for b in constraints]
