"""Where and with what a run was made: the versions and the machine that go into its record."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("lkspace", "torch", "optuna", "ray", "numpy", "triton")


def environment(device: str) -> dict[str, Any]:
    """JSON types: versions, operating system, processor, cores, and the GPU if `device` is one."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device,
        "packages": {name: v for name in _PACKAGES if (v := _version(name))},
    }
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            found["cuda"] = torch.version.cuda
    return found


def processor() -> str:
    """The processor's name as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
