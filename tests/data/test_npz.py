import re
import zipfile

import numpy as np
import pytest

from lkspace.data import describe, load
from lkspace.errors import UserError

RNG = np.random.default_rng(0)


def arrays(shape=(12, 12, 3), dtype=np.uint8, names=("x_train", "y_train", "x_val", "y_val")):
    return {
        names[0]: RNG.integers(0, 256, (9, *shape)).astype(dtype),
        names[1]: np.arange(9) % 3,
        names[2]: RNG.integers(0, 256, (6, *shape)).astype(dtype),
        names[3]: np.arange(6) % 3,
    }


def saved(path, **content):
    np.savez(path / "a.npz", **content)
    return f"npz:{path / 'a.npz'}"


def test_archive(tmp_path):
    content = arrays()
    spec = saved(tmp_path, **content)
    assert describe(spec) == (3, 12)
    images = load(spec, cache=tmp_path)
    np.testing.assert_array_equal(images.train.images, content["x_train"])
    np.testing.assert_array_equal(images.val.labels, content["y_val"])
    assert images.class_names == ("0", "1", "2")
    assert not images.flip


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 1), (3, 12, 12), (1, 12, 12), (12, 12, 3), (14, 12, 3)])
def test_layouts(shape, tmp_path):
    content = arrays(shape)
    images = load(saved(tmp_path, **content), cache=tmp_path).train.images
    assert images.shape == (9, 12, 12, 3)
    expected = content["x_train"]
    if shape[0] in (1, 3):
        expected = np.moveaxis(expected, 1, -1)
    if shape[0] == 14:
        expected = expected[:, 1:13]  # the middle
    expected = expected.reshape(9, 12, 12, -1)
    np.testing.assert_array_equal(images, np.broadcast_to(expected, (9, 12, 12, 3)))


@pytest.mark.parametrize(
    "names", [("train_images", "train_labels", "val_images", "val_labels"), ("x_train", "y_train", "x_test", "y_test")]
)
def test_names_of_others(names, tmp_path):
    content = arrays(names=names)
    content[names[1]] = content[names[1]][:, None]  # as MedMNIST has them
    images = load(saved(tmp_path, **content), 8, cache=tmp_path)
    assert images.train.labels.tolist() == [0, 1, 2] * 3
    assert images.train.images.shape == (9, 8, 8, 3)


def test_class_names(tmp_path):
    images = load(saved(tmp_path, **arrays(), class_names=np.array(["a", "b", "c"])), cache=tmp_path)
    assert images.class_names == ("a", "b", "c")


def without(name):
    return {k: v for k, v in arrays().items() if k != name}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (without("y_val"), "arrays x_train, y_train, x_val, y_val expected; there is x_train, y_train, x_val"),
        (arrays(dtype=np.float32), "x_train is float32, expected uint8"),
        (arrays((12,)), "has shape"),
        (arrays((12, 12, 4)), "has shape"),
        (arrays() | {"y_train": np.zeros(9, np.int64)}, "1 classes"),
        (arrays() | {"y_train": np.arange(9.0)}, "float64, expected whole numbers"),
        (arrays() | {"y_train": np.arange(9) % 3 + 1}, "3 different labels up to 3; number them from 0"),
        (arrays() | {"y_train": np.arange(9) * 10**12}, "9 different labels up to 8000000000000"),
        (arrays() | {"y_val": np.full(6, 3)}, "label 3, expected 0 to 2"),
        (arrays() | {"y_val": np.arange(5) % 3}, "5 labels for 6 images"),
        (arrays() | {"y_train": np.array([None] * 9)}, "cannot be read"),
        (arrays() | {"x_val": np.array([None] * 6)}, "has shape"),
    ],
)
def test_wrong_archives_are_one_line(content, words, tmp_path):
    with pytest.raises(UserError) as error:
        load(saved(tmp_path, **content), cache=tmp_path / "cache")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "a.npz" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04 cut"])
def test_what_is_no_archive(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="not a numpy archive"):
        describe(f"npz:{tmp_path / 'a.npz'}")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(UserError, match="one array"):
        describe(f"npz:{tmp_path / 'b.npy'}")
    with pytest.raises(UserError, match="no such file"):
        describe(f"npz:{tmp_path / 'c.npz'}")


def test_cut_archive(tmp_path):
    saved(tmp_path, **arrays())
    file = tmp_path / "a.npz"
    content = bytearray(file.read_bytes())
    content[1000:1400] = bytes(400)  # inside x_train: its checksum no longer fits
    file.write_bytes(content)
    with pytest.raises(UserError, match="x_train cannot be read"):
        load(f"npz:{file}", cache=tmp_path / "cache")


FLAGS, COMPRESSION, VERSION = 8, 10, 6  # where they lie in an entry of a zip file's table of contents


def altered(file, offset, value):
    """The same byte changed in every entry."""
    content = bytearray(file.read_bytes())
    for entry in re.finditer(re.escape(b"PK\x01\x02"), content):
        content[entry.start() + offset] = value
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (FLAGS, 1, r"array y_train cannot be read \(.*encrypted"),
        (COMPRESSION, 99, r"array y_train cannot be read \(.*not supported"),
        (VERSION, 99, "not a numpy archive"),
    ],
)
def test_archives_that_python_cannot_unpack(offset, value, words, tmp_path):
    spec = saved(tmp_path, **arrays())
    altered(tmp_path / "a.npz", offset, value)
    with pytest.raises(UserError, match=words):
        describe(spec)


@pytest.mark.parametrize("name", ["x_train", "y_train"])
def test_a_header_with_an_open_bracket(name, tmp_path):
    spec = saved(tmp_path, **without(name))
    text = b"{'descr': '<i8', 'fortran_order': False, 'shape': (9,"
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(UserError, match=f"array {name} cannot be read") as error:
        describe(spec)
    assert "\n" not in str(error.value)
