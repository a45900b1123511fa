import errno
from pathlib import Path

import pytest

from lkspace.errors import RunError, UserError
from lkspace.search import files


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a" / "space.yaml"
    files.write_text(path, "old")

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"space\.yaml: No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["space.yaml"]


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"run is a file, not a folder: name another with --run"):
        files.made(tmp_path / "run")
    with pytest.raises(UserError, match="cannot be made"):
        files.made(tmp_path / "run" / "below")
