import dataclasses
import json

import numpy as np
import pytest
import torch

from lkspace.scores import pace, timing
from lkspace.scores.latency import elsewhere, prepared, timed
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture

ARCHITECTURE = Architecture("replknet", (1, 1), (4, 8), (5, 3), (None, None), (True, True), 1.0, 2.0, 2)


@pytest.fixture
def setting(tmp_path):
    return Setting("digits", 16, 10, cache=tmp_path)


@pytest.fixture
def slow(monkeypatch):
    """A clock for passes and yardstick that runs as many times slower as the test says."""
    times = {"slow": 1.0}

    def repeated(once, sentinel, share=1.0, yardstick=None):
        seconds, fixed = np.linspace(1.9e-3, 2.1e-3, 44) * times["slow"], np.arange(44) % 4 == 3
        seconds[fixed] = np.linspace(0.9e-3, 1.1e-3, 11) * times["slow"]
        return timing.judged(seconds, np.full(45, 1e-4), fixed)

    monkeypatch.setattr(timing, "repeated", repeated)
    monkeypatch.setattr(pace, "seconds_now", lambda: 1e-3 * times["slow"])
    return times


def test_a_slow_spell_is_taken_out(setting, slow):
    network, images = prepared(ARCHITECTURE, setting)
    first = timed(network, images, setting)
    assert first["median"] == pytest.approx(2.0, rel=0.01)
    assert first["pace"] == 1.0
    slow["slow"] = 1.6
    again = timed(network, images, setting)
    assert again["pace"] == pytest.approx(1.6)
    for key in ("median", "interval", "p5", "p95", "median_of_all"):
        assert again[key] == pytest.approx(first[key])


def test_standard_is_the_first_one_by_threads_and_damage_is_mended(tmp_path):
    assert pace.standard(2e-3, 1, tmp_path) == 2e-3
    assert pace.standard(3e-3, 1, tmp_path) == 2e-3
    assert pace.standard(4e-3, 2, tmp_path) == 4e-3
    files = list(tmp_path.rglob("pace-*.json"))
    assert len(files) == 2
    for text in ("{", "[]", json.dumps({"seconds": -1}), json.dumps({"seconds": "x"})):
        for file in files:
            file.write_text(text)
        assert pace.standard(5e-3, 1, tmp_path) == 5e-3


def test_a_cache_that_cannot_be_written_costs_no_measurement(tmp_path):
    (tmp_path / "file").write_text("")
    assert pace.standard(2e-3, 1, tmp_path / "file") == 2e-3
    assert pace.standard(3e-3, 1, tmp_path / "file") == 2e-3  # nor do the next ones have a pace of their own


def test_standard_is_settled_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "seconds_now", iter([2e-3, 3e-3]).__next__)
    pace.settle(1, tmp_path)
    pace.settle(1, tmp_path)
    assert pace.known_standard(pace.standard_file(1, tmp_path)) == 2e-3


def test_standard_of_a_slow_spell_is_renewed_by_a_process_that_finds_the_machine_faster(tmp_path, monkeypatch):
    looks = [2e-3]
    monkeypatch.setattr(pace, "seconds_now", lambda: looks[-1])
    file = pace.standard_file(1, tmp_path)
    pace.settle(1, tmp_path, renew=True)
    for now, expected in ((1.9e-3, 2e-3), (1e-3, 2e-3)):  # the process that set it keeps it
        looks.append(now)
        pace.settle(1, tmp_path, renew=True)
        assert pace.known_standard(file) == expected
    for now, renew, expected in ((1e-3, False, 2e-3), (1.97e-3, True, 2e-3), (1e-3, True, 1e-3), (3e-3, True, 1e-3)):
        monkeypatch.setattr(pace, "_looked", set())  # as another process
        looks.append(now)
        pace.settle(1, tmp_path, renew=renew)
        assert pace.known_standard(file) == expected


def test_a_run_has_a_pace_of_its_own(setting, slow, tmp_path):
    """Whatever became of the machine's, say in a cache that was cleared on a slow day."""
    network, images = prepared(ARCHITECTURE, setting)
    first = timed(network, images, setting)
    assert first["standard"] == pytest.approx(1.0)
    pace.standard_file(setting.latency_threads, tmp_path).unlink()
    slow["slow"] = 1.6
    later = timed(network, images, dataclasses.replace(setting, standard=first["standard"]))
    assert later["median"] == pytest.approx(first["median"])
    assert (later["standard"], later["pace"]) == (first["standard"], pytest.approx(1.6))
    assert timed(network, images, setting)["standard"] == pytest.approx(1.6)


def test_what_differs_from_another_machine_is_named(setting, slow):
    first = timed(*prepared(ARCHITECTURE, setting), setting)
    assert elsewhere(first, "cpu") == ""
    for change in ({"torch": "1.0"}, {"device": "another"}, {"implementation": "rebuilt"}, {"cores": 1000}):
        ((key, value),) = change.items()
        assert elsewhere({**first, **change}, "cpu") == f"{key} {value}, here {first[key]}"


def test_yardstick_gives_seconds_and_leaves_generators_alone():
    pace._network.cache_clear()
    before = torch.random.get_rng_state()
    assert 0 < pace.yardstick_on_cpu()() < 1
    assert torch.equal(before, torch.random.get_rng_state())


def test_pace_is_stored_with_a_latency(setting):
    network, images = prepared(ARCHITECTURE, setting)
    details = timed(network, images, dataclasses.replace(setting, latency_threads=1))
    assert 0.3 < details["pace"] < 3  # of the look that set the standard
    assert details["interval"][0] <= details["median"] <= details["interval"][1]
