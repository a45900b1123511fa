"""The layers that families share: convolution with batch norm, large kernel with re-param kernel, drop path.

Beside them stands what they cost and how their batch norms are folded. Re-parameterisation as in RepLKNet
(Ding et al., CVPR 2022, section 3, guideline 3; appendix A), names as in the authors' release.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lkspace.kernels import batch_norm, depthwise_conv2d
from lkspace.nets.family import Form

_FEW_PIXELS = 2048  # of a batch; what it brings: benchmarks/training_step.py

# Learned numbers per output channel beside a convolution's weights: scale and shift of its batch norm, or a bias.
BESIDE_WEIGHTS: dict[Form, int] = {"train": 2, "deploy": 2, "folded": 1}


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with an odd square kernel, stride 1 and same padding, by the project's operator.

    An `nn.Conv2d` in everything else: weight (C, 1, K, K), optional bias (C,), initial values.
    """

    def __init__(self, channels: int, kernel: int, bias: bool = False) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)

    def forward(self, input: Tensor, activation: str = "") -> Tensor:
        """input: (n, C, h, w) -> the same shape and memory format. activation: as of `depthwise_conv2d`."""
        return depthwise_conv2d(input, self.weight, self.bias, activation)


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution without bias. In training few pixels on a CPU are a matrix to multiply, which is sooner begun."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """input: (n, C, h, w) -> (n, C', h, w)."""
        n, channels, h, w = input.shape
        few = input.device.type == "cpu" and n * h * w <= _FEW_PIXELS
        if not self.training or not few or self.bias is not None or torch.compiler.is_compiling():
            return super().forward(input)
        pixels = input.permute(0, 2, 3, 1).reshape(n * h * w, channels)
        return (pixels @ self.weight.flatten(1).t()).view(n, h, w, self.out_channels).permute(0, 3, 1, 2)


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, in training by `lkspace.kernels.batch_norm`, which takes the activation behind it along."""

    def forward(self, input: Tensor, nonlinear: nn.Module | None = None) -> Tensor:
        """input: (n, C, h, w) -> the same shape, after `nonlinear` if given."""
        activation = _named(nonlinear)
        usual = self.affine and self.track_running_stats and self.momentum is not None and self.bias is not None
        if not self.training or not usual or activation is None:
            out: Tensor = super().forward(input)
            return out if nonlinear is None else nonlinear(out)
        self._check_input_dim(input)
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        mean, variance, momentum = self.running_mean, self.running_var, self.momentum
        return batch_norm(input, self.weight, self.bias, mean, variance, momentum, self.eps, activation)  # type: ignore[arg-type]


def _named(nonlinear: nn.Module | None) -> str | None:
    """As `batch_norm` calls it; None if it does not know it, or somebody wants to see what goes through the module."""
    if nonlinear is None:
        return ""
    if nonlinear._forward_hooks or nonlinear._forward_pre_hooks or nonlinear._backward_hooks:
        return None
    if type(nonlinear) is nn.ReLU:
        return "relu"
    return "gelu" if type(nonlinear) is nn.GELU and nonlinear.approximate == "none" else None


class ConvBn(nn.Sequential):
    """`conv`, `bn` and, if given, `nonlinear`, under these names; see `conv_bn`."""

    def forward(self, input: Tensor, nonlinear: nn.Module | None = None) -> Tensor:
        """input: (n, C, h, w) -> (n, C', h', w'), after `nonlinear` if given and there is none of its own."""
        own = getattr(self, "nonlinear", None)
        if self.training and isinstance(getattr(self, "bn", None), BatchNorm2d):
            return self.bn(self.conv(input), own or nonlinear)  # type: ignore[operator, no-any-return]
        out: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return out if nonlinear is None or own is not None else nonlinear(out)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): in training, zeroes a sample with `rate`, scales up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, ...) -> the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        """The rate, for `print(network)`."""
        return f"rate={self.rate:.3f}"


class LargeKernel(nn.Module):
    """Depthwise K x K convolution and, while it trains, a parallel small one; each with its batch norm.

    Train form: `lkb_origin` and, if `reparam` is given, `small_conv`. Merged: `lkb_reparam` in their place.
    """

    def __init__(self, channels: int, kernel: int, reparam: int | None) -> None:
        super().__init__()
        self.lkb_reparam: DepthwiseConv2d | None = None
        self.lkb_origin: ConvBn | None = conv_bn(DepthwiseConv2d(channels, kernel))
        self.small_conv: ConvBn | None = None
        if reparam is not None:
            self.small_conv = conv_bn(DepthwiseConv2d(channels, reparam))

    def forward(self, x: Tensor, nonlinear: nn.ReLU | None = None) -> Tensor:
        """x: (n, C, h, w) -> the same shape, after `nonlinear` if given, which costs the merged form no pass."""
        if self.lkb_origin is None:
            assert self.lkb_reparam is not None
            return self.lkb_reparam(x, "" if nonlinear is None else "relu")  # type: ignore[no-any-return]
        if self.small_conv is None:
            return self.lkb_origin(x, nonlinear)  # type: ignore[no-any-return]
        out: Tensor = self.lkb_origin(x) + self.small_conv(x)
        return out if nonlinear is None else nonlinear(out)

    @torch.no_grad()
    def merge(self) -> None:
        """Replace both branches by one convolution with bias: the same function in eval mode. Idempotent."""
        if self.lkb_origin is None:
            return
        weight, bias = _folded(self.lkb_origin)
        if self.small_conv is not None:
            small, small_bias = _folded(self.small_conv)
            margin = (weight.shape[-1] - small.shape[-1]) // 2
            weight, bias = weight + F.pad(small, [margin] * 4), bias + small_bias
        convolution: DepthwiseConv2d = self.lkb_origin.conv  # type: ignore[assignment]
        _set(convolution, weight, bias)
        self.lkb_reparam, self.lkb_origin, self.small_conv = convolution, None, None


def conv_bn(convolution: nn.Conv2d, activation: nn.Module | None = None) -> ConvBn:
    """The convolution, a batch norm and, if given, the activation."""
    layers = ConvBn()
    layers.add_module("conv", convolution)
    layers.add_module("bn", BatchNorm2d(convolution.out_channels))
    if activation is not None:
        layers.add_module("nonlinear", activation)
    return layers


@torch.no_grad()
def fold_batch_norm(layers: nn.Sequential) -> None:
    """Fold the batch norm of a `conv_bn` into its convolution, which gets a bias. Idempotent."""
    if hasattr(layers, "bn"):
        _set(layers.conv, *_folded(layers))  # type: ignore[arg-type]
        del layers.bn


@torch.no_grad()
def fold_norm_before(norm: nn.Module, linear: nn.Conv2d | nn.Linear) -> nn.Module:
    """Fold a batch norm into the 1x1 convolution or linear layer that follows it; returns what takes its place.

    Exact because nothing between them is padded or non-linear. The layer needs a bias. Idempotent: anything
    but a batch norm is returned as it is.
    """
    if not isinstance(norm, nn.BatchNorm2d):
        return norm
    assert linear.bias is not None
    scale, shift = _affine(norm)
    weight = linear.weight.double().flatten(1)
    _set(linear, (weight * scale).view_as(linear.weight), linear.bias.double() + weight @ shift)
    return nn.Identity()


def convolution_cost(
    inputs: int, outputs: int, kernel: int, pixels: int, form: Form, groups: int = 1
) -> tuple[int, int]:
    """(params, macs) of a convolution with its batch norm, or its bias if folded, for `pixels` of output."""
    weights = outputs * (inputs // groups) * kernel * kernel
    return weights + BESIDE_WEIGHTS[form] * outputs, weights * pixels


def large_kernel_costs(
    channels: int, kernel: int, reparam: int | None, pixels: int, form: Form
) -> list[tuple[str, int, int]]:
    """(kind, params, macs) of a `LargeKernel`'s branches; the merged convolution has a bias, no batch norm."""
    branches: Form = "train" if form == "train" else "folded"
    costs = [("large kernel", *convolution_cost(channels, channels, kernel, pixels, branches, groups=channels))]
    if reparam is not None and form == "train":
        small = convolution_cost(channels, channels, reparam, pixels, form, groups=channels)
        costs.append(("re-param kernel", *small))
    return costs


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64, that the batch norm applies per channel in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _folded(layers: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of one convolution equal to a bias-free `conv_bn` in eval mode."""
    scale, shift = _affine(layers.bn)  # type: ignore[arg-type]
    return layers.conv.weight.double() * scale.view(-1, 1, 1, 1), shift  # type: ignore[operator, union-attr]


def _set(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Give the layer new values in the dtype, memory format and gradient setting it has."""
    old = layer.weight
    layer.weight = nn.Parameter(torch.empty_like(old).copy_(weight), requires_grad=old.requires_grad)
    layer.bias = nn.Parameter(bias.to(old.dtype), requires_grad=old.requires_grad)
