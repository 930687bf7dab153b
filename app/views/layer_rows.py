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
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QStyle, QStyleOptionViewItem, QToolTip, QTreeView

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
        self._rows, self._delegate, self._layer_tree = rows, delegate, layer_tree
        self._places: dict[Column, tuple[int, int]] = {}
        """Where the columns that are shown begin, and how wide they are."""
        self._hovered_id: int | None = None
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
        self.entered.connect(self._hover)
        self.viewportEntered.connect(self._hover)
        rows.modelReset.connect(self._hover)
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
        self._hover()
        self._point_at(self.currentIndex() if self.hasFocus() else QModelIndex())

    def currentChanged(
        self, current: QModelIndex | QPersistentModelIndex, previous: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Point at it."""
        super().currentChanged(current, previous)
        self._point_at(current)

    def _hover(self, index: QModelIndex = QModelIndex()) -> None:
        """Show that the mouse is on a row, or on none. It also gets there by scrolling."""
        self._hovered_id = self._rows.row_id_of(index) if index.isValid() else None
        self.viewport().update()

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
        header = self.header()
        self._places = {
            column: (header.sectionViewportPosition(column), header.sectionSize(column))
            for column in Column
            if not header.isSectionHidden(column)
        }
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

    def drawRow(
        self, painter: QPainter, options: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Draw a whole row. Cell by cell, Qt asks for flags, indexes and values, and each goes through Python."""
        rect, row_id = QRect(options.rect), self._rows.row_id_of(index)
        is_selected = self.selectionModel().isSelected(index)
        if is_selected or row_id == self._hovered_id:
            painter.fillRect(rect, QColor(self.colors.selection if is_selected else self.colors.background))
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        indent = _INDENT * self._layer_tree.rows[row_id].depth
        if options.state & QStyle.StateFlag.State_Children:
            is_open = bool(options.state & QStyle.StateFlag.State_Open)
            self._draw_arrow(painter, QPointF(indent - _INDENT / 2, rect.center().y()), is_open=is_open)
        cells = self._rows.cells(index, self._places)
        for cell, (column, (x, width)) in zip(cells, self._places.items(), strict=True):
            left = indent if column == Column.LAYER else 0
            place = QRect(x + left, rect.top(), width - left, rect.height())
            self._delegate.paint_cell(painter, place, cell, column)
        painter.restore()

    def _draw_arrow(self, painter: QPainter, middle: QPointF, *, is_open: bool) -> None:
        """Draw the mark of a row that has others below it."""
        painter.setPen(QPen(QColor(self.colors.dim), 1.6))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        points = [(-3.6, -1.8), (0, 1.8), (3.6, -1.8)] if is_open else [(-1.8, -3.6), (1.8, 0), (-1.8, 3.6)]
        painter.drawPolyline(QPolygonF([middle + QPointF(x - 0.5, y + 0.5) for x, y in points]))

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
