"""Images that come as one array: how they are brought to a size, and labels checked."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from lkspace.data.photo import square
from lkspace.data.source import Labels, Pixels, in_order
from lkspace.errors import UserError

CHUNK = 256


def resized(images: Pixels, size: int) -> Iterator[Pixels]:
    """images (n, h, w, 3) to chunks (k, size, size, 3): the central square, bilinear with antialiasing."""

    def chunk(start: int) -> Pixels:
        part = images[start : start + CHUNK]
        if part.shape[1:3] == (size, size):
            return part
        return np.stack([square(Image.fromarray(image), size) for image in part])

    return in_order(chunk, range(0, len(images), CHUNK), CHUNK * 3 * size**2)


def checked_labels(values: object, images: int, classes: int | None, where: str) -> Labels:
    """(n,) int64 of whole numbers in [0, classes); UserError naming `where` if they are not, or not one an image."""
    try:
        labels = np.asarray(values)
    except ValueError:
        raise UserError(f"data {where}: labels are lists of different lengths, expected whole numbers (n,)") from None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(f"data {where}: labels are {labels.dtype} of shape {labels.shape}, expected whole numbers (n,)")
    if len(labels) != images:
        raise UserError(f"data {where}: {len(labels)} labels for {images} images; expected as many")
    if images == 0:
        raise UserError(f"data {where}: no images")
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise UserError(f"data {where}: label {bad}, expected 0 to {'classes - 1' if classes is None else classes - 1}")
    return labels.astype(np.int64)
