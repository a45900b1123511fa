"""Every way to compute the operator on this machine, and the float64 reference that all are held against."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lkspace.kernels import library, native_available, schemes
from lkspace.kernels.backends import VARIABLE
from lkspace.kernels.native_calls import SCHEMES

NATIVE_WAYS = tuple(f"{isa} {scheme}" for isa in library.ISAS for scheme in SCHEMES)
WAYS = ("torch", *NATIVE_WAYS)


def ways() -> list[str]:
    """Those of WAYS that can run here."""
    found = library.load()
    isas = [] if isinstance(found, str) else [n for i, n in enumerate(library.ISAS) if found.lkspace_has(i)]
    return [way for way in WAYS if way == "torch" or way.split()[0] in isas]


def force(patch: pytest.MonkeyPatch, way: str) -> None:
    """Make every call compute that way: "torch", or instruction set and scheme."""
    patch.setenv(VARIABLE, "torch" if way == "torch" else "native")
    if way != "torch":
        isa, scheme = way.split()
        patch.setenv(library.ISA_VARIABLE, isa)
        patch.setenv(schemes.VARIABLE, scheme)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs for torch and every instruction set and scheme; what is not on this machine is skipped."""
    if request.param not in ways():
        pytest.skip(f"{request.param} is not on this machine")
    force(monkeypatch, request.param)
    return str(request.param)


@pytest.fixture
def native() -> None:
    """Skips where the library was not built."""
    if not native_available():
        pytest.skip("the native library is not built")


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts torch's thread count back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor) -> dict[str, Tensor]:
    """Result and gradients in float64, from a sum over shifted, explicitly padded copies: no convolution involved."""
    x, weight, grad = (tensor.detach().double().contiguous() for tensor in (x, weight, grad))
    height, width, kh, kw = *x.shape[2:], *weight.shape[2:]
    padded = torch.zeros(*x.shape[:2], height + kh - 1, width + kw - 1, dtype=torch.float64)
    padded[:, :, kh // 2 : kh // 2 + height, kw // 2 : kw // 2 + width] = x
    y = torch.zeros_like(x)
    into_padded, into_weight = torch.zeros_like(padded), torch.zeros_like(weight)
    for u in range(kh):
        for v in range(kw):
            window = padded[:, :, u : u + height, v : v + width]
            y += weight[:, 0, u, v, None, None] * window
            into_padded[:, :, u : u + height, v : v + width] += weight[:, 0, u, v, None, None] * grad
            into_weight[:, 0, u, v] = (grad * window).sum((0, 2, 3))
    if bias is not None:
        y += bias.detach().double()[:, None, None]
    into_x = into_padded[:, :, kh // 2 : kh // 2 + height, kw // 2 : kw // 2 + width]
    return {"y": y, "x": into_x, "weight": into_weight, "bias": grad.sum((0, 2, 3))}


def difference(result: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    return float((result.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def excess(result: Tensor, expected: Tensor, terms: Tensor) -> float:
    """Largest difference over what is allowed: 1e-5 of the largest value, and a rounding of what cancelled.

    terms: the same sums over absolute values; with few terms the result can be tiny beside them.
    """
    allowed = 1e-5 * expected.abs().max() + 2**-23 * terms.max()
    return float((result.double() - expected).abs().max() / allowed.clamp_min(1e-30))
