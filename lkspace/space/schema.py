"""The YAML form of a search space, checked: every error names the key, the value and what is allowed."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from lkspace.errors import UserError
from lkspace.quantity import Bound
from lkspace.space.architecture import LARGEST, LARGEST_RATIO, LARGEST_STAGES, PER_STAGE, STEM_STRIDES, short
from lkspace.space.constraints import Relation, parse_constraint
from lkspace.space.variable import Value, Variable


class Choices(BaseModel):
    """How one field is chosen: stage by stage or for the whole network."""

    model_config = ConfigDict(extra="forbid", strict=True)

    per_stage: list[Any] | None = None
    whole: list[Any] | None = None


class SpaceFile(BaseModel):
    """Keys of a search-space file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=100)
    family: str = Field(min_length=1, max_length=100)
    description: str = ""
    image_size: int = Field(ge=8, le=4096)
    classes: int = Field(default=1000, ge=2, le=1_000_000)
    stem_stride: int = 4
    stages: int = Field(default=4, ge=1, le=LARGEST_STAGES)
    blocks: Choices
    channels: Choices
    kernels: Choices
    reparam: Choices = Choices(whole=[None])
    shortcut: Choices = Choices(whole=[True])
    dw_ratio: list[Any] = [1.0]
    ffn_ratio: list[Any] = [4.0]
    constraints: list[str] = []
    reference_points: list[Any] = []


def check(fields: object, where: str) -> SpaceFile:
    """The keys of a search space with defaults filled in; UserError, starting with `where`, on the first mistake."""
    if not isinstance(fields, dict):
        raise UserError(f"{where}: expected a mapping with the keys {', '.join(SpaceFile.model_fields)}")
    try:
        space = SpaceFile.model_validate(fields)
    except ValidationError as error:
        # A mistyped key is also a missing one: say what was typed.
        details = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise UserError(f"{where}: {_explained(details[0])}") from None
    if space.stem_stride not in STEM_STRIDES:
        raise UserError(f"{where}: stem_stride is {space.stem_stride}, expected 1, 2 or 4")
    return space


def variables(space: SpaceFile, where: str) -> tuple[Variable, ...]:
    """All that the file sets, fixed values included (variables with one choice), in the order of the fields."""
    found: list[Variable] = []
    for field in PER_STAGE:
        found += _choices(field, getattr(space, field), space.stages, f"{where}: {field}")
    for field in ("dw_ratio", "ffn_ratio"):
        values = [(_ratio(v, f"{where}: {field}[{i}]"),) for i, v in enumerate(getattr(space, field))]
        found.append(Variable.of(field, field, (), _distinct(values, f"{where}: {field}")))
    return tuple(found)


def constraints(space: SpaceFile, where: str) -> tuple[Relation | Bound, ...]:
    """The constraints, parsed."""
    found: list[Relation | Bound] = []
    for i, text in enumerate(space.constraints):
        try:
            constraint = parse_constraint(text)
        except UserError as error:
            raise UserError(f"{where}: constraints[{i}]: {error}") from None
        if constraint in found:
            raise UserError(f"{where}: constraints[{i}]: {text!r} is given twice")
        found.append(constraint)
    return tuple(found)


def per_stage_values(field: str, value: object, stages: int, where: str) -> tuple[Value, ...]:
    """One value per stage from a list of them or from one for all stages."""
    if not isinstance(value, list):
        return (_value(field, value, where),) * stages
    if len(value) != stages:
        raise UserError(
            f"{where} is {short(value)}: {len(value)} entries, but `stages` is {stages}; give one entry per stage"
        )
    return tuple(_value(field, v, f"{where}[{i}]") for i, v in enumerate(value))


def _choices(field: str, choices: Choices, stages: int, where: str) -> list[Variable]:
    if (choices.per_stage is None) == (choices.whole is None):
        raise UserError(f"{where}: expected one of the keys per_stage and whole")
    if choices.whole is not None:
        where = f"{where}.whole"
        values = [per_stage_values(field, v, stages, f"{where}[{i}]") for i, v in enumerate(choices.whole)]
        return [Variable.of(field, field, tuple(range(stages)), _distinct(values, where))]
    where = f"{where}.per_stage"
    entries: list[Any] = choices.per_stage or []
    if not any(isinstance(entry, list) for entry in entries):
        single = _distinct([(_value(field, v, f"{where}[{i}]"),) for i, v in enumerate(entries)], where)
        return [Variable.of(f"{field}_{s + 1}", field, (s,), single) for s in range(stages)]
    if len(entries) != stages:
        raise UserError(
            f"{where} has {len(entries)} lists, but `stages` is {stages}; give one list of choices per stage"
        )
    found = []
    for s, entry in enumerate(entries):
        if not isinstance(entry, list):
            raise UserError(f"{where}[{s}] is {short(entry)}, expected a list of choices as in the other stages")
        values = [(_value(field, v, f"{where}[{s}][{i}]"),) for i, v in enumerate(entry)]
        found.append(Variable.of(f"{field}_{s + 1}", field, (s,), _distinct(values, f"{where}[{s}]")))
    return found


def _distinct(values: Sequence[tuple[Value, ...]], where: str) -> Sequence[tuple[Value, ...]]:
    if not values:
        raise UserError(f"{where} is an empty list, expected at least one choice")
    for i, value in enumerate(values):
        if value in values[:i]:
            shown = value[0] if len(set(value)) == 1 else list(value)
            raise UserError(f"{where}[{i}] repeats the choice {short(shown)}; give each choice once")
    return values


def _value(field: str, value: object, where: str) -> Value:
    if field == "shortcut":
        if isinstance(value, bool):
            return value
        raise UserError(f"{where} is {short(value)}, expected yes or no")
    if field == "reparam" and (value is None or value == "none"):
        return None
    largest, odd = LARGEST[field], field in ("kernels", "reparam")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and 1 <= value <= largest and (value % 2 or not odd):  # type: ignore[operator]
        return value  # type: ignore[return-value]
    kind = f"an odd number from 1 to {largest}" if odd else f"a whole number from 1 to {largest}"
    raise UserError(f"{where} is {short(value)}, expected {kind}{', or none' if field == 'reparam' else ''}")


def _ratio(value: object, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 < value <= LARGEST_RATIO:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise UserError(f"{where} is {short(value)}, expected a number above 0, at most {LARGEST_RATIO}")


def _explained(error: ErrorDetails) -> str:
    place = error["loc"]
    key = _path(place)
    if error["type"] == "extra_forbidden":
        known = list(Choices.model_fields if place[0] in PER_STAGE else SpaceFile.model_fields)
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        return f"unknown key {short(key)}; {hint}"
    if error["type"] == "missing":
        return f"key {key!r} is missing"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key} is {short(error['input'])}, expected a mapping with the key per_stage or whole"
    expected = error["msg"].replace("Input should be", "expected").replace("String should", "expected to")
    return f"{key} is {short(error['input'])}, {expected}"


def _path(place: Iterable[int | str]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
