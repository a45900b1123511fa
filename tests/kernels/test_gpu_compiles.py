"""The kernels compiled for a GPU that is not there: what the interpreter accepts, the compiler may refuse."""

import os
import re
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available():
    pytest.skip("for machines without a GPU, not interpreting", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from lkspace.kernels.gpu import paths  # noqa: E402
from lkspace.kernels.gpu.problem import Direction, problem  # noqa: E402

HOPPER, AMPERE = 90, 80


class Absent:
    """A driver of Triton's that only says what to compile for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


@pytest.fixture
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Launching compiles instead, for the capability that the test names; kernels by name."""
    kernels: dict[str, Any] = {}

    def launcher(kernel: JITFunction, grid: Any) -> Any:
        def launch(*arguments: Any, **constants: Any) -> None:
            kernels[kernel.__name__] = kernel.run(*arguments, grid=grid, warmup=True, **constants)

        return launch

    monkeypatch.setattr(JITFunction, "__getitem__", launcher, raising=False)
    monkeypatch.setattr(triton.runtime.driver, "_active", Absent(request.param), raising=False)
    return kernels


@pytest.mark.parametrize("compiled", [HOPPER, AMPERE], indirect=True)
@pytest.mark.parametrize(
    ("direction", "path", "shape", "kernel"),
    [
        ("forward", "toeplitz", (64, 384, 64, 64), "convolve"),
        ("input gradient", "dense", (64, 512, 14, 14), "convolve_plane"),
        ("forward", "taps", (64, 384, 32, 32), "convolve_taps"),
        ("weight gradient", "correlate", (64, 384, 32, 32), "correlate"),
    ],
)
def test_compiles(
    direction: Direction, path: str, shape: tuple[int, ...], kernel: str, compiled: dict[str, Any]
) -> None:
    """Products go to tensor cores, and their operands are fetched ahead in vectors where alignment allows."""
    size = 31 if path in ("toeplitz", "correlate") else 27 if path == "dense" else 7
    x = torch.empty(shape, dtype=torch.bfloat16)
    weight = torch.empty(shape[1], 1, size, size, dtype=torch.bfloat16)
    posed = problem(direction, x, weight)
    choice = next(one for one in paths.candidates(posed, x.device) if one.path == path)
    if direction == "weight gradient":
        paths.gradient_of_weight(choice, x, x, weight, "tf32")
    else:
        paths.convolution(choice, x, weight, None, direction == "input gradient", "", "tf32")
    code = compiled[kernel].asm["ptx"]
    if path != "taps":
        assert ("wgmma.mma_async" if ".target sm_90a" in code else "mma.sync") in code
    if path in ("toeplitz", "correlate"):
        assert len(re.findall(r"cp\.async\.c[ag]\.shared\.global .*0x10", code)) > 8
