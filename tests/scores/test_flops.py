import pytest
import torch
from torch import nn

from lkspace import nets
from lkspace.registry import scores
from lkspace.scores.flops import counted_flops
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture

TINY = Architecture("replknet", (1, 1), (4, 6), (9, 5), (3, None), (True, False))
SETTING = Setting(data="digits", size=32, classes=10)


def test_flops_are_counted_on_the_deploy_form():
    score = scores.get("flops")
    assert (score.name, score.unit, score.direction, score.cheap) == ("flops", "", "minimize", True)
    (measurement,) = score.measure(TINY, SETTING)
    assert measurement.value == nets.flops(TINY, 32, 10) < nets.flops(TINY, 32, 10, form="train")


def test_an_arithmetic_that_is_wrong_is_a_bug_and_says_both_numbers(monkeypatch):
    right = nets.flops(TINY, 32, 10)
    monkeypatch.setattr(nets, "flops", lambda *_: 7)
    with pytest.raises(RuntimeError, match=f"7 by arithmetic, {right} by fvcore"):
        list(scores.get("flops").measure(TINY, SETTING))


def test_count_of_a_network_known_by_hand():
    """fvcore's batch norm and pooling do not count; strides, groups and biases are as they should be."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 5, padding=2, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 7),
    )
    assert counted_flops(network, (8, 6)) == (3 * 4 * 9 + 4 * 25) * (4 * 3) + 4 * 7


def test_counting_is_silent_and_leaves_the_network_as_it_was(caplog, recwarn):
    network = nets.build(TINY, 10)
    network.stages.eval()
    modes = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    counted_flops(network, 32)
    assert not caplog.records
    assert not recwarn.list
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
