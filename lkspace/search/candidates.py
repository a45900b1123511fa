"""Which architectures may still be tried: those of the space that keep the cheap constraints and are new."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lkspace import registry
from lkspace.errors import UserError
from lkspace.quantity import Bound, human
from lkspace.scores.score import Setting
from lkspace.search.room import Room
from lkspace.space.architecture import Architecture
from lkspace.space.constraints import Relation
from lkspace.space.search_space import ENUMERATION_LIMIT, SearchSpace

DRAWS = 2000  # uniform draws before a space is searched whole, or taken to hold nothing new; each costs about 0.2 ms
DUPLICATE = "duplicate"
REMEMBERED = 20_000  # points; computing one costs 0.2 to 0.4 ms, keeping it 1 KB

# Values of cheap scores of an architecture, by name. A sampler that computes objectives instead of modelling them
# takes the same function.
Cheap = Callable[[Architecture], Mapping[str, float]]
# A measured score's value is the sum of these but for factors that are the same for all: a latency table's terms.
Estimate = Callable[[Architecture], Sequence[float]]


def cheap_scores(space: SearchSpace, setting: Setting, names: Iterable[str]) -> Cheap:
    """The function that computes the cheap ones of these scores; params and FLOPs by arithmetic alone."""
    exact = {"params", "flops"}
    others = [s for n in dict.fromkeys(names) if (s := registry.scores.get(n)).cheap and n not in exact]

    def values(architecture: Architecture) -> dict[str, float]:
        costs: dict[str, float] = dict(space.costs(architecture))
        for score in others:
            *_, final = score.measure(architecture, setting)
            costs[score.name] = final.value
        return costs

    return values


@dataclass(frozen=True)
class Point:
    """What is known of a point of the space without measuring or training.

    costs: params, FLOPs and the cheap scores. estimates: terms of measured scores. features: coordinates for a model,
    the encoding and the logarithms of costs. broken: the constraint it breaks.
    """

    id: str
    costs: Mapping[str, float]
    estimates: Mapping[str, Sequence[float]]
    features: npt.NDArray[np.float64]
    broken: str | None


class Candidates:
    """The part of a space that a run may still try.

    cheap: values of cheap scores of an architecture. bounds: the run's constraints; those on other scores are not
    looked at here.
    tried: ids of architectures that are trials already. estimates: by name of the measured score. room: for trainings,
    None if that is not known.
    """

    def __init__(
        self,
        space: SearchSpace,
        cheap: Cheap,
        bounds: Sequence[Bound] = (),
        tried: Iterable[str] = (),
        estimates: Mapping[str, Estimate] | None = None,
        room: Room | None = None,
    ) -> None:
        self.space = space
        self.cheap = cheap
        self.estimates = dict(estimates or {})
        self._room = room
        own = [b for b in space.constraints if isinstance(b, Bound)]
        self._bounds = own + [b for b in bounds if registry.scores.get(b.name).cheap]
        self._tried = set(tried)
        self._names = [v.name for v in space.variables]
        self._left: list[Architecture] | None = None  # of a space that has been searched whole
        self._remembered = functools.lru_cache(maxsize=REMEMBERED)(self._point)

    def point(self, params: Mapping[str, Any]) -> Point:
        """The point that has these choices."""
        return self._remembered(tuple(params[name] for name in self._names))

    def features(self, architecture: Architecture) -> npt.NDArray[np.float64]:
        """As `Point.features`, of any architecture."""
        return self._features(architecture, self.space.costs(architecture))

    def _features(self, architecture: Architecture, costs: Mapping[str, float]) -> npt.NDArray[np.float64]:
        return np.concatenate(
            [self.space.encode(architecture), [math.log(costs[name]) for name in ("params", "flops")]]
        )

    def allows(self, point: Point) -> bool:
        """Whether a point may be tried: as `objection`."""
        return point.broken is None and point.id not in self._tried

    def objection(self, architecture: Architecture) -> str | None:
        """Why a canonical architecture may not be tried: "duplicate" or the constraint it breaks; None if it may."""
        if architecture.id in self._tried:
            return DUPLICATE
        return self._broken(architecture)

    def _broken(self, architecture: Architecture, values: Mapping[str, float] | None = None) -> str | None:
        """The first constraint that does not hold; values: of cheap scores, if they have been computed."""
        for constraint in self.space.constraints:
            if isinstance(constraint, Relation) and not constraint.holds(architecture):
                return str(constraint)
        if self._bounds:
            values = self.cheap(architecture) if values is None else values
            if broken := [b for b in self._bounds if not b.holds(values[b.name])]:
                return str(broken[0])
        return None if self._room is None or self._room.holds(architecture) else str(self._room)

    def _point(self, choices: tuple[Any, ...]) -> Point:
        architecture = self.space.decode(dict(zip(self._names, choices, strict=True)))
        costs = self.cheap(architecture)
        features = self._features(architecture, costs)
        estimates = {name: estimate(architecture) for name, estimate in self.estimates.items()}
        return Point(architecture.id, costs, estimates, features, self._broken(architecture, costs))

    def take(self, architecture: Architecture) -> None:
        """The architecture is a trial now."""
        self._tried.add(architecture.id)

    def draw(self, rng: np.random.Generator) -> Architecture | None:
        """One of the architectures that may be tried, uniform over points; None if there is none left.

        A space of up to 200,000 points is searched whole before None, a larger one by 2,000 draws.
        """
        for _ in range(min(DRAWS, 1 + self.space.size // 2)):
            architecture = self.space.sample(rng)
            if self.objection(architecture) is None:
                return architecture
        if self.space.size > ENUMERATION_LIMIT:
            return None
        if self._left is None:
            self._left = list(self.space.enumerate())
        self._left = [a for a in self._left if self.objection(a) is None]
        return self._left[int(rng.integers(len(self._left)))] if self._left else None

    def sample(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Up to `count` architectures that may be tried, drawn with replacement.

        Raises UserError that names the constraints and what the space offers if there is none.
        """
        drawn = [a for a in (self.space.sample(rng) for _ in range(count)) if self.objection(a) is None]
        if not drawn and (single := self.draw(rng)) is not None:
            drawn = [single]
        if not drawn:
            raise UserError(self._nothing_left(rng))
        return drawn

    def _nothing_left(self, rng: np.random.Generator) -> str:
        values = [self.cheap(self.space.sample(rng)) for _ in range(200)]
        offers = []
        for bound in self._bounds:
            has = [v[bound.name] for v in values]
            offers.append(f"{bound} ({human(min(has))} to {human(max(has))} there)")
        return f"no architecture of space {self.space.name} keeps {', '.join(offers)}: loosen the constraint"
