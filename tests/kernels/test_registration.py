"""The operator as the rest of torch sees it: autograd, opcheck, compile, export, autocast, FLOP counters."""

import shutil
from typing import Any, ClassVar

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lkspace.kernels import OPERATOR, depthwise_conv2d, flop_handle

from .conftest import difference, force, ways

FORWARD = torch.ops.lkspace.depthwise_conv2d.default
BACKWARD = torch.ops.lkspace.depthwise_conv2d_backward.default


class Layer(nn.Module):
    """A network of one operator."""

    def __init__(self, activation: str = "") -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(6, 1, 5, 3))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.bias, self.activation)


SHAPES = ((2, 3, 4, 5), (3, 1, 5, 3), (3,))
FEW = ((1, 2, 3, 4), (2, 1, 5, 3), (2,))  # for what is evaluated once for each number


def leaves(
    dtype: torch.dtype = torch.float32, shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return x, weight, bias


def test_gradients_and_their_gradients() -> None:
    x, weight, bias = leaves(torch.float64, FEW)
    assert torch.autograd.gradcheck(depthwise_conv2d, (x, weight, bias))
    assert torch.autograd.gradcheck(depthwise_conv2d, (x, weight))
    assert torch.autograd.gradcheck(lambda x: depthwise_conv2d(x, weight.detach()), (x,))
    assert torch.autograd.gradgradcheck(depthwise_conv2d, (x, weight, bias))
    for activation in ("relu", "gelu"):  # of the operator itself: as a composite it is torch's
        assert torch.autograd.gradcheck(lambda *given, a=activation: FORWARD(*given, a), (x, weight, bias))
    assert torch.autograd.gradgradcheck(lambda *given: FORWARD(*given, "gelu"), (x, weight, bias))
    assert torch.autograd.gradgradcheck(lambda w: depthwise_conv2d(x.detach(), w), (weight,))


def test_a_second_derivative_costs_only_what_is_asked_for() -> None:
    class Calls(TorchDispatchMode):
        names: ClassVar[list[str]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(str(func))
            return func(*args, **(kwargs or {}))

    x, weight, _ = leaves()
    into_x, _ = torch.autograd.grad(depthwise_conv2d(x, weight).sum(), (x, weight), create_graph=True)
    with Calls() as calls:
        torch.autograd.grad((into_x**2).sum(), weight)
    ours = [name for name in calls.names if "depthwise" in name]
    assert ours == ["lkspace.depthwise_conv2d.default", "lkspace.depthwise_conv2d_backward.default"]


def test_double_backward_in_every_way() -> None:
    """A gradient penalty: the derivative, with respect to the weights, of the squared input gradient."""
    x, weight, _ = leaves()

    def penalty(x: Tensor, weight: Tensor) -> Tensor:
        y = depthwise_conv2d(x, weight)
        (into_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(into_x.square().sum(), weight)[0]

    expected = penalty(x.detach().double().requires_grad_(), weight.detach().double().requires_grad_())
    for way in ways():
        with pytest.MonkeyPatch.context() as patch:
            force(patch, way)
            assert difference(penalty(x, weight), expected) < 1e-5, way


@pytest.mark.parametrize(
    ("dtype", "channels_last"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.float64, False), (torch.float32, True)],
)
def test_opcheck(dtype: torch.dtype, channels_last: bool) -> None:
    x, weight, bias = leaves(dtype)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn_like(x)
    torch.library.opcheck(FORWARD, (x, weight, bias))
    torch.library.opcheck(FORWARD, (x, weight))
    torch.library.opcheck(FORWARD, (x, weight, bias, "relu"))
    torch.library.opcheck(FORWARD, (x, weight, None, "gelu"))
    torch.library.opcheck(BACKWARD, (grad, x, weight, [True, True, True]))
    torch.library.opcheck(BACKWARD, (grad, x, weight, [False, True, False]))


def test_compile_gives_one_graph_and_the_same_numbers(way: str) -> None:
    torch.manual_seed(0)
    layer, x = Layer(), torch.randn(2, 6, 9, 7)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=0)
    layer(x).square().sum().backward()
    expected = layer.weight.grad
    layer.weight.grad = None
    compiled(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0, atol=0)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile makes C++ here, which no compiler is there for")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_torchs_own_compiler_takes_it(layout: torch.memory_format) -> None:
    """Which plans strides of its own around an operator that it cannot look into."""
    torch.manual_seed(0)
    layer, x = Layer(), torch.randn(2, 6, 9, 7).contiguous(memory_format=layout)
    results = []
    for function in (layer, torch.compile(layer, fullgraph=True)):
        leaf = x.detach().requires_grad_()
        y = function(2 * leaf + 1).relu()
        results.append([y, *torch.autograd.grad(y.square().sum(), [leaf, layer.weight])])
    for compiled, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(compiled, expected)
        assert compiled.stride() == expected.stride()


def test_without_gradients_the_activation_is_in_the_operator() -> None:
    torch.manual_seed(0)
    layer, x = Layer(activation="relu").requires_grad_(False), torch.randn(2, 6, 9, 7)
    program = torch.export.export(layer, (x,))
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets == [FORWARD]
    torch.testing.assert_close(program.module()(x), torch.relu(Layer.forward(layer, x)), rtol=0, atol=0)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=0)


def test_export_keeps_the_operator_and_any_batch() -> None:
    torch.manual_seed(0)
    layer = Layer()
    program = torch.export.export(
        layer, (torch.randn(2, 6, 9, 7),), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},)
    )
    assert [node.target for node in program.graph.nodes].count(FORWARD) == 1
    x = torch.randn(5, 6, 9, 7)
    torch.testing.assert_close(program.module()(x), layer(x), rtol=0, atol=0)


def test_autocast_casts_as_for_torchs_convolutions(way: str) -> None:
    torch.manual_seed(0)
    layer, x = Layer(), torch.randn(2, 6, 9, 7)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.1)


def test_autocast_leaves_float64_alone() -> None:
    x, weight, _ = leaves(torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise_conv2d(x, weight).dtype == torch.float64


def test_flop_counters() -> None:
    layer, x = Layer(), torch.randn(2, 6, 9, 7)
    multiply_adds = 2 * 6 * 9 * 7 * 5 * 3
    assert FlopCountAnalysis(layer, x).set_op_handle(OPERATOR, flop_handle).total() == multiply_adds
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 2 * 2 * multiply_adds  # forward and weight gradient; x needs none
