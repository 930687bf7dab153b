"""Which classes a model takes for which: the figures of a confusion matrix, for the window and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.messages.run_info import ConfusionMatrix

CONFUSIONS = ("best", "latest", "test")
"""What a run keeps a matrix of: its best validation, its latest, and the test split."""
MAX_PAIRS = 1000
"""Of a thousand classes there may be a million pairs, of which nobody reads the rare ones."""

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


class ConfusedPair(NamedTuple):
    """Images of a class that were taken for another one; the classes by their index."""

    true_idx: int
    taken_idx: int
    num_images: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """A confusion matrix and what is read off it. A share is NaN where there is nothing that it could be a part of.

    ``counts[i, j]`` images of class ``i`` were taken for class ``j``. ``recall`` is the share of a class's images that
    were taken for it, ``precision`` the share of what was taken for a class that is of it; all three are of shape (C,).
    ``pairs`` has the ``MAX_PAIRS`` that are confused most often, the most frequent first, of ``num_pairs``.
    """

    split: str
    checkpoint: str
    step: int
    class_names: list[str]
    counts: Counts
    num_images: Counts
    recall: Shares
    precision: Shares
    f1: Shares
    pairs: list[ConfusedPair]
    num_pairs: int

    @property
    def accuracy(self) -> float:
        """Return the share of all images that were taken for their own class."""
        return float(_shares(np.trace(self.counts), self.num_images.sum()))

    def share_of(self, true_idx: int, taken_idx: int) -> float:
        """Return which share of a class's images was taken for a class."""
        return float(_shares(self.counts[true_idx, taken_idx], self.num_images[true_idx]))


def read_off(matrix: ConfusionMatrix) -> Confusion:
    """Work out the figures of a confusion matrix."""
    # Row by row: an array of a million numbers in one call would hold up the window's thread meanwhile.
    counts = np.stack([np.array(row, np.int64) for row in matrix.counts])
    right, num_images, num_taken = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    pairs, num_pairs = _confused_pairs(counts)
    return Confusion(
        split=matrix.split,
        checkpoint=matrix.checkpoint,
        step=matrix.step,
        class_names=matrix.class_names,
        counts=counts,
        num_images=num_images,
        recall=_shares(right, num_images),
        precision=_shares(right, num_taken),
        f1=_shares(2 * right, num_images + num_taken),
        pairs=pairs,
        num_pairs=num_pairs,
    )


def _shares(part: npt.ArrayLike, whole: npt.ArrayLike) -> Shares:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    shares: Shares = np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
    return shares


def _confused_pairs(counts: Counts) -> tuple[list[ConfusedPair], int]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    true_idx, taken_idx = np.nonzero(wrong)
    # Stable, so that among equals the order of the classes holds.
    chosen = np.argsort(-wrong[true_idx, taken_idx], kind="stable")[:MAX_PAIRS]
    columns = (true_idx[chosen], taken_idx[chosen], wrong[true_idx[chosen], taken_idx[chosen]])
    return [ConfusedPair(*row) for row in zip(*(column.tolist() for column in columns), strict=True)], len(true_idx)
