"""What a call of `run` asks for, checked before anything is written, and how it differs from a run that is there."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lkspace import registry
from lkspace.data import absolute, describe
from lkspace.errors import UserError
from lkspace.quantity import Bound
from lkspace.scores.score import Setting
from lkspace.search.evaluate import order
from lkspace.search.samplers import ESTIMATED, USE_ESTIMATES
from lkspace.search.stopping import KINDS
from lkspace.space.search_space import SearchSpace
from lkspace.study.record import Objective, Plan

_FOUND_OUT = ("data_key", "standard")  # fields of a setting that the driver fills in


@dataclass(frozen=True)
class Request:
    """A checked call. scores: what each trial measures, in order. space: at the data's number of classes."""

    space: SearchSpace
    objectives: tuple[Objective, ...]
    constraints: tuple[Bound, ...]
    scores: tuple[str, ...]
    setting: Setting
    sampler: str
    seed: int
    budget: int
    command: str
    early_stopping: str = "none"

    @property
    def measured(self) -> tuple[str, ...]:
        """The scores that are neither computed nor trained: measured again when nothing else runs."""
        return tuple(n for n in self.scores if not registry.scores.get(n).cheap and n != "accuracy")

    def plan(self, name: str, corner: Mapping[str, float], environment: Mapping[str, Any]) -> Plan:
        """The plan of a study that begins with this request."""
        return Plan(
            name=name,
            space=self.space.to_dict(),
            objectives=self.objectives,
            reference_point=dict(corner),
            constraints=self.constraints,
            setting=_plain(self.setting),
            sampler=self.sampler,
            early_stopping=self.early_stopping,
            seed=self.seed,
            budget=self.budget,
            command=self.command,
            environment=dict(environment),
        )

    def check_continues(self, plan: Plan, folder: Path, data_key: str) -> None:
        """UserError that names the first thing in which the run in `folder` was started differently."""
        then: dict[str, Any] = {
            "objectives": [o.name for o in plan.objectives],
            "constraints": [str(b) for b in plan.constraints],
            "seed": plan.seed,
            "sampler": plan.sampler,
            "early stopping": plan.early_stopping,
            **plan.setting,
        }
        now: dict[str, Any] = {
            "objectives": [o.name for o in self.objectives],
            "constraints": [str(b) for b in self.constraints],
            "seed": self.seed,
            "sampler": self.sampler,
            "early stopping": self.early_stopping,
            **_plain(self.setting),
        }
        known = plan.environment.get("data_key", data_key)
        if data_key and known == data_key:
            del now["data"]  # the same images, wherever they lie now
        for name, value in now.items():
            if name in then and then[name] != value:
                raise _differs(folder, name, then[name], value)
        ours = self.space.to_dict()
        for name, value in ours.items():
            if plan.space.get(name) != value:
                raise _differs(folder, f"the search space's {name}", plan.space.get(name), value)
        if known != data_key:
            raise UserError(
                f"{folder} holds a run on other images: the files of {self.setting.data}, or how lkspace reads them,"
                " have changed since it began; name another folder with --run"
            )


def request(
    space: SearchSpace,
    *,
    budget: int,
    objectives: Sequence[str],
    constraints: Sequence[str | Bound],
    data: str,
    overrides: Mapping[str, Any],
    sampler: str,
    seed: int,
    device: str,
    command: str,
    early_stopping: str = "front",
) -> Request:
    """The request of such a call; UserError with the place and the mend if something in it is wrong."""
    if budget < 1:
        raise UserError(f"budget is {budget}, expected at least 1 trial")
    if not 0 <= seed < 2**63:
        raise UserError(f"seed is {seed}, expected 0 or more, and less than 2^63")
    registry.samplers.get(sampler)
    if early_stopping not in KINDS:
        raise UserError(f"unknown early stopping {early_stopping!r}; known: {', '.join(KINDS)}")
    bounds = tuple(b if isinstance(b, Bound) else Bound.parse(b) for b in constraints)
    for bound in bounds:
        known = registry.scores.get(bound.name).cheap or bound.name in (*objectives, ESTIMATED)
        if sampler in USE_ESTIMATES and not known:
            raise UserError(
                f"constraint {bound}: the sampler {sampler} learns no {bound.name} that is not an objective;"
                f" add {bound.name} to --objectives, or take another sampler"
            )
    data = absolute(data)
    space = space.at(classes=describe(data).classes)
    space.sample(np.random.default_rng(seed))  # tells of a space that its constraints leave empty
    return Request(
        space=space,
        objectives=_objectives(objectives),
        constraints=bounds,
        scores=order([*objectives, *(b.name for b in bounds)]),
        setting=_setting(space, data, seed, device, overrides),
        sampler=sampler,
        seed=seed,
        budget=budget,
        command=command,
        early_stopping=early_stopping,
    )


def _objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"objectives {','.join(names)!r}: name at least one score, each once, as in accuracy,flops,latency"
        )
    scores = [registry.scores.get(name) for name in names]
    return tuple(Objective(s.name, s.unit, s.direction) for s in scores)


def _setting(space: SearchSpace, data: str, seed: int, device: str, overrides: Mapping[str, Any]) -> Setting:
    setting = Setting(data=data, size=space.image_size, classes=space.classes, seed=seed, device=device)
    free = {f.name for f in dataclasses.fields(Setting)} - {"data", "size", "classes", "seed", "device", *_FOUND_OUT}
    if unknown := sorted(set(overrides) - free):
        raise UserError(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(free))}")
    for name in ("threads", "epochs", "batch", "latency_batch", "latency_threads"):
        value = overrides.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} is {value!r}, expected a whole number of at least 1")
    return dataclasses.replace(setting, **overrides)


def _plain(setting: Setting) -> dict[str, Any]:
    """As a plan keeps it: not where decoded data lie, nor what is found out and stands elsewhere."""
    return {n: value for n, value in dataclasses.asdict(setting).items() if n not in ("cache", *_FOUND_OUT)}


def _differs(folder: Path, name: str, then: Any, now: Any) -> UserError:
    return UserError(
        f"{folder} holds a run with {name} {_shown(then)}, this call has {_shown(now)}:"
        " name another folder with --run, or repeat the run's own command"
    )


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
