import numpy as np
import pytest

from lkspace.errors import UserError
from lkspace.quantity import Bound
from lkspace.scores.memory import training_bytes
from lkspace.scores.score import Measurement, Setting
from lkspace.search.candidates import Candidates, cheap_scores
from lkspace.search.room import Room
from lkspace.space.search_space import SearchSpace

SETTING = Setting(data="digits", size=32, classes=10)


def test_objections_name_duplicate_relation_and_bound(micro):
    space = SearchSpace.from_dict({**micro.to_dict(), "constraints": ["kernels non-increasing", "params<=20K"]})
    cheap = cheap_scores(space, SETTING, [])
    all_points = list(SearchSpace.from_dict({**micro.to_dict(), "constraints": []}).enumerate())
    feasible = list(space.enumerate())
    candidates = Candidates(space, cheap, [Bound.parse("flops<=1M")], [feasible[0].id])
    for architecture in all_points:
        costs = space.costs(architecture)
        expected = None
        if architecture == feasible[0]:
            expected = "duplicate"
        elif list(architecture.kernels) != sorted(architecture.kernels, reverse=True):
            expected = "kernels non-increasing"
        elif costs["params"] > 20_000:
            expected = "params<=20K"
        elif costs["flops"] > 1_000_000:
            expected = "flops<=1M"
        assert candidates.objection(architecture) == expected
    candidates.take(feasible[1])
    assert candidates.objection(feasible[1]) == "duplicate"


def test_drawing_gives_every_untried_architecture_once_and_then_none(micro, candidates):
    rng = np.random.default_rng(0)
    drawn = []
    while (architecture := candidates.draw(rng)) is not None:
        drawn.append(architecture)
        candidates.take(architecture)
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == set(micro.enumerate())


def test_a_needle_that_no_draw_meets_is_found(micro, monkeypatch):
    monkeypatch.setattr("lkspace.search.candidates.DRAWS", 2)
    params = {a: micro.costs(a)["params"] for a in micro.enumerate()}
    most = sorted(set(params.values()))[1]
    candidates = Candidates(micro, cheap_scores(micro, SETTING, []), [Bound("params", "<=", most)])
    needles = {a for a, has in params.items() if has <= most}
    assert len(needles) < micro.size / 10
    rng = np.random.default_rng(0)
    while needles:
        found = candidates.draw(rng)
        candidates.take(found)
        needles.remove(found)
    assert candidates.draw(rng) is None


def test_a_bound_on_a_measured_score_is_not_looked_at(micro, fake):
    candidates = Candidates(micro, cheap_scores(micro, SETTING, ["fake"]), [Bound("fake", "<=", 0.0)])
    assert candidates.objection(micro.reference_points[0]) is None
    assert not fake.asked


def test_a_cheap_score_of_another_package_is_computed(micro, fake):
    fake.cheap, fake.then = True, [Measurement(3.0)]
    cheap = cheap_scores(micro, SETTING, ["fake", "params"])
    assert cheap(micro.reference_points[0])["fake"] == 3.0
    assert Candidates(micro, cheap, [Bound("fake", "<=", 2.0)]).objection(micro.reference_points[0]) == "fake<=2"


def test_what_cannot_be_trained_on_the_device_is_no_candidate(micro):
    needs = {a: training_bytes(a, SETTING) for a in micro.enumerate()}
    room = Room(SETTING, sorted(needs.values())[len(needs) // 2], 1)
    candidates = Candidates(micro, cheap_scores(micro, SETTING, []), room=room)
    objections = {a: candidates.objection(a) for a in needs}
    assert {a for a, objection in objections.items() if objection is None} == {
        a for a, need in needs.items() if need <= room.bytes
    }
    assert set(objections.values()) == {None, str(room)}
    assert str(room).startswith("training needs more than the ")
    for architecture, objection in objections.items():
        assert candidates.allows(candidates.point(micro.params_of(architecture))) == (objection is None)


def test_an_impossible_bound_says_what_the_space_offers(micro):
    candidates = Candidates(micro, cheap_scores(micro, SETTING, []), [Bound.parse("params<=10")])
    with pytest.raises(
        UserError, match=r"no architecture of space replknet-micro keeps .*params<=10 \(.* to .* there\): loosen"
    ):
        candidates.sample(20, np.random.default_rng(0))
