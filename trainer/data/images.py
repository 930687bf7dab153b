"""Reading one image file as the RGB that a person would see, or saying in a sentence why that cannot be done."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from os import PathLike

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Pillow's own threshold for a decompression bomb; an image over it is refused, not only warned about."""


class DataError(ValueError):
    """Data that cannot be used. ``field`` is the dotted name of the config field at fault."""

    def __init__(self, message: str, field: str = "data.path") -> None:
        super().__init__(message)
        self.field = field


def load_rgb(path: str | PathLike[str]) -> Image.Image:
    """Read an image as a person sees it: upright, in RGB, 8 bits a channel, transparency over white, first frame.

    Raises:
        DataError: The file cannot be read or decoded; names it.

    """
    with quiet_pillow():
        image, reason = try_load(path)
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


def try_load(path: str | PathLike[str]) -> tuple[Image.Image | None, str]:
    """Decode an image fully. Returns (image, "") or (None, the reason in a few words); raises nothing."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return None, _too_large(f"{image.width} × {image.height} pixels")
            image.load()
            return _as_seen(image), ""
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None, _too_large("too many pixels")
    except UnidentifiedImageError:
        return None, "it is not an image that can be read here"
    except FileNotFoundError:
        return None, "it is not there any more"
    except PermissionError:
        return None, "there is no permission to read it"
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise anything on damaged bytes; the reason is kept
        return None, f"it is damaged or incomplete ({_first_line(error)})"


def displayed(path: str | PathLike[str]) -> str:
    """Return a path as text that any file and message can hold: bytes that are no UTF-8 become replacement marks."""
    return os.fsencode(path).decode("utf-8", "replace")


def _too_large(size: str) -> str:
    return f"it has {size}, over the limit of {MAX_PIXELS // 1_000_000} million"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].strip(" .") or type(error).__name__


def _as_seen(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return _scaled_to_8_bits(upright).convert("RGB")
    if upright.has_transparency_data:
        with_alpha = upright.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    # A palette's or a JPEG's first frame may alias the open file: convert() always gives an image of its own.
    return upright.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16- and 32-bit grey: by the 16-bit range where the values fit in it, else by their own range."""
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
