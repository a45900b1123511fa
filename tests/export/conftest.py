"""A second RepLKNet, as functions over a state dict in the authors' naming, sharing no code with lkspace."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _plain_replknet(state: dict[str, Tensor], layers: list[int], image: np.ndarray) -> dict[str, np.ndarray]:
    """Logits and feature maps of a state dict of either form, in eval mode; kernel sizes are read off the weights."""

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, training=False, eps=1e-5)

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])

    def conv_bn(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return norm(conv(x, f"{name}.conv", stride), f"{name}.bn")

    def large(x: Tensor, name: str) -> Tensor:
        if f"{name}.lkb_reparam.weight" in state:
            return conv(x, f"{name}.lkb_reparam")
        out = conv_bn(x, f"{name}.lkb_origin")
        return out + conv_bn(x, f"{name}.small_conv") if f"{name}.small_conv.conv.weight" in state else out

    x = torch.from_numpy(image)
    for index, stride in enumerate((2, 1, 1, 2)):
        x = conv_bn(x, f"stem.{index}", stride).relu()
    maps = []
    for stage, blocks in enumerate(layers):
        if stage:
            x = conv_bn(conv_bn(x, f"transitions.{stage - 1}.0").relu(), f"transitions.{stage - 1}.1", 2).relu()
        for block in range(blocks):
            name = f"stages.{stage}.blocks.{2 * block}"
            y = conv_bn(norm(x, f"{name}.prelkb_bn"), f"{name}.pw1").relu()
            x = x + conv_bn(large(y, f"{name}.large_kernel").relu(), f"{name}.pw2")
            name = f"stages.{stage}.blocks.{2 * block + 1}"
            x = x + conv_bn(F.gelu(conv_bn(norm(x, f"{name}.preffn_bn"), f"{name}.pw1")), f"{name}.pw2")
        maps.append(x)
    logits = F.linear(norm(x, "norm").mean((2, 3)), state["head.weight"], state["head.bias"])
    return {"logits": logits.numpy(), **{f"feature_{i}": map_.numpy() for i, map_ in enumerate(maps)}}


@pytest.fixture
def plain_replknet() -> Callable[..., dict[str, np.ndarray]]:
    return _plain_replknet


@pytest.fixture
def awkward_weights() -> Callable[[nn.Module], dict[str, Tensor]]:
    """A state dict of the network with batch norms far from the identity."""

    def weights(network: nn.Module) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(7)
        state = {}
        for key, value in network.state_dict().items():
            spread = torch.rand(value.shape, generator=generator)
            if key.endswith("running_var"):
                state[key] = 0.5 + 1.5 * spread
            elif key.endswith("running_mean") or key.endswith(".bias"):
                state[key] = spread - 0.5
            elif value.ndim == 1:
                state[key] = (0.5 + spread) * (1 - 2 * (spread > 0.8))
            else:
                state[key] = value
        return state

    return weights
