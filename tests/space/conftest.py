"""A family without torch and random search spaces over it, with an oracle that knows only their YAML form."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st

from lkspace import registry
from lkspace.space.architecture import Architecture


@dataclass(frozen=True)
class ToyCost:
    params: int
    macs: int


class Toy:
    """Costs that a person can add up: per stage, blocks x channels x (kernel area + inside), times pixels for FLOPs."""

    references: ClassVar = {
        "toy-big": Architecture("toy", (3, 3), (64, 64), (31, 31), (5, 5), (True, True), stem_stride=1),
    }

    @staticmethod
    def costs(architecture: Architecture, *, size: int, classes: int, form: str) -> list[ToyCost]:
        assert form == "deploy"
        parts = []
        for b, c, k, side in zip(
            architecture.blocks,
            architecture.channels,
            architecture.kernels,
            architecture.map_sizes(size),
            strict=True,
        ):
            params = b * c * (k * k + int(architecture.dw_ratio * architecture.ffn_ratio * c))
            parts.append(ToyCost(params, params * side * side))
        return [*parts, ToyCost(classes, classes)]


@pytest.fixture(scope="session", autouse=True)
def toy() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    registry.families.names()
    patch.setitem(registry.families._entries, "toy", Toy())
    yield
    patch.undo()


FIELDS = ("blocks", "channels", "kernels", "reparam", "shortcut")
_VALUES: dict[str, list[Any]] = {
    "blocks": [1, 2, 3],
    "channels": [4, 6, 8, 16],
    "kernels": [1, 3, 5, 7, 9, 15, 31],
    "reparam": [None, 3, 5, 7],
    "shortcut": [True, False],
}


def make(**changes: Any) -> dict[str, Any]:
    """A small valid space of two stages, with keys replaced."""
    fields: dict[str, Any] = {
        "name": "small",
        "family": "toy",
        "image_size": 16,
        "classes": 3,
        "stem_stride": 1,
        "stages": 2,
        "blocks": {"per_stage": [1, 2]},
        "channels": {"whole": [[4, 8], [8, 16]]},
        "kernels": {"per_stage": [[3, 9, 31], [3, 7, 15, 31]]},
        "reparam": {"whole": ["none", 3, 5]},
        "shortcut": {"whole": [True, False]},
        "ffn_ratio": [2, 4],
    }
    return {key: value for key, value in (fields | changes).items() if value is not ...}


@st.composite
def spaces(draw: st.DrawFn, points: int = 300) -> dict[str, Any]:
    """YAML forms of random spaces with at most so many points."""
    stages = draw(st.integers(1, 3))
    room = points
    fields: dict[str, Any] = {
        "name": "drawn",
        "family": "toy",
        "image_size": draw(st.sampled_from([8, 16, 21, 32])),
        "classes": 5,
        "stem_stride": draw(st.sampled_from([1, 2, 4])),
        "stages": stages,
    }
    for field in draw(st.permutations(FIELDS)):
        value = st.sampled_from(_VALUES[field])
        if draw(st.booleans()):
            entry = st.one_of(value, st.lists(value, min_size=stages, max_size=stages))
            key = lambda v: tuple(v) if isinstance(v, list) else (v,) * stages  # noqa: E731
            choices = draw(st.lists(entry, min_size=1, max_size=min(4, room), unique_by=key))
            fields[field] = {"whole": choices}
            room //= len(choices)
            continue
        lists = []
        for _ in range(stages):
            lists.append(draw(st.lists(value, min_size=1, max_size=min(4, room), unique=True)))
            room //= len(lists[-1])
        fields[field] = {"per_stage": lists}
    fields["dw_ratio"] = draw(st.sampled_from([[1.0], [1.0, 1.5]])) if room > 1 else [1.0]
    relations = ["kernels non-increasing", "channels non-decreasing", "blocks uniform", "reparam uniform"]
    fields["constraints"] = draw(st.lists(st.sampled_from(relations), max_size=1))
    if draw(st.booleans()):
        fields["constraints"].append(f"params<={draw(st.sampled_from([300, 2_000, 20_000]))}")
    return fields


def points(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every raw point of a YAML form, as the fields of an architecture before canonical form."""
    stages = fields["stages"]
    options = []
    for field in FIELDS:
        [(kind, choices)] = fields[field].items()
        if kind == "whole":
            options.append([tuple(c) if isinstance(c, list) else (c,) * stages for c in choices])
        else:
            lists = choices if isinstance(choices[0], list) else [choices] * stages
            options.append(list(product(*lists)))
    for *per_stage, dw, ffn in product(*options, fields.get("dw_ratio", [1.0]), fields.get("ffn_ratio", [4.0])):
        reparam = tuple(None if r == "none" else r for r in per_stage[3])
        yield dict(zip(FIELDS, per_stage, strict=True)) | {"reparam": reparam, "dw_ratio": dw, "ffn_ratio": ffn}


def build(fields: dict[str, Any], point: dict[str, Any]) -> Architecture:
    architecture = Architecture(fields["family"], stem_stride=fields["stem_stride"], **point)
    return architecture.canonical(fields["image_size"])


def keeps(fields: dict[str, Any], a: Architecture) -> bool:
    """The constraints, read again from their words."""
    for text in fields.get("constraints", []):
        if text.startswith("params"):
            total = fields["classes"] + sum(
                b * c * (k * k + int(a.dw_ratio * a.ffn_ratio * c))
                for b, c, k in zip(a.blocks, a.channels, a.kernels, strict=True)
            )
            good = total <= int(text.removeprefix("params<="))
        else:
            field, relation = text.split()
            values = [v or 0 for v in getattr(a, field)]
            good = {
                "non-increasing": values == sorted(values, reverse=True),
                "non-decreasing": values == sorted(values),
                "uniform": len(set(values)) == 1,
            }[relation]
        if not good:
            return False
    return True
