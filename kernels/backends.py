"""Who computes the operator: a table of backends, best first, and the choice among them.

To add a backend: a module with `forward` and `backward`, and one entry here. `LKSPACE_KERNEL` forces one by name.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lkspace.errors import UserError
from lkspace.kernels import gpu, native_backend, schemes, torch_backend

VARIABLE = "LKSPACE_KERNEL"


@dataclass(frozen=True)
class Backend:
    """One way to compute both operators.

    missing: why it cannot run on this machine, or "" if it can. refuses: why not for these tensors, or "".
    """

    name: str
    missing: Callable[[], str]
    refuses: Callable[[Tensor, Tensor], str]
    forward: Callable[[Tensor, Tensor, Tensor | None, str], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Sequence[bool]], tuple[Tensor, Tensor, Tensor]]


def _any_tensors(x: Tensor, weight: Tensor) -> str:
    return ""


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("gpu", gpu.missing, gpu.refuses, gpu.forward, gpu.backward),
        Backend(
            "native",
            native_backend.native_reason,
            native_backend.refuses,
            native_backend.forward,
            native_backend.backward,
        ),
        Backend("torch", lambda: "", _any_tensors, torch_backend.forward, torch_backend.backward),
    )
}


def backend_for(x: Tensor, weight: Tensor) -> str:
    """Name of the backend that would compute depthwise_conv2d(x, weight): "gpu", "native" or "torch".

    UserError if `LKSPACE_KERNEL` forces a backend that is unknown, missing here, or does not take these tensors.
    """
    return choose(x, weight).name


def availability() -> dict[str, str]:
    """Every backend's name and why it is missing on this machine; "" if it is there."""
    return {name: backend.missing() for name, backend in BACKENDS.items()}


def implementation() -> str:
    """What the operator's times depend on beside device and shapes: what is forced, and the compiled library."""
    forced = [os.environ.get(name, "") for name in (VARIABLE, schemes.VARIABLE)]
    return " ".join([*forced, native_backend.isa(), native_backend.fingerprint()]).strip()


def choose(x: Tensor, weight: Tensor) -> Backend:
    """The forced backend, else the first that is there and takes these tensors."""
    forced = os.environ.get(VARIABLE)
    if forced:
        return _forced(forced, x, weight)
    for backend in BACKENDS.values():
        # In this order: to ask for a GPU sets up CUDA, which a process forked later could then not do for itself.
        if not backend.refuses(x, weight) and not backend.missing():
            return backend
    raise AssertionError("the torch backend takes everything")


def _forced(name: str, x: Tensor, weight: Tensor) -> Backend:
    backend = BACKENDS.get(name)
    if backend is None:
        raise UserError(f"{VARIABLE}={name}: no such backend; known: {', '.join(BACKENDS)}")
    reason = backend.missing() or backend.refuses(x, weight)
    if reason:
        raise UserError(f"{VARIABLE}={name}: {reason}")
    return backend
