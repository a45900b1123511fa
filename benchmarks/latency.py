"""Is a latency that was measured while others train what an idle machine says?

    python benchmarks/latency.py [--repeats 20] [--threads 1]

One network (the reference point "large-kernels" of `replknet-tiny`) is measured many times by the latency score: on
the idle machine; then, while a real `lkspace search` trains two candidates at a time, in turn with the device's lock
and without it; then idle again, because machines drift. "by the clock" is the plain median of the same passes without
the correction for the machine's pace (lkspace/scores/pace.py), which is what most programs report. Prints medians,
spreads (p95 - p5) / median, ratios to idle, and how many cores were busy with something else meanwhile: under the
lock that is nothing of ours, and the claim is about a machine without it.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import circumstances, write
from torch import Tensor, nn

from lkspace.scores.latency import prepared, timed
from lkspace.scores.quiet import Device
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study

SPACE = "replknet-tiny"
NICENESS = 15  # that Ray gives its workers
# What is summed up: its name, the key in a measurement, whether without the correction for pace.
HOW = (("", "median", False), (", by the clock", "median_of_all", True))
PAUSE = 0.3  # seconds between measurements, in which the trainings go on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "latency.json")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the search ends too
    space = SearchSpace.load(SPACE)
    setting = Setting("", space.image_size, 10, latency_threads=options.threads)
    subject = (space.reference_points[0], setting)

    before = [locked(*subject) for _ in range(options.repeats)]
    with search_training_two():
        with_lock, without = [], []
        for _ in range(options.repeats):
            with_lock.append(locked(*subject))
            time.sleep(PAUSE)
            without.append(unlocked(*subject))
            time.sleep(PAUSE)
    after = [locked(*subject) for _ in range(options.repeats)]

    each = {"idle": before + after, "locked": with_lock, "unlocked": without}
    rows = []
    for how, key, by_clock in HOW:
        found = [summary(what + how, runs, key, by_clock) for what, runs in each.items()]
        rows += [{**row, "to_idle": row["median"] / found[0]["median"]} for row in found]
    for row in rows:
        print(
            f"{row['what']:22} median {row['median']:8.3f} ms  spread {row['spread']:8.1%}"
            f"  to idle {row['to_idle']:6.3f}  others {row['others']:4.2f} cores"
        )
    waited = [details["waited_seconds"] for details in with_lock]
    print(f"waited for running steps: median {np.median(waited):.3f} s, at most {max(waited):.3f} s")
    met = abs(rows[1]["to_idle"] - 1) <= 0.1 and rows[1]["spread"] <= 0.1
    print("within 10 % of idle, spread under 10 %:", "yes" if met else "NO")
    runs = {"idle before": before, "locked": with_lock, "unlocked": without, "idle after": after}
    write(options.out, {**circumstances(), "network": str(subject[0]), "rows": rows, "met": met, "runs": runs})


def locked(architecture: Architecture, setting: Setting) -> dict[str, Any]:
    network, images = prepared(architecture, setting)
    with Device(setting.device).exclusive() as waited:
        return {**watched(network, images, setting), "waited_seconds": waited}


def unlocked(architecture: Architecture, setting: Setting) -> dict[str, Any]:
    return watched(*prepared(architecture, setting), setting)


def watched(network: nn.Module, images: Tensor, setting: Setting) -> dict[str, Any]:
    """`timed`, and how many cores others kept busy meanwhile: what no lock of ours can see to."""
    start, busy = time.perf_counter(), busy_seconds() - time.process_time()
    details = timed(network, images, setting)
    seconds = time.perf_counter() - start
    return {**details, "seconds": seconds, "others": (busy_seconds() - time.process_time() - busy) / seconds}


def busy_seconds() -> float:
    """Seconds of all cores spent on anything but waiting, since the machine started; NaN where Linux is not asked."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return float("nan")
    idle, waiting = int(fields[3]), int(fields[4])
    return (sum(map(int, fields[:8])) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def summary(what: str, runs: list[dict[str, Any]], key: str, by_clock: bool) -> dict[str, Any]:
    values = np.array([details[key] * (details["pace"] if by_clock else 1.0) for details in runs])
    p5, median, p95 = np.percentile(values, [5, 50, 95])
    others = float(np.mean([details["others"] for details in runs]))
    return {"what": what, "median": float(median), "spread": float((p95 - p5) / median), "others": others}


@contextmanager
def search_training_two() -> Iterator[None]:
    """A search in a process of its own, two candidates at a time; the block begins when one has been finished."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "lkspace", "search", "--space", SPACE, "--objectives", "accuracy,flops"]
        command += ["--budget", "500", "--concurrency", "2", "--run", str(run)]
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            while not (run / "study.db").exists() or Study.open(str(run)).counts().get("complete", 0) < 1:
                if process.poll() is not None:
                    sys.exit(f"the search ended early:\n{(Path(folder) / 'log').read_text()}")
                time.sleep(1)
            os.nice(NICENESS)  # measurements of a search run in such a worker, and compete as its equals
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


if __name__ == "__main__":
    main()
