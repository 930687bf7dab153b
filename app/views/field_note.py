"""FieldNote: what stands below a field. Its place is kept, so that little moves as it comes and goes."""

from __future__ import annotations

from bisect import bisect_right

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QWidget

from app import theme

_ELLIPSIS = "…"
_MAY_BREAK = "\u200b"


class FieldNote(QLabel):
    """Small text with room for some lines, empty or not. A longer note is shortened; an error has what it needs."""

    def __init__(self, num_lines: int, tip: str = "", parent: QWidget | None = None) -> None:
        """Keep room for ``num_lines``; with 0, there is only room for an error, while there is one.

        ``tip`` is the tooltip while all of the text is in sight.
        """
        super().__init__(parent)
        self._num_lines = num_lines
        self._tip = tip
        self._whole = ""
        self._is_error = False
        self._is_room_kept = True
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.setWordWrap(True)
        self.setProperty("role", "note")
        self.setVisible(num_lines > 0)

    @property
    def whole_text(self) -> str:
        """Return the text as it was set."""
        return self._whole

    @property
    def is_error(self) -> bool:
        """Return whether the text says what is wrong."""
        return self._is_error

    def show_text(self, text: str, *, is_error: bool) -> None:
        """Show an error whole, or a note, as much of it as there is room for; "" for nothing."""
        if (text, is_error) == (self._whole, self._is_error):
            return
        self._whole, self._is_error = text, is_error
        self.setAccessibleName(text)
        theme.set_property(self, "role", "error" if is_error else "note")
        self._show_room()
        self._fit()

    def keep_room(self, is_kept: bool) -> None:
        """Keep the room for a note that is not there, or give it back where none will come."""
        if is_kept != self._is_room_kept:
            self._is_room_kept = is_kept
            self._show_room()

    def _show_room(self) -> None:
        self.setVisible(bool(self._whole) or (self._is_room_kept and self._num_lines > 0))
        self.updateGeometry()

    def heightForWidth(self, width: int) -> int:
        """Ask for the lines that are kept, or for those that an error needs."""
        if not self._is_error:
            return self._kept_height
        return max(self._kept_height, self._height_of(self._breakable(width), width))

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
        shown = self._breakable(self.width()) if self._is_error else self._shortened()
        if shown != self.text():
            self.setText(shown)
            self.setToolTip(self._tip if self._is_error or shown == self._whole else self._whole)

    def _breakable(self, width: int) -> str:
        """Return the whole text, in which what is longer than a line, as a path may be, can be broken anywhere."""
        words = self._whole.split(" ")
        return " ".join(
            _MAY_BREAK.join(word) if self.fontMetrics().horizontalAdvance(word) > width else word for word in words
        )

    def _shortened(self) -> str:
        text = self._whole
        if self._has_room(text):
            return text
        lengths = range(1, len(text) + 1)
        length = bisect_right(lengths, 0, key=lambda length: not self._has_room(text[:length].rstrip() + _ELLIPSIS))
        return text[:length].rstrip(" .,") + _ELLIPSIS

    def _has_room(self, text: str) -> bool:
        return self._height_of(text, self.width()) <= self._kept_height

    def _height_of(self, text: str, width: int) -> int:
        room = QRect(0, 0, width, 1 << 20)
        return self.fontMetrics().boundingRect(room, int(Qt.TextFlag.TextWordWrap), text).height()
