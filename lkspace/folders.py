"""Where lkspace keeps what it can make again. Imports nothing of the package: every floor may ask."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where caches lie unless a call says otherwise: $LKSPACE_CACHE, else lkspace in the user's cache folder."""
    if own := os.environ.get("LKSPACE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lkspace"
