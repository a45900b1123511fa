"""What works on this machine and what would help: the lines of `lkspace doctor`, looked up in a few seconds."""

import math
import os
import platform
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

import lkspace
from lkspace import kernels
from lkspace.data import cache_folder
from lkspace.errors import RunError, UserError
from lkspace.kernels import gpu
from lkspace.scores import pace, timing
from lkspace.scores.latency import device_name, only_threads
from lkspace.scores.quiet import Device, lock_folder

PACKAGES = ("torch", "ray", "optuna", "fvcore", "plotly", "pandas", "numpy", "scikit-learn")
VARIABLES = (
    "LKSPACE_KERNEL",
    "LKSPACE_ISA",
    "LKSPACE_SCHEME",
    "LKSPACE_CACHE",
    "LKSPACE_LOCKS",
    "CUDA_VISIBLE_DEVICES",
)
_LOOK = 0.6  # seconds of timing, with the lock and without
_CERTAIN = 0.03  # half of the median's interval over the median up to which latencies can be compared
_SHARE = 0.25  # undisturbed passes; with fewer a measurement runs into its limits
_LITTLE_DISK = 2e9  # bytes: data, weights and the study of a few hundred trials
Verdict = Literal["ok", "warn"]


class Line(NamedTuple):
    """One fact: what it is about, what was found, whether it is as it should be, and what to do if not."""

    label: str
    value: str
    verdict: Verdict = "ok"
    hint: str = ""


def report() -> list[Line]:
    """All facts, in reading order; raises nothing that a broken machine could cause."""
    lines: list[Line] = []
    for look in (_versions, _processor, _gpus, _operator, _variables, _quiet, _pace, _folders):
        lines.extend(look())
    return lines


def report_text() -> str:
    """The facts as aligned lines, hints below what they mend."""
    lines = report()
    width = max(len(line.label) for line in lines)
    text = []
    for line in lines:
        mark = " " if line.verdict == "ok" else "!"
        text.append(f"{mark} {line.label:<{width}}  {line.value}")
        if line.hint:
            text.append(
                textwrap.fill(
                    line.hint, 100, initial_indent=" " * (width + 4) + "-> ", subsequent_indent=" " * (width + 7)
                )
            )
    troubles = sum(line.verdict == "warn" for line in lines)
    text.append("" if not troubles else f"\n{troubles} to look at, marked with !")
    return "\n".join(text).rstrip()


def _versions() -> Iterator[Line]:
    yield Line("lkspace", f"{lkspace.__version__} in {Path(lkspace.__file__).parent}")
    yield Line("python", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        try:
            yield Line(name, version(name))
        except PackageNotFoundError:
            yield Line(name, "missing", "warn", f"python -m pip install {name}")


def _processor() -> Iterator[Line]:
    cores, usable, quota = os.cpu_count() or 1, usable_cores(), core_quota()
    value = f"{device_name('cpu')}, {cores} cores"
    if usable < cores:
        value += f", {usable} of them for this process"
    yield Line("processor", f"{value}; torch uses {torch.get_num_threads()} threads")
    if quota < usable:
        yield Line(
            "core quota",
            f"{quota:g} of {usable} cores' time",
            "warn",
            "this container is paused when its share is used up, in the middle of what is timed: give it whole cores"
            " (docker run --cpuset-cpus) or search with --concurrency no larger than the share",
        )


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores' worth of time that the control group grants, infinity where it sets no limit; cgroups 2, then 1."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join((root / file).read_text() for file in files).split()
            return math.inf if words[0] in ("max", "-1") else float(words[0]) / float(words[1])
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return math.inf


def _gpus() -> Iterator[Line]:
    if not torch.cuda.is_available():
        yield Line("GPU", "none that torch can use; everything works on the processor")
        return
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 1e9
        yield Line(
            f"GPU cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GB, CUDA {torch.version.cuda}"
        )


def _operator() -> Iterator[Line]:
    reasons = kernels.availability()
    try:
        backend = kernels.backend_for(torch.empty(1, 1, 8, 8), torch.empty(1, 1, 3, 3))
        name = f"{backend} {kernels.isa()}" if backend == "native" else backend
        schemes = kernels.scheme_summary() if backend == "native" else ""
    except UserError as error:  # LKSPACE_KERNEL, LKSPACE_ISA or LKSPACE_SCHEME forces what is not there
        yield Line("operator", "cannot run", "warn", str(error))
        return
    if reasons.get("native"):
        yield Line(
            "operator",
            f"{name}: large depthwise convolutions are slow; native is missing: {reasons['native']}",
            "warn",
            "install a C++ compiler (gcc or clang), then lkspace again, in its checkout:"
            " python -m pip install --force-reinstall --no-deps .",
        )
    else:
        yield Line("operator", name)
    if schemes:
        yield Line("operator's schemes", schemes)
    if torch.cuda.is_available():
        missing = reasons["gpu"] or gpu.too_old(0)
        hint = "large depthwise convolutions are slow on the GPU" if missing else ""
        yield Line("operator on a GPU", f"torch: {missing}" if missing else "gpu", "warn" if missing else "ok", hint)


def _variables() -> Iterator[Line]:
    for name in VARIABLES:
        if name in os.environ:
            yield Line(name, os.environ[name])


def _quiet() -> Iterator[Line]:
    """Whether a latency can be trusted here: the locks work, and a fixed workload takes a steady time."""
    if hasattr(os, "getloadavg"):
        load, cores = os.getloadavg()[0], usable_cores()
        hint = "other programs want all cores: stop them, or what is trained and timed beside them takes longer"
        value = f"{load:.1f} over the last minute on {cores} cores"
        yield Line("load", value, "warn", hint) if load >= cores else Line("load", value)
    yield _steadiness("as it is", timed_work())
    try:
        with Device("cpu").exclusive(timeout=1.0):
            times = timed_work()
    except RunError as error:
        used = "still in use" in str(error)
        hint = "a search is training or measuring; ask again when it has ended" if used else str(error)
        yield Line("latency, locked", "a search uses the processor" if used else "the lock cannot be had", "warn", hint)
        return
    yield _steadiness("locked", times)


def _pace() -> Iterator[Line]:
    """How fast this machine is now, compared with when it first measured a latency: all latencies are at that pace."""
    try:
        with only_threads(1):
            now = pace.seconds_now()
        path = pace.standard_file(1)
    except UserError:  # the operator cannot run, or there is no cache folder, which its own line says
        return
    first = pace.known_standard(path)
    if first is None:
        found = "; the first latency that is measured sets the standard"
    else:
        found = f", {now / first:.2f} times the standard in {path}; to begin anew, delete it"
    yield Line("pace", f"{1e3 * now:.2g} ms for the yardstick{found}")


def timed_work() -> timing.Timing:
    """Some convolution of torch's on one thread, as often as fits."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 64, 24, 24, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)

    def once() -> float:
        start = time.perf_counter()
        torch.conv2d(x, weight)
        return time.perf_counter() - start

    with only_threads(1), torch.inference_mode():
        sentinel = timing.sentinel_on_cpu()
        timing.warmed_up(once, 0.05)
        timing.warmed_up(sentinel, 0.01)
        seconds: list[float] = []
        sentinels, end = [sentinel()], time.perf_counter() + _LOOK
        while time.perf_counter() < end or len(seconds) < timing.LEAST:
            seconds.append(once())
            sentinels.append(sentinel())
    return timing.judged(np.array(seconds), np.array(sentinels))


def _steadiness(how: str, times: timing.Timing) -> Line:
    low, high = times.interval
    doubt, share = (high - low) / 2 / times.median, float(times.counted.mean())
    p5, p95 = np.percentile(times.seconds, [5, 95])
    value = (
        f"{1e3 * times.median:.2g} ms of fixed work is known to {doubt:.1%}; {share:.0%} of the passes undisturbed,"
        f" the slow ones {p95 / p5:.1f} times the fast ones"
    )
    if times.undisturbed and doubt <= _CERTAIN and share >= _SHARE:
        return Line(f"latency, {how}", value)
    hint = (
        "the machine is busy with something else, or shared with other guests: stop other programs, or search"
        " when it is quiet; every measurement records its interval and whether it was undisturbed"
    )
    return Line(f"latency, {how}", value, "warn", hint)


def _folders() -> Iterator[Line]:
    yield _folder("locks", lock_folder, " with LKSPACE_LOCKS")
    yield _folder("cache of data", cache_folder, " with LKSPACE_CACHE")
    yield _folder("runs", lambda: Path("runs").absolute(), " with --run")


def _folder(label: str, where: Callable[[], Path], mend: str) -> Line:
    try:
        folder = where()
    except (RunError, UserError) as error:
        return Line(label, "not usable", "warn", str(error))
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not os.path.isdir(there) or not os.access(there, os.W_OK):
        return Line(label, f"{folder}", "warn", f"{there} is no folder that you can write to; name another{mend}")
    free = shutil.disk_usage(there).free
    value = f"{folder}, {free / 1e9:.0f} GB free"
    if free < _LITTLE_DISK and label != "locks":
        return Line(label, value, "warn", "little room: a run keeps its weights, the cache its decoded images")
    return Line(label, value)
