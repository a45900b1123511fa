"""One image file or array to a square of uint8 RGB: any mode, any orientation, nothing executed, errors by name."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lkspace.data.source import Pixels
from lkspace.errors import UserError

# No format that Pillow hands to another program (EPS goes to Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
LARGEST_PIXELS = 2 * 89_478_485  # as Pillow's own limit; a bomb of a few kilobytes may claim far more


def decoded(path: Path, size: int) -> Pixels:
    """The file's image, upright, its central square resized to (size, size, 3).

    Transparent pixels lie on white, 16-bit values are scaled to 8, of an animation the first frame is taken.
    Raises UserError, naming the file, if it is damaged, cut short, not an image, or of more than 179 megapixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels are too many")
            image.draft("RGB", (size, size))  # a JPEG far larger than needed is decoded at a fraction
            image.load()
            return square(_rgb(_upright(image)), size)
    except UnidentifiedImageError:
        reason = "not an image of a known format"
    except Image.DecompressionBombError as error:
        reason = f"refused as a decompression bomb ({error})"
    except MemoryError:
        reason = "too large for the memory"
    except Exception as error:  # decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error
        reason = f"cannot be decoded ({str(error) or type(error).__name__})"
    raise UserError(f"image {path}: {' '.join(reason.split())}; mend or remove the file")


def square(image: Image.Image, size: int) -> Pixels:
    """The central square of an RGB image, resized with antialiasing to (size, size, 3)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (size, size):
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.asarray(image, np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata does not damage the picture
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError(f"mode {image.mode} holds values that are neither 8 nor 16 bit")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
