"""How well a latency table of parts tells the latency of whole networks that a space has.

    python benchmarks/latency_table.py [--space replknet-tiny] [--networks 50]

Times every distinct part anew in an empty cache, then measures random networks whole. The errors are those of the
sums times one factor, the median of measured over sum; a search gets it from the trials before.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from interleaved import circumstances, write

from lkspace.search import profile
from lkspace.space.search_space import SearchSpace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="replknet-tiny")
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = circumstances()
    space = SearchSpace.load(options.space)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        parts = profile(space, {"cache": Path(folder)}).parts
        seconds = time.perf_counter() - start
        checked = profile(space, {"cache": Path(folder)}, check=options.networks, seed=options.seed).checked
    assert checked is not None
    print(f"{parts} parts in {seconds:.0f} s; {checked.text}")
    write(options.out, {**head, "parts": parts, "seconds": seconds, **dataclasses.asdict(checked)})


if __name__ == "__main__":
    main()
