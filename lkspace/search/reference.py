"""The fixed corner from which a run's hypervolume is measured, settled before the first trial.

Cheap scores: 1.1 times the costliest of the space's reference points and 200 seeded samples. Measured costs such as
latency: 1.1 times the measured value of the costliest of those. Accuracy: chance, so that a network that learned
nothing dominates nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lkspace import registry
from lkspace.errors import RunError
from lkspace.quantity import Bound
from lkspace.scores.score import Setting
from lkspace.search.candidates import Candidates
from lkspace.space.architecture import Architecture
from lkspace.study.record import Objective

SAMPLES = 200
MARGIN = 1.1


def reference_point(
    objectives: Sequence[Objective],
    bounds: Sequence[Bound],
    candidates: Candidates,
    setting: Setting,
    measure: Callable[[str, Architecture], float],
) -> dict[str, float]:
    """One value for each objective, worse than what the run will find.

    measure: value of a score that is not cheap. Where a bound caps a cost, the corner is at most 1.1 times the bound:
    nothing beyond it can be in the front.
    """
    known = [a for a in candidates.space.reference_points if candidates.objection(a) is None]
    points = known + candidates.sample(SAMPLES, np.random.default_rng([setting.seed, 1]))
    costs = [(a, candidates.cheap(a)) for a in points]
    costliest = max(costs, key=lambda item: (item[1]["flops"], item[0].id))[0]
    corner = {}
    for objective in objectives:
        name = objective.name
        if objective.direction == "maximize":
            corner[name] = 1 / setting.classes if name == "accuracy" else 0.0
            continue
        is_cheap = registry.scores.get(name).cheap
        worst = max(c[name] for _, c in costs) if is_cheap else measure(name, costliest)
        caps = [b.value for b in bounds if b.name == name and b.relation == "<="]
        corner[name] = MARGIN * min([worst, *caps])
        if not 0 < corner[name] < float("inf"):
            raise RunError(f"{name} of {costliest} is {worst}: no reference point can be set")
    return corner
