"""TableItemModel: what every plain table of the window has: rows, headings, and numbers to the right."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

Index = QModelIndex | QPersistentModelIndex


class TableItemModel(QAbstractTableModel):
    """A flat table. A subclass says how many rows there are, how columns are headed, and what a cell shows."""

    number_columns: frozenset[int] = frozenset()
    """Columns whose cells and headings stand to the right."""

    def num_rows(self) -> int:
        """Return the number of rows."""
        raise NotImplementedError

    def headings(self) -> Sequence[str]:
        """Return the heading of each column."""
        raise NotImplementedError

    def alignment(self, column: int) -> Qt.AlignmentFlag:
        """Return how a column's heading and cells are aligned."""
        side = Qt.AlignmentFlag.AlignRight if column in self.number_columns else Qt.AlignmentFlag.AlignLeft
        return side | Qt.AlignmentFlag.AlignVCenter

    def rowCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of rows; a cell has none below it."""
        return 0 if parent.isValid() else self.num_rows()

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of columns; a cell has none below it."""
        return 0 if parent.isValid() else self._num_columns

    @functools.cached_property
    def _num_columns(self) -> int:
        # Qt asks several times for each cell that it paints, and the headings are translated at each call.
        return len(self.headings())

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading."""
        if orientation is not Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.headings()[section]
        return self.alignment(section) if role == Qt.ItemDataRole.TextAlignmentRole else None


class OrderedItemModel(TableItemModel):
    """A table of things that have numbers, in an order that may change."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[int] = []
        """The number of what each row shows."""

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def put_in_order(self, rows: list[int]) -> None:
        """Show the same rows in another order; one that is selected stays so."""
        self.layoutAboutToBeChanged.emit()
        before, self._rows = self._rows, rows
        row_of = {number: row for row, number in enumerate(rows)}
        kept = self.persistentIndexList()
        self.changePersistentIndexList(
            kept, [self.index(row_of[before[index.row()]], index.column()) for index in kept]
        )
        self.layoutChanged.emit()
