"""The depthwise operator against torch's own convolution: forward, input gradient, weight gradient, both in one call.

    python benchmarks/depthwise.py [--sizes 7 14 16 32 56] [--kernels 5 7 13 21 31] [--isa avx2] [--out FILE]
    python benchmarks/depthwise.py --device cuda      # under 8 minutes; see depthwise_cuda.py

Times (batch, channels, R, R) in float32, contiguous and channels_last (CL), by torch, by the native backend as it
chooses, and by each of its schemes (CL): all in turn, medians. `times` is torch's better layout over the operator's
worse one; the row "forward + gradients" is a training step's share. Results are checked against each other in the same
run. `peak` is the share that the direct scheme reaches, counting only multiply-adds inside the map, of what the
processor does when it only multiplies and adds, measured in the same run; `*` marks the scheme that was chosen.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interleaved import circumstances, medians, use_instruction_set, write

# direction -> which gradients are wanted
BACKWARD = {
    "input gradient": (True, False, False),
    "weight gradient": (False, True, False),
    "both gradients": (True, True, False),
}
MULTIPLY_ADDS = {"forward": 1, "input gradient": 1, "weight gradient": 1, "both gradients": 2, "forward + gradients": 3}
NAMES = ("torch", "torch CL", "ours", "ours CL", "direct CL", "frequency CL")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[7, 14, 16, 32, 56])
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5, 7, 13, 21, 31])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", choices=["avx2", "avx512"], help="hold torch and the operator to it")
    parser.add_argument("--seconds", type=float, default=1.0, help="per size, kernel and direction")
    parser.add_argument(
        "--busy", action="store_true", help="one thread, by its own clock: for a machine that is not quiet"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float, default=450, help="seconds of the whole run; with --device cuda")
    options = parser.parse_args()
    if options.device == "cuda":
        import depthwise_cuda

        depthwise_cuda.main(options)
        return
    use_instruction_set(options.isa)

    import torch

    from lkspace.kernels import scheme_summary

    if options.busy:
        options.threads = 1
    torch.set_num_threads(options.threads)
    head = circumstances() | {
        "threads": options.threads,
        "busy": options.busy,
        "schemes": scheme_summary().replace(str(Path.home()), "~"),
        "peak_gmacs": peak(),
    }
    print(f"{head['processor']}, {options.threads} threads, torch {head['torch']}, {head['operator_instruction_set']}")
    print(f"peak {head['peak_gmacs']:.1f} GMAC/s; {head['schemes']}")
    print(f"({options.batch}, {options.channels}, R, R), milliseconds; CL = channels_last")
    print(f"{'R':>3} {'K':>3} {'':20}" + "".join(f"{name:>13}" for name in NAMES) + f"{'times':>7}{'peak':>6}")
    rows = []
    for size in options.sizes:
        for kernel in options.kernels:
            rows += measured(
                options.batch, options.channels, size, kernel, options.seconds, head["peak_gmacs"], options.busy
            )
    write(options.out, {**head, "unit": "seconds, median", "rows": rows})


def peak(seconds: float = 0.5) -> float:
    """Most multiply-adds per second seen, in 1e9, on torch's number of threads."""
    import torch

    from lkspace.kernels import library

    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        done = library.multiply_adds(library.selected(), torch.get_num_threads())
        best = max(best, done / (time.perf_counter() - start))
    return best / 1e9


def measured(
    batch: int, channels: int, size: int, kernel: int, seconds: float, peak_gmacs: float, busy: bool
) -> list[dict[str, Any]]:
    """One row per direction, and one for a training step's share."""
    from lkspace.kernels import library, schemes

    calls = prepared(batch, channels, size, kernel)
    rows = []
    clock = time.thread_time if busy else time.perf_counter
    for direction in calls:
        check(calls[direction])
        rows.append({"direction": direction, **medians(calls[direction], seconds, clock=clock)})
    step = {name: rows[0][name] + rows[-1][name] for name in NAMES}
    rows.append({"direction": "forward + gradients", **step})
    shape = schemes.Shape(batch, size, size, min(kernel, 2 * size - 1), min(kernel, 2 * size - 1))
    work = batch * channels * schemes.inside(size, shape.kh) * schemes.inside(size, shape.kw) / 1e9
    for row in rows:
        operation = row["direction"].replace("forward", "convolution").replace("input gradient", "convolution")
        if "+" not in operation:
            small = kernel <= schemes.SMALL
            row["chosen"] = "direct" if small else schemes.cheaper(operation, shape, library.selected())
        row |= {"R": size, "K": kernel, "batch": batch, "channels": channels}
        row["times"] = min(row["torch"], row["torch CL"]) / max(row["ours"], row["ours CL"])
        row["direct_peak"] = work * MULTIPLY_ADDS[row["direction"]] / row["direct CL"] / peak_gmacs
        mark = row.get("chosen", "")
        print(
            f"{size:3} {kernel:3} {row['direction']:20}"
            + "".join(f"{1e3 * row[name]:12.3f}{'*' if mark and name.startswith(mark) else ' '}" for name in NAMES)
            + f"{row['times']:7.2f}{row['direct_peak']:6.0%}",
            flush=True,
        )
    return rows


def prepared(batch: int, channels: int, size: int, kernel: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """direction -> name -> call, on the same values in both layouts; gradients are tuples. Both as registered with
    torch, so that what its dispatcher takes counts on both sides."""
    import torch

    from lkspace.kernels import depthwise_conv2d

    ours_backward = torch.ops.lkspace.depthwise_conv2d_backward
    torch.manual_seed(0)
    weight = torch.randn(channels, 1, kernel, kernel)
    calls: dict[str, dict[str, Callable[[], Any]]] = {direction: {} for direction in ("forward", *BACKWARD)}
    image, upstream = torch.randn(2, batch, channels, size, size)
    same, stride = [kernel // 2, kernel // 2], [1, 1]
    for layout, suffix in ((torch.contiguous_format, ""), (torch.channels_last, " CL")):
        x, grad = image.contiguous(memory_format=layout), upstream.contiguous(memory_format=layout)
        calls["forward"]["torch" + suffix] = lambda x=x: torch.conv2d(x, weight, None, 1, same, 1, channels)
        calls["forward"]["ours" + suffix] = lambda x=x: depthwise_conv2d(x, weight)
        for direction, wanted in BACKWARD.items():
            calls[direction]["torch" + suffix] = lambda x=x, grad=grad, wanted=wanted: (
                torch.ops.aten.convolution_backward(
                    grad, x, weight, [0], stride, same, stride, False, [0, 0], channels, wanted
                )
            )
            calls[direction]["ours" + suffix] = lambda x=x, grad=grad, wanted=wanted: ours_backward(
                grad, x, weight, wanted
            )
    for named in calls.values():
        for scheme in ("direct", "frequency"):
            named[f"{scheme} CL"] = forced(scheme, named["ours CL"])
    return calls


def forced(scheme: str, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        os.environ["LKSPACE_SCHEME"] = scheme
        try:
            return call()
        finally:
            del os.environ["LKSPACE_SCHEME"]

    return run


def check(calls: dict[str, Callable[[], Any]]) -> None:
    """All calls give the same results, to what float32 sums in different orders can differ."""
    import torch

    def results(name: str) -> list[torch.Tensor]:
        given = calls[name]()
        tensors = [given] if isinstance(given, torch.Tensor) else given
        return [tensor for tensor in tensors if tensor is not None and tensor.numel()]

    expected = results("torch")
    for name in calls:
        for result, right in zip(results(name), expected, strict=True):
            off = float((result - right).abs().max() / right.abs().max())
            assert off < 3e-5, f"{name} is off by {off:.1e} of the largest value"


if __name__ == "__main__":
    main()
