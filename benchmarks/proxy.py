"""Does the default proxy tell architectures apart, and as a longer training would?

Trains 12 architectures of replknet-tiny - its reference points, then random ones in which every choice of the space is
about equally often - with three seeds each (initial weights, order), and once five times as long. Prints
accuracy, the spread between architectures over the spread between seeds, and Kendall's tau between proxy and long
training with its interval.

    python benchmarks/proxy.py --minutes 4      # again and again: goes on where it stopped, prints what there is
    python benchmarks/proxy.py --size 128 --device cuda --workers 4 --out benchmarks/results/proxy_128.json

Every result is appended to benchmarks/results/proxy.json at once; the table is written beside it when all runs are in.
"""

import argparse
import collections
import dataclasses
import json
import os
import platform
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from lkspace.data import digits
from lkspace.kernels import isa
from lkspace.nets import flops, params
from lkspace.processor import processor_name
from lkspace.ranking import kendall_tau, tau_interval
from lkspace.scores.accuracy import training
from lkspace.scores.memory import keep_freed_memory
from lkspace.scores.score import Setting
from lkspace.scores.training import Recipe
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace

SPACE, DATA = "replknet-tiny", "digits"
ARCHITECTURES, SEEDS, LONGER = 12, (0, 1, 2), 5
RESULTS = Path(__file__).parent / "results" / "proxy.json"
CANDIDATES = 200
RESAMPLES = 10_000
Run = tuple[str, int, int]  # architecture id, seed, epochs


def chosen(space: SearchSpace) -> list[Architecture]:
    """The reference points, filled up so that every choice of every variable is taken about equally often.

    One at a time the first of many random candidates whose choices are the rarest so far; one seed decides, and none
    is taken twice.
    """
    rng = np.random.default_rng(0)
    found = list(space.reference_points)
    while len(found) < ARCHITECTURES:
        taken = collections.Counter(pair for a in found for pair in _choices(space, a))
        candidates = [a for _ in range(CANDIDATES) if (a := space.sample(rng)) not in found]
        rarity = [sum(taken[pair] for pair in _choices(space, a)) for a in candidates]
        found.append(candidates[int(np.argmin(rarity))])
    return found


def _choices(space: SearchSpace, architecture: Architecture) -> list[tuple[str, Any]]:
    return list((space.params_of(architecture) or {}).items())


def train(architecture: Architecture, setting: Setting) -> dict[str, Any]:
    """One training on one thread, in a process of its own."""
    torch.set_num_threads(1)
    keep_freed_memory()
    start, cpu = time.perf_counter(), time.process_time()
    curve = [(m.value, m.details["loss"]) for m in training(architecture, setting).epochs()]
    return {
        "architecture": architecture.id,
        "seed": setting.seed,
        "epochs": setting.epochs,
        "accuracy": curve[-1][0],
        "loss": curve[-1][1],
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "curve": [round(accuracy, 4) for accuracy, _ in curve],
    }


def settings(space: SearchSpace, size: int | None = None, device: str = "cpu") -> Setting:
    """The proxy's, of canvases of another size if one is given."""
    data = DATA if size in (None, space.image_size) else f"{DATA}:size={size}"
    return Setting(data, size or space.image_size, space.classes, device=device)


def conditions(short: Setting, found: list[Architecture]) -> dict[str, Any]:
    """What must be the same for two results to stand in one table."""
    setting = dataclasses.asdict(short)
    kept = {key: setting[key] for key in ("data", "size", "classes", "epochs", "batch", "rate")}
    kept |= {} if short.device == "cpu" else {"device": short.device}
    return {
        **kept,
        "canvases": digits.Digits.parse(short.data.partition(":")[2]).fingerprint(),
        "recipe": dataclasses.asdict(Recipe()),
        "architectures": {a.id: a.to_dict() for a in found},
    }


def gather(path: Path, short: Setting, found: list[Architecture], minutes: float, workers: int) -> dict[str, Any]:
    """Runs what is missing until the time is up (what has begun is finished) and returns all results."""
    record = json.loads(path.read_text()) if path.exists() else {}
    if record.get("conditions") != (now := conditions(short, found)):
        if record:
            path.rename(path.with_suffix(f".{int(path.stat().st_mtime)}.json"))
            print("the recipe or the space has changed since: starting anew, the old results are kept beside")
        record = {"conditions": now, "runs": []}
    record["machine"] = machine(short.device)
    done = {(r["architecture"], r["seed"], r["epochs"]) for r in record["runs"]}
    plan = [(a, dataclasses.replace(short, seed=seed)) for seed in SEEDS for a in found]
    plan += [(a, dataclasses.replace(short, epochs=LONGER * short.epochs)) for a in found]
    missing = [(a, s) for a, s in plan if (a.id, s.seed, s.epochs) not in done]
    deadline = time.monotonic() + 60 * minutes
    context = get_context("spawn" if short.device.startswith("cuda") else None)  # CUDA does not survive a fork
    with ProcessPoolExecutor(workers, context) as pool:
        running = set()
        while missing or running:
            while missing and len(running) < workers and time.monotonic() < deadline:
                running.add(pool.submit(train, *missing.pop(0)))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                run = future.result()
                record["runs"].append(run)
                save(path, record)
                print(
                    f"{run['architecture']} seed {run['seed']} epochs {run['epochs']:3d}:"
                    f" {run['accuracy']:.3f} in {run['cpu_seconds']:.0f} s",
                    flush=True,
                )
    record["missing"] = len(missing)
    return record


def save(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(record, indent=1))
    unfinished.replace(path)


def machine(device: str) -> dict[str, Any]:
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    return {
        **gpu,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "instruction set": isa(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def report(record: dict[str, Any], found: list[Architecture], setting: Setting) -> str:
    """The table and the three numbers, in Markdown, of the architectures that have all their runs."""
    value = {(r["architecture"], r["seed"], r["epochs"]): r for r in record["runs"]}
    short = {
        a: [value[a.id, s, setting.epochs] for s in SEEDS]
        for a in found
        if all((a.id, s, setting.epochs) in value for s in SEEDS)
    }
    long = {
        a: value[a.id, SEEDS[0], LONGER * setting.epochs]
        for a in short
        if (a.id, SEEDS[0], LONGER * setting.epochs) in value
    }
    lines = [
        "| architecture | FLOPs | params | accuracy, seeds 0, 1, 2 | mean | 5x as long | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for a, runs in sorted(short.items(), key=lambda item: -np.mean([r["accuracy"] for r in item[1]])):
        each = [r["accuracy"] for r in runs]
        longer = f"{long[a]['accuracy']:.3f}" if a in long else "-"
        lines.append(
            f"| {a} | {flops(a, setting.size, setting.classes) / 1e6:.1f} M"
            f" | {params(a, setting.classes) / 1e3:.0f} K | {', '.join(f'{x:.3f}' for x in each)}"
            f" | {np.mean(each):.3f} | {longer} | {np.mean([r['cpu_seconds'] for r in runs]):.0f} |"
        )
    if len(short) < 3:
        return "\n".join(lines)
    table = np.array([[r["accuracy"] for r in runs] for runs in short.values()])
    between = table.mean(1).std(ddof=1)
    within = np.sqrt(table.var(1, ddof=1).mean())
    # What a seed does to all alike, by its order of images, reorders nothing: one search has one seed.
    own = table - table.mean(0)
    rest = np.sqrt(own.var(1, ddof=1).mean() * len(own) / (len(own) - 1))
    lines += [
        "",
        f"{len(short)} of {len(found)} architectures; seconds of one training on one thread: mean"
        f" {np.mean([r['cpu_seconds'] for runs in short.values() for r in runs]):.1f}.",
        f"Spread between architectures (standard deviation of their means) {between:.4f}, between seeds (pooled)"
        f" {within:.4f}: ratio **{between / within:.2f}** (wanted: at least 3);"
        f" without what a seed does to all architectures alike, which a search's own seed never reorders,"
        f" {rest:.4f}: {between / rest:.2f}.",
    ]
    if len(long) >= 3:
        proxy = np.array([[r["accuracy"] for r in short[a]] for a in long])
        longer = np.array([r["accuracy"] for r in long.values()])
        low, high = tau_interval(proxy.mean(1), longer, RESAMPLES) or (np.nan, np.nan)
        single = np.mean([_tau(proxy[:, i], longer) for i in range(len(SEEDS))])
        lines.append(
            f"Kendall's tau between the proxy (mean of seeds) and a training five times as long"
            f" ({len(long)} architectures):"
            f" **{_tau(proxy.mean(1), longer):.2f}**, 95 % interval {low:.2f} to {high:.2f}"
            f"; of one seed, as a search sees it, {single:.2f} on average."
        )
    return "\n".join(lines)


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    tau = kendall_tau(a, b)
    return np.nan if tau is None else tau


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no training after this time")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--size", type=int, help="side of the canvases, the space's if not given")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:N]; trainings on a GPU share it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    space = SearchSpace.load(SPACE)
    found, short = chosen(space), settings(space, given.size, given.device)
    record = gather(given.out, short, found, given.minutes, given.workers)
    text = report(record, found, short)
    print(text)
    if record["missing"]:
        print(f"\n{record['missing']} trainings are still to be done: run the same command again.")
    else:
        made = record["machine"]
        head = (
            f"# The default proxy: `python benchmarks/proxy.py`\n\n{', '.join(f'{k} {v}' for k, v in made.items())}\n\n"
        )
        given.out.with_suffix(".md").write_text(head + text + "\n")


if __name__ == "__main__":
    main()
