"""What an Optuna sampler suggests next, on a mirror of the study in memory.

A suggestion that turns out a duplicate or breaks a constraint is no trial, so the sampler must be asked before there is
one; and a suggestion costs one commit a variable in a database, which the mirror saves.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lkspace.study import partial, storage
from lkspace.study.record import Objective


@dataclass(frozen=True)
class Asked:
    """A candidate before it is a trial: the value of every variable, as the search space's choices have them."""

    params: Mapping[str, Any]
    distributions: Mapping[str, CategoricalDistribution]
    mirror: int | None  # its number in the mirror; None if no sampler suggested it

    @property
    def internal(self) -> dict[str, Any]:
        """The values as Optuna keeps them."""
        return {name: _plain(value) for name, value in self.params.items()}


def distribution(choices: Sequence[Any]) -> CategoricalDistribution:
    """Optuna's form of a variable; lists, which it does not keep, become JSON text."""
    return CategoricalDistribution([_plain(choice) for choice in choices])


def _plain(value: Any) -> Any:
    return json.dumps(list(value)) if isinstance(value, list | tuple) else value


class Proposals:
    """The mirror: all trials that have a place in the search space, and the suggestions not yet decided on."""

    def __init__(self, objectives: Sequence[Objective], trials: Iterable[FrozenTrial]) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        self._mirrors: dict[int, int] = {}  # number in the study -> number in the mirror
        with storage.quiet():
            self._study = optuna.create_study(
                storage=self._storage, directions=[o.direction for o in objectives], sampler=RandomSampler()
            )
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        for trial in trials:
            self._copy(trial)

    def ask(self, sampler: BaseSampler, choices: Mapping[str, Sequence[Any]]) -> Asked:
        """The sampler's next suggestion; the mirror has it as a running trial until it is decided on."""
        distributions = {name: distribution(values) for name, values in choices.items()}
        self._study.sampler = sampler
        trial = self._study.ask(dict(distributions))
        indices = {name: d.choices.index(trial.params[name]) for name, d in distributions.items()}
        return Asked({n: choices[n][i] for n, i in indices.items()}, distributions, trial.number)

    def reject(self, asked: Asked) -> None:
        """Take a suggestion back; samplers learn nothing from it."""
        if asked.mirror is not None:
            self._storage.set_trial_state_values(self._trial_id(asked.mirror), TrialState.FAIL)

    def attributes(self, asked: Asked) -> dict[str, Any]:
        """What the sampler noted on its suggestion, such as the generation it belongs to."""
        if asked.mirror is None:
            return {}
        return dict(self._storage.get_trial_system_attrs(self._trial_id(asked.mirror)))

    def start(self, asked: Asked, number: int) -> None:
        """The suggestion has become trial `number` of the study."""
        if asked.mirror is not None:
            self._mirrors[number] = asked.mirror
        elif asked.params:
            trial = optuna.trial.create_trial(
                state=TrialState.RUNNING, params=asked.internal, distributions=dict(asked.distributions)
            )
            self._add(number, trial)

    def finish(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        bounds: Sequence[float],
        partly: Mapping[str, Any] | None = None,
    ) -> None:
        """What became of trial `number`; values: None unless it is complete. bounds: as `record.violations`.

        partly: as `partial.as_json`.
        """
        if number not in self._mirrors:
            return
        trial_id = self._trial_id(self._mirrors[number])
        if bounds:
            self._storage.set_trial_system_attr(trial_id, "constraints", list(bounds))
        if partly:
            self._storage.set_trial_user_attr(trial_id, partial.ATTRIBUTE, dict(partly))
        self._storage.set_trial_state_values(trial_id, state, values)

    def _copy(self, trial: FrozenTrial) -> None:
        # A trial without variables lies outside the space: one of them would leave Optuna's samplers nothing that
        # all trials have in common, and they would fall back to drawing at random for good.
        if trial.params and trial.state != TrialState.WAITING:
            self._add(trial.number, trial)

    def _add(self, number: int, trial: FrozenTrial) -> None:
        trial_id = self._storage.create_new_trial(self._id, trial)
        self._mirrors[number] = self._storage.get_trial(trial_id).number

    def _trial_id(self, mirror: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, mirror)
