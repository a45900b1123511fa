"""Time of every tile of the GPU kernels on the shapes that aims were set for: what the choice has to choose from.

    python benchmarks/depthwise_tiles.py [--kernel 31] [--sizes 16 32 64] [--directions forward] [--out FILE]

bfloat16, (64, 384, R, R), contiguous; Triton's paths as well, which the operator does not try where it has CUDA C++,
and tiles that their model holds for slower, so that the model can be put right. "model" is the tile's rank by it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from depthwise_cuda import DIRECTIONS, head, slug


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", type=int, default=31)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=["forward", "weight gradient"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU: nothing was measured, nothing is written")
    name = slug(torch.cuda.get_device_name())
    out = options.out or Path(__file__).parent / "results" / f"{name}_tiles.json"
    result: dict[str, Any] = {**head(), "unit": "seconds, median", "rows": []}
    for direction in options.directions:
        for size in options.sizes:
            result["rows"] += measured(direction, size, options.kernel)
            out.parent.mkdir(exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {out}")


def measured(direction: Any, size: int, kernel: int) -> list[dict[str, Any]]:
    """One row per tile, fastest first."""
    from lkspace.kernels.gpu import compiler, dense, mma, paths, toeplitz, tuning, weight_gradient
    from lkspace.kernels.gpu.problem import problem

    torch.manual_seed(0)
    x, grad = torch.randn(2, 64, 384, size, size, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(384, 1, kernel, kernel, device="cuda", dtype=torch.bfloat16)
    posed = problem(direction, x, weight)
    processors, shared_memory = paths.limits(x.device)
    if direction == "weight gradient":
        offered = weight_gradient.choices(posed, processors, tried=99)
        compiled = mma.gradient_choices(posed, processors, shared_memory)
    else:
        offered = [*toeplitz.choices(posed, processors, shared_memory, 99, 99), *dense.choices(posed)]
        compiled = mma.choices(posed, processors, shared_memory)
    compiled = compiled if compiler.available() else []
    torchs = paths.candidates(posed, x.device)[-2:]

    def call(choice: Any) -> Any:
        if direction == "weight gradient":
            return lambda: paths.gradient_of_weight(choice, grad, x, weight, posed.precision)
        flip = direction == "input gradient"
        return lambda: paths.convolution(choice, grad if flip else x, weight, None, flip, "", posed.precision)

    times = tuning.measured([*compiled, *offered, *torchs], call)
    rank = {choice: place for place, choice in enumerate(sorted(offered, key=lambda one: one.model), 1)}
    print(f"\n(64, 384, {size}, {size}), K={kernel}, {direction}, microseconds; model's rank")
    rows = []
    for choice, time in sorted(times.items(), key=lambda item: item[1]):
        print(f"{1e6 * time:10.1f} {rank.get(choice, 0):3}  {choice}", flush=True)
        rows.append({"R": size, "K": kernel, "direction": direction, "choice": str(choice), "seconds": time})
    return rows


if __name__ == "__main__":
    main()
