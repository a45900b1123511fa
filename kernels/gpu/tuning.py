"""Which choice is fastest: timed once per device and problem, torch's own convolution included, then remembered.

On disk, in the cache folder, one small JSON file per device, versions and problem; written whole or not at all. What
cannot be read, or names a choice that no longer exists, is timed again. While a CUDA graph is being captured nothing is
timed: then it is the remembered choice or the first guess. A choice once made does not change, so that the same call
gives the same bits, also where tiles sum in different orders; one made while memory was short lasts as long as the
process.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import triton

from lkspace.folders import operator_file
from lkspace.kernels.gpu import compiler
from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.graphs import captured
from lkspace.kernels.gpu.paths import candidates
from lkspace.kernels.gpu.problem import Problem
from lkspace.replacing import replacing

FORMAT = 3  # of the files, and of the kernels that were timed: raise it when these become faster or slower
HOPELESS = 3.0  # times the fastest so far: one call is enough to know,
LAUNCHED = 1e-3  # if it takes longer than this, in seconds: a shorter call may only have waited for its launch
UNTIMED = 2**18  # elements of x up to which nothing is timed, see `guessed`
SPAN = 1e-3  # seconds that the calls of one captured graph take together, at least one call
REPLAYS = 5
MEMORY, C_COMPILER, FITTING = "memory", "a C compiler", "a tile that fits"  # what a candidate lacks, see `lacking`

_lock = threading.RLock()
_known: dict[tuple[torch.device, Problem], Choice] = {}
Call = Callable[[], object]


def choose(
    problem: Problem, device: torch.device, call: Callable[[Choice], Call], prepare: Callable[[Choice], None]
) -> Choice:
    """The choice for this problem on this device.

    call: makes of a choice the call that is to be timed. prepare: compiles a choice, where a thread can do that.
    """
    if (known := _known.get((device, problem))) is not None:
        return known
    offered = candidates(problem, device)
    if device.type != "cuda":
        return offered[0]
    with _lock:  # one thread times, those that wait find its choice
        if (known := _known.get((device, problem))) is not None:
            return known
        name = torch.cuda.get_device_name(device)
        choice = guessed(problem, offered, prepare) or stored(name, problem, offered)
        if choice is None:
            if torch.cuda.is_current_stream_capturing():
                return offered[0]
            compiled(offered, prepare)
            lacks: set[str] = set()
            times = measured(offered, call, lacks)
            choice = min(times, key=times.__getitem__)
            if not lacks & {MEMORY, C_COMPILER}:  # of which the next process may have enough
                store(name, problem, choice, times)
        _known[device, problem] = choice
        return choice


def guessed(problem: Problem, offered: list[Choice], prepare: Callable[[Choice], None]) -> Choice | None:
    """The first guess, for a problem so small that any takes as long as its launch; None if it has to be timed.

    So has one with copies of channels_last: they are launches too.
    """
    first, elements = offered[0], problem.n * problem.c * problem.h * problem.w
    if first.path != "mma" or first.planar or elements > UNTIMED:
        return None
    try:
        prepare(first)
    except compiler.CannotCompile:
        return None
    return first


def forget() -> None:
    """Drop what this process knows; files stay."""
    with _lock:
        _known.clear()


def compiled(offered: list[Choice], prepare: Callable[[Choice], None]) -> None:
    """Prepare all of them side by side; what cannot be compiled is left for `measured` to find out."""

    def attempt(choice: Choice) -> None:
        with contextlib.suppress(compiler.CannotCompile):
            prepare(choice)

    with ThreadPoolExecutor(min(len(offered), os.cpu_count() or 1)) as pool:
        list(pool.map(attempt, offered))


def measured(
    offered: list[Choice], call: Callable[[Choice], Call], lacks: set[str] | None = None
) -> dict[Choice, float]:
    """Seconds of every choice that can run here; those that cannot are left out, and what they lack put into lacks.

    torch's own convolution only if it is out of memory, which its copy to another layout may need, and another ran.
    """
    times: dict[Choice, float] = {}
    best = float("inf")
    for choice in offered:  # the best guess first: it bounds what is worth more than one call, torch's often is not
        try:
            times[choice] = seconds(call(choice), HOPELESS * best)
        except Exception as error:
            lack = lacking(error)
            spared = choice.path != "torch" or (times and lack == MEMORY)
            if not spared or not lack:
                raise
            if lacks is not None:
                lacks.add(lack)
            continue
        best = min(best, times[choice])
    return times


def lacking(error: Exception) -> str:
    """What a candidate asks for and this device, process or version of Triton does not have; "" if it is a bug.

    Triton's launcher is C. Without a compiler it raises RuntimeError; without Python.h the compiler ends with an error.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return MEMORY
    if isinstance(error, subprocess.CalledProcessError) or "Failed to find C compiler" in str(error):
        return C_COMPILER
    kinds = (
        triton.runtime.errors.OutOfResources,
        triton.compiler.errors.CompilationError,
        compiler.CannotCompile,
    )
    return FITTING if isinstance(error, kinds) or "PassManager" in str(error) else ""


def seconds(call: Call, hopeless: float = float("inf")) -> float:
    """Seconds of one call on the device, free of the time that launching takes the processor; waits for the device."""
    call()  # compiles
    once = _elapsed(call)
    if once > max(hopeless, LAUNCHED):
        return once
    count = max(1, round(SPAN / max(once, 1e-7)))

    def repeated() -> None:
        for _ in range(count):
            call()

    graph = captured(repeated, torch.cuda.Stream())
    times = [_elapsed(graph.replay) / count for _ in range(REPLAYS)]
    return statistics.median(times)


def _elapsed(call: Call) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def stored(device: str, problem: Problem, offered: list[Choice]) -> Choice | None:
    """What was once chosen for this device, these versions and this problem, if it is still offered."""
    try:
        record = json.loads(_path(device, problem).read_text())
        if record["key"] != _key(device, problem):
            return None
        choice = Choice.from_dict(record["choice"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return choice if choice in offered else None


def recorded(device: str, problem: Problem) -> dict[str, float]:
    """Seconds of every choice, by its name, when this problem was timed; {} if it was not."""
    try:
        record = json.loads(_path(device, problem).read_text())
        return {str(name): float(time) for name, time in record["seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def store(device: str, problem: Problem, choice: Choice, times: dict[Choice, float]) -> None:
    """Remember on disk; where that cannot be written, the next process times again."""
    record = {
        "key": _key(device, problem),
        "choice": choice.to_dict(),
        "seconds": {str(one): time for one, time in sorted(times.items(), key=lambda item: item[1])},
    }
    path = _path(device, problem)
    with contextlib.suppress(OSError), replacing(path) as new:
        new.write_text(json.dumps(record, indent=1))


def _key(device: str, problem: Problem) -> dict[str, object]:
    versions = {"triton": triton.__version__, "torch": torch.__version__, "format": FORMAT}
    return {"device": device, **versions, "nvrtc": compiler.available(), "problem": dataclasses.asdict(problem)}


def _path(device: str, problem: Problem) -> Path:
    key = json.dumps(_key(device, problem), sort_keys=True)
    return operator_file(f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json")
