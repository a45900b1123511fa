import os
import pickle

import numpy as np
import pytest

from lkspace.data import describe, load
from lkspace.data.unpickle import unpickled
from lkspace.errors import UserError


def batch(count, classes, seed, labels="labels", keys=str):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (count, 3072), np.uint8)
    return {keys("data"): data, keys(labels): [int(i) for i in rng.integers(0, classes, count)]}


def save(path, content, protocol):
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.fixture(params=[2, 4, 5])
def cifar10(request, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    keys = str.encode if request.param == 2 else str  # as Python 2 wrote them, and as people re-save them
    for i in range(1, 6):
        save(folder / f"data_batch_{i}", batch(8, 10, i, keys=keys), request.param)
    save(folder / "test_batch", batch(6, 10, 9, keys=keys), request.param)
    save(folder / "batches.meta", {keys("label_names"): [keys(f"name{i}") for i in range(10)]}, request.param)
    return folder


def test_cifar10(cifar10, tmp_path):
    assert describe(f"cifar10:{cifar10}") == (10, 32)
    images = load(f"cifar10:{cifar10.parent}", cache=tmp_path / "cache")
    assert images.class_names[3] == "name3"
    assert images.train.images.shape == (40, 32, 32, 3)
    expected = batch(8, 10, 2)
    np.testing.assert_array_equal(images.train.labels[8:16], expected["labels"])
    for image, row in zip(images.train.images[8:16], expected["data"], strict=True):
        for y, x in ((0, 0), (5, 31), (31, 7)):  # the archive's planes: red, then green, then blue, each row by row
            assert image[y, x].tolist() == [row[plane * 1024 + y * 32 + x] for plane in range(3)]
    assert load(f"cifar10:{cifar10}", 48, cache=tmp_path / "cache").val.images.shape == (6, 48, 48, 3)


def test_cifar100_has_fine_labels(tmp_path):
    for name, count in (("train", 30), ("test", 10)):
        content = batch(count, 100, count, "fine_labels") | {"coarse_labels": [0] * count}
        save(tmp_path / name, content, 4)
    save(tmp_path / "meta", {"fine_label_names": [str(i) for i in range(100)], "coarse_label_names": []}, 4)
    images = load(f"cifar100:{tmp_path}", cache=tmp_path / "cache")
    assert len(images.class_names) == 100
    np.testing.assert_array_equal(images.val.labels, batch(10, 100, 10, "fine_labels")["fine_labels"])


class Evil:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("call", [os.system, eval, os.mkdir, np.save, np.fromfile, np.load])
def test_malicious_pickle_is_refused_and_not_run(call, protocol, cifar10, tmp_path):
    save(cifar10 / "data_batch_3", {"data": Evil(call, str(tmp_path / "run")), "labels": [1]}, protocol)
    with pytest.raises(UserError, match="data_batch_3: refused as a pickle of arrays") as error:
        load(f"cifar10:{cifar10}", cache=tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_codec_is_no_back_door(tmp_path):
    """Protocol 2 stores bytes through codecs.encode; with another codec that would run other code."""
    import codecs

    save(tmp_path / "a", {"x": Evil(codecs.encode, "abc", "rot13")}, 2)
    with pytest.raises(UserError, match="encoding"):
        unpickled(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps([1, 2]), pickle.dumps({"data": 1})[:-3]])
def test_damaged_pickle_is_named(content, cifar10, tmp_path):
    (cifar10 / "batches.meta").write_bytes(content)
    with pytest.raises(UserError, match=r"batches\.meta"):
        describe(f"cifar10:{cifar10}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [0] * 7}, "7 labels for 8 images"),
        ({"labels": [10] * 8}, "label 10, expected 0 to 9"),
        ({"labels": [-1] * 8}, "label -1"),
        ({"labels": ["a"] * 8}, "expected whole numbers"),
        ({"labels": [[0], [1, 2]] * 4}, "labels are lists of different lengths, expected whole numbers"),
        ({"data": np.zeros((8, 3072))}, "no uint8 images"),
        ({"data": np.zeros((8, 100), np.uint8)}, "no uint8 images"),
        ({"data": None}, "no uint8 images"),
    ],
)
def test_wrong_content_is_named(change, words, cifar10, tmp_path):
    save(cifar10 / "data_batch_4", batch(8, 10, 4) | change, 4)
    with pytest.raises(UserError, match=words) as error:
        load(f"cifar10:{cifar10}", cache=tmp_path / "cache")
    assert "data_batch_4" in str(error.value)


def test_missing_file_is_named(cifar10):
    (cifar10 / "data_batch_5").unlink()
    with pytest.raises(UserError, match="no file data_batch_5 in it; expected the python version of CIFAR-10"):
        describe(f"cifar10:{cifar10}")
    with pytest.raises(UserError, match="unpack the archive"):
        describe(f"cifar10:{cifar10 / 'test_batch'}")
