"""`npz:PATH`: one numpy archive with x_train, y_train, x_val, y_val; MedMNIST's and Keras' names are known too."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lkspace.data.arrays import checked_labels, resized
from lkspace.data.source import Labels, Pixels, SplitName
from lkspace.errors import UserError

# First match wins: ours, MedMNIST's, Keras'.
_NAMES: tuple[dict[SplitName, tuple[str, str]], ...] = (
    {"train": ("x_train", "y_train"), "val": ("x_val", "y_val")},
    {"train": ("train_images", "train_labels"), "val": ("val_images", "val_labels")},
    {"train": ("x_train", "y_train"), "val": ("x_test", "y_test")},
)


@dataclass(frozen=True)
class Npz:
    """Images uint8 (n, h, w), (n, h, w, 1), (n, h, w, 3) or (n, 3, h, w); labels whole numbers from 0, (n,) or (n, 1).

    An optional array class_names names the classes. Images are not mirrored: nobody says that a label survives it.
    """

    path: Path
    names: dict[SplitName, tuple[str, str]]
    class_names: tuple[str, ...]
    native_size: int
    flip: bool = False
    shift: bool = True
    epoch_images: int | None = None
    fixed_size: bool = False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads and checks the labels; UserError if an array is missing, of a wrong kind, or pickled."""
        with _archive(path) as archive:
            names = next((n for n in _NAMES if all(a in archive.files for pair in n.values() for a in pair)), None)
            if names is None:
                there = ", ".join(archive.files[:8]) or "nothing"
                raise UserError(f"data {path}: arrays x_train, y_train, x_val, y_val expected; there is {there}")
            train = _array(archive, path, names["train"][1])
            given = _array(archive, path, "class_names") if "class_names" in archive.files else None
            if train.dtype.kind not in "iu":
                raise UserError(f"data {path}: {names['train'][1]} is {train.dtype}, expected whole numbers from 0")
            classes = int(train.max(initial=0)) + 1
            different = len(np.unique(train))
            if given is None and 0 < different < classes:
                raise UserError(
                    f"data {path}: {names['train'][1]} has {different} different labels up to {classes - 1};"
                    " number them from 0, or add an array class_names"
                )
            class_names = tuple(map(str, range(classes) if given is None else given.ravel()))
            shape = _shape(archive, path, names["train"][0])
        if len(class_names) < max(2, classes):
            raise UserError(
                f"data {path}: {len(class_names)} classes for labels up to {classes - 1}; two or more are needed"
            )
        return cls(path, names, class_names, min(shape[2:] if _planes_first(shape) else shape[1:3]))

    def files(self) -> list[Path]:
        """The archive."""
        return [self.path]

    def fingerprint(self) -> object:
        """Nothing but what it is: the archive says the rest."""
        return ["npz"]

    def labels(self, split: SplitName) -> Labels:
        """(n,), checked against the number of images and of classes."""
        images, labels = self.names[split]
        with _archive(self.path) as archive:
            count = _shape(archive, self.path, images)[0]
            values = _array(archive, self.path, labels)
        return checked_labels(values, count, len(self.class_names), f"{self.path}: {labels}")

    def chunks(self, split: SplitName, size: int) -> Iterator[Pixels]:
        """Central squares, resized."""
        name = self.names[split][0]
        with _archive(self.path) as archive:
            images = _array(archive, self.path, name)
        if images.dtype != np.uint8:
            raise UserError(
                f"data {self.path}: {name} is {images.dtype}, expected uint8 (scale to 0..255 and cast before saving)"
            )
        if images.ndim == 3:
            images = images[..., None]
        if _planes_first(images.shape):
            images = images.transpose(0, 2, 3, 1)
        if images.shape[3] == 1:
            images = np.broadcast_to(images, (*images.shape[:3], 3))
        return resized(images, size)


def _archive(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"data {path}: no such file")
    try:
        archive = np.load(path, allow_pickle=False)
    except Exception:  # nearly anything, as in `_unreadable`
        raise UserError(f"data {path}: not a numpy archive; save it with numpy.savez") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"data {path}: one array, expected an archive of four; save it with numpy.savez")
    return archive


def _array(archive: Any, path: Path, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(archive[name])
    except Exception as error:
        raise _unreadable(path, name, error) from None


def _shape(archive: Any, path: Path, name: str) -> tuple[int, ...]:
    """Shape from the header, without reading the images."""
    try:
        with archive.zip.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, _ = read(file)
    except Exception as error:
        raise _unreadable(path, name, error) from None
    if (
        len(shape) not in (3, 4)
        or 0 in shape
        or (len(shape) == 4 and shape[3] not in (1, 3) and shape[1] not in (1, 3))
    ):
        raise UserError(
            f"data {path}: {name} has shape {shape}, expected images (n, h, w), (n, h, w, 3) or (n, 3, h, w)"
        )
    return tuple(shape)


def _unreadable(path: Path, name: str, error: Exception) -> UserError:
    """Readers raise nearly anything on damaged files: BadZipFile, zlib.error, RuntimeError, tokenize.TokenError."""
    reason = str(error) or type(error).__name__
    return UserError(f"data {path}: array {name} cannot be read ({' '.join(reason.split())})")


def _planes_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] not in (1, 3)
