"""The record of one search: trials, front and hypervolume, kept in an Optuna study so that Optuna's tools read it too.

Reading needs neither Ray nor torch. Only the driver of a search writes: it opens the study with `writable=True`, asks,
starts and finishes. Whatever moment it is killed at, every trial it started is there and `pending` names the open ones.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lkspace.errors import UserError
from lkspace.scores.score import Measurement
from lkspace.space.architecture import Architecture
from lkspace.study import attributes, opening, pareto, partial
from lkspace.study.proposals import Asked, Proposals, distribution
from lkspace.study.record import Objective, Origin, Outcome, Plan, Trial, violations
from lkspace.study.storage import now, quiet, reading, split_url, writing
from lkspace.study.trust import Longer, Trust, trust

if TYPE_CHECKING:
    import pandas as pd


class Study:
    """One search, read from its storage whenever asked, so that it can be looked at while it runs.

    Get one by `Study.open` or `Study.create`. folder: the run's folder, None if the study came from a bare URL.
    Whatever reads raises UserError if the storage is damaged, RunError if it does not answer.
    """

    def __init__(self, database: optuna.storages.RDBStorage, name: str, folder: Path | None, writable: bool) -> None:
        self._database = database
        with quiet():
            self._optuna = optuna.load_study(study_name=name, storage=database, sampler=RandomSampler())
        self._study_id = database.get_study_id_from_name(name)
        self._read: dict[int, Trial] = {}  # finished trials never change, so each is parsed once
        self._rejected: dict[str, int] | None = None
        self._writable = writable
        self.name = name
        self.folder = folder

    # Opening and creating.

    @classmethod
    def open(cls, place: str | Path, *, writable: bool = False) -> Self:
        """The study of a run: its folder, its study.db, or a storage URL, with `#NAME` where it holds several.

        writable: for the driver of a search. Raises UserError, naming the place, if there is no study of ours.
        """
        database, name = opening.find_study(place)
        with reading(place):
            study = cls(database, name, None, writable)
            recorded = study._optuna.user_attrs.get(attributes.FOLDER)
        study.folder = opening.run_folder(place, recorded)
        return study

    @classmethod
    def create(cls, folder: str | Path, plan: Plan, url: str | None = None) -> Self:
        """A new, empty study named `plan.name`, in `folder`/study.db or in the database that `url` names.

        Killed at any moment it leaves a whole study or one that the next call replaces. Raises UserError if there is a
        whole one already, RunError if the database does not answer.
        """
        path = Path(os.path.expanduser(folder)).resolve()
        path.mkdir(parents=True, exist_ok=True)
        if url is None:
            opening.make_file(path, plan)
        else:
            opening.make_in_database(path, plan, url)
        return (
            cls.open(path, writable=True)
            if url is None
            else cls.open(f"{split_url(url)[0]}#{plan.name}", writable=True)
        )

    def move(self, folder: Path) -> None:
        """Note where the run's folder lies now."""
        self.folder = folder
        if self._stored.get(attributes.FOLDER) != str(folder):
            self._note(attributes.FOLDER, str(folder))

    # Reading.

    @property
    def plan(self) -> Plan:
        """What the study was started with, and the budget it was last continued with."""
        with reading(self.folder or self.name):
            return Plan.from_dict(self._stored[attributes.PLAN])

    @cached_property
    def _plan(self) -> Plan:
        return self.plan  # but for the budget it never changes

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """In the order in which the values go to Optuna."""
        return self._plan.objectives

    @property
    def reference_point(self) -> dict[str, float]:
        """The fixed corner that hypervolume is measured from, one value per objective in its own unit."""
        return {o.name: float(self._plan.reference_point[o.name]) for o in self.objectives}

    @property
    def trials(self) -> list[Trial]:
        """All trials by number, as they are in the storage now."""
        remeasured = self._remeasured()
        return [
            replace(t, remeasured=remeasured[t.number]) if t.number in remeasured else t
            for t in (self._trial(f) for f in self._frozen())
        ]

    def trial(self, number: int) -> Trial:
        """One trial; UserError with the range of numbers if there is none."""
        trials = {t.number: t for t in self.trials}
        if number not in trials:
            has = f"it has trials 0 to {max(trials)}" if trials else "it has no trials yet"
            raise UserError(f"no trial {number} in {self.name!r}: {has}")
        return trials[number]

    def front(self) -> list[Trial]:
        """The complete, feasible trials that no other one dominates, best in the first objective first."""
        trials = [t for t in self.trials if self._counts(t)]
        mask = pareto.non_dominated(self._costs(trials))
        first = self.objectives[0]
        return sorted(
            (t for t, on in zip(trials, mask, strict=True) if on), key=lambda t: first.sign * t.values[first.name]
        )

    def hypervolume(self) -> float:
        """Share of the box between the ideal corner and the reference point that the front dominates.

        The ideal corner is 0 for what is minimised and 1 for what is maximised, so 0 is nothing and 1 cannot be had.
        """
        trials = [t for t in self.trials if self._counts(t)]
        return pareto.hypervolume(self._scaled(trials), np.zeros(len(self.objectives)))

    def hypervolume_history(self) -> list[tuple[int, float]]:
        """(trial number, hypervolume so far) for every finished trial, in the order in which they finished."""
        done = sorted((t for t in self.trials if t.outcome != "running"), key=_finished)
        rows = self._scaled(done)
        rows[[not self._counts(t) for t in done]] = np.nan
        volumes = pareto.hypervolume_history(rows, np.zeros(len(self.objectives)))
        return [(t.number, float(v)) for t, v in zip(done, volumes, strict=True)]

    def counts(self) -> dict[str, int]:
        """Trials per outcome, and "rejected: REASON" for candidates that never became a trial."""
        outcomes = Counter(trial.outcome for trial in self.trials)
        counts = {outcome: outcomes[outcome] for outcome in (*attributes.STATES, "running") if outcomes[outcome]}
        return counts | {f"rejected: {reason}": n for reason, n in sorted(self.rejected().items())}

    def rejected(self) -> dict[str, int]:
        """How many candidates were turned down before they became a trial, by reason."""
        return dict(self._rejected if self._rejected is not None else self._stored.get(attributes.REJECTED, {}))

    def longer(self) -> dict[int, list[Longer]]:
        """The longer trainings that verified candidates have had, by trial number."""
        return {n: [Longer(**run) for run in runs] for n, runs in self._by_number(attributes.LONGER).items()}

    def trust(self) -> Trust | None:
        """What longer trainings say of the proxy; None if there were none."""
        longer = self.longer()
        if not longer:  # most runs: their tables need not be read again for that
            return None
        front, epochs = {t.number for t in self.front()}, int(self._plan.setting.get("epochs", 0))
        return trust(self.objectives, self.trials, front, longer, epochs)

    @property
    def latency_table(self) -> str:
        """How well the latency table's sums agreed with what was measured, in words; "" if none was used."""
        return str(self._stored.get(attributes.LATENCY_TABLE, ""))

    def table(self) -> "pd.DataFrame":
        """One row per trial: number, id, outcome, front, every score, the architecture's fields, seconds, reason."""
        import pandas as pd

        front = {t.number for t in self.front()}  # before the trials: of a run that goes on, it is complete in there
        trials = self.trials
        scores = list(
            dict.fromkeys([o.name for o in self.objectives] + [name for t in trials for name in t.measurements])
        )
        columns = ["number", "id", "outcome", "front", "feasible", *scores, *_FIELDS, "origin", "seconds", "reason"]
        rows = [_row(t, scores, t.number in front) for t in trials]
        return pd.DataFrame(rows, columns=columns).set_index("number")

    # Writing; for the driver of a search alone.

    def ask(self, sampler: BaseSampler, choices: Mapping[str, Sequence[Any]]) -> Asked:
        """What an Optuna sampler suggests next, given all trials so far; nothing is written yet.

        choices: per variable its values: JSON scalars, or lists for a choice of whole networks. Call `start` with the
        answer if it becomes a trial, `reject` if not; until then the sampler counts it as running.
        """
        return self._proposals.ask(sampler, choices)

    def given(self, params: Mapping[str, Any] | None, choices: Mapping[str, Sequence[Any]]) -> Asked:
        """The same for a candidate from elsewhere. params: None for one outside the choices, which no sampler sees."""
        return Asked(dict(params or {}), {n: distribution(choices[n]) for n in params or {}}, None)

    def reject(self, asked: Asked, reason: str) -> None:
        """Count a candidate that does not become a trial. Kept in the storage from the next `start` on."""
        self._proposals.reject(asked)
        self._rejected = self.rejected()
        self._rejected[reason] = self._rejected.get(reason, 0) + 1

    def start(self, asked: Asked, architecture: Architecture, origin: Origin = "sampler") -> int:
        """Make the candidate a running trial, in one transaction; returns its number."""
        self._check_writable()
        if self._rejected is not None:
            self._optuna.set_user_attr(attributes.REJECTED, self._rejected)
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=asked.internal,
            distributions=dict(asked.distributions),
            user_attrs=attributes.at_start(architecture, origin),
            system_attrs=self._proposals.attributes(asked),
        )
        template.datetime_start = now()
        number = self._database.get_trial(self._database.create_new_trial(self._study_id, template)).number
        self._proposals.start(asked, number)
        return number

    def finish(
        self,
        number: int,
        outcome: Outcome,
        reason: str = "",
        measurements: Mapping[str, Measurement] | None = None,
        curve: Sequence[Mapping[str, Any]] = (),
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Record how a running trial ended. A reader sees it running until all of this is stored.

        Raises ValueError if a complete trial lacks a finite value for an objective, or the trial is not running.
        """
        self._check_writable()
        proposals = self._proposals  # made from the storage when first used: before it knows of this end
        given = measurements or {}
        values = {name: float(m.value) for name, m in given.items() if math.isfinite(m.value)}
        missing = [o.name for o in self.objectives if not math.isfinite(values.get(o.name, math.nan))]
        if outcome == "complete" and missing:
            raise ValueError(f"trial {number} is called complete but has no finite {missing[0]}")
        result = attributes.result(outcome, reason, given, curve, seconds or {})
        bounds = violations(values, self._plan.constraints)
        told = [values[o.name] for o in self.objectives] if outcome == "complete" else None
        names = [o.name for o in self.objectives]
        partly = attributes.jsonable(
            partial.as_json(partial.of_result(names, values, curve, whole=outcome == "complete"))
        )
        trial_id = self._database.get_trial_id_from_study_id_trial_number(self._study_id, number)
        if self._database.get_trial(trial_id).state != TrialState.RUNNING:
            raise ValueError(f"trial {number} is finished already")
        self._database.set_trial_user_attr(trial_id, attributes.RESULT, result)
        if bounds:
            self._database.set_trial_system_attr(trial_id, attributes.CONSTRAINTS, bounds)
        if partly:
            self._database.set_trial_user_attr(trial_id, partial.ATTRIBUTE, partly)
        self._database.set_trial_state_values(trial_id, attributes.STATES[outcome], told)
        proposals.finish(number, attributes.STATES[outcome], told, bounds, partly)

    def pending(self) -> list[Trial]:
        """Trials that a killed driver left running; they are evaluated again under the same numbers."""
        return [t for t in self.trials if t.outcome == "running"]

    def remeasured(self, number: int, measurements: Mapping[str, Measurement]) -> None:
        """Keep later measurements of a finished trial beside its own."""
        self._check_writable()
        kept = self._remeasured().get(number, {})
        self._note(f"{attributes.REMEASURED}{number}", {**kept, **attributes.measured(measurements)})

    def trained_longer(self, number: int, run: Longer) -> None:
        """Keep a longer training of a finished trial, in place of one with the same epochs and seed."""
        self._check_writable()
        kept = [r for r in self.longer().get(number, []) if (r.epochs, r.seed) != (run.epochs, run.seed)]
        self._note(f"{attributes.LONGER}{number}", [asdict(r) for r in [*kept, run]])

    def set_budget(self, budget: int) -> None:
        """The number of trials that the run is to have, when it is continued with another."""
        self._check_writable()
        self._note(attributes.PLAN, replace(self.plan, budget=budget).to_dict())

    def set_latency_table(self, text: str) -> None:
        """How well the latency table's sums agreed with what was measured, in words."""
        self._check_writable()
        self._note(attributes.LATENCY_TABLE, text)

    # Inside.

    def _note(self, key: str, value: Any) -> None:
        """RunError if it cannot be kept."""
        with writing(self.folder or self.name):
            self._optuna.set_user_attr(key, value)

    @cached_property
    def _proposals(self) -> Proposals:
        return Proposals(self._plan.objectives, self._frozen())

    def _check_writable(self) -> None:
        if not self._writable:
            raise ValueError("the study was opened for reading")

    @property
    def _stored(self) -> dict[str, Any]:
        """The study's attributes, as they are in the storage now."""
        with reading(self.folder or self.name):
            return self._optuna.user_attrs

    def _frozen(self) -> list[FrozenTrial]:
        """Optuna's trials that are ours; one that somebody queued by another tool has no architecture."""
        with reading(self.folder or self.name):
            trials = self._optuna.get_trials(deepcopy=False)
        return [t for t in trials if attributes.ARCHITECTURE in t.user_attrs]

    def _trial(self, frozen: FrozenTrial) -> Trial:
        if frozen.number not in self._read:
            trial = attributes.parse(frozen, self._plan)
            if trial.outcome == "running":
                return trial
            self._read[frozen.number] = trial
        return self._read[frozen.number]

    def _remeasured(self) -> dict[int, dict[str, Any]]:
        return self._by_number(attributes.REMEASURED)

    def _by_number(self, prefix: str) -> dict[int, Any]:
        """The study's attributes that belong to trials, by trial number."""
        return {int(k.removeprefix(prefix)): v for k, v in self._stored.items() if k.startswith(prefix)}

    def _counts(self, trial: Trial) -> bool:
        return trial.outcome == "complete" and trial.feasible

    def _costs(self, trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
        """(n, m), every objective to be minimised, NaN where a value is missing."""
        rows = [[o.sign * t.values.get(o.name, math.nan) for o in self.objectives] for t in trials]
        return np.asarray(rows, dtype=np.float64).reshape(len(trials), len(self.objectives))

    def _scaled(self, trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
        """`_costs` with the ideal corner at -1 and the reference point at 0."""
        corner = np.array([o.sign * self.reference_point[o.name] for o in self.objectives])
        ideal = np.array([o.sign * o.ideal for o in self.objectives])
        return cast("npt.NDArray[np.float64]", (self._costs(trials) - corner) / (corner - ideal))


_FIELDS = ("blocks", "channels", "kernels", "reparam", "shortcut", "dw_ratio", "ffn_ratio", "stem_stride")


def _row(trial: Trial, scores: Sequence[str], on_front: bool) -> list[Any]:
    fields = trial.architecture.to_dict()
    return [
        *(trial.number, trial.id, trial.outcome, on_front, trial.feasible),
        *(trial.values.get(name) for name in scores),
        *(fields[name] for name in _FIELDS),
        *(trial.origin, sum(trial.seconds.values()), trial.reason),
    ]


def _finished(trial: Trial) -> tuple[float, int]:
    return (trial.finished.timestamp() if trial.finished else math.inf, trial.number)
