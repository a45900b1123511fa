"""Which sampler finds the better front with fewer evaluations?

Random, NSGA-II (population 20), TPE, Optuna's Gaussian process and ours, on the synthetic RepLKNet space, ZDT1-3 and
DTLZ2 (`problems.py`); or on a recorded space, with `--recorded FILE` as `record.py` writes it. Prints the hypervolume
in % of the true front's after 25, 50, 100 and 200 evaluations, of the true values, mean and deviation over seeds.

    python benchmarks/search.py --minutes 2      # again and again: goes on where it stopped, prints what there is

Every result is appended to benchmarks/results/search_synthetic.json, or search_recorded.json, at once; the table is
written beside it. Suggestions of one call were timed on an equally busy machine, those of several perhaps not.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
import scipy
from interleaved import circumstances
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from problems import Problem, problem
from recorded import recorded

from lkspace import reference
from lkspace.scores.score import Measurement
from lkspace.search.evaluate import Report
from lkspace.search.parameters import Parameters
from lkspace.search.pareto_sampler import ParetoSampler
from lkspace.search.stopping import KINDS, Stopping
from lkspace.study import Objective, partial
from lkspace.study.pareto import non_dominated

RESULTS = Path(__file__).parent / "results"
SAMPLERS = ("random", "nsga2", "tpe", "pareto", "gp")  # the slowest last
PROBLEMS = ("synthetic", "zdt1", "zdt2", "zdt3", "dtlz2")


def sampler(name: str, task: Problem, seed: int) -> BaseSampler:
    """One of the samplers that are compared, each with its own defaults but for NSGA-II's population."""
    if name == "pareto":
        return ours(task, seed)
    made = {
        "random": lambda: RandomSampler(seed=seed),
        "nsga2": lambda: NSGAIISampler(seed=seed, population_size=20),
        "tpe": lambda: TPESampler(seed=seed),
        "gp": lambda: GPSampler(seed=seed),
    }
    return made[name]()


def ours(task: Problem, seed: int) -> ParetoSampler:
    parameters = Parameters(task.space)

    def cheap(params: Mapping[str, Any]) -> list[float | None]:
        values = task.truth(params)
        return [values[j] if j in task.cheap else None for j in range(len(values))]

    def features(params: Mapping[str, Any]) -> Any:
        known = task.features(params) if task.features is not None else []
        return np.concatenate([parameters.encode(params), known])

    return ParetoSampler(cheap, features=features, seed=seed, space=task.space)


def run(task: Problem, name: str, seed: int, rule: str) -> dict[str, Any]:
    """One search; hypervolume at the budgets, evaluations spent on duplicates, seconds of all suggestions.

    rule: by which trainings end early. Then hypervolume counts whole ones only, "epochs" is the share of all epochs
    that were trained, "kept" the share of those trained whole among the members of the true front that were tried (of
    the front of what was tried if the true one is not known point by point), and "lost" what hypervolume the others
    would have added, in % of all.
    """
    study = optuna.create_study(directions=list(task.directions), sampler=sampler(name, task, seed))
    noise = np.random.default_rng([seed, 7])
    signs = np.where(np.array(task.directions) == "maximize", -1.0, 1.0)
    truths: list[Any] = []
    whole: list[bool] = []
    points: set[Any] = set()
    stopping = _Stopping(rule, task.directions)
    parameters = Parameters(task.space)
    shares, spent, longest, trained, full = {}, 0.0, 0.0, 0, 0
    for number in range(1, max(task.budgets) + 1):
        start = time.perf_counter()
        trial = study.ask(dict(task.space))
        seconds = time.perf_counter() - start
        spent, longest = spent + seconds, max(longest, seconds)
        truth = np.asarray(task.truth(trial.params))
        truths.append(truth)
        points.add(tuple(trial.params.values()))
        observed = truth + np.asarray(task.noise) * noise.normal(size=len(truth))
        curve = list(task.curve(trial.params, noise)) if rule != "none" and task.curve is not None else [observed[0]]
        sizes = task.features(trial.params) if task.features is not None else []
        features = [*parameters.encode(trial.params), *sizes]
        reached = stopping.reached(curve, truth[1:].tolist(), sizes, features)
        trained, full = trained + reached, full + len(curve)
        if rule != "none":
            rest = [None] * (len(truth) - 1)
            partial.note(trial, {e / len(curve): [curve[e - 1], *rest] for e in range(1, min(reached + 1, len(curve)))})
        whole.append(reached == len(curve))
        if whole[-1]:
            study.tell(trial, [curve[-1], *observed[1:].tolist()])
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        if number in task.budgets:
            shares[number] = round(task.share(np.array(truths)[whole]), 2)
    result = {
        "problem": task.name,
        "sampler": name + ("" if rule == "none" else f" + {rule}"),
        "seed": seed,
        "share": shares,
        "duplicates": number - len(points),
        "seconds": round(spent, 2),
        "longest": round(longest, 3),
    }
    if rule != "none":
        rows = np.array(truths)
        front = task.on_front(rows) if task.on_front is not None else non_dominated(signs * rows)
        lost = 100 * (1 - task.share(rows[whole]) / task.share(rows))
        result |= {"epochs": round(trained / full, 4), "kept": _share(np.array(whole)[front]), "lost": round(lost, 3)}
    return result


def _share(those: Any) -> float | None:
    return round(float(np.mean(those)), 4) if len(those) else None


class _Stopping:
    """A search's own early stopping, for one that trains one candidate after the other and reports a value an epoch."""

    def __init__(self, rule: str, directions: Sequence[Any]) -> None:
        names = ["accuracy", *(f"cost {j}" for j in range(1, len(directions)))]
        self._objectives = [Objective(name, "", direction) for name, direction in zip(names, directions, strict=True)]
        self._rule = rule
        self._stopping: Stopping | None = None
        self._features: Any = None
        self._trials = 0

    def reached(self, curve: list[float], costs: Sequence[float], sizes: Sequence[float], features: Any) -> int:
        """The epochs of a training with this curve of the first objective; costs: the other objectives.

        sizes: in place of FLOPs the first one, by which halving finds peers. features: known beforehand.
        """
        if self._rule == "none":
            return len(curve)
        if self._stopping is None:
            self._stopping = Stopping(self._rule, self._objectives, len(curve), lambda _: self._features)
        self._features = np.array(features)
        settled = dict(zip([o.name for o in self._objectives[1:]], costs, strict=True))
        settled |= {"flops": sizes[0]} if len(sizes) else {}
        entries = [{"accuracy": v, "epoch": e, "epochs": len(curve)} for e, v in enumerate(curve, 1)]
        self._trials += 1
        for epoch, value in enumerate(curve, 1):
            measured = {name: Measurement(v) for name, v in (settled | {"accuracy": value}).items()}
            report = Report(measured, tuple(entries[:epoch]))
            if self._stopping.reason(self._trials, _NOBODY, report) is not None:
                return epoch
        return len(curve)


# The testbed's candidates are points, not networks; what is known of one comes as features.
_NOBODY = reference("replknet-31b")


def table(results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, a table a problem."""
    parts = []
    for name in dict.fromkeys(r["problem"] for r in results):
        rows = [r for r in results if r["problem"] == name]
        budgets = sorted({int(b) for r in rows for b in r["share"]})
        lines = ["| sampler | " + " | ".join(f"@{b}" for b in budgets) + " | duplicates | s a suggestion | seeds |"]
        lines.append("| --- " * (len(budgets) + 4) + "|")
        for one in sorted({r["sampler"] for r in rows}, key=lambda n: (n.count("+"), SAMPLERS.index(n.split(" ")[0]))):
            own = [r for r in rows if r["sampler"] == one]
            shares = [[r["share"][str(b)] for r in own if str(b) in r["share"]] for b in budgets]
            cells = [f"{np.mean(s):.1f} ± {np.std(s):.1f}" if s else "" for s in shares]
            total = max(budgets)
            cells.append(f"{100 * np.mean([r['duplicates'] for r in own]) / total:.1f} %")
            cells.append(f"{np.mean([r['seconds'] for r in own]) / total:.3f}")
            lines.append(f"| {one} | " + " | ".join(cells) + f" | {len(own)} |")
        for one in dict.fromkeys(r["sampler"] for r in rows if "epochs" in r):
            own = [r for r in rows if r["sampler"] == one]
            spent, kept = (100 * np.mean([r[k] for r in own if r[k] is not None]) for k in ("epochs", "kept"))
            lost = np.mean([r["lost"] for r in own])
            text = f"{spent:.0f} % of the epochs; {kept:.0f} % of the front that was tried trained whole"
            lines.append(f"\n{one}: {text}; {lost:.2f} % of the hypervolume lost.")
        parts.append(f"### {name}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--recorded", type=Path, help="a file that record.py wrote, in place of the problems")
    parser.add_argument("--early-stopping", choices=KINDS, default="none")
    parser.add_argument("--out", type=Path, help="a results file, in place of the one in benchmarks/results")
    options = parser.parse_args()
    options.out = options.out or RESULTS / f"search_{'recorded' if options.recorded else 'synthetic'}.json"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    end = time.monotonic() + 60 * options.minutes
    head = {**circumstances(), "optuna": optuna.__version__, "numpy": np.__version__, "scipy": scipy.__version__}
    stored = json.loads(options.out.read_text()) if options.out.exists() else {"results": []}
    results, begun = stored["results"], stored.get("circumstances", [])
    done = {(r["problem"], r["sampler"], r["seed"]) for r in results}
    tasks = [recorded(options.recorded)] if options.recorded else [problem(n) for n in options.problems.split(",")]
    last = 0.0
    for task in tasks:
        for name in options.samplers.split(","):
            for seed in range(options.seeds):
                rule = options.early_stopping
                called = name + ("" if rule == "none" else f" + {rule}")
                if (task.name, called, seed) in done or time.monotonic() + last > end:
                    continue
                start = time.monotonic()
                results.append(json.loads(json.dumps(run(task, name, seed, rule))))
                last = time.monotonic() - start
                print(results[-1], flush=True)
                stored = {"circumstances": [*begun, head], "results": results}
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(stored, indent=1) + "\n")
        last = 0.0
    text = table(results)
    print(text)
    made = f" --recorded {os.path.relpath(options.recorded)}" if options.recorded else ""
    where = f"{head['processor']}, {head['cores']} cores, one used; Python {head['python']}, Optuna {head['optuna']}"
    about = f"Hypervolume in % of the true front's, mean ± deviation over seeds. {where}; {head['date'][:10]}."
    options.out.with_suffix(".md").write_text(f"{about}\nMade by `python benchmarks/search.py{made}`.\n\n{text}\n")


if __name__ == "__main__":
    main()
