"""Ask, score, tell: the search, run by Ray Tune, recorded in a study."""

from lkspace.search.pareto_sampler import ParetoSampler
from lkspace.search.run import Interrupted, run

__all__ = ["Interrupted", "ParetoSampler", "run"]
