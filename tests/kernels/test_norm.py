import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lkspace.kernels import batch_norm, library
from lkspace.kernels.backends import VARIABLE
from lkspace.kernels.torch_backend import activated
from lkspace.nets.layers import BatchNorm2d

pytestmark = pytest.mark.usefixtures("native")

MOMENTUM, EPS = 0.1, 1e-5
ACTIVATIONS = ("", "relu", "gelu")
SHAPES = [
    *((8, 1, 1, 1), (1, 1, 3, 5), (3, 5, 7, 7), (2, 7, 9, 4), (1, 3, 1, 70), (37, 130, 1, 1)),  # few, or odd
    *((4, 6, 16, 16), (8, 16, 8, 8), (5, 33, 6, 6), (2, 1024, 4, 4)),
    *((32, 12, 16, 16), (2, 64, 40, 40), (2, 67, 31, 33)),  # several pieces
    (20, 4099, 1, 1),  # none that is whole
]


@pytest.fixture(params=library.ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if not library.load().lkspace_has(library.ISAS.index(request.param)):  # type: ignore[union-attr]
        pytest.skip(f"{request.param} is not on this machine")
    monkeypatch.setenv(library.ISA_VARIABLE, request.param)
    return str(request.param)


def arguments(shape: tuple[int, ...], offset: float = 0.0) -> list[Tensor]:
    """x, weight, bias, running mean, running variance."""
    channels = shape[1]
    x = (torch.randn(shape) * torch.rand(channels, 1, 1).add(0.1) + offset).contiguous(
        memory_format=torch.channels_last
    )
    vectors = torch.randn(channels), torch.randn(channels), torch.randn(channels), torch.rand(channels)
    return [x, *vectors]


def results(tensors: list[Tensor], grad: Tensor, activation: str, by: str = "ours") -> dict[str, Tensor]:
    """Result, gradients and moved statistics; by torch if `by` is "torch"."""
    x, weight, bias, mean, variance = (t.clone() for t in tensors)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    if by == "torch":
        y = activated(F.batch_norm(x, mean, variance, weight, bias, True, MOMENTUM, EPS), activation)
    else:
        y = batch_norm(x, weight, bias, mean, variance, MOMENTUM, EPS, activation)
        assert "_BatchNorm" in str(y.grad_fn)
    names = ("x", "weight", "bias")
    gradients = dict(zip(names, torch.autograd.grad(y, leaves, grad), strict=True))
    return {"y": y.detach(), **gradients, "mean": mean, "variance": variance}


def off(found: dict[str, Tensor], tensors: list[Tensor], grad: Tensor, activation: str) -> dict[str, float]:
    """Largest difference from float64, in parts of the largest value of each, or of what sums of both signs add up."""
    exact = results([t.double() for t in tensors], grad.double(), activation, by="torch")
    size = {name: want.abs().max().item() for name, want in exact.items()}
    size["weight"] = size["bias"] = grad.abs().sum((0, 2, 3)).max().item()
    return {name: (found[name] - want).abs().max().item() / max(size[name], 1e-30) for name, want in exact.items()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_float64_says_the_same(isa: str, shape: tuple[int, ...], activation: str) -> None:
    torch.manual_seed(0)
    tensors = arguments(shape)
    grad = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    found = results(tensors, grad, activation)
    assert max(off(found, tensors, grad, activation).values()) < 1e-5
    assert found["y"].stride() == tensors[0].stride()


@settings(max_examples=60, deadline=None, derandomize=True)  # a ReLU's input may be zero but for its rounding
@given(
    n=st.integers(1, 6),
    c=st.integers(1, 70),
    h=st.integers(1, 20),
    w=st.integers(8, 20),  # of two values a channel float32 cannot say the variance's gradient
    activation=st.sampled_from(ACTIVATIONS),
    seed=st.integers(0, 1000),
)
def test_any_shape(n: int, c: int, h: int, w: int, activation: str, seed: int) -> None:
    torch.manual_seed(seed)
    tensors, grad = arguments((n, c, h, w)), torch.randn(n, c, h, w)
    assert max(off(results(tensors, grad, activation), tensors, grad, activation).values()) < 2e-5


def test_a_mean_far_from_nothing_costs_few_digits(isa: str) -> None:
    """The variance is not the difference of two large numbers."""
    torch.manual_seed(1)
    tensors = arguments((16, 24, 16, 16), offset=1000.0)
    grad = torch.randn(16, 24, 16, 16)
    ours = off(results(tensors, grad, ""), tensors, grad, "")
    torchs = off(results(tensors, grad, "", by="torch"), tensors, grad, "")
    assert ours["variance"] < 5e-6
    assert max(ours.values()) <= max(torchs.values())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_threads_do_not_change_the_bits(isa: str, activation: str) -> None:
    tensors, grad = arguments((16, 48, 32, 32)), torch.randn(16, 48, 32, 32)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(results(tensors, grad, activation))
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_not_finite_stays_within_its_channel(isa: str, activation: str) -> None:
    tensors = arguments((2, 6, 8, 8))
    tensors[0][1, 2, 3, 3] = torch.nan
    tensors[0][1, 4, 3, 3] = torch.inf
    found = results(tensors, torch.randn(2, 6, 8, 8), activation)
    for name in ("y", "x"):
        spoilt = ~found[name].isfinite().all(dim=(0, 2, 3))
        assert spoilt.tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_can_be_differentiated(activation: str) -> None:
    torch.manual_seed(2)
    tensors, grad = arguments((3, 5, 6, 6)), torch.randn(3, 5, 6, 6)

    def second(tensors: list[Tensor], ours: bool) -> tuple[Tensor, ...]:
        x, weight, bias, mean, variance = tensors
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        statistics = mean.clone(), variance.clone()
        if ours:
            y = batch_norm(*leaves, *statistics, MOMENTUM, EPS, activation)
        else:
            y = activated(F.batch_norm(leaves[0], *statistics, *leaves[1:], True, MOMENTUM, EPS), activation)
        first = torch.autograd.grad(y, leaves, grad.to(y.dtype), create_graph=True)
        return torch.autograd.grad(sum(f.pow(2).sum() for f in first), leaves, allow_unused=True)

    found, exact = second(tensors, True), second([t.double() for t in tensors], False)
    for got, want in zip(found, exact, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


def test_what_the_library_does_not_take_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(x: Tensor, **changed: Tensor) -> str:
        vectors = {name: torch.ones(4) for name in ("weight", "bias", "running_mean", "running_var")} | changed
        y = batch_norm(x.requires_grad_(), **vectors, momentum=MOMENTUM, eps=EPS)
        return str(y.grad_fn)

    last = torch.randn(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    assert "_BatchNorm" in node(last.clone())
    assert "_BatchNorm" not in node(torch.randn(2, 4, 5, 5))
    assert "_BatchNorm" not in node(last.bfloat16())
    assert "_BatchNorm" not in node(torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)[:, ::2])
    with pytest.raises(RuntimeError):  # as torch says it
        node(torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last))
    monkeypatch.setenv(VARIABLE, "torch")
    assert "_BatchNorm" not in node(last.clone())


def test_one_value_a_channel_has_no_variance() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        results(arguments((1, 4, 1, 1)), torch.randn(1, 4, 1, 1), "")


def test_activation_that_is_none() -> None:
    with pytest.raises(ValueError, match="activation must be one of '', 'relu', 'gelu', got 'silu'"):
        results(arguments((2, 4, 5, 5)), torch.randn(2, 4, 5, 5), "silu")


def test_some_gradients_are_not_wanted() -> None:
    x, weight, bias, mean, variance = arguments((2, 4, 5, 5))
    grad = torch.randn(2, 4, 5, 5)

    def y() -> Tensor:
        return batch_norm(x, weight, bias, mean.clone(), variance.clone(), MOMENTUM, EPS)

    assert not y().requires_grad
    weight.requires_grad_()
    (once,) = torch.autograd.grad(y(), weight, grad)
    (again,) = torch.autograd.grad(y(), weight, grad, create_graph=True)
    torch.testing.assert_close(once, again)


def test_all_of_the_statistics_may_be_the_newest() -> None:
    x, weight, bias, _, _ = arguments((4, 6, 5, 5))
    x *= 1e-4
    mean, variance = torch.full((6,), 1e3), torch.full((6,), 1e3)
    batch_norm(x, weight, bias, mean, variance, 1.0, EPS)
    torch.testing.assert_close(mean, x.mean((0, 2, 3)), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(variance, x.var((0, 2, 3)), rtol=1e-4, atol=0)


def test_transforms_of_functions_are_torchs() -> None:
    x, weight, bias, mean, variance = arguments((2, 4, 5, 5))

    def loss(x: Tensor) -> Tensor:
        return batch_norm(x, weight, bias, mean.clone(), variance.clone(), MOMENTUM, EPS, "relu").pow(2).sum()

    want = torch.autograd.grad(loss(leaf := x.clone().requires_grad_()), leaf)[0]
    torch.testing.assert_close(torch.func.grad(loss)(x), want, rtol=1e-4, atol=1e-4)


def test_compiled_and_exported_programs_hold_torchs_own() -> None:
    norm = BatchNorm2d(4)
    x = torch.randn(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    program = torch.export.export(norm, (x,))
    assert any("batch_norm" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), norm(x))
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), norm(x))


def forward_bytes(tensors: list[Tensor]) -> bytes:
    """Of a result, computed and read by nothing of torch's own that would start threads."""
    with torch.no_grad():
        x, weight, bias, mean, variance = tensors
        return batch_norm(x, weight, bias, mean.clone(), variance.clone(), MOMENTUM, EPS, "gelu").numpy().tobytes()


def in_child(connection: Connection, tensors: list[Tensor]) -> None:
    torch.set_num_threads(2)
    connection.send_bytes(forward_bytes(tensors))


@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_and_threads_get_the_same() -> None:
    tensors, grad = arguments((16, 48, 32, 32)), torch.randn(16, 48, 32, 32)
    torch.set_num_threads(2)
    want, expected = results(tensors, grad, "gelu"), forward_bytes(tensors)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: results(tensors, grad, "gelu"), range(4)))
    assert all(torch.equal(other[name], value) for other in both for name, value in want.items())
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(theirs, tensors))
    child.start()
    there = ours.poll(60)
    if not there:
        child.kill()
    assert there
    assert ours.recv_bytes() == expected
    child.join(60)
