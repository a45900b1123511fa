"""The pace of a machine: how long a fixed small network takes now, over how long it takes here at its standard.

The clock of a processor, its other programs and other guests of its host change its speed by tens of percent for
minutes on end. Two candidates that are measured minutes apart then differ by more than they do side by side, and the
luck of the minute makes a front. So a fixed network, the yardstick, runs between the passes of the candidate, and what
is reported is the candidate's time at the standard pace: that at which this machine first ran the yardstick, or ran it
when a later run began, if it was faster then, for the first time may have been a slow spell. `benchmarks/latency.py`
shows both. A GPU has none: it holds its clock under load.
"""

import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import lkspace
from lkspace import kernels, nets
from lkspace.folders import cache_folder
from lkspace.processor import processor_kind
from lkspace.replacing import replacing
from lkspace.space.architecture import Architecture

VERSION = 1
# All that a candidate is made of, and small.
YARDSTICK = Architecture("replknet", (1, 1), (16, 32), (13, 7), (None, None), (True, True), 1.0, 4.0, 4)
SIDE = 64
# A large candidate drives the yardstick out of the caches, and its first pass then takes longer: the last is timed.
PASSES = 3
_LOOK = 40  # runs, a tenth to a quarter of a second
_LOOKS = 5  # of which the fastest counts
_FASTER = 0.97  # times the standard: below, it was set in a slow spell
_looked = set[Path]()  # standards that this process has set or compared with the pace of now
_unwritten = dict[Path, float]()  # standards that the cache would not take


def yardstick_on_cpu(passes: int = PASSES) -> Callable[[], float]:
    """Runs the yardstick on as many threads as torch uses now and gives the seconds of the last of its passes."""
    network, images = _network()

    def yardstick() -> float:
        with torch.inference_mode():
            for _ in range(passes):
                start = time.perf_counter()
                network(images)
            return time.perf_counter() - start

    return yardstick


def seconds_now() -> float:
    """Seconds of the yardstick at this moment, from the best of some looks, on as many threads as torch uses now."""
    yardstick = yardstick_on_cpu()
    return min(median(yardstick() for _ in range(_LOOK)) for _ in range(_LOOKS))


@functools.cache
def _network() -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = nets.build(YARDSTICK, classes=10)
    network = network.deploy(fold_batch_norms=True).eval().requires_grad_(False)  # type: ignore[operator]
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    layout = torch.channels_last
    return network.to(memory_format=layout), images.contiguous(memory_format=layout)


def standard(seconds: float, threads: int, cache: Path | None) -> float:
    """Seconds of the yardstick at this machine's standard pace with these versions and threads; set if never before.

    Where the cache cannot be written this process remembers it. The caller holds the device, so it is one at a time.
    """
    path = standard_file(threads, cache)
    known = known_standard(path)
    return _set(path, seconds, threads) if known is None else known


def _set(path: Path, seconds: float, threads: int) -> float:
    _looked.add(path)
    content = {"conditions": _conditions(threads), "measured": time.strftime("%Y-%m-%d %H:%M"), "seconds": seconds}
    try:
        with replacing(path) as new:
            new.write_text(json.dumps(content, indent=1))
    except OSError:
        _unwritten[path] = seconds
    return seconds


def settle(threads: int, cache: Path | None, renew: bool = False) -> None:
    """Set the standard if there is none yet; the caller holds the device, and torch uses so many threads.

    renew: also if the machine is faster now. Once a process: what follows is to be at one pace.
    """
    path = standard_file(threads, cache)
    known = known_standard(path)
    if known is None:
        _set(path, seconds_now(), threads)
    elif renew and path not in _looked:
        _looked.add(path)
        now = seconds_now()
        if now < _FASTER * known:
            _set(path, now, threads)


def _conditions(threads: int) -> dict[str, Any]:
    return {
        "version": VERSION,
        "processor": processor_kind(),
        "cores": os.cpu_count(),
        "threads": threads,
        "operator": kernels.implementation(),
        "torch": torch.__version__,
        "lkspace": lkspace.__version__,
    }


def standard_file(threads: int, cache: Path | None = None) -> Path:
    """Where the standard is kept; named by all that it depends on. Without it the next latency sets a new one."""
    name = hashlib.sha256(json.dumps(_conditions(threads)).encode()).hexdigest()[:16]
    return (cache or cache_folder()) / "latency" / f"pace-{name}.json"


def known_standard(path: Path) -> float | None:
    """Seconds; None if there is no file or it is damaged, and this process has not settled it for itself."""
    try:
        found = json.loads(path.read_text())["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return _unwritten.get(path)
    return float(found) if isinstance(found, int | float) and 0 < found < math.inf else None
