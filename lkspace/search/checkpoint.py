"""A candidate between two epochs, in a file of its trial: what a worker that takes it up goes on from."""

import contextlib
import io
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lkspace.scores.score import Measurement, Setting
from lkspace.search.files import write_bytes
from lkspace.space.architecture import Architecture
from lkspace.study.attributes import jsonable

NAME = "checkpoint.pt"


@dataclass
class Progress:
    """What has been measured of a candidate so far.

    curve: one entry an epoch of a score that takes several measurements. seconds: spent, by score. training: the state
    of the proxy training, None before its first epoch. files: see `Report`.
    """

    measurements: dict[str, Measurement] = field(default_factory=dict)
    curve: list[Mapping[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)


class Checkpoint:
    """The file of one trial. It belongs to an architecture and a setting; one of others counts as none."""

    def __init__(self, trial: Path, architecture: Architecture, setting: Setting) -> None:
        self.path = trial / NAME
        of_all = asdict(replace(setting, standard=None))  # the first driver of a run may not have known it
        self._owner = json.dumps(jsonable({"architecture": architecture.to_dict(), **of_all}), default=str)

    def write(self, progress: Progress) -> None:
        """Replace the file at once; OSError if that cannot be."""
        import torch

        measurements = {name: [m.value, m.details] for name, m in progress.measurements.items()}
        record = {"measurements": measurements, "curve": progress.curve, "seconds": progress.seconds}
        content = io.BytesIO()
        torch.save(
            {"owner": self._owner, "record": json.dumps(jsonable(record)), "training": progress.training}, content
        )
        write_bytes(self.path, content.getvalue())

    def read(self) -> Progress | None:
        """None if there is no file, or one of another candidate, or one that cannot be read."""
        import torch

        if not self.path.is_file():
            return None
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
            if stored["owner"] != self._owner:
                return None
            record = json.loads(stored["record"])
            measurements = {
                name: Measurement(value, details) for name, (value, details) in record["measurements"].items()
            }
            return Progress(measurements, list(record["curve"]), dict(record["seconds"]), stored["training"])
        except Exception as error:  # whatever is wrong with it, the candidate can be begun anew
            logging.getLogger(__name__).warning("%s cannot be read (%s); begun anew", self.path, error)
            return None


def remove(trial: Path) -> None:
    """Delete the file of a trial that has ended, and what a worker left that was killed while it wrote one."""
    with contextlib.suppress(OSError):
        for path in [trial / NAME, *trial.glob(f".{NAME}.*")]:
            path.unlink(missing_ok=True)
