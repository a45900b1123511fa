"""Handwritten digits, each at a random size and place on a noisy ground: the default data, embedded in scikit-learn.

Of the 1,797 images (8x8, Alpaydin & Kaynak 1998) the first 1,400 make the training canvases and the other 397 the
validation canvases, so no handwriting is in both. A canvas is a ground of normal noise, and on it one digit, enlarged
bilinearly, brighter by one uniform contrast per channel; then every channel is exposed to the same mean, as a camera
does. Grounds of many levels, and digits under five eighths of the canvas, were tried: networks without shortcuts then
learnt within a proxy training or did not, by luck of the seed. An epoch is a quarter of the canvases: where all
four epochs saw the same quarter, training learnt it by heart and the seed decided more (`benchmarks/proxy.py`: ratio
2.3 in place of 2.9, tau 0.52 in place of 0.78, both with 2,000 validation canvases; with 4,000 it is 3.1, tau 0.82).
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from lkspace.data import options
from lkspace.data.source import Labels, Pixels, SplitName, in_order
from lkspace.errors import UserError

RECIPE = 2  # Raise whenever the same options would draw other canvases: it keys the cache.
TRAINING_IMAGES = 1400
EXPOSURE = 0.5  # mean of every channel of every canvas, before what is out of range is cut
CONTRAST = (0.3, 0.6)
NOISE = 0.12
DEFAULT_SIZE = 64
# Sides of the digit over the side of the canvas, when no range is given: 40 to 60 of 64.
SMALLEST, LARGEST = 40 / 64, 60 / 64
TRAIN_CANVASES, EPOCH_CANVASES, VAL_CANVASES = 8000, 2000, 4000
CHUNK = 250
_KNOWN = {"size": "64", "range": "40-60", "train": "8000", "epoch": "2000", "val": "4000", "seed": "0"}


@dataclass(frozen=True)
class Digits:
    """`digits[:size=64,range=40-60,train=8000,epoch=2000,val=4000,seed=0]`: side of the canvas, sides of the digit,
    how many canvases, how many an epoch trains on, and which ones: each seed is another data set.

    low, high: sides of the digit in pixels, uniform in [low, high); None: in proportion to the canvas.
    """

    canvas: int | None = None
    low: int | None = None
    high: int | None = None
    train: int = TRAIN_CANVASES
    epoch: int = EPOCH_CANVASES
    val: int = VAL_CANVASES
    seed: int = 0
    class_names: tuple[str, ...] = tuple("0123456789")
    flip: bool = False
    shift: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text after the colon; UserError on what is not an option or out of bounds."""
        given = options.parse(text, _KNOWN, "digits")
        count = functools.partial(options.whole, source="digits", high=10_000_000)
        size = options.whole(given["size"], "size", "digits", 8, 1024) if "size" in given else None
        low, high = _range(given["range"], size or 1024) if "range" in given else (None, None)
        train = count(given["train"], "train", low=10) if "train" in given else TRAIN_CANVASES
        epoch = count(given["epoch"], "epoch", low=10, high=train) if "epoch" in given else EPOCH_CANVASES
        val = count(given["val"], "val", low=10) if "val" in given else VAL_CANVASES
        seed = options.whole(given["seed"], "seed", "digits", 0, 2**32 - 1) if "seed" in given else 0
        return cls(size, low, high, train, epoch, val, seed)

    @property
    def native_size(self) -> int:
        """The side asked for, else the default space's."""
        return self.canvas or DEFAULT_SIZE

    @property
    def fixed_size(self) -> bool:
        """Whether the user asked for a side."""
        return self.canvas is not None

    @property
    def epoch_images(self) -> int:
        """As asked for, but all canvases where they are fewer."""
        return min(self.epoch, self.train)

    def files(self) -> list[Path]:
        """None."""
        return []

    def fingerprint(self) -> object:
        """Recipe and options; an epoch's share too, for by the key a run knows that its images are still the same."""
        return ["digits", RECIPE, self.low, self.high, self.train, self.epoch_images, self.val, self.seed]

    def labels(self, split: SplitName) -> Labels:
        """Label of each canvas: every handwritten image is used equally often, in an order that the seed decides."""
        _, labels = _handwriting(split)
        return labels[self._order(split)]

    def chunks(self, split: SplitName, size: int) -> Iterator[Pixels]:
        """Canvases drawn in chunks, each from a generator of its own, so that threads do not change them."""
        low, high = self._sides(size)
        images, _ = _handwriting(split)
        order = self._order(split)

        def draw(start: int) -> Pixels:
            rng = np.random.default_rng([self.seed, _STREAM[split], start])
            return _canvases(images[order[start : start + CHUNK]], size, low, high, rng)

        return in_order(draw, range(0, len(order), CHUNK), CHUNK * 3 * size**2 * 5)  # as float32 and as bytes

    def _order(self, split: SplitName) -> npt.NDArray[np.intp]:
        count = self.train if split == "train" else self.val
        images = len(_handwriting(split)[0])
        rng = np.random.default_rng([self.seed, _STREAM[split]])
        rounds = [rng.permutation(images) for _ in range(-(-count // images))]
        return np.concatenate(rounds)[:count]

    def _sides(self, size: int) -> tuple[int, int]:
        low = self.low if self.low is not None else max(1, round(SMALLEST * size))
        high = self.high if self.high is not None else max(low, round(LARGEST * size))
        if high > size:
            raise UserError(f"data digits: range ends at {high}, but the canvas is {size} pixels wide")
        return low, high


_STREAM: dict[SplitName, int] = {"train": 0, "val": 1}


def _range(text: str, size: int) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not dash:
        raise UserError(f"data digits: range is {text!r}, expected two sides in pixels such as 40-60")
    sides = options.whole(low, "range", "digits", 1, size), options.whole(high, "range", "digits", 1, size)
    if sides[0] > sides[1]:
        raise UserError(f"data digits: range is {text!r}, its first side is larger than its second")
    return sides


@functools.cache
def _handwriting(split: SplitName) -> tuple[npt.NDArray[np.float32], Labels]:
    """(n, 8, 8) in [0, 1] and (n,): the images of a split in scikit-learn's order."""
    from sklearn.datasets import load_digits  # 1.5 s, and not needed once the canvases are cached

    digits = load_digits()
    part = slice(None, TRAINING_IMAGES) if split == "train" else slice(TRAINING_IMAGES, None)
    return digits.images[part].astype(np.float32) / 16, digits.target[part].astype(np.int64)


def _canvases(images: npt.NDArray[np.float32], size: int, low: int, high: int, rng: np.random.Generator) -> Pixels:
    """One canvas for each 8x8 image."""
    count = len(images)
    canvases = np.empty((count, size, size, 3), np.float32)
    for canvas in canvases:  # one by one, for in double precision all at once take twice the memory
        canvas[...] = rng.normal(0, NOISE, canvas.shape)
    contrasts = rng.uniform(*CONTRAST, (count, 3))
    sides = rng.integers(low, high + (low == high), count)
    tops, lefts = (rng.integers(0, size - sides + 1) for _ in range(2))
    for canvas, image, contrast, side, top, left in zip(canvases, images, contrasts, sides, tops, lefts, strict=True):
        shape = np.asarray(Image.fromarray(image).resize((int(side), int(side)), Image.Resampling.BILINEAR))
        canvas[top : top + side, left : left + side] += shape[:, :, None] * contrast
    canvases += EXPOSURE - canvases.mean((1, 2), keepdims=True)
    np.clip(canvases, 0, 1, out=canvases)
    canvases *= 255
    return canvases.round(out=canvases).astype(np.uint8)
