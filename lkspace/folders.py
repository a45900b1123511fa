"""Where lkspace keeps what it can make again. Imports no other floor of the package: every one may ask."""

import os
from pathlib import Path

from lkspace.errors import UserError


def cache_folder() -> Path:
    """Where caches lie unless a call says otherwise: $LKSPACE_CACHE, else lkspace in the user's cache folder.

    Raises UserError if that is in a home that nobody knows.
    """
    own, base = os.environ.get("LKSPACE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own).expanduser() if own else Path(base or Path.home() / ".cache") / "lkspace"
    except RuntimeError:
        where = f"LKSPACE_CACHE={own}" if own else "the cache folder"
        raise UserError(f"{where}: there is no such home; set LKSPACE_CACHE to a full path") from None


def operator_file(name: str) -> Path:
    """A file of what the operator found out about this machine.

    In a home that nobody knows it is one that can be neither read nor written: each process finds out for itself.
    """
    try:
        return cache_folder() / "kernels" / name
    except UserError:
        return Path(os.devnull, name)
