from lkspace import nets
from lkspace.registry import scores
from lkspace.scores.score import Setting
from lkspace.space.architecture import Architecture

TINY = Architecture("replknet", (1, 1), (4, 6), (9, 5), (3, None), (True, False))


def test_params_are_counted_on_the_deploy_form():
    score = scores.get("params")
    assert (score.name, score.unit, score.direction, score.cheap) == ("params", "", "minimize", True)
    (measurement,) = score.measure(TINY, Setting(data="digits", size=32, classes=10))
    assert measurement.value == sum(p.numel() for p in nets.build(TINY, 10).deploy().parameters())
    assert measurement.value < nets.params(TINY, 10, form="train")
