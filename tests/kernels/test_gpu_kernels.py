"""Every path of the GPU backend against the float64 reference: on a GPU, or in Triton's interpreter.

Where there is no GPU these tests skip unless TRITON_INTERPRET=1 is set; test_gpu.py runs them so, in a process of their
own, because Triton decides when it is imported whether it interprets. Shapes are as small as the interpreter is slow.
"""

import dataclasses
import os

import pytest
import torch
from torch import Tensor

from lkspace.kernels import backend_for, depthwise_conv2d

from .conftest import difference, reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU; test_gpu.py runs these in Triton's interpreter", allow_module_level=True)

from lkspace.kernels.gpu import calls, mma, paths, tuning, weight_gradient  # noqa: E402
from lkspace.kernels.gpu.choice import Choice  # noqa: E402
from lkspace.kernels.gpu.problem import alignment, problem  # noqa: E402

DEVICE = "cpu" if INTERPRETED else "cuda"
# Triton's interpreter cuts bfloat16 off where a device rounds to the nearest.
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8, torch.float16: 2**-10}
LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "expanded")


def chosen(path: str, **tile: int) -> Choice:
    return Choice(path, tuple(tile.items()), stages=2)


TABLE = chosen("toeplitz", BI=4, BW=16, BP=16, SK=2, BK=16, TABLE=1)
GATHER = chosen("toeplitz", BI=2, BW=16, BP=32, SK=1, BK=16, TABLE=0)
DENSE = chosen("dense", BN=16, BM=64, BK=32)
TAPS = chosen("taps", BI=4, BP=32, BC=1)
TAPS_OF_CHANNELS = chosen("taps", BI=2, BP=16, BC=4)
FORWARD = {"table": TABLE, "gather": GATHER, "dense": DENSE, "taps": TAPS, "taps of channels": TAPS_OF_CHANNELS}
CORRELATE = chosen("correlate", BU=4, BW=16, BL=16, BR=16, PARTS=1)
IN_PARTS = chosen("correlate", BU=2, BW=16, BL=32, BR=16, PARTS=2)
SHAPES = [  # n, c, h, w, kh, kw
    (2, 2, 5, 7, 3, 3),
    (1, 2, 4, 19, 5, 3),
    (3, 1, 4, 16, 9, 3),  # taller than the map
    (1, 1, 3, 33, 1, 5),
    (2, 1, 7, 1, 3, 1),
    (1, 1, 2, 3, 1, 1),
]
LARGE = [(2, 1, 7, 7, 13, 13), (1, 1, 9, 21, 7, 27), (1, 1, 18, 5, 31, 3), (3, 1, 4, 18, 11, 31)]


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, layout: str = "contiguous") -> Tensor:
    """Random values that lie in memory as the layout says."""
    n, c, *rest = (*shape, 0) if len(shape) == 1 else shape
    if layout == "transposed":
        return torch.randn(n, c, rest[1], rest[0], dtype=dtype, device=DEVICE).transpose(2, 3)
    if layout == "sliced":
        return torch.randn(n, c + 1, rest[0] + 2, 2 * rest[1], dtype=dtype, device=DEVICE)[:, 1:, 1:-1, ::2]
    if layout == "expanded":
        return torch.randn(1, c, 1, rest[1], dtype=dtype, device=DEVICE).expand(shape)
    x = torch.randn(shape, dtype=dtype, device=DEVICE)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def operands(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, layout: str = "contiguous", seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias, upstream gradient."""
    torch.manual_seed(seed)
    n, c, h, w, kh, kw = shape
    x, grad = values((n, c, h, w), dtype, layout), values((n, c, h, w), dtype, layout)
    return x, values((c, 1, kh, kw), dtype), values((c,), dtype), grad


def precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else problem("forward", x, x).precision


def expected(x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor) -> dict[str, Tensor]:
    on_cpu = [None if tensor is None else tensor.cpu() for tensor in (x, weight, bias, grad)]
    return {name: tensor.to(DEVICE) for name, tensor in reference(*on_cpu).items()}  # type: ignore[arg-type]


def convolved(choice: Choice, x: Tensor, weight: Tensor, bias: Tensor | None = None, flip: bool = False) -> Tensor:
    return paths.convolution(choice, x, weight, bias, flip, "", precision(x))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("path", FORWARD)
def test_forward_and_input_gradient(path: str, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = operands(shape)
    wanted = expected(x, weight, bias, grad)
    assert difference(convolved(FORWARD[path], x, weight, bias), wanted["y"]) < 1e-5
    assert difference(convolved(FORWARD[path], grad, weight, flip=True), wanted["x"]) < 1e-5


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("path", ["table", "gather", "dense"])
def test_large_kernels(path: str, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = operands(shape)
    wanted = expected(x, weight, bias, grad)
    assert difference(convolved(FORWARD[path], x, weight, bias), wanted["y"]) < 1e-5
    assert difference(convolved(FORWARD[path], grad, weight, flip=True), wanted["x"]) < 1e-5


@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
@pytest.mark.parametrize("choice", [CORRELATE, IN_PARTS], ids=["whole", "parts"])
def test_weight_gradient(choice: Choice, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = operands(shape)
    wanted = expected(x, weight, bias, grad)["weight"]
    assert difference(paths.gradient_of_weight(choice, grad, x, weight, "ieee"), wanted) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", FORWARD)
def test_halves_are_summed_in_float32(path: str, dtype: torch.dtype) -> None:
    x, weight, bias, grad = operands((2, 1, 6, 17, 9, 7) if "taps" not in path else (1, 2, 4, 5, 3, 3), dtype)
    wanted = expected(x, weight, bias, grad)
    y = convolved(FORWARD[path], x, weight, bias)
    assert y.dtype == dtype
    assert difference(y, wanted["y"]) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weight_gradient_of_halves(dtype: torch.dtype) -> None:
    x, weight, bias, grad = operands((2, 1, 6, 17, 9, 7), dtype)
    result = paths.gradient_of_weight(IN_PARTS, grad, x, weight, precision(x))
    assert result.dtype == dtype
    assert difference(result, expected(x, weight, bias, grad)["weight"]) < ROUNDING[dtype]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("path", FORWARD)
def test_any_strides(path: str, layout: str) -> None:
    x, weight, bias, grad = operands((2, 3, 4, 6, 3, 3), layout=layout)
    wanted = expected(x, weight, bias, grad)
    y = convolved(FORWARD[path], x, weight, bias)
    assert difference(y, wanted["y"]) < 1e-5
    last = layout == "channels_last"
    assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_weight_gradient_of_any_strides(layout: str) -> None:
    x, weight, bias, grad = operands((2, 3, 4, 6, 3, 3), layout=layout)
    wanted = expected(x, weight, bias, grad.contiguous())["weight"]
    for one in (grad, grad.contiguous()):
        assert difference(paths.gradient_of_weight(CORRELATE, one, x, weight, "ieee"), wanted) < 1e-5


@pytest.mark.parametrize("path", FORWARD)
def test_nan_and_infinity_reach_what_the_kernel_reaches(path: str) -> None:
    """Also 0 x inf inside the products, pixels beyond the map under an infinite weight, and one image of two."""
    x, weight, bias, _ = operands((2, 2, 4, 7, 3, 3))
    clean = convolved(FORWARD[path], x, weight, bias)
    x[0, 0, 1, 3], x[0, 1, 3, 6] = float("nan"), float("inf")
    reached = torch.zeros_like(x, dtype=torch.bool)
    reached[0, 0, :3, 2:5] = reached[0, 1, 2:, 5:] = True
    y = convolved(FORWARD[path], x, weight, bias)
    assert torch.equal(~y.isfinite(), reached)
    torch.testing.assert_close(y[~reached], clean[~reached])
    weight = torch.zeros(1, 1, 3, 3, device=DEVICE)
    weight[:, 0, 0, 0] = float("inf")
    y = convolved(FORWARD[path], torch.ones(1, 1, 2, 2, device=DEVICE), weight)
    assert torch.equal(y.isinf().cpu(), torch.tensor([[[[False, False], [False, True]]]]))
    assert not y.isnan().any()


@pytest.mark.parametrize("choice", [CORRELATE, IN_PARTS], ids=["whole", "parts"])
def test_nan_and_infinity_in_the_weight_gradient(choice: Choice) -> None:
    """A gradient in the corner meets the taps whose pixels are inside the map, no others."""
    x, weight, _, grad = operands((2, 2, 5, 6, 3, 5))
    clean = paths.gradient_of_weight(choice, grad, x, weight, "ieee")
    grad[1, 0, 0, 0] = float("inf")
    result = paths.gradient_of_weight(choice, grad, x, weight, "ieee")
    met = torch.zeros_like(weight, dtype=torch.bool)
    met[0, 0, 1:, 2:] = True
    assert torch.equal(~result.isfinite(), met)
    torch.testing.assert_close(result[~met], clean[~met])


@pytest.mark.parametrize("path", FORWARD)
def test_activation_before_rounding(path: str) -> None:
    x, weight, bias, _ = operands((1, 4, 3, 5, 3, 3))
    y = convolved(FORWARD[path], x, weight, bias)
    for activation, function in (("relu", torch.relu), ("gelu", torch.nn.functional.gelu)):
        result = paths.convolution(FORWARD[path], x, weight, bias, False, activation, "ieee")
        torch.testing.assert_close(result, function(y), rtol=1e-5, atol=1e-6)


def test_a_bias_of_any_stride() -> None:
    x, weight, bias, _ = operands((1, 4, 3, 5, 3, 3))
    apart = torch.stack([bias, bias + 1], 1)[:, 0]
    assert torch.equal(calls.forward(x, weight, apart, ""), calls.forward(x, weight, bias, ""))


def test_choices_fit_the_problem_and_give_the_same_bits_twice() -> None:
    """The choices as they are offered, on one small problem each; the first is what an untimed call takes."""
    x, weight, bias, grad = operands((1, 1, 3, 5, 3, 3))
    wanted = expected(x, weight, bias, grad)
    forward = paths.candidates(problem("forward", x, weight), x.device)
    assert [choice.path for choice in forward[-2:]] == ["torch", "torch"]
    assert {choice.path for choice in forward} == {"toeplitz", "dense", "taps", "torch"}
    for choice in {choice.path: choice for choice in forward}.values():
        first, second = (convolved(choice, x, weight, bias) for _ in range(2))
        assert difference(first, wanted["y"]) < 1e-5, choice
        assert torch.equal(first, second), choice
    for choice in paths.candidates(problem("weight gradient", x, weight), x.device):
        first, second = (paths.gradient_of_weight(choice, grad, x, weight, "ieee") for _ in range(2))
        assert difference(first, wanted["weight"]) < 1e-5, choice
        assert torch.equal(first, second), choice


def test_every_offered_tile_computes_any_problem_it_is_offered_for() -> None:
    """Windows of the weight gradient are long enough, also of several tiles and where Z rounds up."""
    for w, kw, bw, bl in ((56, 31, 16, 64), (33, 101, 16, 32), (7, 13, 8, 16), (100, 5, 16, 16)):
        length, zero = weight_gradient._window(w, kw, bw, bl)
        assert length % bl == 0
        assert zero >= kw // 2 or bw >= w
        assert length >= (w if bw >= w else bw + kw // 2 + zero)


def test_channels_last_by_way_of_planes() -> None:
    x, weight, bias, grad = operands((2, 3, 4, 6, 3, 3), layout="channels_last")
    wanted = expected(x, weight, bias, grad)
    for choice in (Choice("dense", DENSE.tile, planar=True), Choice("torch"), Choice("torch", planar=True)):
        y = convolved(choice, x, weight, bias)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert difference(y, wanted["y"]) < 1e-5
        assert difference(convolved(choice, grad, weight, flip=True), wanted["x"]) < 1e-5
    planar = Choice("correlate", CORRELATE.tile, planar=True)
    for choice in (planar, Choice("torch"), Choice("torch", planar=True)):
        assert difference(paths.gradient_of_weight(choice, grad, x, weight, "ieee"), wanted["weight"]) < 1e-5
    offered = paths.candidates(problem("forward", x, weight), x.device)
    assert any(choice.planar and choice.path != "torch" for choice in offered)
    assert any(not choice.planar and choice.path != "torch" for choice in offered)


def test_alignment_is_what_every_row_and_plane_shares() -> None:
    half = torch.empty(2, 3, 14, 14, dtype=torch.float16)
    assert alignment(half) == 2
    assert alignment(half, flat=True) == 4
    assert alignment(torch.empty(2, 3, 56, 56, dtype=torch.float16)) == 8
    assert alignment(torch.empty(2, 3, 56, 56)) == 4
    assert alignment(torch.empty(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)) == 1
    assert alignment(torch.empty(2, 8, 8, 16)[..., 8:]) == 4
    assert alignment(torch.empty(2, 8, 8, 8), torch.empty(2, 8, 8, 8)[..., :7]) == 1


class TestOperator:
    """Through the operator, as a network calls it."""

    @pytest.fixture(autouse=True)
    def forced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LKSPACE_KERNEL", "gpu")
        small = {"weight gradient": CORRELATE, "forward": TABLE, "input gradient": TABLE}
        if INTERPRETED:  # offered tiles are larger than needed here
            monkeypatch.setattr(tuning, "candidates", lambda problem, device: [small[problem.direction]])

    @pytest.mark.parametrize("dtype", ROUNDING)
    @pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
    def test_all_gradients(self, dtype: torch.dtype, layout: str) -> None:
        x, weight, bias, grad = operands((2, 2, 5, 6, 5, 3), dtype, layout)
        wanted = expected(x, weight, bias, grad)
        leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
        assert backend_for(x, weight) == "gpu"
        with torch.backends.cudnn.flags(allow_tf32=False):
            y = depthwise_conv2d(*leaves)
            results = {"y": y, **dict(zip(("x", "weight", "bias"), torch.autograd.grad(y, leaves, grad), strict=True))}
        for name, result in results.items():
            assert difference(result.detach(), wanted[name]) < ROUNDING[dtype], name
        assert results["x"].stride() == y.stride()

    def test_empty_batch(self) -> None:
        x, weight = torch.randn(0, 4, 5, 5, device=DEVICE, requires_grad=True), values((4, 1, 3, 3)).requires_grad_()
        y = depthwise_conv2d(x, weight)
        into_x, into_weight = torch.autograd.grad(y, (x, weight), torch.randn_like(y))
        assert into_x.shape == x.shape
        assert torch.equal(into_weight, torch.zeros_like(weight))

    def test_compiled_it_is_one_graph_of_the_same_numbers(self) -> None:
        x, weight, bias, _ = operands((1, 2, 4, 5, 3, 3))
        compiled = torch.compile(depthwise_conv2d, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, weight, bias), depthwise_conv2d(x, weight, bias), rtol=0, atol=0)

    def test_autocast(self) -> None:
        x, weight, bias, _ = operands((1, 2, 4, 5, 3, 3))
        with torch.autocast(DEVICE, torch.bfloat16):
            assert depthwise_conv2d(x, weight, bias).dtype == torch.bfloat16


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
class TestDevice:
    """What only a device can show: graphs, streams, no waiting, the offered tiles at real sizes."""

    @staticmethod
    def guess(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """As an untimed call computes it; compiled before the capture, as a network's first call does."""
        first = paths.candidates(problem("forward", x, weight), x.device)[0]
        return paths.convolution(first, x, weight, bias, False, "", "tf32")

    def test_captured_in_a_graph(self) -> None:
        x, weight, bias, _ = operands((4, 8, 14, 14, 27, 27), torch.bfloat16)
        for known in (False, True):  # the first guess, then the timed choice
            tuning.forget()
            if known:
                depthwise_conv2d(x, weight, bias)
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.guess(x, weight, bias)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                y = depthwise_conv2d(x, weight, bias)
            x.copy_(torch.randn_like(x))
            graph.replay()
            wanted = expected(x, weight, bias, x)["y"]
            assert difference(y, wanted) < ROUNDING[torch.bfloat16]

    def test_on_another_stream_without_waiting(self) -> None:
        x, weight, bias, _ = operands((2, 8, 20, 20, 9, 9), torch.float16)
        wanted = depthwise_conv2d(x, weight, bias)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                y = depthwise_conv2d(x, weight, bias)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        assert torch.equal(y, wanted)

    @pytest.mark.parametrize(
        ("dtype", "layout", "tf32"),
        [
            (torch.bfloat16, "contiguous", False),
            (torch.bfloat16, "channels_last", False),
            (torch.float32, "contiguous", False),
            (torch.float32, "contiguous", True),
        ],
    )
    @pytest.mark.parametrize(
        "shape",
        [(3, 16, 64, 64, 31, 31), (65, 8, 14, 14, 27, 27), (9, 8, 7, 7, 13, 13), (2, 8, 33, 65, 5, 5)],
        ids=str,
    )
    def test_offered_choices(self, shape: tuple[int, ...], dtype: torch.dtype, layout: str, tf32: bool) -> None:
        """One of every kind that is offered, because every one is compiled for it."""
        x, weight, bias, grad = operands(shape, dtype, layout)
        wanted = expected(x, weight, bias, grad)
        allowed = 3e-3 if tf32 else ROUNDING[dtype]
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
            posed = problem("forward", x, weight)
            for choice in self.kinds(paths.candidates(posed, x.device)):
                y = paths.convolution(choice, x, weight, bias, False, "", posed.precision)
                assert difference(y, wanted["y"]) < allowed, choice
                into_x = paths.convolution(choice, grad, weight, None, True, "", posed.precision)
                assert difference(into_x, wanted["x"]) < allowed, choice
            for choice in self.kinds(paths.candidates(problem("weight gradient", x, weight), x.device)):
                first, second = (paths.gradient_of_weight(choice, grad, x, weight, posed.precision) for _ in range(2))
                assert difference(first, wanted["weight"]) < allowed, choice
                assert torch.equal(first, second), choice

    @staticmethod
    def kinds(offered: list[Choice]) -> list[Choice]:
        return list({(one.path, one.sizes.get("TABLE"), one.planar): one for one in reversed(offered)}.values())


def of_rows(images: int, h: int, shares: int = 1) -> Choice:
    return mma.by_rows(images, h, shares)


def of_images(tiles: int, rows: int, warps: int, h: int) -> Choice:
    return mma.by_images(warps // -(-h // rows) * tiles * 16, warps, tiles, rows)


MMA = [
    (of_rows(1, 9), (1, 1, 9, 11, 5, 3)),
    (of_rows(2, 16, 2), (3, 2, 16, 16, 31, 31)),
    (of_rows(2, 9), (5, 1, 9, 21, 7, 27)),
    (of_rows(1, 3), (1, 1, 3, 33, 1, 5)),
    (of_rows(4, 7), (3, 1, 7, 7, 13, 13)),
    (of_rows(1, 18, 2), (2, 1, 18, 64, 31, 31)),
    (mma.by_rows(2, 33, 1, 2), (3, 1, 33, 17, 31, 31)),
    (mma.by_rows(2, 56, 1, 4), (2, 1, 56, 9, 13, 5)),
    (of_images(1, 7, 1, 7), (3, 1, 7, 7, 13, 13)),
    (of_images(1, 7, 2, 14), (17, 1, 14, 14, 27, 27)),
    (of_images(2, 8, 4, 16), (20, 1, 16, 16, 31, 31)),
    (of_images(1, 5, 1, 5), (2, 2, 5, 7, 3, 3)),
]


@pytest.mark.skipif(INTERPRETED, reason="CUDA C++; test_gpu_emulated.py runs it on the processor")
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed", "channels_last"])
@pytest.mark.parametrize(("choice", "shape"), MMA, ids=str)
def test_mma(choice: Choice, shape: tuple[int, ...], layout: str, dtype: torch.dtype, flip: bool) -> None:
    x, weight, bias, grad = operands(shape, dtype, layout)
    wanted = expected(x, weight, bias, grad)["x" if flip else "y"]
    found = convolved(
        dataclasses.replace(choice, planar=layout == "channels_last"),
        grad if flip else x,
        weight,
        None if flip else bias,
        flip,
    )
    assert difference(found, wanted) < ROUNDING[dtype]


@pytest.mark.skipif(INTERPRETED, reason="CUDA C++; test_gpu_emulated.py runs it on the processor")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("choice", "shape"), [MMA[1], MMA[-3]], ids=str)
def test_mma_passes_on_what_is_not_finite(choice: Choice, shape: tuple[int, ...], value: float) -> None:
    x, weight, bias, _ = operands(shape, torch.bfloat16)
    weight = weight[:, :, 12:-12, 12:-12].contiguous() if shape[-1] > 25 else weight[:, :, 5:-5, 5:-5].contiguous()
    x[0, 0, 3, 2] = value
    y = convolved(choice, x, weight, bias)
    reach = torch.conv2d(
        x.cpu().double(), weight.cpu().double(), bias.cpu().double(), 1, weight.shape[-1] // 2, 1, x.shape[1]
    )
    assert torch.equal(y.cpu().isfinite(), reach.isfinite())
    assert difference(torch.nan_to_num(y, 0, 0, 0), torch.nan_to_num(reach.to(DEVICE), 0, 0, 0)) < 2**-7


@pytest.mark.skipif(INTERPRETED, reason="CUDA C++; test_gpu_emulated.py runs it on the processor")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "sliced", "channels_last"])
@pytest.mark.parametrize(
    ("choice", "shape"),
    [
        (mma.of_gradient(1, 2, 1, 5), (1, 1, 9, 11, 5, 3)),
        (mma.of_gradient(2, 4, 2, 31), (3, 2, 16, 16, 31, 31)),
        (mma.of_gradient(16, 4, 1, 13), (17, 1, 7, 7, 13, 13)),
        (mma.of_gradient(1, 2, 2, 31), (2, 1, 18, 64, 31, 31)),
    ],
    ids=str,
)
def test_mma_weight_gradient(choice: Choice, shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> None:
    x, weight, bias, grad = operands(shape, dtype, layout)
    wanted = expected(x, weight, bias, grad)["weight"]
    found = [paths.gradient_of_weight(choice, grad, x, weight, precision(x)) for _ in range(2)]
    assert difference(found[0], wanted) < ROUNDING[dtype]
    assert torch.equal(*found)
