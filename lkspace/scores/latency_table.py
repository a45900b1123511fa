"""The latency of any architecture as a sum: each distinct part of a space is timed once and remembered.

Additive tables are as old as hardware-aware search (Cai et al., ProxylessNAS, 2019). What a sum leaves out, above all
that a network's parts drive each other out of the caches, is nearly the same share of every network's time: one factor,
from candidates that were measured whole, makes up for it. A trial is always judged by its own measurement.
"""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

import lkspace
from lkspace import kernels, nets
from lkspace.folders import cache_folder
from lkspace.nets.family import Part
from lkspace.ranking import kendall_tau
from lkspace.replacing import replacing
from lkspace.scores import pace, timing
from lkspace.scores.latency import DTYPES, LAYOUTS, PATIENCE, device_name, on, only_threads
from lkspace.scores.quiet import Device
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace

VERSION = 4
# A machine that others share is slow for seconds at a time, long enough for every pass of a part: so all parts are
# timed once, each beside the yardstick, then all again, and the median of a part's times counts.
ROUNDS = 5
SHARE = 0.01  # of the time that a whole network is measured for, each time: its parts' errors cancel in a sum
PASS = 1e-3  # seconds: a part runs again and again until a pass takes so long, or the clock would be much of it
_WARM_UP = {"cpu": 0.003, "cuda": 0.01}  # seconds
_ALIKE = ("blocks", "reparam")  # fields that decide no part of the folded form
Times = dict[str, list[float]]  # milliseconds by memory format, one a round
Progress = Callable[[int, int], None]


def distinct_parts(space: SearchSpace) -> list[Part]:
    """Every part that an architecture of the space is made of, once, its reference points' included.

    A stage's variables are varied together, then the channels of each pair of neighbours: see `Family.parts`.
    """
    first = {v.name: v.choices[0] for v in space.variables}
    found: dict[str, Part] = {}
    for names in _varied(space):
        choices = [next(v.choices for v in space.variables if v.name == name) for name in names]
        for chosen in itertools.product(*choices):
            architecture = space.decode({**first, **dict(zip(names, chosen, strict=True))})
            found |= {part.key: part for part in nets.parts(architecture, space.image_size, space.classes)}
    for architecture in space.reference_points:
        found |= {part.key: part for part in nets.parts(architecture, space.image_size, space.classes)}
    return list(found.values())


def _varied(space: SearchSpace) -> Iterator[list[str]]:
    """Names of variables that must be varied together."""
    for stage in range(space.stages):
        touching = (v for v in space.variables if not v.stages or stage in v.stages)
        yield [v.name for v in touching if v.field not in _ALIKE]
        near = (v for v in space.variables if {stage, stage + 1} & set(v.stages))
        yield [v.name for v in near if v.field == "channels"]


@dataclass
class LatencyTable:
    """Times of parts on one device, with one batch, precision and number of threads; kept in the cache folder.

    setting: what is timed and how. times: milliseconds of each part by its key and memory format.
    """

    setting: Setting
    times: dict[str, Times] = field(default_factory=dict)

    @classmethod
    def open(cls, setting: Setting) -> Self:
        """What is known of this device with these versions; empty if nothing is, or the file is damaged."""
        return cls(setting, _read(_file(setting)))

    @property
    def path(self) -> Path:
        """Where the times are kept; named by all that they depend on."""
        return _file(self.setting)

    def missing(self, parts: Iterable[Part], rounds: int = ROUNDS) -> list[Part]:
        """The parts that were not timed in so many rounds."""
        return [part for part in parts if self._rounds(part) < rounds]

    def fill(
        self, parts: Iterable[Part], progress: Progress | None = None, again: bool = False, rounds: int = ROUNDS
    ) -> int:
        """Time the parts that are not known yet, or all of them `again`; returns how many.

        Each is kept at once, so that what is cut off goes on. The device is held alone for one part at a time.
        progress: called with (timings done, timings in all). rounds: how often each is to have been timed.
        Raises RunError if the device does not become quiet.
        """
        missing = list(parts) if again else self.missing(parts, rounds)
        if again:
            self.times = {**self.times, **{part.key: {} for part in missing}}
        timings = [part for done in range(rounds) for part in missing if self._rounds(part) <= done]
        if timings and self.setting.device == "cpu":
            threads = self.setting.latency_threads
            with Device("cpu").exclusive(timeout=PATIENCE), only_threads(threads):
                pace.settle(threads, self.setting.cache)
        for done, part in enumerate(timings):
            if progress is not None:
                progress(done, len(timings))
            with Device(self.setting.device).exclusive(timeout=PATIENCE):
                found = timed_part(part, self.setting)
            known = self.times.get(part.key, {})
            self.times[part.key] = {layout: [*known.get(layout, []), ms] for layout, ms in found.items()}
            self._keep()
        if progress is not None:
            progress(len(timings), len(timings))
        return len(missing)

    def _rounds(self, part: Part) -> int:
        return max(map(len, self.times.get(part.key, {}).values()), default=0)

    def sum(self, architecture: Architecture) -> float:
        """Milliseconds of one pass in the faster of the memory formats; NaN if a part was never timed."""
        parts = nets.parts(architecture, self.setting.size, self.setting.classes)
        known = [self.times.get(part.key, {}) for part in parts]
        return min(sum(median(times.get(layout, [math.nan])) for times in known) for layout in LAYOUTS)

    def _keep(self) -> None:
        """On disk, beside what other processes have found out meanwhile; a full disk costs the memory, not the run."""
        self.times = {**_read(self.path), **self.times}
        content = {"conditions": _conditions(self.setting), "milliseconds": self.times}
        try:
            with replacing(self.path) as new:
                new.write_text(json.dumps(content, indent=1))
        except OSError:
            pass


@dataclass(frozen=True)
class Agreement:
    """How a table's sums compare with the same networks measured whole.

    factor: measured over sum, the median; the errors are those of factor x sum, relative to what was measured.
    tau: Kendall's, None if all are equal.
    """

    networks: int
    factor: float
    median_error: float
    error_p95: float
    tau: float | None

    @property
    def text(self) -> str:
        """In one line."""
        tau = "" if self.tau is None else f", Kendall's tau {self.tau:.2f}"
        return (
            f"median error {self.median_error:.1%}, 95 % of errors under {self.error_p95:.1%}{tau}"
            f" ({self.networks} networks measured whole; what the sums leave out: {self.factor - 1:+.0%})"
        )


def agreement(pairs: Iterable[tuple[float, float]]) -> Agreement | None:
    """Of (sum, measured); those that are not finite are left out. None if fewer than three are left."""
    rows = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < 3:
        return None
    sums, measured = rows.T
    factor = float(np.median(measured / sums))
    errors = np.abs(factor * sums / measured - 1)
    return Agreement(
        len(rows),
        factor,
        float(np.median(errors)),
        float(np.percentile(errors, 95)),
        kendall_tau(sums, measured),
    )


def timed_part(part: Part, setting: Setting) -> dict[str, float]:
    """Milliseconds of one pass through a part, by memory format; the caller keeps the device quiet.

    On a CPU they are at the machine's standard pace, as a latency is.
    """
    device, dtype = torch.device(setting.device), DTYPES[setting.latency_dtype]
    generator = torch.Generator().manual_seed(setting.seed)
    x = torch.randn(setting.latency_batch, *part.shape, generator=generator).to(device, dtype)
    with torch.random.fork_rng(devices=[]):
        module = part.build().requires_grad_(False).to(device, dtype)
    with only_threads(setting.latency_threads), torch.inference_mode(), on(device):
        if device.type != "cpu":
            return {layout: _timed(module, x, layout) for layout in LAYOUTS}
        yardstick = pace.yardstick_on_cpu()
        found, paces = {}, [yardstick()]
        for layout in LAYOUTS:
            found[layout] = _timed(module, x, layout)
            paces.append(yardstick())
    now = median(paces)
    standard = pace.standard(now, setting.latency_threads, setting.cache)
    return {layout: ms * standard / now for layout, ms in found.items()}


def _timed(part: nn.Module, x: Tensor, layout: str) -> float:
    part = part.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    x = x.contiguous(memory_format=LAYOUTS[layout])
    kind = x.device.type
    make = timing.pass_on_gpu if kind == "cuda" else timing.pass_on_cpu
    once = timing.warmed_up(make(part, x), _WARM_UP.get(kind, _WARM_UP["cpu"]))
    times = max(1, math.ceil(PASS / once))
    sentinel = timing.sentinel_on_cpu() if kind == "cpu" else None
    return 1e3 * timing.repeated(make(_Again(part, times), x), sentinel, SHARE).median / times


class _Again(nn.Module):
    """A part several times on the same input."""

    def __init__(self, part: nn.Module, times: int) -> None:
        super().__init__()
        self.part = part
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """x: what the part takes -> what it gives."""
        for _ in range(self.times):
            y: Tensor = self.part(x)
        return y


def _conditions(setting: Setting) -> dict[str, Any]:
    return {
        "version": VERSION,
        "device": device_name(setting.device),
        "cores": os.cpu_count(),
        "batch": setting.latency_batch,
        "dtype": setting.latency_dtype,
        "threads": setting.latency_threads,
        "operator": kernels.implementation(),
        "torch": torch.__version__,
        "lkspace": lkspace.__version__,
    }


def _file(setting: Setting) -> Path:
    name = hashlib.sha256(json.dumps(_conditions(setting)).encode()).hexdigest()[:16]
    return (setting.cache or cache_folder()) / "latency" / f"{setting.device.split(':')[0]}-{name}.json"


def _read(path: Path) -> dict[str, Times]:
    """What the file holds of sound times; nothing if it cannot be read."""
    try:
        found: Mapping[str, Any] = json.loads(path.read_text())["milliseconds"]
        return {key: dict(times) for key, times in found.items() if _sound(times)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _sound(times: Any) -> bool:
    rows = [times.get(layout) for layout in LAYOUTS]
    if not all(isinstance(row, list) and row for row in rows):
        return False
    return all(isinstance(value, int | float) and 0 < value < math.inf for row in rows for value in row)
