"""Runs of one space, their fronts valued by the same latencies: what early stopping, or a sampler, costs or brings.

    python benchmarks/compare_runs.py RUN RUN ... [--out FILE]

A latency that two runs measured at different times differs by percents, and with it their hypervolumes. Here every
architecture's latency is the sum of its parts in one latency table, timed now, so that nothing differs but which
networks a run trained to their end. The corner is 1.1 times the costliest network of all runs, accuracy at chance.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from interleaved import circumstances, write

from lkspace.scores.latency_table import LatencyTable
from lkspace.search import profile
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study
from lkspace.study.pareto import hypervolume
from lkspace.study.record import Trial

MARGIN = 1.1
TRIALS = (20, 50, 100, 150, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = circumstances()
    studies = [Study.open(run) for run in options.runs]
    space = SearchSpace.from_dict(studies[0].plan.space)
    with tempfile.TemporaryDirectory() as cache:
        table = profile(space, {"cache": Path(cache)}).table
    chance = 1 / studies[0].plan.setting["classes"]
    rows = [_rows(study, table) for study in studies]
    worst = np.max(np.vstack([points for _, points in rows]), axis=0)
    corner = np.array([-chance, *(MARGIN * worst[1:])])
    scale = float(np.prod(corner - np.array([-1.0, 0.0, 0.0])))
    results = []
    for study, (numbers, points) in zip(studies, rows, strict=True):
        trials = study.trials
        volumes = {n: hypervolume(points[numbers < n], corner) / scale for n in TRIALS if n <= len(trials)}
        results.append(
            {
                "early stopping": study.plan.early_stopping,
                "sampler": study.plan.sampler,
                "seed": study.plan.seed,
                "trials": len(trials),
                "epochs": sum(len(trial.curve) for trial in trials),
                "best accuracy": float(-points[:, 0].min()),
                "hypervolume": volumes,
            }
        )
        told = ", ".join(f"{volume:.4f} after {n}" for n, volume in volumes.items())
        print(f"{os.path.basename(study.folder or '')}: early stopping {study.plan.early_stopping}, hypervolume {told}")
    write(options.out, {**head, "corner": corner.tolist(), "runs": results})


def _rows(study: Study, table: LatencyTable) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the complete trials (n,), and (n, 3): minus accuracy, FLOPs, ms; all smaller is better."""

    def row(trial: Trial) -> list[float]:
        return [-trial.values["accuracy"], trial.values["flops"], table.sum(trial.architecture)]

    complete = [trial for trial in study.trials if trial.outcome == "complete"]
    return np.array([t.number for t in complete]), np.array([row(t) for t in complete])


if __name__ == "__main__":
    main()
