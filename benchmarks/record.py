"""Trains every architecture of a small RepLKNet space to the end and keeps the accuracy after each epoch.

Hours on two cores, so it goes on where it stopped: every training is a line of a journal as soon as it has ended, and
the table is written when asked or when all are in. `search.py --recorded FILE` replays it: samplers and early stopping
are then compared in seconds, on real learning curves.

    python benchmarks/record.py --minutes 60 --workers 2       # again and again
    python benchmarks/record.py --minutes 9 --device cuda --workers 8
    python benchmarks/record.py --limit 2 --epochs 1 --data digits:train=64,val=64 --out /tmp/smoke.json    # a try
"""

import argparse
import dataclasses
import json
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from interleaved import circumstances

from lkspace.data import digits, load
from lkspace.scores.accuracy import training
from lkspace.scores.score import Diverged, Setting
from lkspace.scores.training import Recipe
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace

RESULTS = Path(__file__).parent / "results" / "recorded.json"
# Two stages at 32 px behind a stem of stride 2: maps of 16 and 8 px, so kernels up to 31 and 15 have an effect. Wide
# enough in channels, and with networks without shortcuts, that the proxy has something to tell apart.
SPACE: dict[str, Any] = {
    "name": "replknet-recorded",
    "family": "replknet",
    "description": "Two stages at 32 px, small enough to be trained whole.",
    "image_size": 32,
    "classes": 10,
    "stem_stride": 2,
    "stages": 2,
    "blocks": {"per_stage": [[1, 2], [1, 2]]},
    "channels": {"whole": [[4, 8], [8, 16], [16, 32]]},
    "kernels": {"per_stage": [[3, 9, 15, 31], [3, 7, 15]]},
    "reparam": {"whole": [None, 3]},
    "shortcut": {"whole": [True, False]},
    "ffn_ratio": [2],
}


def train(architecture: Architecture, setting: Setting) -> dict[str, Any]:
    """One training on one thread, in a process of its own; a curve that is cut short if it diverged."""
    torch.set_num_threads(1)
    start, curve, losses = time.perf_counter(), [], []
    try:
        for measurement in training(architecture, setting).epochs():
            curve.append(round(measurement.value, 5))
            losses.append(round(measurement.details["loss"], 5))
    except Diverged:
        curve += [None] * (setting.epochs - len(curve))
    return {
        "id": architecture.id,
        "seed": setting.seed,
        "curve": curve,
        "losses": losses,
        "seconds": round(time.perf_counter() - start, 2),
    }


def journal_of(out: Path) -> Path:
    return out.with_suffix(".jsonl")


def read(journal: Path, conditions: dict[str, Any]) -> list[dict[str, Any]]:
    """Trainings that are done; the journal's first line says under which conditions, and others are refused."""
    if not journal.exists():
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(json.dumps(conditions) + "\n")
        return []
    lines = []
    for line in journal.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # cut short when the machine stopped
            continue
    if lines[0] != conditions:
        raise SystemExit(f"{journal} was recorded otherwise:\n{lines[0]}\nthis call:\n{conditions}")
    return lines[1:]


def write(out: Path, space: SearchSpace, head: dict[str, Any], done: list[dict[str, Any]], epochs: int) -> None:
    """The table that `recorded.py` reads, of what there is."""
    curves: dict[str, dict[str, Any]] = {}
    for run in done:
        curves.setdefault(run["id"], {})[str(run["seed"])] = run["curve"]
    rows = [
        {"architecture": a.to_dict(), **space.costs(a), "curves": curves[a.id]}
        for a in space.enumerate()
        if a.id in curves
    ]
    table = {**head, "space": space.to_dict(), "epochs": epochs, "architectures": rows}
    out.write_text(json.dumps(table, separators=(",", ":")) + "\n")
    print(f"{len(rows)} architectures written to {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:N]; trainings on a GPU share it")
    parser.add_argument("--data", default="digits:size=32,train=12000,epoch=1500,val=4000")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only so many architectures, for a try")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    space = SearchSpace.from_dict(SPACE)
    # By id, which is as good as shuffled: a table that is not whole yet is a fair sample of the space.
    found = sorted(space.enumerate(), key=lambda a: a.id)[: options.limit]
    setting = Setting(options.data, space.image_size, space.classes, device=options.device, epochs=options.epochs)
    conditions = {"space": space.to_dict(), "data": options.data, "canvases": digits.RECIPE}
    conditions |= {"recipe": dataclasses.asdict(Recipe()), "epochs": options.epochs}
    conditions |= {"batch": setting.batch, "rate": setting.rate, "device": options.device}
    done = read(journal_of(options.out), conditions)
    finished = {(run["id"], run["seed"]) for run in done}
    # Seed by seed, so that an early end leaves all architectures at a seed rather than some at all.
    work = [(a, seed) for seed in range(options.seeds) for a in found if (a.id, seed) not in finished]
    print(f"{len(found)} architectures, {len(done)} trainings done, {len(work)} to do")
    load(options.data, space.image_size)  # decoded once, before the workers ask for them
    running: set[Future[dict[str, Any]]] = set()
    context = get_context("spawn" if options.device.startswith("cuda") else None)  # CUDA does not survive a fork
    with ProcessPoolExecutor(options.workers, context) as pool, journal_of(options.out).open("a") as journal:
        while (work and time.monotonic() < end) or running:
            while work and len(running) < options.workers and time.monotonic() < end:
                architecture, seed = work.pop(0)
                fields = {**vars(setting), "seed": seed}
                running.add(pool.submit(train, architecture, Setting(**fields)))
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                done.append(future.result())
                journal.write(json.dumps(done[-1]) + "\n")
                journal.flush()
    spent = sum(run["seconds"] for run in done)
    print(f"{len(done)} trainings, {spent / 60:.1f} minutes of one core; {len(work)} left")
    write(options.out, space, circumstances(), done, options.epochs)


if __name__ == "__main__":
    main()
