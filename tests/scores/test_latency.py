import dataclasses
import gc
import json
import threading

import numpy as np
import pytest
import torch
from torch import nn

from lkspace import nets
from lkspace.errors import RunError, UserError
from lkspace.registry import scores
from lkspace.scores import denormals, latency, timing
from lkspace.scores.latency import Latency, device_name, prepared
from lkspace.scores.quiet import Device
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture

ARCHITECTURE = Architecture("replknet", (1, 1), (4, 8), (9, 5), (3, None), (True, False), stem_stride=2)
SETTING = Setting(data="digits", size=16, classes=10)


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    monkeypatch.setenv("LKSPACE_LOCKS", str(tmp_path))
    monkeypatch.setattr(timing, "SHORTEST", 0.01)
    monkeypatch.setattr(timing, "LIMIT", 0.02)
    monkeypatch.setattr(timing, "LAST_LIMIT", 0.04)
    monkeypatch.setattr(latency, "_WARM_UP", {"cpu": 0.0, "cuda": 0.0})


def measured(**changes):
    (measurement,) = Latency().measure(ARCHITECTURE, dataclasses.replace(SETTING, **changes))
    return measurement


def test_score_is_registered():
    score = scores.get("latency")
    assert (score.name, score.unit, score.direction, score.cheap) == ("latency", "ms", "minimize", False)


@pytest.mark.parametrize("changes", [{}, {"latency_batch": 3, "latency_dtype": "bfloat16", "latency_threads": 2}])
def test_measurement_says_what_it_is_made_of(changes):
    measurement = measured(**changes)
    details = json.loads(json.dumps(measurement.details))
    low, high = details["interval"]
    assert 0 < low <= measurement.value <= high
    assert measurement.value == details["median"]
    assert details["p5"] <= details["p95"]
    assert timing.LEAST <= details["repeats"] <= details["passes"]
    assert details["exclusive"] is True
    assert details["layout"] in latency.LAYOUTS
    assert details["device"] == device_name("cpu") != ""
    assert details["torch"] == torch.__version__
    setting = dataclasses.replace(SETTING, **changes)
    for key in ("batch", "dtype", "threads"):
        assert details[key] == getattr(setting, f"latency_{key}")
    assert details["operator"].split()[0] in ("native", "torch")


def test_forced_backend_is_recorded(monkeypatch):
    monkeypatch.setenv("LKSPACE_KERNEL", "torch")
    assert measured().details["operator"] == "torch"


def test_timed_is_the_folded_network_in_eval_mode():
    setting = dataclasses.replace(SETTING, latency_batch=2)
    network, images = prepared(ARCHITECTURE, setting)
    assert images.shape == (2, 3, 16, 16)
    assert not network.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.manual_seed(setting.seed)
    with torch.no_grad():
        expected = nets.build(ARCHITECTURE, 10).eval()(images)
        assert torch.allclose(network(images), expected, rtol=1e-4, atol=1e-5)


def test_memory_format_does_not_change_the_result():
    network, images = prepared(ARCHITECTURE, SETTING)
    with torch.no_grad():
        before = network(images)
        latency._fastest_layout(network, images)
        assert torch.allclose(network(images), before, rtol=1e-4, atol=1e-5)


def test_faster_memory_format_is_taken(monkeypatch):
    network, images = prepared(ARCHITECTURE, SETTING)
    monkeypatch.setattr(latency, "_WARM_UP", {"cpu": 1.0})  # of the seconds below: one pass a turn beside the first
    for favourite, other in (tuple(latency.LAYOUTS), tuple(latency.LAYOUTS)[::-1]):
        takes = {
            favourite: iter([3.0, 3.0, 3.0, 1.0] + [3.0] * 12),
            other: iter([2.0] * 16),
        }  # faster at its best
        monkeypatch.setattr(latency, "_pass", lambda n, i, layout, takes=takes: lambda: next(takes[layout]))
        assert latency._fastest_layout(network, images)[0] == favourite


@pytest.mark.parametrize("flushing", [False, True])
def test_process_is_left_as_it_was(flushing):
    torch.set_flush_denormal(flushing)
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        measured(latency_threads=threads + 1)
        assert denormals.are_flushed() is flushing
        assert (torch.tensor([1e-310], dtype=torch.float64) * 1 == 0).item() is flushing
    finally:
        torch.set_flush_denormal(False)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert gc.isenabled()
    assert not torch.is_inference_mode_enabled()


def busy_for_others():
    """Whether another thread finds the device in use."""
    found = []

    def look():
        try:
            with Device("cpu").exclusive(timeout=0):
                found.append(False)
        except RunError:
            found.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def test_device_is_held_alone_while_timing_and_free_afterwards(monkeypatch):
    seen = {}
    real_repeated, real_prepared = timing.repeated, prepared

    def repeated(once, sentinel, **given):
        seen["timing"] = busy_for_others()
        with Device("cpu").exclusive():  # nests only in a thread that holds the device alone
            seen["threads"] = torch.get_num_threads()
            seen["collecting"] = gc.isenabled()
        return real_repeated(once, sentinel, **given)

    def building(*arguments):
        seen["building"] = busy_for_others()
        return real_prepared(*arguments)

    monkeypatch.setattr(timing, "repeated", repeated)
    monkeypatch.setattr(latency, "prepared", building)
    measuring = Latency().measure(ARCHITECTURE, dataclasses.replace(SETTING, latency_threads=2))
    next(measuring)
    assert not busy_for_others()
    assert list(measuring) == []
    assert seen == {"timing": True, "building": True, "threads": 2, "collecting": False}


def test_failure_frees_the_device_and_restores_the_process(monkeypatch):
    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(timing, "repeated", fails)
    threads = torch.get_num_threads()
    with pytest.raises(MemoryError):
        measured(latency_threads=threads + 1)
    assert not busy_for_others()
    assert torch.get_num_threads() == threads
    assert gc.isenabled()


def test_device_that_does_not_become_quiet_is_told(monkeypatch):
    monkeypatch.setattr(latency, "PATIENCE", 0.01)
    held, done = threading.Event(), threading.Event()

    def train():
        with Device("cpu").step():
            held.set()
            done.wait(60)

    thread = threading.Thread(target=train)
    thread.start()
    held.wait(60)
    try:
        with pytest.raises(RunError, match="still in use"):
            measured()
    finally:
        done.set()
        thread.join()


def test_unknown_dtype_is_refused():
    with pytest.raises(UserError, match="'float64': expected one of float32, bfloat16, float16"):
        measured(latency_dtype="float64")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_on_a_gpu(dtype):
    state = torch.cuda.get_rng_state()
    measurement = measured(device="cuda", latency_dtype=dtype)
    assert measurement.value > 0
    assert measurement.details["device"] == torch.cuda.get_device_name()
    assert torch.equal(torch.cuda.get_rng_state(), state)
