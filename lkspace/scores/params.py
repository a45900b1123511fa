"""Number of learned parameters of the deploy form, by the arithmetic beside the blocks."""

from collections.abc import Iterator

from lkspace import nets
from lkspace.registry import scores
from lkspace.scores.score import Direction, Measurement, Setting
from lkspace.space.architecture import Architecture


class Params:
    """Learned numbers: weights, biases, scales and shifts; not the running statistics of batch norms."""

    name = "params"
    unit = ""
    direction: Direction = "minimize"
    cheap = True

    def measure(self, architecture: Architecture, setting: Setting) -> Iterator[Measurement]:
        """One exact value."""
        yield Measurement(nets.params(architecture, setting.classes), {"form": "deploy"})


scores.register("params")(Params())
