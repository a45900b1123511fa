import pytest

from lkspace import Architecture
from lkspace.errors import UserError
from lkspace.export import export, verify
from lkspace.export.json import read

ODD = Architecture("replknet", (1, 2), (4, 6), (9, 5), (3, None), (True, False), 1.3, 2.0, stem_stride=2)


@pytest.mark.parametrize("form", ["train", "deploy", "folded"])
def test_any_architecture_comes_back(tmp_path, form):
    folder = export(ODD, "json", tmp_path, form=form)
    verify(folder, "json")
    assert read(folder / "architecture.json") == ODD
    assert Architecture.from_json((folder / "architecture.json").read_text()) == ODD


@pytest.mark.parametrize("content", [None, b"{}", b"\xff\xfe", b'{"family": "replknet", "kernels": 4}'])
def test_a_file_that_is_not_one_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "architecture.json").write_bytes(content)
    with pytest.raises(UserError, match=r"architecture\.json: "):
        verify(tmp_path, "json")
