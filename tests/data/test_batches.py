import numpy as np
import pytest
import torch

from lkspace.data.batches import DEVIATION, MEAN, Batches
from lkspace.data.imageset import Split

RNG = np.random.default_rng(0)


def split(count=10, side=16):
    return Split(RNG.integers(0, 256, (count, side, side, 3)).astype(np.uint8), np.arange(count) % 10)


def plain(images):
    """The same by numpy: (n, 3, s, s) float32."""
    return ((images.astype(np.float64) / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2).astype(np.float32)


def test_evaluation_is_all_images_in_order():
    part = split(10)
    batches = list(Batches(part, 4, 0, "cpu", augment=False).epoch(0))
    assert [len(y) for _, y in batches] == [4, 4, 2]
    np.testing.assert_allclose(torch.cat([x for x, _ in batches]), plain(part.images), rtol=1e-5, atol=1e-6)
    assert torch.cat([y for _, y in batches]).tolist() == part.labels.tolist()
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_evaluation_of_some_takes_the_same_ones_each_time():
    part = split(40)
    looked_at = [
        np.concatenate([x.numpy() for x, _ in Batches(part, 4, seed, "cpu", augment=False, count=10).epoch(epoch)])
        for seed, epoch in ((3, 0), (3, 7), (4, 0))
    ]
    assert len(looked_at[0]) == 10
    np.testing.assert_array_equal(looked_at[0], looked_at[1])
    assert not np.array_equal(looked_at[0], looked_at[2])
    places = [np.flatnonzero((plain(part.images) == image).all(axis=(1, 2, 3))) for image in looked_at[0]]
    assert sorted({int(place[0]) for place in places}) == [int(place[0]) for place in places]  # in order, each once


def test_same_seed_and_epoch_same_batches():
    part = split(64)
    draws = {
        (seed, epoch): [x for x, _ in Batches(part, 8, seed, "cpu", augment=True, flip=True).epoch(epoch)]
        for seed in (0, 1)
        for epoch in (1, 2)
    }
    again = [x for x, _ in Batches(part, 8, 0, "cpu", augment=True, flip=True).epoch(1)]
    assert all(torch.equal(a, b) for a, b in zip(draws[0, 1], again, strict=True))
    first = [batches[0] for batches in draws.values()]
    assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [False, True])
def test_each_image_is_moved_by_whole_pixels(flip, shift):
    """Every augmented image is one of the shifted, mirrored copies that padding and slicing give."""
    part = split(40)
    seen = set()
    for x, y in Batches(part, 10, 3, "cpu", augment=True, flip=flip, shift=shift).epoch(1):
        for image, label in zip(x, y, strict=True):
            moves = [
                (number, dy, dx, mirrored)
                for number in np.flatnonzero(part.labels == int(label))
                for dy in range(-2, 3)
                for dx in range(-2, 3)
                for mirrored in (False, True)
                if np.allclose(image, plain(copy(part.images[number], dy, dx, mirrored)[None])[0], atol=1e-5)
            ]
            assert len(moves) == 1
            seen.update(moves)
    assert len({number for number, *_ in seen}) == 40  # each image once
    assert ({dy for _, dy, _, _ in seen} == {-2, -1, 0, 1, 2}) == shift
    assert ({dx for _, _, dx, _ in seen} == {-2, -1, 0, 1, 2}) == shift
    assert {mirrored for *_, mirrored in seen} == ({False, True} if flip else {False})


def copy(image, dy, dx, mirrored):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), "edge")[2 + dy : 18 + dy, 2 + dx : 18 + dx]
    return padded[:, ::-1] if mirrored else padded


def test_training_leaves_a_small_rest_out_unless_it_is_all():
    assert [len(y) for _, y in Batches(split(10), 4, 0, "cpu", augment=True).epoch(1)] == [4, 4]
    assert [len(y) for _, y in Batches(split(3), 4, 0, "cpu", augment=True).epoch(1)] == [3]


def test_epochs_of_fewer_images_see_all_before_one_again():
    """Epochs of 6 of 10 images, one at a time: each pass over the ten is in an order that no other pass has."""
    batches = Batches(split(10), 1, 0, "cpu", augment=True, shift=False, count=6)
    epochs = {number: [y.item() for _, y in batches.epoch(number)] for number in (3, 1, 2, 5, 4)}
    assert all(len(labels) == len(batches) == 6 for labels in epochs.values())
    passes = np.concatenate([epochs[number] for number in range(1, 6)]).reshape(3, 10)
    assert (np.sort(passes) == np.arange(10)).all()
    assert len({tuple(labels) for labels in passes.tolist()}) == 3


def test_epochs_of_all_images_are_passes():
    part = split(10)
    given, left = (
        [y.item() for _, y in Batches(part, 1, 0, "cpu", augment=True, shift=False, count=count).epoch(2)]
        for count in (10, None)
    )
    assert given == left


def test_evaluation_is_of_all_images_whatever_an_epoch_has():
    assert len(Batches(split(10), 5, 0, "cpu", augment=False, count=6)) == 2
