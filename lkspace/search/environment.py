"""Where and with what a run was made: the versions and the machine that go into its record."""

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lkspace.scores.latency import device_name

_PACKAGES = ("lkspace", "torch", "optuna", "ray", "numpy", "triton")


def environment(device: str) -> dict[str, Any]:
    """JSON types: the time, versions, operating system, processor, cores, and the GPU if `device` is one."""
    found: dict[str, Any] = {
        "begun": datetime.now().astimezone().isoformat(timespec="microseconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": device_name("cpu"),
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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
