"""ClassItemModel: the classes of a data set with their images in each split, for a bar chart."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QObject, Qt

from app.viewmodels.field_words import split_text
from app.viewmodels.quantities import count_text
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.messages import SPLITS, DataSummary

NAME, BAR, COUNT = range(3)

ClassIdxRole = Qt.ItemDataRole.UserRole + 1
"""The class's index; None for all classes."""
SharesRole = Qt.ItemDataRole.UserRole + 2
"""list[tuple[str, float]]: the splits that the row has images in, each with its share of the longest bar, 0 to 1."""

_ALL = -1


class ClassItemModel(TableItemModel):
    """One row a class, and "All classes" before them, in whatever order."""

    number_columns = frozenset({COUNT})

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._names: list[str] = []
        # Of each class in each of SPLITS; the last one is that of all classes, as an index of -1 has it.
        self._counts: list[list[int]] = []
        self._rows: list[int] = []
        self._largest = 0

    def show(self, summary: DataSummary) -> None:
        """Show what a scan found, in the order of the data set."""
        self.beginResetModel()
        self._names = list(summary.class_names)
        by_split = [summary.counts.get(split, [0] * len(self._names)) for split in SPLITS]
        self._counts = [[counts[idx] for counts in by_split] for idx in range(len(self._names))]
        self._largest = max((sum(counts) for counts in self._counts), default=0)
        self._counts.append([sum(counts) for counts in by_split])
        self._rows = [_ALL, *range(len(self._names))]
        self.endResetModel()

    def clear(self) -> None:
        """Show nothing."""
        self.beginResetModel()
        self._names, self._counts, self._rows, self._largest = [], [], [], 0
        self.endResetModel()

    def row_of(self, class_idx: int | None) -> int:
        """Return the row of a class, or of all classes."""
        return self._rows.index(_ALL if class_idx is None else class_idx)

    def num_images(self, class_idx: int | None) -> int:
        """Count the images of a class, or of all."""
        return sum(self._counts[_ALL if class_idx is None else class_idx]) if self._counts else 0

    @property
    def names(self) -> list[str]:
        """Return the names of the classes, in the order of the data set."""
        return self._names

    @property
    def splits(self) -> list[str]:
        """Return the splits that have images."""
        return [split for split, count in zip(SPLITS, self._counts[_ALL], strict=True) if count] if self._counts else []

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            self.tr("Class"),
            "",
            self.tr("Images"),
        )

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        class_idx, column = self._rows[index.row()], index.column()
        counts = self._counts[class_idx]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return (self._name(class_idx), None, count_text(sum(counts)))[column]
            case Qt.ItemDataRole.ToolTipRole:
                return f"{self._name(class_idx)}\n{self._counts_text(counts)}"
            case Qt.ItemDataRole.AccessibleTextRole:
                return (self._name(class_idx), self._counts_text(counts), count_text(sum(counts)))[column]
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(column)
        if role == ClassIdxRole:
            return None if class_idx == _ALL else class_idx
        return self._shares(class_idx) if role == SharesRole else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by name, as the data set does ("2" before "10"), or by number of images. "All classes" stays first."""
        self.layoutAboutToBeChanged.emit()
        before = self._rows
        classes = sorted(before[1:])
        if column != NAME:
            classes.sort(key=lambda idx: sum(self._counts[idx]), reverse=order == Qt.SortOrder.DescendingOrder)
        elif order == Qt.SortOrder.DescendingOrder:
            classes.reverse()
        self._rows = [*before[:1], *classes]
        row_of = {class_idx: row for row, class_idx in enumerate(self._rows)}
        kept = self.persistentIndexList()
        self.changePersistentIndexList(
            kept, [self.index(row_of[before[index.row()]], index.column()) for index in kept]
        )
        self.layoutChanged.emit()

    # -- inside -----------------------------------------------------------------------------------------------

    def _name(self, class_idx: int) -> str:
        return self.tr("All classes") if class_idx == _ALL else self._names[class_idx]

    def _counts_text(self, counts: list[int]) -> str:
        parts = [
            f"{count_text(count)} {split_text(split)}" for split, count in zip(SPLITS, counts, strict=True) if count
        ]
        return ", ".join(parts) or self.tr("no images")

    def _shares(self, class_idx: int) -> list[tuple[str, float]]:
        counts = self._counts[class_idx]
        # All classes together would dwarf each of them: their bar is full, and shows how the splits share it.
        longest = sum(counts) if class_idx == _ALL else self._largest
        return [(split, count / longest) for split, count in zip(SPLITS, counts, strict=True) if count]
