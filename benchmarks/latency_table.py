"""How well a latency table of parts tells the latency of whole networks that a space has.

    python benchmarks/latency_table.py [--space replknet-tiny] [--networks 50] [--rounds 3]

Times every distinct part anew in an empty cache, then measures random networks whole, all of them once, then all
again. Each network is estimated from the table by the factors that the others give, as a search does by its trials.
The second round against the first says how far the machine agrees with itself: no table can do better.
"""

import argparse
import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from interleaved import circumstances, write

from lkspace import registry
from lkspace.scores.agreement import Agreement, agreement
from lkspace.search import profile
from lkspace.space.search_space import SearchSpace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="replknet-tiny")
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = circumstances()
    space = SearchSpace.load(options.space)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        profiled = profile(space, {"cache": Path(folder)})
        seconds = time.perf_counter() - start
        print(f"{profiled.parts} parts in {seconds:.0f} s", flush=True)
    table = profiled.table
    rng = np.random.default_rng(options.seed)
    networks = [space.sample(rng) for _ in range(options.networks)]
    terms = np.array([table.terms(network) for network in networks])
    latency = registry.scores.get("latency")
    rounds = []
    for _ in range(options.rounds):
        rounds.append([[*latency.measure(network, table.setting)][-1].value for network in networks])
        print(f"round {len(rounds)}: {_agreement(terms, rounds[-1]).text}", flush=True)
    middle = np.median(rounds, axis=0)
    of_table = _agreement(terms, middle)
    print(f"medians of the rounds: {of_table.text}")
    itself = [_agreement(np.array(a)[:, None], b) for a, b in itertools.pairwise(rounds)]
    for found in itself:
        print(f"a round against the next: {found.text}")
    write(
        options.out,
        {
            **head,
            "parts": profiled.parts,
            "seconds": seconds,
            "networks": len(networks),
            "milliseconds": [float(middle.min()), float(np.median(middle)), float(middle.max())],
            "rounds": [dataclasses.asdict(_agreement(terms, measured)) for measured in rounds],
            "medians_of_rounds": dataclasses.asdict(of_table),
            "round_against_the_next": [dataclasses.asdict(found) for found in itself],
        },
    )


def _agreement(terms: npt.NDArray[np.float64], measured: npt.ArrayLike) -> Agreement:
    found = agreement(zip(terms, np.asarray(measured), strict=True))
    assert found is not None
    return found


if __name__ == "__main__":
    main()
