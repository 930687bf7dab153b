"""The notice: one sentence that the user should read, with the buttons that help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QWidget

from app import theme
from app.views.focus import give_up_focus

Actions = Sequence[tuple[str, Callable[[], None]]]
"""(words, what it does) of each button, the most useful first. A press takes the notice away."""


@dataclass(frozen=True)
class _Told:
    sentence: str
    actions: Actions
    is_trouble: bool


class Notice(QFrame):
    """Lies over the lower edge of the window until it is closed, or what it says no longer holds.

    Over it, so that nothing moves under the mouse as it comes and goes: one line hides the status bar, and no more.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._told: _Told | None = None
        self._advice: _Told | None = None
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
        self._close.clicked.connect(self.close_sentence)
        self._layout = QHBoxLayout(self)
        self._layout.setContentsMargins(theme.PANEL_PADDING, theme.SPACE + 2, theme.SPACE * 2, theme.SPACE + 2)
        self._layout.setSpacing(theme.SPACE * 2)
        self._layout.addWidget(self._mark)
        self._layout.addWidget(self._text, 1)
        self._layout.addWidget(self._close)
        self._restyle()
        self.hide()
        parent.installEventFilter(self)

    @property
    def text(self) -> str:
        """Return the sentence, "" while there is none to be seen."""
        return "" if self._told is None else self._told.sentence

    def tell(self, sentence: str, *, actions: Actions = (), is_trouble: bool = True) -> None:
        """Show a sentence.

        Args:
            sentence: What happened, and what to do.
            actions: The buttons that help.
            is_trouble: Whether the user should worry.

        """
        self._show(_Told(sentence, actions, is_trouble))

    def advise(self, sentence: str, actions: Actions) -> None:
        """Offer something as long as it is not taken back: what is told meanwhile is shown before it."""
        before, self._advice = self._advice, _Told(sentence, actions, is_trouble=False)
        if self._told is None or self._told is before or not (self._told.is_trouble or self._told.actions):
            self._show(self._advice)

    def take_back(self, sentence: str) -> None:
        """Hide a sentence that is not so any more, if it is the one that is shown."""
        if self.text == sentence:
            self.close_sentence()

    def take_back_advice(self) -> None:
        """Offer no more what was advised."""
        advice, self._advice = self._advice, None
        if advice is not None and self._told is advice:
            self._show(None)

    def settle(self) -> None:
        """Show nothing any more but what was advised."""
        self._show(self._advice)

    def close_sentence(self) -> None:
        """Take away the sentence that is shown; advice that it stood before is shown again."""
        if self._told is self._advice:
            self._advice = None
        self._show(self._advice)

    # -- inside -----------------------------------------------------------------------------------------------

    def _show(self, told: _Told | None) -> None:
        if told is self._told:
            return
        self._told = told
        if told is None:
            give_up_focus(self)
            self.hide()
            return
        theme.set_property(self, "tone", "danger" if told.is_trouble else "info")
        self._mark.setVisible(told.is_trouble)
        self._text.setText(told.sentence)
        for button in self._buttons:
            give_up_focus(button)
            button.deleteLater()
        self._buttons = [self._button(words, act) for words, act in told.actions]
        for place, button in enumerate(self._buttons):
            theme.set_property(button, "kind", "primary" if place == 0 else "")
            self._layout.insertWidget(2 + place, button)
        self.show()
        self._place()
        self.raise_()

    def _button(self, words: str, act: Callable[[], None]) -> QPushButton:
        button = QPushButton(words, self)
        button.clicked.connect(self.close_sentence)
        button.clicked.connect(lambda _is_checked: act())
        return button

    def _place(self) -> None:
        window = self.parentWidget()
        assert window is not None
        area = window.rect()
        width = area.width() - 2 * theme.PANEL_PADDING
        self._layout.activate()
        height = self.heightForWidth(width)
        self.setGeometry(theme.PANEL_PADDING, area.height() - height - theme.SPACE, width, height)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep to the lower edge of the window."""
        if event.type() == QEvent.Type.Resize and watched is self.parentWidget() and not self.isHidden():
            self._place()
        return super().eventFilter(watched, event)

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icons in the theme's colours."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_close"):
            self._restyle()

    def _restyle(self) -> None:
        colors = theme.palette_of(self)
        self._mark.setPixmap(theme.icon("warning", colors.danger).pixmap(16, 16))
        self._close.setIcon(theme.icon("close", colors.dim))
