"""What one reading of one file tells of it: whether a run can use it, its size, and what it is equal or similar to."""

from __future__ import annotations

import hashlib
import io
import os
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from trainer.data.images import NO_MEMORY, reason_for, try_load

EMPTY = "it is empty (0 bytes)"

MIN_HASHED_SIDE = 32
"""A smaller picture has no picture hash, in pixels: at 8 × 8, most handwritten sevens look the same."""

MIN_STEPS = 24
"""A picture with fewer visible steps between neighbouring cells, of 64, has no picture hash."""

_STEP_LEVELS = 3
_CELLS = (9, 8)
_SAMPLES_PER_CELL = 24
_MAX_BYTES_AT_ONCE = 64 * 1024**2


class FileFacts(NamedTuple):
    """What an examination found out about a file.

    Attributes:
        reason: Why no run will read it, in a few words; "" if it is a readable image.
        width: As a person sees it (EXIF rotation applied), in pixels; 0 if unreadable.
        height: Likewise.
        size_bytes: Of the file.
        content_hash: SHA-256 of the file's bytes, as hexadecimal digits; "" if they could not be read.
        picture_hash: 64 bits that nearly the same pictures nearly share; None if unreadable, small, or without enough
            structure to be told from others.

    """

    reason: str
    width: int = 0
    height: int = 0
    size_bytes: int = 0
    content_hash: str = ""
    picture_hash: int | None = None


def read_facts(path: str | Path) -> FileFacts:
    """Read a file once, decode it fully, and raise nothing. Enter ``quiet_pillow`` around it."""
    try:
        with Path(path).open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes <= _MAX_BYTES_AT_ONCE:
                content = file.read()
                return _facts_of(io.BytesIO(content), len(content), hashlib.sha256(content).hexdigest())
            # It may be a film of gigabytes: never held in memory at once.
            content_hash = hashlib.file_digest(file, "sha256").hexdigest()
            return _facts_of(file, size_bytes, content_hash)
    except OSError as error:
        return FileFacts(reason_for(error))


def _facts_of(file: BinaryIO, size_bytes: int, content_hash: str) -> FileFacts:
    if not size_bytes:
        return FileFacts(EMPTY, content_hash=content_hash)
    image, reason = try_load(file, is_grey_enough=True)
    if image is None:
        # Memory may be there the next time: without a hash, this is not remembered.
        return FileFacts(reason, size_bytes=size_bytes, content_hash="" if reason == NO_MEMORY else content_hash)
    return FileFacts("", image.width, image.height, size_bytes, content_hash, picture_hash(image))


def picture_hash(image: Image.Image) -> int | None:
    """Return the difference hash of an image in RGB or grey: 64 bits, or None where they would say nothing.

    A bit is set where a cell of 9 × 8 is brighter than its left neighbour, as in dHash (N. Krawetz, "Kind of like
    that", The Hacker Factor Blog, 2013). Two things differ: steps of up to 3 of 255 levels leave their bit at 0, so
    that noise flips none in plain areas, and a picture of mostly plain areas has no hash, since it would equal that of
    any other such picture.
    """
    if min(image.size) < MIN_HASHED_SIDE:
        return None
    # 576 samples of each cell average out noise as well as all pixels do, at a fifth of the time.
    samples = (_CELLS[0] * _SAMPLES_PER_CELL, _CELLS[1] * _SAMPLES_PER_CELL)
    cells = image.resize(samples, Image.Resampling.NEAREST).reduce(_SAMPLES_PER_CELL).convert("L")
    levels, width = cells.tobytes(), _CELLS[0]
    steps = [right - left for idx, (left, right) in enumerate(pairwise(levels), start=1) if idx % width]
    if sum(abs(step) > _STEP_LEVELS for step in steps) < MIN_STEPS:
        return None
    return int("".join("1" if step > _STEP_LEVELS else "0" for step in steps), 2)
