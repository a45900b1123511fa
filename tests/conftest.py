"""Every test runs with caches, locks and runs of its own, so that the suite leaves a user's machine as it was."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and lock files of the whole session in a temporary folder, for subprocesses too."""
    patch = pytest.MonkeyPatch()
    base: Path = tmp_path_factory.mktemp("lkspace")
    patch.setenv("LKSPACE_CACHE", str(base / "cache"))
    patch.setenv("LKSPACE_LOCKS", str(base / "locks"))
    yield
    patch.undo()
