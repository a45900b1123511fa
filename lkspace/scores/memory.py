"""Working memory of a training: how much it needs at the least, and on the CPU kept by the process from step to step.

The C library gives large blocks back to the system when they are freed, and a training step frees all it made: every
step then takes its memory anew, page by page, each cleared by the kernel (9,000 page faults a step at 128 px, a seventh
of the time: benchmarks/proxy_step.py).
"""

import contextlib
import ctypes
import os
import sys
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
_CGROUP = Path("/sys/fs/cgroup/memory.max")


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
    with contextlib.suppress(OSError, ValueError):  # "max", or no such file
        return min(installed, int(_CGROUP.read_text()))
    return installed


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
