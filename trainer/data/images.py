"""Reading one image file as the RGB that a person would see, or saying in a sentence why that cannot be done."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from trainer.config_error import ConfigError
from trainer.path_text import displayed as displayed

MAX_PIXELS = 89_478_485
"""Pillow's own threshold for a decompression bomb; an image over it is refused, not only warned about."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
"""What is read, by Pillow's names. Some of its other formats run a program to draw (EPS runs Ghostscript)."""


NOT_AN_IMAGE = "it is not an image that can be read here"
NO_MEMORY = "there was not enough memory to decode it"


class DataError(ConfigError):
    """Data that cannot be used."""

    def __init__(self, message: str, field: str = "data.path", choices: Sequence[str] = ()) -> None:
        super().__init__(message, field, choices=choices)


def load_rgb(path: str | PathLike[str], least_side: int | None = None) -> Image.Image:
    """Read an image as a person sees it: upright, in RGB, 8 bits a channel, transparency over white, first frame.

    Enter ``quiet_pillow`` around it.

    Args:
        path: The file.
        least_side: A large JPEG may be decoded at a half, a quarter or an eighth of its size, which is three to four
            times as fast, where its sides can be divided so and keep at least this many pixels. None: as it is.

    Raises:
        DataError: The file cannot be read or decoded; names it.

    """
    image, reason = try_load(path, least_side=least_side)
    if image is None:
        raise DataError(
            f"Cannot read the image {displayed(path)}: {reason}. Put it back as it was, or take it out and start a new "
            "run."
        )
    return image


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata, and make the one about decompression bombs an error.

    Changes the filters of the whole process: enter it once around a pool of threads, never inside of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def try_load(
    source: str | PathLike[str] | BinaryIO, *, is_grey_enough: bool = False, least_side: int | None = None
) -> tuple[Image.Image | None, str]:
    """Decode an image fully. Returns (image, "") or (None, the reason in a few words); raises nothing.

    Args:
        source: A path, or an open file of bytes, which is read from its start.
        is_grey_enough: Whether the image may be grey ("L") in place of RGB. All of a JPEG's bytes are decoded even so,
            only no colors are made of them, which takes time.
        least_side: As in ``load_rgb``.

    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None, _too_large(f"{image.width} × {image.height} pixels")
            if is_grey_enough:
                image.draft("L", None)
            if least_side is not None and (divisor := _divisor(image, least_side)) > 1:
                # The decoder's own scaling (libjpeg's); other formats take no notice.
                image.draft(None, (image.width // divisor, image.height // divisor))
            image.load()
            return _as_seen(image, is_grey_enough=is_grey_enough), ""
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise anything on damaged bytes; the reason is kept
        return None, reason_for(error)


def reason_for(error: Exception) -> str:
    """Say in a few words why a file that raised this, as it was read or decoded, is no image for a run."""
    match error:
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return _too_large("too many pixels")
        case UnidentifiedImageError():
            return NOT_AN_IMAGE
        case FileNotFoundError():
            return "it is not there any more"
        case PermissionError():
            return "there is no permission to read it"
        case MemoryError():
            return NO_MEMORY
    return f"it is damaged or incomplete ({_first_line(error)})"


def _divisor(image: Image.Image, least_side: int) -> int:
    """Return by what an image can be made smaller and keep its proportions to the pixel, and ``least_side``."""
    width, height = image.size
    fitting = (by for by in (8, 4, 2) if width % by == height % by == 0 and min(width, height) // by >= least_side)
    return next(fitting, 1)


def _too_large(size: str) -> str:
    return f"it has {size}, over the limit of {MAX_PIXELS // 1_000_000} million"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].strip(" .") or type(error).__name__


def _as_seen(image: Image.Image, *, is_grey_enough: bool) -> Image.Image:
    # In place, and without a last copy of what is RGB already: each copy takes half as long as decoding a JPEG.
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    if image.mode == "RGB" or (image.mode == "L" and is_grey_enough):
        return image
    # The pixels may be those of the open file itself: convert() gives an image of its own.
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16- and 32-bit grey: by the 16-bit range where the values fit in it, else by their own range."""
    # Only here: the processes that check images seldom meet such an image, and start in half the time without it.
    import numpy as np

    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I") and low >= 0 and high <= 65_535:
        low, high = 0.0, 65_535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "F" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values - low) / max(high - low, 1e-12) * 255
    return Image.fromarray(np.round(scaled).astype(np.uint8))
