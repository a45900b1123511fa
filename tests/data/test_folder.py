import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from lkspace.data import describe, load
from lkspace.data.photo import decoded
from lkspace.errors import UserError

RED, BLUE = (250, 10, 10), (10, 10, 250)


def picture(path, colour=RED, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for split in ("train", "val"):
        for i in range(3):
            picture(folder / split / "red things" / f"{i}.jpg", RED)
            picture(folder / split / "blue" / f"{i}.png", BLUE)
    return folder


def wrong(spec, cache):
    with pytest.raises(UserError) as error:
        load(spec, 8, cache=cache)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folder_of_photographs(photos, tmp_path):
    assert describe(f"folder:{photos}") == (2, None)
    images = load(f"folder:{photos}", 8, cache=tmp_path / "cache")
    assert images.class_names == ("blue", "red things")
    assert images.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.flip
    assert images.val.images.shape == (6, 8, 8, 3)
    np.testing.assert_allclose(images.val.images[0, 4, 4], BLUE, atol=2)
    np.testing.assert_allclose(images.val.images[5, 4, 4], RED, atol=6)


def test_changed_file_is_decoded_anew(photos, tmp_path):
    before = load(f"folder:{photos}", 8, cache=tmp_path / "cache")
    picture(photos / "val" / "blue" / "0.png", (0, 200, 0), (41, 31))
    after = load(f"folder:{photos}", 8, cache=tmp_path / "cache")
    assert after.key != before.key
    assert after.val.images[0, 4, 4].tolist() == [0, 200, 0]


def test_the_same_files_elsewhere_or_later_are_the_same_images(photos, tmp_path):
    """As on the machines of a cluster, each with its own copy."""
    seen = []

    def progress(done, total):
        seen.append((done, total))

    before = load(f"folder:{photos}", 8, cache=tmp_path / "cache", progress=progress)
    assert seen[0] == seen[-1] == (12, 12)  # all files, then all images
    seen.clear()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photos, elsewhere, copy_function=shutil.copy)
    moved = load(f"folder:{elsewhere}", 8, cache=tmp_path / "cache", progress=progress)
    assert moved.key == before.key
    assert seen == [(12, 12)]  # files read, nothing decoded
    seen.clear()
    for damage in (b"", b"\xff" * 64):
        for file in (tmp_path / "cache" / "data" / "contents").glob("*.txt"):
            file.write_bytes(damage)
        assert load(f"folder:{elsewhere}", 8, cache=tmp_path / "cache").key == before.key
    (elsewhere / "val" / "blue" / "0.png").touch()
    assert load(f"folder:{elsewhere}", 8, cache=tmp_path / "cache", progress=progress).key == before.key
    load(f"folder:{elsewhere}", 8, cache=tmp_path / "cache", progress=progress)
    assert seen == [(12, 12)]
    (elsewhere / "val" / "blue" / "0.png").rename(elsewhere / "val" / "red things" / "9.png")
    assert load(f"folder:{elsewhere}", 8, cache=tmp_path / "cache").key != before.key


def test_file_that_cannot_be_read_is_named(photos, tmp_path):
    (photos / "train" / "blue" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert "train/blue/broken.png: No such file or directory" in wrong(f"folder:{photos}", tmp_path / "cache")


def test_class_that_val_lacks_is_fine_but_not_the_other_way(photos, tmp_path):
    picture(photos / "train" / "green" / "0.png")
    assert load(f"folder:{photos}", 8, cache=tmp_path / "cache").val.labels.tolist() == [0, 0, 0, 2, 2, 2]
    picture(photos / "val" / "grey" / "0.png")
    message = wrong(f"folder:{photos}", tmp_path / "cache")
    assert "val/grey: train/ has no class of this name; its classes are blue, green, red things" in message


def test_centre_is_what_is_kept(tmp_path):
    image = Image.new("RGB", (90, 30), BLUE)
    image.paste(RED, (30, 0, 60, 30))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png", 30), np.broadcast_to(np.uint8(RED), (30, 30, 3)))


def test_links_are_followed_once_and_hidden_folders_are_not(photos, tmp_path):
    picture(tmp_path / "more" / "x.jfif", RED).with_suffix(".JPE").write_bytes(
        (tmp_path / "more" / "x.jfif").read_bytes()
    )
    blue = photos / "train" / "blue"
    (blue / "more").symlink_to(tmp_path / "more")
    (blue / "again").symlink_to(blue)
    picture(blue / ".thumbs" / "0.jpg", RED)
    images = load(f"folder:{photos}", 8, cache=tmp_path / "cache")
    assert images.train.labels.tolist() == [0] * 5 + [1] * 3


def test_damaged_metadata_does_not_damage_the_picture(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (32, 32), RED).save(file, exif=b"Exif\0\0" + bytes(40), dpi=(72, 72))
    np.testing.assert_allclose(decoded(file, 8)[4, 4], RED, atol=6)


def test_warnings_are_as_before(photos, tmp_path):
    before = list(warnings.filters)
    load(f"folder:{photos}", 8, cache=tmp_path / "cache")
    assert warnings.filters == before


def test_upright_as_exif_says(tmp_path):
    image = Image.new("RGB", (32, 32), BLUE)
    image.paste(RED, (0, 0, 32, 16))  # red above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: red goes to the right
    image.save(tmp_path / "a.png", exif=exif)
    pixels = decoded(tmp_path / "a.png", 32)
    assert pixels[16, 28].tolist() == list(RED)
    assert pixels[16, 3].tolist() == list(BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
@pytest.mark.parametrize("size", [(1, 1), (40, 30)])
def test_every_mode_gives_the_same_grey(mode, size, tmp_path):
    grey = 255 if mode == "1" else 102  # which the web palette has
    if mode.startswith("I"):
        values = np.full(size[::-1], grey * 257, np.uint16 if mode == "I;16" else np.int32)
        image = Image.fromarray(values)
    else:
        image = Image.new("RGB", size, (grey,) * 3).convert(mode)
    file = tmp_path / ("a.tif" if mode in ("CMYK", "I") else "a.png")
    image.save(file)
    pixels = decoded(file, 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, grey, atol=1)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (20, 20), (200, 0, 0, 0)).save(tmp_path / "a.png")
    assert (decoded(tmp_path / "a.png", 8) == 255).all()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 cut"])
def test_damaged_file_is_named(content, photos, tmp_path):
    file = photos / "train" / "blue" / "1.png"
    file.write_bytes(content)
    message = wrong(f"folder:{photos}", tmp_path / "cache")
    assert str(file) in message
    assert "mend or remove" in message


def test_truncated_file_is_named(photos, tmp_path):
    file = photos / "val" / "red things" / "1.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (200, 200, 3), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:5000])
    message = wrong(f"folder:{photos}", tmp_path / "cache")
    assert f"image {file}: cannot be decoded" in message


def test_bomb_is_refused(photos, tmp_path):
    file = photos / "val" / "blue" / "1.png"
    Image.new("1", (20_000, 10_000)).save(file)
    message = wrong(f"folder:{photos}", tmp_path / "cache")
    assert f"image {file}: refused as a decompression bomb" in message


def test_program_in_disguise_is_not_run(photos, tmp_path):
    file = photos / "train" / "blue" / "1.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(touched) (w) file\n")
    assert "not an image of a known format" in wrong(f"folder:{photos}", tmp_path / "cache")


def test_flat_val_says_how_to_mend(photos, tmp_path):
    for folder in list((photos / "val").iterdir()):
        for file in folder.iterdir():
            file.rename(photos / "val" / f"{folder.name}{file.name}")
        folder.rmdir()
    message = wrong(f"folder:{photos}", tmp_path / "cache")
    assert "6 images and no class folders; move each into val/CLASS/" in message


def test_tiny_imagenets_val_says_how_to_mend(photos, tmp_path):
    (photos / "val" / "blue").rename(photos / "val" / "images")
    for file in (photos / "val" / "red things").iterdir():
        file.unlink()
    (photos / "val" / "red things").rmdir()
    (photos / "val" / "val_annotations.txt").write_text("0.png\tblue\n")
    message = wrong(f"folder:{photos}", tmp_path / "cache")
    assert "move each image into val/CLASS/ as val_annotations.txt says" in message


def test_what_is_not_there(photos, tmp_path):
    cache = tmp_path / "cache"
    assert "no such folder" in wrong(f"folder:{tmp_path}/nowhere", cache)
    assert "no folder train/ in it (there is blue, red things)" in wrong(f"folder:{photos}/train", cache)
    (photos / "train" / "empty").mkdir()
    assert "train/empty: no images in it" in wrong(f"folder:{photos}", cache)
    (photos / "train" / "empty").rmdir()
    for file in (photos / "train" / "blue").iterdir():
        file.unlink()
    (photos / "train" / "blue").rmdir()
    assert "one class (red things)" in wrong(f"folder:{photos}", cache)
    assert not cache.exists()


def test_no_classes(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "empty" / split).mkdir(parents=True)
    assert "no class folders in it" in wrong(f"folder:{tmp_path}/empty", tmp_path / "cache")


def test_sixteen_bits_keep_black_and_white(tmp_path):
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "white.png")
    Image.fromarray(np.full((4, 4), 25700, np.uint16)).save(tmp_path / "grey.png")
    assert (decoded(tmp_path / "white.png", 4) == 255).all()
    assert (decoded(tmp_path / "grey.png", 4) == 100).all()
