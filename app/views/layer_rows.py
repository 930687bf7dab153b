"""The rows of the model's tree."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QModelIndex, QPersistentModelIndex, QPointF, QRect, Qt, Signal
from PySide6.QtGui import (
    QAccessible,
    QColor,
    QContextMenuEvent,
    QHelpEvent,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QToolTip, QTreeView

from app.theme import LIGHT, SPACE, Palette
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.layer_tree_item_model import ROW_ID_ROLE, Column, LayerFilter
from app.views.cached_line import CachedLine
from app.views.layer_delegate import LayerDelegate, check_box_rect

_WIDTHS = {
    Column.TYPE: 96,
    Column.SHAPE: 104,
    Column.MULTIPLIER: 52,
    Column.GRADIENT: 72,
    Column.UPDATE: 64,
    Column.STATE: 52,
}
_LEAST_SECTION_WIDTH = _WIDTHS[Column.STATE] - 2 * SPACE
LEAST_WIDTHS = {
    Column.PARAMS: 0,
    Column.UPDATE: 320,
    Column.MULTIPLIER: 360,
    Column.TYPE: 460,
    Column.GRADIENT: 540,
    Column.SHAPE: 660,
}
"""A name that is cut off helps nobody: from which width of the tree on a column is shown, unless the user chose."""
_INDENT = 16


class LayerRows(QTreeView):
    """The rows of the model's tree: what is seen of them, and what keys and clicks on them ask for."""

    pointed_at = Signal(object)
    """The row under the mouse, or else the present one, is another (its id or None)."""
    toggle_pressed = Signal()
    """Space was pressed: freeze or unfreeze what is selected."""
    edit_pressed = Signal()
    """F2 was pressed: type the rate multiplier of what is selected."""
    menu_wanted = Signal(object)
    """The menu was asked for, by mouse or key, at this place on the screen (QPoint)."""
    column_menu_wanted = Signal(object)
    """The menu of the columns was asked for at this place on the screen (QPoint)."""

    def __init__(self, rows: LayerFilter, delegate: LayerDelegate, layer_tree: LayerTreeViewModel) -> None:
        super().__init__()
        self.colors: Palette = LIGHT
        self._cached_line = CachedLine(self, layer_tree)
        self._chosen: dict[Column, bool] = {}
        self.setAccessibleName(self.tr("Layers of the model"))
        self.setModel(rows)
        self.setItemDelegate(delegate)
        self.setUniformRowHeights(True)
        self.setIndentation(_INDENT)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setFrameShape(QTreeView.Shape.NoFrame)
        self.setMouseTracking(True)
        self.entered.connect(self._point_at)
        self._set_up_header()

    def _set_up_header(self) -> None:
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionsMovable(False)
        header.setMinimumSectionSize(_LEAST_SECTION_WIDTH)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(Column.LAYER, QHeaderView.ResizeMode.Stretch)
        for column, width in _WIDTHS.items():
            header.resizeSection(column, width)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(
            lambda position: self.column_menu_wanted.emit(header.mapToGlobal(position))
        )

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Take two quick clicks on a check box for two clicks."""
        index = self.indexAt(event.position().toPoint())
        if self._is_check_box(index, event.position()):
            self.mousePressEvent(event)
        else:
            super().mouseDoubleClickEvent(event)

    def _is_check_box(self, index: QModelIndex, position: QPointF) -> bool:
        return index.column() == Column.LAYER and check_box_rect(self.visualRect(index)).contains(position)

    def leaveEvent(self, event: QEvent) -> None:
        """Point at the present row, or at none."""
        super().leaveEvent(event)
        self._point_at(self.currentIndex() if self.hasFocus() else QModelIndex())

    def currentChanged(
        self, current: QModelIndex | QPersistentModelIndex, previous: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Point at it."""
        super().currentChanged(current, previous)
        self._point_at(current)

    def _point_at(self, index: QModelIndex | QPersistentModelIndex) -> None:
        self.pointed_at.emit(int(index.data(ROW_ID_ROLE)) if index.isValid() else None)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show the columns for which there is room."""
        super().resizeEvent(event)
        self.fit_columns(self._chosen)

    def fit_columns(self, chosen: dict[Column, bool]) -> None:
        """Show the columns that were chosen, and of the others those for which there is room."""
        self._chosen = chosen
        for column, least_width in LEAST_WIDTHS.items():
            is_hidden = not chosen.get(column, self.viewport().width() >= least_width)
            if self.isColumnHidden(column) != is_hidden:
                self.setColumnHidden(column, is_hidden)

    def dataChanged(
        self,
        topLeft: QModelIndex | QPersistentModelIndex,
        bottomRight: QModelIndex | QPersistentModelIndex,
        roles: Sequence[int] = (),
    ) -> None:
        """Repaint. Qt would first look for the place of every cell, which in a large tree takes longer than that."""
        if QAccessible.isActive():
            super().dataChanged(topLeft, bottomRight, list(roles))
        else:
            self.viewport().update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the rows, and between them where what is cached ends."""
        super().paintEvent(event)
        painter = QPainter(self.viewport())
        self._cached_line.paint(painter, self.colors)
        painter.end()

    def viewportEvent(self, event: QEvent) -> bool:
        """Say of the line what is cached; of all else, what the rows say."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            tip = self._cached_line.tip_at(event.pos())
            if tip:
                QToolTip.showText(event.globalPos(), tip, self)
                return True
        return super().viewportEvent(event)

    def drawBranches(self, painter: QPainter, rect: QRect, index: QModelIndex | QPersistentModelIndex) -> None:
        """Draw the mark of a row that has others below it."""
        if self.selectionModel().isSelected(index):
            painter.fillRect(rect, QColor(self.colors.selection))
        if not self.model().hasChildren(index):
            return
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(self.colors.dim), 1.6))
        painter.translate(rect.right() - _INDENT / 2 + 0.5, rect.center().y() + 0.5)
        if self.isExpanded(index):
            painter.rotate(90)
        painter.drawPolyline(QPolygonF([QPointF(-1.8, -3.6), QPointF(1.8, 0), QPointF(-1.8, 3.6)]))
        painter.restore()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Take the keys for what can be done with the selected rows."""
        if event.key() == Qt.Key.Key_Space and not event.isAutoRepeat():
            self.toggle_pressed.emit()
        elif event.key() == Qt.Key.Key_F2:
            self.edit_pressed.emit()
        elif event.matches(QKeySequence.StandardKey.SelectAll):
            self.selectAll()
        else:
            super().keyPressEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Ask for the menu."""
        position = event.globalPos()
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            position = self.viewport().mapToGlobal(self.visualRect(self.currentIndex()).bottomLeft())
        self.menu_wanted.emit(position)
