"""How the program finds its families, scores, samplers and export targets: one small registry for the four.

A built-in is found because its module lies in the package named here; another distribution adds one
through an entry point of the group named here that points at the object to register. Nothing is imported
before the first look-up, so `space` can ask a family for its costs without importing `nets`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from lkspace.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind; modules of `package` are imported on the first look-up."""

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters an object under `name`; a name taken by another object raises ValueError."""

        def enter(entry: T) -> T:
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            return entry

        return enter

    def get(self, name: str) -> T:
        """The object entered under `name`; UserError with the known names if there is none."""
        self._load()
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}")
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for entry_point in entry_points(group=self.group):
            self.register(entry_point.name)(entry_point.load())


# What an entry must offer is a protocol beside its first implementation, named here for the reader.
families: Registry[Any] = Registry("family", "lkspace.nets", "lkspace.families")  # lkspace.nets.family.Family
scores: Registry[Any] = Registry("score", "lkspace.scores", "lkspace.scores")  # lkspace.scores.score.Score
samplers: Registry[Any] = Registry(
    "sampler", "lkspace.search", "lkspace.samplers"
)  # lkspace.search.samplers.MakeSampler
exporters: Registry[Any] = Registry(
    "export target", "lkspace.export", "lkspace.exporters"
)  # lkspace.export.target.Target
