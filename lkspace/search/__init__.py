"""Ask, score, tell: the search, run by Ray Tune, recorded in a study.

Each name is loaded when it is first used: every worker imports this package, and needs neither a sampler nor a study.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lkspace.search.driver import Interrupted, run
    from lkspace.search.pareto_sampler import ParetoSampler
    from lkspace.search.profiling import Profile, profile
    from lkspace.search.verification import verify

_HOMES = {
    "Interrupted": "lkspace.search.driver",
    "ParetoSampler": "lkspace.search.pareto_sampler",
    "Profile": "lkspace.search.profiling",
    "profile": "lkspace.search.profiling",
    "run": "lkspace.search.driver",
    "verify": "lkspace.search.verification",
}

__all__ = ["Interrupted", "ParetoSampler", "Profile", "profile", "run", "verify"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
