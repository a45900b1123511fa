"""Networks whose batch norms are not the identity, so that a merge that forgets one is seen."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def _awkward(network: N, seed: int = 0) -> N:
    """Random batch-norm statistics (variance in [0.5, 2], scales of both signs) and biases; eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator).mul_(high - low).add_(low).to(like.dtype)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(uniform(module.running_var, 0.5, 2.0))
                sign = uniform(module.weight, -1.0, 3.0).sign()
                module.weight.copy_(sign * uniform(module.weight, 0.5, 1.5))
                module.bias.copy_(uniform(module.bias, -0.5, 0.5))
            elif isinstance(module, nn.Linear):
                module.bias.copy_(uniform(module.bias, -1.0, 1.0))
    return network.eval()


@pytest.fixture
def awkward() -> Callable[..., nn.Module]:
    return _awkward
