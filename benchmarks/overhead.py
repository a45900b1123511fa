"""What a search costs beside training and measuring: seconds a trial, and where they go.

    python benchmarks/overhead.py [--budget 20 60] [--concurrency N] [--objectives accuracy,flops,latency]

Runs real searches of `replknet-micro` on few digits in a temporary folder, with the default sampler. Overhead of a
trial is the time its slot was held without a score being measured: (wall from the first trial's start to the last one's
end x concurrency - the seconds that scores took) / trials. In it and told apart are the start of the workers (Python,
Ray, torch), once a run, and slots that are idle because the last trials run alone. Starting before the first trial
(Ray, data, reference point) and ending (measuring the front again, stopping Ray) happen once a run and are not in it.
The baseline is the same trials, one after another in one process, without Ray and without a study.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lkspace.processor import cores
from lkspace.search import run
from lkspace.search.environment import environment
from lkspace.search.evaluate import Job, evaluate, order
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study
from lkspace.study.record import Trial

DATA = "digits:train=400,val=200"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--concurrency", type=int, default=cores())
    parser.add_argument("--objectives", default="accuracy,flops,latency")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "overhead.json")
    options = parser.parse_args()
    runs = []
    for budget in options.budget:
        runs.append(measured(budget, options.concurrency, options.objectives.split(","), options.epochs))
        print(f"{budget} trials")
        for name, value in runs[-1]["seconds"].items():
            print(f"{name:44} {value:8.3f} s", flush=True)
    result = {
        "when": datetime.now().isoformat(timespec="seconds"),
        "command": f"python benchmarks/overhead.py --budget {' '.join(map(str, options.budget))}"
        f" --concurrency {options.concurrency} --objectives {options.objectives} --epochs {options.epochs}",
        "machine": {**environment("cpu"), "usable_cores": cores(), "python": platform.python_version()},
        "runs": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(budget: int, concurrency: int, objectives: Sequence[str], epochs: int) -> dict[str, Any]:
    space = SearchSpace.load("replknet-micro")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        study = run(
            space,
            budget=budget,
            folder=folder,
            objectives=objectives,
            data=DATA,
            overrides={"epochs": epochs},
            concurrency=concurrency,
        )
        end = time.time()
        trials = study.trials
        baseline = one_by_one(study, trials[: min(5, len(trials))], objectives)
    starts = [t.started.timestamp() for t in trials if t.started]
    ends = [t.finished.timestamp() for t in trials if t.finished]
    scored = sum(sum(t.seconds.values()) for t in trials)
    # Each slot's time after the last trial was handed out and its own last one ended.
    tail = sum(max(ends) - e for e in sorted(ends)[-concurrency:])
    held = (max(ends) - min(starts)) * concurrency
    seconds = {
        "whole run": end - begin,
        "start to first trial": min(starts) - begin,
        "first trial to last": max(ends) - min(starts),
        "last trial to end": end - max(ends),
        "scores, a trial": scored / len(trials),
        "scores, a trial, one process without Ray": baseline,
        "overhead, a trial": (held - scored) / len(trials),
        "of it idle at the end, a trial": tail / len(trials),
        "of it starting the workers, a trial": starting(trials, concurrency) / len(trials),
        "of it while candidates run, a trial": (held_beside(trials) - starting(trials, concurrency)) / len(trials),
        "of it between candidates, a trial": (held - tail - held_beside(trials) - scored) / len(trials),
    }
    return {"budget": budget, "concurrency": concurrency, "trials": len(trials), "seconds": seconds}


def held_beside(trials: Sequence[Trial]) -> float:
    """From a trial's start in the study to its end, without its scores."""
    lasted = (t.finished - t.started for t in trials if t.finished and t.started)
    return sum(d.total_seconds() for d in lasted) - sum(sum(t.seconds.values()) for t in trials)


def starting(trials: Sequence[Trial], workers: int) -> float:
    """What each worker's first trial was held beside its scores, over what the others are: Python, torch and Ray."""
    beside = [held_beside([t]) for t in sorted(trials, key=lambda t: t.number)]
    return sum(beside[:workers]) - workers * statistics.median(beside[workers:] or [0.0])


def one_by_one(study: Study, trials: Sequence[Trial], objectives: Sequence[str]) -> float:
    """Seconds of scores a trial for the same architectures in this process."""
    import torch

    from lkspace.scores.score import Setting

    torch.set_num_threads(1)
    setting = Setting(**study.plan.setting)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(setting, order(list(objectives)), (), Path(folder))
        list(evaluate(job, 0, trials[0].architecture))  # imports and data
        seconds = [sum(list(evaluate(job, t.number, t.architecture))[-1].seconds.values()) for t in trials]
    return sum(seconds) / len(seconds)


if __name__ == "__main__":
    main()
