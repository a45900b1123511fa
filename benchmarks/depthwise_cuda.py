"""The depthwise operator on one NVIDIA GPU: checked, then timed against torch's two layouts.

    python benchmarks/depthwise.py --device cuda

In this order, so that what matters most is there when the time is up: results against float64 on the device; the two
ceilings (copy bandwidth, bfloat16 product rate) measured in the same run; the paper's Table 1 grid (64, 384, R, R); the
four stages of RepLKNet-31B at batch 64, 8 and 1; RepLKNet-31B end to end, inference and training step. What does not
fit into the budget is listed as skipped. Results are written after every case.

Timed are CUDA graphs of several calls on rotating buffers larger together than the L2 cache. "ours" is the operator
as a network gets it, the choice between its own paths and torch included; "own" the best of its own paths alone; CL is
channels_last, for ours only where K = 31 and in the stages.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from interleaved import circumstances
from torch import Tensor

KERNELS = (31, 3, 13, 7, 21, 27, 5, 9, 17, 29)  # the ends and the middle first
SIZES = (16, 32, 64)
STAGES = ((56, 128, 31), (28, 256, 29), (14, 512, 27), (7, 1024, 13))
BATCHES = (64, 8, 1)
DIRECTIONS = ("forward", "input gradient", "weight gradient")
SPAN = 2e-3  # seconds that one captured graph takes
REPLAYS = 7
NETWORKS = 0.3  # share of the budget that is kept for the networks
HOPELESS = 0.05  # seconds; a call that takes longer is timed once, not in a graph
Call = Callable[[int], object]  # of the number of a buffer


class Clock:
    """The time that is left of the budget."""

    def __init__(self, seconds: float) -> None:
        self.start, self.end = time.monotonic(), time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def spent(self) -> float:
        """Seconds."""
        return time.monotonic() - self.start


def main(options: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU: nothing was measured, nothing is written")
    clock = Clock(options.budget)
    torch.backends.cudnn.benchmark = False  # torch as it is by default
    name = torch.cuda.get_device_name()
    out = options.out or Path(__file__).parent / "results" / f"{slug(name)}.json"
    result: dict[str, Any] = {**head(), "unit": "seconds, median"}
    result |= {"checks": [], "rows": [], "networks": [], "skipped": []}

    def save() -> None:
        result["seconds_spent"] = round(clock.spent(), 1)
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.with_suffix(".tmp")
        unfinished.write_text(json.dumps(result, indent=1) + "\n")
        unfinished.rename(out)

    result["checks"] = checks()
    result["ceilings"] = ceilings = measured_ceilings()
    save()
    print(f"{name}: copies {ceilings['bytes'] / 1e12:.2f} TB/s, bfloat16 {ceilings['bfloat16'] / 1e12:.0f} TFLOP/s")
    print(f"{'n':>3} {'C':>5} {'R':>3} {'K':>3} {'direction':16}{'ours us':>9}{'own us':>9}{'torch':>9}{'torch CL':>9}"
          f"{'times':>7}{'clipped':>8}{'nominal':>8}{'of floor':>9}  choice")  # fmt: skip
    for n, c, size, kernel, direction in cases():
        if clock.left() < NETWORKS * options.budget:
            result["skipped"].append([n, c, size, kernel, direction])
            continue
        row = measured(n, c, size, kernel, direction, ceilings)
        result["rows"].append(row)
        print(line(row), flush=True)
        save()
    for training in (False, True):
        for batch in BATCHES if not training else (64,):
            if clock.left() < 15:
                result["skipped"].append(["replknet-31b", "training" if training else "inference", batch])
                continue
            network = measured_network(batch, training)
            result["networks"].append(network)
            print(network_line(network), flush=True)
            save()
    save()
    print(f"{len(result['skipped'])} cases skipped for time; written to {out} after {clock.spent():.0f} s")
    slower = [row for row in result["rows"] if row["times"] < 0.97]
    print(f"{len(slower)} of {len(result['rows'])} cases slower than torch's better layout by more than 3 %")


def cases() -> Iterator[tuple[int, int, int, int, str]]:
    """n, channels, map, kernel, direction: the aims first, then stages, then the rest of the grid."""
    grid = [(64, 384, size, kernel, direction) for direction in DIRECTIONS for kernel in KERNELS for size in SIZES]
    first = [case for case in grid if case[3] == 31]
    stages = [(n, c, size, k, direction) for n in BATCHES for size, c, k in STAGES for direction in DIRECTIONS]
    yield from (*first, *stages, *(case for case in grid if case[3] != 31))


def head() -> dict[str, Any]:
    """What a results file says of the device and the versions."""
    import triton

    device = torch.cuda.get_device_properties(0)
    return {
        **circumstances(),
        "device": device.name,
        "capability": f"{device.major}.{device.minor}",
        "multiprocessors": device.multi_processor_count,
        "driver_and_clock": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton.__version__,
    }


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("nvidia", "")).strip("-")


def checks() -> list[dict[str, Any]]:
    """The operator, whatever path it chooses, against float64 on the device; fails loudly."""
    from lkspace.kernels import backend_for, depthwise_conv2d

    rows = []
    allowed = {torch.bfloat16: 2**-8, torch.float16: 2**-10, torch.float32: 1e-5}
    shapes = ((3, 16, 56, 31), (5, 8, 14, 27), (3, 8, 7, 13), (2, 8, 33, 5))
    for dtype, limit in allowed.items():
        whole = dtype == torch.bfloat16  # what is timed; every other case compiles and times its own kernels
        for layout in (torch.contiguous_format, torch.channels_last)[: 2 if whole else 1]:
            for n, c, size, kernel in shapes[: 4 if whole else 1]:
                torch.manual_seed(0)
                x, grad = (values((n, c, size, size), dtype, layout) for _ in range(2))
                weight = torch.randn(c, 1, kernel, kernel, device="cuda", dtype=dtype)
                leaves = [x.requires_grad_(), weight.requires_grad_()]
                assert backend_for(x, weight) == "gpu"
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    y = depthwise_conv2d(*leaves)
                    found = [y, *torch.autograd.grad(y, leaves, grad)]
                    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
                    expected_y = torch.conv2d(wide[0], wide[1], None, 1, kernel // 2, 1, c)
                    expected = [expected_y, *torch.autograd.grad(expected_y, wide, grad.double())]
                for direction, one, wanted in zip(DIRECTIONS, found, expected, strict=True):
                    off = float((one.detach().double() - wanted).abs().max() / wanted.abs().max())
                    assert off < limit, f"{dtype} {layout} {(n, c, size, kernel)} {direction}: off by {off:.1e}"
                    rows.append({"dtype": str(dtype), "layout": str(layout), "shape": [n, c, size, kernel],
                                 "direction": direction, "off": off})  # fmt: skip
    print(f"{len(rows)} results agree with float64, the worst to {max(row['off'] for row in rows):.1e}")
    return rows


def values(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=layout)


def measured_ceilings() -> dict[str, float]:
    """Bytes a second that a large sum reads and writes; operations a second of a large product."""
    source, target = torch.ones(2, 2**29, dtype=torch.float32, device="cuda")
    adding = seconds([lambda _: torch.add(source, 1, out=target)])  # a kernel: a copy in a graph is a third slower
    a, b = torch.randn(2, 8192, 8192, dtype=torch.bfloat16, device="cuda")
    product = seconds([lambda _: a @ b])
    return {"bytes": 2 * 4 * 2**29 / adding[0], "bfloat16": 2 * 8192**3 / product[0]}


def seconds(calls: list[Call]) -> list[float]:
    """Median seconds of each call: graphs of several calls on rotating buffers, replayed in turn."""
    prepared = []
    for call in calls:
        call(0)  # compiles, chooses
        once = elapsed(lambda call=call: call(0))
        if once > HOPELESS:
            prepared.append((0, lambda call=call: call(1)))
            continue
        once = min(once, elapsed(lambda call=call: call(1)))
        count = max(2, round(SPAN / max(once, 1e-7)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for turn in range(count):
                call(turn)
        prepared.append((count, graph.replay))
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(REPLAYS + 1):
        for (count, run), taken in zip(prepared, times, strict=True):
            if count == 0 and taken:
                continue
            one = elapsed(run) / max(1, count)
            if repeat or count == 0:  # the first replay warms up
                taken.append(one)
    return [statistics.median(taken) for taken in times]


def elapsed(call: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def measured(n: int, c: int, size: int, kernel: int, direction: str, ceilings: dict[str, float]) -> dict[str, Any]:
    """One row in bfloat16: ours in both layouts, the best of our own paths, torch in both layouts."""
    from lkspace.kernels.gpu.problem import problem

    calls = Calls(n, c, size, kernel, direction)
    posed = problem(direction, calls.x[0], calls.weight)
    ours, own, torchs, torchs_last = seconds(
        [calls.ours(last=False), calls.own(), calls.torchs(last=False), calls.torchs(last=True)]
    )
    ours_last = seconds([calls.ours(last=True)])[0] if kernel == 31 or c != 384 else None
    reach = sum(min(size, i + kernel // 2 + 1) - max(0, i - kernel // 2) for i in range(size))
    clipped, nominal = n * c * reach**2, n * c * size**2 * kernel**2
    moved = 2 * (2 * n * c * size**2 + c * kernel**2)
    floor = max(moved / ceilings["bytes"], 2 * clipped / ceilings["bfloat16"])
    return {
        "n": n, "channels": c, "R": size, "K": kernel, "direction": direction, "dtype": "bfloat16",
        "ours": ours, "ours CL": ours_last, "own": own, "torch": torchs, "torch CL": torchs_last,
        "times": min(torchs, torchs_last) / ours,
        "clipped_tflops": 2 * clipped / ours / 1e12, "nominal_tflops": 2 * nominal / ours / 1e12,
        "floor": floor, "fraction_of_floor": floor / ours,
        "choice": chosen(posed, calls.x[0].device),
    }  # fmt: skip


def chosen(posed: Any, device: torch.device) -> str:
    """What the operator computes this problem with."""
    from lkspace.kernels.gpu import paths, tuning

    offered = paths.candidates(posed, device)
    return str(tuning.stored(torch.cuda.get_device_name(), posed, offered) or f"untimed: {offered[0]}")


class Calls:
    """The same problem for everybody, on as many buffers as exceed the L2 cache."""

    def __init__(self, n: int, c: int, size: int, kernel: int, direction: str) -> None:
        torch.manual_seed(0)
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        self.buffers = max(2, min(32, 1 + 2 * cache // (4 * n * c * size * size)))
        shape, half = (n, c, size, size), torch.bfloat16
        self.x = [values(shape, half, torch.contiguous_format) for _ in range(self.buffers)]
        self.grad = [torch.randn_like(x) for x in self.x]
        self.last = [x.contiguous(memory_format=torch.channels_last) for x in self.x]
        self.grad_last = [x.contiguous(memory_format=torch.channels_last) for x in self.grad]
        self.weight = torch.randn(c, 1, kernel, kernel, device="cuda", dtype=half)
        self.direction, self.channels, self.padding = direction, c, kernel // 2
        self.wanted = [direction == one for one in ("input gradient", "weight gradient", "bias gradient")]

    def ours(self, last: bool) -> Call:
        """The backend as the operator calls it; last: in channels_last."""
        from lkspace.kernels import gpu

        x, grad = (self.last, self.grad_last) if last else (self.x, self.grad)
        if self.direction == "forward":
            return lambda turn: gpu.forward(x[turn % self.buffers], self.weight, None)
        return lambda turn: gpu.backward(grad[turn % self.buffers], x[turn % self.buffers], self.weight, self.wanted)

    def own(self) -> Call:
        """Our fastest path as the choice timed it, whether or not torch's was faster still."""
        from lkspace.kernels.gpu import paths, tuning
        from lkspace.kernels.gpu.problem import problem

        posed = problem(self.direction, self.x[0], self.weight)
        self.ours(last=False)(0)  # chooses
        offered = [one for one in paths.candidates(posed, self.x[0].device) if one.path != "torch"]
        times = tuning.recorded(torch.cuda.get_device_name(), posed)
        choice = min(offered, key=lambda one: times.get(str(one), float("inf")))
        flip = self.direction == "input gradient"

        def run(turn: int) -> object:
            x, grad = self.x[turn % self.buffers], self.grad[turn % self.buffers]
            if self.direction == "weight gradient":
                return paths.gradient_of_weight(choice, grad, x, self.weight, posed.precision)
            return paths.convolution(choice, grad if flip else x, self.weight, None, flip, "", posed.precision)

        return run

    def torchs(self, last: bool) -> Call:
        """torch's own convolution; last: in channels_last."""
        x, grad = (self.last, self.grad_last) if last else (self.x, self.grad)
        same, one = [self.padding] * 2, [1, 1]
        if self.direction == "forward":
            return lambda turn: torch.conv2d(x[turn % self.buffers], self.weight, None, 1, same, 1, self.channels)
        return lambda turn: torch.ops.aten.convolution_backward(
            grad[turn % self.buffers], x[turn % self.buffers], self.weight, [0], one, same, one, False, [0, 0],
            self.channels, self.wanted,
        )  # fmt: skip


def line(row: dict[str, Any]) -> str:
    times = "".join(f"{1e6 * row[name]:9.1f}" for name in ("ours", "own", "torch", "torch CL"))
    return (
        f"{row['n']:3} {row['channels']:5} {row['R']:3} {row['K']:3} {row['direction']:16}{times}{row['times']:7.2f}"
        f"{row['clipped_tflops']:8.1f}{row['nominal_tflops']:8.1f}{row['fraction_of_floor']:9.2f}  {row['choice']}"
    )


def measured_network(batch: int, training: bool) -> dict[str, Any]:
    """RepLKNet-31B at 224 px in bfloat16, large kernels by our backend and by torch, in both layouts."""
    import lkspace

    times: dict[str, float] = {}
    for layout, name in ((torch.contiguous_format, ""), (torch.channels_last, " CL")):
        torch.manual_seed(0)
        network: Any = lkspace.build(lkspace.reference("replknet-31b"), classes=1000)
        if not training:
            network = network.deploy(fold_batch_norms=True).eval().to(torch.bfloat16)
        network = network.to("cuda", memory_format=layout)
        x = values((batch, 3, 224, 224), torch.float32 if training else torch.bfloat16, layout)
        step = training_step(network, x) if training else inference(network, x)
        for backend in ("gpu", "torch"):
            os.environ["LKSPACE_KERNEL"] = backend
            step()  # compiles, chooses
            once = elapsed(step)
            run = step if training else captured(step)
            repeats = 5 if once < 1 else 1
            times[("ours" if backend == "gpu" else "torch") + name] = statistics.median(
                elapsed(run) for _ in range(repeats)
            )
            del run
        os.environ.pop("LKSPACE_KERNEL")
        del network, step
        torch.cuda.empty_cache()
    ours, torchs = min(times["ours"], times["ours CL"]), min(times["torch"], times["torch CL"])
    kind = "training step, autocast to bfloat16" if training else "inference, deploy form, batch norms folded, bfloat16"
    return {"network": "replknet-31b", "size": 224, "batch": batch, "kind": kind, **times, "times": torchs / ours}


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """The step as one CUDA graph: at batch 1 launching would take longer than computing."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def inference(network: Any, x: Tensor) -> Callable[[], object]:
    def step() -> object:
        with torch.inference_mode():
            return network(x)

    return step


def training_step(network: Any, x: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    labels = torch.randint(1000, (len(x),), device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        optimizer.step()

    return step


def network_line(row: dict[str, Any]) -> str:
    times = ", ".join(f"{name} {1e3 * row[name]:.2f} ms" for name in ("ours", "ours CL", "torch", "torch CL"))
    return f"{row['network']} batch {row['batch']}, {row['kind']}: {times}: {row['times']:.2f} times"
