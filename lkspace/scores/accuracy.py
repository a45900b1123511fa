"""Accuracy on the validation images after a proxy training: the one score that is learnt rather than counted."""

import functools
import socket
from collections.abc import Iterator

from lkspace.data import load
from lkspace.data.imageset import ImageSet
from lkspace.errors import RunError, UserError
from lkspace.registry import scores
from lkspace.scores.score import Direction, Measurement, NoImages, Setting
from lkspace.scores.training import ProxyTraining
from lkspace.space.architecture import Architecture


class Accuracy:
    """Part of the validation images that the trained network names rightly, top-1, in [0, 1]."""

    name = "accuracy"
    unit = "%"
    direction: Direction = "maximize"
    cheap = False

    def measure(self, architecture: Architecture, setting: Setting) -> Iterator[Measurement]:
        """One measurement an epoch, see `ProxyTraining.epochs`; the last one is the score."""
        yield from training(architecture, setting).epochs()


scores.register("accuracy")(Accuracy())


def training(architecture: Architecture, setting: Setting) -> ProxyTraining:
    """The proxy training of a candidate, not yet begun; its `network` is what has been learnt whenever one looks.

    Raises NoImages if the data cannot be had or are others than the setting says, UserError if they have another number
    of classes.
    """
    try:
        images = _images(setting)
    except (RunError, UserError) as error:
        raise NoImages(f"{socket.gethostname()}: {error}") from error
    if setting.data_key not in ("", images.key):
        raise NoImages(
            f"{socket.gethostname()}: the files of {setting.data}, or how lkspace reads them, have changed since the"
            " run began: put them back to go on"
        )
    if len(images.class_names) != setting.classes:
        raise UserError(
            f"data {setting.data!r}: {len(images.class_names)} classes, but {setting.classes} are asked for"
        )
    return ProxyTraining(architecture, setting, images)


def _images(setting: Setting) -> ImageSet:
    return _loaded(setting.data, setting.size, str(setting.cache) if setting.cache else None)


@functools.lru_cache(maxsize=1)  # one search, one image set: a worker maps it once for all its candidates
def _loaded(data: str, size: int, cache: str | None) -> ImageSet:
    return load(data, size, cache)
