"""Where two confusion matrices differ: the figures of the map that the window shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.confusion import Counts
from trainer.messages.comparison import ConfusionCounts

_CELLS_AT_ONCE = 10_000
"""A list is made an array of without letting go of the interpreter: a long one would hold up the window's thread."""


@dataclass(frozen=True, eq=False)
class ConfusionDifference:
    """Two confusion matrices, all arrays of shape (C, C).

    ``levels`` is how far the shares of the class's images are apart, from 0 to 255, and 0 only where they are equal;
    ``is_more`` says where the other one has the larger share. ``num_cells`` counts the cells that differ.
    """

    class_names: list[str]
    first: Counts
    other: Counts
    levels: npt.NDArray[np.uint8]
    is_more: npt.NDArray[np.bool_]
    num_cells: int

    def num_right(self) -> tuple[int, int]:
        """Return how many images are taken for their own class, by the first one and by the other one."""
        return int(np.trace(self.first)), int(np.trace(self.other))

    def num_images(self) -> tuple[int, int]:
        """Return how many images there are, of the first one and of the other one."""
        return int(self.first.sum()), int(self.other.sum())


def difference_of(class_names: list[str], first: ConfusionCounts, other: ConfusionCounts) -> ConfusionDifference:
    """Work out where two matrices of the same classes differ."""
    before, after = _dense(first, len(class_names)), _dense(other, len(class_names))
    apart = _shares(after) - _shares(before)
    return ConfusionDifference(
        class_names=class_names,
        first=before,
        other=after,
        levels=np.ceil(np.abs(apart) * 255).astype(np.uint8),
        is_more=apart > 0,
        num_cells=int(np.count_nonzero(before != after)),
    )


def _dense(sparse: ConfusionCounts, num_classes: int) -> Counts:
    counts = np.zeros(num_classes * num_classes, np.int64)
    for start in range(0, len(sparse.cells), _CELLS_AT_ONCE):
        part = slice(start, start + _CELLS_AT_ONCE)
        counts[np.array(sparse.cells[part], np.int64)] = np.array(sparse.counts[part], np.int64)
    return counts.reshape(num_classes, num_classes)


def _shares(counts: Counts) -> npt.NDArray[Any]:
    shares: npt.NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    return shares
