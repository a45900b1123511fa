"""What a search chooses: a variable sets one field of an architecture, in one stage or in all stages at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

from lkspace.space.architecture import Architecture

Value = int | float | bool | None
Choice = int | float | bool | str | None

# Costs and receptive fields go by ratios of these, so distances between them are measured on a log scale.
_LOGARITHMIC = ("blocks", "channels", "kernels", "dw_ratio", "ffn_ratio")


@dataclass(frozen=True)
class Variable:
    """One thing to choose.

    name: the field, with the stage if it is chosen stage by stage: "kernels_2" is the second stage's.
    stages: which stages it sets, from 0; empty for a ratio, which belongs to the whole network.
    values: one tuple per choice, with one entry per stage that is set (one entry for a ratio). No two are equal.
    ordered: each choice is at least as large as the one before in every stage, so "one step" has a meaning.
    """

    name: str
    field: str
    stages: tuple[int, ...]
    values: tuple[tuple[Value, ...], ...]
    ordered: bool

    @classmethod
    def of(cls, name: str, field: str, stages: tuple[int, ...], values: Sequence[tuple[Value, ...]]) -> Self:
        """A variable with its choices in rising order if they have one, else in the order given."""
        rising = sorted(values, key=lambda v: [float(x or 0) for x in v])
        ordered = all(all((x or 0) <= (y or 0) for x, y in zip(a, b, strict=True)) for a, b in pairwise(rising))
        return cls(name, field, stages, tuple(rising if ordered else values), ordered)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The choices as JSON scalars: a number, bool or None if it is the same in all stages, else "31-29-27-13"."""
        return tuple(label(values) for values in self.values)

    @cached_property
    def index_of(self) -> dict[Choice, int]:
        """Position of each choice."""
        return {choice: i for i, choice in enumerate(self.choices)}

    def steps(self, index: int) -> list[int]:
        """Choices one step from choice `index`: the next ones if ordered, else all others."""
        if not self.ordered:
            return [i for i in range(len(self.values)) if i != index]
        return [i for i in (index - 1, index + 1) if 0 <= i < len(self.values)]

    def current(self, architecture: Architecture) -> tuple[Value, ...]:
        """The architecture's values where this variable sets them."""
        value = getattr(architecture, self.field)
        return tuple(value[s] for s in self.stages) if self.stages else (value,)

    @property
    def scalar(self) -> bool:
        """Whether every choice is one value for all the stages it sets."""
        return all(len(set(values)) == 1 for values in self.values)


def label(values: Sequence[Value]) -> Choice:
    """One JSON scalar for the values of a choice."""
    if len(set(values)) == 1:
        return values[0]
    return "-".join(word(value) for value in values)


def number(field: str, value: Value) -> float:
    """Where a value lies on its field's scale."""
    return math.log(value) if field in _LOGARITHMIC and value else float(value or 0)


def word(value: Value) -> str:
    """A value as people write it in YAML."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}"
