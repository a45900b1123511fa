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
    return _fields().get("model name") or platform.processor() or platform.machine() or "CPU"


@cache
def processor_kind() -> str:
    """The name, and what tells processors of one name apart where Linux says it: clouds call generations the same."""
    told = (_fields().get(key) for key in ("cpu family", "model", "stepping", "CPU implementer", "CPU part"))
    return " ".join([processor_name(), *(value for value in told if value)])


@cache
def _fields() -> dict[str, str]:
    """Of the first processor in Linux's list; none elsewhere."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}
    return {}


def cores() -> int:
    """Cores this process may use: affinity and the container's quota count, not what the machine has."""
    import joblib  # type: ignore[import-untyped]  # takes a while, and few ask

    return int(joblib.cpu_count())
