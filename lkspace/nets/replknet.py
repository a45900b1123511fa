"""RepLKNet as published: Ding et al., "Scaling Up Your Kernels to 31x31", CVPR 2022, section 4.1 and figure 4.

State-dict names, order of construction (so that a seed gives the same initial weights) and merged form are those
of the authors' release. Beyond it: re-param kernel and shortcut per stage, stem stride 2 or 1, folded norms.
"""

import functools
import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lkspace.errors import UserError
from lkspace.nets.family import Cost, Form, Part
from lkspace.nets.layers import (
    BatchNorm2d,
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
from lkspace.registry import families
from lkspace.space.architecture import Architecture

# Strides of the stem's four convolutions by its total stride. For small images the last one gives up its stride
# first, so that the whole stem runs at the resolution that the first stage sees.
_STEM_STRIDES = {4: (2, 1, 1, 2), 2: (2, 1, 1, 1), 1: (1, 1, 1, 1)}


class RepLKBlock(nn.Module):
    """Batch norm, 1x1 up to `hidden`, large kernel, ReLU, 1x1 down; plus the input if there is a shortcut.

    Without a shortcut there is no drop path either: it would wipe out the sample.
    """

    def __init__(
        self, channels: int, hidden: int, kernel: int, reparam: int | None, shortcut: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.pw1 = conv_bn(PointwiseConv2d(channels, hidden), nn.ReLU())
        self.pw2 = conv_bn(PointwiseConv2d(hidden, channels))
        self.large_kernel = LargeKernel(hidden, kernel, reparam)
        self.lk_nonlinear = nn.ReLU()
        self.prelkb_bn: nn.Module = BatchNorm2d(channels)
        self.drop_path = DropPath(drop_path if shortcut else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, C, h, w) -> the same shape."""
        out: Tensor = self.drop_path(self.pw2(self.large_kernel(self.pw1(self.prelkb_bn(x)), self.lk_nonlinear)))
        return x + out if self.shortcut else out

    def fold(self) -> None:
        """Fold all batch norms but the large kernel's, which merging takes away. Idempotent."""
        fold_batch_norm(self.pw1)
        fold_batch_norm(self.pw2)
        self.prelkb_bn = fold_norm_before(self.prelkb_bn, self.pw1.conv)  # type: ignore[arg-type]

    @staticmethod
    def costs(
        channels: int, hidden: int, kernel: int, reparam: int | None, pixels: int, form: Form
    ) -> Iterator[tuple[str, int, int]]:
        """(kind, params, macs) of each part."""
        if form != "folded":
            yield "norm", 2 * channels, 0
        yield "pointwise", *convolution_cost(channels, hidden, 1, pixels, form)
        yield from large_kernel_costs(hidden, kernel, reparam, pixels, form)
        yield "pointwise", *convolution_cost(hidden, channels, 1, pixels, form)

    @staticmethod
    def activations(channels: int, hidden: int, reparam: int | None) -> int:
        """Numbers that a training step keeps of one pixel, the block's output among them."""
        # What each norm, convolution and ReLU needs for its gradients: inputs of the first two, outputs of the last.
        return 3 * channels + (4 if reparam is None else 5) * hidden


class ConvFFN(nn.Module):
    """Batch norm, 1x1 up to `hidden`, GELU, 1x1 down, plus the input."""

    def __init__(self, channels: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.preffn_bn: nn.Module = BatchNorm2d(channels)
        self.pw1 = conv_bn(PointwiseConv2d(channels, hidden))
        self.pw2 = conv_bn(PointwiseConv2d(hidden, channels))
        self.nonlinear = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, C, h, w) -> the same shape."""
        out: Tensor = self.drop_path(self.pw2(self.pw1(self.preffn_bn(x), self.nonlinear)))
        return x + out

    def fold(self) -> None:
        """Fold all batch norms. Idempotent."""
        fold_batch_norm(self.pw1)
        fold_batch_norm(self.pw2)
        self.preffn_bn = fold_norm_before(self.preffn_bn, self.pw1.conv)  # type: ignore[arg-type]

    @staticmethod
    def costs(channels: int, hidden: int, pixels: int, form: Form) -> Iterator[tuple[str, int, int]]:
        """(kind, params, macs) of each part."""
        if form != "folded":
            yield "norm", 2 * channels, 0
        yield "ffn", *convolution_cost(channels, hidden, 1, pixels, form)
        yield "ffn", *convolution_cost(hidden, channels, 1, pixels, form)

    @staticmethod
    def activations(channels: int, hidden: int) -> int:
        """Numbers that a training step keeps of one pixel, the block's output among them.

        Where torch computes the norm before the GELU, another `hidden`: what goes into the GELU.
        """
        return 3 * channels + 2 * hidden


class Stage(nn.Module):
    """`blocks` times a RepLK block followed by a ConvFFN, all at one resolution."""

    def __init__(self, architecture: Architecture, stage: int, drop_path: list[float]) -> None:
        super().__init__()
        channels, lk_hidden, ffn_hidden = _widths(architecture, stage)
        kernel, reparam = architecture.kernels[stage], architecture.reparam[stage]
        shortcut = architecture.shortcut[stage]
        self.blocks = nn.ModuleList()
        for rate in drop_path:
            self.blocks.append(RepLKBlock(channels, lk_hidden, kernel, reparam, shortcut, rate))
            self.blocks.append(ConvFFN(channels, ffn_hidden, rate))

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, C, h, w) -> the same shape."""
        for block in self.blocks:
            x = block(x)
        return x

    @staticmethod
    def costs(architecture: Architecture, stage: int, pixels: int, form: Form) -> Iterator[Cost]:
        """One Cost per kind, for all blocks of the stage together."""
        widths, n = _widths(architecture, stage), architecture.blocks[stage]
        for kind, params, macs in _block_costs(
            *widths, architecture.kernels[stage], architecture.reparam[stage], pixels, form
        ):
            yield Cost(f"stages.{stage}", kind, n * params, n * macs)

    @staticmethod
    def activations(architecture: Architecture, stage: int) -> int:
        """Numbers that a training step keeps of one pixel."""
        channels, lk_hidden, ffn_hidden = _widths(architecture, stage)
        block = RepLKBlock.activations(channels, lk_hidden, architecture.reparam[stage])
        return architecture.blocks[stage] * (block + ConvFFN.activations(channels, ffn_hidden))


@families.register("replknet")
class RepLKNet(nn.Module):
    """RepLKNet in train form; `architecture` decides all but the number of classes and the drop path.

    drop_path: rate of the last block; grows linearly from 0 at the first, a RepLK block and its ConvFFN alike.
    """

    references: ClassVar[Mapping[str, Architecture]]

    def __init__(self, architecture: Architecture, *, classes: int = 1000, drop_path: float = 0.0) -> None:
        super().__init__()
        blocks, channels = architecture.blocks, architecture.channels
        self.stem = _stem(channels[0], _STEM_STRIDES[architecture.stem_stride])
        rates = torch.linspace(0, drop_path, sum(blocks), device="cpu").tolist()  # also where the net has no values
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for stage in range(architecture.stages):
            first = sum(blocks[:stage])
            self.stages.append(Stage(architecture, stage, rates[first : first + blocks[stage]]))
            if stage + 1 < architecture.stages:
                self.transitions.append(_transition(channels[stage], channels[stage + 1]))
        self.norm: nn.Module = BatchNorm2d(channels[-1])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels[-1], classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """x: (n, 3, h, w) -> one map (n, C_s, h_s, w_s) per stage, before the final norm."""
        for layer in self.stem:
            x = layer(x)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else self.transitions[index - 1](x))
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, 3, h, w) -> logits (n, classes)."""
        return self.head(self.avgpool(self.norm(self.features(x)[-1])).flatten(1))  # type: ignore[no-any-return]

    def residual_norms(self) -> Iterator[nn.BatchNorm2d]:
        """The last batch norm of every branch that is added to its input, of the network in train form."""
        for module in self.modules():
            if isinstance(module, ConvFFN) or (isinstance(module, RepLKBlock) and module.shortcut):
                yield module.pw2.bn  # type: ignore[misc]

    def activated_norms(self) -> Iterator[nn.BatchNorm2d]:
        """The batch norm before each ReLU and GELU in train form; the large kernel's where two are added."""
        for module in self.modules():
            if isinstance(module, ConvFFN):
                yield module.pw1.bn  # type: ignore[misc]
            elif isinstance(module, LargeKernel) and module.lkb_origin is not None:
                yield module.lkb_origin.bn  # type: ignore[misc]
            elif isinstance(module, nn.Sequential) and hasattr(module, "nonlinear"):
                yield module.bn  # type: ignore[misc]

    def deploy(self, fold_batch_norms: bool = False) -> Self:
        """Merge in place, computed in float64, and return self; a second call changes nothing.

        Re-param kernels and their batch norms go into the large kernels, as the authors merge. With
        `fold_batch_norms` every other batch norm is folded too: into the convolution before it, the pre-norms
        into the 1x1 convolution after them, the last one through the (linear) pooling into the head.
        The merged network computes what this one does in eval mode.
        """
        for module in self.modules():
            if isinstance(module, LargeKernel):
                module.merge()
        if fold_batch_norms:
            for layers in [*self.stem, *(layers for pair in self.transitions for layers in pair)]:  # type: ignore[attr-defined]
                fold_batch_norm(layers)
            for module in self.modules():
                if isinstance(module, RepLKBlock | ConvFFN):
                    module.fold()
            self.norm = fold_norm_before(self.norm, self.head)
        return self

    @staticmethod
    def costs(
        architecture: Architecture, *, size: int | tuple[int, int], classes: int = 1000, form: Form = "deploy"
    ) -> list[Cost]:
        """Parameters and multiply-adds of all parts by arithmetic, for one image of `size` (or (height, width))."""
        sizes = (size, size) if isinstance(size, int) else size
        pixels = [h * w for h, w in zip(*(architecture.map_sizes(side) for side in sizes), strict=True)]
        channels = architecture.channels
        costs = [_stem_cost(channels[0], architecture.stem_stride, sizes, form)]
        for stage in range(architecture.stages):
            costs.extend(Stage.costs(architecture, stage, pixels[stage], form))
            if stage + 1 < architecture.stages:
                costs.append(_transition_cost(stage, channels, pixels, form))
        if form != "folded":
            costs.append(Cost("norm", "norm", 2 * channels[-1], 0))
        costs.append(Cost("head", "head", (channels[-1] + 1) * classes, channels[-1] * classes))
        return costs

    @staticmethod
    def activations(architecture: Architecture, *, size: int, classes: int = 1000) -> int:
        """Numbers that a training step keeps of one image for its gradients, by arithmetic."""
        channels = architecture.channels
        pixels = [side**2 for side in architecture.map_sizes(size)]
        kept = 3 * size**2
        for stride in itertools.accumulate(_STEM_STRIDES[architecture.stem_stride], operator.mul):
            kept += 2 * channels[0] * (-(-size // stride)) ** 2
        for stage in range(architecture.stages):
            kept += pixels[stage] * Stage.activations(architecture, stage)
            if stage + 1 < architecture.stages:
                kept += 2 * channels[stage + 1] * (pixels[stage] + pixels[stage + 1])
        return kept + channels[-1] + classes

    @staticmethod
    def parts(architecture: Architecture, *, size: int, classes: int = 1000) -> list[Part]:
        """Stem, RepLK blocks, ConvFFNs, transitions and head of the folded form, in the order of a pass."""
        channels, sides = architecture.channels, architecture.map_sizes(size)
        parts = [_stem_part(channels[0], architecture.stem_stride, size)]
        for stage, side in enumerate(sides):
            blocks = [_block_part(architecture, stage, side), _ffn_part(architecture, stage, side)]
            parts += architecture.blocks[stage] * blocks
            if stage + 1 < architecture.stages:
                parts.append(_transition_part(channels[stage], channels[stage + 1], side))
        return [*parts, _head_part(channels[-1], sides[-1], classes)]


@functools.lru_cache(maxsize=4096)  # a search asks for thousands of networks made of a few hundred blocks
def _block_costs(
    channels: int, lk_hidden: int, ffn_hidden: int, kernel: int, reparam: int | None, pixels: int, form: Form
) -> list[tuple[str, int, int]]:
    """(kind, params, macs) of a RepLK block and its ConvFFN, one of each kind."""
    kinds: dict[str, tuple[int, int]] = {}
    for costs in (
        RepLKBlock.costs(channels, lk_hidden, kernel, reparam, pixels, form),
        ConvFFN.costs(channels, ffn_hidden, pixels, form),
    ):
        for kind, params, macs in costs:
            before = kinds.get(kind, (0, 0))
            kinds[kind] = before[0] + params, before[1] + macs
    return [(kind, params, macs) for kind, (params, macs) in kinds.items()]


def _widths(architecture: Architecture, stage: int) -> tuple[int, int, int]:
    """Channels of the stage, of its RepLK blocks' inside and of its ConvFFNs' inside; rounded down as released."""
    channels = architecture.channels[stage]
    inside = {name: int(channels * getattr(architecture, name)) for name in ("dw_ratio", "ffn_ratio")}
    for name, width in inside.items():
        if width < 1:
            raise UserError(
                f"architecture: {name} {getattr(architecture, name):g} leaves no channel of {channels}"
                f" in stage {stage + 1}; make one of them larger"
            )
    return channels, inside["dw_ratio"], inside["ffn_ratio"]


def _depthwise_3x3(channels: int, stride: int) -> nn.Conv2d:
    """By the operator where it can (stride 1), by torch otherwise."""
    if stride == 1:
        return DepthwiseConv2d(channels, 3)
    return nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)


def _stem(channels: int, strides: tuple[int, int, int, int]) -> nn.ModuleList:
    return nn.ModuleList(
        [
            conv_bn(nn.Conv2d(3, channels, 3, stride=strides[0], padding=1, bias=False), nn.ReLU()),
            conv_bn(_depthwise_3x3(channels, strides[1]), nn.ReLU()),
            conv_bn(nn.Conv2d(channels, channels, 1, stride=strides[2], bias=False), nn.ReLU()),
            conv_bn(_depthwise_3x3(channels, strides[3]), nn.ReLU()),
        ]
    )


def _stem_cost(channels: int, stem_stride: int, sizes: tuple[int, int], form: Form) -> Cost:
    height, width = sizes
    params = macs = 0
    shapes = ((3, 3, 1), (channels, 3, channels), (channels, 1, 1), (channels, 3, channels))
    for (inputs, kernel, groups), stride in zip(shapes, _STEM_STRIDES[stem_stride], strict=True):
        height, width = -(-height // stride), -(-width // stride)
        more = convolution_cost(inputs, channels, kernel, height * width, form, groups)
        params, macs = params + more[0], macs + more[1]
    return Cost("stem", "stem", params, macs)


def _transition(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 to the next stage's channels, then a depthwise 3x3 that halves the map."""
    return nn.Sequential(
        conv_bn(PointwiseConv2d(inputs, outputs), nn.ReLU()),
        conv_bn(_depthwise_3x3(outputs, 2), nn.ReLU()),
    )


def _transition_cost(stage: int, channels: tuple[int, ...], pixels: list[int], form: Form) -> Cost:
    inputs, outputs = channels[stage : stage + 2]
    widen = convolution_cost(inputs, outputs, 1, pixels[stage], form)
    halve = convolution_cost(outputs, outputs, 3, pixels[stage + 1], form, groups=outputs)
    return Cost(f"transitions.{stage}", "transition", widen[0] + halve[0], widen[1] + halve[1])


def _stem_part(channels: int, stem_stride: int, size: int) -> Part:
    def build() -> nn.Module:
        return _folded(_stem(channels, _STEM_STRIDES[stem_stride]))

    return Part(f"replknet stem /{stem_stride} to {channels} at {size}", (3, size, size), build)


def _block_part(architecture: Architecture, stage: int, side: int) -> Part:
    channels, hidden, _ = _widths(architecture, stage)
    kernel, shortcut = architecture.kernels[stage], architecture.shortcut[stage]

    def build() -> nn.Module:
        block = RepLKBlock(channels, hidden, kernel, None, shortcut, 0.0)
        block.large_kernel.merge()
        block.fold()
        return block.eval()

    added = "" if shortcut else " without shortcut"
    key = f"replknet block {channels} by {hidden} K={kernel} at {side}{added}"
    return Part(key, (channels, side, side), build)


def _ffn_part(architecture: Architecture, stage: int, side: int) -> Part:
    channels, _, hidden = _widths(architecture, stage)

    def build() -> nn.Module:
        ffn = ConvFFN(channels, hidden, 0.0)
        ffn.fold()
        return ffn.eval()

    return Part(f"replknet ffn {channels} by {hidden} at {side}", (channels, side, side), build)


def _transition_part(inputs: int, outputs: int, side: int) -> Part:
    def build() -> nn.Module:
        return _folded(_transition(inputs, outputs))

    return Part(f"replknet transition {inputs} to {outputs} at {side}", (inputs, side, side), build)


def _head_part(channels: int, side: int, classes: int) -> Part:
    def build() -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, classes)).eval()

    return Part(f"replknet head {channels} to {classes} at {side}", (channels, side, side), build)


def _folded(layers: nn.ModuleList | nn.Sequential) -> nn.Sequential:
    """Convolutions with their norms, as one part of the folded form."""
    for layer in layers:
        fold_batch_norm(layer)  # type: ignore[arg-type]
    return nn.Sequential(*layers).eval()


def _published(
    channels: tuple[int, ...], kernels: tuple[int, ...], reparam: int | None, dw_ratio: float = 1.0
) -> Architecture:
    return Architecture(
        family="replknet",
        blocks=(2, 2, 18, 2),
        channels=channels,
        kernels=kernels,
        reparam=(reparam,) * 4,
        shortcut=(True,) * 4,
        dw_ratio=dw_ratio,
    )


# Section 4.1 (31B, 31L, XL) and table 5 (the others, at 31B's widths); the 3x3 one has no room for a 5x5 branch.
_BASE = (128, 256, 512, 1024)
RepLKNet.references = {
    "replknet-3": _published(_BASE, (3, 3, 3, 3), None),
    "replknet-7": _published(_BASE, (7, 7, 7, 7), 5),
    "replknet-13": _published(_BASE, (13, 13, 13, 13), 5),
    "replknet-25": _published(_BASE, (25, 25, 25, 13), 5),
    "replknet-31b": _published(_BASE, (31, 29, 27, 13), 5),
    "replknet-31l": _published((192, 384, 768, 1536), (31, 29, 27, 13), 5),
    "replknet-xl": _published((256, 512, 1024, 2048), (27, 27, 27, 13), None, dw_ratio=1.5),
}
