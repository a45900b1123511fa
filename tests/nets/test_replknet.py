import copy
import re

import pytest
import torch
from torch import nn

from lkspace import nets
from lkspace.errors import UserError
from lkspace.nets.replknet import ConvFFN, RepLKBlock, RepLKNet
from lkspace.space.architecture import Architecture

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
UNIFORM = Architecture(
    "replknet", (1, 1, 2, 1), (8, 16, 24, 32), (31, 29, 27, 13), (5, 5, 5, 5), (True,) * 4, dw_ratio=1.5
)
MIXED = Architecture(
    "replknet", (2, 1, 1), (8, 12, 16), (9, 3, 15), (3, None, 7), (True, False, True), 1.0, 2.0, stem_stride=2
)


def close(got, want):
    error = (got.double() - want.double()).abs().max()
    return error <= TOLERANCE[want.dtype] * want.double().abs().max()


def keys_by_grammar(a, form):
    """State-dict keys of the authors' release, written down from their grammar, in no order."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def bn(prefix):
        return [f"{prefix}.{name}" for name in norm]

    def conv(prefix):
        return [f"{prefix}.conv.weight", *bn(f"{prefix}.bn")]

    keys = [key for i in range(4) for key in conv(f"stem.{i}")]
    for s, blocks in enumerate(a.blocks):
        for j in range(blocks):
            block, ffn = f"stages.{s}.blocks.{2 * j}", f"stages.{s}.blocks.{2 * j + 1}"
            keys += bn(f"{block}.prelkb_bn") + conv(f"{block}.pw1") + conv(f"{block}.pw2")
            if form == "train":
                keys += conv(f"{block}.large_kernel.lkb_origin")
                keys += conv(f"{block}.large_kernel.small_conv") if a.reparam[s] else []
            else:
                keys += [f"{block}.large_kernel.lkb_reparam.{name}" for name in ("weight", "bias")]
            keys += bn(f"{ffn}.preffn_bn") + conv(f"{ffn}.pw1") + conv(f"{ffn}.pw2")
    keys += [key for s in range(a.stages - 1) for i in (0, 1) for key in conv(f"transitions.{s}.{i}")]
    return {*keys, *bn("norm"), "head.weight", "head.bias"}


@pytest.mark.parametrize("architecture", [UNIFORM, MIXED])
def test_state_dict_names_are_the_authors(architecture):
    network = nets.build(architecture, classes=7)
    assert set(network.state_dict()) == keys_by_grammar(architecture, "train")
    assert set(network.deploy().state_dict()) == keys_by_grammar(architecture, "deploy")
    folded = set(network.deploy(fold_batch_norms=True).state_dict())
    assert not [key for key in folded if re.search(r"bn|norm", key)]
    assert all(key.endswith((".weight", ".bias")) for key in folded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("architecture", [UNIFORM, MIXED])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (3, 24, 16), (1, 1, 1)])
def test_all_forms_are_the_same_function(awkward, dtype, architecture, batch, height, width):
    torch.manual_seed(0)
    network = awkward(nets.build(architecture, classes=7, drop_path=0.2).to(dtype))
    x = torch.randn(batch, 3, height, width, dtype=dtype)
    with torch.no_grad():
        want, maps = network(x), network.features(x)
        assert want.std() > 0.01 or batch == 1
        merged = copy.deepcopy(network).deploy()
        folded = copy.deepcopy(merged).deploy(fold_batch_norms=True)
        at_once = copy.deepcopy(network).deploy(fold_batch_norms=True)
        for form in (merged, folded, at_once):
            assert close(form(x), want)
            assert all(close(got, map_) for got, map_ in zip(form.features(x), maps, strict=True))


@pytest.mark.parametrize("block", [RepLKBlock(6, 9, 11, 5, True, 0.0), ConvFFN(6, 24, 0.0)])
def test_a_folded_block_is_the_same_function(awkward, block):
    block = awkward(block.double())
    x = torch.randn(2, 6, 9, 5, dtype=torch.float64)
    with torch.no_grad():
        want = block(x)
        if isinstance(block, RepLKBlock):
            block.large_kernel.merge()
        block.fold()
        assert close(block(x), want)
    assert not [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("fold", [False, True])
def test_deploying_twice_changes_nothing(awkward, fold):
    network = awkward(nets.build(MIXED, classes=3)).deploy(fold)
    before = copy.deepcopy(network.state_dict())
    assert network.deploy(fold) is network
    after = network.deploy().state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_deploying_draws_no_random_number_and_keeps_the_mode():
    network = nets.build(MIXED, classes=3)
    state = torch.get_rng_state()
    assert network.deploy(fold_batch_norms=True).training
    assert torch.equal(torch.get_rng_state(), state)


def test_feature_maps_shrink_as_the_architecture_says():
    for stride in (1, 2, 4):
        a = Architecture("replknet", (1, 1), (4, 6), (5, 3), (3, None), (True, True), stem_stride=stride)
        maps = nets.build(a, classes=2).eval().features(torch.zeros(1, 3, 37, 22))
        sides = zip(a.map_sizes(37), a.map_sizes(22), strict=True)
        assert [tuple(m.shape) for m in maps] == [(1, c, *hw) for c, hw in zip((4, 6), sides, strict=True)]


def test_a_stem_of_stride_2_halves_at_once_so_that_all_of_it_runs_on_the_small_map():
    sides = {}
    for stride in (1, 2, 4):
        x = torch.zeros(1, 3, 16, 16)
        for layer in nets.build(Architecture("replknet", (1,), (4,), (3,), (None,), (True,), stem_stride=stride)).stem:
            x = layer(x)
            sides.setdefault(stride, []).append(x.shape[-1])
    assert sides == {1: [16, 16, 16, 16], 2: [8, 8, 8, 8], 4: [8, 8, 8, 4]}


def test_shortcut_belongs_to_the_replk_block_only(awkward):
    """With both branches' last convolution at zero, a block without shortcut gives zero, the ConvFFN its input."""
    network = awkward(nets.build(MIXED, classes=2))
    x = torch.randn(1, 12, 5, 5)
    block, ffn = network.stages[1].blocks
    for layers in (block.pw2, ffn.pw2):
        nn.init.zeros_(layers.conv.weight)
        nn.init.zeros_(layers.bn.running_mean)
        nn.init.zeros_(layers.bn.bias)
    assert torch.equal(block(x), torch.zeros_like(x))
    assert torch.equal(ffn(x), x)


@pytest.mark.parametrize("architecture", [UNIFORM, MIXED])
def test_activated_norms_move_what_the_nonlinearities_take(architecture):
    """Shifted by 100, no value of any ReLU's or GELU's input is below zero; there is one norm for each of them."""
    network = nets.build(architecture, classes=3)
    nonlinear = [module for module in network.modules() if isinstance(module, nn.ReLU | nn.GELU)]
    norms = list(network.activated_norms())
    assert len(set(norms)) == len(norms) == len(nonlinear)
    lowest = []
    for module in nonlinear:
        module.register_forward_pre_hook(lambda module, args: lowest.append(args[0].min().item()))
    x = torch.randn(2, 3, 64, 64)
    network(x)
    assert max(lowest) < 0
    lowest.clear()
    for norm in norms:
        nn.init.constant_(norm.bias, 100.0)
    network(x)
    assert len(lowest) == len(nonlinear)
    assert min(lowest) > 0


def test_drop_path_grows_linearly_and_never_drops_a_block_without_shortcut():
    blocks = [b for stage in nets.build(MIXED, drop_path=0.3).stages for b in stage.blocks]
    rates = [b.drop_path.rate for b in blocks]
    assert rates[1::2] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates[0::2] == pytest.approx([0.0, 0.1, 0.0, 0.3])


def test_same_seed_same_network():
    torch.manual_seed(5)
    one = nets.build(MIXED).state_dict()
    torch.manual_seed(5)
    two = nets.build(MIXED).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_can_be_built_and_deployed_without_values(awkward):
    """On the meta device: then `load_state_dict(assign=True)` gives them."""
    network = awkward(nets.build(MIXED, classes=3)).deploy()
    with torch.device("meta"):
        empty = nets.build(MIXED, classes=3, drop_path=0.1).deploy()
    empty.load_state_dict(network.state_dict(), assign=True)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(empty.eval()(x), network(x))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_compiles_as_one_graph(mode):
    small = Architecture("replknet", (1,), (4,), (5,), (3,), (True,))
    network = getattr(nets.build(small, classes=3, drop_path=0.1), mode)()
    network.stages[0].blocks[0].drop_path.rate = 0.1  # the first block has none
    x = torch.randn(2, 3, 16, 16)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.manual_seed(6)
    got = compiled(x)
    torch.manual_seed(6)
    torch.testing.assert_close(got, network(x))


def test_trains_in_channels_last_and_bfloat16():
    network = nets.build(MIXED, classes=3, drop_path=0.1).to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 16, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("form", ["train", "deploy", "folded"])
def test_can_be_exported_as_a_graph(awkward, form):
    network = awkward(nets.build(MIXED, classes=3))
    if form != "train":
        network.deploy(fold_batch_norms=form == "folded")
    x = torch.randn(2, 3, 16, 16)
    graph = torch.export.export(network, (x,))
    assert close(graph.module()(x), network(x).detach())


def test_a_ratio_that_leaves_no_channel_is_the_callers_mistake():
    a = Architecture("replknet", (1,), (4,), (3,), (None,), (True,), dw_ratio=0.2)
    with pytest.raises(UserError, match=r"dw_ratio 0\.2 leaves no channel of 4 in stage 1"):
        nets.build(a)
    with pytest.raises(UserError, match="dw_ratio"):
        nets.params(a)


def test_classes_decide_the_head():
    assert RepLKNet(MIXED, classes=5)(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
