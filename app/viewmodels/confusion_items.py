"""The item models of a confusion matrix: its cells, the figures of its classes, and its most frequent pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt

from app.confusion import Confusion
from app.viewmodels.quantities import count_text, percent_text
from app.viewmodels.table_item_model import Index, OrderedItemModel

NAME, IMAGES, RECALL, PRECISION, F1 = range(5)
TRUE, TAKEN, COUNT, SHARE = range(4)

Levels = npt.NDArray[np.uint8]
Sides = npt.NDArray[np.bool_]

CellRole = Qt.ItemDataRole.UserRole + 1
"""tuple[int, int]: the cell of the matrix that a row is about: the class, and what it was taken for."""


class ClassMatrixItemModel(QAbstractTableModel):
    """A row for each class, a column for each class that it could be taken for. A subclass says what a cell is."""

    @property
    def class_names(self) -> list[str]:
        """Return the names of the classes, by index; none while nothing is shown."""
        raise NotImplementedError

    def levels(self, rows: range, columns: range) -> tuple[Levels, Sides]:
        """Return how much some cells are, from 0 to 255, and on which side they are: right (or better), or wrong.

        Both are of shape (rows, columns); a level is 0 only where there is nothing.
        """
        raise NotImplementedError

    def number_text(self, true_idx: int, taken_idx: int) -> str:
        """Return the number in a cell, "" where there is nothing."""
        raise NotImplementedError

    def cell_text(self, true_idx: int, taken_idx: int) -> str:
        """Write a cell as a sentence."""
        raise NotImplementedError

    def rowCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of classes."""
        return 0 if parent.isValid() else len(self.class_names)

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of classes."""
        return self.rowCount(parent)

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return a cell's number, or the sentence about it."""
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self.number_text(index.row(), index.column()) or count_text(0)
            case Qt.ItemDataRole.ToolTipRole | Qt.ItemDataRole.AccessibleTextRole:
                return self.cell_text(index.row(), index.column())
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a class's name."""
        return self.class_names[section] if role == Qt.ItemDataRole.DisplayRole else None


class ConfusionItemModel(ClassMatrixItemModel):
    """How many images of each class were taken for each."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.confusion: Confusion | None = None

    def show(self, confusion: Confusion | None) -> None:
        """Show a matrix; None shows nothing."""
        has_same_cells = (
            confusion is not None and self.confusion is not None and confusion.class_names == self.confusion.class_names
        )
        if has_same_cells:
            # Where one looks, and the chosen cell, stay where they are from one epoch to the next.
            self.confusion = confusion
            last = self.rowCount() - 1
            self.dataChanged.emit(self.index(0, 0), self.index(last, last))
            self.headerDataChanged.emit(Qt.Orientation.Vertical, 0, last)
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, last)
            return
        self.beginResetModel()
        self.confusion = confusion
        self.endResetModel()

    @property
    def class_names(self) -> list[str]:
        """Return the names of the classes, by index."""
        return [] if self.confusion is None else self.confusion.class_names

    def levels(self, rows: range, columns: range) -> tuple[Levels, Sides]:
        """Return the shares of their class's images that cells have, and whether these were right."""
        confusion = self.confusion
        assert confusion is not None
        counts = confusion.counts[rows.start : rows.stop, columns.start : columns.stop]
        shares = counts / np.maximum(confusion.num_images[rows.start : rows.stop, None], 1)
        return np.ceil(shares * 255).astype(np.uint8), on_diagonal(rows, columns)

    def number_text(self, true_idx: int, taken_idx: int) -> str:
        """Return a cell's number of images."""
        assert self.confusion is not None
        count = int(self.confusion.counts[true_idx, taken_idx])
        return count_text(count) if count else ""

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a class's name, or its figure: recall for a row, precision for a column."""
        if self.confusion is None or role != Qt.ItemDataRole.ToolTipRole:
            return super().headerData(section, orientation, role)
        name, is_row = self.confusion.class_names[section], orientation is Qt.Orientation.Vertical
        if is_row:
            count, share = self.confusion.num_images[section], self.confusion.recall[section]
            text = self.tr("{name}: {count} images, {share} of them recognized")
        else:
            count, share = self.confusion.counts[:, section].sum(), self.confusion.precision[section]
            text = self.tr("{count} images taken for {name}, {share} of them rightly")
        return text.format(name=name, count=count_text(int(count)), share=percent_text(share))

    def cell_text(self, true_idx: int, taken_idx: int) -> str:
        """Write a cell as a sentence: "7 taken for 1: 12 of 178 (6.7 %)"."""
        confusion = self.confusion
        assert confusion is not None
        return self.tr("{name} taken for {other}: {count} of {all} ({share})").format(
            name=confusion.class_names[true_idx],
            other=confusion.class_names[taken_idx],
            count=count_text(int(confusion.counts[true_idx, taken_idx])),
            all=count_text(int(confusion.num_images[true_idx])),
            share=percent_text(confusion.share_of(true_idx, taken_idx)),
        )


def on_diagonal(rows: range, columns: range) -> Sides:
    """Return which of some cells are those of what was right."""
    sides: Sides = np.arange(rows.start, rows.stop)[:, None] == np.arange(columns.start, columns.stop)[None, :]
    return sides


class SortedItemModel(OrderedItemModel):
    """A table that is sorted by its numbers. What has none comes last, whatever the order."""

    def __init__(self, column: int, order: Qt.SortOrder, parent: QObject | None = None) -> None:
        """Begin sorted by a column."""
        super().__init__(parent)
        self.confusion: Confusion | None = None
        self._sorted_by = column, order

    def show(self, confusion: Confusion | None) -> None:
        """Show a matrix's rows; None shows nothing."""
        self.beginResetModel()
        self.confusion = confusion
        self._rows = self._in_order()
        self.endResetModel()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; a row that is selected stays so."""
        self._sorted_by = column, order
        self.put_in_order(self._in_order())

    def row_of(self, cell: tuple[int, int]) -> int | None:
        """Return the row that is about a cell of the matrix, or None."""
        return next((row for row, each in enumerate(self._rows) if self.cell_of(each) == cell), None)

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        each, column = self._rows[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self.text_of(each, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self.tooltip_of(each)
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(column)
        return self.cell_of(each) if role == CellRole else None

    @property
    def _shown(self) -> Confusion:
        assert self.confusion is not None
        return self.confusion

    # -- what a subclass says, of a row by its number in the matrix ---------------------------------------------

    def values_of(self, column: int) -> Sequence[float]:
        """Return what a column is sorted by."""
        raise NotImplementedError

    def text_of(self, each: int, column: int) -> str:
        """Return what a cell shows."""
        raise NotImplementedError

    def tooltip_of(self, each: int) -> str:
        """Say what a row is about."""
        raise NotImplementedError

    def cell_of(self, each: int) -> tuple[int, int]:
        """Return the cell of the matrix that a row is about."""
        raise NotImplementedError

    def _in_order(self) -> list[int]:
        if self.confusion is None:
            return []
        column, order = self._sorted_by
        values = self.values_of(column)
        sign = -1 if order is Qt.SortOrder.DescendingOrder else 1
        return sorted(
            range(len(values)), key=lambda each: math.inf if math.isnan(values[each]) else sign * values[each]
        )


class ClassFigureItemModel(SortedItemModel):
    """A row for each class: how many images it has, and how well it is told from the others."""

    number_columns = frozenset({IMAGES, RECALL, PRECISION, F1})

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(NAME, Qt.SortOrder.AscendingOrder, parent)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (self.tr("Class"), self.tr("Images"), self.tr("Recall"), self.tr("Precision"), self.tr("F1"))

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading, and what its figures are."""
        if role == Qt.ItemDataRole.ToolTipRole:
            return {
                RECALL: self.tr("Of the images of the class, the share that was taken for it"),
                PRECISION: self.tr("Of the images that were taken for the class, the share that is of it"),
                F1: self.tr("Harmonic mean of recall and precision"),
            }.get(section)
        return super().headerData(section, orientation, role)

    def values_of(self, column: int) -> Sequence[float]:
        """Return what a column is sorted by: classes in the order of the data set."""
        shown = self._shown
        if column == NAME:
            return range(len(shown.class_names))
        figures: list[float] = {IMAGES: shown.num_images, RECALL: shown.recall, PRECISION: shown.precision}.get(
            column, shown.f1
        ).tolist()
        return figures

    def text_of(self, each: int, column: int) -> str:
        """Return what a cell shows."""
        shown = self._shown
        match column:
            case 0:
                return shown.class_names[each]
            case 1:
                return count_text(int(shown.num_images[each]))
            case 2:
                return percent_text(shown.recall[each])
            case 3:
                return percent_text(shown.precision[each])
            case _:
                return percent_text(shown.f1[each])

    def tooltip_of(self, each: int) -> str:
        """Say how the figures came about."""
        shown = self._shown
        return self.tr("{name}: {right} of {count} images recognized, {taken} images taken for it").format(
            name=shown.class_names[each],
            right=count_text(int(shown.counts[each, each])),
            count=count_text(int(shown.num_images[each])),
            taken=count_text(int(shown.counts[:, each].sum())),
        )

    def cell_of(self, each: int) -> tuple[int, int]:
        """Return a class's own cell."""
        return each, each


class PairItemModel(SortedItemModel):
    """A row for each pair of classes that were confused, the most frequent first."""

    number_columns = frozenset({COUNT, SHARE})

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(COUNT, Qt.SortOrder.DescendingOrder, parent)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (self.tr("Class"), self.tr("Taken for"), self.tr("Images"), self.tr("Of its images"))

    def values_of(self, column: int) -> Sequence[float]:
        """Return what a column is sorted by: classes in the order of the data set."""
        shown = self._shown
        if column == SHARE:
            return [shown.share_of(pair.true_idx, pair.taken_idx) for pair in shown.pairs]
        return [pair[column] for pair in shown.pairs]

    def text_of(self, each: int, column: int) -> str:
        """Return what a cell shows."""
        shown = self._shown
        pair = shown.pairs[each]
        match column:
            case 0:
                return shown.class_names[pair.true_idx]
            case 1:
                return shown.class_names[pair.taken_idx]
            case 2:
                return count_text(pair.num_images)
            case _:
                return percent_text(shown.share_of(pair.true_idx, pair.taken_idx))

    def tooltip_of(self, each: int) -> str:
        """Say which classes, with their names in full."""
        shown = self._shown
        pair = shown.pairs[each]
        text = self.tr("{name} taken for {other}")
        return text.format(name=shown.class_names[pair.true_idx], other=shown.class_names[pair.taken_idx])

    def cell_of(self, each: int) -> tuple[int, int]:
        """Return a pair's cell."""
        shown = self._shown
        return shown.pairs[each].true_idx, shown.pairs[each].taken_idx
