"""Where the YAML file of a search space lies: one that comes with the program, by name, or a user's, by path."""

import difflib
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from lkspace.errors import UserError
from lkspace.space.architecture import short


def shipped() -> list[str]:
    """Names of the search spaces that come with the program, sorted."""
    return sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def locate(name_or_path: str | Path) -> Path:
    """The YAML file of a shipped space or of a path; UserError with the nearest names if it is neither."""
    text = str(name_or_path)
    if text in shipped():
        return Path(str(_folder() / f"{text}.yaml"))
    # os.path's answer is False, not an error, where a name is too long or a folder may not be entered.
    if text.endswith((".yaml", ".yml")) or os.sep in text or os.path.exists(text):
        return Path(text)
    close = difflib.get_close_matches(text, shipped(), 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"search space {short(text)} is neither shipped nor a file; {hint}shipped: {', '.join(shipped())}")


def _folder() -> Any:
    return files("lkspace") / "search_spaces"
