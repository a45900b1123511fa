"""A search from beginning to end: `run` creates or continues a study and fills it until the budget is reached."""

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lkspace import registry
from lkspace.data import load
from lkspace.errors import RunError, UserError
from lkspace.kernels import native_reason
from lkspace.processor import cores
from lkspace.quantity import Bound
from lkspace.scores.agreement import Agreement, agreement
from lkspace.scores.latency import elsewhere
from lkspace.scores.latency_table import ROUNDS, LatencyTable, distinct_parts
from lkspace.scores.quiet import Device
from lkspace.scores.score import Measurement
from lkspace.search.candidates import REMEMBERED, Candidates, Estimate, cheap_scores
from lkspace.search.cluster import check_gpus, ray_cluster, scratch_folder, trial_slots
from lkspace.search.environment import environment
from lkspace.search.evaluate import SEEN, Job
from lkspace.search.files import made, text_of, write_json, write_text
from lkspace.search.lock import run_lock
from lkspace.search.progress import Display, bar, counted, say
from lkspace.search.propose import Proposer
from lkspace.search.reference import SAMPLES, reference_point
from lkspace.search.request import Request, request
from lkspace.search.room import Room
from lkspace.search.samplers import USE_ESTIMATES
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study
from lkspace.study.storage import FILE, POINTER, check_url, masked, pointed, split_url

SPACE = "space.yaml"
_USUAL = 1.15  # factor by which a machine's pace may differ from its standard without a word
_WORTH_A_ROUND = 50  # trials: timing all parts of the default space once takes about half as long as one


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a search, after everything was closed; `study` holds what there is, the same call continues."""

    def __init__(self, study: Study | None) -> None:
        super().__init__("interrupted; the same command continues")
        self.study = study


def run(
    space: SearchSpace,
    *,
    budget: int,
    folder: str | Path,
    objectives: Sequence[str] = ("accuracy", "flops", "latency"),
    constraints: Sequence[str | Bound] = (),
    data: str = "digits",
    overrides: Mapping[str, Any] | None = None,
    sampler: str = "pareto",
    early_stopping: str = "front",
    seed: int = 0,
    storage: str | None = None,
    concurrency: int | None = None,
    gpus_per_trial: float = 0.0,
    address: str | None = None,
    command: str = "",
    console: Console | None = None,
) -> Study:
    """Search `space` until `budget` trials have ended, in `folder`, and return the study.

    The same call continues a run that was interrupted at any moment; a larger budget extends it. objectives: scores
    to trade off. constraints: bounds such as "latency<=5ms". overrides: fields of `Setting`; `threads` is the cores of
    one trial. early_stopping: "front" ends trainings that are not expected to reach the front, "halving" those that
    fall behind others of their cost. concurrency: trials at a time, by default as many as fit. storage: URL in place
    of SQLite in the folder.
    console: where progress is shown; None for nowhere.

    Raises UserError if the call is wrong or the folder holds another run, RunError if the run cannot go on, and
    Interrupted on Ctrl-C.
    """
    if concurrency is not None and concurrency < 1:
        raise UserError(f"concurrency is {concurrency}, expected at least 1")
    check_gpus(gpus_per_trial, address)
    asked = request(
        space,
        budget=budget,
        objectives=objectives,
        constraints=constraints,
        data=data,
        overrides=overrides or {},
        sampler=sampler,
        early_stopping=early_stopping,
        seed=seed,
        device="cuda" if gpus_per_trial else "cpu",
        command=command,
    )
    path = Path(os.path.expanduser(folder)).resolve()
    if storage is not None:
        check_url(storage, path)
    if os.path.exists(path):
        made(path)  # a file in the way is told before images are decoded
        _check_free(path, asked.space)
    search = _Search(asked, path, storage, concurrency, gpus_per_trial, address, console)
    data_key = search.decode()  # before the folder is there, so that wrong images leave nothing behind
    with run_lock(made(path)) as lock, scratch_folder() as scratch:
        lock.remember(scratch)
        try:
            return search.run(scratch, data_key)
        except KeyboardInterrupt:
            raise Interrupted(search.study) from None


def _check_free(folder: Path, space: SearchSpace) -> None:
    """UserError if a folder without a run has files that a run would write over, and that no start of one left."""
    if any((folder / name).exists() for name in (FILE, POINTER)):
        return
    ours = {SPACE: text_of(folder / SPACE) == space.to_yaml(), SEEN: '"begun"' in text_of(folder / SEEN)}
    for name, own in ours.items():
        if (folder / name).exists() and not own:
            raise UserError(f"{folder} has a {name} of its own, and no run: name another folder with --run")


@dataclass
class _Search:
    """One call of `run`, its parts in the order in which they happen."""

    request: Request
    folder: Path
    storage: str | None
    concurrency: int | None
    gpus: float
    address: str | None
    console: Console | None
    study: Study | None = field(default=None, init=False)
    _standard: float | None = field(default=None, init=False)  # as in `Setting`

    def run(self, scratch: Path, data_key: str) -> Study:
        self.study = self._existing()
        if self.study is not None:
            self.request.check_continues(self.study.plan, self.folder, data_key)
            self.study.move(self.folder)
            if self._nothing_to_do(self.study):
                return self.study
            self._standard = standard_of(self.study)
            if self.address is None and (remark := not_comparable(self.study)):
                self._say(remark)
        setting = self.request.setting
        done = f"; {len(self.study.trials)} are there" if self.study is not None else ""
        scores = ", ".join(o.name for o in self.request.objectives)
        self._say(f"{self.request.budget} trials of {self.request.space.name} for {scores} in {self.folder}{done}")
        if setting.device == "cpu" and (missing := native_reason()):
            self._say(f"large kernels are slow here: {missing}; lkspace doctor says how to mend it")
        with ray_cluster(scratch, self.address, cpus=self._local_cpus(), gpus=self.gpus):
            slots = trial_slots(setting.threads, self.gpus)
            slots = min(slots, self.concurrency or slots)
            study = self.study = self.study or self._create(data_key, slots)
            self._fill(study, slots, scratch, data_key)
            self._remeasure(study)
        return study

    def _existing(self) -> Study | None:
        """The study of the run in the folder, or at --storage; None if there is none yet."""
        here = [name for name in (FILE, POINTER) if (self.folder / name).exists()]
        if FILE in here and self.storage is not None:
            raise UserError(f"{self.folder} keeps its study in {FILE}: leave --storage away, or name another folder")
        if not here:
            return None
        place = self.storage if self.storage is not None and "#" in self.storage else None
        if self.storage is not None and place is None:
            place = f"{self.storage}#{self._name}"
        study = Study.open(place or self.folder, writable=True)
        study.folder = self.folder  # which may have been moved since its study noted where it was
        return study

    @property
    def _name(self) -> str:
        """Of the study: as asked for, as the folder says, which may have been renamed, or the folder's."""
        if self.storage is not None and (asked := split_url(self.storage)[1]):
            return asked
        known = pointed(self.folder)[1] if (self.folder / POINTER).exists() else None
        return known or self.folder.name

    def decode(self) -> str:
        """Have the images decoded before any worker needs them; the key of what they are."""
        setting = self.request.setting
        if "accuracy" not in self.request.scores:
            return ""
        with bar(self.console, "reading images") as progress:
            return load(setting.data, setting.size, setting.cache, progress).key

    def _local_cpus(self) -> int:
        threads = self.request.setting.threads
        return threads * (self.concurrency or max(1, cores() // threads))

    def _candidates(
        self,
        tried: Sequence[str] = (),
        estimates: Mapping[str, Estimate] | None = None,
        room: Room | None = None,
    ) -> Candidates:
        request = self.request
        cheap = cheap_scores(request.space, request.setting, request.scores)
        return Candidates(request.space, cheap, request.constraints, tried, estimates, room)

    def _create(self, data_key: str, slots: int) -> Study:
        """Settle the reference point and write what the run is."""
        request, setting, candidates = self.request, self.request.setting, self._candidates()
        corner = reference_point(
            request.objectives,
            request.constraints,
            candidates,
            setting,
            self._measure_first,
        )
        if "latency" in request.measured and self._standard is None:  # a bound alone: its pace must be settled too
            (any_one,) = candidates.sample(1, np.random.default_rng([setting.seed, 2]))
            self._measure_first("latency", any_one)
        found = {
            **environment(setting.device),
            "seed": request.seed,
            "command": masked(request.command),
            "concurrency": slots,
            "gpus_per_trial": self.gpus,
        }
        settled = {"data_key": data_key, "standard": self._standard}
        plan = request.plan(self._name, corner, found | {k: v for k, v in settled.items() if v is not None})
        write_text(self.folder / SPACE, request.space.to_yaml())
        write_json(self.folder / SEEN, found)
        return Study.create(self.folder, plan, self.storage)

    def _nothing_to_do(self, study: Study) -> bool:
        done = len(study.trials) >= self.request.budget and not study.pending()
        if done and not self._unmeasured(study):
            self._say(f"{self.folder} has its {len(study.trials)} trials already; a larger --budget extends it")
        return done and not self._unmeasured(study)

    def _fill(self, study: Study, slots: int, scratch: Path, data_key: str) -> None:
        """Trials until the budget is reached."""
        from lkspace.search.searcher import StudySearcher
        from lkspace.search.stopping import Stopping
        from lkspace.search.tune import run_trials

        request = self.request
        if request.budget != study.plan.budget:
            study.set_budget(request.budget)
        table = self._latency_table()
        estimates = {} if table is None else {"latency": functools.lru_cache(REMEMBERED)(table.terms)}
        room = self._room(slots)
        candidates = self._candidates([t.id for t in study.trials], estimates, room)
        for bound in request.constraints:
            if table is not None and bound.name == "latency" and bound.relation == "<=":
                self._warn_of(bound, table)
        make = registry.samplers.get(request.sampler)
        proposer = Proposer(study, candidates, make, request.seed, request.budget)
        display = Display(study, request.budget, self.console, request.setting.epochs)
        stopping = None
        if request.early_stopping != "none":
            stopping = Stopping(
                request.early_stopping,
                request.objectives,
                request.setting.epochs,
                candidates.features,
                study.trials,
            )
        searcher = StudySearcher(
            study,
            proposer,
            display,
            budget=request.budget,
            concurrency=slots,
            stopping=stopping,
            room=room,
            device=Device("cpu") if self._computes_beside else None,
        )
        setting = replace(request.setting, data_key=data_key, standard=self._standard)
        job = Job(setting, request.scores, request.constraints, self.folder, text_of(self.folder / SEEN))
        with display.shown():
            run_trials(searcher, job, slots, request.setting.threads, self.gpus, scratch)
        display.final()
        if searcher.exhausted:
            self._say(f"the space has no untried architecture left after {proposer.trials} trials")
        if rejected := study.rejected():
            self._say(f"candidates turned down before they cost a trial: {counted(rejected)}")
        if not any(t.outcome == "complete" for t in study.trials):
            raise RunError(_nothing_complete(study))
        if table is not None:
            found = _agreement(table, study)
            text = "too few networks measured whole to compare it with" if found is None else found.text
            study.set_latency_table(text)
            self._say(f"latency table: {text}")
        if (pace := _pace(study)) and not 1 / _USUAL < pace < _USUAL:
            self._say(
                f"this machine ran at {pace:.2f} of the pace that latencies are reported at: by the clock they took"
                f" {pace:.2f} times as long; a new run sets the pace anew if the machine is faster then"
            )

    @property
    def _computes_beside(self) -> bool:
        """Whether this process could disturb what is measured."""
        return bool(self.request.measured) and self.request.setting.device == "cpu" and self.address is None

    def _room(self, slots: int) -> Room | None:
        """Memory that trainings share; None where there are none, or on machines of a cluster, which nobody asked."""
        if "accuracy" not in self.request.scores or self.address is not None:
            return None
        return Room.of(self.request.setting, slots, self.gpus)

    def _latency_table(self) -> LatencyTable | None:
        """What the sampler knows of latency before it is measured; None if it has no use for it."""
        from lkspace.search.tune import latency_table

        request = self.request
        if request.sampler not in USE_ESTIMATES or "latency" not in request.measured:
            return None
        rounds = min(ROUNDS, 1 + request.budget // _WORTH_A_ROUND)
        if not self._here:
            self._say("latency table: timing the parts of the space that are new to the device")
        elif missing := LatencyTable.open(request.setting).missing(distinct_parts(request.space), rounds):
            self._say(f"latency table: timing the {len(missing)} parts of the space that are new here")
        with bar(self.console, "timing parts") as progress:
            return latency_table(
                request.space, request.setting, self.gpus, rounds=rounds, here=self._here, progress=progress
            )

    def _warn_of(self, bound: Bound, table: LatencyTable) -> None:
        """If trials would be spent in vain on a bound on latency."""
        drawn = self._candidates().sample(SAMPLES, np.random.default_rng([self.request.setting.seed, 2]))
        sums = [ms for ms in map(table.sum, drawn) if math.isfinite(ms)]
        if sums and min(sums) > bound.value:
            self._say(
                f"{bound}: the fastest of {len(sums)} networks takes {min(sums):.3g} ms"
                " by the latency table; loosen the bound"
            )

    def _unmeasured(self, study: Study) -> list[tuple[int, list[str]]]:
        """Front members and the scores that have not been measured again on the quiet machine."""
        missing = [
            (t.number, [n for n in self.request.measured if n in t.measurements and n not in t.remeasured])
            for t in study.front()
        ]
        return [(number, names) for number, names in missing if names]

    def _remeasure(self, study: Study) -> None:
        """Latency of the front again, now that nothing else runs."""
        unmeasured = self._unmeasured(study)
        if unmeasured:
            self._say(f"measuring {len(unmeasured)} front members again on the quiet device")
        for number, names in unmeasured:
            architecture = study.trial(number).architecture
            try:
                study.remeasured(number, {name: self._measure(name, architecture) for name in names})
            except RunError as error:
                self._say(f"trial {number}: {error}")

    def _measure(self, name: str, architecture: Architecture) -> Measurement:
        """A score's value while no trial runs."""
        from lkspace.search.tune import measure

        setting = replace(self.request.setting, standard=self._standard)
        return measure(name, architecture, setting, self.gpus, here=self._here)

    def _measure_first(self, name: str, architecture: Architecture) -> float:
        """The same before any trial; the pace that a latency is reported at is that of all that follow."""
        found = self._measure(name, architecture)
        self._standard = found.details.get("standard", self._standard)
        return found.value

    @property
    def _here(self) -> bool:
        """Whether this process measures: a worker costs seconds, which a GPU's memory or another machine is worth."""
        return self.address is None and not self.gpus

    def _say(self, text: str) -> None:
        say(self.console, text)


def _pace(study: Study) -> float | None:
    """In the middle of the measurements of a run."""
    paces = [m["pace"] for t in study.trials if "pace" in (m := t.measurements.get("latency", {}))]
    return float(np.median(paces)) if paces else None


def standard_of(study: Study) -> float | None:
    """The pace that a run's latencies are reported at, as `Setting.standard`; None if it has none yet.

    So that a run that goes on, or is verified, keeps it whatever became of the machine's own.
    """
    standard = _first_latency(study).get("standard") or study.plan.environment.get("standard")
    return None if standard is None else float(standard)


def not_comparable(study: Study) -> str:
    """What to say if latencies measured on this machine do not compare with those of the trials; "" if they do."""
    first = _first_latency(study)
    other = elsewhere(first, study.plan.setting.get("device", "cpu")) if first else ""
    remark = f"latencies from now on do not compare with those of the trials that are there, measured with {other}"
    return remark if other else ""


def _first_latency(study: Study) -> Mapping[str, Any]:
    return next((t.measurements["latency"] for t in study.trials if "latency" in t.measurements), {})


def _agreement(table: LatencyTable, study: Study) -> Agreement | None:
    """Of the table's sums with what the trials measured."""
    return agreement((table.terms(t.architecture), t.values["latency"]) for t in study.trials if "latency" in t.values)


def _nothing_complete(study: Study) -> str:
    if not study.trials:
        return f"no candidate could be tried: {counted(study.rejected()) or 'the space offers none'}"
    last = study.trials[-1]
    counts = ", ".join(f"{n} {outcome}" for outcome, n in study.counts().items() if not outcome.startswith("rejected"))
    return f"no trial completed ({counts}); trial {last.number} {last.outcome}: {last.reason}"
