"""Files of a run, written whole or not at all: a reader, or a crash, never meets half of one."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lkspace.errors import RunError, UserError


def made(folder: Path) -> Path:
    """The folder, made if need be; UserError if something else is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{folder} is a file, not a folder: name another with --run") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another folder with --run") from None
    return folder


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """RunError in one line if the disk is full or the folder not writable."""
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Raises OSError that names the file the caller asked for, not the temporary one."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, indented."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")
