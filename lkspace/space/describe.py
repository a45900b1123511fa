"""A search space in words: what it offers (`describe`), and what its author may not have meant (`check`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lkspace.quantity import human
from lkspace.space import moves
from lkspace.space.search_space import SearchSpace
from lkspace.space.variable import Choice, Value, Variable, label, word

CHECK_SAMPLES = 1000


def describe(space: SearchSpace) -> str:
    """Variables, fixed values, constraints, size and reference points with their costs, for a person to read."""
    sides = ", ".join(map(str, space.map_sizes))
    lines = [f"{space.name}: {space.description}" if space.description else space.name]
    lines.append(
        f"{space.family}, {space.image_size} px, {space.classes} classes, stem stride {space.stem_stride},"
        f" {space.stages} stages with maps of {sides} px"
    )
    lines.append(f"{space.size:,} points in {len(space.variables)} variables")
    lines += ["", *_table([("variable", "choices"), *((v.name, _choices(v)) for v in space.variables)])]
    if fixed := [f"{slot.name} {_choices(slot)}" for slot in space.slots if len(slot.values) == 1]:
        lines += ["", f"fixed: {'; '.join(fixed)}"]
    lines += ["", f"constraints: {', '.join(map(str, space.constraints)) or 'none'}"]
    if space.references:
        rows = [("reference point", "params", "FLOPs", "architecture")]
        for reference in space.references:
            costs = space.costs(reference.architecture)
            rows.append((reference.name, human(costs["params"]), human(costs["flops"]), str(reference.architecture)))
        lines += ["", *_table(rows)]
    return "\n".join(lines)


def check(name_or_path: str | Path) -> list[str]:
    """Remarks on a space that is valid; what its author may not have meant starts with "warning: ".

    Costs and the share of points that keep the constraints are of 1,000 random points, the same each time.
    Raises UserError if the space is wrong or no point of it keeps the constraints.
    """
    space = SearchSpace.load(name_or_path)
    remarks = [f"{space.name} is valid: {space.size:,} points in {len(space.variables)} variables"]
    rng = np.random.default_rng(0)
    points = [space.draw(rng) for _ in range(CHECK_SAMPLES)]
    feasible = [point for point in points if space.feasible(point)] or [space.sample(rng)]
    share = len(feasible) / CHECK_SAMPLES
    if space.constraints:
        remarks.append(f"{100 * share:.3g} % of {CHECK_SAMPLES} random points keep the constraints")
    for cost, name in (("params", "params"), ("flops", "FLOPs")):
        values = sorted(space.costs(point)[cost] for point in feasible)
        low, middle, high = values[0], values[len(values) // 2], values[-1]
        remarks.append(f"{name} of those: {human(low)} to {human(high)}, median {human(middle)}")
    return remarks + [f"warning: {text}" for text in _warnings(space, share)]


def _warnings(space: SearchSpace, share: float) -> Iterator[str]:
    if space.size == 1:
        yield "there is nothing to choose: every field has one choice"
    if share < 0.01:
        yield "fewer than 1 % of the points keep the constraints, which makes drawing slow; loosen one"
    largest = _largest_kernels(space)
    for variable in space.variables:
        kept: dict[tuple[Value, ...], tuple[Value, ...]] = {}
        for values in variable.values:
            effect = moves.effective(variable, values, largest, space.limits)
            if effect in kept:
                yield (
                    f"{variable.name} {_shown(label(values))} builds the same as {_shown(label(kept[effect]))}: "
                    + _why(space, variable, largest)
                )
            kept.setdefault(effect, values)


def _why(space: SearchSpace, variable: Variable, largest: tuple[int, ...]) -> str:
    if variable.field == "kernels":
        limits = ", ".join(str(space.limits[s]) for s in variable.stages)
        return f"kernels beyond 2S-1 ({limits} here) have no further effect at {space.image_size} px"
    kernels = ", ".join(str(largest[s]) for s in variable.stages)
    return f"a re-param kernel must be smaller than its large kernel (at most {kernels} here)"


def _largest_kernels(space: SearchSpace) -> tuple[int, ...]:
    """The largest kernel that each stage can have, as far as it has an effect."""
    largest = [1] * space.stages
    for slot in space.slots:
        if slot.field == "kernels":
            for values in slot.values:
                for stage, kernel in zip(slot.stages, values, strict=True):
                    largest[stage] = max(largest[stage], min(int(kernel or 0), space.limits[stage]))
    return tuple(largest)


def _choices(slot: Variable) -> str:
    return ", ".join(_shown(choice) for choice in slot.choices)


def _shown(choice: Choice) -> str:
    return choice if isinstance(choice, str) else word(choice)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
