"""What a score is: one number that a candidate is judged by, and how it is asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lkspace.errors import RunError
from lkspace.space.architecture import Architecture

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Setting:
    """What every candidate of one search is scored under; picklable, and recorded with the study.

    data: a `--data` spec such as "digits" or "folder:PATH"; size: image side in pixels; classes: how many.
    seed: decides initial weights, order of batches and augmentation. device: "cpu" or "cuda[:n]". threads: of one
    training. epochs, batch, rate: of the proxy training. latency_*: what is timed. cache: where decoded data lie.
    data_key: `ImageSet.key` of the images that all are to be trained on; "" where nobody has looked. standard:
    milliseconds that the yardstick takes at the pace that latencies are reported at, see `pace.py`; None for the
    machine's own.
    """

    data: str
    size: int
    classes: int
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    epochs: int = 4
    batch: int = 32
    rate: float = 1e-2
    latency_batch: int = 1
    latency_dtype: str = "float32"
    latency_threads: int = 1
    cache: Path | None = None
    data_key: str = ""
    standard: float | None = None


@dataclass(frozen=True)
class Measurement:
    """A value with what it is made of: interval, repeats, loss, epoch, seconds, device, versions (JSON types)."""

    value: float
    details: Mapping[str, Any] = field(default_factory=dict)


class Diverged(RuntimeError):
    """The training's loss was not finite; the message says where."""


class NoImages(RunError):
    """The images cannot be had here, or are not those that the run began with: no candidate can be trained."""


class Score(Protocol):
    """One number by which candidates are compared; entered into `lkspace.registry.scores`.

    cheap: exact or nearly so and free beside a training, so that a constraint on it is checked beforehand.
    """

    name: str
    unit: str
    direction: Direction
    cheap: bool

    def measure(self, architecture: Architecture, setting: Setting) -> Iterator[Measurement]:
        """Measurements of rising fidelity, the last one final: one for most scores, one an epoch for accuracy.

        Raises Diverged if a training ended in NaN or infinity, torch.OutOfMemoryError if memory ran out.
        """
        ...
