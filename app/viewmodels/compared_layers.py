"""The layers of a comparison as a tree: how far each has moved from the first checkpoint to another one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from PySide6.QtCore import QAbstractItemModel, QModelIndex, QObject, Qt

from app.viewmodels.frozen_layers import LayerState
from app.viewmodels.quantities import MISSING, count_text, measure_text, number_text
from app.viewmodels.table_item_model import Index
from trainer.messages.comparison import ComparedLayer, LayerDistance

LAYER, STATE, MOVED, COSINE, WEIGHTS, NOTE = range(6)
NUM_COLUMNS = 6

CELL_ROLE = Qt.ItemDataRole.UserRole + 1
"""All that is painted in a cell, a ComparedCell."""

_NUMBERS = frozenset({MOVED, COSINE, WEIGHTS})


class ComparedCell(NamedTuple):
    """What a cell shows. ``bar`` is how full its bar is, 0 to 1, None where it has none."""

    text: str
    state: LayerState
    is_top: bool
    bar: float | None
    is_trouble: bool


class ComparedLayerItemModel(QAbstractItemModel):
    """The layers of the first one's model. The whole model is the invisible root."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._layers: list[ComparedLayer] = []
        self._column = 0
        self._parents: list[int] = []
        self._children: list[list[int]] = []
        self._positions: list[int] = []
        self._largest = 0.0
        self._sorted_by = LAYER, Qt.SortOrder.AscendingOrder

    def show(self, layers: list[ComparedLayer]) -> None:
        """Show layers in the model's order, the whole model first."""
        self.beginResetModel()
        self._layers = layers
        ids = {layer.fqn: layer_id for layer_id, layer in enumerate(layers)}
        self._parents, self._positions = [0] * len(layers), [0] * len(layers)
        self._children = [[] for _ in layers]
        for layer_id, layer in enumerate(layers[1:], start=1):
            parent = ids[layer.fqn.rpartition(".")[0]]
            self._parents[layer_id] = parent
            self._children[parent].append(layer_id)
        self._find_largest()
        self._put_in_order()
        self.endResetModel()

    def choose(self, column: int) -> None:
        """Show the distances to another one of the others, by its place among them."""
        self._column = column
        self._find_largest()
        self.sort(*self._sorted_by)

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Put the layers that one holds in another order; by their names, they are in the model's."""
        self._sorted_by = column, order
        self.layoutAboutToBeChanged.emit()
        self._put_in_order()
        kept = self.persistentIndexList()
        moved = [(index.internalId(), index.column()) for index in kept]
        self.changePersistentIndexList(kept, [self.createIndex(self._positions[i], each, i) for i, each in moved])
        self.layoutChanged.emit()

    @property
    def num_values(self) -> int:
        """Return how many weights the first one's model has."""
        return self._layers[0].num_values if self._layers else 0

    @property
    def whole(self) -> LayerDistance | None:
        """Return the distance of the whole model, as far as it was compared."""
        return self._layers[0].distances[self._column] if self._layers else None

    # -- QAbstractItemModel -----------------------------------------------------------------------------------

    def index(self, row: int, column: int, parent: Index = QModelIndex()) -> QModelIndex:
        """Return the index of a child."""
        children = self._below(parent)
        if not (0 <= row < len(children) and 0 <= column < NUM_COLUMNS) or parent.column() > 0:
            return QModelIndex()
        return self.createIndex(row, column, children[row])

    def parent(self, index: Index) -> QModelIndex:  # type: ignore[override]  # Qt overloads it with QObject's
        """Return the index of the layer above."""
        parent = self._parents[index.internalId()] if index.isValid() else 0
        return self.createIndex(self._positions[parent], LAYER, parent) if parent else QModelIndex()

    def rowCount(self, parent: Index = QModelIndex()) -> int:
        """Count the layers below."""
        return len(self._below(parent)) if parent.column() <= 0 else 0

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Count the columns."""
        return NUM_COLUMNS

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading, and what its figures are."""
        if orientation is not Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            headings = (self.tr("Layer"), "", self.tr("Moved"), self.tr("Cosine"), self.tr("Params"), "")
            return headings[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return {
                MOVED: self.tr("The norm of the difference, as a share of the norm of the first one's weights"),
                COSINE: self.tr("Of the angle between the weights of both: 1 where they point the same way"),
                WEIGHTS: self.tr("How many values the layer has, with all below it"),
            }.get(section)
        return _alignment(section) if role == Qt.ItemDataRole.TextAlignmentRole else None

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        if not index.isValid():
            return None
        layer_id, column = index.internalId(), index.column()
        layer = self._layers[layer_id]
        distance = layer.distances[self._column]
        if role == CELL_ROLE:
            return self._cell(layer_id, column, layer, distance)
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(layer, distance, column)
            case Qt.ItemDataRole.AccessibleTextRole:
                return self._state_text(layer, distance) if column == STATE else self._text(layer, distance, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tooltip(layer, distance, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(column)
        return None

    # -- inside -----------------------------------------------------------------------------------------------

    def _below(self, index: Index) -> list[int]:
        layer_id = index.internalId() if index.isValid() else 0
        return self._children[layer_id] if self._children else []

    def _find_largest(self) -> None:
        distances = [layer.distances[self._column] for layer in self._layers[1:]]
        finite = (each.relative for each in distances if each is not None and math.isfinite(each.relative))
        self._largest = max(finite, default=0.0)

    def _put_in_order(self) -> None:
        column, order = self._sorted_by
        keys = [
            _sort_key(layer_id, column, layer, layer.distances[self._column])
            for layer_id, layer in enumerate(self._layers)
        ]
        for children in self._children:
            children.sort(key=keys.__getitem__, reverse=order is Qt.SortOrder.DescendingOrder)
            for position, layer_id in enumerate(children):
                self._positions[layer_id] = position

    def _cell(self, layer_id: int, column: int, layer: ComparedLayer, distance: LayerDistance | None) -> ComparedCell:
        is_measured = distance is not None and math.isfinite(distance.relative) and self._largest
        return ComparedCell(
            text=self._text(layer, distance, column),
            state=_state(layer, distance),
            is_top=not self._parents[layer_id],
            bar=distance.relative / self._largest if column == MOVED and distance and is_measured else None,
            is_trouble=distance is not None and math.isnan(distance.distance),
        )

    def _text(self, layer: ComparedLayer, distance: LayerDistance | None, column: int) -> str:
        if column == LAYER:
            return layer.fqn.rpartition(".")[2]
        if column == WEIGHTS:
            return count_text(layer.num_values)
        if distance is None:
            return {MOVED: MISSING, COSINE: MISSING, NOTE: self.tr("no counterpart")}.get(column, "")
        match column:
            case 2:
                return moved_text(distance)
            case 3:
                return number_text(distance.cosine, 4)
            case 5:
                return self._note(layer, distance)
        return ""

    def _note(self, layer: ComparedLayer, distance: LayerDistance) -> str:
        if distance.num_compared < layer.num_values:
            return self.tr("{} compared").format(count_text(distance.num_compared))
        if math.isnan(distance.distance):
            return self.tr("not a number")
        if not distance.distance:
            return self.tr("equal") if distance.is_equal else self.tr("only its statistics differ")
        return ""

    def _state_text(self, layer: ComparedLayer, distance: LayerDistance | None) -> str:
        if distance is None:
            return ""
        words = {
            (True, True): self.tr("frozen in both"),
            (True, False): self.tr("frozen in the first alone"),
            (False, True): self.tr("not frozen in the first"),
            (False, False): self.tr("trainable in both"),
        }
        return words[layer.is_frozen, distance.is_frozen]

    def _tooltip(self, layer: ComparedLayer, distance: LayerDistance | None, column: int) -> str:
        if column == STATE:
            return self._state_text(layer, distance)
        if column in {LAYER, WEIGHTS, NOTE} or distance is None:
            return f"{layer.fqn} · {layer.type}"
        text = self.tr("{name}: a difference of norm {distance}, of weights of norm {norm}")
        return text.format(name=layer.fqn, distance=measure_text(distance.distance), norm=measure_text(layer.norm))


def moved_text(distance: LayerDistance) -> str:
    """Write how far weights have moved: "3.9 %", or "0" where they are equal."""
    if not distance.relative:
        return "0"
    text = measure_text(100 * distance.relative)
    return f"{text} %" if math.isfinite(distance.relative) else text


def _state(layer: ComparedLayer, distance: LayerDistance | None) -> LayerState:
    if distance is None:
        return LayerState.NOTHING
    if layer.is_frozen and distance.is_frozen:
        return LayerState.FROZEN
    return LayerState.PARTLY if layer.is_frozen or distance.is_frozen else LayerState.TRAINABLE


def _sort_key(layer_id: int, column: int, layer: ComparedLayer, distance: LayerDistance | None) -> float:
    if column == LAYER:
        return layer_id
    if column == WEIGHTS:
        return layer.num_values
    if column in {STATE, NOTE} or distance is None:
        return -2.0 if distance is None else float(layer.is_frozen) + float(distance.is_frozen)
    value = distance.relative if column == MOVED else distance.cosine
    return math.inf if value is None or math.isnan(value) else value


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column in _NUMBERS else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
