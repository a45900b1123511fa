"""The parts that a latency table adds up are those of the built network: same function, same numbers."""

import pytest
import torch

from lkspace import nets
from lkspace.space.architecture import Architecture

ARCHITECTURE = Architecture("replknet", (2, 1), (4, 6), (9, 3), (3, None), (True, False), 1.5, 2.0, stem_stride=2)


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
def test_parts_one_after_the_other_are_the_folded_network(stem_stride):
    architecture = Architecture(**{**ARCHITECTURE.to_dict(), "stem_stride": stem_stride})
    torch.manual_seed(0)
    network = nets.build(architecture, classes=5).deploy(fold_batch_norms=True).eval()
    first, second = network.stages
    modules = [network.stem, *first.blocks, network.transitions[0], *second.blocks, network.head]
    chain = torch.nn.Sequential(*(part.build() for part in nets.parts(architecture, 17, 5)))
    for own, module in zip(chain, modules, strict=True):
        values = module.state_dict().values()
        own.load_state_dict(dict(zip(own.state_dict(), values, strict=True)))
    x = torch.randn(2, 3, 17, 17)
    with torch.no_grad():
        assert torch.equal(chain(x), network(x))


def test_each_part_takes_what_the_one_before_gives():
    x = torch.zeros(1, 3, 20, 20)
    for part in nets.parts(ARCHITECTURE, 20, 5):
        assert tuple(x.shape[1:]) == part.shape
        x = part.build()(x)
    assert x.shape == (1, 5)


def test_a_key_says_all_that_decides_a_part():
    parts = nets.parts(ARCHITECTURE, 20, 5)
    assert len(parts) == 1 + 2 * 3 + 1 + 1
    assert parts[1] == parts[3]
    assert parts[1].key == "replknet block 4 by 6 K=9 at 10"
    assert [p.key for p in parts[-3:-1]] == [
        "replknet block 6 by 9 K=3 at 5 without shortcut",
        "replknet ffn 6 by 12 at 5",
    ]
    wider = Architecture(**{**ARCHITECTURE.to_dict(), "ffn_ratio": 3.0})
    assert {p.key for p in nets.parts(wider, 20, 5)} ^ {p.key for p in parts} == {
        f"replknet ffn {c} by {h} at {s}" for c, h, s in ((4, 8, 10), (4, 12, 10), (6, 12, 5), (6, 18, 5))
    }
