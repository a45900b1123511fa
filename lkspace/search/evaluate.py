"""One candidate's scores, the cheap ones first: what a worker does, as a plain generator without Ray.

Nothing that a candidate does to its scores is an exception here: a training that diverged, a memory that was too
small and a bug in a score all end as a report that says so, and the worker goes on with the next candidate.
"""

import errno
import json
import math
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lkspace import registry
from lkspace.errors import RunError, UserError
from lkspace.quantity import Bound, human
from lkspace.scores.memory import give_back, ran_out
from lkspace.scores.score import Diverged, Measurement, NoImages, Score, Setting
from lkspace.search.checkpoint import Checkpoint, Progress
from lkspace.search.files import text_of, write_bytes
from lkspace.space.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn

    from lkspace.scores.training import ProxyTraining

# A verdict of a worker; "memory", what it had was too little, is for the searcher to act on.
Outcome = Literal["complete", "diverged", "failed", "infeasible", "stopped", "memory"]
SEEN = "environment.json"  # says when the run began: a worker that finds the same shares the driver's file system
ALWAYS = ("params", "flops")  # cost nothing and are wanted in every table


@dataclass(frozen=True)
class Job:
    """What all candidates of one run have in common; sent to every worker once.

    scores: names in the order they are measured. folder: where `trials/<number>/` is written; absolute. seen: text of
    the file SEEN in it; another one, or none, where a worker looks means another file system.
    """

    setting: Setting
    scores: tuple[str, ...]
    constraints: tuple[Bound, ...]
    folder: Path
    seen: str = ""

    def shares_files(self) -> bool:
        """Whether this process sees the folder of the driver."""
        return self.seen != "" and text_of(self.folder / SEEN) == self.seen


@dataclass(frozen=True)
class Report:
    """How far a candidate has come; each one repeats what those before it said.

    curve: one entry an epoch of a score that takes several measurements. seconds: spent, by score.
    outcome: None while it goes on. fatal: why the run cannot go on (the disk is full); no verdict on the candidate.
    files: of `trials/<number>/`, by name, where the worker cannot see the run's folder and the driver must write them.
    """

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    curve: tuple[Mapping[str, Any], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str = ""
    fatal: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


def order(names: Iterator[str] | list[str]) -> tuple[str, ...]:
    """All scores a run measures, each once: cheap ones, then the measured ones, trainings last."""
    wanted = {*ALWAYS, *names}
    scores = {name: registry.scores.get(name) for name in wanted}
    return tuple(sorted(wanted, key=lambda name: (not scores[name].cheap, name == "accuracy", name)))


def evaluate(job: Job, number: int, architecture: Architecture) -> Iterator[Report]:
    """Reports of rising completeness, the last one with an outcome or fatal.

    A training leaves a checkpoint after every epoch where the run's folder can be seen; a candidate that has one goes
    on from there, and what was measured before is not measured again.
    """
    checkpoint = Checkpoint(job.folder / "trials" / str(number), architecture, job.setting)
    progress = checkpoint.read() or Progress()
    ended: Report | None = None
    try:
        if progress.training is not None:  # what was said of it may have been lost with the one who was told
            yield _report(progress, None)
        for name in job.scores:
            if name not in progress.measurements or (name == "accuracy" and progress.training is not None):
                yield from _measure(job, registry.scores.get(name), architecture, progress, checkpoint)
            reason = _objection(name, progress.measurements[name].value, job.constraints)
            if reason:
                ended = _report(progress, *reason)
                break
    except Exception as error:
        ended = _report_of(error, job, number, progress)
    # Only now, when the error and all that it held are gone: a worker waits after this, beside others that train.
    if ended is not None and ended.outcome == "memory":
        give_back(job.setting.device)
    yield ended or _report(progress, "complete")


def _report_of(error: Exception, job: Job, number: int, progress: Progress) -> Report:
    if isinstance(error, Diverged):
        return _report(progress, "diverged", _line(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return _report(progress, None, fatal=f"{error.filename or job.folder}: {error.strerror}")
    if ran_out(error):
        return _report(progress, "memory", f"out of memory: {_line(error)}")
    if isinstance(error, NoImages):
        return _report(progress, None, fatal=_line(error))
    if isinstance(error, RunError | UserError):
        return _report(progress, "failed", _line(error))
    _keep_traceback(job.folder / "trials" / str(number))
    return _report(progress, "failed", f"{type(error).__name__}: {_line(error)}")


def _report(progress: Progress, outcome: Outcome | None, reason: str = "", fatal: str = "") -> Report:
    kept = dict(progress.files) if outcome is not None else {}
    return Report(
        dict(progress.measurements), tuple(progress.curve), dict(progress.seconds), outcome, reason, fatal, kept
    )


def _measure(
    job: Job, score: Score, architecture: Architecture, progress: Progress, checkpoint: Checkpoint
) -> Iterator[Report]:
    """Run one score; a report after each of its measurements if it takes time. What was trained is kept."""
    proxy: ProxyTraining | None = None
    before = progress.seconds.get(score.name, 0.0)
    seen = job.shares_files()
    start = time.perf_counter()
    if score.name == "accuracy":
        from lkspace.scores.accuracy import training

        proxy = training(architecture, job.setting)
        if progress.training is not None:
            proxy.restore(progress.training)
        measuring = proxy.epochs()
    else:
        measuring = score.measure(architecture, job.setting)
    for measurement in measuring:
        progress.measurements[score.name] = measurement
        if "epoch" in measurement.details:
            progress.curve.append({score.name: measurement.value, **measurement.details})
        progress.seconds[score.name] = before + time.perf_counter() - start
        if proxy is not None and seen and measurement.details["epoch"] < job.setting.epochs:
            with proxy.quiet.step():
                progress.training = proxy.state()
                checkpoint.write(progress)
        if not score.cheap:
            asked = time.perf_counter()
            yield _report(progress, None)
            start += time.perf_counter() - asked
    progress.seconds[score.name] = before + time.perf_counter() - start
    if score.name not in progress.measurements:
        raise RuntimeError(f"score {score.name} gave no measurement")
    if proxy is not None:
        with proxy.quiet.step():
            files = _trained(proxy.learnt, architecture, job.setting, progress)
            if seen:
                for name, content in files.items():
                    write_bytes(checkpoint.path.with_name(name), content)
            else:
                progress.files = files


def _trained(
    network: "nn.Module", architecture: Architecture, setting: Setting, progress: Progress
) -> dict[str, bytes]:
    """The files that a training leaves: its weights in train form and its curve."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"architecture": architecture.to_json(), "classes": str(setting.classes), "form": "train"}
    return {
        "weights.safetensors": save(tensors, metadata),
        "curve.json": (json.dumps(progress.curve, indent=1) + "\n").encode(),
    }


def _objection(name: str, value: float, constraints: tuple[Bound, ...]) -> tuple[Outcome, str] | None:
    if not math.isfinite(value):
        return "failed", f"{name} is {value}"
    for bound in constraints:
        if bound.name == name and not bound.holds(value):
            unit = registry.scores.get(name).unit
            shown = human(value, unit)
            if shown == human(bound.value, unit):  # it is over by less than that shows
                shown = f"{100 * value:.6g} %" if unit == "%" else f"{value:.6g} {unit}".strip()
            return "infeasible", f"{name} {shown} breaks {bound}"
    return None


def _keep_traceback(folder: Path) -> None:
    """A bug always shows a traceback; a worker's goes to a file beside the candidate's others."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc())
    except OSError:
        pass  # the reason is in the study


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
