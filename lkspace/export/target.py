"""What is taken away, and what a target (a library or format to take it to) offers; one file per target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lkspace import nets
from lkspace.errors import UserError
from lkspace.nets import Form
from lkspace.space.architecture import Architecture


@dataclass(frozen=True)
class Package:
    """A network with all that decides its numbers.

    size: side of the image it was made for. weights: a state dict in train or deploy form; None for fresh ones, drawn
    with `seed`. weights_from: where they come from, in words. about: JSON types for the reader, such as the trial.
    """

    architecture: Architecture
    form: Form
    classes: int
    size: int
    seed: int = 0
    weights: Mapping[str, Tensor] | None = None
    weights_from: str = "given"
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where the weights come from, for the export to say."""
        return f"random, seed {self.seed}" if self.weights is None else self.weights_from

    def network(self) -> nn.Module:
        """The network in `form`, float32, eval mode. UserError if the weights do not fit the architecture."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = nets.build(self.architecture, self.classes)
        if self.weights is not None:
            self._load(network, self.weights)
        if self.form != "train":
            network.deploy(fold_batch_norms=self.form == "folded")  # type: ignore[operator]
        return network.eval()

    def _load(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        misfit = mismatch(network, weights)
        if misfit and not mismatch(network.deploy(), weights):  # type: ignore[operator]
            if self.form == "train":
                raise UserError("the weights are merged already and cannot be taken apart: export the deploy form")
            misfit = None
        if misfit:
            raise UserError(f"the weights are not those of {self.architecture} with {self.classes} classes: {misfit}")
        network.load_state_dict(weights)


class Target(Protocol):
    """One place to take networks to; entered into `lkspace.registry.exporters`.

    forms: what it takes. files: names of what it writes, so that nobody's files are written over. takes_weights:
    whether weights are in them.
    """

    forms: tuple[Form, ...]
    files: tuple[str, ...]
    takes_weights: bool

    def refusal(self, architecture: Architecture, form: Form) -> str | None:
        """Why this architecture cannot be expressed there in this form, with the mend if there is one; or None."""
        ...

    def write(self, package: Package, folder: Path) -> None:
        """Write all files into an empty folder."""
        ...

    def verify(self, folder: Path) -> None:
        """Load what `write` wrote and compare. RunError if it gives other numbers, UserError if it cannot be read."""
        ...


def mismatch(network: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """The first key in which a state dict and a network differ, by presence or shape; None if it fits."""
    own = network.state_dict()
    for key, value in own.items():
        if key not in weights:
            return f"{key} is missing"
        if weights[key].shape != value.shape:
            return f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}"
    return next((f"{key} is unknown" for key in weights if key not in own), None)
