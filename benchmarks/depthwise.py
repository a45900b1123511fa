"""The depthwise operator against torch's own convolution: forward, input gradient, weight gradient.

    python benchmarks/depthwise.py [--sizes 7 14 16 32 56] [--kernels 5 7 13 21 31] [--isa avx2] [--out FILE]
    python benchmarks/depthwise.py --device cuda      # under 8 minutes; see depthwise_cuda.py

Times (batch, channels, R, R) in float32, contiguous and channels_last, by torch and by the native backend: all four
in turn, medians. `times` is torch's better layout over the operator's worse one. Results are checked against each other
in the same run. GMAC/s counts only multiply-adds inside the map.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from interleaved import circumstances, medians, use_instruction_set, write

DIRECTIONS = ("forward", "input gradient", "weight gradient")


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
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float, default=450, help="seconds of the whole run; with --device cuda")
    options = parser.parse_args()
    if options.device == "cuda":
        import depthwise_cuda

        depthwise_cuda.main(options)
        return
    use_instruction_set(options.isa)

    import torch

    torch.set_num_threads(options.threads)
    head = circumstances()
    print(f"{head['processor']}, {options.threads} threads, torch {head['torch']}, {head['operator_instruction_set']}")
    print(f"({options.batch}, {options.channels}, R, R), milliseconds; CL = channels_last")
    print(f"{'R':>3} {'K':>3} {'':16}{'torch':>9}{'torch CL':>9}{'ours':>9}{'ours CL':>9}{'times':>7}{'GMAC/s':>8}")
    rows = []
    for size in options.sizes:
        for kernel in options.kernels:
            rows += measured(options.batch, options.channels, size, kernel, options.seconds)
    write(options.out, {**head, "threads": options.threads, "unit": "seconds, median", "rows": rows})


def measured(batch: int, channels: int, size: int, kernel: int, seconds: float) -> list[dict[str, Any]]:
    """One row per direction, and one for all three together (a training step's share)."""
    calls = prepared(batch, channels, size, kernel)
    rows = []
    for direction in DIRECTIONS:
        check(calls[direction])
        rows.append({"direction": direction, **medians(calls[direction], seconds)})
    rows.append({"direction": "all three", **{name: sum(row[name] for row in rows) for name in calls["forward"]}})
    reach = sum(min(size, i + kernel // 2 + 1) - max(0, i - kernel // 2) for i in range(size))
    for row in rows:
        work = batch * channels * reach**2 * (3 if row["direction"] == "all three" else 1)
        ours = max(row["ours"], row["ours CL"])
        row |= {"R": size, "K": kernel, "batch": batch, "channels": channels}
        row["times"] = min(row["torch"], row["torch CL"]) / ours
        row["gmacs"] = work / ours / 1e9
        print(
            f"{size:3} {kernel:3} {row['direction']:16}"
            + "".join(f"{1e3 * row[name]:9.3f}" for name in ("torch", "torch CL", "ours", "ours CL"))
            + f"{row['times']:7.2f}{row['gmacs']:8.1f}",
            flush=True,
        )
    return rows


def prepared(batch: int, channels: int, size: int, kernel: int) -> dict[str, dict[str, Any]]:
    """direction -> name -> call, on the same values in both layouts."""
    import torch

    from lkspace.kernels import native_backend as ours

    torch.manual_seed(0)
    weight = torch.randn(channels, 1, kernel, kernel)
    calls: dict[str, dict[str, Any]] = {direction: {} for direction in DIRECTIONS}
    image, upstream = torch.randn(2, batch, channels, size, size)
    same, stride = [kernel // 2, kernel // 2], [1, 1]
    for layout, name in ((torch.contiguous_format, ""), (torch.channels_last, " CL")):
        x, grad = image.contiguous(memory_format=layout), upstream.contiguous(memory_format=layout)

        def torchs(wanted: list[bool], x: torch.Tensor = x, grad: torch.Tensor = grad) -> Any:
            return torch.ops.aten.convolution_backward(
                grad, x, weight, [0], stride, same, stride, False, [0, 0], channels, wanted
            )

        calls["forward"]["torch" + name] = lambda x=x: torch.conv2d(x, weight, None, 1, same, 1, channels)
        calls["input gradient"]["torch" + name] = lambda torchs=torchs: torchs([True, False, False])[0]
        calls["weight gradient"]["torch" + name] = lambda torchs=torchs: torchs([False, True, False])[1]
        for direction, wanted in (("input gradient", [True, False, False]), ("weight gradient", [False, True, False])):
            calls[direction]["ours" + name] = lambda x=x, grad=grad, wanted=wanted: ours.backward(
                grad, x, weight, wanted
            )[wanted.index(True)]
        calls["forward"]["ours" + name] = lambda x=x: ours.forward(x, weight, None)
    return calls


def check(calls: dict[str, Any]) -> None:
    """All calls give the same result, to what float32 sums in different orders can differ."""
    expected = calls["torch"]()
    for name, call in calls.items():
        off = float((call() - expected).abs().max() / expected.abs().max())
        assert off < 3e-5, f"{name} is off by {off:.1e} of the largest value"


if __name__ == "__main__":
    main()
