"""All paths by name: which choices a problem has, and how one is carried out."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lkspace.kernels import torch_backend
from lkspace.kernels.checks import memory_format
from lkspace.kernels.gpu import compiler, dense, fma, mma, toeplitz, weight_gradient
from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.problem import Problem

_CONVOLUTIONS = {"toeplitz": toeplitz.run, "dense": dense.run, "taps": fma.run, "mma": mma.run}
_FEW_TAPS = 25  # up to here nearly all of a Toeplitz product is zeros: `taps` is the first guess
_TORCH = (Choice("torch"), Choice("torch", planar=True))
_flag = threading.Lock()  # held while cuDNN's flag is changed
_ANY_DEVICE = (108, 99 * 1024)  # multiprocessors, shared memory of a block; where there is only the interpreter


def candidates(problem: Problem, device: torch.device) -> list[Choice]:
    """Every way that is worth timing, the best guess first; torch's two layouts are always among them, last.

    Where `mma` can compute, Triton's paths are not offered: each would have to be compiled first.
    """
    processors, shared_memory = limits(device)
    compiles = device.type == "cuda" and compiler.available()
    if problem.direction == "weight gradient":
        own = mma.gradient_choices(problem, processors, shared_memory) if compiles else []
        if own:
            return [*(_in_both_layouts(own, len(own), 0) if problem.channels_last else own), *_TORCH]
        own = weight_gradient.choices(problem, processors)
        return [*(_in_both_layouts(own, 3, 1) if problem.channels_last else own), *_TORCH]
    own = mma.choices(problem, processors, shared_memory) if compiles else []
    if own:
        return [*(_in_both_layouts(own, len(own), 0) if problem.channels_last else own), *_TORCH]
    products = [*dense.choices(problem), *toeplitz.choices(problem, processors, shared_memory)]
    if problem.channels_last:
        products = _in_both_layouts(products, 4, 1)
    taps = fma.choices(problem)
    few = problem.kh * problem.kw <= _FEW_TAPS or problem.precision == "ieee"
    return [*taps, *products, *_TORCH] if few else [*products, *taps, *_TORCH]


def prepare(choice: Choice, x: Tensor, weight: Tensor, flip: bool, activation: str) -> None:
    """Compile what `convolution` will need, where that can be done beside other work."""
    if choice.path == "mma":
        mma.prepare(choice, _planes(x) if choice.planar else x, weight, flip, activation)


def prepare_gradient(choice: Choice, grad: Tensor, x: Tensor, weight: Tensor) -> None:
    """Compile what `gradient_of_weight` will need, where that can be done beside other work."""
    if choice.path == "mma":
        mma.prepare_gradient(choice, *(_planes(grad), _planes(x)) if choice.planar else (grad, x), weight)


def _planes(x: Tensor) -> Tensor:
    """What x.contiguous() will look like. A copy has no memory: many threads prepare at once, and none reads it."""
    return x if x.is_contiguous() else torch.empty_like(x, memory_format=torch.contiguous_format, device="meta")


def convolution(
    choice: Choice, x: Tensor, weight: Tensor, bias: Tensor | None, flip: bool, activation: str, precision: str
) -> Tensor:
    """activation(x * weight + bias), weight turned by 180 degrees if `flip`; lies in memory as x does."""
    if choice.path == "torch":
        return _by_torch(choice, x, weight, bias, flip, activation)
    source = x.contiguous() if choice.planar else x
    y = torch.empty_like(source, memory_format=memory_format(source))
    _CONVOLUTIONS[choice.path](choice, source, weight, bias, y, flip, activation, precision)
    return y.contiguous(memory_format=memory_format(x))


def gradient_of_weight(choice: Choice, grad: Tensor, x: Tensor, weight: Tensor, precision: str) -> Tensor:
    """The gradient of the (C, 1, Kh, Kw) kernels, contiguous."""
    if choice.path == "torch":
        return _torch_gradient(choice, grad, x, weight, [False, True, False])[1].contiguous()
    if choice.planar:
        grad, x = grad.contiguous(), x.contiguous()
    into_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    if choice.path == "mma":
        mma.gradient(choice, grad, x, into_weight)
    else:
        weight_gradient.run(choice, grad, x, into_weight, precision)
    return into_weight


def _by_torch(choice: Choice, x: Tensor, weight: Tensor, bias: Tensor | None, flip: bool, activation: str) -> Tensor:
    if flip:
        y = _torch_gradient(choice, x, x, weight, [True, False, False])[0]  # x stands in for the image: its shape
    else:
        y = torch_backend.forward(_other_layout(x) if choice.planar else x, weight, bias, activation)
    return y.contiguous(memory_format=memory_format(x))


def _torch_gradient(
    choice: Choice, grad: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    if choice.planar:
        grad, x = _other_layout(grad), _other_layout(x)
    with _deterministic():
        return torch_backend.backward(grad, x, weight, wanted)


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """cuDNN's weight gradients may add atomically; a result that varies is no candidate."""
    # The flag is the process's, and backward runs in a thread a device. torch.backends may be locked against changes.
    with _flag:
        before = torch._C._get_cudnn_deterministic()
        torch._C._set_cudnn_deterministic(True)
        try:
            yield
        finally:
            torch._C._set_cudnn_deterministic(before)


def _other_layout(x: Tensor) -> Tensor:
    last = memory_format(x) == torch.channels_last
    return x.contiguous(memory_format=torch.contiguous_format if last else torch.channels_last)


def _in_both_layouts(choices: list[Choice], copied: int, as_it_lies: int) -> list[Choice]:
    return [*(replace(choice, planar=True) for choice in choices[:copied]), *choices[:as_it_lies]]


def limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors, and bytes of shared memory that one block may have."""
    if device.type != "cuda":
        return _ANY_DEVICE
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
