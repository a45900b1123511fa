import dataclasses
import json

import numpy as np
import pytest

from lkspace import nets
from lkspace.errors import UserError
from lkspace.scores import latency_table, pace, timing
from lkspace.scores.latency import LAYOUTS
from lkspace.scores.latency_table import ROUNDS, LatencyTable, distinct_parts
from lkspace.scores.score import Setting
from lkspace.search import profile
from lkspace.space.search_space import SearchSpace

SPACE = SearchSpace.load("replknet-micro")


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    monkeypatch.setenv("LKSPACE_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "LIMIT", 0.01)
    monkeypatch.setattr(timing, "SHORTEST", 0.01)
    monkeypatch.setattr(timing, "LAST_LIMIT", 0.02)
    monkeypatch.setattr(latency_table, "TURNS", 1)


@pytest.fixture
def setting(tmp_path):
    return Setting(data="", size=SPACE.image_size, classes=SPACE.classes, cache=tmp_path / "cache")


def invented(parts):
    """Times that tell each part and layout apart."""
    return {
        p.key: {layout: ROUNDS * [(i + 1.0) * (j + 1)] for j, layout in enumerate(LAYOUTS)} for i, p in enumerate(parts)
    }


@pytest.mark.parametrize("name", ["replknet-micro", "replknet-tiny", "replknet"])
def test_distinct_parts_are_all_that_any_architecture_has(name):
    space = SearchSpace.load(name)
    parts = distinct_parts(space)
    keys = {p.key for p in parts}
    assert len(keys) == len(parts)
    rng = np.random.default_rng(0)
    drawn = [space.draw(rng) for _ in range(300)] + list(space.reference_points)
    met = {p.key for a in drawn for p in nets.parts(a, space.image_size, space.classes)}
    assert met <= keys
    if name == "replknet-micro":
        every = {p.key for a in space.enumerate() for p in nets.parts(a, space.image_size, space.classes)}
        assert every <= keys


def test_a_sum_takes_the_faster_layout_of_the_whole_network(setting):
    parts = distinct_parts(SPACE)
    table = LatencyTable(setting, invented(parts))
    architecture = SPACE.sample(np.random.default_rng(1))
    keys = [p.key for p in nets.parts(architecture, setting.size, setting.classes)]
    first = next(iter(LAYOUTS))
    assert table.sum(architecture) == sum(table.times[key][first][0] for key in keys)
    assert table.terms(architecture) == (table.sum(architecture), nets.params(architecture, setting.classes))
    del table.times[keys[0]]
    assert np.isnan(table.sum(architecture))


def test_a_table_is_filled_once_and_goes_on_where_it_was_cut_off(setting, monkeypatch):
    parts = distinct_parts(SPACE)
    shown = []
    assert LatencyTable.open(setting).fill(parts[:3], lambda *told: shown.append(told)) == 3
    assert (shown[0], shown[-1]) == ((0, 3 * ROUNDS), (3 * ROUNDS, 3 * ROUNDS))
    real, calls = latency_table.timed_part, []

    def counted(part, setting):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(part.key)
        return real(part, setting)

    monkeypatch.setattr(latency_table, "timed_part", counted)
    with pytest.raises(KeyboardInterrupt):
        LatencyTable.open(setting).fill(parts[:8])
    assert calls == [p.key for p in parts[3:5]]
    again = LatencyTable.open(setting)
    assert [p.key for p in again.missing(parts[:8])] == [p.key for p in parts[3:8]]  # two of them timed once
    assert [len(again.times[p.key]["channels_last"]) for p in parts[:5]] == [ROUNDS] * 3 + [1] * 2
    assert all(0 < ms < 1e3 for times in again.times.values() for row in times.values() for ms in row)


def test_the_median_of_the_rounds_counts(setting, monkeypatch):
    """A slow spell of the machine that a part's every pass lies in is over when its turn comes again."""
    parts, calls = distinct_parts(SPACE)[:4], []

    def timed_part(part, setting):
        calls.append(part.key)
        slow = 10.0 if len(calls) in (2, 3) else 1.0
        return {layout: slow * (1 + parts.index(part)) for layout in LAYOUTS}

    monkeypatch.setattr(latency_table, "timed_part", timed_part)
    table = LatencyTable.open(setting)
    table.fill(parts)
    assert calls == ROUNDS * [p.key for p in parts]
    assert table.times[parts[1].key]["channels_last"] == [20, 2, 2]
    monkeypatch.setattr(nets, "parts", lambda *_: parts)
    assert table.sum(SPACE.sample(np.random.default_rng(0))) == 1 + 2 + 3 + 4
    table.fill(parts[:1], again=True)
    assert len(table.times[parts[0].key]["channels_last"]) == ROUNDS


def test_a_later_call_may_ask_for_more_rounds(setting, monkeypatch):
    parts, calls = distinct_parts(SPACE)[:2], []

    def timed_part(part, setting):
        calls.append(part.key)
        return dict.fromkeys(LAYOUTS, 1.0)

    monkeypatch.setattr(latency_table, "timed_part", timed_part)
    LatencyTable.open(setting).fill(parts, rounds=1)
    assert calls == [p.key for p in parts]
    table = LatencyTable.open(setting)
    assert not table.missing(parts, 1)
    assert table.missing(parts) == parts
    table.fill(parts)
    assert calls == ROUNDS * [p.key for p in parts]


def test_times_are_brought_to_the_pace_of_those_that_follow(setting, monkeypatch):
    """When the machine's own was begun anew, as `lkspace doctor` may advise."""
    parts, now = distinct_parts(SPACE)[:2], [2e-3]
    monkeypatch.setattr(pace, "seconds_now", lambda: now[0])
    monkeypatch.setattr(latency_table, "timed_part", lambda *_: dict.fromkeys(LAYOUTS, 1e3 * now[0]))
    standard = pace.standard_file(setting.latency_threads, setting.cache)

    def times():
        return [table.times[part.key]["channels_last"] for part in parts]

    LatencyTable.open(setting).fill(parts[:1], rounds=1)
    standard.unlink()
    now[0] = 3e-3
    table = LatencyTable.open(setting)
    table.fill(parts, rounds=1)
    assert times() == [[pytest.approx(3.0)], [3.0]]
    standard.unlink()
    table = LatencyTable.open(setting)  # nothing says at what pace the machine is now
    assert times() == [[pytest.approx(3.0)], [3.0]]
    pace.standard(6e-3, setting.latency_threads, setting.cache)
    table = LatencyTable.open(setting)
    assert table.fill(parts, rounds=1) == 0
    assert times() == [[pytest.approx(6.0)], [pytest.approx(6.0)]]


def test_two_processes_keep_what_both_found(setting):
    parts = distinct_parts(SPACE)
    one, other = LatencyTable.open(setting), LatencyTable.open(setting)
    one.fill(parts[:1])
    other.fill(parts[1:2])
    assert not LatencyTable.open(setting).missing(parts[:2])


@pytest.mark.parametrize("change", [{"latency_batch": 2}, {"latency_dtype": "bfloat16"}, {"latency_threads": 2}])
def test_other_conditions_are_another_table(setting, change):
    other = dataclasses.replace(setting, **change)
    assert LatencyTable.open(other).path != LatencyTable.open(setting).path
    assert latency_table.timed_part(distinct_parts(SPACE)[1], other)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"milliseconds": [1]}', '{"milliseconds": {"a": {"x": 1}}}'])
def test_a_damaged_file_is_made_anew(setting, content):
    table = LatencyTable.open(setting)
    table.path.parent.mkdir(parents=True)
    table.path.write_text(content)
    part = distinct_parts(SPACE)[:1]
    assert LatencyTable.open(setting).fill(part) == 1
    assert LatencyTable.open(setting).fill(part) == 0


def test_times_that_are_no_times_are_measured_again(setting):
    parts = distinct_parts(SPACE)[:2]
    LatencyTable.open(setting).fill(parts)
    path = LatencyTable.open(setting).path
    content = json.loads(path.read_text())
    content["milliseconds"][parts[0].key] = {layout: [0.0] for layout in LAYOUTS}
    path.write_text(json.dumps(content))
    assert [p.key for p in LatencyTable.open(setting).missing(parts)] == [parts[0].key]


def test_profile_says_what_it_found(monkeypatch):
    found = profile(SPACE, check=3)
    assert found.new == found.parts == len(distinct_parts(SPACE))
    assert found.checked.networks == 3
    assert str(found.table.path) in found.text
    assert "38 parts of replknet-micro, 38 of them timed now" in found.text
    assert profile(SPACE).new == 0
    monkeypatch.setattr(latency_table, "timed_part", lambda *_: dict.fromkeys(LAYOUTS, 1.0))
    assert profile(SPACE, again=True).new == found.parts


def test_profile_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="at least 3"):
        profile(SPACE, check=1)
    for device in ("gpu:x", "gpu", "mps", "cpu:0", "cuda:"):
        with pytest.raises(UserError, match=f"device '{device}': expected 'cpu', 'cuda' or 'cuda:N'"):
            profile(SPACE, {"device": device})
    with pytest.raises(UserError, match="finds no GPU"):
        profile(SPACE, {"device": "cuda"})


def test_a_part_that_is_too_large_for_the_memory_is_left_out(setting, monkeypatch):
    parts, real = distinct_parts(SPACE)[:2], latency_table.timed_part

    def timed_part(part, setting):
        if part is parts[0]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")
        return real(part, setting)

    monkeypatch.setattr(latency_table, "timed_part", timed_part)
    table = LatencyTable.open(setting)
    table.fill(parts)
    assert LatencyTable.open(setting).missing(parts) == parts[:1]
