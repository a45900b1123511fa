"""Keeping a device quiet while something is timed on it: trainings hold a shared lock for each step, a
measurement holds it alone. The locks are `fcntl.flock` on two empty files per host and device.

    training step       turnstile shared, lock shared, turnstile released ... step ... lock released
    measurement         turnstile alone, lock alone ... measure ... both released

Whoever waits to measure holds the turnstile, so no new step begins and the running ones drain: a stream of
trainers cannot starve it. The kernel drops the locks of a process that dies, however it dies.
"""

import contextlib
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lkspace.errors import RunError, UserError

try:
    import fcntl
except ImportError:  # no flock on this system; using a Device then says so
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"cpu|cuda(:\d+)?|[a-z]+(:\d+)?", re.ASCII)
_TEMPORARY = Path("/tmp")
_POLL, _LONGEST_POLL = 0.001, 0.05  # seconds between tries where a time limit rules out a blocking flock
_LINE = 10  # time limits that a measurement waits for those before it


@dataclass(frozen=True)
class Device:
    """A device of this host, "cpu" or "cuda[:n]", and the right to use it together or alone. Picklable.

    The CPU is one device. A GPU is known by its UUID, so cuda:0 of two processes with different
    CUDA_VISIBLE_DEVICES are two devices. Threads count like processes. Within one thread, `step` inside
    `step`, `step` inside `exclusive` and `exclusive` inside `exclusive` do nothing more; `exclusive` inside
    `step` would wait for itself and raises RuntimeError. A child forked while a lock is held holds none.

    Entering raises RunError, with the mend, if the lock files cannot be made, opened or locked, and UserError
    if `name` is not the name of a device here.
    """

    name: str

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise UserError(f"device {self.name!r}: expected 'cpu', 'cuda' or 'cuda:N'")

    @property
    def key(self) -> str:
        """What the lock files are called after: the same in every process that means this device."""
        return self.name if not self.name.startswith("cuda") else _gpu_uuid(self.name)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Hold the device together with others, for one training step: wait while it is being measured."""
        with self._hold(alone=False, timeout=None):
            yield

    @contextlib.contextmanager
    def exclusive(self, timeout: float | None = None, in_line: bool = False) -> Iterator[float]:
        """Hold the device alone; gives the seconds waited. After `timeout` seconds of waiting raises RunError.

        in_line: the timeout is for steps to end; behind others that want it alone, wait ten times as long.
        """
        start = time.monotonic()
        with self._hold(alone=True, timeout=timeout, in_line=in_line):
            yield time.monotonic() - start

    @contextlib.contextmanager
    def _hold(self, *, alone: bool, timeout: float | None, in_line: bool = False) -> Iterator[None]:
        holds: dict[str, _Hold] = _thread.__dict__
        key = self.key
        hold = holds.get(key)
        if hold is None:
            hold = holds[key] = _Hold(alone)
            try:
                hold.acquire(key, timeout, in_line)
            except BaseException:
                hold.release()
                del holds[key]
                raise
        elif alone and not hold.alone:
            raise RuntimeError(f"exclusive use of {self.name} asked for inside a training step on it")
        hold.depth += 1
        try:
            yield
        finally:
            hold.depth -= 1
            if hold.depth == 0:
                hold.release()
                if holds.get(key) is hold:  # another one, or none, in a child forked meanwhile
                    del holds[key]


class _Hold:
    """One thread's locks on one device. Files are opened anew each time: that costs no more than asking whether
    the open ones are still those in the folder (cleaners of temporary folders delete), and needs no care of threads."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        self.depth = 0
        self.files: list[int] = []
        _holds.add(self)

    def acquire(self, key: str, timeout: float | None, in_line: bool) -> None:
        turnstile, lock = _paths(os.environ.get("LKSPACE_LOCKS"), key)
        deadline = None if timeout is None else time.monotonic() + timeout * (_LINE if in_line else 1)
        self._lock(turnstile, deadline)
        if in_line and timeout is not None:
            deadline = time.monotonic() + timeout
        self._lock(lock, deadline)
        if not self.alone:
            os.close(self.files.pop(0))

    def release(self) -> None:
        while self.files:
            os.close(self.files.pop())
        _holds.discard(self)

    def _lock(self, path: str, deadline: float | None) -> None:
        if fcntl is None:
            raise RunError("this system has no fcntl.flock, which keeps a device quiet while it is measured")
        self.files.append(_open(path))
        mode = fcntl.LOCK_EX if self.alone else fcntl.LOCK_SH
        try:
            if deadline is None:
                fcntl.flock(self.files[-1], mode)
                return
            pause = _POLL
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self.files[-1], mode | fcntl.LOCK_NB)
                    return
                if time.monotonic() >= deadline:
                    raise RunError(f"{path}: the device is still in use; `fuser -v {path}` names the processes")
                time.sleep(pause)
                pause = min(1.2 * pause, _LONGEST_POLL)
        except OSError as error:
            raise RunError(f"{path}: cannot be locked ({error.strerror}); {_MEND}") from error


_thread = threading.local()
_holds: set[_Hold] = set()
_MEND = "set LKSPACE_LOCKS to a folder on a local disk that you can write to, the same for all processes"


def _forget() -> None:
    """In a forked child: close the parent's files, or the locks would outlive a parent that is killed."""
    for hold in tuple(_holds):
        hold.release()
    _thread.__dict__.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def lock_folder() -> Path:
    """Where this user's lock files lie, made if missing: LKSPACE_LOCKS, or `/tmp/lkspace-<uid>`.

    Not XDG_RUNTIME_DIR nor TMPDIR: two processes of one user that differ in them would not see each other's
    locks, and nobody would notice. Raises RunError if it cannot be made, written to, or is not safe.
    """
    named = os.environ.get("LKSPACE_LOCKS")
    folder = Path(named) if named else _TEMPORARY / f"lkspace-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=bool(named), exist_ok=True)
        if not named:
            _check_private(folder)
    except OSError as error:
        raise RunError(f"lock folder {folder}: {error.strerror}; {_MEND}") from error
    return folder


def _check_private(folder: Path) -> None:
    # Anybody may have made this name in /tmp before: a link elsewhere, or a folder where files can be swapped.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RunError(f"lock folder {folder}: not a folder that only you can write to; remove it, or {_MEND}")


@cache
def _paths(named: str | None, key: str) -> tuple[str, str]:
    del named  # what lock_folder() looks at
    stem = lock_folder() / f"{key}-{_host()}"
    return f"{stem}.turnstile", f"{stem}.lock"


def _open(path: str) -> int:
    # Read-only suffices for flock and lets users share a folder; a link put there by somebody else is refused.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            lock_folder()  # it may have been deleted since this process made it
            return os.open(path, flags | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"lock file {path}: {error.strerror}; {_MEND}") from error


@cache
def _host() -> str:
    """Eight characters that the containers of one host share and two hosts do not, should they share the folder."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return re.sub(r"\W", "_", socket.gethostname())


@cache
def _gpu_uuid(name: str) -> str:
    import torch

    index = int(name.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise UserError(f"device {name!r}: {count} CUDA devices are visible here")
    return f"cuda-{torch.cuda.get_device_properties(index).uuid}"
