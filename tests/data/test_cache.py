import errno
import multiprocessing
import os

import numpy as np
import pytest

from lkspace.data import cache_folder, load
from lkspace.errors import RunError, UserError

SPEC = "digits:train=50,val=30"


def only_folder(cache):
    (folder,) = (p for p in (cache / "data").iterdir() if p.is_dir())
    return folder


def test_progress_once_then_from_the_cache(tmp_path):
    seen = []
    first = load(SPEC, 16, cache=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (80, 80)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    seen.clear()
    second = load(SPEC, 16, cache=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert not seen
    np.testing.assert_array_equal(first.val.images, second.val.images)
    assert not list((tmp_path / "data").glob(".*"))


def test_each_size_has_its_own_folder(tmp_path):
    assert load(SPEC, 16, cache=tmp_path).key != load(SPEC, 24, cache=tmp_path).key


def _load(cache, barrier, results):
    barrier.wait()
    seen = []
    images = load(SPEC, 24, cache=cache, progress=lambda done, total: seen.append(done))
    results.put((int(images.train.images.sum()), bool(seen)))


def test_processes_that_come_at_once_decode_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_load, args=(tmp_path, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({total for total, _ in answers}) == 1
    assert sum(decoded for _, decoded in answers) == 1


@pytest.mark.parametrize("damage", ["cut", "missing", "empty", "rubbish"])
def test_damaged_folder_is_made_anew(damage, tmp_path):
    before = np.array(load(SPEC, 16, cache=tmp_path).train.images)
    file = only_folder(tmp_path) / "train_images.npy"
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes({"cut": content[:-1000], "empty": b"", "rubbish": b"no numpy file"}[damage])
    np.testing.assert_array_equal(load(SPEC, 16, cache=tmp_path).train.images, before)


def test_what_a_killed_process_left_is_cleaned_up(tmp_path):
    load(SPEC, 16, cache=tmp_path)
    folder = only_folder(tmp_path)
    left = folder.parent / f".{folder.name}.999999"
    folder.rename(left)
    load(SPEC, 16, cache=tmp_path)
    assert folder.is_dir()
    assert not left.exists()


def test_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lkspace.data.cache.os.fsync", full)
    with pytest.raises(RunError, match=f"no room left for decoded images in {tmp_path}") as error:
        load(SPEC, 16, cache=tmp_path)
    assert "LKSPACE_CACHE" in str(error.value)
    assert not [p for p in (tmp_path / "data").iterdir() if p.is_dir()]


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write the image cache") as error:
        load(SPEC, 16, cache=tmp_path)
    assert str(tmp_path) in str(error.value)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LKSPACE_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "lkspace"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lkspace"
