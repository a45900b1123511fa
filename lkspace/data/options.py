"""Options inside a data spec, `digits:size=64,range=40-60`: names to texts, and texts to numbers."""

from collections.abc import Mapping

from lkspace.errors import UserError


def parse(text: str, known: Mapping[str, str], source: str) -> dict[str, str]:
    """The options of `text`; `known` maps each allowed name to an example value. UserError on anything else."""
    options: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (p.strip() for p in part.partition("="))
        if not equals or name not in known:
            examples = ", ".join(f"{n}={v}" for n, v in known.items())
            raise UserError(f"data {source}: unknown option {part!r}; options are {examples}")
        if name in options:
            raise UserError(f"data {source}: option {name!r} is given twice")
        options[name] = value
    return options


def whole(text: str, name: str, source: str, low: int, high: int) -> int:
    """The whole number that `text` is; UserError if it is none or outside [low, high]."""
    if not text.isascii() or not text.isdigit() or not low <= int(text[:18]) <= high:
        raise UserError(f"data {source}: {name} is {text!r}, expected a whole number from {low} to {high}")
    return int(text)
