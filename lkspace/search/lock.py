"""One driver a run: a lock on the run's folder that the kernel drops when its holder dies, however it dies."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lkspace.errors import RunError, UserError

SCRATCH_PREFIX = "lkspace-ray-"
_SERVERS = b"/ray/core/"  # in the path of each


class RunLock:
    """A held lock. Remembers in its file who holds it and which scratch folder must go when the holder has died."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def remember(self, scratch: Path | None) -> None:
        """Write who holds the lock and `scratch`, the temporary folder of this process, if any."""
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "scratch": str(scratch) if scratch else None}
        self._file.seek(0)
        self._file.truncate()
        json.dump(holder, self._file)
        self._file.flush()


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[RunLock]:
    """Hold the run in `folder` (which exists) alone; removes what a killed holder left: scratch folder, Ray's servers.

    Raises UserError with the other's process id if it is held, RunError if the folder cannot be locked.
    """
    path = folder / ".lock"
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("a+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(path)
            raise UserError(
                f"{folder}: another search runs there (process {holder.get('pid', '?')} on"
                f" {holder.get('host', 'this host')}); wait for it, stop it, or name another folder"
            ) from None
        except OSError as error:
            mend = " (the file system cannot lock)" if error.errno in (errno.ENOLCK, errno.ENOTSUP) else ""
            raise RunError(
                f"{path}: cannot lock the run: {error.strerror}{mend}; use a folder on a local disk"
            ) from None
        _remove_scratch(_holder(path))
        lock = RunLock(file)
        lock.remember(None)
        yield lock


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _remove_scratch(holder: dict[str, Any]) -> None:
    """Only a folder that this program named, and only on the host that made it."""
    scratch = holder.get("scratch")
    if isinstance(scratch, str) and holder.get("host") == socket.gethostname():
        path = Path(scratch)
        if path.name.startswith(SCRATCH_PREFIX) and path.is_dir() and not path.is_symlink():
            _end_servers(path)
            shutil.rmtree(path, ignore_errors=True)


def _end_servers(scratch: Path) -> None:
    """Ray's own that work in this folder: they die with their driver, but not every time."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *arguments = (entry / "cmdline").read_bytes().split(b"\0")
            ours = any(f"{scratch}/".encode() in argument for argument in arguments)
            if ours and _SERVERS in program and entry.stat().st_uid == os.getuid():
                os.kill(int(entry.name), signal.SIGKILL)
