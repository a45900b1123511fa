"""Working memory of a training: how much it needs at the least, and on the CPU kept by the process from step to step.

The C library gives large blocks back to the system when they are freed, and a training step frees all it made: every
step then takes its memory anew, page by page, each cleared by the kernel (9,000 page faults a step at 128 px, a seventh
of the time: benchmarks/proxy_step.py).
"""

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from lkspace import nets
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_STEP = 64 * 2**20  # bytes by which the heap grows
_LARGEST = (2**30, 32 * 2**20)  # bytes of a block that comes from the heap; glibc before 2.35 takes no more than 32 MiB

_BYTES = 4  # of a number in float32
_STATES = 5  # numbers a weight needs: itself, its gradient, AdamW's two moments, its moving average
_HALVED = 0.5  # a GPU computes in bfloat16 what the CPU keeps in float32
# What torch and NVIDIA's libraries say, as RuntimeErrors, of allocations that torch's own exception is not for.
_NO_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
)
_GROUPS, _LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def training_bytes(architecture: Architecture, setting: Setting) -> int:
    """Bytes that a proxy training needs at the least: weights, their states, and what a step keeps for its gradients.

    By arithmetic. What the allocator and the operators take beside is not in it: less than as much again.
    """
    weights = nets.params(architecture, setting.classes, "train")
    kept = setting.batch * nets.activations(architecture, setting.size, setting.classes)
    return int(_BYTES * (_STATES * weights + kept * (1.0 if setting.device == "cpu" else _HALVED)))


def device_bytes(device: str) -> int | None:
    """Memory of "cpu", as far as this process may use it, or of a GPU; None if the system does not tell."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return min([installed, *_allowances()])


def _allowances() -> Iterator[int]:
    """Bytes that the control groups of this process may use, of either version, each and those above it."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = _GROUPS.read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, file = (_LIMITS / "memory", "memory.limit_in_bytes") if controllers else (_LIMITS, "memory.max")
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                with contextlib.suppress(OSError, ValueError):  # "max", or no such file
                    yield int((folder / file).read_text())


def ran_out(error: BaseException) -> bool:
    """Whether memory was what an error was about; torch has an exception for its own allocations on a GPU only."""
    told = any(words in str(error) for words in _NO_MEMORY)
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or told


def give_back(device: str) -> None:
    """Free what a training that is over leaves, and let other processes have a GPU's memory that it lay in.

    Optimizer and schedule refer to each other and to the weights: only the collector frees them.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of giving it back; whether the C library could be told so.

    For the process's whole life, so for workers of a search alone. Does nothing outside of Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST)
    return bool(kept and mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_TOP_PAD, _STEP))
