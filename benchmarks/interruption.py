"""A search whose driver is killed with SIGKILL again and again, and started again with the same command.

    python benchmarks/interruption.py [--kills 10] [--budget 20] [--seed 0]

The moments are random: after a number of further trials and then a fraction of a second, both drawn from the seed, or
a random time after the start, so that starting up is hit as well. At the end the study must hold exactly the
budget's trials, none lost, none twice, and nothing of Ray may be left. Exits with 1 otherwise.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from lkspace.errors import UserError
from lkspace.search.environment import environment
from lkspace.study import Study

COMMAND = [
    *(sys.executable, "-m", "lkspace", "search", "--space", "replknet-micro", "--data", "digits:train=200,val=100"),
    *("--epochs", "3"),
]
MARK = "LKSPACE_BENCHMARK_MARK"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "interruption.json")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "run"
        kills = [killed(folder, options.budget, rng) for _ in range(options.kills)]
        start = time.monotonic()
        last = subprocess.run(command(folder, options.budget), env=marked(folder), check=False)
        trials = Study.open(folder).trials
        checks = {
            "exit code 0": last.returncode == 0,
            "exactly the budget": len(trials) == options.budget,
            "numbers without a gap": [t.number for t in trials] == list(range(options.budget)),
            "none twice": len({t.id for t in trials}) == len(trials),
            "all ended": all(t.outcome != "running" for t in trials),
            "none changed its architecture": all(
                trials[number].id == identity for kill in kills for number, identity in kill["trials"].items()
            ),
            "page written": (folder / "front.html").is_file(),
            "no process left": not processes(folder),
        }
    result = {
        "when": datetime.now().isoformat(timespec="seconds"),
        "command": f"python benchmarks/interruption.py --kills {options.kills} --budget {options.budget}"
        f" --seed {options.seed}",
        "machine": environment("cpu"),
        "budget": options.budget,
        "seed": options.seed,
        "kills": [{**kill, "trials": len(kill["trials"])} for kill in kills],
        "last run, seconds": time.monotonic() - start,
        "checks": checks,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for check, good in checks.items():
        print(f"{check:32} {'yes' if good else 'NO'}")
    return 0 if all(checks.values()) else 1


def killed(folder: Path, budget: int, rng: np.random.Generator) -> dict[str, Any]:
    """Start the command, kill its driver at a random moment, wait until Ray has gone."""
    driver = subprocess.Popen(command(folder, budget), env=marked(folder))
    begin, known = time.monotonic(), len(trials_of(folder))
    further = int(rng.integers(0, 4))
    if further == 0:
        moment = f"{(delay := rng.uniform(0, 12)):.1f} s after the start"
    else:
        moment, delay = f"{further} trials later", rng.uniform(0, 1)
        while len(trials_of(folder)) < min(known + further, budget) and driver.poll() is None:
            time.sleep(0.02)
    time.sleep(delay)
    driver.kill()
    driver.wait()
    at = time.monotonic() - begin
    while processes(folder):
        time.sleep(0.02)
    gone = time.monotonic() - begin - at
    trials = trials_of(folder)
    print(f"killed after {at:.1f} s ({moment}), {len(trials)} trials; Ray gone after {gone:.1f} s", flush=True)
    return {"moment": moment, "after": at, "ray gone after": gone, "trials": trials}


def trials_of(folder: Path) -> dict[int, str]:
    try:
        return {t.number: t.id for t in Study.open(folder).trials}
    except UserError:
        return {}


def command(folder: Path, budget: int) -> list[str]:
    return [*COMMAND, "--budget", str(budget), "--run", str(folder)]


def marked(folder: Path) -> dict[str, str]:
    return {**os.environ, MARK: str(folder)}


def processes(folder: Path) -> list[int]:
    """Living processes that a driver of this run started.

    Without two idle agents that wait up to a minute to report the death of a killed Ray.
    """
    found = []
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and f"{MARK}={folder}".encode() in (entry / "environ").read_bytes()
            if ours and b"Agent" not in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
