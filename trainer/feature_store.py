"""Features of the images of one split: what a model's frozen part gives for each, in memory and on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.available_memory import available_bytes
from trainer.record_store import CHECKSUM_BYTES, Bytes, RecordStore, make_room

SUFFIX = ".features"
MEMORY_SHARE = 0.25
"""Of the available memory, where the user names no budget."""


class FeatureStore:
    """Tensors with a row for each place: a place is one view of one image.

    Where there is room for them neither in memory nor on the disk, the rows that were put last can be taken once more,
    and no others: whoever computes the same rows for each batch anew gets the same features.

    Attributes:
        num_bytes: What all rows take.
        is_in_memory: Whether they stay in memory; else each is read from the disk.
        is_keeping: Whether there is room for them.

    """

    def __init__(
        self, rows: Sequence[Tensor], num_places: int, *, records: RecordStore | None, is_in_memory: bool
    ) -> None:
        """Describe the rows; memory is taken as they come.

        Args:
            rows: One row of each tensor, of which only the shape and the type count.
            num_places: Number of rows.
            records: Their file, with as many records; None: they have none.
            is_in_memory: Whether they are kept in memory.

        """
        self._rows = [torch.empty_like(row, device="cpu") for row in rows]
        self._row_bytes = sum(row.nbytes for row in rows)
        self._records = records
        self.is_in_memory = is_in_memory
        self.is_keeping = is_in_memory or records is not None
        self._last: tuple[Tensor, Sequence[Tensor]] = (torch.empty(0, dtype=torch.int64), ())
        self.num_bytes = self._row_bytes * num_places
        self._kept = [row.new_empty((num_places, *row.shape)) for row in self._rows] if is_in_memory else []
        self._is_kept = torch.zeros(num_places, dtype=torch.bool)
        self._is_whole = False
        self.known = torch.zeros(num_places, dtype=torch.bool)
        """Which rows are there; one that is only on the disk may still turn out to be broken."""
        if records is not None:
            self.known |= torch.from_numpy(records.written())

    @property
    def path(self) -> Path | None:
        """Return the file of the rows, if they have one."""
        return None if self._records is None else self._records.path

    @property
    def is_on_disk(self) -> bool:
        """Whether the rows outlast the worker."""
        return self._records is not None and self._records.num_kept > 0

    def put(self, places: Tensor, features: Sequence[Tensor]) -> None:
        """Keep rows.

        Args:
            places: Int64 (B,).
            features: Tensors with a row for each of them, of the store's shapes and types; on the CPU, where they are
                kept.

        """
        if not self.is_keeping:
            self._last = places, features
            return
        for kept, rows in zip(self._kept, features, strict=False):
            kept[places] = rows
        if self._records is not None:
            numbers = places.tolist()
            for number, record in zip(numbers, _as_records(features, self._row_bytes), strict=True):
                self._records.write(number, record)
        if self.is_in_memory:
            self._is_kept[places] = True
        self.known[places] = True

    def take(self, places: Tensor) -> list[Tensor]:
        """Return the rows of some places, int64 (B,), as new tensors.

        Raises:
            LostFeatures: Some are not there, or are broken.

        """
        if self.is_in_memory:
            if not self._is_whole:
                self._is_whole = bool(self._is_kept.all())
                if not self._is_whole and not self._is_kept[places].all():
                    self._read_back(places[~self._is_kept[places]])
            return [kept.index_select(0, places) for kept in self._kept]
        return self._read(places) if self.is_keeping else self._take_last(places)

    def is_kept(self, places: Tensor) -> bool:
        """Tell whether rows that were put there can be taken."""
        try:
            self.take(places)
        except LostFeatures:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._records is not None:
            self._records.close()

    def _take_last(self, places: Tensor) -> list[Tensor]:
        put, features = self._last
        position = {place: number for number, place in enumerate(put.tolist())}
        if not position.keys() >= set(places.tolist()):
            raise LostFeatures
        numbers = torch.tensor([position[place] for place in places.tolist()])
        return [rows.index_select(0, numbers.to(rows.device)) for rows in features]

    def _read_back(self, places: Tensor) -> None:
        """Move rows from the disk to memory."""
        for kept, rows in zip(self._kept, self._read(places), strict=True):
            kept[places] = rows
        self._is_kept[places] = True

    def _read(self, places: Tensor) -> list[Tensor]:
        numbers = places.tolist()
        records = np.empty((len(numbers), self._row_bytes), dtype=np.uint8)
        lost = [
            number
            for number, record in zip(numbers, records, strict=True)
            if self._records is None or not self._records.read_into(number, record)
        ]
        if lost:
            self.known[lost] = False
            raise LostFeatures
        return _as_rows(records, self._rows)


class LostFeatures(Exception):  # noqa: N818 (they are computed again, so it is no error)
    """Features that were there are not to be had any more."""


@dataclass(frozen=True)
class FeatureContent:
    """What a store is to hold: ``key`` names these features of these images, ``num_places`` is their number."""

    key: str
    num_places: int


def open_stores(
    folder: Path | None,
    contents: Sequence[FeatureContent],
    rows: Sequence[Tensor],
    disk_gb: float | None,
    memory_gb: float | None,
    left: Sequence[FeatureStore] = (),
) -> list[FeatureStore | None]:
    """Open a store for each content, as filled as it was left; None for one without places.

    Stores of other features that were not used for longest are deleted where the disk's budget is exceeded, unless a
    process has them open.

    Args:
        folder: Where stores live, those of all runs; None keeps features in memory alone.
        contents: What this run would keep, the most useful first.
        rows: What is kept of an image.
        disk_gb: Disk space for all stores; None takes up to half of the free disk, and at most 20 GB.
        memory_gb: Memory for these; None takes up to a quarter of what is free.
        left: Stores that are open here, and are filled no more.

    """
    row_bytes = sum(row.nbytes for row in rows)
    memory_bytes = available_bytes() * MEMORY_SHARE if memory_gb is None else memory_gb * 1e9
    disk_bytes, paths = 0, {}
    if folder is not None:
        paths = {content.key: folder / f"{content.key}{SUFFIX}" for content in contents if content.num_places}
        wanted_bytes = sum((row_bytes + CHECKSUM_BYTES) * content.num_places for content in contents)
        paths_left = {store.path for store in left if store.path is not None}
        disk_bytes = make_room(folder, "Features", SUFFIX, disk_gb, set(paths.values()), wanted_bytes, paths_left)
    stores: list[FeatureStore | None] = []
    for content in contents:
        num_bytes, path = row_bytes * content.num_places, paths.get(content.key)
        is_in_memory = num_bytes <= memory_bytes
        records = None
        if path is not None and num_bytes + CHECKSUM_BYTES * content.num_places <= disk_bytes:
            records = RecordStore(path, np.full(content.num_places, row_bytes, dtype=np.int64), disk_bytes)
            disk_bytes -= records.num_bytes
        if not content.num_places:
            stores.append(None)
            continue
        stores.append(FeatureStore(rows, content.num_places, records=records, is_in_memory=is_in_memory))
        memory_bytes -= num_bytes * is_in_memory
    return stores


def _as_records(features: Sequence[Tensor], row_bytes: int) -> Bytes:
    """Return tensors as bytes, uint8 (B, row_bytes)."""
    columns = [each.contiguous().reshape(len(each), -1).view(torch.uint8) for each in features]
    records = torch.cat(columns, dim=1) if len(columns) > 1 else columns[0]
    assert records.shape[1] == row_bytes
    return records.numpy()


def _as_rows(records: Bytes, rows: Sequence[Tensor]) -> list[Tensor]:
    """Return the bytes of records as the tensors that they are of."""
    whole, start, found = torch.from_numpy(records), 0, []
    for row in rows:
        part = whole[:, start : start + row.nbytes].contiguous()
        found.append(part.view(row.dtype).view(len(records), *row.shape))
        start += row.nbytes
    return found
