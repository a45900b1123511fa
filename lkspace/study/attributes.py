"""How a study and its trials are written into Optuna's attributes, and read back; JSON types only.

Optuna keeps the objectives' values and a state; the rest of a trial - architecture, reason, what the numbers are made
of - is in attributes, which its dashboard shows as they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from lkspace.scores.score import Measurement
from lkspace.space.architecture import Architecture
from lkspace.study.record import Origin, Outcome, Plan, Trial, feasible

# Of the study. FORMAT is written last: a study that has it is whole.
PLAN, FORMAT, FOLDER, REJECTED = "lkspace:plan", "lkspace:format", "lkspace:folder", "lkspace:rejected"
BEGUN = "lkspace:begun"  # says, until the study is whole, which folder it is being made for
LATENCY_TABLE = "lkspace:latency_table"  # how well a table of parts told latencies, in words
REMEASURED = "lkspace:remeasured:"  # and the trial's number: a finished trial of Optuna's cannot be changed
LONGER = "lkspace:longer:"  # and the trial's number: its longer trainings
# Of a trial.
ARCHITECTURE, RESULT = "architecture", "result"
CONSTRAINTS = "constraints"  # Optuna's own name: its samplers and its dashboard read feasibility from it

STATES: dict[Outcome, TrialState] = {
    "complete": TrialState.COMPLETE,
    "infeasible": TrialState.PRUNED,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


def at_start(architecture: Architecture, origin: Origin) -> dict[str, Any]:
    """A trial's attributes from the moment it exists."""
    return {ARCHITECTURE: architecture.to_dict(), "id": architecture.id, "origin": origin}


def result(
    outcome: Outcome,
    reason: str,
    measurements: Mapping[str, Measurement],
    curve: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> Any:
    """The attribute that holds how a trial ended."""
    return jsonable(
        {
            "outcome": outcome,
            "reason": reason,
            "measurements": measured(measurements),
            "curve": curve,
            "seconds": seconds,
        }
    )


def measured(measurements: Mapping[str, Measurement]) -> Any:
    """Per score "value" beside what it is made of."""
    return jsonable({name: {**m.details, "value": m.value} for name, m in measurements.items()})


def parse(frozen: FrozenTrial, plan: Plan) -> Trial:
    """Optuna's trial, if it was started by lkspace, as ours.

    A result without a finished state is a driver that was killed between the two: the trial still runs.
    """
    attributes = frozen.user_attrs
    running = not frozen.state.is_finished()
    ended = {} if running else attributes.get(RESULT, {})
    outcome: Outcome = "running" if running else ended.get("outcome", "failed")
    trial = Trial(
        number=frozen.number,
        architecture=Architecture.from_dict(attributes[ARCHITECTURE]),
        outcome=outcome,
        origin=attributes.get("origin", "sampler"),
        reason=ended.get("reason", "" if running else "ended by another program than lkspace"),
        measurements=ended.get("measurements", {}),
        curve=tuple(ended.get("curve", ())),
        seconds=ended.get("seconds", {}),
        started=frozen.datetime_start,
        finished=None if running else frozen.datetime_complete,
    )
    broken = outcome == "infeasible" or (outcome == "complete" and not feasible(trial.values, plan.constraints))
    return replace(trial, feasible=not broken)


def jsonable(value: Any) -> Any:
    """JSON types throughout: numpy's numbers as Python's, numbers that are not finite as None, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
