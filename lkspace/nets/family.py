"""What a family of networks offers to the rest of the program."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

from torch import Tensor
from torch.nn import BatchNorm2d, Module

from lkspace.space.architecture import Architecture

Form = Literal["train", "deploy", "folded"]


@dataclass(frozen=True)
class Cost:
    """Cost of one part of a network for one image.

    part: where, as a state-dict prefix ("stages.2"); kind: what ("large kernel", "re-param kernel", "pointwise",
    "ffn", "stem", "transition", "norm", "head"); params: learned numbers; macs: multiply-adds.
    """

    part: str
    kind: str
    params: int
    macs: int


@dataclass(frozen=True)
class Part:
    """A part of the deploy form with every batch norm folded, which takes its time wherever it stands.

    key: all that its time depends on beside device, batch and precision, in words; parts with one key are alike.
    shape: (channels, height, width) of what goes in. build: makes it, in eval mode, with fresh weights.
    """

    key: str
    shape: tuple[int, int, int]
    build: Callable[[], Module] = field(compare=False, repr=False)


class Network(Protocol):
    """A built network: an `nn.Module` in train form with these methods beside."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, 3, h, w) -> logits (n, classes)."""
        ...

    def features(self, x: Tensor) -> list[Tensor]:
        """x: (n, 3, h, w) -> one map (n, C_s, h_s, w_s) per stage, before the final norm."""
        ...

    def residual_norms(self) -> Iterator[BatchNorm2d]:
        """The last batch norm of every branch that is added to its input; a training may begin them at zero."""
        ...

    def activated_norms(self) -> Iterator[BatchNorm2d]:
        """The batch norms whose shift moves what a nonlinearity takes, one for each nonlinearity."""
        ...

    def deploy(self, fold_batch_norms: bool = False) -> Self:
        """Merge in place and return self; a second call changes nothing."""
        ...


class Family(Protocol):
    """A class of networks, entered into `lkspace.registry.families`; called with an architecture it builds one."""

    references: Mapping[str, Architecture]

    def __call__(self, architecture: Architecture, *, classes: int = 1000, drop_path: float = 0.0) -> Network:
        """The network in train form, initialised from torch's global generator."""
        ...

    def costs(self, architecture: Architecture, *, size: int | tuple[int, int], classes: int, form: Form) -> list[Cost]:
        """Costs of all parts by arithmetic, without building anything; "folded": every batch norm folded."""
        ...

    def activations(self, architecture: Architecture, *, size: int, classes: int) -> int:
        """How many numbers a training step keeps of one image for its gradients, without building anything."""
        ...

    def parts(self, architecture: Architecture, *, size: int, classes: int) -> list[Part]:
        """What one image passes through, one after the other, without building anything; blocks as often as they are.

        What decides a part: at most one stage's fields but `blocks` and `reparam`, and the next stage's channels.
        """
        ...
