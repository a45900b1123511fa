"""The native library as a citizen of the process: threads, forks, the caller's floating-point mode, its interface."""

import ctypes
import multiprocessing
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lkspace.kernels import depthwise_conv2d, library, native_calls, schemes
from lkspace.kernels import norm as norm_calls
from lkspace.kernels.native_calls import SCHEMES

from .conftest import NATIVE_WAYS, force, ways

pytestmark = pytest.mark.usefixtures("native", "threads")


def everything(
    shape: tuple[int, int, int, int], kernel: int, channels_last: bool, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Result and all gradients of one seeded call."""
    drawn = torch.Generator().manual_seed(3)
    sizes = (shape, (shape[1], 1, kernel, kernel), (shape[1],), shape)
    x, weight, bias, grad = (torch.randn(size, generator=drawn).to(dtype) for size in sizes)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias)]
    y = depthwise_conv2d(x, weight, bias)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


@pytest.mark.parametrize("native_way", [*NATIVE_WAYS, "as chosen"])
@pytest.mark.parametrize(("kernel", "channels_last"), [(3, True), (5, False), (13, True)])
@pytest.mark.parametrize("shape", [(1, 8, 40, 24), (3, 24, 32, 32), (7, 40, 9, 9), (1, 1, 64, 64), (12, 12, 20, 20)])
def test_number_of_threads_does_not_change_a_bit(
    native_way: str,
    shape: tuple[int, int, int, int],
    kernel: int,
    channels_last: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if native_way in NATIVE_WAYS:
        if native_way not in ways():
            pytest.skip(f"{native_way} is not on this machine")
        force(monkeypatch, native_way)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(everything(shape, kernel, channels_last))
        if shape[0] == 3:
            results[-1] += everything(shape, kernel, channels_last, torch.bfloat16)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory map")
def test_the_library_shares_torchs_openmp_runtime() -> None:
    code = (
        "import torch; from lkspace.kernels import depthwise_conv2d as d;"
        "d(torch.ones(2, 8, 9, 9), torch.ones(8, 1, 3, 3)); print(open('/proc/self/maps').read())"
    )
    # A process of its own: scikit-learn, which other tests import, brings an OpenMP runtime along.
    maps = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert any("lkspace_native" in line for line in maps)
    assert len({line.split()[-1] for line in maps if "libgomp" in line or "libomp" in line}) <= 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_python_threads_may_call_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(schemes.VARIABLE, scheme)
    torch.set_num_threads(2)
    shapes = [(2, 24, 24, 24), (4, 16, 9, 30), (1, 40, 32, 8), (3, 8, 40, 40)] * 3
    expected = [everything(shape, 11, True) for shape in shapes]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda shape: everything(shape, 11, True), shapes))
    for result, wanted in zip(results, expected, strict=True):
        assert all(map(torch.equal, result, wanted))


def total() -> float:
    """Of one call in all directions, without torch's autograd, which does not survive a fork beside a GPU."""
    drawn = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 24, 24, 24, generator=drawn), torch.randn(24, 1, 11, 11, generator=drawn)
    y = depthwise_conv2d(x, weight)
    gradients = torch.ops.lkspace.depthwise_conv2d_backward(y, x, weight, [True, True, True])
    return sum(float(one.double().sum()) for one in (y, *gradients))


def check_total(expected: float) -> None:
    torch.set_num_threads(2)
    raise SystemExit(0 if total() == expected else 1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(method: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child forked after the parent had worker threads would wait for them forever under GNU OpenMP."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} is not on this system")
    monkeypatch.setenv(schemes.VARIABLE, scheme)
    torch.set_num_threads(2)
    expected = total()
    torch.set_num_threads(1)  # torch's own sum in the child must not start threads either
    worker = multiprocessing.get_context(method).Process(target=check_total, args=(expected,))
    worker.start()
    worker.join(60)
    if worker.is_alive():
        worker.kill()
    assert worker.exitcode == 0


FIRST_IN_A_CHILD = """
import os, torch
from lkspace.kernels import depthwise_conv2d
torch.set_num_threads(2)
torch.ones(2**20).exp()  # torch's threads are there now, and not in the child
child = os.fork()
if child == 0:
    y = depthwise_conv2d(torch.ones(2, 16, 24, 24), torch.ones(16, 1, 11, 11))
    os._exit(0 if abs(y[0, 0, 12, 12] - 121) < 0.01 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_first_call_and_calibration_in_a_forked_child(tmp_path: Path) -> None:
    environment = {**os.environ, "LKSPACE_CACHE": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", FIRST_IN_A_CHILD]
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == 0
    assert list(tmp_path.rglob("cpu-*.json"))


def test_a_bias_gradient_alone_is_the_same_for_any_number_of_threads() -> None:
    torch.manual_seed(0)
    x, grad, found = torch.randn(8, 1, 96, 96), torch.randn(8, 1, 96, 96), []
    for count in (1, 2):
        torch.set_num_threads(count)
        bias = torch.zeros(1, requires_grad=True)
        depthwise_conv2d(x, torch.ones(1, 1, 3, 3), bias).backward(grad)
        assert bias.grad is not None
        found.append(bias.grad)
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], grad.double().sum().float().reshape(1), rtol=1e-4, atol=1e-3)


def test_flushing_denormals_leaves_those_of_float16() -> None:
    """Which are no denormals of the float32 that is computed in."""
    x, weight = torch.full((1, 16, 8, 8), 3e-5, dtype=torch.float16), torch.ones(16, 1, 3, 3, dtype=torch.float16)
    expected = depthwise_conv2d(x, weight)
    assert expected.count_nonzero() == expected.numel()
    try:
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor does not flush denormals")
        assert torch.equal(depthwise_conv2d(x, weight), expected)
        assert torch.equal(
            depthwise_conv2d(torch.ones_like(x), 3e-5 * weight)[0, 0, 1:7, 1:7], expected[0, 0, 1:7, 1:7]
        )
    finally:
        torch.set_flush_denormal(False)


def test_callers_denormal_mode_holds_in_all_threads_and_is_left_alone() -> None:
    """Denormal results: kept by default, flushed if the caller asked torch to; for one thread as for two."""
    x, weight = torch.full((8, 16, 32, 32), 1e-30), torch.full((16, 1, 3, 3), 1e-12)
    try:
        for flush in (False, True):
            if not torch.set_flush_denormal(flush):
                pytest.skip("this processor does not flush denormals")
            for count in (1, 2):
                torch.set_num_threads(count)
                assert bool((depthwise_conv2d(x, weight) == 0).all()) is flush
                assert bool((torch.tensor(1e-30) * torch.tensor(1e-12) == 0).all()) is flush
    finally:
        torch.set_flush_denormal(False)


def test_library_of_another_version_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = library.load()
    assert isinstance(there, ctypes.CDLL)
    monkeypatch.setattr(library, "ABI", library.ABI + 1)
    library.load.cache_clear()
    try:
        assert "was built for another version" in str(library.load())
    finally:
        library.load.cache_clear()


def test_library_that_does_not_load_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / library._NAME).write_bytes(b"no library")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    library.load.cache_clear()
    try:
        assert "does not load" in str(library.load())
    finally:
        library.load.cache_clear()


def test_struct_is_as_long_as_in_c() -> None:
    """As many 64-bit numbers are packed as interface.h declares."""
    header = (Path(__file__).parents[2] / "kernels" / "native" / "interface.h").read_text()
    view, call, norm = re.findall(r"struct \w+ {(.*?)};", header, re.DOTALL)

    def declared(fields: str, kind: str) -> int:
        return sum(len(line.split(",")) for line in re.findall(rf"{kind} ([^;]*);", fields))

    numbers = declared(call, "int64_t") + declared(call, "View") * declared(view, "int64_t")
    assert native_calls._CALL.size == 8 * numbers == 8 * (12 + 6 * 5)
    numbers = declared(norm, "int64_t") + declared(norm, "double")
    assert norm_calls._CALL.size == 8 * numbers == 8 * 18
