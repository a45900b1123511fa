"""`folder:PATH`: photographs at any size in PATH/train/CLASS/ and PATH/val/CLASS/, the layout most people have."""

import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from lkspace.data.photo import SUFFIXES, decoded
from lkspace.data.source import SPLITS, Labels, Pixels, SplitName, in_order
from lkspace.errors import UserError

LAYOUT = "expected train/CLASS/*.jpg and val/CLASS/*.jpg"
CHUNK = 64


@dataclass(frozen=True)
class Folder:
    """Class names are the folders of train/, sorted; files are sorted by path, so the order is the same everywhere.

    labelled: per split the paths and labels of its images.
    """

    path: Path
    class_names: tuple[str, ...]
    labelled: dict[SplitName, list[tuple[Path, int]]]
    flip: bool = True
    shift: bool = True
    epoch_images: int | None = None
    native_size: int | None = None
    fixed_size: bool = False

    @classmethod
    def open(cls, path: Path) -> Self:
        """The lists of files; UserError that says what is missing where, and how to mend it."""
        if not path.is_dir():
            raise UserError(f"data folder {path}: no such folder; {LAYOUT} in it")
        try:
            for split in SPLITS:
                _check_layout(path, split)
            train = _classes(path / "train")
            names = tuple(sorted(train))
            if len(names) < 2:
                raise UserError(
                    f"data folder {path}/train: one class ({names[0]}); two or more are needed to tell apart"
                )
            val = _classes(path / "val")
            if unknown := sorted(set(val) - set(names)):
                raise UserError(
                    f"data folder {path}/val/{unknown[0]}: train/ has no class of this name;"
                    f" its classes are {_few(names)}"
                )
            label = {name: index for index, name in enumerate(names)}
            labelled: dict[SplitName, list[tuple[Path, int]]] = {
                "train": [(file, label[name]) for name in names for file in train[name]],
                "val": [(file, label[name]) for name in sorted(val) for file in val[name]],
            }
        except OSError as error:
            raise UserError(f"data folder {error.filename or path}: {error.strerror}; make it readable") from None
        return cls(path, names, labelled)

    def image_files(self, split: SplitName) -> list[Path]:
        """Sorted by class and path."""
        return [path for path, _ in self.labelled[split]]

    def files(self) -> list[Path]:
        """All images."""
        return [path for split in SPLITS for path in self.image_files(split)]

    def fingerprint(self) -> object:
        """Names of the classes, and how many images of each class there are, by split."""
        counts = {split: np.bincount(self.labels(split), minlength=len(self.class_names)).tolist() for split in SPLITS}
        return ["folder", self.class_names, counts]

    def labels(self, split: SplitName) -> Labels:
        """(n,), sorted by class and path."""
        return np.array([label for _, label in self.labelled[split]], np.int64)

    def chunks(self, split: SplitName, size: int) -> Iterator[Pixels]:
        """Decoded, upright, cropped and resized; UserError naming the first file that cannot be."""
        paths = iter(self.image_files(split))

        def decode(batch: list[Path]) -> Pixels:
            return np.stack([decoded(path, size) for path in batch])

        with warnings.catch_warnings():  # not where threads decode: it changes the filters of the whole process
            warnings.simplefilter("ignore")  # odd metadata of photographs, not a matter here
            batches = iter(lambda: list(itertools.islice(paths, CHUNK)), [])
            yield from in_order(decode, batches, CHUNK * 3 * size**2)


def _check_layout(path: Path, split: SplitName) -> None:
    folder = path / split
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())[:5]) or "nothing"
        raise UserError(f"data folder {path}: no folder {split}/ in it (there is {there}); {LAYOUT}")
    flat = [file for file in folder.iterdir() if _is_image(file)]
    listed = sorted(path.glob(f"{split}/*annotations*.txt"))
    classes = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if flat and not classes:
        raise UserError(
            f"data folder {folder}: {len(flat)} images and no class folders;"
            f" move each into {split}/CLASS/, the same CLASS as in train/"
        )
    if split == "val" and listed and len(classes) == 1:  # Tiny ImageNet: val/images/ and val/val_annotations.txt
        raise UserError(
            f"data folder {folder}: one folder {classes[0].name}/ for all classes; move each image into val/CLASS/"
            f" as {listed[0].name} says"
        )
    if not classes:
        raise UserError(f"data folder {folder}: no class folders in it; {LAYOUT}")


def _classes(folder: Path) -> dict[str, list[Path]]:
    classes = {}
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        images = sorted(Path(base) / name for base, names in _walk(place) for name in names if _is_image(Path(name)))
        if not images:
            raise UserError(
                f"data folder {place}: no images in it (of {', '.join(SUFFIXES)}); add some or remove the folder"
            )
        classes[place.name] = images
    return classes


def _walk(place: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders under a place with the names of their files; linked ones too, each once, hidden ones not."""
    seen = set()
    for base, folders, names in os.walk(place, onerror=_raise, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield base, names


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _raise(error: OSError) -> None:
    raise error


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
