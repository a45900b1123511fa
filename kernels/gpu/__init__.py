"""The operator on NVIDIA GPUs, in Triton: the backend's four functions. README.md here says how it computes.

Triton is imported only where there is a GPU, or where its interpreter is asked for (TRITON_INTERPRET=1): then, and if
`LKSPACE_KERNEL=gpu` forces this backend, it also computes CPU tensors, slowly, to show that it is correct.
"""

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_LEAST = (8, 0)  # compute capability: tensor cores that take bfloat16 and tf32
_REACH = 2**31  # elements from a plane's first to its last that 32-bit offsets can count


@cache
def missing() -> str:
    """Why there are no GPU kernels on this machine; "" if there are."""
    interpreted = _interpreted()
    if not interpreted and not torch.cuda.is_available():
        return "torch finds no GPU that it can use"
    if not interpreted and torch.version.cuda is None:
        return "the GPU kernels are for NVIDIA GPUs"
    if find_spec("triton") is None:
        return "Triton is not installed: python -m pip install triton"
    return ""


def refuses(x: Tensor, weight: Tensor) -> str:
    """Why these tensors are not for this backend; "" if they are."""
    if x.device.type == "cpu" and _interpreted():
        if os.environ.get("LKSPACE_KERNEL") != "gpu":
            return "Triton's interpreter is slow: it computes only what LKSPACE_KERNEL=gpu forces it to"
    elif x.device.type != "cuda":
        return f"the GPU backend computes on NVIDIA GPUs, x is on {x.device}"
    elif reason := too_old(x.device):
        return reason
    if x.dtype not in _DTYPES:
        return f"the GPU backend computes float32, bfloat16 and float16, x is {x.dtype}"
    if sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True)) >= _REACH:
        return "the GPU backend computes images of fewer than 2^31 elements"
    return ""


def too_old(device: torch.device | int) -> str:
    """What a GPU of this machine lacks; "" if nothing."""
    if torch.cuda.get_device_capability(device) >= _LEAST:
        return ""
    return f"the GPU backend needs compute capability {_LEAST[0]}.{_LEAST[1]}"


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "") -> Tensor:
    """See `depthwise_conv2d`; activation: "", "relu" or "gelu", applied in float32 before the result is rounded."""
    from lkspace.kernels.gpu import calls

    with torch.cuda.device_of(x):
        return calls.forward(x, weight, bias, activation)


def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """See `depthwise_conv2d_backward` in operator.py. Same bits every time."""
    from lkspace.kernels.gpu import calls

    with torch.cuda.device_of(x):
        return calls.backward(grad, x, weight, wanted)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
