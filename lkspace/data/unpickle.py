"""Pickles from the internet, read without running what they say: nothing but arrays of numbers comes out."""

import codecs
import pickle
from pathlib import Path
from typing import Any

from lkspace.errors import UserError


def _latin1(text: str, encoding: str) -> bytes:
    """`codecs.encode` as pickles of protocol 2 use it to store bytes, and for nothing else."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return codecs.encode(text, "latin1")


# What a pickled array is made of, under numpy's names before and after 2.0.
_ARRAYS = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype")}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The one door of a pickle to Python's names."""
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a data set has no use for")


def unpickled(path: Path) -> dict[str, Any]:
    """The dictionary of a CIFAR pickle: lists, strings, bytes, numbers and numpy arrays, keys as str.

    Raises UserError, naming the file, on anything else; nothing that the pickle names is ever called.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
    except OSError as error:
        raise UserError(f"data {path}: {error.strerror}") from None
    except Exception as error:  # a hostile or cut pickle raises nearly anything
        raise UserError(f"data {path}: refused as a pickle of arrays ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"data {path}: holds a {type(content).__name__}, expected a CIFAR dictionary")
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in content.items()}
