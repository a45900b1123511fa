import numpy as np
import pytest
from sklearn.datasets import load_digits

from lkspace.data import describe, load
from lkspace.data.digits import Digits
from lkspace.errors import UserError

SMALL = "digits:train=60,val=40"


def test_same_seed_same_canvases_other_seed_others(tmp_path):
    first = load(SMALL, 16, cache=tmp_path / "a")
    again = load(f"{SMALL},seed=0", 16, cache=tmp_path / "b")
    other = load(f"{SMALL},seed=4", 16, cache=tmp_path / "a")
    for split in ("train", "val"):
        ours, same, different = (getattr(s, split) for s in (first, again, other))
        np.testing.assert_array_equal(ours.images, same.images)
        np.testing.assert_array_equal(ours.labels, same.labels)
        assert (ours.images != different.images).any()
    assert first.key == again.key != other.key


def test_image_set_is_as_described(tmp_path):
    images = load(SMALL, cache=tmp_path)
    assert describe(SMALL) == (10, 64)
    assert images.size == 64
    assert images.class_names == tuple("0123456789")
    assert not images.flip
    assert not images.shift
    assert images.train.images.shape == (60, 64, 64, 3)
    assert images.train.images.dtype == np.uint8
    assert isinstance(images.train.images, np.memmap)
    assert len(images.val) == 40
    assert images.val.labels.dtype == np.int64


def test_an_epoch_is_a_quarter_of_the_canvases_or_all_of_few(tmp_path):
    assert Digits.parse("").epoch_images == 2000 == Digits.parse("").train // 4
    assert Digits.parse("train=400").epoch_images == 400
    some, others = (load(f"digits:train=60,epoch={n},val=10", 16, cache=tmp_path) for n in (20, 30))
    assert (some.epoch_images, others.epoch_images) == (20, 30)
    assert some.key != others.key  # by which a run that goes on knows that it trains on the same


def test_canvas_shows_the_handwriting_of_its_label_and_split():
    """With digits of 8 px on a canvas of 8 px nothing is resized: the ground left out, correlation names the image."""
    digits = load_digits()
    source = Digits(low=8, high=8, train=1400, val=397)
    parts = {"train": slice(0, 1400), "val": slice(1400, None)}
    for split, part in parts.items():
        originals = digits.images[part].reshape(-1, 64)
        originals = originals - originals.mean(1, keepdims=True)
        originals /= np.linalg.norm(originals, axis=1, keepdims=True)
        canvases = np.concatenate(list(source.chunks(split, 8))).mean(3).reshape(-1, 64)
        canvases = canvases - canvases.mean(1, keepdims=True)
        nearest = (canvases @ originals.T).argmax(1)
        named = digits.target[part][nearest] == source.labels(split)
        assert named.mean() > 0.97  # noise confuses a few; chance is 0.1
        assert len(set(nearest)) > 0.9 * len(originals)  # every image is used


def test_digits_keep_to_their_range_and_to_the_canvas():
    """Brightest columns and rows of a noise-free difference: the digit never exceeds its side."""
    source = Digits(low=20, high=24, train=200, val=10)
    canvases = np.concatenate(list(source.chunks("train", 64))).mean(3)
    ground = np.median(canvases, axis=(1, 2), keepdims=True)
    bright = canvases - ground > 75  # more than four deviations of the noise
    for axis in (1, 2):
        lines = bright.sum(axis) >= 2
        extent = [np.flatnonzero(line)[[0, -1]] for line in lines if line.any()]
        assert max(last - first + 1 for first, last in extent) <= 24
        assert min(first for first, _ in extent) < 8  # anywhere, up to the edges
        assert max(last for _, last in extent) > 55


def test_range_follows_the_canvas():
    assert Digits()._sides(64) == (40, 60)
    assert Digits()._sides(128) == (80, 120)
    assert Digits.parse("range=10-20")._sides(64) == (10, 20)


def test_every_channel_is_exposed_alike():
    canvases = np.concatenate(list(Digits(train=100).chunks("train", 64)))
    means = canvases.mean((1, 2)) / 255
    assert abs(means - 0.5).max() < 0.02  # but for what is cut off at white
    assert canvases.std((1, 2)).min() > 20  # noise, and a digit that stands out of it


def test_labels_are_balanced():
    labels = Digits(train=4000).labels("train")
    assert len(labels) == 4000
    assert np.bincount(labels).min() > 350


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digits:sizes=64", "unknown option 'sizes=64'; options are size=64"),
        ("digits:size", "unknown option 'size'"),
        ("digits:size=big", "size is 'big', expected a whole number from 8 to 1024"),
        ("digits:size=4", "from 8 to 1024"),
        ("digits:size=64,size=32", "given twice"),
        ("digits:range=28", "two sides in pixels such as 40-60"),
        ("digits:range=60-28", "first side is larger"),
        ("digits:size=32,range=28-60", "from 1 to 32"),
        ("digits:train=0", "train is '0'"),
        ("digits:train=50,epoch=51", "epoch is '51', expected a whole number from 10 to 50"),
        ("digits:seed=-1", "seed is '-1'"),
        ("digits:val=-5", "val is '-5'"),
        ("digits:train=²", "train is '²'"),
        ("digts", "expected digits"),
        ("", "expected digits"),
        ("folder:", "folder:PATH"),
    ],
)
def test_wrong_specs_are_one_line_with_the_mend(spec, words, tmp_path):
    with pytest.raises(UserError) as error:
        load(spec, cache=tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_sizes_that_contradict_each_other(tmp_path):
    with pytest.raises(UserError, match="size=32 but the search space is for 64"):
        load("digits:size=32", 64, cache=tmp_path)
    with pytest.raises(UserError, match="range ends at 60"):
        load("digits:range=28-60", 32, cache=tmp_path)
