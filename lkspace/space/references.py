"""Reference points of a search space: published architectures by name, or own ones written out; tried first."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lkspace import registry
from lkspace.errors import UserError
from lkspace.space.architecture import PER_STAGE, Architecture, short
from lkspace.space.schema import per_stage_values

if TYPE_CHECKING:
    from lkspace.space.search_space import SearchSpace

_FIELDS = ("name", "family", *PER_STAGE, "dw_ratio", "ffn_ratio", "stem_stride")


@dataclass(frozen=True)
class Reference:
    """An architecture to try first and what people call it."""

    name: str
    architecture: Architecture


def parse(space: SearchSpace, entries: Sequence[object], where: str) -> tuple[Reference, ...]:
    """The reference points of a space file, canonical at its size; UserError with the entry's place if one is wrong."""
    found: dict[Architecture, int] = {}
    points: list[Reference] = []
    for i, entry in enumerate(entries):
        place = f"{where}[{i}]"
        point = _published(space, entry, place) if isinstance(entry, str) else _own(space, entry, i, place)
        architecture = point.architecture.canonical(space.image_size)
        if architecture in found:
            raise UserError(
                f"{place} {point.name} is the same architecture as {where}[{found[architecture]}]"
                f" at {space.image_size} px; give it once"
            )
        found[architecture] = i
        points.append(Reference(point.name, architecture))
    return tuple(points)


def _published(space: SearchSpace, name: str, where: str) -> Reference:
    try:
        known: Mapping[str, Architecture] = registry.families.get(space.family).references
    except UserError as error:
        raise UserError(f"{where} is {short(name)}: {error}") from None
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"{where} is {short(name)}, not a published {space.family}; {hint}known: {', '.join(known)}")
    _check_frame(space, known[name], f"{where} {name}")
    return Reference(name, known[name])


def _own(space: SearchSpace, entry: object, index: int, where: str) -> Reference:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {short(entry)}, expected the name of a published architecture or a mapping")
    if unknown := [key for key in entry if key not in _FIELDS]:
        raise UserError(f"{where}: unknown key {short(unknown[0])}; known: {', '.join(_FIELDS)}")
    name = entry.get("name", f"reference-{index + 1}")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}.name is {short(name)}, expected a word")
    fields: dict[str, Any] = {"family": space.family, "stem_stride": space.stem_stride} | _fixed(space)
    fields |= {key: value for key, value in entry.items() if key != "name"}
    for field in (*PER_STAGE, "dw_ratio", "ffn_ratio"):
        if field not in fields:
            raise UserError(f"{where}: key {field!r} is missing, and the space does not fix it")
        if field in PER_STAGE:
            fields[field] = per_stage_values(field, fields[field], space.stages, f"{where}.{field}")
    try:
        architecture = Architecture.from_dict(fields)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    _check_frame(space, architecture, where)
    return Reference(name, architecture)


def _fixed(space: SearchSpace) -> dict[str, Any]:
    """Fields that the space leaves no choice about."""
    fixed: dict[str, Any] = {}
    for field in (*PER_STAGE, "dw_ratio", "ffn_ratio"):
        slots = [slot for slot in space.slots if slot.field == field]
        if all(len(slot.values) == 1 for slot in slots):
            values = [value for slot in slots for value in slot.values[0]]
            fixed[field] = values if field in PER_STAGE else values[0]
    return fixed


def _check_frame(space: SearchSpace, architecture: Architecture, where: str) -> None:
    """What a search does not vary must agree, or the point could not be compared with the others."""
    for key, needed in (("family", space.family), ("stem_stride", space.stem_stride), ("stages", space.stages)):
        if getattr(architecture, key) != needed:
            raise UserError(f"{where}: {key} is {getattr(architecture, key)}, but the space has {needed}")
