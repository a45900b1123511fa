"""Where decoded images lie: one folder per content key, written once for all processes of a host, then memory-mapped.

A folder appears under its final name by one rename, complete or not at all. Who builds it holds a lock file
(`flock`, dropped by the kernel when a process dies); who comes meanwhile waits and then finds it there.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lkspace.data.imageset import Split
from lkspace.data.source import SPLITS, Source, SplitName
from lkspace.errors import RunError, UserError
from lkspace.folders import cache_folder

__all__ = ["cache_folder", "stored"]

Progress = Callable[[int, int], None]
FORMAT = 1  # Of the files in a folder; part of the key.


def stored(folder: Path, source: Source, size: int, progress: Progress | None) -> dict[SplitName, Split]:
    """The splits of a source, memory-mapped from `folder`, which is written first if it is not there.

    progress: called with (images done, images in all), also once at the end. Raises UserError if the cache cannot
    be written there, RunError if the disk is full; both name the folder.
    """
    with contextlib.suppress(_Broken):
        return _opened(folder)
    with cache_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            with contextlib.suppress(_Broken):
                return _opened(folder)  # somebody else was faster
            _write(folder, source, size, progress)
    return _opened(folder)


class _Broken(Exception):
    """A cache folder that is missing or damaged."""


def _opened(folder: Path) -> dict[SplitName, Split]:
    try:
        counts = json.loads((folder / "counts.json").read_text())
        splits: dict[SplitName, Split] = {}
        for name in SPLITS:
            images = np.load(folder / f"{name}_images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / f"{name}_labels.npy", allow_pickle=False)
            if not len(images) == len(labels) == counts[name]:
                raise _Broken
            splits[name] = Split(images, labels)
    except (OSError, ValueError, KeyError, EOFError):
        raise _Broken from None
    return splits


def _write(folder: Path, source: Source, size: int, progress: Progress | None) -> None:
    for old in (folder, *folder.parent.glob(f".{folder.name}.*")):  # damaged, or left by a process that died
        shutil.rmtree(old, ignore_errors=True)
    unfinished = folder.parent / f".{folder.name}.{os.getpid()}"
    unfinished.mkdir()
    try:
        labels = {name: source.labels(name) for name in SPLITS}
        total, done = sum(map(len, labels.values())), 0
        for name in SPLITS:
            np.save(unfinished / f"{name}_labels.npy", labels[name])
            with (unfinished / f"{name}_images.npy").open("wb") as file:
                _header(file, (len(labels[name]), size, size, 3))
                for chunk in source.chunks(name, size):
                    file.write(np.ascontiguousarray(chunk).data)  # not through a map: a full disk is then an error
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
                file.flush()
                os.fsync(file.fileno())
        (unfinished / "counts.json").write_text(json.dumps({name: len(labels[name]) for name in SPLITS}))
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all processes of the host that lock the same path."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file unlocks it


@contextlib.contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Say of an OSError what to do: RunError on a full disk, else UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"no room left for decoded images in {folder}; free some or set LKSPACE_CACHE to another folder"
            ) from None
        raise UserError(
            f"cannot write the image cache {folder} ({error.strerror or error});"
            " set LKSPACE_CACHE to a folder you can write"
        ) from None
