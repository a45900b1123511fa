"""What the processor is called. Imports nothing of the package: every floor may ask."""

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
