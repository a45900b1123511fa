"""The CUDA C++ kernels without a GPU: compiled for this processor, a thread a lane, against the float64 reference."""

import ctypes
import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lkspace.kernels.gpu import compiler, mma
from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.problem import Problem, alignment, vector

from .conftest import difference, reference

ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-10}
COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
ROWS = [  # images a step, shares, n, c, h, w, kh, kw
    (1, 1, (1, 1, 9, 11, 5, 3)),
    (2, 2, (3, 2, 16, 16, 31, 31)),
    (2, 1, (5, 1, 9, 21, 7, 27)),
    (4, 1, (3, 1, 7, 7, 13, 13)),
    (1, 2, (2, 1, 18, 64, 31, 31)),
]
TALL = [  # tiles a warp
    (2, (3, 1, 33, 17, 31, 31)),
    (4, (2, 1, 56, 9, 13, 5)),
    (2, (2, 2, 20, 8, 51, 3)),
]
IMAGES = [  # tiles, rows a warp, warps
    (1, 7, 1, (3, 1, 7, 7, 13, 13)),
    (1, 7, 2, (17, 1, 14, 14, 27, 27)),
    (2, 8, 4, (20, 1, 16, 16, 31, 31)),
    (1, 5, 1, (2, 2, 5, 7, 3, 3)),
]
GRADIENTS = [  # images a step, rows a warp, shares
    (1, 2, 1, (1, 1, 9, 11, 5, 3)),
    (2, 4, 2, (3, 2, 16, 16, 31, 31)),
    (2, 4, 1, (3, 1, 9, 21, 7, 27)),
    (16, 4, 1, (17, 1, 7, 7, 13, 13)),
    (1, 2, 2, (2, 1, 18, 64, 31, 31)),
    (8, 4, 1, (8, 1, 3, 33, 1, 5)),
    (1, 1, 1, (1, 1, 1, 1, 1, 1)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


def emulated(folder: Path, constants: list[str]) -> Any:
    """`emulate` of emulated.cpp with these constants."""
    return _library(folder, tuple(constants)).emulate


@functools.cache
def _library(folder: Path, constants: tuple[str, ...]) -> ctypes.CDLL:
    library = folder / f"{abs(hash(constants))}.so"
    flags = ["-std=c++20", "-O1", "-pthread", "-shared", "-fPIC", "-Wno-unknown-pragmas", f"-I{mma.SOURCE.parent}"]
    source = Path(__file__).with_name("emulated.cpp")
    subprocess.run([str(COMPILER), *flags, *constants, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def convolved(
    folder: Path,
    choice: Choice,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    flip: bool = False,
    activation: str = "",
) -> Tensor:
    n, c = x.shape[:2]
    constants = mma.options(choice, x, weight, flip, activation)
    y = torch.full(x.shape, float("nan"), dtype=x.dtype)
    tensors = (pointer(one) for one in (x, y, weight, bias))
    emulated(folder, constants)(*mma.grid(choice, n, c), *tensors, n, c, *mma.strides(x))
    return y


def operands(shape: tuple[int, ...], dtype: torch.dtype, sliced: bool = False) -> tuple[Tensor, ...]:
    """x, weight, bias, upstream gradient."""
    torch.manual_seed(0)
    n, c, h, w, kh, kw = shape
    x = (
        torch.randn(n, c + 1, h + 2, 2 * w, dtype=dtype)[:, 1:, 1:-1, ::2]
        if sliced
        else torch.randn(n, c, h, w).to(dtype)
    )
    return x, torch.randn(c, 1, kh, kw).to(dtype), torch.randn(c).to(dtype), torch.randn(n, c, h, w).to(dtype)


def images(tiles: int, rows: int, warps: int, h: int) -> Choice:
    return mma.by_images(warps // -(-h // rows) * tiles * 16, warps, tiles, rows)


CONVOLUTIONS = [(mma.by_rows(a, s[2], b), s) for a, b, s in ROWS] + [(mma.by_rows(2, s[2], 1, a), s) for a, s in TALL]
CONVOLUTIONS += [(images(a, b, c, s[2]), s) for a, b, c, s in IMAGES]
ONE_OF_EACH_KIND = [CONVOLUTIONS[i] for i in (0, len(ROWS), -1)]


@needs_compiler
@pytest.mark.parametrize(("choice", "shape"), CONVOLUTIONS, ids=str)
def test_convolution(folder: Path, choice: Choice, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = operands(shape, torch.bfloat16)
    assert difference(convolved(folder, choice, x, weight, bias), reference(x, weight, bias, grad)["y"]) < 2**-8


@needs_compiler
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(("choice", "shape"), ONE_OF_EACH_KIND, ids=str)
def test_input_gradient_in_both_types(folder: Path, choice: Choice, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, bias, grad = operands(shape, dtype)
    wanted = reference(x, weight, bias, grad)["x"]
    assert difference(convolved(folder, choice, grad, weight, None, flip=True), wanted) < ROUNDING[dtype]


@needs_compiler
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_activation(folder: Path, activation: str) -> None:
    x, weight, bias, grad = operands((2, 2, 5, 6, 3, 3), torch.float16)
    wanted = getattr(torch.nn.functional, activation)(reference(x, weight, bias, grad)["y"])
    found = convolved(folder, mma.by_rows(1, 5, 1), x, weight, bias, activation=activation)
    assert difference(found, wanted) < ROUNDING[x.dtype]


@needs_compiler
@pytest.mark.parametrize(("choice", "shape"), [CONVOLUTIONS[0], CONVOLUTIONS[-1]], ids=str)
def test_any_strides(folder: Path, choice: Choice, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = operands(shape, torch.bfloat16, sliced=True)
    wanted = reference(x, weight, bias, grad)["y"]
    assert difference(convolved(folder, choice, x, weight, bias), wanted) < ROUNDING[x.dtype]


@needs_compiler
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("choice", "shape"), [CONVOLUTIONS[0], CONVOLUTIONS[-1]], ids=str)
def test_what_is_not_finite_passes_and_spreads_no_further(
    folder: Path, choice: Choice, shape: tuple[int, ...], value: float
) -> None:
    x, weight, bias, grad = operands((*shape[:4], 3, 3), torch.bfloat16)
    x[0, 0, 2, 3] = value
    y, wanted = convolved(folder, choice, x, weight, bias), reference(x, weight, bias, grad)["y"]
    assert y.isfinite().logical_not().sum() == 9
    finite = wanted.isfinite()
    assert torch.equal(y.isfinite(), finite)
    assert difference(y[finite], wanted[finite]) < ROUNDING[x.dtype]


@needs_compiler
@pytest.mark.parametrize(("a", "b", "shares", "shape"), GRADIENTS)
def test_weight_gradient(folder: Path, a: int, b: int, shares: int, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = operands(shape, torch.bfloat16)
    found = gradient(folder, mma.of_gradient(a, b, shares, shape[4]), grad, x, weight)
    assert difference(found, reference(x, weight, bias, grad)["weight"]) < ROUNDING[x.dtype]


@needs_compiler
def test_weight_gradient_of_any_strides_and_what_is_not_finite(folder: Path) -> None:
    shape = (3, 2, 5, 7, 3, 3)
    x, weight, bias, grad = operands(shape, torch.float16, sliced=True)
    choice = mma.of_gradient(2, 2, 1, 3)
    assert difference(gradient(folder, choice, grad, x, weight), reference(x, weight, bias, grad)["weight"]) < 2**-10
    x[1, 0, 0, 0] = float("inf")  # a corner: met by the taps that look up or left from it only
    found, wanted = gradient(folder, choice, grad, x, weight), torch.zeros(3, 3, dtype=torch.bool)
    wanted[:2, :2] = True
    assert torch.equal(found[0, 0].isfinite().logical_not(), wanted)
    assert found[1].isfinite().all()


def gradient(folder: Path, choice: Choice, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    constants, shares = mma.gradient_options(choice, grad, x, weight), choice.sizes["SHARES"]
    dw, parts = torch.full_like(weight, float("nan")), torch.full((shares * weight.numel(),), float("nan"))
    tensors = (pointer(one) for one in (x, grad, parts, dw))
    n, c = x.shape[:2]
    emulated(folder, constants)(c, shares, *tensors, n, c, *mma.strides(x), *mma.strides(grad))
    return dw


@pytest.mark.skipif(not compiler.available(), reason="NVRTC is not installed")
@pytest.mark.parametrize(  # nothing in the source depends on the architecture: the oldest compiles everything
    ("shape", "architecture"),
    [
        ((64, 384, 64, 64, 31), 80),
        ((64, 512, 14, 14, 27), 80),
        ((64, 384, 32, 32, 3), 80),
        ((64, 512, 14, 14, 27), 100),
        ((64, 384, 32, 32, 3), 90),
    ],
    ids=str,
)
def test_compiles_for_gpus(shape: tuple[int, ...], architecture: int) -> None:
    n, c, h, w, k = shape
    x, weight = torch.empty(1, c, h, w, dtype=torch.bfloat16), torch.empty(c, 1, k, k, dtype=torch.bfloat16)
    flags = [f"--gpu-architecture=sm_{architecture}", "--std=c++17"]
    posed = Problem("forward", n, c, h, w, k, k, "bfloat16", "tf32", False, 8, False, 8)
    for choice in mma.choices(posed, 132, 99 * 1024):
        assert compiler.compile_source(mma.SOURCE.read_text(), [*flags, *mma.options(choice, x, weight, False, "gelu")])
    for choice in mma.gradient_choices(posed, 132, 99 * 1024):
        assert compiler.compile_source(mma.SOURCE.read_text(), [*flags, *mma.gradient_options(choice, x, x, weight)])


@pytest.mark.skipif(not compiler.available(), reason="NVRTC is not installed")
def test_what_was_compiled_is_kept_and_a_broken_file_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "nothing.cu"
    source.write_text('extern "C" __global__ void nothing() {}')
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))

    def compiled() -> bytes:
        monkeypatch.setattr(compiler, "_binaries", {})  # another process
        return compiler.binary(source, ["-DX=1"], 0)

    first = compiled()
    (file,) = (tmp_path / "kernels").iterdir()
    with monkeypatch.context() as without:
        without.setattr(compiler, "compile_source", lambda *_: pytest.fail("compiled again"))
        assert compiled() == first
    file.write_bytes(file.read_bytes()[:-1])
    assert compiled() == first
    source.write_text("nonsense")
    with pytest.raises(compiler.CannotCompile, match="nonsense"):
        compiled()


def test_alignment_is_what_copies_ask_for() -> None:
    x = torch.empty(2, 3, 4, 8, dtype=torch.bfloat16)
    assert vector(x) == alignment(x) == 8
    assert vector(x[:, :, :, :4]) == 4
    assert vector(torch.empty(2 * 3 * 4 * 8 + 2, dtype=torch.bfloat16)[2:].view(2, 3, 4, 8)) == 2
    assert vector(x.transpose(2, 3)) == 1
