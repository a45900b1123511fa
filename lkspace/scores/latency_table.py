"""The latency of any architecture as a sum: each distinct part of a space is timed once and remembered.

Additive tables are as old as hardware-aware search (Cai et al., ProxylessNAS, 2019). What a sum leaves out is that a
network's parts drive each other out of the caches: a part that runs again and again is faster than within a network.
So on a CPU a part runs in turn with the yardstick (`pace.py`), a small network of the same kind, and its
ratio to that counts. What is still left out grows with the weights, which a network that does not fit into the caches
fetches anew each time; `agreement.py` makes up for it, going by networks that were measured whole.
A trial is always judged by its own measurement.
"""

import copy
import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Self

import torch
from torch import Tensor, nn

import lkspace
from lkspace import kernels, nets
from lkspace.folders import cache_folder
from lkspace.nets.family import Part
from lkspace.processor import processor_kind
from lkspace.replacing import replacing
from lkspace.scores import pace, timing
from lkspace.scores.latency import DTYPES, LAYOUTS, PATIENCE, device_name, on, only_threads, standard_of
from lkspace.scores.memory import ran_out
from lkspace.scores.quiet import Device
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace

VERSION = 5
# A machine that others share is slow for seconds at a time, long enough for every pass of a part: so all parts are
# timed once, then all again, and the median of a part's times counts.
ROUNDS = 3
TURNS = 6  # passes of a part in each memory format on a CPU; few, because parts' errors cancel in a sum
SHARE = 0.01  # of the time that a whole network is measured for, on a GPU, for the same reason
PASS = 1e-3  # seconds: a GPU runs a part again and again until a pass takes so long
_WARM_UP = 0.01  # seconds, on a GPU
_KEPT = 1.0  # seconds between two times that what is known is written down
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

    setting: what is timed and how. times: milliseconds of each part by its key and memory format. standard: seconds of
    the yardstick at whose pace they are; None on a GPU.
    """

    setting: Setting
    times: dict[str, Times] = field(default_factory=dict)
    standard: float | None = None

    @classmethod
    def open(cls, setting: Setting) -> Self:
        """What is known of this device with these versions; empty if nothing is, or the file is damaged."""
        table = cls(setting, *_read(_file(setting)))
        if setting.device == "cpu" and (now := _standard_now(setting)) is not None:
            table._adopt(now)
        return table

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

        What is cut off goes on where it was, but for a second's work at most. The device is held alone for one part at
        a time.
        progress: called with (timings done, timings in all). rounds: how often each is to have been timed.
        Raises RunError if the device does not become quiet.
        """
        missing = list(parts) if again else self.missing(parts, rounds)
        if again:
            self.times = {**self.times, **{part.key: {} for part in missing}}
        timings = [part for done in range(rounds) for part in missing if self._rounds(part) <= done]
        if timings and self.setting.device == "cpu":
            threads = self.setting.latency_threads
            with Device("cpu").exclusive(timeout=PATIENCE, in_line=True), only_threads(threads):
                pace.settle(threads, self.setting.cache)
            self._adopt(_standard_now(self.setting))
        setting = replace(self.setting, standard=self.standard and 1e3 * self.standard)  # whatever becomes of it
        kept = time.monotonic()
        try:
            for done, part in enumerate(timings):
                if progress is not None:
                    progress(done, len(timings))
                with Device(self.setting.device).exclusive(timeout=PATIENCE, in_line=True):
                    found = _timed_if_it_fits(part, setting)
                known = self.times.get(part.key, {})
                self.times[part.key] = {layout: [*known.get(layout, []), ms] for layout, ms in found.items()}
                if time.monotonic() - kept > _KEPT:
                    self._keep()
                    kept = time.monotonic()
        finally:
            if timings:
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

    def terms(self, architecture: Architecture) -> tuple[float, float]:
        """What a latency is made of but for factors (see `agreement.py`): the sum, and the network's parameters."""
        return self.sum(architecture), float(nets.params(architecture, self.setting.classes))

    def _adopt(self, standard: float | None) -> None:
        """Times are at the pace of a standard: bring those that are known to the one that new ones will be at."""
        self.times = _at(self.times, self.standard, standard)
        self.standard = standard

    def _keep(self) -> None:
        """On disk, beside what other processes have found out meanwhile; a full disk costs the memory, not the run."""
        self.times = {**_at(*_read(self.path), self.standard), **self.times}
        content = {"conditions": _conditions(self.setting), "standard": self.standard, "milliseconds": self.times}
        try:
            with replacing(self.path) as new:
                new.write_text(json.dumps(content, indent=1))
        except OSError:
            pass


def _timed_if_it_fits(part: Part, setting: Setting) -> dict[str, float]:
    """Nothing of a part that is too large for the memory: its networks have no sum, which is only a hint."""
    try:
        return timed_part(part, setting)
    except Exception as error:
        if not ran_out(error):
            raise
        return {}


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
        if device.type == "cuda":
            return {layout: _timed_on_gpu(module, x, layout) for layout in LAYOUTS}
        return _timed_on_cpu(module, x, setting)


def _timed_on_cpu(part: nn.Module, x: Tensor, setting: Setting) -> dict[str, float]:
    """Each pass follows one of the yardstick, so that it finds the caches as within a network."""
    passes = {}
    for layout, memory_format in LAYOUTS.items():
        module = copy.deepcopy(part).to(memory_format=memory_format)  # type: ignore[call-overload]
        passes[layout] = timing.pass_on_cpu(module, x.contiguous(memory_format=memory_format))
    fastest = min(min(once(), once()) for once in passes.values())
    yardstick = pace.yardstick_on_cpu()
    # A part that is small beside the yardstick leaves it in the caches.
    short = pace.yardstick_on_cpu(passes=1) if fastest < yardstick() else yardstick
    seconds: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    beside = [short()]
    for _ in range(TURNS):
        for layout, once in passes.items():
            seconds[layout].append(once())
            beside.append(short())
    standard = standard_of(setting, median(beside))
    paces = [before + after for before, after in itertools.pairwise(beside)]  # of each pass, in turn, twice
    return {
        layout: 2 * standard * median(a / b for a, b in zip(seconds[layout], paces[i :: len(LAYOUTS)], strict=True))
        for i, layout in enumerate(LAYOUTS)
    }


def _timed_on_gpu(part: nn.Module, x: Tensor, layout: str) -> float:
    part = part.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    x = x.contiguous(memory_format=LAYOUTS[layout])
    once = timing.warmed_up(timing.pass_on_gpu(part, x), _WARM_UP)
    times = max(1, math.ceil(PASS / once))
    return 1e3 * timing.repeated(timing.pass_on_gpu(_Again(part, times), x), None, SHARE).median / times


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
        "device": processor_kind() if setting.device == "cpu" else device_name(setting.device),
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


def _read(path: Path) -> tuple[dict[str, Times], float | None]:
    """What the file holds of sound times, and the standard whose pace they are at; nothing if it cannot be read."""
    try:
        found: Mapping[str, Any] = json.loads(path.read_text())
        times = {key: dict(times) for key, times in found["milliseconds"].items() if _sound(times)}
        standard = found.get("standard")
        return times, float(standard) if isinstance(standard, int | float) and 0 < standard < math.inf else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None


def _standard_now(setting: Setting) -> float | None:
    return pace.known_standard(pace.standard_file(setting.latency_threads, setting.cache))


def _at(times: Mapping[str, Times], old: float | None, new: float | None) -> dict[str, Times]:
    """Times at the pace of another standard, in seconds; as they are where one is not known, as on a GPU."""
    factor = 1.0 if old is None or new is None else new / old
    return {key: {layout: [factor * ms for ms in row] for layout, row in known.items()} for key, known in times.items()}


def _sound(times: Any) -> bool:
    rows = [times.get(layout) for layout in LAYOUTS]
    if not all(isinstance(row, list) and row for row in rows):
        return False
    return all(isinstance(value, int | float) and 0 < value < math.inf for row in rows for value in row)
