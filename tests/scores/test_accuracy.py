import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from lkspace.data.imageset import ImageSet, Split
from lkspace.errors import RunError, UserError
from lkspace.registry import scores
from lkspace.scores import denormals
from lkspace.scores import training as training_module
from lkspace.scores.accuracy import training
from lkspace.scores.score import Diverged, NoImages, Setting
from lkspace.scores.training import ProxyTraining, Recipe
from lkspace.space.architecture import Architecture

SIDE = 16
TINY = Architecture("replknet", (1, 1), (8, 12), (5, 3), (3, None), (True, True), 1.0, 2.0, 2)
SETTING = Setting("stripes", SIDE, 2, epochs=3, batch=16, rate=6e-3)


def stripes(count, seed):
    """Upright or lying stripes: two classes that any convolution tells apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    wave = 127 + 100 * np.sin(np.arange(SIDE) * np.pi / 2 + rng.uniform(0, 6, (count, 1)))
    images = np.where(labels[:, None, None] == 0, wave[:, None, :], wave[:, :, None])[..., None]
    return Split((images + rng.normal(0, 10, (count, SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def images():
    return ImageSet("stripes", "key", SIDE, ("upright", "lying"), stripes(192, 0), stripes(50, 1), False, False)


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setenv("LKSPACE_LOCKS", str(tmp_path))


def run(images, setting=SETTING, **recipe):
    proxy = ProxyTraining(TINY, setting, images, Recipe(**recipe))
    return proxy, list(proxy.epochs())


def test_learns_and_reports_each_epoch(images):
    proxy, measurements = run(images)
    assert [m.details["epoch"] for m in measurements] == [1, 2, 3]
    assert measurements[-1].value > 0.9
    assert measurements[-1].details["train_loss"] < measurements[0].details["train_loss"]
    for measurement in measurements:
        assert 0 <= measurement.value <= 1
        assert measurement.details["seconds"] > 0
        assert measurement.details["epochs"] == 3
    seconds = [m.details["seconds"] for m in measurements]
    assert seconds == sorted(seconds)
    assert proxy.learnt.training is False


def test_value_and_loss_are_those_of_all_validation_images(images):
    """Against a plain pass over the split in float64, batch boundaries elsewhere."""
    proxy, measurements = run(images)
    network = proxy.learnt.double()
    x = torch.from_numpy(np.array(images.val.images)).double().div(255).sub(0.5).div(0.25).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = network(x)
    y = torch.from_numpy(images.val.labels)
    assert measurements[-1].value == pytest.approx((logits.argmax(1) == y).double().mean().item())
    expected = -logits.log_softmax(1)[torch.arange(50), y].mean().item()
    assert measurements[-1].details["loss"] == pytest.approx(expected, rel=1e-4)


def test_before_the_end_a_part_of_the_validation_images_says_how_far_it_is(images):
    """The same part each time, no fewer than the least; more would be the time of a training that may be stopped."""
    few, whole = (run(images, glance=5, glance_least=least)[1] for least in (8, 50))
    assert [m.details["images"] for m in few] == [10, 10, 50]
    assert [m.details["images"] for m in whole] == [50, 50, 50]
    assert [m.details["images"] for m in run(images, glance=10, glance_least=8)[1]] == [8, 8, 50]
    assert all(10 * m.value == pytest.approx(round(10 * m.value)) for m in few[:2])
    assert few[0].details["loss"] != whole[0].details["loss"]
    assert few[-1].details["loss"] == whole[-1].details["loss"]  # looking does not change what is learnt


@pytest.mark.parametrize(("channels", "layout"), [((4, 8), torch.contiguous_format), ((8, 12), torch.channels_last)])
def test_few_channels_are_trained_in_the_other_layout_by_torch_to_the_same_end(images, monkeypatch, channels, layout):
    narrow, found = dataclasses.replace(TINY, channels=channels), []
    for native in (False, True):
        monkeypatch.setattr(training_module, "native_available", lambda native=native: native)
        proxy = ProxyTraining(narrow, dataclasses.replace(SETTING, epochs=1), images)
        assert proxy.layout == (torch.channels_last if native else layout)
        found.append(next(proxy.epochs()).details["loss"])
        assert proxy.network(torch.zeros(2, 3, SIDE, SIDE).contiguous(memory_format=proxy.layout)).isfinite().all()
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_same_seed_same_result_other_seed_another(images):
    results = [run(images, dataclasses.replace(SETTING, seed=seed, epochs=1)) for seed in (5, 5, 6)]
    losses = [measurements[0].details["loss"] for _, measurements in results]
    assert losses[0] == losses[1] != losses[2]
    first, again, other = (proxy.learnt.state_dict() for proxy, _ in results)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_the_global_generator_neither_matters_nor_moves(images):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = run(images, dataclasses.replace(SETTING, epochs=1))[1][0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert run(images, dataclasses.replace(SETTING, epochs=1))[1][0].details["loss"] == one.details["loss"]


def test_loss_that_is_not_finite_ends_it_and_says_where(images):
    proxy = ProxyTraining(TINY, SETTING, images)
    steps = iter(range(100))

    def poisoned(module, inputs):
        if next(steps) == 4:
            return (inputs[0] * math.inf,)
        return None

    proxy.network.register_forward_pre_hook(poisoned)
    with pytest.raises(Diverged, match=r"loss is nan at epoch 1, step 5"):
        list(proxy.epochs())


def test_begins_with_open_nonlinearities_and_residual_branches_of_nothing(images):
    network = ProxyTraining(TINY, SETTING, images, Recipe(opening=0.75)).network
    assert all((norm.bias == 0.75).all() for norm in network.activated_norms())
    assert all((norm.weight == 0).all() for norm in network.residual_norms())
    assert sum((norm.bias == 0.75).all() for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)) == len(
        list(network.activated_norms())
    )


def test_rate_rises_then_falls_to_nothing(images):
    proxy = ProxyTraining(TINY, dataclasses.replace(SETTING, epochs=10), images, Recipe(warm_up=0.2))
    rates = [proxy._rate(step) for step in range(proxy.steps)]
    assert proxy.steps == 120
    assert rates.index(1.0) == 23
    assert rates[:24] == sorted(rates[:24])
    assert rates[24:] == sorted(rates[24:], reverse=True)
    assert rates[0] == pytest.approx(1 / 24)
    assert rates[-1] < 1e-3


def test_what_is_judged_is_the_moving_average_of_weights_and_batch_statistics(images):
    proxy = ProxyTraining(TINY, dataclasses.replace(SETTING, epochs=4), images, Recipe(average=0.25))
    expected, after = {}, 0
    for key, tensor in proxy.network.state_dict().items():
        if tensor.is_floating_point():
            expected[key] = tensor.clone()
    for epoch in range(1, 5):
        batches = proxy.train.epoch(epoch)
        proxy.network.train()
        for _ in range(12):
            proxy._step(*next(batches))
            after += 1
            part = max(1 / 12, 3 / (after + 2))  # the average looks a third back, then a quarter of all 48 steps
            newest = proxy.network.state_dict()
            expected = {key: average + part * (newest[key] - average) for key, average in expected.items()}
    found = proxy.learnt.state_dict()
    assert all(torch.allclose(found[key], expected[key], atol=1e-5) for key in expected)
    assert not all(torch.allclose(found[key], newest[key], atol=1e-3) for key in expected)


def test_a_training_goes_on_from_its_state_to_the_same_bits(images, tmp_path):
    straight, measurements = run(images)
    for epochs in (1, 2):
        begun = ProxyTraining(TINY, SETTING, images)
        reports = begun.epochs()
        first = [next(reports) for _ in range(epochs)]
        torch.save(begun.state(), tmp_path / "state")
        resumed = ProxyTraining(TINY, SETTING, images)
        resumed.restore(torch.load(tmp_path / "state", weights_only=True))
        both = first + list(resumed.epochs())
        assert [m.details["loss"] for m in both] == [m.details["loss"] for m in measurements]
        assert [m.details["epoch"] for m in both] == [1, 2, 3]
        assert both[-1].details["seconds"] > both[0].details["seconds"]
        expected = straight.learnt.state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in resumed.learnt.state_dict().items())


@pytest.mark.parametrize("flushing", [False, True])
def test_the_process_computes_afterwards_as_before(images, flushing):
    torch.set_flush_denormal(flushing)
    try:
        run(images, dataclasses.replace(SETTING, epochs=1))
        assert denormals.are_flushed() is flushing
        left = ProxyTraining(TINY, SETTING, images).epochs()
        next(left)
        left.close()
        assert denormals.are_flushed() is flushing
    finally:
        torch.set_flush_denormal(False)


def test_a_state_of_another_architecture_is_refused(images):
    state = ProxyTraining(dataclasses.replace(TINY, channels=(8, 16)), SETTING, images).state()
    with pytest.raises(RuntimeError, match="size mismatch"):
        ProxyTraining(TINY, SETTING, images).restore(state)


def test_norms_and_biases_do_not_decay(images):
    proxy = ProxyTraining(TINY, SETTING, images)
    decayed, kept = proxy.optimizer.param_groups
    names = {id(p): name for name, p in proxy.network.named_parameters()}
    assert decayed["weight_decay"] > 0 == kept["weight_decay"]
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert all(
        ".bn." in names[id(p)] or "bias" in names[id(p)] or "norm" in names[id(p)] or "bn" in names[id(p)]
        for p in kept["params"]
    )
    assert all(names[id(p)].endswith("weight") and "bn" not in names[id(p)] for p in decayed["params"])


def test_every_step_holds_the_device(images, monkeypatch):
    held = []

    class Watched(training_module.Device):
        def step(self):
            held.append(self.name)
            return super().step()

    monkeypatch.setattr(training_module, "Device", Watched)
    run(images, dataclasses.replace(SETTING, epochs=1))
    assert held == ["cpu"] * (1 + 192 // 16 + 2)  # to build it, the steps, to merge it, one batch of validation


def test_the_score(tmp_path):
    score = scores.get("accuracy")
    assert (score.name, score.unit, score.direction, score.cheap) == ("accuracy", "%", "maximize", False)
    setting = Setting("digits:train=40,val=20", SIDE, 10, epochs=2, batch=20, cache=tmp_path / "cache")
    values = list(score.measure(TINY, setting))
    assert [m.details["epoch"] for m in values] == [1, 2]
    with pytest.raises(UserError, match="10 classes, but 7 are asked for"):
        training(TINY, dataclasses.replace(setting, classes=7))


@pytest.mark.parametrize("error", [RunError("cache: disk full"), UserError("folder: no such folder")])
def test_without_images_the_run_ends_rather_than_one_candidate_after_the_other(monkeypatch, error):
    monkeypatch.setattr("lkspace.scores.accuracy._images", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(NoImages, match=str(error)):
        training(TINY, SETTING)
