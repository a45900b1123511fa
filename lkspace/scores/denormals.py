"""Numbers too small for full precision, which processors compute a hundred times as slowly: taken as 0 meanwhile."""

import contextlib
import sys
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Denormals count as 0 in this thread, and in those that torch starts for it; afterwards as before."""
    before = are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def are_flushed() -> bool:
    """Whether they are now: torch can set the mode but not tell it."""
    smallest = sys.float_info.min
    return smallest / 2 == 0.0
