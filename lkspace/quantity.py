"""Numbers with units as people write them: `latency<=5ms`, `params<=2M`, `accuracy>=80%`."""

import contextlib
import math
import re
from dataclasses import dataclass
from typing import Literal, Self

from lkspace.errors import UserError

# Factor from a suffix to the score's own unit: latency is in ms, counts are plain, accuracy is a fraction.
_SUFFIXES = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "count": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "fraction": {"": 1.0, "%": 1e-2},
}
_KINDS = {"latency": "latency", "accuracy": "fraction"}
_NEVER_NEGATIVE = ("latency", "accuracy", "params", "flops")
_ROUNDED_UP = 0.9995  # and more are 1 in three digits
_BOUND = re.compile(r"\s*([a-z_][a-z0-9_]*)\s*(<=|>=)\s*(-?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*", re.ASCII)


@dataclass(frozen=True)
class Bound:
    """A constraint on a score, in the score's own unit (latency ms; FLOPs, params counts; accuracy a fraction)."""

    name: str
    relation: Literal["<=", ">="]
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """`NAME<=VALUE[UNIT]`; UserError that says what was expected otherwise. A unit is required for latency."""
        match = _BOUND.fullmatch(text)
        if match is None:
            raise UserError(
                f"constraint {text!r}: expected NAME<=VALUE or NAME>=VALUE, as in 'latency<=5ms' or 'params<=2M'"
            )
        name, relation, number, suffix = match.groups()
        factors = _SUFFIXES[_KINDS.get(name, "count")]
        if suffix not in factors:
            allowed = ", ".join(repr(s) if s else "no unit" for s in factors)
            raise UserError(f"constraint {text!r}: unit {suffix!r} of {name} must be one of {allowed}")
        try:
            value = float(number)
        except ValueError:
            value = math.inf
        if not math.isfinite(value):  # 1.2.3, or 1e999
            raise UserError(f"constraint {text!r}: {number!r} is not a number")
        if value < 0 and name in _NEVER_NEGATIVE:
            raise UserError(f"constraint {text!r}: {name} is never less than 0; give a larger bound")
        if _KINDS.get(name) == "fraction" and value * factors[suffix] > 1:
            raise UserError(
                f"constraint {text!r}: {name} is a part of 1, or of 100 with a '%', as in {name}{relation}80%"
            )
        return cls(name, "<=" if relation == "<=" else ">=", value * factors[suffix])

    def holds(self, value: float) -> bool:
        """Whether the value keeps the bound; NaN never does."""
        return value <= self.value if self.relation == "<=" else value >= self.value

    def __str__(self) -> str:
        text = f"{self.name}{self.relation}{human(self.value, unit_of(self.name)).replace(' ', '')}"
        with contextlib.suppress(UserError):  # a bound that nobody would write, such as an accuracy beyond 1
            if math.isclose(Bound.parse(text).value, self.value, rel_tol=1e-12):
                return text
        return (
            f"{self.name}{self.relation}{self.value:.15g}{'ms' if self.name == 'latency' else ''}"  # to the last digit
        )


def unit_of(name: str) -> str:
    """Unit that a score's bounds are kept in, as `human` takes it; "" for counts."""
    return {"latency": "ms", "accuracy": "%"}.get(name, "")


def human(value: float, unit: str = "") -> str:
    """Three digits for a person: 15353525248 -> "15.4 G", 0.00421 "ms" -> "4.21 us", 0.8 "%" -> "80.0 %"."""
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "ms":
        for factor, name in ((1e3, "s"), (1.0, "ms"), (1e-3, "us")):
            if abs(value) >= _ROUNDED_UP * factor or name == "us":
                return f"{value / factor:.3g} {name}"
    for factor, name in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= _ROUNDED_UP * factor:
            return f"{value / factor:.3g} {name}{unit}"
    return f"{value:.3g} {unit}".strip()
