"""The operator's values: against a float64 reference, in all directions, for any shape, layout and dtype."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lkspace.kernels import depthwise_conv2d

from .conftest import difference, excess, force, reference, ways

LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "channels_last slice", "expanded")
ODD = st.sampled_from((1, 3, 5, 7, 9, 15))
SIDE = st.sampled_from((1, 2, 3, 4, 5, 7, 8, 10, 11, 16, 17))
CHANNELS = st.sampled_from((1, 2, 4, 5, 8, 9, 12, 16, 17, 24))


def tensor(layout: str, shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Random values of that shape, lying in memory as the layout says."""
    n, c, h, w = shape
    if layout == "channels_last":
        return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return torch.randn(n, c, w, h, dtype=dtype).transpose(2, 3)
    if layout == "sliced":
        return torch.randn(n, c + 1, h + 2, 2 * w, dtype=dtype)[:, 1:, 1:-1, ::2]
    if layout == "channels_last slice":
        whole = torch.randn(n, 2 * c, h, w, dtype=dtype).contiguous(memory_format=torch.channels_last)
        return whole[:, :c]
    if layout == "expanded":
        return torch.randn(1, c, 1, w, dtype=dtype).expand(shape)
    return torch.randn(shape, dtype=dtype)


def exact_only(way: str) -> None:
    """Skips where a sum of one term is more than that term: what is tested is how tensors are read and written."""
    if way.endswith("frequency"):
        pytest.skip("a transform rounds")


def run(x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor) -> dict[str, Tensor]:
    """Result and gradients by the operator, named as in `reference`."""
    leaves = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
    y = depthwise_conv2d(leaves["x"], leaves["weight"], leaves.get("bias"))
    gradients = torch.autograd.grad(y, list(leaves.values()), grad)
    return {"y": y.detach()} | dict(zip(leaves, gradients, strict=True))


@given(
    shape=st.tuples(st.integers(1, 3), CHANNELS, SIDE, SIDE),
    kernel=st.tuples(ODD, ODD),
    layout=st.sampled_from(LAYOUTS),
    grad_layout=st.sampled_from(LAYOUTS),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=80, deadline=None)
def test_every_way_agrees_with_float64(
    shape: tuple[int, int, int, int],
    kernel: tuple[int, int],
    layout: str,
    grad_layout: str,
    with_bias: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    x, grad = tensor(layout, shape), tensor(grad_layout, shape)
    weight = tensor(layout, (shape[1], 1, *kernel))
    bias = torch.randn(shape[1], 2)[:, seed % 2] if with_bias else None
    expected = reference(x, weight, bias, grad)
    terms = reference(x.abs(), weight.abs(), None if bias is None else bias.abs(), grad.abs())
    for way in ways():
        with pytest.MonkeyPatch.context() as patch:
            force(patch, way)
            for name, result in run(x, weight, bias, grad).items():
                assert excess(result, expected[name], terms[name]) < 1, (way, name)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("shape", "kernel"), [((2, 9, 32, 32), (31, 31)), ((1, 17, 40, 56), (31, 21))])
def test_the_largest_kernels_on_the_largest_maps(
    way: str, shape: tuple[int, int, int, int], kernel: tuple[int, int], layout: str
) -> None:
    torch.manual_seed(0)
    x, grad, weight = tensor(layout, shape), tensor(layout, shape), torch.randn(shape[1], 1, *kernel)
    expected = reference(x, weight, None, grad)
    for name, result in run(x, weight, None, grad).items():
        assert difference(result, expected[name]) < 1e-5, name


def test_many_images_and_several_channel_groups(way: str) -> None:
    """More images than are summed in one go, more channels than one vector, more pieces of work than threads."""
    torch.manual_seed(0)
    x, grad = torch.randn(40, 40, 14, 14), torch.randn(40, 40, 14, 14)
    weight, bias = torch.randn(40, 1, 13, 5), torch.randn(40)
    expected = reference(x, weight, bias, grad)
    for name, result in run(x, weight, bias, grad).items():
        assert difference(result, expected[name]) < 1e-5, name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-10)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_half_precision_is_summed_in_float32(way: str, dtype: torch.dtype, tolerance: float, layout: str) -> None:
    """961 terms summed in half precision would be off by far more than one rounding of the result."""
    torch.manual_seed(1)
    shape = (2, 19, 16, 16)
    x, grad = tensor(layout, shape, dtype), tensor(layout, shape, dtype)
    weight, bias = torch.randn(19, 1, 31, 31, dtype=dtype), torch.randn(19, dtype=dtype)
    expected = reference(x, weight, bias, grad)
    for name, result in run(x, weight, bias, grad).items():
        assert result.dtype == dtype
        assert difference(result, expected[name]) < tolerance, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_precision_value_survives(way: str, dtype: torch.dtype) -> None:
    """A 1 x 1 kernel of one copies x: zeros, denormals, infinities and NaN too."""
    exact_only(way)
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).reshape(1, 16, 64, 64)
    y = depthwise_conv2d(x, torch.ones(16, 1, 1, 1, dtype=dtype))
    torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_rounded_to_nearest_even(way: str, dtype: torch.dtype) -> None:
    exact_only(way)
    torch.manual_seed(2)
    x, weight = torch.randn(4, 16, 32, 32, dtype=dtype), torch.randn(16, 1, 1, 1, dtype=dtype)
    scale = torch.tensor([1e-7, 1e-4, 1.0, 3e4]).reshape(4, 1, 1, 1)
    x = (x.float() * scale).to(dtype)
    torch.testing.assert_close(
        depthwise_conv2d(x, weight), (x.float() * weight[:, 0].float()).to(dtype), rtol=0, atol=0
    )


@pytest.mark.parametrize("size", [56, 57])
def test_tiny_weights_keep_their_digits(way: str, size: int) -> None:
    """Also in the last row of an odd map, which has no other to be transformed with."""
    torch.manual_seed(3)
    x, weight = torch.randn(1, 16, size, 33), 1e-14 * torch.randn(16, 1, 31, 31)
    y = depthwise_conv2d(x, weight).double()
    wanted = torch.nn.functional.conv2d(x.double(), weight.double(), padding=15, groups=16)
    assert difference(y[:, :, -1:], wanted[:, :, -1:]) < 1e-5
    assert difference(y, wanted) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kernel", [3, 13])
def test_activation_in_the_epilogue(way: str, kernel: int, layout: str, dtype: torch.dtype, activation: str) -> None:
    """Fused, it is torch's activation of the float64 convolution, and so are its gradients as a composite."""
    torch.manual_seed(4)
    shape = (2, 13, 9, 18)
    x, grad = tensor(layout, shape, dtype), tensor(layout, shape, dtype)
    weight, bias = torch.randn(13, 1, kernel, kernel, dtype=dtype) / kernel, torch.randn(13, dtype=dtype)
    function = torch.relu if activation == "relu" else torch.nn.functional.gelu
    before = reference(x, weight, bias, grad)["y"].requires_grad_()
    after = function(before)
    (into_before,) = torch.autograd.grad(after, before, grad.double())
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    with torch.no_grad():
        fused = depthwise_conv2d(x, weight, bias, activation)
    assert fused.dtype == dtype
    assert difference(fused, after.detach()) < tolerance
    if dtype != torch.float32:
        return
    leaf = weight.clone().requires_grad_()
    (into_weight,) = torch.autograd.grad(depthwise_conv2d(x, leaf, bias, activation), leaf, grad)
    assert difference(into_weight, reference(x, weight, bias, into_before)["weight"]) < tolerance


def test_activations_keep_what_torchs_keep(way: str) -> None:
    """NaN, infinities, zeros and every size of number through a kernel of one.

    Torch's own gelu of a float32 infinity is NaN where its code for AVX-512 runs: left out on its way.
    """
    sizes = torch.logspace(-38, 38, 2000)
    special = torch.tensor([0.0, 1.0 if way == "torch" else torch.inf, -torch.inf, torch.nan])
    x = torch.cat([sizes, -sizes, torch.linspace(-6, 6, 4000), special]).view(1, 4, 1, -1)
    weight = torch.ones(4, 1, 1, 1)
    for activation, function in (("relu", torch.relu), ("gelu", torch.nn.functional.gelu)):
        expected = function(x.double()).float()
        y = depthwise_conv2d(x, weight, activation=activation)
        torch.testing.assert_close(y, expected, rtol=2e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_lies_in_memory_as_x(way: str, layout: str) -> None:
    x = tensor(layout, (2, 8, 5, 6)).requires_grad_()
    weight = torch.randn(8, 1, 3, 3)
    y = depthwise_conv2d(x, weight)
    last = layout.startswith("channels_last")
    assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    (into_x,) = torch.autograd.grad(y, x, torch.randn(2, 8, 5, 6))
    assert into_x.stride() == y.stride()


@pytest.mark.parametrize("kernel", [(3, 3), (31, 31), (1, 13)])
def test_nan_and_infinity_stay_within_the_kernels_reach(way: str, kernel: tuple[int, int]) -> None:
    x = torch.randn(1, 8, 12, 40)
    weight = torch.randn(8, 1, *kernel)
    clean = depthwise_conv2d(x, weight)
    spoiled = x.clone()
    spoiled[0, 3, 6, 20] = float("nan")
    spoiled[0, 5, 6, 20] = float("inf")
    y = depthwise_conv2d(spoiled, weight)
    reached = torch.zeros_like(x, dtype=torch.bool)
    p, q = kernel[0] // 2, kernel[1] // 2
    reached[0, [3, 5], max(0, 6 - p) : 6 + p + 1, max(0, 20 - q) : 20 + q + 1] = True
    assert torch.equal(~y.isfinite(), reached)
    torch.testing.assert_close(y[~reached], clean[~reached], rtol=1e-5, atol=1e-5 * float(clean.abs().max()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_gradients_of_spoiled_planes_are_those_of_the_direct_scheme(
    native: None, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transform would spread one NaN, or one overflow, over a plane and a whole kernel."""
    torch.manual_seed(5)
    x, grad, weight = torch.randn(3, 20, 18, 16), torch.randn(3, 20, 18, 16), torch.randn(20, 1, 9, 9)
    x[1, 3, 4, 5] = grad[2, 11, 0, 0] = value
    if value != 3e38:  # finite: the result is too, and as exact as its largest value allows
        weight[17, 0, 1, 1] = value
    bias = torch.randn(20)
    results = {}
    for scheme in ("direct", "frequency"):
        monkeypatch.setenv("LKSPACE_KERNEL", "native")
        monkeypatch.setenv("LKSPACE_SCHEME", scheme)
        results[scheme] = run(x, weight, bias, grad)
    for name, direct in results["direct"].items():
        finite = direct.isfinite()
        frequency = results["frequency"][name]
        assert torch.equal(frequency.isfinite(), finite), name
        tolerance = 1e-5 * float(direct[finite].abs().max())
        torch.testing.assert_close(frequency[finite], direct[finite], rtol=1e-5, atol=tolerance)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("scheme", ["direct", "frequency"])
def test_an_infinite_weight_beyond_the_map_is_not_met(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The padding is no pixel: infinity times its zero must not appear as NaN."""
    monkeypatch.setenv("LKSPACE_SCHEME", scheme)
    weight = torch.zeros(4, 1, 3, 3)
    weight[:, 0, 0, 0] = float("inf")
    y = depthwise_conv2d(torch.ones(1, 4, 2, 2), weight)
    assert torch.equal(y.isinf(), torch.tensor([[False, False], [False, True]]).expand(1, 4, 2, 2))
    assert not y.isnan().any()


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (2, 4, 0, 5), (2, 0, 5, 5)])
def test_empty_tensors(way: str, shape: tuple[int, int, int, int]) -> None:
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(shape[1], 1, 3, 3, requires_grad=True)
    y = depthwise_conv2d(x, weight)
    assert y.shape == x.shape
    into_x, into_weight = torch.autograd.grad(y, (x, weight), torch.randn(shape))
    assert into_x.shape == x.shape
    assert torch.equal(into_weight, torch.zeros_like(weight))


@pytest.mark.parametrize(
    ("x", "weight", "bias", "words"),
    [
        (torch.ones(4, 5, 5), torch.ones(4, 1, 3, 3), None, r"x must be \(N, C, H, W\), got 3 dimensions"),
        (torch.ones(1, 4, 5, 5), torch.ones(4, 1, 4, 3), None, "weight must have an odd kernel, got 4 x 3"),
        (torch.ones(1, 4, 5, 5), torch.ones(3, 1, 3, 3), None, r"weight must be \(C, 1, Kh, Kw\) with C = 4"),
        (torch.ones(1, 4, 5, 5), torch.ones(4, 4, 3, 3), None, r"weight must be .* got \(4, 4, 3, 3\)"),
        (torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), torch.ones(3), r"bias must be \(C,\) with C = 4"),
        (torch.ones(1, 4, 5, 5).int(), torch.ones(4, 1, 3, 3).int(), None, "x must be a float32, .* got torch.int32"),
        (torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3).half(), None, "weight must be torch.float32 as x"),
        (torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), torch.ones(4).double(), "bias must be torch.float32"),
        (torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3, device="meta"), None, "weight must be on cpu as x, got meta"),
    ],
)
def test_wrong_calls_name_the_argument(x: Tensor, weight: Tensor, bias: Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        depthwise_conv2d(x, weight, bias)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation must be one of '', 'relu', 'gelu', got 'silu'"):
        depthwise_conv2d(torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), activation="silu")


def test_gradient_of_another_shape_is_refused() -> None:
    x, weight = torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3)
    with pytest.raises(ValueError, match=r"grad must be \(1, 4, 5, 5\) as x"):
        torch.ops.lkspace.depthwise_conv2d_backward(torch.ones(1, 4, 5, 4), x, weight, [True, True, True])
