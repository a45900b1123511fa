"""Which backend computes, and what forcing one says."""

import pytest
import torch

from lkspace.errors import UserError
from lkspace.kernels import availability, backend_for, depthwise_conv2d, isa, library, native_reason
from lkspace.kernels.backends import VARIABLE

X, WEIGHT = torch.ones(1, 8, 5, 5), torch.ones(8, 1, 3, 3)


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)


@pytest.mark.usefixtures("native")
def test_native_computes_what_it_can_and_torch_the_rest() -> None:
    assert backend_for(X, WEIGHT) == "native"
    assert backend_for(X.bfloat16(), WEIGHT.bfloat16()) == "native"
    assert backend_for(X.double(), WEIGHT.double()) == "torch"
    assert backend_for(X.to("meta"), WEIGHT.to("meta")) == "torch"


def test_without_a_library_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load", lambda: "no compiler was there")
    assert backend_for(X, WEIGHT) == "torch"
    assert availability()["native"] == native_reason() == "no compiler was there"
    assert isa() == ""
    torch.testing.assert_close(depthwise_conv2d(X, WEIGHT)[0, 0, 0], torch.tensor([4.0, 6.0, 6.0, 6.0, 4.0]))
    monkeypatch.setenv(VARIABLE, "native")
    with pytest.raises(UserError, match="LKSPACE_KERNEL=native: no compiler was there"):
        depthwise_conv2d(X, WEIGHT)


def test_forcing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    assert backend_for(X, WEIGHT) == "torch"
    monkeypatch.setenv(VARIABLE, "gpu")
    with pytest.raises(UserError, match="LKSPACE_KERNEL=gpu: torch finds no GPU"):
        backend_for(X, WEIGHT)
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(UserError, match="LKSPACE_KERNEL=cuda: no such backend; known: gpu, native, torch"):
        backend_for(X, WEIGHT)


@pytest.mark.usefixtures("native")
def test_forcing_native_on_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "native")
    with pytest.raises(UserError, match=r"computes float32, bfloat16 and float16, x is torch\.float64"):
        depthwise_conv2d(X.double(), WEIGHT.double())


@pytest.mark.usefixtures("native")
def test_forcing_an_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isa() in library.ISAS
    monkeypatch.setenv(library.ISA_VARIABLE, "portable")
    assert isa() == "portable"
    monkeypatch.setenv(library.ISA_VARIABLE, "sse9")
    with pytest.raises(UserError, match="LKSPACE_ISA=sse9: no such instruction set; known: portable, avx2, avx512"):
        isa()
