"""The Ray actor that evaluates candidates, one after another: importing torch takes seconds, so it is kept."""

import gc
from collections.abc import Iterator
from typing import Any

from ray import tune

from lkspace.scores.score import Setting
from lkspace.search.evaluate import Job, Report, evaluate
from lkspace.space.architecture import Architecture

NUMBER, ARCHITECTURE, REPORT = "number", "architecture", "report"  # keys of what goes in and comes out


def prepare_process(setting: Setting) -> None:
    """Threads and memory of a process that trains."""
    import torch

    from lkspace.scores.memory import keep_freed_memory

    torch.set_num_threads(setting.threads)
    if setting.device == "cpu":
        keep_freed_memory()


class Candidate(tune.Trainable):
    """A step is one report; `config` holds the trial's number and the architecture's JSON."""

    def setup(self, config: dict[str, Any], job: Job | None = None) -> None:
        """Once an actor: threads and memory, then the first candidate. The job comes by `tune.with_parameters`."""
        assert job is not None
        prepare_process(job.setting)
        self._job = job
        self._reports = self._begin(config)

    def step(self) -> dict[str, Any]:
        """The next report; done with the one that has a verdict."""
        report = next(self._reports)
        return {REPORT: report, "done": report.outcome is not None or bool(report.fatal)}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another candidate in the same process; what the last one held is freed first."""
        self.cleanup()
        self._reports = self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Drop the candidate and give its device memory back, so that another process can have it."""
        import torch

        self._reports = iter(())
        gc.collect()
        gc.freeze()  # what is left stays: libraries, data; to look at it again would cost 0.1 s a trial
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _begin(self, config: dict[str, Any]) -> Iterator[Report]:
        return evaluate(self._job, config[NUMBER], Architecture.from_json(config[ARCHITECTURE]))
