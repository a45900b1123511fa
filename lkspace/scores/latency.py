"""Latency: the time of one pass of the deploy form with every batch norm folded, while the device is kept quiet."""

import contextlib
import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lkspace
from lkspace import kernels, nets
from lkspace.errors import UserError
from lkspace.nets.layers import DepthwiseConv2d
from lkspace.processor import processor_name
from lkspace.registry import scores
from lkspace.scores import denormals, pace, timing
from lkspace.scores.quiet import Device
from lkspace.scores.score import Direction, Measurement, Setting
from lkspace.space.architecture import Architecture

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
PATIENCE = 600.0  # seconds to wait for trainings to stand still; a step of minutes is a process that hangs
_WARM_UP = {"cpu": 0.08, "cuda": 0.3}  # seconds in each memory format; a GPU raises its clock only under load
_TURNS = 4


class Latency:
    """Milliseconds of one pass over `latency_batch` images, in the faster of the two memory formats."""

    name = "latency"
    unit = "ms"
    direction: Direction = "minimize"
    cheap = False

    def measure(self, architecture: Architecture, setting: Setting) -> Iterator[Measurement]:
        """One measurement; torch's threads, generators and denormal mode are afterwards as before.

        Raises UserError if `latency_dtype` is unknown, RunError if the device does not become quiet.
        """
        device = Device(setting.device)
        with device.step():  # to build is work, and would disturb another's measurement
            network, images = prepared(architecture, setting)
        with device.exclusive(timeout=PATIENCE, in_line=True) as waited:
            start = time.perf_counter()
            details = timed(network, images, setting)
            details["exclusive"] = True
            details["waited_seconds"] = waited
            details["held_seconds"] = time.perf_counter() - start
        yield Measurement(details["median"], details)


scores.register("latency")(Latency())


def prepared(architecture: Architecture, setting: Setting) -> tuple[nn.Module, Tensor]:
    """The network as it is timed, and images (batch, 3, size, size) of noise; torch's generators stay as they are."""
    if setting.latency_dtype not in DTYPES:
        raise UserError(f"latency_dtype {setting.latency_dtype!r}: expected one of {', '.join(DTYPES)}")
    device, dtype = torch.device(setting.device), DTYPES[setting.latency_dtype]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(setting.seed)  # not the GPU's, which are not restored
        network = nets.build(architecture, setting.classes)
    network = network.deploy(fold_batch_norms=True).eval().requires_grad_(False)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(setting.seed)
    images = torch.randn(setting.latency_batch, 3, setting.size, setting.size, generator=generator)
    return network.to(device, dtype), images.to(device, dtype)


def timed(network: nn.Module, images: Tensor, setting: Setting) -> dict[str, Any]:
    """What is known of the time of one pass, whether or not the device is quiet; times in ms.

    On a CPU they are at its standard pace (see `pace.py`): times "pace" they are about what the clock said.
    """
    on_cpu = images.device.type == "cpu"
    with only_threads(setting.latency_threads), torch.inference_mode(), on(images.device):
        layout, once = _fastest_layout(network, images)
        sentinel, yardstick = (timing.sentinel_on_cpu(), pace.yardstick_on_cpu()) if on_cpu else (None, None)
        if on_cpu and setting.standard is None:
            pace.settle(setting.latency_threads, setting.cache, renew=True)
        result = timing.repeated(once, sentinel, yardstick=yardstick)
    return {
        **_statistics(result, _standard(result, setting)),
        "batch": setting.latency_batch,
        "size": setting.size,
        "dtype": setting.latency_dtype,
        "threads": setting.latency_threads,
        "layout": layout,
        "form": "deploy, batch norms folded",
        "device": device_name(setting.device),
        "operator": _operator(network, images, layout),
        "implementation": kernels.implementation(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "lkspace": lkspace.__version__,
    }


def elsewhere(latency: Mapping[str, Any], device: str) -> str:
    """What differs here from where a latency, given with its details, was measured; "" if nothing does."""
    now: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__, "lkspace": lkspace.__version__}
    if not device.startswith("cuda"):
        now |= {"cores": os.cpu_count(), "implementation": kernels.implementation()}
    differing = (key for key, value in now.items() if latency.get(key, value) != value)
    return next((f"{key} {latency[key]}, here {now[key]}" for key in differing), "")


def device_name(device: str) -> str:
    """The processor's or the GPU's name as its maker gives it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return processor_name()


def _fastest_layout(network: nn.Module, images: Tensor) -> tuple[str, Callable[[], float]]:
    """The memory format that a person who deploys would choose, and a pass in it; leaves the network in it."""
    turn = _WARM_UP.get(images.device.type, _WARM_UP["cpu"]) / _TURNS
    fastest = dict.fromkeys(LAYOUTS, math.inf)
    start = time.perf_counter()
    for _ in range(_TURNS):  # in turns, so that a slow spell of the machine does not decide
        for layout in LAYOUTS:
            fastest[layout] = min(fastest[layout], timing.warmed_up(_pass(network, images, layout), turn))
        if time.perf_counter() - start > 10 * _TURNS * turn:
            break  # passes of seconds
    layout = min(fastest, key=fastest.__getitem__)
    once = _pass(network, images, layout)
    once()
    return layout, once


def _pass(network: nn.Module, images: Tensor, layout: str) -> Callable[[], float]:
    network.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    images = images.contiguous(memory_format=LAYOUTS[layout])
    make = timing.pass_on_gpu if images.device.type == "cuda" else timing.pass_on_cpu
    return make(network, images)


@contextlib.contextmanager
def only_threads(threads: int) -> Iterator[None]:
    """This many threads, denormals flushed as every runtime for inference does, no garbage collection."""
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        with denormals.flushed():
            yield
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A GPU as the current one, whose stream CUDA events are recorded on; nothing for a CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _standard(result: timing.Timing, setting: Setting) -> float | None:
    """Milliseconds of the yardstick at the pace that is reported; None if it did not run."""
    if not len(result.yardstick):
        return None
    return standard_of(setting, float(np.median(result.yardstick)))


def standard_of(setting: Setting, seconds: float) -> float:
    """Milliseconds of the yardstick at the pace that is reported: the run's, or the machine's, set if it has none."""
    if setting.standard is not None:
        return setting.standard
    return 1e3 * pace.standard(seconds, setting.latency_threads, setting.cache)


def _statistics(result: timing.Timing, standard: float | None) -> dict[str, Any]:
    """In ms; where there is a yardstick, at the pace at which it takes `standard` ms."""
    unit = 1e3 if standard is None else standard
    pace_now = 1.0 if standard is None else 1e3 * float(np.median(result.yardstick)) / standard
    low, high = result.interval
    p5, p95 = np.percentile(result.values, [5, 95])
    return {
        "median": unit * result.median,
        "interval": [unit * low, unit * high],
        **({} if standard is None else {"pace": pace_now, "standard": standard}),
        "repeats": len(result.values),
        "undisturbed": result.undisturbed,
        "passes": len(result.seconds),
        "median_of_all": 1e3 * float(np.median(result.seconds)) / pace_now,
        "p5": unit * float(p5),
        "p95": unit * float(p95),
    }


def _operator(network: nn.Module, images: Tensor, layout: str) -> str:
    """Backend of the largest kernel, with its instruction set: "native avx512"; "" in a network without any."""
    convolutions = [module for module in network.modules() if isinstance(module, DepthwiseConv2d)]
    if not convolutions:
        return ""
    weight = max((module.weight for module in convolutions), key=Tensor.numel)
    x = images.new_empty(1, weight.shape[0], 2, 2).contiguous(memory_format=LAYOUTS[layout])
    backend = kernels.backend_for(x, weight)
    return f"{backend} {kernels.isa()}" if backend == "native" else backend
