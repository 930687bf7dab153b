"""FilterBox: a line of words that narrows a list, until Escape clears it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QLineEdit, QWidget


class FilterBox(QLineEdit):
    """Says in itself what it looks for."""

    def __init__(self, placeholder: str, name: str, parent: QWidget | None = None) -> None:
        """Make an empty one; ``name`` is what a screen reader calls it."""
        super().__init__(parent)
        self.setPlaceholderText(placeholder)
        self.setAccessibleName(name)
        self.setClearButtonEnabled(True)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Clear with Escape what was typed."""
        if event.key() == Qt.Key.Key_Escape and self.text():
            self.clear()
        else:
            super().keyPressEvent(event)
