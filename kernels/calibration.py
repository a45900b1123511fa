"""What the cost model of schemes.py multiplies by on this machine: measured in under a second, once, kept on disk.

Never at import: the first call whose scheme is in question asks. The file lies in the cache folder, named by what the
times depend on: processor, instruction set, the compiled library itself. Of many processes that start at once one
measures, the others wait for it; a file that is broken or of another version is measured and written anew. Measured on
one thread, so that the number of threads, which must not change a result, cannot change a choice.
"""

import contextlib
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lkspace.folders import operator_file
from lkspace.kernels import library, native_calls
from lkspace.kernels.schemes import SMALL, VARIABLE, Shape, cheaper, forced_scheme, work
from lkspace.processor import processor_kind
from lkspace.replacing import replacing

VERSION = 1
# Maps, kernels and images that span what is in question: small maps are direct, large kernels on large maps are not.
SHAPES = (Shape(4, 14, 14, 13, 13), Shape(2, 28, 28, 13, 13), Shape(2, 32, 32, 27, 27), Shape(1, 56, 56, 21, 21))
OPERATIONS = ("convolution", "weight gradient", "both gradients")
_CHANNELS = 16  # of what is measured: a group or more of any instruction set
_REPEATS = 9  # the least of so many times counts: what disturbs a measurement only ever adds
_WAIT = 20.0  # seconds for another process that measures, then measure oneself
Coefficients = dict[str, list[float]]

_in_process = threading.Lock()


def _new_lock() -> None:
    global _in_process  # noqa: PLW0603 (another thread of the parent may have held it)
    _in_process = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def coefficients(isa: int) -> Coefficients:
    """a and b by "scheme operation", seconds for one group of channels: this process's, else on disk, else measured."""
    with _in_process:
        return _looked_up(isa, str(file_of(isa)))


@cache
def _looked_up(isa: int, file: str) -> Coefficients:
    path = Path(file)
    found = _read(path)
    if found is not None:
        return found
    with _alone(path):
        found = _read(path)  # somebody else was faster
        if found is None:
            found = measure(isa)
            _write(path, found)
    return found


def scheme_summary() -> str:
    """From which kernel size on the frequency domain is chosen here, in words; measures if nobody has yet.

    "" without a library. UserError if `LKSPACE_ISA` or `LKSPACE_SCHEME` forces what is not there.
    """
    if isinstance(library.load(), str):
        return ""
    if forced := forced_scheme():
        return f"{forced}, as {VARIABLE} forces"
    isa = library.selected()
    coefficients(isa)
    sizes = []
    for size in (14, 28, 56):
        kernels = range(SMALL + 2, 2 * size, 2)
        chosen = (k for k in kernels if cheaper("convolution", Shape(8, size, size, k, k), isa) == "frequency")
        first = next(chosen, None)
        sizes.append(f"never on {size} px" if first is None else f"from K={first} on {size} px")
    where = file_of(isa)
    kept = f"measured here, kept in {where}" if os.path.isfile(where) else f"measured now: {where} cannot be written"
    return f"direct, and by frequencies {', '.join(sizes)} ({kept})"


def file_of(isa: int) -> Path:
    """Where the coefficients of an instruction set are kept on this machine."""
    name = hashlib.sha256(json.dumps(_key(isa)).encode()).hexdigest()[:16]
    return operator_file(f"cpu-{library.ISAS[isa]}-{name}.json")


def _key(isa: int) -> list[str]:
    return [str(VERSION), processor_kind(), library.ISAS[isa], library.fingerprint()]


def _read(path: Path) -> Coefficients | None:
    """What the file holds, or None if it is not there or not what _write writes."""
    try:
        content: Any = json.loads(path.read_text())
        found: Coefficients = {name: content["seconds"][name] for name in _names()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not all(isinstance(pair, list) and all(isinstance(value, float) for value in pair) for pair in found.values()):
        return None
    sound = all(
        len(pair) == 2 and all(map(math.isfinite, pair)) and min(pair) >= 0 < sum(pair) for pair in found.values()
    )
    return found if sound else None


def _write(path: Path, found: Coefficients) -> None:
    """Whole or not at all. Where nothing can be written every process measures for itself."""
    content = {
        "version": VERSION,
        "processor": processor_kind(),
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "seconds": found,
    }
    with contextlib.suppress(OSError), replacing(path) as new:
        new.write_text(json.dumps(content, indent=1))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the file's lock, which the system drops if this process dies; without one where there is none to be had."""
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix(".lock"), "a")  # noqa: SIM115
    except (ImportError, OSError):
        yield
        return
    with lock:
        end = time.monotonic() + _WAIT
        while time.monotonic() < end:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield


def _names() -> list[str]:
    direct = [f"direct {operation}" for operation in OPERATIONS[:2]]
    return direct + [f"frequency {operation}" for operation in OPERATIONS]


def measure(isa: int) -> Coefficients:
    """Times every scheme and operation on SHAPES, one thread, and fits a and b."""
    groups = -(-_CHANNELS // library.LANES[isa])
    samples: dict[str, list[tuple[tuple[float, float], float]]] = {name: [] for name in _names()}
    for shape in SHAPES:
        for name, seconds in _least_times(_calls(shape)).items():
            scheme, operation = name.split(" ", 1)
            samples[name].append((work(scheme, operation, shape), seconds / groups))
    return {name: fitted(pairs) for name, pairs in samples.items()}


def _calls(shape: Shape) -> dict[str, Callable[[], None]]:
    # By numpy: in a forked process torch would wait for the threads that it had before.
    def some(*sizes: int) -> npt.NDArray[np.float32]:
        return np.linspace(-1, 1, math.prod(sizes), dtype=np.float32).reshape(sizes)

    with torch.inference_mode(False):
        values = some(shape.n, shape.h, shape.w, _CHANNELS)
        x, grad = (torch.from_numpy(v).permute(0, 3, 1, 2) for v in (values, values[:, ::-1].copy()))
        y = torch.empty_like(x)
        weight = torch.from_numpy(some(_CHANNELS, 1, shape.kh, shape.kw))
        into = torch.empty_like(weight)
    return {
        "direct convolution": lambda: native_calls.convolve("direct", x, y, weight, threads=1),
        "frequency convolution": lambda: native_calls.convolve("frequency", x, y, weight, threads=1),
        "direct weight gradient": lambda: native_calls.direct_weight_gradient(grad, x, into, None, threads=1),
        "frequency weight gradient": lambda: native_calls.frequency_gradients(
            grad, x, weight, None, into, None, threads=1
        ),
        "frequency both gradients": lambda: native_calls.frequency_gradients(grad, x, weight, y, into, None, threads=1),
    }


def _least_times(calls: dict[str, Callable[[], None]]) -> dict[str, float]:
    """In turn, so that a disturbance meets all; by the thread's own clock, which stands still while others run."""
    times = dict.fromkeys(calls, math.inf)
    for repeat in range(1 + _REPEATS):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            if repeat > 0:
                times[name] = min(times[name], time.thread_time() - start)
    return times


def fitted(samples: list[tuple[tuple[float, float], float]]) -> list[float]:
    """a, b >= 0 of the least sum of squared relative errors of a * first + b * second against the times."""
    rows = [(first / seconds, second / seconds) for (first, second), seconds in samples]
    p, q, r = (sum(u[i] * u[j] for u in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    s, t = sum(u[0] for u in rows), sum(u[1] for u in rows)
    determinant = p * r - q * q
    a, b = ((s * r - t * q) / determinant, (t * p - s * q) / determinant) if determinant > 0 else (-1.0, 0.0)
    if b < 0 or (a < 0 and s * s / p >= t * t / r):
        return [s / p, 0.0]
    return [a, b] if a >= 0 else [0.0, t / r]
