"""AdviceLines: what to look at before a run: all of it where there is room, else a line, and the rest on a click."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.quantities import count_text
from app.views.elided_label import ElidedLabel

_LEAST_POPUP_WIDTH = 360


class AdviceLines(QWidget):
    """Sentences in their order, the gravest first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sentences: list[str] = []
        self._room = 0
        self.whole = _words()
        self.whole.setProperty("role", "dim")
        self.first = ElidedLabel(Qt.TextElideMode.ElideRight, 40)
        self.first.setProperty("role", "dim")
        self.more_button = QToolButton()
        self.more_button.clicked.connect(self._show_popup)
        self._line = QWidget()
        line = QHBoxLayout(self._line)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2 * theme.SPACE)
        line.addWidget(self.first, 1)
        line.addWidget(self.more_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.whole)
        layout.addWidget(self._line)
        self._popup = _Popup(self)
        self.hide()

    def show_sentences(self, sentences: list[str]) -> None:
        """Say these sentences."""
        self._sentences = sentences
        self.whole.setText("\n".join(sentences))
        self._popup.words.setText("\n\n".join(sentences))
        self.first.set_whole_text(sentences[0] if sentences else "")
        self.more_button.setText(self.tr("Advice ({})").format(count_text(len(sentences))))
        self.more_button.setAccessibleName(self.tr("Show all of the advice"))
        self._popup.hide()
        self._fit()

    def set_room(self, height: int) -> None:
        """Take no more height than this, in pixels; a line is always there."""
        self._room = height
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Break the lines anew."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._fit()

    def _fit(self) -> None:
        self.setVisible(bool(self._sentences))
        fits = self.whole.heightForWidth(self.width()) <= self._room
        self.whole.setVisible(fits)
        self._line.setVisible(not fits)

    def _show_popup(self) -> None:
        self._popup.fit_width(max(self.width(), _LEAST_POPUP_WIDTH))
        corner = self.mapToGlobal(QPoint(0, self.height() + theme.SPACE))
        screen = self.screen().availableGeometry()
        lowest = screen.bottom() - self._popup.height()
        self._popup.move(min(corner.x(), screen.right() - self._popup.width()), min(corner.y(), lowest))
        self._popup.show()


class _Popup(QFrame):
    """All of the sentences, until a click beside it or Escape."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setProperty("role", "panel")
        self.words = _words()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[theme.PANEL_PADDING] * 4)
        layout.addWidget(self.words)

    def fit_width(self, width: int) -> None:
        """Take this width, and the height that all of the words need."""
        # Not adjustSize(): that stops at two thirds of the screen.
        self.words.ensurePolished()
        self.setFixedSize(width, self.heightForWidth(width))


def _words() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
