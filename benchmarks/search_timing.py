"""How long does one suggestion of the sampler take? On replknet-tiny, after 200 and 2,000 trials, on one thread.

    python benchmarks/search_timing.py

Accuracy is invented, and so is latency: not there, told by a table as in a search, and as an objective to be learnt.
Median of five suggestions, each of a sampler made anew as in a search; the first one, which fills the memory of what is
cheap, by itself. CPU seconds stand beside: they do not depend on what else runs on the machine.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from interleaved import circumstances, write
from optuna.trial import create_trial

from lkspace import registry
from lkspace.scores.score import Setting
from lkspace.search.candidates import Candidates, cheap_scores
from lkspace.search.samplers import Suggestion
from lkspace.space.search_space import SearchSpace
from lkspace.study.proposals import distribution
from lkspace.study.record import Objective

OBJECTIVES = (
    Objective("accuracy", "%", "maximize"),
    Objective("flops", "", "minimize"),
    Objective("latency", "ms", "minimize"),
)


def timings(trials: int, objectives: tuple[Objective, ...], table: bool = False) -> dict[str, float]:
    """Seconds of a suggestion after so many trials; table: whether latency is estimated beforehand."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, rng = SearchSpace.load("replknet-tiny"), np.random.default_rng(0)
    setting = Setting(data="digits", size=space.image_size, classes=space.classes)
    estimate = {"latency": lambda a: (0.4 + space.costs(a)["flops"] / 4e6, space.costs(a)["params"])} if table else {}
    candidates = Candidates(space, cheap_scores(space, setting, ["flops"]), estimates=estimate)
    choices = {v.name: distribution(v.choices) for v in space.variables}
    study = optuna.create_study(directions=[o.direction for o in objectives])
    corner = {"accuracy": 0.1, "flops": 2e7, "latency": 12.0}
    for _ in range(trials):
        architecture = space.sample(rng)
        candidates.take(architecture)
        params = space.params_of(architecture) or {}
        flops = space.costs(architecture)["flops"]
        values = {
            "accuracy": 0.3 + 0.2 * np.log10(flops / 1e5) * 0.5 + 0.02 * rng.normal(),
            "flops": flops,
            "latency": 0.4 + flops / 4e6 + 0.02 * rng.random(),
        }
        told = [float(values[o.name]) for o in objectives]
        study.add_trial(create_trial(params=params, distributions=choices, values=told))
    walls, cpus = [], []
    for i in range(6):
        number, known = trials + i, {"latency": [1.0, 0.0]} if table else {}
        suggestion = Suggestion(number, 0, trials, candidates, objectives, corner, factors=known)
        study.sampler = registry.samplers.get("pareto")(suggestion)
        wall, cpu = time.perf_counter(), time.process_time()
        trial = study.ask(choices)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return {
        "first, CPU": cpus[0],
        "median": statistics.median(walls[1:]),
        "median, CPU": statistics.median(cpus[1:]),
        "longest": max(walls[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search_timing.json")
    options = parser.parse_args()
    head, results = {**circumstances(), "optuna": optuna.__version__}, {}
    for trials in (200, 2000):
        for what, objectives, table in (
            ("accuracy learnt, no latency", OBJECTIVES[:2], False),
            ("accuracy learnt, latency by a table", OBJECTIVES, True),
            ("accuracy and latency learnt", OBJECTIVES, False),
        ):
            found = {name: round(value, 3) for name, value in timings(trials, objectives, table).items()}
            results[f"{trials} trials, {what}"] = found
            print(f"{trials} trials, {what}: {found}", flush=True)
    write(options.out, {**head, "seconds of a suggestion": results})


if __name__ == "__main__":
    main()
