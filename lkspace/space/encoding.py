"""Coordinates for models of a search space: one per variable where one tells its choices apart, else one per stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lkspace.space.architecture import Architecture
from lkspace.space.variable import Value, Variable, number

_REDUCE: dict[str, Callable[[Sequence[float]], float]] = {"max": max, "mean": lambda v: sum(v) / len(v)}


@dataclass(frozen=True)
class Axis:
    """One coordinate: a field's numbers in some stages, reduced to one and scaled from [low, high] to [0, 1]."""

    field: str
    stages: tuple[int, ...]
    reduce: Literal["max", "mean"]
    low: float
    high: float

    def position(self, architecture: Architecture) -> float:
        """Where the architecture lies on this axis, clamped to [0, 1]."""
        value = getattr(architecture, self.field)
        values = [value[s] for s in self.stages] if self.stages else [value]
        scaled = (_reduced(self.field, values, self.reduce) - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, scaled))


def axes_of(variables: Sequence[Variable], limits: Sequence[int]) -> tuple[Axis, ...]:
    """The axes of a space with these variables and largest useful kernels; none is constant over the choices.

    A choice that is one value for all stages is told by the largest of them: canonical form only lowers kernels and
    drops re-param kernels. Choices that rise together in all stages are told by their mean. Others need every stage;
    so do lists of re-param kernels, whose mean canonical form can change out of order.
    """
    found: list[Axis] = []
    for variable in variables:
        if variable.scalar:
            found += _axis(variable, variable.stages, "max", limits)
        elif variable.ordered and variable.field != "reparam":
            found += _axis(variable, variable.stages, "mean", limits)
        else:
            for stage in variable.stages:
                found += _axis(variable, (stage,), "max", limits)
    return tuple(found)


def _axis(
    variable: Variable, stages: tuple[int, ...], reduce: Literal["max", "mean"], limits: Sequence[int]
) -> list[Axis]:
    """The axis over these stages, or none if all choices are the same there."""
    positions = [i for i, s in enumerate(variable.stages) if s in stages] or [0]
    numbers = [
        _reduced(variable.field, [_useful(variable, values[i], i, limits) for i in positions], reduce)
        for values in variable.values
    ]
    if variable.field == "reparam":
        numbers.append(0.0)  # canonical form may leave none of it even where none is no choice
    low, high = min(numbers), max(numbers)
    return [Axis(variable.field, stages, reduce, low, high)] if low < high else []


def _useful(variable: Variable, value: Value, position: int, limits: Sequence[int]) -> Value:
    if variable.field != "kernels" or value is None:
        return value
    return min(value, limits[variable.stages[position]])


def _reduced(field: str, values: Sequence[Value], reduce: str) -> float:
    return _REDUCE[reduce]([number(field, value) for value in values])
