"""Files of a run, written whole or not at all: a reader, or a crash, never meets half of one."""

import json
from pathlib import Path
from typing import Any

from lkspace.errors import RunError, UserError
from lkspace.replacing import replacing


def made(folder: Path) -> Path:
    """The folder, made if need be; UserError if something else is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{folder} is a file, not a folder: name another with --run") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another folder with --run") from None
    return folder


def text_of(path: Path) -> str:
    """What a file says, "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


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
