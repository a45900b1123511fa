"""The front door: a `--data` spec to an ImageSet."""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from lkspace.data.cache import FORMAT, Progress, cache_folder, stored
from lkspace.data.cifar import Cifar
from lkspace.data.contents import digest
from lkspace.data.digits import Digits
from lkspace.data.folder import Folder
from lkspace.data.imageset import ImageSet
from lkspace.data.npz import Npz
from lkspace.data.source import Source
from lkspace.errors import UserError

DEFAULT_SIZE = 64  # of a source whose images have no side of their own
_KINDS = ("folder", "cifar10", "cifar100", "npz")  # beside the digits, which are not read from a path
FORMS = "digits[:OPTIONS], folder:PATH, cifar10:PATH, cifar100:PATH or npz:PATH"


class Description(NamedTuple):
    """How many classes a data spec has and the side in pixels it suggests, None where any will do."""

    classes: int
    size: int | None


def describe(spec: str) -> Description:
    """Classes and side without decoding an image. UserError if the spec is wrong or its files are not there."""
    source = _source(spec)
    return Description(len(source.class_names), source.native_size)


def load(
    spec: str,
    size: int | None = None,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Images and labels of a data spec: decoded on the first call, memory-mapped from the cache on every later one.

    spec: digits[:size=64,range=40-60,train=8000,epoch=2000,val=4000,seed=0], folder:PATH, cifar10:PATH, cifar100:PATH,
        npz:PATH.
    size: side in pixels that images are cropped to a square and resized to; None: the source's own.
    cache: folder in place of `cache_folder()`.
    progress: called with (images done, images in all) while decoding, not at all if the cache has them; before, with
        files in place of images, while files are read that are not known yet.
    Raises UserError, naming file and mend, on anything wrong with the user's files; RunError on a full disk.
    """
    source = _source(spec)
    size = _side(spec, source, size)
    place = (Path(cache) if cache is not None else cache_folder()) / "data"
    content = [digest(files, place / "contents", progress)] if (files := source.files()) else []
    described = json.dumps([FORMAT, size, source.fingerprint(), *content], sort_keys=True)
    key = hashlib.sha256(described.encode()).hexdigest()[:20]
    splits = stored(place / key, source, size, progress)
    return ImageSet(
        spec,
        key,
        size,
        source.class_names,
        splits["train"],
        splits["val"],
        source.flip,
        source.shift,
        source.epoch_images,
    )


def absolute(spec: str) -> str:
    """The spec with its path absolute, so that it names the same files from any folder."""
    kind, _, rest = spec.partition(":")
    return f"{kind}:{os.path.abspath(_path(rest))}" if kind in _KINDS and rest else spec


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # of an unknown user: left as it is


def _source(spec: str) -> Source:
    kind, _, rest = spec.partition(":")
    if kind == "digits":
        return Digits.parse(rest)
    if kind not in _KINDS:
        raise UserError(f"data {spec!r}: expected {FORMS}")
    if not rest:
        raise UserError(f"data {spec!r}: a path must follow, as in {kind}:PATH")
    path = _path(rest)
    try:
        if kind == "folder":
            return Folder.open(path)
        return Npz.open(path) if kind == "npz" else Cifar.open(path, 10 if kind == "cifar10" else 100)
    except OSError as error:  # a path that may not even be looked at: no permission, too long
        raise UserError(f"data {spec[:200]!r}: {error.strerror}; give a path that can be read") from None


def _side(spec: str, source: Source, size: int | None) -> int:
    if size is None:
        return source.native_size or DEFAULT_SIZE
    if source.fixed_size and size != source.native_size:
        raise UserError(f"data {spec!r}: size={source.native_size} but the search space is for {size} pixels")
    if size < 1:
        raise UserError(f"data {spec!r}: size is {size}, expected a positive number of pixels")
    return size
