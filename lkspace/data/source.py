"""What every source of images gives, and how its images are worked on in parallel yet written in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

SplitName = Literal["train", "val"]
SPLITS: tuple[SplitName, SplitName] = ("train", "val")
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
T = TypeVar("T")
R = TypeVar("R")


class Source(Protocol):
    """One kind of `--data`; made from what follows the colon of the spec, which it has checked.

    flip, shift: whether a mirrored image keeps its label, and whether moving images about makes sense.
    native_size: side in pixels that the images have or were asked for; None where any side will do.
    fixed_size: whether that is a choice of the user's that nothing may override.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def flip(self) -> bool: ...  # noqa: D102
    @property
    def shift(self) -> bool: ...  # noqa: D102
    @property
    def native_size(self) -> int | None: ...  # noqa: D102
    @property
    def fixed_size(self) -> bool: ...  # noqa: D102

    def fingerprint(self) -> object:
        """All that the arrays depend on beside the size, as JSON types: it keys the cache, so it must be cheap."""
        ...

    def labels(self, split: SplitName) -> Labels:
        """(n,) in [0, classes), in the order of `chunks`."""
        ...

    def chunks(self, split: SplitName, size: int) -> Iterator[Pixels]:
        """(k, size, size, 3) arrays that together are the split, decoded in parallel, never all at once."""
        ...


def in_order(work: Callable[[T], R], items: Iterable[T], ahead: int = 4) -> Iterator[R]:
    """`map(work, items)` on one thread per core, at most `ahead` results a thread waiting for the consumer.

    Threads, because Pillow and numpy let go of the interpreter while they decode, resize and draw.
    """
    workers = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
