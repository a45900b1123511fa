"""Points of an Optuna search space as plain parameters: random, all, one step away, crossed; and as vectors."""

import math
from collections.abc import Hashable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Params = dict[str, Any]
Floats = npt.NDArray[np.float64]
STEPS = (0.02, 0.1, 0.3)  # of a number's range: how far its neighbours lie


class Parameters:
    """The points of a search space: a distribution for each name."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space = {name: space[name] for name in sorted(space)}
        self._codes = {
            name: {choice: _encoded(d, choice) for choice in d.choices}
            for name, d in self._space.items()
            if isinstance(d, CategoricalDistribution)
        }

    def key(self, params: Mapping[str, Any]) -> Hashable:
        """Equal for equal points."""
        return tuple(params[name] for name in self._space)

    @property
    def size(self) -> float:
        """Number of points; infinite where a number has no step."""
        return math.prod(_count(d) for d in self._space.values())

    def all(self) -> Iterator[Params]:
        """Every point of a space of finite size."""
        for values in product(*(_values(d) for d in self._space.values())):
            yield dict(zip(self._space, values, strict=True))

    def random(self, count: int, rng: np.random.Generator) -> list[Params]:
        """Points drawn uniformly, numbers with `log` on that scale."""
        columns = [_draw(d, count, rng) for d in self._space.values()]
        return [dict(zip(self._space, row, strict=True)) for row in zip(*columns, strict=True)]

    def steps(self, params: Mapping[str, Any]) -> list[Params]:
        """The points one step away: another choice, or a number a little or much larger or smaller."""
        return [{**params, name: value} for name, d in self._space.items() for value in _others(d, params[name])]

    def cross(self, a: Mapping[str, Any], b: Mapping[str, Any], rng: np.random.Generator) -> Params:
        """A point that has each parameter from one of two."""
        first = rng.random(len(self._space)) < 0.5
        return {name: (a if take else b)[name] for name, take in zip(self._space, first, strict=True)}

    def encode(self, params: Mapping[str, Any]) -> Floats:
        """The point as a vector in [0, 1]: numbers by value, numeric choices by order, others a coordinate a choice."""
        found: list[float] = []
        for name, d in self._space.items():
            found += self._codes[name][params[name]] if name in self._codes else [_place(_number(d), params[name])]
        return np.array(found, dtype=np.float64)


def _number(d: BaseDistribution) -> FloatDistribution | IntDistribution:
    if not isinstance(d, FloatDistribution | IntDistribution):
        raise TypeError(f"{type(d).__name__} is no distribution of Optuna's that is known here")
    return d


def _count(d: BaseDistribution) -> float:
    if isinstance(d, CategoricalDistribution):
        return len(d.choices)
    d = _number(d)
    return math.inf if d.step is None else math.floor((d.high - d.low) / d.step + 1e-9) + 1


def _values(d: BaseDistribution) -> list[Any]:
    if isinstance(d, CategoricalDistribution):
        return list(d.choices)
    d = _number(d)
    assert d.step is not None
    return [_valid(d, d.low + i * d.step) for i in range(int(_count(d)))]


def _draw(d: BaseDistribution, count: int, rng: np.random.Generator) -> list[Any]:
    if isinstance(d, CategoricalDistribution):
        return [d.choices[i] for i in rng.integers(len(d.choices), size=count).tolist()]
    return [_at(_number(d), x) for x in rng.random(count).tolist()]


def _others(d: BaseDistribution, value: Any) -> list[Any]:
    if isinstance(d, CategoricalDistribution):
        return [c for c in d.choices if c is not value and c != value]
    d = _number(d)
    here = _place(d, value)
    found = {_at(d, min(1.0, max(0.0, here + sign * step))) for step in STEPS for sign in (1, -1)}
    if d.step is not None:
        found |= {_valid(d, value + d.step), _valid(d, value - d.step)}
    return sorted(found - {value})


def _at(d: FloatDistribution | IntDistribution, place: float) -> Any:
    """The number at a place in [0, 1] of the range; whole numbers and steps have equal shares of it."""
    half = 0.5 * (d.step or 0.0)
    low, high = d.low - half, d.high + half
    if d.log:
        return _valid(d, math.exp(math.log(low) + place * (math.log(high) - math.log(low))))
    return _valid(d, low + place * (high - low))


def _place(d: FloatDistribution | IntDistribution, value: float) -> float:
    if d.single():
        return 0.0
    if d.log:
        return (math.log(value) - math.log(d.low)) / (math.log(d.high) - math.log(d.low))
    return (value - d.low) / (d.high - d.low)


def _valid(d: FloatDistribution | IntDistribution, number: float) -> Any:
    if d.step is not None:
        most = math.floor((d.high - d.low) / d.step + 1e-9)
        number = d.low + d.step * min(most, max(0, round((number - d.low) / d.step)))
    number = min(d.high, max(d.low, number))
    return int(number) if isinstance(d, IntDistribution) else float(number)


def _encoded(d: CategoricalDistribution, value: Any) -> list[float]:
    if all(isinstance(c, int | float) and not isinstance(c, bool) for c in d.choices):
        return [sorted(d.choices).index(value) / max(1, len(d.choices) - 1)]  # type: ignore[type-var]
    chosen = [float(c is value or c == value) for c in d.choices]
    return chosen[1:] if len(chosen) == 2 else chosen
