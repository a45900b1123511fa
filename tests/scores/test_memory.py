"""What a training needs, against a process that trains; and memory that is freed stays with it."""

import os
import subprocess
import sys

import pytest

from lkspace.scores import memory
from lkspace.scores.memory import device_bytes, training_bytes
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace

GROWTH = """
import sys, torch
import torch.nn.functional as F
from lkspace import nets
from lkspace.space.architecture import Architecture
torch.set_num_threads(1)
network = nets.build(Architecture.from_json(sys.argv[1]), classes=10).train().to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(network.parameters())
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
def step(batch):
    F.cross_entropy(network(torch.randn(batch, 3, 64, 64)), torch.zeros(batch, dtype=torch.long)).backward()
    optimizer.step()
    optimizer.zero_grad()
step(1)
before = peak()
step(256)
print(peak() - before)
"""

STEPS = """
import sys
from lkspace.scores.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("no glibc")
import torch
def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) // 1024
def step():
    x = [torch.ones(2**20) for _ in range(20)]  # 4 MiB each
before = resident()
step()
print(resident() - before)
"""


def mebibytes_left(mode: str) -> int:
    # The threshold is fixed, at its default: left alone, glibc raises it when it likes, and the test is luck.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    command = [sys.executable, "-c", STEPS, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "no glibc" in done.stderr:
        pytest.skip("the C library cannot be told")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_the_memory_of_a_step_stays_for_the_next() -> None:
    assert mebibytes_left("kept") > 70
    assert mebibytes_left("given back") < 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_a_training_needs_no_less_than_is_said_and_not_twice_as_much() -> None:
    architecture: Architecture = SearchSpace.load("replknet-tiny").reference_points[0]
    command = [sys.executable, "-c", GROWTH, architecture.to_json()]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    one, many = (training_bytes(architecture, Setting("digits", 64, 10, batch=batch)) for batch in (1, 256))
    assert many - one <= grown <= 2 * (many - one)


def test_half_of_the_maps_on_a_gpu() -> None:
    architecture = SearchSpace.load("replknet-tiny").reference_points[0]
    cpu, gpu = (training_bytes(architecture, Setting("digits", 64, 10, device=d)) for d in ("cpu", "cuda"))
    assert cpu / 2 < gpu < cpu


def test_this_machine_has_memory() -> None:
    found = device_bytes("cpu")
    assert found is None or found > 2**28


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "2000"}, 2000),
        ("0::/job/step\n", {"job/step/memory.max": "max", "job/memory.max": "3000"}, 3000),
        ("0::/job\n", {"job/memory.max": "4000", "memory.max": "max"}, 4000),
        ("12:cpu,cpuacct:/a\n7:memory:/a/b\n", {"memory/a/b/memory.limit_in_bytes": "5000", "memory.max": "1"}, 5000),
        ("7:memory:/docker/host\n", {"memory/memory.limit_in_bytes": "6000"}, 6000),
        ("nonsense\n", {}, None),
    ],
)
def test_what_control_groups_allow(tmp_path, monkeypatch, groups, limits, expected) -> None:
    for name, text in {"self": groups, **limits}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "self")
    monkeypatch.setattr(memory, "_LIMITS", tmp_path)
    found = device_bytes("cpu")
    assert found is None or (found == expected if expected else found > 2**28)
