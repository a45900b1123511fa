"""Batches of a split, the same for the same seed and epoch, made on the device from the uint8 images.

Nothing is held as floats but the batch in hand. Augmentation is the usual one of small images: every image shifted by
up to an eighth of its side, edges repeated, and mirrored; each where the image set allows it.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lkspace.data.imageset import Split

MEAN, DEVIATION = 0.5, 0.25  # of every channel, in [0, 1]; one fixed pair, so that exported weights need no more
SHIFT = 1 / 8
_MOVES = 1  # keeps what is drawn for an epoch apart from the orders, which take two numbers


class Batches:
    """A split, batch by batch: `epoch(n)` iterates over all of it once, or over `count` images of it.

    augment: shuffle, and move or mirror images if `shift` or `flip`, drawn from (seed, epoch); otherwise the images
    as they are, in order. A last batch that is smaller comes too when not augmenting; it is left out of a training,
    where batch norm would see few images, unless it is the only one.
    count: images of an epoch; None: all. When augmenting, the next epoch goes on with the next ones, until all had
        their turn; otherwise they are drawn once, from `seed`, and are the same in every epoch.
    """

    def __init__(
        self,
        split: Split,
        batch: int,
        seed: int,
        device: str | torch.device,
        augment: bool,
        flip: bool = False,
        shift: bool = True,
        count: int | None = None,
    ) -> None:
        self.split = split
        self.batch = batch
        self.seed = seed
        self.device = torch.device(device)
        self.augment = augment
        self.flip = augment and flip
        self.shift = augment and shift
        self.count = len(split) if count is None else count

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch)
        return max(1, whole) if self.augment else whole + (rest > 0)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y): x (n, 3, s, s) float32 on the device, normalised, channels_last; y (n,) int64."""
        rng = np.random.default_rng([self.seed, number, _MOVES])
        order = self._order(number) if self.augment else np.sort(self._order(1))
        for start in range(0, len(self) * self.batch, self.batch):
            chosen = order[start : start + self.batch]
            # A sorted gather reads a memory map forwards; the order within a batch does not matter.
            chosen = np.sort(chosen)
            images = torch.from_numpy(self.split.images[chosen]).to(self.device)
            labels = torch.from_numpy(self.split.labels[chosen]).to(self.device)
            if self.shift or self.flip:
                images = self._moved(images, rng)
            yield _normalised(images), labels

    def _order(self, number: int) -> npt.NDArray[np.intp]:
        """Which images: epoch after epoch goes on through the split, whose every pass is in an order of its own."""
        first, images = (number - 1) * self.count, len(self.split)
        passes = range(first // images, -(-(first + self.count) // images))
        orders = [np.random.default_rng([self.seed, 1 + which]).permutation(images) for which in passes]
        begin = first % images
        return np.concatenate(orders)[begin : begin + self.count]

    def _moved(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """images: (n, s, s, 3) uint8, each shifted by its own whole number of pixels and mirrored by its own coin."""
        count, side = images.shape[:2]
        reach = int(SHIFT * side) if self.shift else 0
        moves = rng.integers(-reach, reach + 1, (2, count, 1))
        rows, columns = np.clip(np.arange(side) + moves, 0, side - 1)
        if self.flip:
            mirrored = rng.random((count, 1)) < 0.5
            columns = np.where(mirrored, columns[:, ::-1], columns)
        row, column = (torch.from_numpy(np.ascontiguousarray(i)).to(images.device) for i in (rows, columns))
        which = torch.arange(count, device=images.device)[:, None, None]
        return images[which, row[:, :, None], column[:, None, :]]


def _normalised(images: Tensor) -> Tensor:
    """(n, s, s, 3) uint8 to (n, 3, s, s) float32 in channels_last, which costs no copy."""
    return images.float().sub_(255 * MEAN).div_(255 * DEVIATION).permute(0, 3, 1, 2)
