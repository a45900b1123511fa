"""Memory that is freed stays with the process: asked of one that does nothing else."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
from lkspace.scores.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("no glibc")
import torch
def step():
    x = [torch.ones(2**20) for _ in range(20)]  # 4 MiB each
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", STEPS, mode], capture_output=True, text=True, check=False)
    if "no glibc" in done.stderr:
        pytest.skip("the C library cannot be told")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_step_takes_no_new_pages_once_the_memory_is_there() -> None:
    assert faults("kept") < 500 < faults("given back")
