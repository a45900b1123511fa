"""The cost arithmetic against three oracles: the published figures, the built network, and fvcore."""

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from lkspace import nets
from lkspace.errors import UserError
from lkspace.kernels import native_available
from lkspace.nets import Cost
from lkspace.scores.flops import counted_flops
from lkspace.space.architecture import Architecture

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "replknet.json").read_text())["models"]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_models_to_the_last_digit(name):
    published, architecture = PUBLISHED[name], nets.reference(name)
    for field in ("blocks", "channels", "kernels"):
        assert list(getattr(architecture, field)) == published["architecture"][field]
    assert set(architecture.reparam) == {published["architecture"]["reparam"]}
    assert architecture.dw_ratio == published["architecture"]["dw_ratio"]
    for form, params in published["params"].items():
        assert nets.params(architecture, form=form) == params
    for form, sizes in published["macs"].items():
        for size, macs in sizes.items():
            assert nets.flops(architecture, int(size), form=form) == macs


def test_unknown_reference_lists_the_known_ones():
    with pytest.raises(UserError, match=r"replknet-31x.*replknet-3, .*replknet-31b.*replknet-xl"):
        nets.reference("replknet-31x")


@st.composite
def architectures(draw):
    stages = draw(st.integers(1, 3))

    def per_stage(values):
        return tuple(draw(values) for _ in range(stages))

    return Architecture(
        family="replknet",
        blocks=per_stage(st.integers(1, 2)),
        channels=per_stage(st.integers(2, 9)),
        kernels=per_stage(st.sampled_from([1, 3, 5, 9, 15])),
        reparam=per_stage(st.sampled_from([None, 3, 5, 7])),
        shortcut=per_stage(st.booleans()),
        dw_ratio=draw(st.sampled_from([0.5, 1.0, 1.3, 1.5, 2.0])),
        ffn_ratio=draw(st.sampled_from([0.7, 1.0, 2.5, 4.0])),
        stem_stride=draw(st.sampled_from([1, 2, 4])),
    )


@given(architectures(), st.tuples(st.integers(1, 20), st.integers(1, 20)), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_arithmetic_equals_fvcore_and_the_built_network(architecture, size, classes):
    network = nets.build(architecture, classes)
    for form in ("train", "deploy", "folded"):
        if form != "train":
            network.deploy(fold_batch_norms=form == "folded")
        assert nets.params(architecture, classes, form) == sum(p.numel() for p in network.parameters())
        assert nets.flops(architecture, size, classes, form) == counted_flops(network, size)


def bytes_kept(architecture, size, classes, batch):
    """What autograd keeps of a step, each storage once, parameters left out."""
    kept = {}
    network = nets.build(architecture, classes).train().to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long)

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(network(images), labels)
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)


@pytest.mark.skipif(not native_available(), reason="torch's own batch norm keeps more")
@given(architectures(), st.integers(1, 40), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_activations_are_what_autograd_keeps_of_one_image(architecture, size, classes):
    two, three = (bytes_kept(architecture, size, classes, batch) for batch in (2, 3))
    label = 8  # an int64
    assert three - two == 4 * nets.activations(architecture, size, classes) + label


def test_parts_are_state_dict_prefixes_and_count_their_own_parameters():
    architecture = Architecture(
        "replknet", (1, 2), (4, 6), (9, 7), (3, None), (True, False), dw_ratio=1.5, ffn_ratio=2.0
    )
    network = nets.build(architecture, classes=3)
    sums: dict[str, int] = {}
    for cost in nets.costs(architecture, 32, 3, "train"):
        sums[cost.part] = sums.get(cost.part, 0) + cost.params
    for part, params in sums.items():
        assert params == sum(p.numel() for p in network.get_submodule(part).parameters()), part


def test_what_a_stage_is_made_of():
    """By hand: C = 2, dw_ratio 1.5, ffn_ratio 2, K = 5 with 3, 8 x 4 image, stem stride 4, so a map of 2 x 1."""
    a = Architecture("replknet", (2,), (2,), (5,), (3,), (True,), dw_ratio=1.5, ffn_ratio=2.0)
    stage = [cost for cost in nets.costs(a, (8, 4), 3, "train") if cost.part == "stages.0"]
    assert stage == [
        Cost("stages.0", "norm", 2 * (4 + 4), 0),
        Cost("stages.0", "pointwise", 2 * (6 + 6 + 6 + 4), 2 * 2 * 12),
        Cost("stages.0", "large kernel", 2 * (3 * 25 + 6), 2 * 2 * 75),
        Cost("stages.0", "re-param kernel", 2 * (3 * 9 + 6), 2 * 2 * 27),
        Cost("stages.0", "ffn", 2 * (8 + 8 + 8 + 4), 2 * 2 * 16),
    ]
