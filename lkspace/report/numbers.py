"""Values of scores in words, the same on the page and in the terminal."""

from collections.abc import Mapping
from typing import Any

from lkspace.quantity import human, unit_of
from lkspace.study.record import Plan, Trial

UNKNOWN = "-"
BETTER = {"minimize": "lower is better", "maximize": "higher is better"}


def unit(plan: Plan, name: str) -> str:
    """Unit that a score's values are shown in, as `human` takes it."""
    units = {o.name: o.unit for o in plan.objectives}
    return unit_of(name) or units.get(name, "")


def shown(plan: Plan, name: str, value: float | None) -> str:
    """A value with its unit, three digits; "-" for None."""
    if not value:
        return UNKNOWN if value is None else "0"
    return human(value, unit(plan, name))


def interval(measurement: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """The ends of a measured value's interval, None if it has none."""
    ends = (measurement or {}).get("interval")
    if isinstance(ends, list | tuple) and len(ends) == 2 and None not in ends:
        return float(ends[0]), float(ends[1])
    return None


def with_interval(plan: Plan, name: str, measurement: Mapping[str, Any] | None) -> str:
    """ "4.21 ms (4.18 ms to 4.30 ms)", or without the bracket where nothing was repeated."""
    if measurement is None:
        return UNKNOWN
    text, ends = shown(plan, name, measurement["value"]), interval(measurement)
    return f"{text} ({shown(plan, name, ends[0])} to {shown(plan, name, ends[1])})" if ends else text


def scores(plan: Plan, trials: list[Trial]) -> list[str]:
    """Names of all scores, the objectives first."""
    measured = (name for t in trials for name in t.measurements)
    return list(dict.fromkeys([*(o.name for o in plan.objectives), *measured]))


def duration(seconds: float) -> str:
    """ "42 s", "12 min", "3.4 h"."""
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


def made_of(measurement: Mapping[str, Any] | None) -> str:
    """What a measurement says of itself beside value and interval: "repeats 60, device AMD EPYC"."""
    hidden = ("value", "interval")
    return ", ".join(f"{key} {plain(value)}" for key, value in (measurement or {}).items() if key not in hidden)


def plain(value: Any) -> str:
    """A value of JSON on one line; numbers to four digits, yes and no."""
    if value is None or isinstance(value, bool):
        return {None: UNKNOWN, True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{k} {plain(v)}" for k, v in value.items()) + ")"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(v) for v in value) + "]"
    return str(value)
