"""The proxy training: a short run of the recipe that RepLKNet was trained with, made for minutes on two cores.

AdamW, cosine after a linear warm-up, label smoothing, no weight decay on norms and biases (Ding et al., CVPR 2022,
appendix A), without the heavy augmentation, which only long runs repay. What is judged is the weights' moving average:
while the rate is still high it says better than the weights themselves what they will come to.
`benchmarks/proxy.py` says how well it ranks.
"""

import contextlib
import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lkspace.data.batches import Batches
from lkspace.data.imageset import ImageSet
from lkspace.kernels import native_available
from lkspace.nets import build
from lkspace.nets.family import Network
from lkspace.scores import denormals
from lkspace.scores.quiet import Device
from lkspace.scores.score import Diverged, Measurement, Setting
from lkspace.space.architecture import Architecture

_VECTOR = 8  # floats that a core takes at a time with AVX2
_RECENT = 3  # in the beginning the average looks back over one in so many of the steps so far


@dataclass(frozen=True)
class Recipe:
    """What a proxy training does beside what `Setting` says; the defaults are what `benchmarks/proxy.py` measured.

    warm_up: part of the steps that the rate rises over. clip: largest norm of a step's gradient; without it the huge
    first ones stay in Adam's memory and a short training ends on the plateau it began on.
    zero_residual: whether every residual branch begins as nothing, its last norm's scale 0 (Goyal et al., 2017).
    opening: shift that every norm before a nonlinearity begins with. At 1 most of what comes passes unbent, and a deep
    network without shortcuts begins nearly linear (Balduzzi et al., "The shattered gradients problem", ICML 2017); at
    0 such networks learnt within a short training or did not, by luck of the seed.
    average: horizon of the moving average, in parts of the steps; shorter in the beginning, a third of what is behind.
    evaluation_batch: images at a time: on a CPU they take less than a training step, for which measurements wait.
    glance, glance_least: before its end a training is judged by one in so many of the validation images, the same ones
    each time, but by no fewer than the least: enough to see which training is far behind, and the time goes into the
    end, which is what ranks.
    """

    weight_decay: float = 0.05
    warm_up: float = 0.15
    label_smoothing: float = 0.1
    clip: float = 1.0
    zero_residual: bool = True
    opening: float = 1.0
    average: float = 0.06
    evaluation_batch: int = 125
    glance: int = 8
    glance_least: int = 500


class ProxyTraining:
    """One training of an architecture from scratch: `epochs()` runs it, `learnt` is what it has come to so far.

    learnt: the network with the moving average of weights and of batch statistics. network: the one that is trained.
    layout: the memory format of both.

    Weights, order of images and augmentation derive from setting.seed: the same seed gives the same result on one
    thread. On a GPU it computes in bfloat16; the weights stay float32. One object is one run.
    """

    def __init__(
        self, architecture: Architecture, setting: Setting, images: ImageSet, recipe: Recipe | None = None
    ) -> None:
        self.setting = setting
        self.recipe = recipe or Recipe()
        self.device = torch.device(setting.device)
        self.classes = len(images.class_names)
        self.quiet = Device(setting.device)
        with self.quiet.step(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            network = build(architecture, classes=self.classes)
        if self.recipe.zero_residual:
            for norm in cast(Network, network).residual_norms():
                nn.init.zeros_(norm.weight)
        for norm in cast(Network, network).activated_norms():
            nn.init.constant_(norm.bias, self.recipe.opening)
        self.layout = _layout(architecture, self.device)
        self.network = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.learnt: nn.Module = copy.deepcopy(self.network)
        self._averages, self._newest = _followed(self.learnt), _followed(self.network)
        self.train = Batches(
            images.train,
            setting.batch,
            setting.seed,
            self.device,
            augment=True,
            flip=images.flip,
            shift=images.shift,
            count=images.epoch_images,
        )
        self.val, self.glance = (
            Batches(images.val, self.recipe.evaluation_batch, setting.seed, self.device, augment=False, count=count)
            for count in (len(images.val), self._glanced_at(len(images.val)))
        )
        self.steps = setting.epochs * len(self.train)
        self.optimizer = torch.optim.AdamW(
            _decayed_apart(network, self.recipe.weight_decay), lr=setting.rate, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self._behind = 0  # epochs
        self._seconds = 0.0

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on from here, between two epochs: tensors, numbers and text."""
        parts = {"network": self.network, "learnt": self.learnt, "optimizer": self.optimizer}
        stored: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        return {**stored, "steps": self.schedule.last_epoch, "epoch": self._behind, "seconds": self._seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a training of the same architecture and setting was when `state` was taken, to the bit.

        Raises KeyError, ValueError or RuntimeError if the state is of another one.
        """
        self.network.load_state_dict(state["network"])
        self.learnt.load_state_dict(state["learnt"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = int(state["steps"])
        self._behind, self._seconds = int(state["epoch"]), float(state["seconds"])

    def epochs(self) -> Iterator[Measurement]:
        """A measurement after each epoch that is left: value is the accuracy on the validation images, in [0, 1].

        The last one is of all of them, the others of every so many (`Recipe.glance`).
        details: epoch, epochs, loss (validation, cross entropy), train_loss, seconds (of training, since its start),
        images (that accuracy and loss are of).
        Raises Diverged, saying where, if a loss is not finite.
        """
        start = time.perf_counter() - self._seconds
        with _arithmetic(self.setting):
            for epoch in range(self._behind + 1, self.setting.epochs + 1):
                train_loss = self._train_epoch(epoch)
                images = self.val if epoch == self.setting.epochs else self.glance
                accuracy, loss = self._evaluate(images)
                if not math.isfinite(loss):
                    raise Diverged(f"validation loss is {loss} at epoch {epoch}")
                self._behind, self._seconds = epoch, time.perf_counter() - start
                details = {
                    "epoch": epoch,
                    "epochs": self.setting.epochs,
                    "loss": loss,
                    "train_loss": train_loss,
                    "seconds": self._seconds,
                    "images": images.count,
                }
                yield Measurement(accuracy, details)

    def _train_epoch(self, epoch: int) -> float:
        self.network.train()
        losses = []
        batches = self.train.epoch(epoch)
        for step in range(1, len(self.train) + 1):
            with self.quiet.step():
                x, y = next(batches)
                loss = self._step(x, y)
                losses.append(loss)
                if self.device.type == "cpu" and not math.isfinite(loss.item()):
                    raise Diverged(f"loss is {loss.item()} at epoch {epoch}, step {step}")
                if self.device.type == "cuda":  # or the step would go on after its lock was given up
                    torch.cuda.synchronize(self.device)
        return torch.stack(losses).mean().item()

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(self._logits(self.network, x), y, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        self._follow()
        return loss.detach()

    @torch.no_grad()
    def _evaluate(self, images: Batches) -> tuple[float, float]:
        """(accuracy, cross entropy) of what has been learnt.

        By the form that is shipped: it is the same function and takes less time.
        """
        with self.quiet.step():
            network = copy.deepcopy(self.learnt.eval())
            cast(Network, network).deploy(fold_batch_norms=True)
            network.to(memory_format=self.layout)  # type: ignore[call-overload]
        right = loss = 0.0
        batches = images.epoch(0)
        for _ in range(len(images)):
            with self.quiet.step():
                x, y = next(batches)
                logits = self._logits(network, x)
                right += (logits.argmax(1) == y).sum().item()
                loss += F.cross_entropy(logits, y, reduction="sum").item()
        return right / images.count, loss / images.count

    def _glanced_at(self, images: int) -> int:
        return min(images, max(images // self.recipe.glance, self.recipe.glance_least))

    def _logits(self, network: nn.Module, x: Tensor) -> Tensor:
        """float32, whatever it is computed in."""
        with self._autocast():
            logits: Tensor = network(x.contiguous(memory_format=self.layout))
        return logits.float()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averages towards the newest values. torch's own AveragedModel takes ten times as long for it."""
        behind = self.schedule.last_epoch  # steps
        part = max(1 / max(1, self.recipe.average * self.steps), _RECENT / (behind + _RECENT - 1))
        torch._foreach_lerp_(self._averages, self._newest, part)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.device.type == "cpu":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _rate(self, step: int) -> float:
        """Factor on the peak rate: linear up, then half a cosine down to nothing."""
        rise = max(1, round(self.recipe.warm_up * self.steps))
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))


def _layout(architecture: Architecture, device: torch.device) -> torch.memory_format:
    """The faster one: channels_last, unless torch computes batch norms, a vector of a pixel's channels at a time."""
    few = device.type == "cpu" and min(architecture.channels) < _VECTOR
    return torch.contiguous_format if few and not native_available() else torch.channels_last


def _followed(network: nn.Module) -> list[Tensor]:
    """What is averaged: weights and batch statistics, not the counts of batches, which nothing reads."""
    return [t.detach() for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]


@contextlib.contextmanager
def _arithmetic(setting: Setting) -> Iterator[None]:
    if setting.device == "cpu" and torch.get_num_threads() != setting.threads:
        torch.set_num_threads(setting.threads)
    with denormals.flushed():  # without, one training crawled at a tenth of its speed
        yield


def _decayed_apart(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weights of convolutions and linear layers decay; norms and biases, all vectors, do not."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
