"""The part of a search that Ray Tune runs, and single measurements outside of it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, PlacementGroupFactory
from ray.tune.schedulers import FIFOScheduler

from lkspace import registry
from lkspace.errors import RunError
from lkspace.scores.latency_table import LatencyTable, Progress, distinct_parts
from lkspace.scores.memory import ran_out
from lkspace.scores.score import Measurement, Setting
from lkspace.search.cluster import variables
from lkspace.search.evaluate import Job
from lkspace.search.searcher import StudySearcher
from lkspace.search.trainable import Candidate
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace


class WorkerDied(RunError):
    """A worker ended without an answer more often than Ray tries again: as a rule the system took its memory."""


class _Abandoned(BaseException):
    """Leaves Tune at once: no `except Exception` of Tune's sees it and then waits 15 seconds for busy workers."""


class _Stop(Callback):
    """Ends Tune between two of its steps, when the searcher has met an error or Ctrl-C was pressed.

    An interrupt wherever the program happens to be could leave a transaction of the storage open.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher
        self._interrupted = False

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        if self._searcher.error is not None:
            raise _Abandoned

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C is noted for the end of Tune's step, a tenth of a second at most; a second one acts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: object) -> None:
            self._interrupted = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class _Rungs(FIFOScheduler):
    """Stops the trials that the searcher gives up; else Tune's own order."""

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(self.STOP if self._searcher.stops(trial.trial_id, result) else self.CONTINUE)


def run_trials(searcher: StudySearcher, job: Job, slots: int, cpus: int, gpus: float, scratch: Path) -> None:
    """Let Tune run what the searcher hands out; raises what ended the searcher early."""
    candidate = tune.with_resources(
        tune.with_parameters(Candidate, job=job), PlacementGroupFactory([_resources(cpus, gpus)])
    )
    stop = _Stop(searcher)
    try:
        # By default one worker starts after the other, and a trial that waits for its own is given the first one as
        # soon as that has ended its trial; the new worker is then thrown away, over and over if trials are short.
        with variables({"TUNE_MAX_PENDING_TRIALS_PG": str(slots)}), stop.listening():
            tune.run(
                candidate,
                name="search",
                search_alg=searcher,
                scheduler=_Rungs(searcher),
                num_samples=-1,
                callbacks=[stop],
                storage_path=str(scratch / "tune"),
                reuse_actors=True,
                max_failures=0,
                raise_on_failed_trial=False,
                log_to_file=False,
                verbose=0,
            )
    except ray.exceptions.RayError as error:
        if searcher.error is None:
            raise RunError(f"Ray failed: {' '.join(str(error).split())[:300]}") from error
    except (_Abandoned, Exception):
        if searcher.error is None:
            raise
    if searcher.error is not None:
        raise searcher.error


def measure(name: str, architecture: Architecture, setting: Setting, gpus: float, *, here: bool) -> Measurement:
    """The final measurement of one score while no trial runs.

    here: in this process, which has imported everything already; else in a worker with a trial's resources.
    Raises RunError if the measurement cannot be had.
    """
    failing = f"{name} of {architecture.id} cannot be measured"
    if here:
        try:
            return _measure(name, architecture.to_json(), setting)
        except Exception as error:
            if not ran_out(error):
                raise
            raise RunError(f"{failing}: out of memory; free some, then repeat the command") from error
    called = in_worker(_measure, setting, gpus, retries=1).remote(name, architecture.to_json(), setting)
    result: Measurement = result_of(called, failing)
    return result


def in_worker(function: Callable[..., Any], setting: Setting, gpus: float, retries: int) -> Any:
    """The function as a task of Ray's with a trial's resources, tried again so often if its worker dies.

    Of one that is given a GPU here, not by `options`, Ray ends the worker, whose memory the trials need.
    """
    return ray.remote(num_cpus=setting.threads, num_gpus=gpus, max_retries=retries)(function)


def result_of(called: Any, failing: str) -> Any:
    """What a call in a worker gave; RunError that begins with `failing` if it raised, WorkerDied if its worker died."""
    try:
        return ray.get(called)
    except ray.exceptions.RayTaskError as error:
        raise RunError(f"{failing}: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise WorkerDied(f"{failing}: its worker died") from error


def latency_table(
    space: SearchSpace, setting: Setting, gpus: float, *, rounds: int, here: bool, progress: Progress | None = None
) -> LatencyTable:
    """The table with every part of the space, timed in so many rounds; what is missing is timed now.

    here: as for `measure`; only then `progress` is called, with (timings done, timings in all).
    Raises RunError if the table cannot be had.
    """
    if here:
        return _filled(space, setting, rounds, progress)
    called = in_worker(_filled, setting, gpus, retries=1).remote(space, setting, rounds)
    table: LatencyTable = result_of(called, "no latency table")
    return table


def _filled(space: SearchSpace, setting: Setting, rounds: int, progress: Progress | None = None) -> LatencyTable:
    table = LatencyTable.open(setting)
    table.fill(distinct_parts(space), progress, rounds=rounds)
    return table


def _measure(name: str, architecture: str, setting: Setting) -> Measurement:
    *_, final = registry.scores.get(name).measure(Architecture.from_json(architecture), setting)
    assert isinstance(final, Measurement)
    return final


def _resources(cpus: int, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
