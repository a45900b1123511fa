"""One training step of a RepLKNet proxy: ours against torch's own convolutions and norms, same network, channels_last.

    python benchmarks/proxy_step.py [--isa avx2] [--threads 2] [--out FILE]

RepLKNet [1, 1, 2, 1] blocks, [32, 64, 128, 256] channels, K [31, 29, 27, 13] with 5 x 5 re-param kernels, stem
stride 4, 128 px, batch 16: forward and backward in float32, a step with each backend in turn, medians. Printed too: a
step with our operator and torch's batch norms, a step on one thread, and the share of operator and norms in a step,
which bounds what faster ones can bring. The step
alternates our convolutions with torch's: a second pool of threads that fights torch's would show as a step that gains
little from a second thread. All of it runs with the memory setting of a search's workers, which torch's step gains
from as well; what our step takes without it, and how many page faults, is measured first.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import training_step
from interleaved import circumstances, medians, use_instruction_set, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", choices=["avx2", "avx512"], help="hold torch and the operator to it")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_instruction_set(options.isa)

    import torch

    from lkspace.scores.memory import keep_freed_memory

    torch.set_num_threads(options.threads)
    head = circumstances()
    print(f"{head['processor']}, {options.threads} threads, torch {head['torch']}, {head['operator_instruction_set']}")
    step = prepared(options.size, options.batch)
    results: dict[str, float] = {}

    for memory in ("given back", "kept"):
        if memory == "kept":
            keep_freed_memory()
        taken = medians({"step": with_backend("native", step)}, options.seconds / 4)["step"]
        found = page_faults(with_backend("native", step))
        results |= {f"step, ours, freed memory {memory}": taken, f"page faults a step, {memory}": found}
        print(f"freed memory {memory}: {taken:.3f} s and {found:.0f} page faults a step")

    ways = {
        "ours": with_backend("native", step),
        "operator alone": with_backend("native", training_step.with_torchs_norms(step)),
        "torch": with_backend("torch", step),
    }
    against = medians(ways, options.seconds)
    results["step, ours"], results["step, torch channels_last"] = against["ours"], against["torch"]
    results["step, our operator and torch's norms"] = against["operator alone"]
    results["times"] = against["torch"] / against["ours"]
    alone = results["times, our operator and torch's norms"] = against["torch"] / against["operator alone"]
    print(
        f"ours {against['ours']:.3f} s, with torch's norms {against['operator alone']:.3f} s,"
        f" torch channels_last {against['torch']:.3f} s: {results['times']:.2f} and {alone:.2f} times"
    )

    shared = with_backend("native", step)
    threads = medians(
        {f"{count} threads": with_threads(count, shared) for count in {1, options.threads}}, options.seconds / 4
    )
    results |= {f"step, ours, {name}": value for name, value in threads.items()}
    print("ours by threads: " + ", ".join(f"{name} {value:.3f} s" for name, value in threads.items()))

    torch.set_num_threads(options.threads)
    shares = {name: shares_of(with_backend(name, step)) for name in ("native", "torch")}
    results |= {f"{part}'s share, {name}": share for name in shares for part, share in shares[name].items()}
    rest = results["step, ours"] * (1 - sum(shares["native"].values()))
    results["times if operator and norms took no time"] = against["torch"] / rest
    print(
        f"the operator takes {shares['native']['operator']:.0%} of our step, norms and their activations"
        f" {shares['native']['norms']:.0%}; the operator {shares['torch']['operator']:.0%} of torch's;"
        f" if both took no time: {results['times if operator and norms took no time']:.2f} times"
    )
    write(options.out, {**head, "threads": options.threads, "unit": "seconds, median", **results})


def prepared(size: int, batch: int) -> Callable[[], None]:
    """One forward and backward of the network, in channels_last."""
    import torch

    import lkspace

    architecture = lkspace.Architecture(
        family="replknet",
        blocks=(1, 1, 2, 1),
        channels=(32, 64, 128, 256),
        kernels=(31, 29, 27, 13),
        reparam=(5, 5, 5, 5),
        shortcut=(True,) * 4,
    )
    return training_step.prepared(architecture, size, batch, torch.channels_last)


def page_faults(step: Callable[[], None], steps: int = 10) -> float:
    """Pages that the system hands to this process in one step."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps


def with_backend(name: str, step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        os.environ["LKSPACE_KERNEL"] = name
        step()

    return run


def with_threads(count: int, step: Callable[[], None]) -> Callable[[], None]:
    import torch

    def run() -> None:
        torch.set_num_threads(count)
        step()

    return run


def shares_of(step: Callable[[], None]) -> dict[str, float]:
    """Parts of a step's time that the operator and our batch norms take, both directions, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            step()
    averages = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in averages)
    names = {
        "operator": ("GeneratedBackwardFor_lkspace_depthwise_conv2d_default", "lkspace::depthwise_conv2d_backward"),
        "norms": ("_BatchNorm", "_BatchNormBackward"),
    }
    taken = {part: sum(e.cpu_time_total for e in averages if e.key in keys) for part, keys in names.items()}
    return {part: time / whole for part, time in taken.items()}


if __name__ == "__main__":
    main()
