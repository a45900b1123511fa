import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lkspace.nets.layers import (
    DepthwiseConv2d,
    DropPath,
    LargeKernel,
    PointwiseConv2d,
    conv_bn,
    convolution_cost,
    fold_batch_norm,
    fold_norm_before,
    large_kernel_costs,
)

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def close(got, want):
    """Relative to the largest value: sums over many products have no smaller error."""
    error = (got.double() - want.double()).abs().max()
    return error <= TOLERANCE[want.dtype] * want.double().abs().max()


def test_depthwise_convolution_is_torchs():
    torch.manual_seed(0)
    layer = DepthwiseConv2d(4, 7, bias=True)
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 7, padding=3, groups=4)
    x = torch.randn(2, 4, 9, 5)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)
    assert close(layer(x), plain(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kernel", "reparam"), [(1, None), (3, None), (7, 3), (13, 5), (31, 7), (5, 1)])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 8, 8), (3, 6, 11), (1, 1, 1)])
def test_merged_large_kernel_is_the_same_function(awkward, dtype, kernel, reparam, batch, height, width):
    torch.manual_seed(1)
    block = awkward(LargeKernel(6, kernel, reparam).to(dtype))
    x = torch.randn(batch, 6, height, width, dtype=dtype)
    with torch.no_grad():
        want = block(x)
        block.merge()
        assert set(block.state_dict()) == {"lkb_reparam.weight", "lkb_reparam.bias"}
        assert close(block(x), want)
        # Oracle that shares nothing with the module: torch's own convolution with the merged numbers.
        weight, bias = block.lkb_reparam.weight, block.lkb_reparam.bias
        assert close(F.conv2d(x, weight, bias, padding=kernel // 2, groups=6), want)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_kernel_with_its_activation(awkward, layout):
    torch.manual_seed(1)
    block = awkward(LargeKernel(6, 9, 5)).requires_grad_(False)
    x = torch.randn(2, 6, 8, 11).contiguous(memory_format=layout)
    want = torch.relu(block(x))
    assert close(block(x, torch.nn.ReLU()), want)
    block.merge()
    assert close(block(x, torch.nn.ReLU()), want)


def test_merging_twice_changes_nothing(awkward):
    block = awkward(LargeKernel(4, 9, 5))
    block.merge()
    before = copy.deepcopy(block.state_dict())
    block.merge()
    assert all(torch.equal(before[key], value) for key, value in block.state_dict().items())


def test_merge_is_computed_in_float64(awkward):
    block = awkward(LargeKernel(4, 9, 5))
    exact = copy.deepcopy(block).double()
    exact.merge()
    block.merge()
    assert torch.equal(block.lkb_reparam.weight, exact.lkb_reparam.weight.float())
    assert torch.equal(block.lkb_reparam.bias, exact.lkb_reparam.bias.float())


def test_merge_keeps_dtype_layout_and_gradient_setting(awkward):
    block = awkward(LargeKernel(4, 9, 5)).to(torch.bfloat16).to(memory_format=torch.channels_last)
    block.lkb_origin.conv.weight.requires_grad_(False)
    block.merge()
    assert block.lkb_reparam.weight.dtype == block.lkb_reparam.bias.dtype == torch.bfloat16
    assert not block.lkb_reparam.weight.requires_grad
    assert block(torch.randn(1, 4, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(4, 6, 5, 7), (1, 6, 1, 1), (2, 6, 40, 40), (0, 6, 5, 5)])  # few pixels, and many
def test_pointwise_convolution_is_torchs(shape, layout):
    torch.manual_seed(6)
    layer = PointwiseConv2d(6, 9)
    torch.manual_seed(6)
    plain = nn.Conv2d(6, 9, 1, bias=False)
    assert torch.equal(layer.weight, plain.weight)
    found = []
    for module in (layer, plain):
        x = torch.linspace(-1, 1, math.prod(shape)).view(shape).contiguous(memory_format=layout).requires_grad_()
        y = module(x)
        assert y.is_contiguous(memory_format=layout) or layout == torch.contiguous_format or not y.numel()
        found.append([y, *torch.autograd.grad(y.pow(2).sum(), (x, module.weight))])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.GELU(), nn.SiLU()])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_conv_bn_trains_as_its_layers_one_by_one(activation, layout):
    torch.manual_seed(5)
    layers = conv_bn(nn.Conv2d(3, 6, 3, bias=False), activation)
    plain = nn.Sequential(copy.deepcopy(layers.conv), nn.BatchNorm2d(6), activation or nn.Identity())
    behind = conv_bn(copy.deepcopy(layers.conv))
    x = torch.randn(4, 3, 9, 7).contiguous(memory_format=layout)
    for _ in range(2):
        want = plain(x)
        assert close(layers(x), want)
        assert close(behind(x, activation), want)
    for name, value in plain[1].state_dict().items():
        for norm in (layers.bn, behind.bn):
            torch.testing.assert_close(norm.state_dict()[name], value)


def test_batch_norms_that_were_made_into_others_are_used():
    layers = conv_bn(nn.Conv2d(3, 6, 1, bias=False), nn.ReLU())
    layers.bn = nn.GroupNorm(2, 6)
    assert type(layers(torch.randn(2, 3, 4, 4)).grad_fn).__name__ == "ReluBackward0"
    layers = conv_bn(nn.Conv2d(3, 6, 1, bias=False), nn.GELU(approximate="tanh"))
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert close(layers(x), F.gelu(layers.bn(layers.conv(x)), approximate="tanh"))
    seen = []
    layers = conv_bn(nn.Conv2d(3, 6, 1, bias=False), nn.ReLU())
    layers.nonlinear.register_forward_hook(lambda module, args, out: seen.append(args[0].min()))
    layers(x)
    assert seen[0] < 0
    layers = conv_bn(nn.Conv2d(3, 6, 1, bias=False))
    layers.bn.momentum = None  # a plain mean over all batches, which only torch knows
    for scale in (1.0, 3.0):
        layers(scale * torch.ones(2, 3, 4, 4))
    assert layers.bn.num_batches_tracked == 2
    assert close(layers.bn.running_mean, 2.0 * layers.conv.weight.detach().sum((1, 2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_conv_bn(awkward, dtype):
    torch.manual_seed(2)
    layers = awkward(conv_bn(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.ReLU()).to(dtype))
    x = torch.randn(2, 3, 9, 7, dtype=dtype)
    with torch.no_grad():
        want = layers(x)
        for _ in range(2):
            fold_batch_norm(layers)
            assert set(layers.state_dict()) == {"conv.weight", "conv.bias"}
            assert close(layers(x), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_a_norm_into_what_follows(awkward, dtype):
    torch.manual_seed(3)
    norm, conv = awkward(nn.BatchNorm2d(5).to(dtype)), nn.Conv2d(5, 7, 1).to(dtype)
    x = torch.randn(2, 5, 4, 6, dtype=dtype)
    with torch.no_grad():
        want = conv(norm(x))
        norm = fold_norm_before(norm, conv)
        assert close(conv(norm(x)), want)
        assert fold_norm_before(norm, conv) is norm
        assert close(conv(norm(x)), want)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(4)
    layer = DropPath(0.25)
    x = torch.ones(4000, 2, 3, 3)
    out = layer(x)
    per_sample = out.flatten(1)
    assert ((per_sample == 0).all(1) | torch.isclose(per_sample, torch.tensor(4 / 3)).all(1)).all()
    assert out.mean() == pytest.approx(1.0, abs=0.03)
    assert layer.eval()(x) is x
    assert DropPath(0.0)(x) is x


@pytest.mark.parametrize("form", ["train", "deploy", "folded"])
def test_costs_are_those_of_the_layers(form):
    layers = conv_bn(nn.Conv2d(6, 9, 3, bias=False))
    large = LargeKernel(6, 9, 3)
    if form != "train":
        large.merge()
    if form == "folded":
        fold_batch_norm(layers)
    params, macs = convolution_cost(6, 9, 3, 20, form)
    assert params == sum(p.numel() for p in layers.parameters())
    assert macs == 6 * 9 * 3 * 3 * 20
    costs = large_kernel_costs(6, 9, 3, 20, form)
    assert sum(params for _, params, _ in costs) == sum(p.numel() for p in large.parameters())
    assert [kind for kind, _, _ in costs] == ["large kernel", "re-param kernel"][: 2 if form == "train" else 1]
    assert sum(macs for _, _, macs in costs) == 6 * 20 * (81 + 9 * (form == "train"))
