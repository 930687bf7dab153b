"""ConfusionMap: a confusion matrix as a heat map, from two classes with their numbers to a thousand as dots."""

from __future__ import annotations

import functools
import heapq
import math

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QEvent, QModelIndex, QRect, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFontMetrics,
    QImage,
    QKeyEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from app import theme
from app.viewmodels.confusion_items import ClassMatrixItemModel, Levels, Sides

_LARGEST_CELL = QSize(64, 32)
_LEAST_CELL_PX = 3
_READABLE_CELL_PX = 16
_MAX_READABLE_CLASSES = 24
"""So many keep their names and numbers, and are scrolled where there is little room; more are fitted as dots."""
_GRID_FROM_PX = 6
_WIDEST_NAME_PX = 112
_NAMES_HEIGHT = 18
_PADDING = 4
_ZOOM_STEP = 1.25


class ConfusionMap(QTableView):
    """A row for each class, a column for what it was taken for: blue what was right, orange what was not.

    The colour is a cell's share of its class's images, so that a small class shows as well as a large one.
    """

    cell_chosen = Signal(int, int)
    """The cell that the keyboard or the pointer has chosen: the class, and what it was taken for."""
    cell_pointed = Signal(QModelIndex)
    """The pointer is over this cell; an invalid one when it has left."""

    def __init__(self, matrix: ClassMatrixItemModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._matrix = matrix
        self._names_px = 0
        self._zoom = 1.0
        self.setHorizontalHeader(_ClassHeader(Qt.Orientation.Horizontal, self))
        self.setVerticalHeader(_ClassHeader(Qt.Orientation.Vertical, self))
        self.setModel(matrix)
        self.setAccessibleName(self.tr("Confusion matrix: a row for each class, a column for what it was taken for"))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setCornerButtonEnabled(False)
        self.setTabKeyNavigation(False)
        self.setMouseTracking(True)
        self.entered.connect(self.cell_pointed)
        matrix.modelReset.connect(self._begin)
        matrix.dataChanged.connect(self.viewport().update)
        self.selectionModel().currentChanged.connect(self._choose)
        self._measure_names()

    def show_cell(self, cell: tuple[int, int] | None) -> None:
        """Point at a cell that was chosen elsewhere, and bring it into view."""
        if cell is None:
            self.setCurrentIndex(QModelIndex())
            return
        index = self._matrix.index(*cell)
        if index != self.currentIndex():
            self.setCurrentIndex(index)
            self.scrollTo(index, QAbstractItemView.ScrollHint.EnsureVisible)

    @property
    def has_numbers(self) -> bool:
        """Whether the cells have room for their numbers."""
        return self.verticalHeader().defaultSectionSize() >= _READABLE_CELL_PX

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the cells in view: all their colours at once, then their numbers where those have room."""
        if not self._matrix.rowCount():
            return
        rows = self._in_view(self.verticalHeader(), self.viewport().height())
        columns = self._in_view(self.horizontalHeader(), self.viewport().width())
        height, width = self.verticalHeader().defaultSectionSize(), self.horizontalHeader().defaultSectionSize()
        left, top = self.columnViewportPosition(columns.start), self.rowViewportPosition(rows.start)
        colors = theme.palette_of(self)
        painter = QPainter(self.viewport())
        image = _heat_image(*self._matrix.levels(rows, columns), colors)
        painter.drawImage(QRect(left, top, width * len(columns), height * len(rows)), image)
        if height >= _GRID_FROM_PX:
            painter.setPen(QColor(colors.panel))
            for row in range(len(rows) + 1):
                painter.drawLine(left, top + row * height - 1, left + width * len(columns), top + row * height - 1)
            for column in range(len(columns) + 1):
                painter.drawLine(left + column * width - 1, top, left + column * width - 1, top + height * len(rows))
        if self.has_numbers:
            self._paint_numbers(painter, image, rows, columns)
        self._paint_current(painter, colors)
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fit the cells into the room."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        """Measure the names anew in another font."""
        super().changeEvent(event)
        if event.type() in {QEvent.Type.FontChange, QEvent.Type.StyleChange} and hasattr(self, "_names_px"):
            self._measure_names()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Enlarge the cells with Ctrl and the wheel."""
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._zoom_by(_ZOOM_STEP ** (event.angleDelta().y() / 120))
        else:
            super().wheelEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enlarge the cells with plus, make them smaller with minus."""
        if event.key() in {Qt.Key.Key_Plus, Qt.Key.Key_Equal}:
            self._zoom_by(_ZOOM_STEP)
        elif event.key() == Qt.Key.Key_Minus:
            self._zoom_by(1 / _ZOOM_STEP)
        else:
            super().keyPressEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        """Say that the pointer is over no cell."""
        super().leaveEvent(event)
        self.cell_pointed.emit(QModelIndex())

    def keyboardSearch(self, search: str) -> None:
        """Do nothing: of a thousand classes, a letter would be looked for in a million cells."""

    # -- inside -----------------------------------------------------------------------------------------------

    def _choose(self, index: QModelIndex) -> None:
        if index.isValid():
            self.cell_chosen.emit(index.row(), index.column())
        self.viewport().update()
        self.verticalHeader().viewport().update()
        self.horizontalHeader().viewport().update()

    def _begin(self) -> None:
        self._zoom = 1.0
        self._measure_names()

    def _measure_names(self) -> None:
        # Of a thousand names, measuring each would take longer than a frame.
        names = heapq.nlargest(20, self._matrix.class_names, key=len)
        metrics = QFontMetrics(theme.text_font(theme.SIZE_SMALL))
        widest = max((metrics.horizontalAdvance(name) for name in names), default=0)
        self._names_px = max(min(widest, _WIDEST_NAME_PX) + 3 * _PADDING, _NAMES_HEIGHT)
        self._fit()

    def _fit(self) -> None:
        if not self._matrix.rowCount():
            return
        names_px = self._names_px
        cell = self._cell_size(names_px)
        if cell.height() < _READABLE_CELL_PX:
            names_px = 0
            cell = self._cell_size(0)
        is_upright = cell.width() < names_px
        top_px = names_px if is_upright else min(names_px, _NAMES_HEIGHT)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        rows.setDefaultSectionSize(cell.height())
        columns.setDefaultSectionSize(cell.width())
        rows.setFixedWidth(names_px)
        columns.setFixedHeight(top_px)
        for header in (rows, columns):
            header.setVisible(names_px > 0)
        self.updateGeometries()
        self.viewport().update()

    def _cell_size(self, names_px: int) -> QSize:
        """Return the size of a cell where the names beside and above take some of the room."""
        num_classes = self._matrix.rowCount()
        least = _READABLE_CELL_PX if num_classes <= _MAX_READABLE_CLASSES else _LEAST_CELL_PX
        room = self.contentsRect().size() - QSize(names_px, names_px)
        sides = (max(extent // num_classes, least) * self._zoom for extent in (room.width(), room.height()))
        width, height = map(round, sides)
        height = min(height, _LARGEST_CELL.height())
        # Three digits need some width; but no cell is more than twice as wide as it is high.
        return QSize(min(width, _LARGEST_CELL.width(), 2 * height if names_px else height), height)

    def _zoom_by(self, factor: float) -> None:
        height = self.verticalHeader().defaultSectionSize()
        has_room = height < _LARGEST_CELL.height() if factor > 1 else self._zoom > 1
        if has_room:
            self._zoom = max(1.0, self._zoom * factor)
            self._fit()
            if self.currentIndex().isValid():
                self.scrollTo(self.currentIndex(), QAbstractItemView.ScrollHint.PositionAtCenter)

    def _in_view(self, header: QHeaderView, extent: int) -> range:
        size = header.defaultSectionSize()
        first = header.offset() // size
        return range(first, min(self._matrix.rowCount(), math.ceil((header.offset() + extent) / size)))

    def _paint_numbers(self, painter: QPainter, image: QImage, rows: range, columns: range) -> None:
        painter.setFont(theme.text_font(theme.SIZE_SMALL))
        metrics = painter.fontMetrics()
        height, width = self.verticalHeader().defaultSectionSize(), self.horizontalHeader().defaultSectionSize()
        for row in rows:
            for column in columns:
                text = self._matrix.number_text(row, column)
                if not text or metrics.horizontalAdvance(text) > width - 2:
                    continue
                place = QRect(self.columnViewportPosition(column), self.rowViewportPosition(row), width - 1, height - 1)
                painter.setPen(theme.text_on(image.pixelColor(column - columns.start, row - rows.start)))
                painter.drawText(place, Qt.AlignmentFlag.AlignCenter, text)

    def _paint_current(self, painter: QPainter, colors: theme.Palette) -> None:
        index = self.currentIndex()
        if not index.isValid():
            return
        # Around a cell of three pixels there must be something to be seen.
        place = self.visualRect(index).adjusted(-1, -1, 0, 0)
        is_small = place.height() < _GRID_FROM_PX
        painter.setPen(QPen(QColor(colors.text), 2))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(place.adjusted(-3, -3, 3, 3) if is_small else place)


class _ClassHeader(QHeaderView):
    """The classes' names in small letters; upright above columns that are too narrow for them."""

    def __init__(self, orientation: Qt.Orientation, parent: QWidget) -> None:
        super().__init__(orientation, parent)
        self.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.setMinimumSectionSize(1)
        self.setHighlightSections(False)
        self.setSectionsClickable(False)

    def paintSection(self, painter: QPainter, rect: QRect, logical_index: int) -> None:
        view = self.parent()
        assert isinstance(view, ConfusionMap)
        colors, is_row = theme.palette_of(self), self.orientation() is Qt.Orientation.Vertical
        current = view.currentIndex()
        is_current = current.isValid() and logical_index == (current.row() if is_row else current.column())
        painter.save()
        painter.fillRect(rect, QColor(colors.panel))
        painter.setFont(theme.text_font(theme.SIZE_SMALL, is_strong=is_current))
        painter.setPen(QColor(colors.text if is_current else colors.dim))
        is_upright = not is_row and rect.height() > theme.ROW_HEIGHT
        alignment = Qt.AlignmentFlag.AlignVCenter
        if is_row:
            alignment |= Qt.AlignmentFlag.AlignRight
        elif not is_upright:
            alignment |= Qt.AlignmentFlag.AlignHCenter
        place = QRect(rect)
        if is_upright:
            painter.translate(rect.left(), rect.bottom() + 1)
            painter.rotate(-90)
            place = QRect(0, 0, rect.height(), rect.width())
        if is_row or is_upright:
            place.adjust(_PADDING, 0, -_PADDING, 0)
        name = self.model().headerData(logical_index, self.orientation())
        text = painter.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, place.width())
        painter.drawText(place, alignment, text)
        painter.restore()


def _heat_image(levels: Levels, is_right: Sides, colors: theme.Palette) -> QImage:
    right, wrong = _heat_values(colors, is_right=True), _heat_values(colors, is_right=False)
    pixels = np.ascontiguousarray(np.where(is_right, right[levels], wrong[levels]))
    image = QImage(pixels.data, levels.shape[1], levels.shape[0], 4 * levels.shape[1], QImage.Format.Format_RGB32)
    # With its own memory: that of the array goes with the array.
    return image.copy()


@functools.cache
def _heat_values(colors: theme.Palette, *, is_right: bool) -> npt.NDArray[np.uint32]:
    return np.array([color.rgb() for color in theme.heat_scale(colors, is_right=is_right)], np.uint32)
