"""What is in the files of a data set, told by a digest: the same wherever they lie and whenever they were copied there.

Reading all of a large data set takes minutes, so a digest is kept beside the decoded images and found again by the
files' paths, sizes and times of change, which are looked up quickly.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from lkspace.data.cache import Progress, cache_errors, locked
from lkspace.data.source import in_order
from lkspace.errors import UserError
from lkspace.replacing import replacing

_LARGEST = 2**20  # bytes of a file read at a time
_DIGITS = 64  # of a SHA-256 digest


def digest(files: Sequence[Path], folder: Path, progress: Progress | None = None) -> str:
    """Of the contents of `files`, in their order.

    folder: where known digests are kept. progress: called with (files read, files in all) while they are read. Raises
    UserError naming a file that cannot be read, or the folder if it cannot be written; RunError if the disk is full.
    """
    path = folder / f"{_looks(files)}.txt"
    with cache_errors(folder):
        if found := _known(path):
            return found
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):  # processes that start together read once
            if not (found := _known(path)):
                found = _read(files, progress)
                with replacing(path) as place:
                    place.write_text(found)
            return found


def _known(path: Path) -> str:
    """The digest that was kept; "" if there is none, or it is damaged."""
    found = path.read_bytes() if path.is_file() else b""
    return found.decode() if len(found) == _DIGITS and found.isalnum() else ""


def _looks(files: Sequence[Path]) -> str:
    """Of path, size and time of change of every file."""
    try:
        seen = [(str(file.absolute()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    except OSError as error:
        raise _unreadable(error) from None
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:20]


def _read(files: Sequence[Path], progress: Progress | None) -> str:
    whole = hashlib.sha256()
    for done, part in enumerate(in_order(_of_one, files, _LARGEST), 1):
        whole.update(part)
        if progress is not None and (done % 64 == 0 or done == len(files)):
            progress(done, len(files))
    return whole.hexdigest()


def _of_one(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> UserError:
    return UserError(f"{error.filename}: {error.strerror}; make it readable, or remove it")
