"""A training step of networks of the default space: what our batch norms and matrix products for few pixels bring.

    python benchmarks/training_step.py [--networks 10] [--isa avx2] [--out FILE]

Random networks of `replknet-tiny`, batch 32, one thread, as a search trains them; forward and backward with ours, with
torch's batch norms and activations, with torch's 1 x 1 convolutions throughout, and with both of torch's, in turn,
medians. The operator is ours each time. The layout is channels_last, but with both of torch's the faster of the two.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import circumstances, medians, use_instruction_set, write

BATCH = 32  # a search's
WAYS = {"ours": (True, True), "torch's norms": (False, True), "torch's 1x1": (True, False), "torch's": (False, False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--isa", choices=["avx2", "avx512"], help="hold torch and the operator to it")
    parser.add_argument("--seconds", type=float, default=6.0, help="per network")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_instruction_set(options.isa)

    import torch

    import lkspace
    from lkspace.scores.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    head = circumstances()
    space, rng = lkspace.SearchSpace.load("replknet-tiny"), np.random.default_rng(0)
    rows = []
    for _ in range(options.networks):
        architecture = space.sample(rng)
        step = prepared(architecture, space.image_size, BATCH, torch.channels_last)
        calls = {name: using(step, *ours) for name, ours in WAYS.items()}
        calls["torch's, contiguous"] = using(
            prepared(architecture, space.image_size, BATCH, torch.contiguous_format), False, False
        )
        found = medians(calls, options.seconds)
        found["torch's"] = min(found["torch's"], found.pop("torch's, contiguous"))
        rows.append({"architecture": str(architecture), **found})
        print(f"{architecture}  " + ", ".join(f"{name} {1e3 * taken:.1f} ms" for name, taken in found.items()))
    times = {
        name: math.exp(sum(math.log(row[name] / row["ours"]) for row in rows) / len(rows))
        for name in WAYS
        if name != "ours"
    }
    print("geometric mean, over ours: " + ", ".join(f"{name} {value:.2f} times" for name, value in times.items()))
    write(options.out, {**head, "threads": 1, "unit": "seconds, median", "times": times, "rows": rows})


def prepared(architecture: Any, size: int, batch: int, layout: Any) -> Callable[[], None]:
    """Forward and backward of one batch of images of `size` pixels."""
    import torch

    import lkspace

    torch.manual_seed(0)
    network: Any = lkspace.build(architecture, classes=10).to(memory_format=layout)
    x, y = torch.randn(batch, 3, size, size).contiguous(memory_format=layout), torch.randint(10, (batch,))

    def step() -> None:
        network.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(x), y).backward()

    return step


def using(step: Callable[[], None], norms: bool, products: bool) -> Callable[[], None]:
    """The step with our batch norms, or torch's; with matrix products for few pixels, or without."""
    from lkspace.nets import layers

    few, step = layers._FEW_PIXELS, step if norms else with_torchs_norms(step)

    def run() -> None:
        layers._FEW_PIXELS = few if products else 0
        step()
        layers._FEW_PIXELS = few

    return run


def with_torchs_norms(step: Callable[[], None]) -> Callable[[], None]:
    """The step, its batch norms computed by torch."""
    from lkspace.kernels import norm

    native = norm._native

    def run() -> None:
        norm._native = lambda x, vectors: False
        step()
        norm._native = native

    return run


if __name__ == "__main__":
    main()
