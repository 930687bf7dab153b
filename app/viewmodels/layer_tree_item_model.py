"""The layer tree as a checkable Qt item model, and its filter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple

from PySide6.QtCore import (
    QAbstractItemModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QSortFilterProxyModel,
    Qt,
    QTimer,
)

from app.viewmodels.frozen_layers import LayerState
from app.viewmodels.layer_rows import ROOT_ID, LayerRow
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.quantities import count_text, measure_text

Index = QModelIndex | QPersistentModelIndex

ROW_ID_ROLE = Qt.ItemDataRole.UserRole + 1

# ‖Δw‖/‖w‖ of 1e-3 is healthy, of 1e-1 tears the weights apart, of 1e-6 is lost in rounding.
_LEAST_UPDATE_DECADE, _NUM_UPDATE_DECADES = -6, 5

_CHECKS = {
    LayerState.FROZEN: Qt.CheckState.Checked,
    LayerState.TRAINABLE: Qt.CheckState.Unchecked,
    LayerState.PARTLY: Qt.CheckState.PartiallyChecked,
}


class Column(IntEnum):
    """The columns of the tree."""

    LAYER = 0
    TYPE = 1
    SHAPE = 2
    PARAMS = 3
    MULTIPLIER = 4
    GRADIENT = 5
    UPDATE = 6
    STATE = 7


NUM_COLUMNS = len(Column)
_NUMBERS = frozenset({Column.PARAMS, Column.MULTIPLIER, Column.GRADIENT})
ALIGNMENTS = [
    (Qt.AlignmentFlag.AlignRight if column in _NUMBERS else Qt.AlignmentFlag.AlignLeft) | Qt.AlignmentFlag.AlignVCenter
    for column in Column
]
"""How each column's heading and cells are aligned."""
ALIGNMENTS[Column.STATE] = Qt.AlignmentFlag.AlignCenter
_MEASURED = frozenset({Column.GRADIENT, Column.UPDATE})

_RowState = tuple[LayerState, bool, float | None, bool]


class Cell(NamedTuple):
    """What a cell shows."""

    text: str
    state: LayerState
    is_pending: bool
    """Whether a change of what it shows was asked for: of the multiplier in its column, of the freeze elsewhere."""
    is_top: bool
    is_checkable: bool
    bar: float | None = None
    """How full the bar of a measured cell is, 0 to 1; None where nothing was measured."""
    has_drifted: bool = False
    """Whether a frozen row changed."""


class LayerTreeItemModel(QAbstractItemModel):
    """Rows of the view model for a QTreeView. A check mark is a freeze; setting one asks the view model."""

    def __init__(self, layer_tree: LayerTreeViewModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._layer_tree = layer_tree
        self._rows = layer_tree.rows
        self._told: dict[int, _RowState] = {}
        """The state of each row that somebody has read, as it was read."""
        layer_tree.rows_reset.connect(self._reset)
        layer_tree.states_changed.connect(self._tell_states)

    def row_of(self, index: Index) -> LayerRow:
        """Return the row behind an index; the invisible root for an invalid one."""
        # An integer id outlives any index; a Python object behind one would not.
        return self._rows[index.internalId() if index.isValid() else ROOT_ID]

    def state_of(self, index: Index) -> LayerState:
        """Return the state of the row behind an index; from then on, the views are told when it changes."""
        row_id = self.row_of(index).id
        self._told[row_id] = self._state(row_id)
        return self._layer_tree.frozen.state_of(row_id)

    def cells(self, row_id: int, columns: Iterable[int]) -> list[Cell]:
        """Return what a row's cells show; from then on, the views are told when its state changes."""
        row, tree = self._rows[row_id], self._layer_tree
        state, is_pending, _, is_rate_pending = self._told[row_id] = self._state(row_id)
        return [
            Cell(
                self._text(row, column),
                state,
                is_rate_pending if column == Column.MULTIPLIER else is_pending,
                is_top=row.depth == 1,
                is_checkable=column == Column.LAYER and bool(row.atoms),
                bar=self._bar(row) if column == Column.UPDATE else None,
                has_drifted=column == Column.UPDATE and tree.frozen.has_drifted(row_id),
            )
            for column in columns
        ]

    def index(self, row: int, column: int, parent: Index = QModelIndex()) -> QModelIndex:
        """Return the index of a child."""
        # Qt's hasIndex would come back here twice for every one of thousands of calls.
        children = self._children(parent)
        if not (0 <= row < len(children) and 0 <= column < NUM_COLUMNS) or parent.column() > 0:
            return QModelIndex()
        return self.createIndex(row, column, children[row])

    def parent(self, index: Index) -> QModelIndex:  # type: ignore[override]  # Qt overloads it with QObject's
        """Return the index of the row above."""
        if not index.isValid():
            return QModelIndex()
        return self.index_of(self.row_of(index).parent)

    def index_of(self, row_id: int, column: Column = Column.LAYER) -> QModelIndex:
        """Return the index of a row by its id."""
        if row_id == ROOT_ID:
            return QModelIndex()
        return self.createIndex(self._rows[row_id].position, column, row_id)

    def rowCount(self, parent: Index = QModelIndex()) -> int:
        """Count the rows below."""
        return len(self._children(parent)) if parent.column() <= 0 else 0

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Count the columns."""
        return NUM_COLUMNS

    def flags(self, index: Index) -> Qt.ItemFlag:
        """Say what can be done with a cell: what has nothing to freeze has no check box."""
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == Column.LAYER and self.row_of(index).atoms:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        if index.column() == Column.MULTIPLIER and self._layer_tree.rates.has_rate(self.row_of(index).id):
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a column's title."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.title(Column(section))
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return ALIGNMENTS[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._column_tooltip(Column(section))
        return None

    def title(self, column: Column) -> str:
        """Return a column's title."""
        return {
            Column.LAYER: self.tr("Layer"),
            Column.TYPE: self.tr("Type"),
            Column.SHAPE: self.tr("Output"),
            Column.PARAMS: self.tr("Params"),
            Column.MULTIPLIER: self.tr("Rate"),
            Column.GRADIENT: self.tr("Gradient"),
            Column.UPDATE: self.tr("Update"),
            Column.STATE: self.tr("State"),
        }[column]

    def _column_tooltip(self, column: Column) -> str | None:
        return {
            Column.SHAPE: self.tr("Shape of what a layer hands on: channels × height × width of an image, say"),
            Column.MULTIPLIER: self.tr("What the run's rate is multiplied by in a layer; F2 or a double click edits"),
            Column.GRADIENT: self.tr("L2 norm of the gradient of a layer, before it is clipped"),
            Column.UPDATE: self.tr(
                "By how much of their norm an update changes the weights, ‖Δw‖/‖w‖: the bar goes from 1e-6 to 1e-1 in "
                "powers of ten. About 1e-3 is usual. Of a frozen layer: whether it drifted."
            ),
        }.get(column)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        if not index.isValid():
            return None
        row = self.row_of(index)
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(row, index.column())
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return ALIGNMENTS[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tooltip(row, index.column())
        if role == Qt.ItemDataRole.CheckStateRole and index.column() == Column.LAYER and row.atoms:
            return _CHECKS[self.state_of(index)]
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return self._spoken(row, index.column())
        return row.id if role == ROW_ID_ROLE else None

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Freeze or unfreeze a row by its check mark."""
        if role != Qt.ItemDataRole.CheckStateRole or not self.flags(index) & Qt.ItemFlag.ItemIsUserCheckable:
            return False
        row_ids = [self.row_of(index).id]
        if Qt.CheckState(value) == Qt.CheckState.Checked:
            self._layer_tree.freeze_rows(row_ids)
        else:
            self._layer_tree.unfreeze_rows(row_ids)
        return True

    # -- inside -----------------------------------------------------------------------------------------------

    def _children(self, parent: Index) -> list[int]:
        return self.row_of(parent).children

    def _text(self, row: LayerRow, column: int) -> str:
        if column == Column.LAYER:
            return row.name
        if column == Column.TYPE:
            return row.type
        if column == Column.SHAPE:
            return " × ".join(count_text(size) for size in row.output_shape)
        if column == Column.MULTIPLIER:
            return self._layer_tree.rates.text(row.id)
        if column == Column.GRADIENT:
            stats = self._layer_tree.stats.of(row.id)
            return "" if stats is None else measure_text(stats.gradient_norm)
        if column == Column.UPDATE:
            return self._layer_tree.frozen.drift_text(row.id)
        return count_text(row.num_params) if column == Column.PARAMS and row.num_params else ""

    def _tooltip(self, row: LayerRow, column: int) -> str:
        if column == Column.MULTIPLIER:
            return self._layer_tree.rates.explain(row.id)
        if column in _MEASURED:
            return self._layer_tree.explain_stats(row.id)
        return row.type if column == Column.TYPE else self._layer_tree.explain(row.id)

    def _spoken(self, row: LayerRow, column: int) -> str:
        if column == Column.MULTIPLIER:
            return self._layer_tree.rates.explain(row.id)
        if column in _MEASURED:
            return self._layer_tree.explain_stats(row.id)
        if column == Column.SHAPE:
            shape = self.tr(" by ").join(count_text(size) for size in row.output_shape)
            return self.tr("output {}").format(shape) if shape else self.tr("output not known")
        if column == Column.PARAMS:
            return self.tr("{count} parameters").format(count=count_text(row.num_params))
        if column == Column.TYPE:
            return row.type
        explained = self._layer_tree.explain(row.id)
        return explained if column == Column.STATE else f"{row.name}, {explained}"

    def _bar(self, row: LayerRow) -> float | None:
        stats = self._layer_tree.stats.of(row.id)
        if stats is None or self._layer_tree.frozen.drift_text(row.id):
            return None
        if not math.isfinite(stats.update_ratio) or stats.update_ratio <= 0:
            return 0.0 if stats.update_ratio <= 0 else 1.0
        decades = math.log10(stats.update_ratio) - _LEAST_UPDATE_DECADE
        return min(max(decades / _NUM_UPDATE_DECADES, 0.0), 1.0)

    def _reset(self) -> None:
        self.beginResetModel()
        self._rows = self._layer_tree.rows
        self._told = {}
        self.endResetModel()

    def _state(self, row_id: int) -> _RowState:
        tree = self._layer_tree
        return (
            tree.frozen.state_of(row_id),
            tree.is_pending(row_id),
            tree.rates.of(row_id),
            tree.rates.is_pending(row_id),
        )

    def _tell_states(self) -> None:
        # A row that nobody has read needs no signal, and each signal costs the views a search: telling all the rows of
        # a large tree would take longer than a frame.
        changed = {row_id: now for row_id, told in self._told.items() if (now := self._state(row_id)) != told}
        self._told.update(changed)
        for parent_id in {self._rows[row_id].parent for row_id in changed}:
            children = self._rows[parent_id].children
            first = self.createIndex(0, 0, children[0])
            last = self.createIndex(len(children) - 1, Column.STATE, children[-1])
            self.dataChanged.emit(first, last)


class LayerFilter(QSortFilterProxyModel):
    """Shows the rows whose name, type or state has every word of a text, with what is above and below them."""

    def __init__(self, item_model: LayerTreeItemModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._item_model = item_model
        self._words: list[str] = []
        self._is_filtering = False
        self.setSourceModel(item_model)
        self.setRecursiveFilteringEnabled(True)
        self.setAutoAcceptChildRows(True)
        # Every change of a state would else filter all rows again, through Python; without words that changes nothing.
        self.setDynamicSortFilter(False)
        item_model.dataChanged.connect(self._filter_states_again)

    def row_id_of(self, index: Index) -> int:
        """Return the id of the row behind an index."""
        return self.mapToSource(index).internalId()

    def cells(self, index: Index, columns: Iterable[int]) -> list[Cell]:
        """Return what the cells of a row show."""
        return self._item_model.cells(self.row_id_of(index), columns)

    def set_text(self, text: str) -> None:
        """Filter by words; an empty text shows everything."""
        self._words = text.casefold().split()
        # The narrower calls are deprecated in some of the Qt versions that we take and missing in others.
        self.invalidate()

    def _filter_states_again(self) -> None:
        if self._words and not self._is_filtering:
            self._is_filtering = True
            QTimer.singleShot(0, self, self._invalidate_once)

    def _invalidate_once(self) -> None:
        self._is_filtering = False
        self.invalidate()

    def filterAcceptsRow(self, source_row: int, source_parent: Index) -> bool:
        """Tell whether a row itself matches."""
        if not self._words:
            return True
        index = self._item_model.index(source_row, 0, source_parent)
        row = self._item_model.row_of(index)
        state = self._item_model.state_of(index)
        states = {state.value, self._state_word(state)}
        return all(word in states or word in f"{row.fqn} {row.name} {row.type}".casefold() for word in self._words)

    def _state_word(self, state: LayerState) -> str:
        words = {
            LayerState.FROZEN: self.tr("frozen"),
            LayerState.TRAINABLE: self.tr("trainable"),
            LayerState.PARTLY: self.tr("partly"),
        }
        return words.get(state, "").casefold()
