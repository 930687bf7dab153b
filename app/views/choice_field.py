"""ChoiceField: a field with a list to choose from, which may take other words as well."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import (
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QPoint,
    QSignalBlocker,
    QSize,
    Qt,
    QTimer,
)
from PySide6.QtGui import QColor, QCursor, QMouseEvent, QPainter, QWheelEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QApplication,
    QComboBox,
    QCompleter,
    QLineEdit,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from app import theme
from app.viewmodels.field_words import choice_text

_LEAST_LENGTH = 5
_MAX_VISIBLE = 16
_NOTE_ROLE = Qt.ItemDataRole.UserRole + 1


class ChoiceField(QComboBox):
    """Tells a change only if the user made it: ``currentTextChanged``, or ``currentIndexChanged`` of a closed list."""

    def __init__(
        self, values: Sequence[str], *, is_free: bool, line: QLineEdit | None = None, parent: QWidget | None = None
    ) -> None:
        """Offer values in their own words, or as they are where other words may be typed (``is_free``, in ``line``)."""
        super().__init__(parent)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_LEAST_LENGTH)
        self.setMaxVisibleItems(_MAX_VISIBLE)
        # Scrolling the form must not change a value that happens to lie under the pointer.
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._offered: list[str] = []
        self._notes: list[str] = []
        if is_free:
            self.setEditable(True)
            if line is not None:
                self.setLineEdit(line)
            self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
            completer = self.completer()
            assert completer is not None
            completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
            completer.setFilterMode(Qt.MatchFlag.MatchContains)
            popup = completer.popup()
            assert popup is not None
            popup.setProperty("role", "choices")
            popup.installEventFilter(self)
            for view in self._lists():
                view.setItemDelegate(_NoteDelegate(self))
            self.offer(values)
        else:
            for value in values:
                self.addItem(choice_text(value), value)

    def offer(self, names: Sequence[str], tips: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        """Offer these names in place of the earlier ones, each with its tooltip and a note at the right of the list.

        What stands in the field stays.
        """
        if (list(names), list(notes)) == (self._offered, self._notes):
            return
        self._offered, self._notes = list(names), list(notes)
        text = self.currentText()
        with QSignalBlocker(self):
            self.clear()
            self.addItems(self._offered)
            for row, tip in enumerate(tips):
                self.setItemData(row, tip, Qt.ItemDataRole.ToolTipRole)
            for row, note in enumerate(notes):
                self.setItemData(row, note, _NOTE_ROLE)
                self.setItemData(row, note, Qt.ItemDataRole.AccessibleDescriptionRole)
            self.setEditText(text)
        if notes:
            self._widen_lists()

    def _widen_lists(self) -> None:
        """Let the lists be as wide as their rows, which the field is not."""
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        width = self.view().sizeHintForColumn(self.modelColumn()) + bar + 2 * theme.SPACE
        for view in self._lists():
            view.setMinimumWidth(width)

    def _lists(self) -> list[QAbstractItemView]:
        """Return the list of all that is offered, and the one of what matches the typing."""
        completer = self.completer()
        popup = None if completer is None else completer.popup()
        return [self.view()] if popup is None else [self.view(), popup]

    def show_value(self, value: str) -> None:
        """Show a value: its beginning where it is longer than the field."""
        with QSignalBlocker(self):
            line = self.lineEdit()
            if line is None:
                self.setCurrentIndex(self.findData(value))
            elif self.currentText() != value:
                self.setEditText(value)
                line.setCursorPosition(0)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let a click on a button beside the list of what matches press it: Qt's closes the list, and no more."""
        if isinstance(event, QMouseEvent) and event.type() == QEvent.Type.MouseButtonPress:
            is_beside = isinstance(watched, QWidget) and not watched.rect().contains(event.position().toPoint())
            if is_beside and event.button() == Qt.MouseButton.LeftButton:
                # Once the list is closed.
                QTimer.singleShot(0, self, partial(self._press, event.globalPosition().toPoint()))
        return super().eventFilter(watched, event)

    def _press(self, position: QPoint) -> None:
        button = QApplication.widgetAt(position)
        if isinstance(button, QAbstractButton) and button.window() == self.window():
            button.click()

    def hidePopup(self) -> None:
        """Close the list. Qt does not tell that the pointer has left the field meanwhile: its frame would stay."""
        super().hidePopup()
        if not self.rect().contains(self.mapFromGlobal(QCursor.pos())):
            self.setAttribute(Qt.WidgetAttribute.WA_UnderMouse, False)
            self.update()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Give the wheel to the scrolled form, unless the field has the focus."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class _NoteDelegate(QStyledItemDelegate):
    """Draws a row's note at its right, fainter than its name."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().paint(painter, option, index)
        note = index.data(_NOTE_ROLE)
        if note:
            painter.save()
            painter.setPen(QColor(theme.palette_of(option.widget).dim))
            room = option.rect.adjusted(0, 0, -theme.SPACE, 0)
            painter.drawText(room, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, note)
            painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        size = super().sizeHint(option, index)
        note = index.data(_NOTE_ROLE)
        return size + QSize(option.fontMetrics.horizontalAdvance(note) + 4 * theme.SPACE, 0) if note else size
