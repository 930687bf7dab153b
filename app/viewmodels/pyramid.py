"""A min/max pyramid over a growing array: any stretch of a million points, drawn from a thousand, with its peaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BRANCH = 4
"""Blocks of one level that make a block of the next: a query draws at least a quarter of the points it may."""
MAX_TOP_BLOCKS = 512

_LOWEST, _HIGHEST, _GAP = 0, 1, 2


class GrowingArray:
    """A one- or two-dimensional array that grows in amortized constant time. ``view`` is what it holds."""

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        shape = (16,) if width is None else (16, width)
        self._memory: npt.NDArray[Any] = np.empty(shape, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def view(self) -> npt.NDArray[Any]:
        """Return what the array holds, without a copy. A later write may move it: do not keep it."""
        return self._memory[: self._size]

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Put rows at ``start`` (at most the present length); the array ends after them."""
        assert start <= self._size
        stop = start + len(rows)
        if stop > len(self._memory):
            grown = np.empty((max(stop, 2 * len(self._memory)), *self._memory.shape[1:]), self._memory.dtype)
            grown[:start] = self._memory[:start]
            self._memory = grown
        self._memory[start:stop] = rows
        self._size = stop

    def truncate(self, size: int) -> None:
        """Drop what stands at ``size`` and after it."""
        self._size = min(self._size, size)


class Pyramid:
    """For each block of 4, 16, 64 … values: where its lowest, its highest and its first non-finite value stand.

    It keeps positions rather than values, so that a query gives true points in their order. Values that are not finite
    (a loss of NaN) leave gaps and never count as lowest or highest.
    """

    def __init__(self, values: GrowingArray) -> None:
        self._values = values
        self._levels: list[GrowingArray] = []
        self.num_indexed = 0

    def index_up_to(self, stop: int) -> None:
        """Take in the values before ``stop``; costs what is new, not what is there."""
        if stop > self.num_indexed:
            self._update(self.num_indexed, stop)

    def truncate(self, size: int) -> None:
        """Forget the values at ``size`` and after it."""
        if size < self.num_indexed:
            self._update(max(size - 1, 0), size)

    def indices(self, start: int, stop: int, max_points: int) -> Ints:
        """Return positions, in order, that show the values from ``start`` to before ``stop`` with all their peaks.

        Args:
            start: First position.
            stop: Position after the last one.
            max_points: About how many positions to return at most (gaps add a few).

        """
        stop = min(stop, self.num_indexed)
        if stop - start <= max_points or not self._levels:
            return np.arange(start, max(start, stop), dtype=np.int64)
        depth = 1
        while depth < len(self._levels) and 2 * (stop - start) > max_points * BRANCH**depth:
            depth += 1
        ends = np.array([start, stop - 1], np.int64)
        chosen = np.sort(np.concatenate([ends, *(rows.ravel() for rows in self._cover(start, stop, depth))]))
        # Each once, and no -1 (no gap). Not np.unique: its first call imports numpy.ma, 6 ms or more of the frame.
        return chosen[np.diff(chosen, prepend=-1) > 0]

    def _cover(self, start: int, stop: int, depth: int) -> Iterator[Ints]:
        """Yield rows that cover a stretch exactly: finer ones at its two ends, those of ``depth`` between."""
        for level in range(depth):
            size, parent = BRANCH**level, BRANCH ** (level + 1)
            first_whole, end_whole = -(-start // parent) * parent, stop // parent * parent
            if first_whole >= end_whole:
                yield self._rows(level, start // size, stop // size)
                return
            yield self._rows(level, start // size, first_whole // size)
            yield self._rows(level, end_whole // size, stop // size)
            start, stop = first_whole, end_whole
        yield self._rows(depth, start // BRANCH**depth, stop // BRANCH**depth)

    def _update(self, start: int, stop: int) -> None:
        self.num_indexed = stop
        values = self._values.view
        num_below, depth, first_changed = stop, 0, start
        while depth < len(self._levels) or num_below > MAX_TOP_BLOCKS:
            if depth == len(self._levels):
                self._levels.append(GrowingArray(np.int64, width=3))
                first_changed = 0
            first_block = first_changed // BRANCH
            below = self._rows(depth, first_block * BRANCH, num_below)
            self._levels[depth].write(first_block, _combined(below, values))
            num_below, first_changed, depth = len(self._levels[depth]), first_block, depth + 1

    def _rows(self, level: int, start: int, stop: int) -> Ints:
        """Return blocks of a level as (lowest, highest, gap); each value is a block of level 0."""
        if level:
            rows: Ints = self._levels[level - 1].view[start:stop]
            return rows
        positions = np.arange(start, stop, dtype=np.int64)
        is_gap = ~np.isfinite(self._values.view[start:stop])
        return np.stack([positions, positions, np.where(is_gap, positions, -1)], axis=1)


def _combined(rows: Ints, values: Floats) -> Ints:
    """Make one row (lowest, highest, gap) of every four; the last may come from fewer."""
    num_blocks = -(-len(rows) // BRANCH)
    padded = np.full((num_blocks * BRANCH, 3), -1, np.int64)
    padded[: len(rows)] = rows
    lowest, highest = values[padded[:, _LOWEST]], values[padded[:, _HIGHEST]]
    lowest[~np.isfinite(lowest)] = np.inf
    highest[~np.isfinite(highest)] = -np.inf
    lowest[len(rows) :] = np.inf
    highest[len(rows) :] = -np.inf
    blocks = padded.reshape(num_blocks, BRANCH, 3)
    every = np.arange(num_blocks)
    chosen = np.empty((num_blocks, 3), np.int64)
    chosen[:, _LOWEST] = blocks[every, lowest.reshape(-1, BRANCH).argmin(axis=1), _LOWEST]
    chosen[:, _HIGHEST] = blocks[every, highest.reshape(-1, BRANCH).argmax(axis=1), _HIGHEST]
    chosen[:, _GAP] = blocks[every, (blocks[:, :, _GAP] >= 0).argmax(axis=1), _GAP]
    return chosen
