"""Images and labels as every source gives them: decoded once, uint8, memory-mapped, with what they are called."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Split:
    """images: (n, size, size, 3) uint8, usually memory-mapped; labels: (n,) int64 in [0, classes)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageSet:
    """A data set of one size, ready to train on.

    name: the spec it came from; key: hash of content and options, the name of its cache folder.
    flip: whether a mirrored image keeps its label (photographs do, digits do not).
    shift: whether a training should move images about (not the digits, which lie at any place, up to the edge).
    epoch_images: training images of an epoch, the next epoch takes the next ones; None: all of them.
    """

    name: str
    key: str
    size: int
    class_names: tuple[str, ...]
    train: Split
    val: Split
    flip: bool
    shift: bool = True
    epoch_images: int | None = None
