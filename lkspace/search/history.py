"""What a study's trials say to a sampler: points, values to be minimised, and which of them are on their way."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lkspace.search.parameters import Parameters, Params
from lkspace.study import partial

Floats = npt.NDArray[np.float64]


@dataclass
class History:
    """Trials that have a point in the search space, by what is known of them.

    tried: keys of all of them, failed ones included. known: points with a final value of at least one objective, and
    values (n, m), NaN for the others. complete: (n,) which of those are whole trials. pending: points under way.
    begun: per fidelity below 1 the points that were stopped there, and their values (k, m).
    pairs: per such fidelity the values there and at the end, (n, m) each, of trials that have both.
    """

    tried: set[Hashable]
    known: list[Params]
    values: Floats
    complete: npt.NDArray[np.bool_]
    pending: list[Params]
    begun: dict[float, tuple[list[Params], Floats]] = field(default_factory=dict)
    pairs: dict[float, tuple[Floats, Floats]] = field(default_factory=dict)


def shared_space(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The parameters that all complete trials with any have in common, with the same distribution.

    Others may have ended, or be still, between two of their parameters.
    """
    common: dict[str, BaseDistribution] | None = None
    for trial in trials:
        if trial.state != TrialState.COMPLETE:
            continue
        if common is None and trial.distributions:
            common = dict(trial.distributions)
        elif common and trial.distributions:
            own = trial.distributions
            common = {n: d for n, d in common.items() if n in own and (own[n] is d or own[n] == d)}
    return common or {}


def read(
    trials: Sequence[FrozenTrial],
    parameters: Parameters,
    space: Mapping[str, Any],
    directions: Sequence[StudyDirection],
) -> History:
    """The history of these trials; a value that is not finite counts as not known."""
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
    tried: set[Hashable] = set()
    known: list[Params] = []
    values: list[list[float]] = []
    complete: list[bool] = []
    pending: list[Params] = []
    begun: dict[float, list[tuple[Params, list[float]]]] = {}
    pairs: dict[float, list[tuple[list[float], list[float]]]] = {}
    for trial in trials:
        if not all(name in trial.params for name in space):
            continue
        params = {name: trial.params[name] for name in space}
        tried.add(parameters.key(params))
        if not trial.state.is_finished():
            pending.append(params)
            continue
        if trial.state == TrialState.FAIL:
            continue
        reached = partial.read(trial, len(signs))
        whole = trial.state == TrialState.COMPLETE and trial.values is not None
        final = [float(v) for v in trial.values] if whole else reached.get(1.0, [math.nan] * len(signs))
        if np.isfinite(final).any():
            known.append(params)
            values.append(final)
            complete.append(whole and bool(np.isfinite(final).all()))
        below = {fidelity: row for fidelity, row in reached.items() if fidelity < 1}
        if whole or np.isfinite(final).all():  # an infeasible one may have been trained to its end
            for fidelity, row in below.items():
                pairs.setdefault(fidelity, []).append((row, final))
        elif below:
            begun.setdefault(max(below), []).append((params, below[max(below)]))
    return History(
        tried,
        known,
        _rows(values, signs),
        np.array(complete, dtype=np.bool_),
        pending,
        {f: ([p for p, _ in rows], _rows([v for _, v in rows], signs)) for f, rows in begun.items()},
        {f: (_rows([a for a, _ in rows], signs), _rows([b for _, b in rows], signs)) for f, rows in pairs.items()},
    )


def _rows(values: Sequence[Sequence[float]], signs: Floats) -> Floats:
    rows = signs * np.asarray(values, dtype=np.float64).reshape(-1, len(signs))
    return np.where(np.isfinite(rows), rows, np.nan)
