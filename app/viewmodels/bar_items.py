"""BarItemModel: images counted by something, one row a bar that is split in train, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QObject, Qt

from app.viewmodels.field_words import split_text
from app.viewmodels.quantities import count_text, percent_text
from app.viewmodels.table_item_model import Index, OrderedItemModel
from trainer.messages.data_info import SPLITS

NAME, BAR, COUNT = range(3)
ALL = -1
"""In the place of a bar's index: the row of all images."""

BarIdxRole = Qt.ItemDataRole.UserRole + 1
"""The bar's index; None for all images."""
SharesRole = Qt.ItemDataRole.UserRole + 2
"""list[tuple[str, float]]: the splits that the row has images in, each with its share of the longest bar, 0 to 1."""


class BarItemModel(OrderedItemModel):
    """A row for all images together, then one a bar, in whatever order. A subclass says what the bars are."""

    number_columns = frozenset({COUNT})

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._names: list[str] = []
        # Of each bar in each of SPLITS; the last one is that of all images, as an index of ALL has it.
        self._counts: list[list[int]] = []
        self._largest = 0

    def show_bars(self, names: Sequence[str], counts: Sequence[Sequence[int]], of_all: Sequence[int]) -> None:
        """Show these bars, each with its images in each of SPLITS, and those of all: an image may be in several."""
        self.beginResetModel()
        self._names = list(names)
        self._counts = [list(by_split) for by_split in counts]
        self._largest = max((sum(by_split) for by_split in self._counts), default=0)
        self._counts.append(list(of_all))
        self._rows = [ALL, *range(len(self._names))]
        self.endResetModel()

    def clear(self) -> None:
        """Show nothing."""
        self.beginResetModel()
        self._names, self._counts, self._rows, self._largest = [], [], [], 0
        self.endResetModel()

    def row_of(self, bar_idx: int | None) -> int:
        """Return the row of a bar, or of all images."""
        return self._rows.index(ALL if bar_idx is None else bar_idx)

    def num_images(self, bar_idx: int | None) -> int:
        """Count the images of a bar, or all."""
        return sum(self._counts[ALL if bar_idx is None else bar_idx]) if self._counts else 0

    @property
    def names(self) -> list[str]:
        """Return the names of the bars, in their own order."""
        return self._names

    @property
    def splits(self) -> list[str]:
        """Return the splits that have images."""
        return [split for split, count in zip(SPLITS, self._counts[ALL], strict=True) if count] if self._counts else []

    # -- what a subclass says ---------------------------------------------------------------------------------

    def all_text(self) -> str:
        """Return the name of the row of all images."""
        raise NotImplementedError

    def what_text(self, bar_idx: int) -> str:
        """Return what a bar's images have in common, in full, for a tooltip and a screen reader."""
        return self.name_of(bar_idx)

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        bar_idx, column = self._rows[index.row()], index.column()
        counts = self._counts[bar_idx]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return (self.name_of(bar_idx), None, count_text(sum(counts)))[column]
            case Qt.ItemDataRole.ToolTipRole:
                return f"{self.what_text(bar_idx)}\n{self._counts_text(counts)}"
            case Qt.ItemDataRole.AccessibleTextRole:
                return (self.what_text(bar_idx), self._counts_text(counts), count_text(sum(counts)))[column]
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(column)
        if role == BarIdxRole:
            return None if bar_idx == ALL else bar_idx
        return self._shares(bar_idx) if role == SharesRole else None

    # -- inside -----------------------------------------------------------------------------------------------

    def name_of(self, bar_idx: int) -> str:
        """Return the name of a bar, or of all."""
        return self.all_text() if bar_idx == ALL else self._names[bar_idx]

    def _counts_text(self, counts: list[int]) -> str:
        parts = [
            f"{count_text(count)} {split_text(split)}" for split, count in zip(SPLITS, counts, strict=True) if count
        ]
        text = ", ".join(parts) or self.tr("no images")
        total = sum(self._counts[ALL])
        if not parts or sum(counts) == total:
            return text
        return self.tr("{} ({} of all)").format(text, percent_text(sum(counts) / total))

    def _shares(self, bar_idx: int) -> list[tuple[str, float]]:
        counts = self._counts[bar_idx]
        # All together would dwarf each of them: their bar is full, and shows how the splits share it.
        longest = sum(counts) if bar_idx == ALL else self._largest
        return [(split, count / longest) for split, count in zip(SPLITS, counts, strict=True) if count]
