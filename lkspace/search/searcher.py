"""Ray Tune's view of a study: Tune asks here for the next trial and tells here how one ended.

Ray's own Optuna searcher tells a stopped trial as complete, leaves one with a NaN running for ever and pickles the
study; this one lets every trial end in the state that fits, and the study is all there is to continue from.
"""

import contextlib
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from ray.tune.search import Searcher
from sqlalchemy.exc import SQLAlchemyError

from lkspace.errors import RunError
from lkspace.scores.quiet import Device
from lkspace.search import checkpoint
from lkspace.search.evaluate import Report
from lkspace.search.files import write_bytes
from lkspace.search.progress import Display
from lkspace.search.propose import Proposer
from lkspace.search.room import Room
from lkspace.search.stopping import Stopping
from lkspace.search.trainable import ARCHITECTURE, NUMBER, REPORT
from lkspace.space.architecture import Architecture
from lkspace.study import Study
from lkspace.study.storage import lost

ATTEMPTS = 3  # a worker that dies may be the machine's fault twice, the third time it is the candidate's
HOPELESS = 8  # failures in a row without one success: the run, not the candidates, is broken


@dataclass
class _Attempt:
    number: int
    architecture: Architecture
    count: int  # of attempts at this trial, this one included
    alone: bool = False  # while no other trial runs: what ran beside it may have taken the memory


class StudySearcher(Searcher):
    """Hands out `budget` trials in all, `concurrency` at a time; those that a killed driver left running first.

    A trial of Tune's is one attempt; a trial of the study whose worker died is handed out again, up to three times, the
    last time alone. One whose memory was too small is tried once more, alone, and is then recorded as infeasible; one
    that has `room`, but not beside others like it, runs alone.
    device: on which candidates are measured, kept quiet meanwhile, as suggestions are computed on it too.
    error: what ended the run early, to be raised by the caller; Tune would wrap it. exhausted: the space has no
    untried architecture left. stopping: decides which trainings end early; None if none do.
    """

    def __init__(
        self,
        study: Study,
        proposer: Proposer,
        display: Display,
        *,
        budget: int,
        concurrency: int,
        stopping: Stopping | None = None,
        room: Room | None = None,
        device: Device | None = None,
    ) -> None:
        super().__init__()
        self._study = study
        self._proposer = proposer
        self._display = display
        self._budget = budget
        self._concurrency = concurrency
        self._folder = study.folder or Path.cwd()
        self._memory = room
        self._device = device
        self._waiting = deque(self._first(t.number, t.architecture) for t in study.pending())
        self._running: dict[str, _Attempt] = {}
        self._stopping = stopping
        self._stopped: dict[str, str] = {}  # attempts that are told to end, and why
        self._failures: list[str] = []
        self._succeeded = any(t.outcome in ("complete", "stopped") for t in study.trials)
        self.exhausted = False
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None to be asked again later, FINISHED when all have ended."""
        if self.error is not None:
            return str(self.FINISHED)
        if len(self._running) >= self._concurrency or any(a.alone for a in self._running.values()):
            return None
        with self._kept():
            if not self._waiting and (new := self._new()) is not None:
                self._waiting.append(new)
            if not self._waiting:
                # Not yet FINISHED while trials run: one whose worker dies must be handed out again.
                return None if self._running else str(self.FINISHED)
            if self._running and self._waiting[0].alone:
                return None
            attempt = self._waiting.popleft()
            self._running[trial_id] = attempt
            self._display.started(attempt.number, attempt.architecture)
            return {NUMBER: attempt.number, ARCHITECTURE: attempt.architecture.to_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A candidate got on."""
        self._display.reported(self._running[trial_id].number, result[REPORT])

    def stops(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a candidate that got on is to end here; asked before `on_trial_result`, which is then not called."""
        attempt, report = self._running.get(trial_id), result.get(REPORT)
        if self._stopping is None or attempt is None or not isinstance(report, Report):
            return False
        with self._kept():
            reason = self._stopping.reason(attempt.number, attempt.architecture, report)
            if reason is not None:
                self._stopped[trial_id] = reason
            return reason is not None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A candidate has its verdict, or its worker died."""
        attempt = self._running.pop(trial_id, None)
        if attempt is None:
            return
        report = (result or {}).get(REPORT)
        reason = self._stopped.pop(trial_id, None)
        if reason is not None and isinstance(report, Report) and not error and report.outcome is None:
            report = replace(report, outcome="stopped", reason=reason)
        with self._kept():
            if error or not isinstance(report, Report) or (report.outcome is None and not report.fatal):
                self._lost(attempt)
            elif report.fatal:
                raise RunError(report.fatal)
            elif report.outcome == "memory" and not attempt.alone:
                self._waiting.append(replace(attempt, count=attempt.count + 1, alone=True))
            else:
                self._finish(attempt.number, replace(report, reason=_reason(report)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the record."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study is the record."""

    def _new(self) -> _Attempt | None:
        if self._proposer.trials >= self._budget or self.exhausted:
            return None
        with contextlib.nullcontext() if self._device is None else self._device.step():
            started = self._proposer.start()
        self.exhausted = started is None
        return None if started is None else self._first(*started)

    def _first(self, number: int, architecture: Architecture) -> _Attempt:
        alone = self._memory is not None and not self._memory.shares(architecture)
        return _Attempt(number, architecture, 1, alone)

    def _lost(self, attempt: _Attempt) -> None:
        """The worker died, or Tune could not start one."""
        if attempt.count < ATTEMPTS:
            alone = attempt.alone or attempt.count + 1 == ATTEMPTS
            self._waiting.append(replace(attempt, count=attempt.count + 1, alone=alone))
        else:
            reason = f"its worker died {ATTEMPTS} times (out of memory, or killed)"
            self._finish(attempt.number, Report(outcome="failed", reason=reason))

    def _finish(self, number: int, report: Report) -> None:
        outcome, reason = report.outcome, report.reason
        assert outcome is not None
        missing = [o.name for o in self._study.objectives if o.name not in report.measurements]
        if outcome == "complete" and missing:
            outcome, reason = "failed", f"no {missing[0]} was reported"
        in_vain = outcome in ("failed", "memory")
        if outcome == "memory":
            outcome = "infeasible"
        for name in list(report.files):  # given away: Tune keeps the last report of every trial
            write_bytes(self._folder / "trials" / str(number) / name, report.files.pop(name))
        self._study.finish(number, outcome, reason, report.measurements, report.curve, report.seconds)
        checkpoint.remove(self._folder / "trials" / str(number))
        self._display.ended(number)
        if in_vain:
            self._failures.append(reason)
        else:
            self._succeeded |= outcome != "diverged"
        if not self._succeeded and len(self._failures) >= HOPELESS:
            trace = self._folder / "trials" / str(number) / "error.txt"
            more = f"; see {trace}" if trace.exists() else ""
            raise RunError(f"the first {HOPELESS} trials all failed, the last one because: {self._failures[-1]}{more}")

    @contextlib.contextmanager
    def _kept(self) -> Any:
        """Keep what is raised for the caller of Tune, which would wrap it in text."""
        try:
            yield
        except (StorageInternalError, SQLAlchemyError, OSError) as error:
            self.error = RunError(f"{self._folder}: {lost(error)}")
            raise self.error from error
        except Exception as error:
            self.error = error
            raise


def _reason(report: Report) -> str:
    return f"{report.reason}, with nothing beside it" if report.outcome == "memory" else report.reason
