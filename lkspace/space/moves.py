"""Which choices build a given architecture, and which architectures lie one step from it.

Canonical form hides some of what was chosen: a kernel beyond 2S-1 and a re-param kernel that is not smaller than its
large kernel leave no trace. A re-param choice that has no effect now takes effect again when its large kernel grows, so
steps start from every point that builds the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from lkspace.space.architecture import PER_STAGE, Architecture
from lkspace.space.variable import Value, Variable, number

if TYPE_CHECKING:
    from lkspace.space.search_space import SearchSpace


def effective(
    slot: Variable, values: tuple[Value, ...], kernels: tuple[int, ...], limits: tuple[int, ...]
) -> tuple[Value, ...]:
    """What canonical form leaves of a choice, given the architecture's kernels and the largest useful ones."""
    pairs: Any = zip(slot.stages, values, strict=False)
    if slot.field == "kernels":
        return tuple(min(k, limits[s]) for s, k in pairs)
    if slot.field == "reparam":
        return tuple(r if r is not None and r < kernels[s] else None for s, r in pairs)
    return values


def matching(space: SearchSpace, slot: Variable, architecture: Architecture) -> list[int]:
    """Positions of the slot's choices that leave exactly what the canonical architecture has."""
    here = slot.current(architecture)
    return [
        i for i, values in enumerate(slot.values) if effective(slot, values, architecture.kernels, space.limits) == here
    ]


def one_step(space: SearchSpace, architecture: Architecture) -> Iterator[Architecture]:
    """Architectures one step from a canonical one, each once, feasible or not."""
    seen = {architecture}
    for variable in space.variables:
        for target in _targets(space, variable, architecture):
            for fields in _starts(space, variable, architecture):
                for stage, value in zip(variable.stages, variable.values[target], strict=False):
                    fields[variable.field][stage] = value
                if not variable.stages:
                    fields[variable.field] = variable.values[target][0]
                moved = space.build(fields)
                if moved not in seen:
                    seen.add(moved)
                    yield moved


def _targets(space: SearchSpace, variable: Variable, architecture: Architecture) -> list[int]:
    """Positions of the choices to go to."""
    here = matching(space, variable, architecture)
    if here:
        return sorted({step for i in here for step in variable.steps(i)})
    if not variable.ordered:
        return list(range(len(variable.values)))
    # Outside the choices: the nearest below and the nearest above.
    own = _total(variable, variable.current(architecture))
    totals = [_total(variable, values) for values in variable.values]
    below = [i for i, total in enumerate(totals) if total <= own]
    above = [i for i, total in enumerate(totals) if total > own]
    return below[-1:] + above[:1]


def _starts(space: SearchSpace, variable: Variable, architecture: Architecture) -> Iterator[dict[str, Any]]:
    """The architecture's fields; before a step of a kernel, once with each re-param choice that leaves no trace."""
    reparams = [s for s in space.slots if s.field == "reparam" and set(s.stages) & set(variable.stages)]
    if variable.field != "kernels":
        reparams = []
    options = [[r.values[i] for i in matching(space, r, architecture)] or [r.current(architecture)] for r in reparams]
    for chosen in product(*options):
        fields: dict[str, Any] = {name: list(getattr(architecture, name)) for name in PER_STAGE}
        fields |= {"dw_ratio": architecture.dw_ratio, "ffn_ratio": architecture.ffn_ratio}
        for slot, values in zip(reparams, chosen, strict=True):
            for stage, value in zip(slot.stages, values, strict=True):
                fields["reparam"][stage] = value
        yield fields


def _total(variable: Variable, values: tuple[Value, ...]) -> float:
    return sum(number(variable.field, value) for value in values)
