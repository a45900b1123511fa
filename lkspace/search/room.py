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
    """A device that several trainings share. bytes: its memory; beside: how many trainings at a time.

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

    def objection(self, architecture: Architecture) -> str | None:
        """Why its training cannot run on the device, even alone; None if it may."""
        need = training_bytes(architecture, self.setting)
        if need <= self.bytes:
            return None
        return f"its training needs at least {human(need, 'B')}, {self.setting.device} has {human(self.bytes, 'B')}"

    def shares(self, architecture: Architecture) -> bool:
        """Whether as many trainings of its kind as run at a time fit beside each other."""
        return training_bytes(architecture, self.setting) * self.beside <= self.bytes
