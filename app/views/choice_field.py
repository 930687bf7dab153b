"""ChoiceField: a field with a list to choose from, which may take other words as well."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtGui import QCursor, QWheelEvent
from PySide6.QtWidgets import QComboBox, QCompleter, QWidget

from app.viewmodels.field_words import choice_text

_LEAST_LENGTH = 5
_MAX_VISIBLE = 16


class ChoiceField(QComboBox):
    """Tells a change only if the user made it: ``currentTextChanged``, or ``currentIndexChanged`` of a closed list."""

    def __init__(self, values: Sequence[str], *, is_free: bool, parent: QWidget | None = None) -> None:
        """Offer values in their own words, or as they are where other words may be typed (``is_free``)."""
        super().__init__(parent)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_LEAST_LENGTH)
        self.setMaxVisibleItems(_MAX_VISIBLE)
        # Scrolling the form must not change a value that happens to lie under the pointer.
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._offered: list[str] = []
        if is_free:
            self.setEditable(True)
            self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
            completer = self.completer()
            assert completer is not None
            completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
            completer.setFilterMode(Qt.MatchFlag.MatchContains)
            self.offer(values)
        else:
            for value in values:
                self.addItem(choice_text(value), value)

    def offer(self, names: Sequence[str], tips: Sequence[str] = ()) -> None:
        """Offer these names in place of the earlier ones, each with its tooltip. What stands in the field stays."""
        if list(names) == self._offered:
            return
        self._offered = list(names)
        text = self.currentText()
        with QSignalBlocker(self):
            self.clear()
            self.addItems(self._offered)
            for row, tip in enumerate(tips):
                self.setItemData(row, tip, Qt.ItemDataRole.ToolTipRole)
            self.setEditText(text)

    def show_value(self, value: str, *, is_end_seen: bool = False) -> None:
        """Show a value: its beginning where it is longer than the field, or its end."""
        with QSignalBlocker(self):
            line = self.lineEdit()
            if line is None:
                self.setCurrentIndex(self.findData(value))
            elif self.currentText() != value:
                self.setEditText(value)
                line.setCursorPosition(len(value) if is_end_seen else 0)

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
