"""Ask, score, tell: the search, run by Ray Tune, recorded in a study."""

from lkspace.search.run import Interrupted, run

__all__ = ["Interrupted", "run"]
