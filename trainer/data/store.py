"""Decoded images kept on disk, so that later epochs, and later runs on the same data, decode nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from trainer.data.transforms import ImageTransform
from trainer.record_store import CHECKSUM_BYTES, RecordStore, make_room

FORMAT = 2
"""Part of every key: to be raised where images.py reads an image otherwise, or a store is laid out otherwise."""

SUFFIX = ".images"


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
    wanted_bytes = sum(_end_bytes(content) for content in contents)
    allowance_bytes = make_room(folder, "Decoded images", SUFFIX, budget_gb, set(paths), wanted_bytes)
    stores = []
    for path, content in zip(paths, contents, strict=True):
        stores.append(DecodedStore(path, content.shapes, allowance_bytes))
        allowance_bytes -= stores[-1].num_bytes
    return stores


class DecodedStore:
    """Fitted images in a file of records. For one thread of each process; what is not kept is decoded.

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
        self._shapes = list(shapes)
        self._records = RecordStore(path, np.array([3 * h * w for h, w in shapes], dtype=np.int64), max_bytes)

    @property
    def num_kept(self) -> int:
        """Return the number of images that have a place."""
        return self._records.num_kept

    @property
    def num_bytes(self) -> int:
        """Return what the file takes when all of them are in it."""
        return self._records.num_bytes

    @property
    def all_bytes(self) -> int:
        """Return what it would take if there were a place for every image."""
        return self._records.all_bytes

    def read(self, sample_idx: int) -> Tensor | None:
        """Return the uint8 tensor (3, h, w) of an image, laid out as Pillow does, or None where it is not kept yet."""
        if sample_idx >= self.num_kept:
            return None
        pixels = torch.empty((*self._shapes[sample_idx], 3), dtype=torch.uint8)
        return pixels.permute(2, 0, 1) if self._records.read_into(sample_idx, pixels.numpy()) else None

    def write(self, sample_idx: int, fitted: Tensor) -> None:
        """Keep the uint8 tensor (3, h, w) of an image, if it has a place and the disk has room."""
        # Another shape: the file was changed after the scan.
        if sample_idx < self.num_kept and fitted.shape == (3, *self._shapes[sample_idx]):
            self._records.write(sample_idx, fitted.permute(1, 2, 0).contiguous().numpy())

    def close(self) -> None:
        """Close this process's file. The next read or write opens it again."""
        self._records.close()


def _end_bytes(content: StoreContent) -> int:
    return sum(CHECKSUM_BYTES + 3 * h * w for h, w in content.shapes)


def _probes() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((61, 97), (90, 47))]
