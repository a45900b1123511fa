"""lkspace: multi-objective search for large-kernel convolutional networks that are good on your hardware.

Everything a program needs is here; each name is loaded when it is first used, so that reading a study imports
neither torch nor Ray.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lkspace import kernels
    from lkspace.errors import RunError, UserError
    from lkspace.nets import build, flops, params, reference
    from lkspace.space.architecture import Architecture
    from lkspace.space.search_space import SearchSpace
    from lkspace.study import Study

try:
    __version__ = version("lkspace")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+unknown"

_HOMES = {
    "Architecture": "lkspace.space.architecture",
    "RunError": "lkspace.errors",
    "SearchSpace": "lkspace.space.search_space",
    "Study": "lkspace.study",
    "UserError": "lkspace.errors",
    "build": "lkspace.nets",
    "flops": "lkspace.nets",
    "params": "lkspace.nets",
    "reference": "lkspace.nets",
}

__all__ = [
    "Architecture",
    "RunError",
    "SearchSpace",
    "Study",
    "UserError",
    "__version__",
    "build",
    "flops",
    "kernels",
    "params",
    "reference",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "kernels":
        return importlib.import_module("lkspace.kernels")
    raise AttributeError(f"module 'lkspace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
