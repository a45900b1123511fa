"""What every source of images gives, and how its images are worked on in parallel yet written in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lkspace.processor import cores

SplitName = Literal["train", "val"]
SPLITS: tuple[SplitName, SplitName] = ("train", "val")
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
MEMORY = 2**30  # bytes that decoding may take
T = TypeVar("T")
R = TypeVar("R")


class Source(Protocol):
    """One kind of `--data`; made from what follows the colon of the spec, which it has checked.

    flip, shift: whether a mirrored image keeps its label, and whether moving images about makes sense.
    epoch_images: training images of an epoch; None: all.
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
    def epoch_images(self) -> int | None: ...  # noqa: D102
    @property
    def native_size(self) -> int | None: ...  # noqa: D102
    @property
    def fixed_size(self) -> bool: ...  # noqa: D102

    def files(self) -> list[Path]:
        """What the arrays are read from, in an order that depends on nothing else; [] if they are drawn."""
        ...

    def fingerprint(self) -> object:
        """All that the arrays depend on beside the size and the files' contents, as JSON types."""
        ...

    def labels(self, split: SplitName) -> Labels:
        """(n,) in [0, classes), in the order of `chunks`."""
        ...

    def chunks(self, split: SplitName, size: int) -> Iterator[Pixels]:
        """(k, size, size, 3) arrays that together are the split, decoded in parallel, never all at once."""
        ...


def in_order(work: Callable[[T], R], items: Iterable[T], size: int) -> Iterator[R]:
    """`map(work, items)` on one thread per core, results waiting for the consumer, four a thread at most.

    size: bytes that one of them takes at the most; fewer are under way where all together would exceed a gigabyte.
    Threads, because Pillow and numpy let go of the interpreter while they decode, resize and draw.
    """
    most = max(1, MEMORY // size)
    workers = min(cores(), most)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= min(4 * workers, most):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
