"""The default run as a newcomer types it: how long it takes, and what front it ends with.

    python benchmarks/default_run.py [--budget 20] [--early-stopping none] [--keep FOLDER]

Runs `lkspace search --budget N` in an empty folder with an empty cache of data and prints the wall time, the members
of the front, its hypervolume, the best accuracy and how many times chance that is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interleaved import circumstances, write

from lkspace.study import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--early-stopping", help="as for the search, its default if not given")
    parser.add_argument("--keep", type=Path, help="a folder that does not exist, for a copy of the run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = circumstances()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LKSPACE_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", "lkspace", "search", "--budget", str(options.budget)]
        command += ["--early-stopping", options.early_stopping] if options.early_stopping else []
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True)
        seconds = time.perf_counter() - start
        run = next(Path(folder, "runs").iterdir())
        study = Study.open(run)
        front, plan = study.front(), study.plan
        best = max(trial.values["accuracy"] for trial in front)
        results = {
            "budget": options.budget,
            "early stopping": plan.early_stopping,
            "seconds": seconds,
            "outcomes": study.counts(),
            "front members": len(front),
            "front": [{o.name: trial.values[o.name] for o in plan.objectives} for trial in front],
            "reference point": study.reference_point,
            "best accuracy": best,
            "times chance": best * plan.setting["classes"],
            "hypervolume": study.hypervolume(),
            "seconds of a trial, mean": sum(sum(t.seconds.values()) for t in study.trials) / len(study.trials),
        }
        if options.keep:
            shutil.copytree(run, options.keep)
    print(f"{options.budget} trials in {seconds / 60:.1f} minutes, {len(front)} on the front,", end=" ")
    volume, times = results["hypervolume"], results["times chance"]
    print(f"hypervolume {volume:.5g}, best accuracy {best:.1%}, {times:.1f} times chance")
    write(options.out, {**head, **results})


if __name__ == "__main__":
    main()
