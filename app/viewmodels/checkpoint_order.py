"""CheckpointSortModel: the checkpoints in another order, and only those that are looked for."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import QModelIndex, QObject, Qt

from app.checkpoint_filter import CheckpointFilter
from app.viewmodels.checkpoint_columns import SAVED, STAR, TAGS
from app.viewmodels.checkpoint_run import CheckpointKey
from app.viewmodels.checkpoint_table import CheckpointItemModel, Standing
from app.viewmodels.quantities import read_number
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
        self._filter_text = ""
        self.filter = self._read_filter()
        self._is_grouped = False
        # By ascending key, then by row; shown from the end where the order is descending.
        self._sorted: list[int] = []
        self._without: list[int] = []
        self._rows: list[int] = []
        checkpoints.modelAboutToBeReset.connect(self.beginResetModel)
        checkpoints.modelReset.connect(self._end_reset)
        checkpoints.rowsInserted.connect(self._on_inserted)
        checkpoints.columnsAboutToBeInserted.connect(lambda _, first, last: self._begin_columns(first, last))
        checkpoints.columnsInserted.connect(self._end_columns)
        checkpoints.dataChanged.connect(self._on_changed)
        self._arrange()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Show the rows in the order of a column."""
        self._column, self._is_descending = column, order is Qt.SortOrder.DescendingOrder
        self._rearrange()

    def set_filter(self, text: str) -> None:
        """Show only the checkpoints that CheckpointFilter finds with this text."""
        if text != self._filter_text:
            self._filter_text = text
            self.beginResetModel()
            self._end_reset()

    @property
    def fault_text(self) -> str:
        """Say what is wrong with the filter, for which nothing is shown; "" for nothing."""
        fault = self.filter.fault
        if fault is None:
            return ""
        if fault.kind == "name":
            text = self.tr('There is no number called "{name}". Compare {names}, as in accuracy>0.985.')
            return text.format(name=fault.term, names=", ".join(fault.names))
        if fault.kind == "value":
            return self.tr("Write a number after {}, as in accuracy>0.985 or epoch>=3.").format(fault.term)
        return self.tr("A share goes from 0 to 1: write {term}0.985, or {term}98.5%.").format(term=fault.term)

    def group_by_run(self, is_grouped: bool) -> None:
        """Keep the checkpoints of each run together, in the order of the column within it, or not."""
        if is_grouped != self._is_grouped:
            self._is_grouped = is_grouped
            self._rearrange()

    def key_at(self, row: int) -> CheckpointKey:
        """Name the checkpoint of a row."""
        return self.checkpoints.key_at(self._rows[row])

    def standing(self, row: int) -> Standing:
        """Return how the checkpoint of a row stands."""
        return self.checkpoints.standing(self._rows[row])

    def begins_group(self, row: int) -> bool:
        """Tell whether a row is the first of its run, below those of another one."""
        if not self._is_grouped or not 0 < row < len(self._rows):
            return False
        return self.key_at(row).run_dir != self.key_at(row - 1).run_dir

    def rows_of(self, keys: Iterable[CheckpointKey]) -> list[int]:
        """Return the rows of checkpoints, in their order; those that are not shown have none."""
        sources = [source for key in keys if (source := self.checkpoints.row_of(key)) is not None]
        if len(sources) == 1:
            # The newest is selected with each that is saved.
            return [self._rows.index(sources[0])] if sources[0] in self._rows else []
        row_of = {source: row for row, source in enumerate(self._rows)}
        return [row_of[source] for source in sources if source in row_of]

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

    def _end_columns(self) -> None:
        self.endInsertColumns()
        if self._filter_text:
            # It may name the new metric.
            self.beginResetModel()
            self._end_reset()

    def _read_filter(self) -> CheckpointFilter:
        return CheckpointFilter(self._filter_text, self.checkpoints.metric_tags, read_number)

    def _end_reset(self) -> None:
        self.filter = self._read_filter()
        self._arrange()
        self.endResetModel()

    def _on_inserted(self, _: QModelIndex, first: int, last: int) -> None:
        assert first == last == self.checkpoints.num_rows() - 1, "a checkpoint is added at the end, by itself"
        if not self.checkpoints.found_by(self.filter, range(first, last + 1)):
            return
        key = self.checkpoints.sort_key(first, self._column)
        if key is None:
            place = len(self._rows)
            self._without.append(first)
        else:
            rank = bisect.bisect(self._sorted, key, key=lambda row: self.checkpoints.sort_key(row, self._column))
            place = len(self._sorted) - rank if self._is_descending else rank
            self._sorted.insert(rank, first)
        if self._is_grouped:
            place = self._in_order().index(first)
        self.beginInsertRows(QModelIndex(), place, place)
        self._rows.insert(place, first)
        self.endInsertRows()

    def _on_changed(self, top_left: QModelIndex, bottom_right: QModelIndex) -> None:
        if top_left.column() <= STAR and bottom_right.column() >= TAGS:
            if self._filter_text:
                self.beginResetModel()
                self._end_reset()
            elif self._column in _MAY_CHANGE:
                self._rearrange()
        if self._rows:
            # A view paints what it shows of them, however many they are.
            last = self.index(len(self._rows) - 1, bottom_right.column())
            self.dataChanged.emit(self.index(0, top_left.column()), last)

    # -- the order --------------------------------------------------------------------------------------------

    def _arrange(self) -> None:
        keys = self.checkpoints.sort_keys(self._column)
        wanted = self.checkpoints.found_by(self.filter)
        self._sorted = sorted((source for source in wanted if keys[source] is not None), key=keys.__getitem__)
        self._without = [source for source in wanted if keys[source] is None]
        self._rows = self._in_order()

    def _in_order(self) -> list[int]:
        rows = [*(reversed(self._sorted) if self._is_descending else self._sorted), *self._without]
        # Within a group the order stays.
        return sorted(rows, key=self.checkpoints.rank_of_run) if self._is_grouped else rows

    def _rearrange(self) -> None:
        self.layoutAboutToBeChanged.emit()
        before, kept = self._rows, self.persistentIndexList()
        self._arrange()
        place_of = {source: row for row, source in enumerate(self._rows)}
        moved = [self.index(place_of[before[index.row()]], index.column()) for index in kept]
        self.changePersistentIndexList(kept, moved)
        self.layoutChanged.emit()
