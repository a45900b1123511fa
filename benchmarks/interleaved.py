"""Shared by the benchmarks of the operator: fair timing on a noisy machine, and what a results file says of it."""

import json
import os
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any


def use_instruction_set(isa: str | None) -> None:
    """Hold both torch and the operator to an instruction set; before torch is imported, or torch has chosen."""
    if isa is None:
        return
    assert "torch" not in sys.modules
    os.environ["LKSPACE_ISA"] = isa
    if isa == "avx2":
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
        os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
        os.environ["MKL_ENABLE_INSTRUCTIONS"] = "AVX2"


def medians(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    least: int = 5,
    most: int = 400,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each call, all called in turn again and again, so that a disturbance meets every one.

    Each round in an order of its own, so that none always follows the same one, which may have left its tensors in the
    processor's cache. At least `least` rounds after one that is thrown away, then until `seconds` are spent on all.
    `clock` may be time.thread_time, which stands still while others use the processor: for calls that start no threads.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    rng = random.Random(0)
    begin = time.perf_counter()
    for repeat in range(most):
        if repeat >= least and time.perf_counter() - begin > seconds:
            break
        for name in rng.sample(list(calls), len(calls)):
            call = calls[name]
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def circumstances() -> dict[str, Any]:
    """When, where and with what: the head of a results file. Imports torch."""
    import torch

    from lkspace.kernels import isa
    from lkspace.processor import processor_name

    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
        "onednn_limit": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "operator_instruction_set": isa(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def write(path: Path | None, result: Mapping[str, Any]) -> None:
    """A results file, if one was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {path}")
