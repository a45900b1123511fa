"""What a trial knows beside its values: partial trainings, and values of some objectives alone.

A trial says so in an attribute: fidelity, in (0, 1], to the objectives' values at it in the study's order, None for
those not known. A trial that was stopped early has values at fidelities below 1; one that broke a constraint before
its training has at 1 what was measured until then.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, Trial

ATTRIBUTE = "lkspace:partial"
Partial = Mapping[float, Sequence[float | None]]


def note(trial: Trial, values: Partial) -> None:
    """Tell samplers, in plain Optuna, what a trial had reached at which fidelity."""
    trial.set_user_attr(ATTRIBUTE, as_json(values))


def as_json(values: Partial) -> dict[str, list[float | None]]:
    """What the attribute holds."""
    return {repr(float(fidelity)): list(row) for fidelity, row in values.items()}


def of_result(
    objectives: Sequence[str], values: Mapping[str, float], curve: Sequence[Mapping[str, Any]], whole: bool
) -> Partial:
    """What is to be noted on a trial that has these values and this curve; whole: its values are final in Optuna too.

    curve: an entry an epoch, with "epoch", "epochs" and the score that was trained for.
    """
    found: dict[float, list[float | None]] = {}
    for entry in curve:
        epoch, epochs = entry.get("epoch"), entry.get("epochs")
        if isinstance(epoch, int) and isinstance(epochs, int) and 0 < epoch < epochs:
            found[epoch / epochs] = [entry.get(name) for name in objectives]
    trained = {name for entry in curve for name in objectives if name in entry}
    unfinished = trained if found and len(found) == len(curve) else set()
    final = [None if name in unfinished else values.get(name) for name in objectives]
    if not whole and any(v is not None for v in final):
        found[1.0] = final
    return found


def read(trial: FrozenTrial, objectives: int) -> dict[float, list[float]]:
    """A trial's attribute, NaN where nothing is known; empty if it has none or one of another form."""
    found: dict[float, list[float]] = {}
    stored = trial.user_attrs.get(ATTRIBUTE)
    for key, row in stored.items() if isinstance(stored, Mapping) else ():
        try:
            values = [math.nan if v is None else float(v) for v in row]
            if len(values) == objectives and 0 < float(key) <= 1:
                found[float(key)] = values
        except (TypeError, ValueError):
            continue
    return found
