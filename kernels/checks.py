"""What a call must look like, and what its result looks like: shared by every backend and by the fake tensor."""

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


ACTIVATIONS = ("", "relu", "gelu")


def check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "") -> None:
    """ValueError, naming the argument, unless depthwise_conv2d(x, weight, bias, activation) is defined."""
    check_activation(activation)
    if x.dim() != 4:
        raise ValueError(f"x must be (N, C, H, W), got {x.dim()} dimensions")
    if x.dtype not in DTYPES:
        raise ValueError(f"x must be a float32, bfloat16, float16 or float64 tensor, got {x.dtype}")
    channels = x.shape[1]
    if weight.dim() != 4 or weight.shape[0] != channels or weight.shape[1] != 1:
        raise ValueError(f"weight must be (C, 1, Kh, Kw) with C = {channels} as in x, got {tuple(weight.shape)}")
    if weight.shape[2] % 2 == 0 or weight.shape[3] % 2 == 0:
        raise ValueError(f"weight must have an odd kernel, got {weight.shape[2]} x {weight.shape[3]}")
    _check_alike("weight", weight, x)
    if bias is not None:
        if bias.dim() != 1 or bias.shape[0] != channels:
            raise ValueError(f"bias must be (C,) with C = {channels} as in x, got {tuple(bias.shape)}")
        _check_alike("bias", bias, x)


def check_activation(activation: str) -> None:
    """ValueError unless it is one of ACTIVATIONS."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")


def check_backward(grad: Tensor, x: Tensor, weight: Tensor) -> None:
    """ValueError, naming the argument, unless grad can be the gradient of depthwise_conv2d(x, weight)."""
    check(x, weight, None)
    if grad.shape != x.shape:
        raise ValueError(f"grad must be {tuple(x.shape)} as x, got {tuple(grad.shape)}")
    _check_alike("grad", grad, x)


def _check_alike(name: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.dtype != x.dtype:
        raise ValueError(f"{name} must be {x.dtype} as x, got {tensor.dtype}")
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on {x.device} as x, got {tensor.device}")


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last if x lies so in memory (also as a slice of such a tensor), else contiguous; both: contiguous."""
    if x.is_contiguous():
        return torch.contiguous_format
    if x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    sn, sc, sh, sw = x.stride()
    if sc == 1 and sw > 1 and sh >= sw and sn >= sh:
        return torch.channels_last
    return torch.contiguous_format
