"""CachedLine: the line in the model's tree above which features are computed only once an image."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPoint, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPen
from PySide6.QtWidgets import QTreeView

from app.theme import SIZE_SMALL, SPACE, Palette, icon, text_font
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.layer_tree_item_model import ROW_ID_ROLE, Column

_HEIGHT = 13
_ICON_SIZE = 9
_PADDING = 5
_REACH = 4
"""How near to the line its tip is shown."""


class CachedLine:
    """Painted over the rows, between two of them, so that no row moves as it comes, goes or moves."""

    def __init__(self, tree: QTreeView, layer_tree: LayerTreeViewModel) -> None:
        self._tree, self._layer_tree = tree, layer_tree

    def paint(self, painter: QPainter, colors: Palette) -> None:
        """Paint the line and its words, if its place is in sight."""
        row = self._row_above()
        if row is None:
            return
        y = self._tree.visualRect(row).bottom() + 1
        is_offer = self._layer_tree.cached.is_offer
        pen = QPen(QColor(colors.dim if is_offer else colors.frozen), 1)
        pen.setStyle(Qt.PenStyle.DashLine if is_offer else Qt.PenStyle.SolidLine)
        painter.setPen(pen)
        painter.drawLine(0, y, self._tree.viewport().width(), y)
        text, place = self._words(row, y)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(colors.line if is_offer else colors.frozen), 1))
        painter.setBrush(QColor(colors.panel if is_offer else colors.frozen_background))
        painter.drawRoundedRect(QRectF(place).adjusted(0.5, 0.5, -0.5, -0.5), _HEIGHT / 2, _HEIGHT / 2)
        color = colors.dim if is_offer else colors.frozen
        snowflake = QRect(place.left() + _PADDING, place.center().y() - _ICON_SIZE // 2 + 1, _ICON_SIZE, _ICON_SIZE)
        icon("snowflake", color).paint(painter, snowflake)
        painter.setFont(text_font(SIZE_SMALL))
        painter.setPen(QColor(color))
        words = place.adjusted(_PADDING + _ICON_SIZE + SPACE - 1, 0, 0, 0)
        painter.drawText(words, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter), text)

    def tip_at(self, position: QPoint) -> str:
        """Return what is to be said of the line at a place of the tree; "" where it is not near."""
        row = self._row_above()
        if row is None:
            return ""
        y = self._tree.visualRect(row).bottom() + 1
        is_near = abs(position.y() - y) <= _REACH or self._words(row, y)[1].contains(position)
        return self._layer_tree.cached.explanation() if is_near else ""

    def _row_above(self) -> QModelIndex | None:
        """Return the last row in sight above the line; None where there is no line, or none in sight."""
        if not self._layer_tree.shows_cached:
            return None
        cached, bottom = self._layer_tree.cached, self._tree.viewport().height()
        row, last = self._tree.indexAt(QPoint(0, 0)), None
        while row.isValid() and cached.is_above(row.data(ROW_ID_ROLE)):
            if self._tree.visualRect(row).bottom() > bottom:
                return None
            last, row = row, self._tree.indexBelow(row)
        return last

    def _words(self, row: QModelIndex, y: int) -> tuple[str, QRect]:
        """Return the words on the line, shortened to the room for them, and where they stand."""
        header, metrics = self._tree.header(), QFontMetrics(text_font(SIZE_SMALL))
        # Over figures, which hang less low than names do.
        right = header.sectionViewportPosition(Column.STATE)
        besides = 2 * _PADDING + _ICON_SIZE + SPACE
        text = self._layer_tree.cached.label(row.data(ROW_ID_ROLE))
        text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, right - besides)
        width = metrics.horizontalAdvance(text) + besides
        return text, QRect(right - width, y - _HEIGHT // 2, width, _HEIGHT)
