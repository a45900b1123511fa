"""One way to compute a problem: the path, its tile, and how it is launched. Written to the cache as JSON."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choice:
    """path: "toeplitz", "dense", "taps", "correlate", or "torch" for torch's own convolution.

    tile: the constants of the kernel by name. planar: a channels_last tensor is first copied to contiguous planes and
    the result copied back; both copies are part of every time that is taken. For "torch" it is the other layout.
    """

    path: str
    tile: tuple[tuple[str, int], ...] = ()
    warps: int = 4
    stages: int = 3
    planar: bool = False
    model: float = field(default=0.0, compare=False)  # estimated cost, to order choices by; no unit

    @property
    def sizes(self) -> dict[str, int]:
        """The tile as keyword arguments."""
        return dict(self.tile)

    @property
    def launch(self) -> dict[str, int]:
        """How the kernel is launched, as keyword arguments."""
        return {"num_warps": self.warps, "num_stages": self.stages}

    def __str__(self) -> str:
        words = [self.path, *(f"{name}={value}" for name, value in self.tile)]
        if self.tile:
            words += [f"warps={self.warps}", f"stages={self.stages}"]
        return " ".join([*words, "planar"] if self.planar else words)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        launch = {"warps": self.warps, "stages": self.stages, "planar": self.planar}
        return {"path": self.path, "tile": self.sizes, **launch}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Choice":
        """Back from JSON; KeyError, TypeError, ValueError or AttributeError if it is none."""
        tile = tuple((str(name), int(value)) for name, value in stored["tile"].items())
        return cls(str(stored["path"]), tile, int(stored["warps"]), int(stored["stages"]), bool(stored["planar"]))
