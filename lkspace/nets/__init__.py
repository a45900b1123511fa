"""Architecture in, network out: build one, or say what it costs without building it."""

from typing import cast

from torch import nn

from lkspace.errors import UserError
from lkspace.nets.family import Cost, Form, Part
from lkspace.registry import families
from lkspace.space.architecture import Architecture

__all__ = ["Cost", "Form", "Part", "activations", "build", "costs", "flops", "params", "parts", "reference"]


def build(architecture: Architecture, classes: int = 1000, drop_path: float = 0.0) -> nn.Module:
    """The network in train form, initialised from torch's global generator.

    Beside `forward` it has `.deploy(fold_batch_norms=False)`, which merges in place and returns it, and
    `.features(x)`, one map per stage (`lkspace.nets.family.Network`).
    Raises UserError if the family is unknown or the architecture leaves a layer without channels.
    """
    return cast(nn.Module, families.get(architecture.family)(architecture, classes=classes, drop_path=drop_path))


def costs(
    architecture: Architecture, size: int | tuple[int, int] = 224, classes: int = 1000, form: Form = "deploy"
) -> list[Cost]:
    """Parameters and multiply-adds of all parts for one image of `size` pixels a side, or (height, width).

    form: "train", "deploy" (re-param kernels merged) or "folded" (every other batch norm folded too).
    """
    return cast(
        list[Cost], families.get(architecture.family).costs(architecture, size=size, classes=classes, form=form)
    )


def params(architecture: Architecture, classes: int = 1000, form: Form = "deploy") -> int:
    """How many numbers the network learns."""
    return sum(cost.params for cost in costs(architecture, 1, classes, form))


def flops(
    architecture: Architecture, size: int | tuple[int, int] = 224, classes: int = 1000, form: Form = "deploy"
) -> int:
    """Multiply-adds of convolutions and linear layers for one image, as the papers count FLOPs."""
    return sum(cost.macs for cost in costs(architecture, size, classes, form))


def activations(architecture: Architecture, size: int = 224, classes: int = 1000) -> int:
    """How many numbers a training step keeps of one image of `size` pixels a side for its gradients."""
    return cast(int, families.get(architecture.family).activations(architecture, size=size, classes=classes))


def parts(architecture: Architecture, size: int = 224, classes: int = 1000) -> list[Part]:
    """What one image of `size` pixels a side passes through in the folded deploy form, without building anything."""
    return cast(list[Part], families.get(architecture.family).parts(architecture, size=size, classes=classes))


def references() -> dict[str, Architecture]:
    """The published architectures of all families, by name."""
    return {key: value for family in families.names() for key, value in families.get(family).references.items()}


def reference(name: str) -> Architecture:
    """A published architecture such as "replknet-31b"; UserError listing the known names if there is none."""
    known = references()
    if name not in known:
        raise UserError(f"unknown reference {name!r}; known: {', '.join(known)}")
    return known[name]
