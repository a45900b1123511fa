"""Whether a candidate's training fits the device's memory, said before it is begun."""

from dataclasses import dataclass
from typing import Self

from lkspace.quantity import human
from lkspace.scores.memory import device_bytes, training_bytes
from lkspace.scores.score import Setting
from lkspace.search.cluster import gpu_slots
from lkspace.space.architecture import Architecture


@dataclass(frozen=True)
class Room:
    """A device that several trainings share, a constraint on candidates that reads as what breaks it.

    bytes: its memory; beside: how many trainings at a time.

    Judged by the least that a training needs: what is turned away here could never have run.
    """

    setting: Setting
    bytes: int
    beside: int

    @classmethod
    def of(cls, setting: Setting, slots: int, gpus: float = 0.0) -> Self | None:
        """Of the setting's device, where so many trainings run at a time, each on so many GPUs; None if nobody knows
        its memory."""
        size = device_bytes(setting.device)
        beside = min(slots, max(1, gpu_slots(1, gpus))) if gpus else slots
        return None if size is None else cls(setting, size, beside)

    def holds(self, architecture: Architecture) -> bool:
        """Whether its training may run on the device, at least alone."""
        return training_bytes(architecture, self.setting) <= self.bytes

    def __str__(self) -> str:
        return f"training needs more than the {human(self.bytes, 'B')} of {self.setting.device}"

    def shares(self, architecture: Architecture) -> bool:
        """Whether as many trainings of its kind as run at a time fit beside each other."""
        return training_bytes(architecture, self.setting) * self.beside <= self.bytes
