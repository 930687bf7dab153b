"""Decoded images kept on disk, so that later epochs, and later runs on the same data, decode nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from trainer.data.transforms import ImageTransform

if sys.platform != "win32":
    import fcntl

FORMAT = 2
"""Part of every key: to be raised where images.py reads an image otherwise, or a store is laid out otherwise."""

MAX_CHOSEN_BYTES = 20 * 10**9
MAX_CHOSEN_SHARE = 0.5
"""Of the free disk, where the user names no budget."""

MIN_FREE_BYTES = 10**9
"""Never taken from the disk, whatever the budget: a run must be able to save its checkpoints."""

CHECKSUM_BYTES = 4
SUFFIX = ".images"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreContent:
    """What a store is to hold: ``key`` names these images as they are fitted; ``shapes`` are (h, w) of each."""

    key: str
    shapes: list[tuple[int, int]]


def store_content(
    transform: ImageTransform, files: Sequence[tuple[str, os.stat_result]], sides: Sequence[tuple[int, int]]
) -> StoreContent:
    """Describe the store of some images. Its key changes with the files, their order, and what is done to them.

    What is done is told by doing it to a few probes, so that a new version of a library that resizes otherwise is
    noticed as well.

    Args:
        transform: Its ``fit`` is what the store keeps.
        files: (absolute path, state) of each image. The time of the last change counts as well as the time that the
            file claims: archives often claim the same one for every file.
        sides: (width, height) of each, upright, in pixels.

    """
    shapes = [transform.fitted_shape(width, height) for width, height in sides]
    digest = hashlib.sha256(f"{FORMAT} {PIL.__version__}\n".encode())
    for probe in _probes():
        digest.update(transform.fit(probe).numpy().tobytes())
    for (path, state), shape in zip(files, shapes, strict=True):
        digest.update(os.fsencode(path))
        digest.update(f"\0{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {shape}\n".encode())
    return StoreContent(digest.hexdigest(), shapes)


def open_stores(folder: Path, budget_gb: float | None, contents: Sequence[StoreContent]) -> list[DecodedStore]:
    """Open a store for each content, as filled as it was left, within a budget that holds for the whole folder.

    The budget goes to the first images of the first contents; what it does not reach is decoded each time. Stores of
    other data that were not used for longest are deleted where it is exceeded, unless a process has them open.

    Args:
        folder: Where stores live; nothing else may. It need not exist.
        budget_gb: Disk space for all stores; None takes up to half of the free disk, and at most 20 GB.
        contents: What this run would keep, the most useful first.

    """
    paths = [folder / f"{content.key}{SUFFIX}" for content in contents]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        allowance_bytes = _make_room(folder, budget_gb, set(paths), sum(_end_bytes(content) for content in contents))
    except OSError as error:
        _log.warning("Decoded images are not kept: %s.", error)
        allowance_bytes = 0
    stores = []
    for path, content in zip(paths, contents, strict=True):
        stores.append(DecodedStore(path, content.shapes, allowance_bytes))
        allowance_bytes -= stores[-1].num_bytes
    return stores


def find_budget(folder: Path, budget_gb: float | None) -> int:
    """Return the bytes that all stores in a folder may take, used ones included; 0 where none can be kept."""
    try:
        return _budget(folder, budget_gb, sum(_taken_bytes(path.stat()) for path in folder.glob(f"*{SUFFIX}")))
    except OSError:
        # Opening stores has said why.
        return 0


class DecodedStore:
    """Fitted images in one file, each in a place that is known in advance, behind a table of their checksums.

    Every process that loads images opens the file for itself; a copy that is sent to another process opens it there.
    Two processes that fill one place write the same bytes. A checksum is written after its image and compared when a
    process first reads what it has not written, so that an image half written, at a crash or by another process, counts
    as missing.

    The file is read and written, not mapped: the system keeps it in memory all the same, but a full disk or a network
    folder that is gone raises OSError, where a map would kill the process. The store then keeps no more, and images
    are decoded. For one thread of each process.

    Attributes:
        num_kept: Number of images that have a place: the first ones.
        num_bytes: What the file takes when all of them are in it.
        all_bytes: What it would take if there were a place for every image.

    """

    def __init__(self, path: Path, shapes: Sequence[tuple[int, int]], max_bytes: int) -> None:
        """Open or create the file.

        Args:
            path: The file. Its name tells what is in it.
            shapes: (h, w) of each image.
            max_bytes: The file stays below.

        """
        self._file: io.FileIO | None = None
        self._path = path
        self._shapes = list(shapes)
        sizes = np.array([3 * h * w for h, w in self._shapes], dtype=np.int64)
        ends = CHECKSUM_BYTES * len(sizes) + np.cumsum(sizes)
        self._starts = ends - sizes
        self.num_kept = int(np.searchsorted(ends, max_bytes, side="right"))
        self.num_bytes = int(ends[self.num_kept - 1]) if self.num_kept else 0
        self.all_bytes = int(ends[-1]) if len(ends) else 0
        self._is_compared = bytearray(self.num_kept)
        if self.num_kept:
            try:
                self._opened()
                os.utime(path)
            except OSError as error:
                self._give_up(error)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        # Nothing is buffered: a store that is merely forgotten loses nothing.
        self.close()

    def read(self, sample_idx: int) -> Tensor | None:
        """Return the uint8 tensor (3, h, w) of an image, laid out as Pillow does, or None where it is not kept yet."""
        if sample_idx >= self.num_kept:
            return None
        height, width = self._shapes[sample_idx]
        pixels = torch.empty((height, width, 3), dtype=torch.uint8)
        try:
            is_whole = self._read_into(sample_idx, pixels)
        except OSError as error:
            self._give_up(error)
            return None
        return pixels.permute(2, 0, 1) if is_whole else None

    def write(self, sample_idx: int, fitted: Tensor) -> None:
        """Keep the uint8 tensor (3, h, w) of an image, if it has a place and the disk has room."""
        # Another shape: the file was changed after the scan.
        if sample_idx >= self.num_kept or fitted.shape != (3, *self._shapes[sample_idx]):
            return
        pixels = fitted.permute(1, 2, 0).contiguous().numpy()
        try:
            if shutil.disk_usage(self._path.parent).free < MIN_FREE_BYTES + pixels.nbytes:
                return
            file = self._opened()
            file.seek(int(self._starts[sample_idx]))
            if file.write(pixels.data) == pixels.nbytes:
                file.seek(CHECKSUM_BYTES * sample_idx)
                file.write(_checksum(pixels))
                self._is_compared[sample_idx] = True
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close this process's file. The next read or write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_into(self, sample_idx: int, pixels: Tensor) -> bool:
        file = self._opened()
        values = pixels.numpy()
        checksum = b""
        if not self._is_compared[sample_idx]:
            file.seek(CHECKSUM_BYTES * sample_idx)
            checksum = file.read(CHECKSUM_BYTES)
            if not any(checksum):
                return False
        file.seek(int(self._starts[sample_idx]))
        if file.readinto(values.data) != values.nbytes:
            return False
        if not self._is_compared[sample_idx]:
            self._is_compared[sample_idx] = checksum == _checksum(values)
        return bool(self._is_compared[sample_idx])

    def _opened(self) -> io.FileIO:
        if self._file is None:
            self._file = io.FileIO(
                self._path, "r+", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, mode=0o600)
            )
            _lock_against_removal(self._file)
        return self._file

    def _give_up(self, error: OSError) -> None:
        _log.warning("Decoded images are kept no longer in %s: %s.", self._path, error)
        self.num_kept = self.num_bytes = 0
        self.close()


def _end_bytes(content: StoreContent) -> int:
    return sum(CHECKSUM_BYTES + 3 * h * w for h, w in content.shapes)


def _make_room(folder: Path, budget_gb: float | None, own: set[Path], wanted_bytes: int) -> int:
    """Delete what the budget does not reach, least recently used first. Returns the bytes that ``own`` may take."""
    states = {path: path.stat() for path in folder.glob(f"*{SUFFIX}")}
    budget_bytes = _budget(folder, budget_gb, sum(_taken_bytes(state) for state in states.values()))
    others = {path: state for path, state in states.items() if path not in own}
    others_bytes = sum(_taken_bytes(state) for state in others.values())
    for path, state in sorted(others.items(), key=lambda other: other[1].st_mtime_ns):
        if others_bytes + wanted_bytes <= budget_bytes:
            break
        if _is_removed(path):
            others_bytes -= _taken_bytes(state)
    return max(budget_bytes - others_bytes, 0)


def _budget(folder: Path, budget_gb: float | None, taken_bytes: int) -> int:
    available_bytes = shutil.disk_usage(folder).free + taken_bytes
    if budget_gb is None:
        return min(MAX_CHOSEN_BYTES, int(available_bytes * MAX_CHOSEN_SHARE))
    return min(int(budget_gb * 1e9), max(available_bytes - MIN_FREE_BYTES, 0))


def _taken_bytes(state: os.stat_result) -> int:
    """Return what a file takes on the disk: where nothing was written yet, that is less than its size."""
    # Python has st_blocks only where the system has.
    return int(getattr(state, "st_blocks", -(-state.st_size // 512))) * 512


def _is_removed(path: Path) -> bool:
    """Delete a store, unless a process has it open or the system does not let us."""
    with contextlib.suppress(OSError):
        if sys.platform != "win32":
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        else:
            path.unlink()
        return True
    return False


def _lock_against_removal(file: io.FileIO) -> None:
    """Mark a store as open. Windows deletes no open file anyway; where nothing can be locked, nothing is removed."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _checksum(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Return the checksum of an image, which is never 0: that marks an empty place."""
    return (zlib.crc32(pixels.data) or 1).to_bytes(CHECKSUM_BYTES, "little")


def _probes() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((61, 97), (90, 47))]
