"""TableDelegate: how a table paints the cells that hold one line of text."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from app import theme
from app.views.table import Table

_PADDING = 8


class TableDelegate(QStyledItemDelegate):
    """Paints the background of a cell and its text, in the colour that a subclass says.

    The stock delegate asks the model for eight more values, and the style sheet for as many.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.table = table

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        """Return the colour of a cell's text."""
        return colors.text

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint one cell."""
        self.paint_background(painter, option)
        text = index.data()
        if not text:
            return
        rect = option.rect.adjusted(_PADDING, 0, -_PADDING, 0)
        painter.setFont(theme.text_font())
        painter.setPen(QColor(self.color(index, self.table.colors)))
        elided = theme.elided(text, rect.width(), self.table.textElideMode())
        painter.drawText(rect, self.table.alignment(index), elided)

    def paint_background(self, painter: QPainter, option: QStyleOptionViewItem) -> None:
        """Paint what lies behind a cell."""
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, QColor(self.table.colors.selection))
