"""Studies made by the real writing side with invented results, and a browser that must not reach a network."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lkspace.quantity import Bound
from lkspace.scores.score import Measurement
from lkspace.space.architecture import Architecture
from lkspace.study import Study
from lkspace.study.record import Objective, Plan, Trial

OBJECTIVES = (
    Objective("accuracy", "%", "maximize"),
    Objective("flops", "", "minimize"),
    Objective("latency", "ms", "minimize"),
)
REFERENCE = {"accuracy": 0.1, "flops": 300e6, "latency": 12.0}


def invented(rng: np.random.Generator) -> tuple[Architecture, dict[str, Measurement]]:
    """An architecture and scores that trade off roughly as real ones do."""
    architecture = Architecture(
        family="replknet",
        blocks=tuple(int(b) for b in rng.choice([1, 2, 3], 4)),
        channels=tuple(int(c) for c in np.sort(rng.choice([8, 16, 24, 32, 48, 64], 4))),
        kernels=tuple(int(k) for k in rng.choice([3, 7, 13, 21, 31], 4)),
        reparam=tuple(None if rng.random() < 0.3 else 5 for _ in range(4)),
        shortcut=tuple(bool(rng.random() < 0.8) for _ in range(4)),
    )
    width = sum(b * c * c for b, c in zip(architecture.blocks, architecture.channels, strict=True))
    reach = sum(architecture.kernels)
    flops = float(int(width * 14000 + reach * 5e5))
    latency = 0.4 + flops / 4e7 + reach / 40 + 0.2 * float(rng.random())
    accuracy = 0.97 - 0.6 * float(np.exp(-flops / 6e7 - reach / 60)) - 0.05 * float(rng.random())
    details = {"interval": [latency * 0.98, latency * 1.03], "repeats": 60, "device": "two cores"}
    return architecture, {
        "accuracy": Measurement(accuracy, {"epoch": 5, "loss": 2 - accuracy}),
        "flops": Measurement(flops, {"form": "deploy"}),
        "latency": Measurement(latency, details),
        "params": Measurement(float(width * 9), {"form": "deploy"}),
    }


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """make(folder, outcomes, ...): a run in `folder` with one finished trial per outcome; "running" is left open."""

    def make(
        folder: Path,
        outcomes: Sequence[str],
        objectives: Sequence[Objective] = OBJECTIVES,
        constraints: Sequence[Bound] = (),
        change: Callable[[int, dict[str, Measurement]], dict[str, Measurement]] = lambda _, m: m,
        name: str | None = None,
        **fields: Any,
    ) -> Study:
        plan = Plan(
            name=name or folder.name,
            space={"name": "replknet-tiny", "family": "replknet"},
            objectives=tuple(objectives),
            reference_point={o.name: REFERENCE[o.name] for o in objectives},
            constraints=tuple(constraints),
            setting={"data": "digits", "size": 64, "classes": 10, "epochs": 5, "batch": 64, "rate": 0.006}
            | {"latency_batch": 1, "latency_dtype": "float32", "latency_threads": 1, "device": "cpu"},
            seed=3,
            budget=len(outcomes),
            command="lkspace search --budget 20",
            environment={"processor": "a processor", "python": "3.11", "packages": {"torch": "2.13"}},
            **fields,
        )
        study = Study.create(folder, plan)
        rng = np.random.default_rng(1)
        for i, outcome in enumerate(outcomes):
            architecture, measurements = invented(rng)
            number = study.start(study.given(None, {}), architecture, "reference point" if i == 0 else "sampler")
            if outcome == "running":
                continue
            measurements = change(i, measurements)
            if outcome != "complete":
                measurements.pop("accuracy", None)
            curve = [{"epoch": e, "accuracy": 0.15 * e, "loss": 2.5 - 0.3 * e} for e in range(1, 6)]
            reason = "" if outcome == "complete" else f"the {outcome} one"
            spent = {"latency": 1.1, "accuracy": 14.0 + i}
            study.finish(number, outcome, reason, measurements, curve if outcome == "complete" else (), spent)  # type: ignore[arg-type]
        return study

    return make


@pytest.fixture
def many(make_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of 5,000 trials; they stand in for its own, because writing them one by one takes minutes."""
    study = make_study(tmp_path / "many", [])
    rng = np.random.default_rng(2)
    trials = []
    for number in range(5000):
        architecture, measurements = invented(rng)
        made_of = {name: {**m.details, "value": m.value} for name, m in measurements.items()}
        trials.append(Trial(number, architecture, "complete", measurements=made_of, seconds={"accuracy": 10.0}))
    monkeypatch.setattr(Study, "trials", property(lambda _: trials))
    return study


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, from the system or from playwright; tests that need it are skipped without."""
    sync_api = pytest.importorskip("playwright.sync_api")
    system = [
        p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if Path(p).exists()
    ]
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_api.sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch(executable_path=system[0] if system else None, args=flags)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield running
        running.close()
