"""The compiled library: where it lies, whether it fits, and its plain C functions (native/interface.h).

It lies beside this file in an installed wheel. An editable install leaves the Python files in the checkout and puts the
library into site-packages. torch is loaded first, so that both share one OpenMP runtime.
"""

import ctypes
import hashlib
import os
import sys
from functools import cache
from pathlib import Path

import torch  # noqa: F401  (its OpenMP runtime)

from lkspace.errors import UserError

ABI = 3
ISA_VARIABLE = "LKSPACE_ISA"
FUNCTIONS = (
    "lkspace_convolve",
    "lkspace_weight_gradient",
    "lkspace_frequency_gradients",
    "lkspace_batch_norm",
    "lkspace_batch_norm_gradients",
)
ISAS = ("portable", "avx2", "avx512")  # numbered as in interface.h
LANES = (4, 8, 16)  # channels in a group, by instruction set

_NAME = "lkspace_native.dll" if sys.platform == "win32" else "lkspace_native.so"


@cache
def load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    stale = ""
    for place in _places():
        path = place / _NAME
        if not path.is_file():
            continue
        try:
            library = ctypes.CDLL(str(path))
            library.lkspace_abi.restype = ctypes.c_int64
            abi = library.lkspace_abi()
        except (OSError, AttributeError) as error:
            return f"{path} does not load: {error}"
        if abi != ABI:
            stale = f"{path} was built for another version (interface {abi}, not {ABI}): install lkspace again"
            continue
        for function in map(library.__getattr__, FUNCTIONS):
            function.restype = ctypes.c_int64
            function.argtypes = (ctypes.c_char_p,)  # the bytes of a Call or a Norm
        library.lkspace_transform_points.restype = ctypes.c_int64
        library.lkspace_transform_points.argtypes = (ctypes.c_int64,)
        library.lkspace_transform_cost.restype = ctypes.c_double
        library.lkspace_transform_cost.argtypes = (ctypes.c_int64,)
        library.lkspace_multiply_adds.restype = ctypes.c_double
        library.lkspace_multiply_adds.argtypes = (ctypes.c_int64, ctypes.c_int64)
        library.lkspace_has.restype = ctypes.c_int64
        library.lkspace_has.argtypes = (ctypes.c_int64,)
        return library
    return stale or f"no {_NAME}: lkspace was installed without a C++ compiler (gcc or clang)"


def _places() -> list[Path]:
    own = Path(__file__).parent
    in_checkout = (own / "native").is_dir()  # the C++ is not installed
    return [own, *(Path(entry, "lkspace", "kernels") for entry in sys.path if entry and in_checkout)]


@cache
def fingerprint() -> str:
    """Digest of the compiled library: changes with whatever could change its speed. Needs a library."""
    return hashlib.sha256(Path(_loaded()._name).read_bytes()).hexdigest()[:16]


@cache
def transform_points(least: int) -> int:
    """Points of the cheapest transform of at least so many. Needs a library."""
    return int(_loaded().lkspace_transform_points(least))


@cache
def transform_cost(points: int) -> float:
    """What a transform of so many points takes, in the units of fourier.h. Needs a library."""
    return float(_loaded().lkspace_transform_cost(points))


def multiply_adds(isa: int, threads: int) -> float:
    """Multiply-adds of float32 done by one call that does nothing else, for timing the peak. Needs a library."""
    return float(_loaded().lkspace_multiply_adds(isa, threads))


def _loaded() -> ctypes.CDLL:
    library = load()
    assert not isinstance(library, str)
    return library


@cache
def instruction_set(forced: str | None) -> int:
    """Index into ISAS of what the library uses: the best that is there, or the forced one.

    UserError if the forced one is unknown or this processor lacks it. Needs a library.
    """
    library = _loaded()
    there = [index for index in range(len(ISAS)) if library.lkspace_has(index)]
    if not forced:
        return there[-1]
    if forced not in ISAS:
        raise UserError(f"{ISA_VARIABLE}={forced}: no such instruction set; known: {', '.join(ISAS)}")
    if ISAS.index(forced) not in there:
        names = ", ".join(ISAS[index] for index in there)
        raise UserError(f"{ISA_VARIABLE}={forced}: not on this processor or not built in; there are: {names}")
    return ISAS.index(forced)


def selected() -> int:
    """Index into ISAS of what a call now would use: LKSPACE_ISA if it is set, else the best that is there."""
    return instruction_set(os.environ.get(ISA_VARIABLE))


load()  # before any fork: by that the library knows, in a child, that the threads of its parent are gone
