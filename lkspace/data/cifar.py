"""`cifar10:PATH` and `cifar100:PATH`: the python pickles of the official archives, unpacked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from lkspace.data.arrays import checked_labels, resized
from lkspace.data.source import Labels, Pixels, SplitName
from lkspace.data.unpickle import unpickled
from lkspace.errors import UserError

SIDE = 32


@dataclass(frozen=True)
class _Layout:
    folder: str
    files: dict[SplitName, tuple[str, ...]]
    meta: str
    names: str
    labels: str


_LAYOUTS = {
    10: _Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "val": ("test_batch",)},
        "batches.meta",
        "label_names",
        "labels",
    ),
    100: _Layout(
        "cifar-100-python", {"train": ("train",), "val": ("test",)}, "meta", "fine_label_names", "fine_labels"
    ),
}


@dataclass(frozen=True)
class Cifar:
    """The test images of the archive are the val split; sizes other than 32 are resized bilinearly."""

    path: Path
    classes: Literal[10, 100]
    class_names: tuple[str, ...]
    flip: bool = True
    shift: bool = True
    epoch_images: int | None = None
    native_size: int = SIDE
    fixed_size: bool = False

    @classmethod
    def open(cls, path: Path, classes: Literal[10, 100]) -> Self:
        """PATH is the unpacked folder or the one around it; UserError if a file of it is missing or no such pickle."""
        layout = _LAYOUTS[classes]
        if path.is_file():
            raise UserError(f"data {path}: is a file; unpack the archive and give the folder {layout.folder}")
        if (path / layout.folder).is_dir():
            path = path / layout.folder
        for name in (layout.meta, *layout.files["train"], *layout.files["val"]):
            if not (path / name).is_file():
                raise UserError(
                    f"data {path}: no file {name} in it; expected the python version of CIFAR-{classes}, unpacked"
                )
        return cls(path, classes, _class_names(path / layout.meta, layout.names, classes))

    def files(self) -> list[Path]:
        """The pickles that images are read from."""
        return [self.path / name for names in _LAYOUTS[self.classes].files.values() for name in names]

    def fingerprint(self) -> object:
        """How many classes: the files say the rest."""
        return ["cifar", self.classes]

    def labels(self, split: SplitName) -> Labels:
        """(n,) fine labels in the order of the files."""
        return np.concatenate([labels for _, labels in self._read(split)])

    def chunks(self, split: SplitName, size: int) -> Iterator[Pixels]:
        """Images in the order of the files."""
        for images, _ in self._read(split):
            yield from resized(images, size)

    def _read(self, split: SplitName) -> Iterator[tuple[Pixels, Labels]]:
        layout = _LAYOUTS[self.classes]
        for name in layout.files[split]:
            yield _batch(self.path / name, layout.labels, self.classes)


def _batch(path: Path, labels: str, classes: int) -> tuple[Pixels, Labels]:
    content = unpickled(path)
    images = content.get("data")
    planes = 3 * SIDE * SIDE
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (planes,):
        raise UserError(f"data {path}: no uint8 images (n, {planes}) under 'data'; expected a CIFAR batch")
    square = images.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return square, checked_labels(content.get(labels, []), len(images), classes, str(path))


def _class_names(path: Path, key: str, classes: int) -> tuple[str, ...]:
    names: Any = unpickled(path).get(key)
    if not isinstance(names, list) or len(names) != classes:
        raise UserError(
            f"data {path}: no {classes} class names under {key!r}; expected the meta file of CIFAR-{classes}"
        )
    return tuple(n.decode("utf8", "replace") if isinstance(n, bytes) else str(n) for n in names)
