"""How a layer's row is painted: its check box, its name in the colour of its state, and the state's sign."""

from __future__ import annotations

from PySide6.QtCore import (
    QAbstractItemModel,
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QPointF,
    QRect,
    QRectF,
    QSize,
    QSizeF,
    Qt,
    Signal,
)
from PySide6.QtGui import QBrush, QColor, QMouseEvent, QPainter, QPen
from PySide6.QtWidgets import QLineEdit, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from app.theme import DARK, LIGHT, ROW_HEIGHT, SIZE_LABEL, SIZE_TEXT, Palette, elided, icon, text_font
from app.viewmodels.frozen_layers import LayerState
from app.viewmodels.layer_tree_item_model import (
    ALIGNMENTS,
    ROW_ID_ROLE,
    Cell,
    Column,
)

_PADDING = 6
_BOX_SIZE = 13
_REACH = 5
_BOX_RADIUS = 4
_ICON_SIZE = 16
_BAR_HEIGHT = 5
_SIGNS = {LayerState.FROZEN: "snowflake", LayerState.TRAINABLE: "sun", LayerState.PARTLY: "half"}


class LayerDelegate(QStyledItemDelegate):
    """Frozen is cool and a snowflake, trainable is warm and a sun, partly is half, pending is hatched."""

    multiplier_typed = Signal(int, str)
    """A rate multiplier was typed: the row's id, the text."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.colors: Palette = LIGHT

    def set_dark(self, is_dark: bool) -> None:
        """Take the theme's colours."""
        self.colors = DARK if is_dark else LIGHT

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        """Return a row's size: all are of one height."""
        return QSize(0, ROW_HEIGHT)

    def paint_cell(self, painter: QPainter, rect: QRect, cell: Cell, column: int) -> None:
        """Paint one cell over its row's background, with a painter that smooths edges."""
        if column == Column.STATE:
            self._paint_sign(painter, rect, cell.state, is_pending=cell.is_pending)
        elif cell.bar is not None:
            self._paint_bar(painter, QRectF(rect), cell.bar)
        else:
            text_rect = rect.adjusted(_PADDING, 0, -_PADDING, 0)
            if column == Column.LAYER:
                # Up to its end: the numbers beside it stand at the right of their cells.
                text_rect.setLeft(check_box_rect(rect).toAlignedRect().right() + _PADDING)
                text_rect.setRight(rect.right())
            if cell.is_checkable:
                self._paint_box(painter, check_box_rect(rect), cell.state, is_pending=cell.is_pending)
            if column == Column.MULTIPLIER and cell.is_pending:
                self._paint_hatch(painter, QRectF(rect).adjusted(2, 3, -2, -3), QColor(self.colors.trainable))
            if cell.text:
                self._paint_text(painter, text_rect, cell, column)

    def editorEvent(
        self,
        event: QEvent,
        model: QAbstractItemModel,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> bool:
        """Toggle the check box that was clicked, as it is painted here."""
        if event.type() != QEvent.Type.MouseButtonRelease or not isinstance(event, QMouseEvent):
            return False
        is_checkable = bool(index.flags() & Qt.ItemFlag.ItemIsUserCheckable)
        reach = check_box_rect(option.rect).adjusted(-_REACH, -_REACH, _REACH, _REACH)
        if not is_checkable or event.button() != Qt.MouseButton.LeftButton or not reach.contains(event.position()):
            return False
        is_checked = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole)) == Qt.CheckState.Checked
        wanted = Qt.CheckState.Unchecked if is_checked else Qt.CheckState.Checked
        return model.setData(index, wanted, Qt.ItemDataRole.CheckStateRole)

    def createEditor(
        self, parent: QWidget, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QWidget:
        """Make the field in which a rate multiplier is typed."""
        editor = QLineEdit(parent)
        editor.setAccessibleName(self.tr("Rate multiplier"))
        editor.setAlignment(Qt.AlignmentFlag.AlignRight)
        return editor

    def setEditorData(self, editor: QWidget, index: QModelIndex | QPersistentModelIndex) -> None:
        """Show the present multiplier for editing."""
        assert isinstance(editor, QLineEdit)
        editor.setText(str(index.data()).removeprefix("×"))
        editor.selectAll()

    def updateEditorGeometry(
        self, editor: QWidget, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Fill the cell."""
        editor.setGeometry(option.rect.adjusted(0, 1, 0, -1))

    def setModelData(
        self, editor: QWidget, model: QAbstractItemModel, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Pass on what was typed."""
        assert isinstance(editor, QLineEdit)
        if editor.isModified():
            self.multiplier_typed.emit(index.data(ROW_ID_ROLE), editor.text())

    # -- inside -----------------------------------------------------------------------------------------------

    def _paint_text(self, painter: QPainter, rect: QRect, cell: Cell, column: int) -> None:
        is_name = column == Column.LAYER
        is_cool = cell.state is LayerState.FROZEN and (is_name or column == Column.UPDATE)
        is_plain = is_name and cell.state is not LayerState.NOTHING
        color = self.colors.frozen if is_cool else self.colors.text if is_plain else self.colors.dim
        size_px, is_strong = SIZE_TEXT if is_name else SIZE_LABEL, is_name and cell.is_top
        painter.setFont(text_font(size_px, is_strong=is_strong))
        painter.setPen(QColor(self.colors.danger if cell.has_drifted else color))
        text = elided(cell.text, rect.width(), size_px=size_px, is_strong=is_strong)
        painter.drawText(rect, int(ALIGNMENTS[column]), text)

    def _paint_box(self, painter: QPainter, box: QRectF, state: LayerState, *, is_pending: bool) -> None:
        ice = QColor(self.colors.frozen)
        is_filled = state is LayerState.FROZEN and not is_pending
        painter.setPen(QPen(QColor(self.colors.dim) if state is LayerState.TRAINABLE else ice, 1.2))
        painter.setBrush(ice if is_filled else Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(box, _BOX_RADIUS, _BOX_RADIUS)
        if is_pending:
            self._paint_hatch(painter, box, ice)
        elif is_filled:
            pen = QPen(QColor(self.colors.panel), 1.8)
            pen.setCapStyle(Qt.PenCapStyle.RoundCap)
            pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
            painter.setPen(pen)
            corner = box.topLeft()
            painter.drawPolyline([corner + QPointF(3.2, 6.8), corner + QPointF(5.6, 9.2), corner + QPointF(9.8, 4.2)])
        elif state is LayerState.PARTLY:
            painter.setPen(QPen(ice, 2.0))
            middle = box.center()
            painter.drawLine(middle - QPointF(3, 0), middle + QPointF(3, 0))

    def _paint_bar(self, painter: QPainter, cell: QRectF, share: float) -> None:
        bar = QRectF(cell.left() + _PADDING, cell.center().y() - _BAR_HEIGHT / 2 + 0.5, 0, _BAR_HEIGHT)
        bar.setRight(cell.right() - _PADDING)
        painter.setPen(Qt.PenStyle.NoPen)
        for color, width in ((self.colors.line, bar.width()), (self.colors.trainable, bar.width() * share)):
            painter.setBrush(QColor(color))
            painter.drawRoundedRect(QRectF(bar.topLeft(), QSizeF(width, _BAR_HEIGHT)), _BAR_HEIGHT / 2, _BAR_HEIGHT / 2)

    def _paint_sign(self, painter: QPainter, rect: QRect, state: LayerState, *, is_pending: bool) -> None:
        if state is LayerState.NOTHING:
            return
        place = QRect(0, 0, _ICON_SIZE, _ICON_SIZE)
        place.moveCenter(rect.center())
        color = self.colors.frozen if state is LayerState.FROZEN else self.colors.trainable
        if is_pending:
            around = QRectF(place).adjusted(-8, -2, 8, 2)
            painter.setPen(QPen(QColor(color), 1, Qt.PenStyle.DashLine))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(around, _BOX_RADIUS, _BOX_RADIUS)
            self._paint_hatch(painter, around, QColor(color))
            painter.setOpacity(0.55)
        icon(_SIGNS[state], color).paint(painter, place)
        painter.setOpacity(1)

    def _paint_hatch(self, painter: QPainter, rect: QRectF, color: QColor) -> None:
        faint = QColor(color)
        faint.setAlpha(150)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QBrush(faint, Qt.BrushStyle.BDiagPattern))
        painter.drawRoundedRect(rect, _BOX_RADIUS, _BOX_RADIUS)


def check_box_rect(cell: QRect) -> QRectF:
    """Return where a row's check box is painted and clicked, in its first cell."""
    box = QRectF(0, 0, _BOX_SIZE, _BOX_SIZE)
    box.moveCenter(QPointF(cell.left() + _PADDING / 2 + _BOX_SIZE / 2 + 0.5, cell.center().y() + 0.5))
    return box
