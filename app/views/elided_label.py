"""ElidedLabel: one line of text that gives way when there is little room, and says all of it in its tooltip."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget


class ElidedLabel(QLabel):
    """A plain label that is shortened at a given place, but never below ``least_width``."""

    def __init__(self, mode: Qt.TextElideMode, least_width: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._mode = mode
        self._least_width = least_width
        self._whole = ""
        self._held_width = 0
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)

    @property
    def whole_text(self) -> str:
        """Return the text as it was set."""
        return self._whole

    def set_whole_text(self, text: str) -> None:
        """Show a text, or as much of it as there is room for."""
        if text != self._whole:
            self._whole = text
            self.setAccessibleName(text)
            self.updateGeometry()
            self._elide()

    def hold_width(self, width: int) -> None:
        """Ask for at least this room, also for shorter texts, so that what stands beside it stays where it is."""
        if width != self._held_width:
            self._held_width = width
            self.updateGeometry()

    def text_width(self) -> int:
        """Return the room that all of the text needs."""
        return self.fontMetrics().horizontalAdvance(self._whole) + 2

    def sizeHint(self) -> QSize:
        """Ask for room for all of the text."""
        return QSize(max(self.text_width(), self._held_width), super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:
        """Give way down to the least width."""
        return QSize(min(self._least_width, self.sizeHint().width()), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Shorten the text anew."""
        super().resizeEvent(event)
        self._elide()

    def changeEvent(self, event: QEvent) -> None:
        """Shorten the text anew in another font."""
        super().changeEvent(event)
        if event.type() in {QEvent.Type.FontChange, QEvent.Type.StyleChange} and hasattr(self, "_whole"):
            self.updateGeometry()
            self._elide()

    def _elide(self) -> None:
        shown = self.fontMetrics().elidedText(self._whole, self._mode, self.width())
        if shown != self.text():
            self.setText(shown)
            self.setToolTip("" if shown == self._whole else self._whole)
