"""What the tests of the search share: a small space, studies on it, and scores that do as they are told."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lkspace import registry
from lkspace.quantity import Bound
from lkspace.scores.score import Measurement, Setting
from lkspace.search.candidates import Candidates, cheap_scores
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study
from lkspace.study.record import Objective, Plan

SETTING = Setting(data="digits", size=32, classes=10)


@pytest.fixture(scope="session")
def micro() -> SearchSpace:
    return SearchSpace.load("replknet-micro")


@pytest.fixture
def candidates(micro: SearchSpace) -> Candidates:
    return Candidates(micro, cheap_scores(micro, SETTING, []))


@pytest.fixture
def new_study(tmp_path: Path, micro: SearchSpace) -> Callable[..., Study]:
    def create(
        folder: str = "run",
        budget: int = 10,
        objectives: tuple[str, ...] = ("params", "flops"),
        constraints: tuple[Bound, ...] = (),
    ) -> Study:
        named = tuple(Objective(n, "", registry.scores.get(n).direction) for n in objectives)
        corner = {"params": 1e5, "flops": 1e7, "fake": 1e3}
        plan = Plan(folder, micro.to_dict(), named, {n: corner[n] for n in objectives}, constraints, budget=budget)
        return Study.create(tmp_path / folder, plan)

    return create


@dataclass
class Fake:
    """A score that is not cheap and yields, or raises, what it was given."""

    name: str = "fake"
    unit: str = ""
    direction: str = "minimize"
    cheap: bool = False
    then: list[object] = field(default_factory=list)
    asked: list[Architecture] = field(default_factory=list)

    def measure(self, architecture: Architecture, setting: Setting) -> Iterator[Measurement]:
        self.asked.append(architecture)
        for item in self.then:
            if isinstance(item, BaseException):
                raise item
            assert isinstance(item, Measurement)
            yield item


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    registry.scores.names()
    score = Fake()
    monkeypatch.setitem(registry.scores._entries, "fake", score)
    return score
