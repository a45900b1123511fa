"""Constraints of a space: relations between stages (`kernels non-increasing`) and bounds on costs (`params<=2M`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lkspace.errors import UserError
from lkspace.quantity import Bound
from lkspace.space.architecture import PER_STAGE, Architecture

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "non-increasing": lambda a, b: a >= b,
    "non-decreasing": lambda a, b: a <= b,
    "increasing": lambda a, b: a < b,
    "decreasing": lambda a, b: a > b,
    "uniform": lambda a, b: a == b,
}
COSTS = ("params", "flops")


@dataclass(frozen=True)
class Relation:
    """How the values of one field go from stage to stage; no re-param kernel counts as one of side 0."""

    field: str
    relation: str

    def holds(self, architecture: Architecture) -> bool:
        """Whether each stage stands in the relation to the next."""
        values: Sequence[int | None] = getattr(architecture, self.field)
        return all(_RELATIONS[self.relation](a or 0, b or 0) for a, b in pairwise(values))

    def __str__(self) -> str:
        return f"{self.field} {self.relation}"


def parse_constraint(text: str) -> Relation | Bound:
    """`FIELD RELATION` or `params<=NUMBER`; UserError with what is allowed otherwise."""
    if "=" in text or "<" in text or ">" in text:
        bound = Bound.parse(text)
        if bound.name not in COSTS:
            raise UserError(
                f"constraint {text!r}: a space can bound {' and '.join(COSTS)} only;"
                " bounds on other scores are given to the search as --constraint"
            )
        return bound
    words = text.split()
    if len(words) != 2 or words[0] not in PER_STAGE or words[1] not in _RELATIONS:
        raise UserError(
            f"constraint {text!r}: expected 'params<=NUMBER', 'flops<=NUMBER' or FIELD RELATION with FIELD one of"
            f" {', '.join(PER_STAGE)} and RELATION one of {', '.join(_RELATIONS)}"
        )
    return Relation(*words)
