"""CheckpointSortModel: the checkpoints in another order, and only those that are looked for."""

from __future__ import annotations

import bisect
from typing import Any

from PySide6.QtCore import QModelIndex, QObject, Qt

from app.viewmodels.checkpoint_table import SAVED, STAR, TAGS, CheckpointItemModel
from app.viewmodels.table_item_model import Index, TableItemModel

_MAY_CHANGE = frozenset({STAR, TAGS})
"""The columns by which a checkpoint's place may change while it is listed."""


class CheckpointSortModel(TableItemModel):
    """Sorts checkpoints by their numbers, newest first to begin with; those without a value come last.

    QSortFilterProxyModel asks for two values at each comparison, through Python: 10,000 rows took it over a second.
    """

    def __init__(self, checkpoints: CheckpointItemModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.checkpoints = checkpoints
        self._column, self._is_descending = SAVED, True
        self._words: list[str] = []
        # By ascending key, then by row; shown from the end where the order is descending.
        self._sorted: list[tuple[Any, int]] = []
        self._without: list[int] = []
        self._rows: list[int] = []
        checkpoints.modelAboutToBeReset.connect(self.beginResetModel)
        checkpoints.modelReset.connect(self._end_reset)
        checkpoints.rowsInserted.connect(self._on_inserted)
        checkpoints.columnsAboutToBeInserted.connect(lambda _, first, last: self._begin_columns(first, last))
        checkpoints.columnsInserted.connect(self.endInsertColumns)
        checkpoints.dataChanged.connect(self._on_changed)
        self._arrange()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Show the rows in the order of a column."""
        self._column, self._is_descending = column, order is Qt.SortOrder.DescendingOrder
        self._rearrange()

    def set_filter(self, text: str) -> None:
        """Show only the checkpoints that have all these words, or pieces of them."""
        words = text.casefold().split()
        if words != self._words:
            self._words = words
            self.beginResetModel()
            self._end_reset()

    def row_of(self, name: str) -> int | None:
        """Return the row of a checkpoint, None if it is not shown."""
        names = (self.checkpoints.at(source).name for source in self._rows)
        return next((row for row, known in enumerate(names) if known == name), None)

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of columns."""
        return self.checkpoints.columnCount(parent)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading."""
        return self.checkpoints.headerData(section, orientation, role)

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        return self.checkpoints.cell(self._rows[index.row()], index.column(), role)

    # -- following the checkpoints ----------------------------------------------------------------------------

    def _begin_columns(self, first: int, last: int) -> None:
        self.beginInsertColumns(QModelIndex(), first, last)

    def _end_reset(self) -> None:
        self._arrange()
        self.endResetModel()

    def _on_inserted(self, _: QModelIndex, first: int, last: int) -> None:
        assert first == last == self.checkpoints.num_rows() - 1, "a checkpoint is added at the end, by itself"
        if not self._is_wanted(first):
            return
        key = self.checkpoints.sort_key(first, self._column)
        if key is None:
            place = len(self._rows)
            self._without.append(first)
        else:
            rank = bisect.bisect(self._sorted, (key, first))
            place = len(self._sorted) - rank if self._is_descending else rank
            self._sorted.insert(rank, (key, first))
        self.beginInsertRows(QModelIndex(), place, place)
        self._rows.insert(place, first)
        self.endInsertRows()

    def _on_changed(self, top_left: QModelIndex, bottom_right: QModelIndex) -> None:
        if top_left.column() <= STAR and bottom_right.column() >= TAGS:
            if self._words:
                self.beginResetModel()
                self._end_reset()
            elif self._column in _MAY_CHANGE:
                self._rearrange()
        if self._rows:
            # A view paints what it shows of them, however many they are.
            last = self.index(len(self._rows) - 1, bottom_right.column())
            self.dataChanged.emit(self.index(0, top_left.column()), last)

    # -- the order --------------------------------------------------------------------------------------------

    def _is_wanted(self, source: int) -> bool:
        if not self._words:
            return True
        text = self.checkpoints.words_of(source)
        return all(word in text for word in self._words)

    def _arrange(self) -> None:
        keyed = enumerate(self.checkpoints.sort_keys(self._column))
        wanted = [(key, source) for source, key in keyed if self._is_wanted(source)]
        self._sorted = sorted(pair for pair in wanted if pair[0] is not None)
        self._without = [source for key, source in wanted if key is None]
        ordered = [source for _, source in self._sorted]
        self._rows = [*(reversed(ordered) if self._is_descending else ordered), *self._without]

    def _rearrange(self) -> None:
        self.layoutAboutToBeChanged.emit()
        before, kept = self._rows, self.persistentIndexList()
        self._arrange()
        place_of = {source: row for row, source in enumerate(self._rows)}
        moved = [self.index(place_of[before[index.row()]], index.column()) for index in kept]
        self.changePersistentIndexList(kept, moved)
        self.layoutChanged.emit()
