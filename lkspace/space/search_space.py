"""A search space: which architectures may be built, how to draw, vary, encode and count them.

It is a product of variables (variable.py) cut by constraints (constraints.py), read from YAML (schema.py). A point of
the product is decoded to the architecture it builds in canonical form, so several points may be one architecture.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml

from lkspace import registry
from lkspace.errors import UserError
from lkspace.quantity import Bound, human
from lkspace.space import moves, references, schema, strict_yaml
from lkspace.space.architecture import PER_STAGE, Architecture
from lkspace.space.constraints import Relation
from lkspace.space.encoding import Axis, axes_of
from lkspace.space.locate import locate, shipped
from lkspace.space.references import Reference
from lkspace.space.variable import Choice, Value, Variable

# A raw point costs about 0.1 ms to decode and check: these are some 20 s and 2 s.
ENUMERATION_LIMIT = 200_000
SAMPLE_TRIES = 20_000


@dataclass(frozen=True)
class SearchSpace:
    """All architectures that a search may propose.

    slots: everything a point sets, fixed values included; `variables` are those with a choice.
    constraints: relations between stages and bounds on the deploy form's costs at image_size and classes.
    references: architectures to try first, by name; they keep the constraints but may lie outside the slots.
    """

    name: str
    family: str
    description: str
    image_size: int
    classes: int
    stem_stride: int
    stages: int
    slots: tuple[Variable, ...]
    constraints: tuple[Relation | Bound, ...] = ()
    references: tuple[Reference, ...] = ()

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """The shipped space of this name, or the one in this YAML file, checked whole.

        Raises UserError in one line - file, key, value, what is allowed - if it is neither or anything in it is wrong.
        """
        path = locate(name_or_path)
        where = path.stem if str(name_or_path) in shipped() else str(path)
        fields = strict_yaml.read(path)
        if isinstance(fields, dict):
            fields.setdefault("name", path.stem)
        space = cls.from_dict(fields, where)
        _check_family(space.family, where)
        _check_widths(space, where)
        judged = space if "classes" in fields else space.at(classes=2)  # the images say how many; no fewer than two
        for i, reference in enumerate(judged.references):
            if broken := judged.violations(reference.architecture):
                raise UserError(
                    f"{where}: reference_points[{i}] {reference.name} breaks the constraint {'; '.join(broken)}"
                )
        return space

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str = "search space") -> Self:
        """Inverse of `to_dict`: the mapping of a YAML file. Needs no network code unless a reference point is a name.

        Raises UserError, starting with `where`, on the first wrong key or value.
        """
        file = schema.check(dict(fields) if isinstance(fields, Mapping) else fields, where)
        space = cls(
            name=file.name,
            family=file.family,
            description=" ".join(file.description.split()),
            image_size=file.image_size,
            classes=file.classes,
            stem_stride=file.stem_stride,
            stages=file.stages,
            slots=schema.variables(file, where),
            constraints=schema.constraints(file, where),
        )
        return replace(space, references=references.parse(space, file.reference_points, f"{where}: reference_points"))

    def to_dict(self) -> dict[str, Any]:
        """The space as searched, defaults filled in and reference points written out; plain data for YAML or JSON."""
        fields: dict[str, Any] = {
            key: getattr(self, key)
            for key in ("name", "family", "description", "image_size", "classes", "stem_stride", "stages")
        }
        for field in PER_STAGE:
            slots = [slot for slot in self.slots if slot.field == field]
            if slots[0].name == field:
                fields[field] = {"whole": [v[0] if len(set(v)) == 1 else list(v) for v in slots[0].values]}
            else:
                fields[field] = {"per_stage": [[v[0] for v in slot.values] for slot in slots]}
        for slot in self.slots:
            if not slot.stages:
                fields[slot.field] = [v[0] for v in slot.values]
        fields["constraints"] = [
            f"{c.name}{c.relation}{c.value:.15g}" if isinstance(c, Bound) else str(c) for c in self.constraints
        ]
        fields["reference_points"] = [{"name": r.name, **r.architecture.to_dict()} for r in self.references]
        return fields

    def to_yaml(self) -> str:
        """`to_dict` as YAML text that `load` reads."""
        return yaml.dump(self.to_dict(), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)

    def at(self, image_size: int | None = None, classes: int | None = None) -> Self:
        """The same space for other data: canonical forms and costs are those of the new size and classes.

        Reference points that become the same architecture at the new size are kept once.
        """
        space = replace(self, image_size=image_size or self.image_size, classes=classes or self.classes)
        names: dict[Architecture, str] = {}
        for reference in self.references:
            names.setdefault(reference.architecture.canonical(space.image_size), reference.name)
        return replace(space, references=tuple(Reference(name, point) for point, name in names.items()))

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """What there is to choose: the slots with two choices or more."""
        return tuple(slot for slot in self.slots if len(slot.values) > 1)

    @property
    def size(self) -> int:
        """Number of points: the product of the numbers of choices, before constraints and before points that
        build the same function are counted once."""
        return math.prod(len(variable.values) for variable in self.variables)

    @property
    def reference_points(self) -> tuple[Architecture, ...]:
        """Architectures to try first, canonical at image_size, in the file's order."""
        return tuple(reference.architecture for reference in self.references)

    @cached_property
    def limits(self) -> tuple[int, ...]:
        """Largest kernel that has an effect in each stage, 2S-1."""
        return tuple(2 * side - 1 for side in self.map_sizes)

    @property
    def map_sizes(self) -> tuple[int, ...]:
        """Side of the feature map that each stage sees."""
        ones = (1,) * self.stages
        probe = Architecture(self.family, ones, ones, ones, ones, (True,) * self.stages, stem_stride=self.stem_stride)
        return probe.map_sizes(self.image_size)

    def build(self, values: Mapping[str, Any]) -> Architecture:
        """The canonical architecture with these fields: a sequence per stage-wise field, a number per ratio."""
        return Architecture(family=self.family, stem_stride=self.stem_stride, **values).canonical(self.image_size)

    def decode(self, params: Mapping[str, Choice]) -> Architecture:
        """The architecture, canonical at image_size, that one choice for each variable builds.

        Raises UserError if a variable is missing or unknown or its value is none of the choices.
        """
        names = [variable.name for variable in self.variables]
        if wrong := sorted(set(names).symmetric_difference(params)):
            kind = "missing" if wrong[0] in names else "unknown"
            raise UserError(f"search space {self.name}: parameter {wrong[0]!r} is {kind}; known: {', '.join(names)}")
        indices = []
        for variable in self.variables:
            choice = params[variable.name]
            if choice not in variable.index_of:
                raise UserError(
                    f"search space {self.name}: {variable.name} is {choice!r}, expected one of"
                    f" {', '.join(str(c) for c in variable.choices)}"
                )
            indices.append(variable.index_of[choice])
        return self._at(indices)

    def params_of(self, architecture: Architecture) -> dict[str, Choice] | None:
        """Choices that decode to the canonical form of the architecture (the first such), or None if none do."""
        architecture = architecture.canonical(self.image_size)
        if not self._kindred(architecture):
            return None
        params: dict[str, Choice] = {}
        for slot in self.slots:
            matching = moves.matching(self, slot, architecture)
            if not matching:
                return None
            params[slot.name] = slot.choices[matching[0]]
        return {variable.name: params[variable.name] for variable in self.variables}

    def violations(self, architecture: Architecture) -> list[str]:
        """The constraints that the architecture breaks, with what it has; empty if it may be proposed."""
        broken = [str(c) for c in self.constraints if isinstance(c, Relation) and not c.holds(architecture)]
        bounds = [c for c in self.constraints if isinstance(c, Bound)]
        if bounds:
            costs = self.costs(architecture)
            broken += [f"{b} (it has {human(costs[b.name])})" for b in bounds if not b.holds(costs[b.name])]
        return broken

    def feasible(self, architecture: Architecture) -> bool:
        """Whether the architecture keeps every constraint."""
        relations = all(c.holds(architecture) for c in self.constraints if isinstance(c, Relation))
        return relations and not self.violations(architecture)

    def costs(self, architecture: Architecture) -> dict[str, int]:
        """Parameters and FLOPs of the deploy form at image_size and classes: {"params": ..., "flops": ...}."""
        family = registry.families.get(self.family)
        parts = family.costs(architecture, size=self.image_size, classes=self.classes, form="deploy")
        return {"params": sum(p.params for p in parts), "flops": sum(p.macs for p in parts)}

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A feasible architecture, canonical; each feasible point of the product is equally likely.

        Points that break a constraint are drawn again. Raises UserError if none of 20,000 keeps them all.
        """
        for _ in range(SAMPLE_TRIES):
            architecture = self.draw(rng)
            if self.feasible(architecture):
                return architecture
        raise UserError(
            f"search space {self.name}: none of {SAMPLE_TRIES} random points keeps the constraints"
            f" {', '.join(map(str, self.constraints))}; loosen one"
        )

    def draw(self, rng: np.random.Generator) -> Architecture:
        """What a uniformly drawn point of the product builds, whether it keeps the constraints or not."""
        counts = [len(variable.values) for variable in self.variables]
        return self._at(rng.integers(counts).tolist() if counts else [])

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All feasible architectures one step away, in a fixed order, without the architecture itself.

        One step: one variable at a point that decodes to the architecture goes to the next choice up or down, or to any
        other if its choices have no order. From an architecture outside the space, to the choices next to its value.
        """
        architecture = architecture.canonical(self.image_size)
        return [a for a in moves.one_step(self, architecture) if self.feasible(a)]

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """What the coordinates of `encode` stand for."""
        return axes_of(self.variables, self.limits)

    def encode(self, architecture: Architecture) -> npt.NDArray[np.float64]:
        """The architecture as a vector in [0, 1], one coordinate per entry of `axes`.

        By value, on a log scale for all but re-param kernel and shortcut; a value beyond the choices is clamped.
        Different canonical architectures of the space have different vectors.
        """
        architecture = architecture.canonical(self.image_size)
        return np.array([axis.position(architecture) for axis in self.axes], dtype=np.float64)

    def enumerate(self) -> Iterator[Architecture]:
        """Every feasible canonical architecture once, in the order of the product.

        Raises UserError at once if the space has more than 200,000 points.
        """
        if self.size > ENUMERATION_LIMIT:
            raise UserError(
                f"search space {self.name} has {self.size:,} points, more than the {ENUMERATION_LIMIT:,}"
                " that can be enumerated; sample it instead"
            )
        return self._enumerate()

    def _enumerate(self) -> Iterator[Architecture]:
        seen: set[Architecture] = set()
        for indices in product(*(range(len(variable.values)) for variable in self.variables)):
            architecture = self._at(indices)
            if architecture not in seen:
                seen.add(architecture)
                if self.feasible(architecture):
                    yield architecture

    def _at(self, indices: Any) -> Architecture:
        """The architecture at these positions in the choices of `variables`."""
        values: dict[str, Any] = {field: [None] * self.stages for field in PER_STAGE}
        chosen = iter(indices)
        for slot in self.slots:
            _put(values, slot, slot.values[next(chosen) if len(slot.values) > 1 else 0])
        return self.build(values)

    def _kindred(self, architecture: Architecture) -> bool:
        return (architecture.family, architecture.stem_stride, architecture.stages) == (
            self.family,
            self.stem_stride,
            self.stages,
        )


def _put(values: dict[str, Any], slot: Variable, chosen: tuple[Value, ...]) -> None:
    """Enter a slot's choice into the fields of an architecture."""
    if not slot.stages:
        values[slot.field] = chosen[0]
    for stage, value in zip(slot.stages, chosen, strict=False):
        values[slot.field][stage] = value


def _check_family(family: str, where: str) -> None:
    """UserError, starting with `where`, if no family has this name."""
    try:
        registry.families.get(family)
    except UserError as error:
        raise UserError(f"{where}: family: {error}") from None


def _check_widths(space: SearchSpace, where: str) -> None:
    """UserError if a ratio leaves no channel of the narrowest stage."""
    channels = (v for slot in space.slots if slot.field == "channels" for chosen in slot.values for v in chosen)
    least = min(int(v) for v in channels if v is not None)
    for slot in space.slots:
        ratios = [float(chosen[0]) for chosen in slot.values if not slot.stages and chosen[0] is not None]
        if ratios and int(least * (ratio := min(ratios))) < 1:
            raise UserError(f"{where}: {slot.field}: {ratio:g} leaves no channel of {least}; make one of them larger")


class _Dumper(yaml.SafeDumper):
    """Writes a list out each time instead of naming it once and referring back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
