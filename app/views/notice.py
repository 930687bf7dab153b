"""The notice: one sentence that the user should read, with the buttons that help."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QWidget

from app import theme


class Notice(QFrame):
    """Stands under the tools until it is closed, or what it says no longer holds."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "notice")
        self._mark = QLabel()
        self._mark.setFixedSize(16, 16)
        self._text = QLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._buttons: list[QPushButton] = []
        self._close = QToolButton()
        self._close.setProperty("kind", "icon")
        self._close.setToolTip(self.tr("Close"))
        self._close.setAccessibleName(self.tr("Close"))
        self._close.clicked.connect(self.hide)
        self._layout = QHBoxLayout(self)
        self._layout.setContentsMargins(theme.PANEL_PADDING, theme.SPACE + 2, theme.SPACE * 2, theme.SPACE + 2)
        self._layout.setSpacing(theme.SPACE * 2)
        self._layout.addWidget(self._mark)
        self._layout.addWidget(self._text, 1)
        self._layout.addWidget(self._close)
        self._restyle()
        self.hide()

    @property
    def text(self) -> str:
        """Return the sentence, "" while there is none to be seen."""
        return "" if self.isHidden() else self._text.text()

    def tell(
        self, sentence: str, *, actions: Sequence[tuple[str, Callable[[], None]]] = (), is_trouble: bool = True
    ) -> None:
        """Show a sentence.

        Args:
            sentence: What happened, and what to do.
            actions: (words, what it does) of each button, the most useful first. A press takes the notice away.
            is_trouble: Whether the user should worry.

        """
        theme.set_property(self, "tone", "danger" if is_trouble else "info")
        self._mark.setVisible(is_trouble)
        self._text.setText(sentence)
        for button in self._buttons:
            button.deleteLater()
        self._buttons = [self._button(words, act) for words, act in actions]
        for place, button in enumerate(self._buttons):
            theme.set_property(button, "kind", "primary" if place == 0 else "")
            self._layout.insertWidget(2 + place, button)
        self.show()

    def take_back(self, sentence: str) -> None:
        """Hide a sentence that is not so any more, if it is the one that is shown."""
        if self.text == sentence:
            self.hide()

    def _button(self, words: str, act: Callable[[], None]) -> QPushButton:
        button = QPushButton(words, self)
        button.clicked.connect(self.hide)
        button.clicked.connect(lambda _is_checked: act())
        return button

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icons in the theme's colours."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_close"):
            self._restyle()

    def _restyle(self) -> None:
        colors = theme.palette_of(self)
        self._mark.setPixmap(theme.icon("warning", colors.danger).pixmap(16, 16))
        self._close.setIcon(theme.icon("close", colors.dim))
