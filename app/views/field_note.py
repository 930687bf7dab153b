"""FieldNote: what stands below a field. A note keeps its place, so that nothing moves as it comes and goes."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QWidget

from app import theme

_ELLIPSIS = "…"


class FieldNote(QLabel):
    """Small text with room for some lines, empty or not. A longer note is shortened; only an error takes more room."""

    def __init__(self, num_lines: int, tip: str = "", parent: QWidget | None = None) -> None:
        """Keep room for ``num_lines``; with 0, there is only room for an error, while there is one.

        ``tip`` is the tooltip while all of the text is in sight.
        """
        super().__init__(parent)
        self._num_lines = num_lines
        self._tip = tip
        self._whole = ""
        self._is_error = False
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.setWordWrap(True)
        self.setProperty("role", "note")
        self.setVisible(num_lines > 0)

    @property
    def whole_text(self) -> str:
        """Return the text as it was set."""
        return self._whole

    def show_text(self, text: str, *, is_error: bool) -> None:
        """Show an error, or a note, as much of it as there is room for; "" for nothing."""
        if (text, is_error) == (self._whole, self._is_error):
            return
        self._whole, self._is_error = text, is_error
        self.setAccessibleName(text)
        theme.set_property(self, "role", "error" if is_error else "note")
        self.setVisible(bool(text) or self._num_lines > 0)
        self._fit()
        self.updateGeometry()

    def heightForWidth(self, width: int) -> int:
        """Ask for the lines that are kept, and for all that an error needs."""
        return max(self._kept_height, super().heightForWidth(width)) if self._is_error else self._kept_height

    def sizeHint(self) -> QSize:
        """Ask for any width."""
        return self.minimumSizeHint()

    def minimumSizeHint(self) -> QSize:
        """Give way to any width."""
        return QSize(0, self._kept_height)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Shorten the text anew."""
        super().resizeEvent(event)
        self._fit()

    @property
    def _kept_height(self) -> int:
        self.ensurePolished()
        return self._num_lines * self.fontMetrics().lineSpacing()

    def _fit(self) -> None:
        shown = self._whole if self._is_error else self._shortened()
        if shown != self.text():
            self.setText(shown)
            self.setToolTip(self._tip if shown == self._whole else self._whole)

    def _shortened(self) -> str:
        words = self._whole.split(" ")
        for num_words in range(len(words), 1, -1):
            shown = " ".join(words[:num_words]) + (_ELLIPSIS if num_words < len(words) else "")
            if self._height_of(shown) <= self._kept_height:
                return shown
        return self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideRight, self.width())

    def _height_of(self, text: str) -> int:
        room = QRect(0, 0, self.width(), 1 << 20)
        return self.fontMetrics().boundingRect(room, int(Qt.TextFlag.TextWordWrap), text).height()
