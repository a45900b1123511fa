"""What the processor is called and how much of it is ours. Imports nothing of the package: every floor may ask."""

import contextlib
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def processor_name() -> str:
    """The processor's name as its maker gives it."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "CPU"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


def cores() -> int:
    """Cores this process may use: affinity and the container's quota count, not what the machine has."""
    import joblib  # type: ignore[import-untyped]  # takes a while, and few ask

    return int(joblib.cpu_count())
