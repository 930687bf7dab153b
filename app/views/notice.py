"""The notice: one sentence that the user should read, with the button that helps."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QWidget

from app import theme


class Notice(QFrame):
    """Stands under the tools until it is closed, or what it says no longer holds."""

    action_requested = Signal()
    """The button of the notice was pressed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "notice")
        self._mark = QLabel()
        self._mark.setFixedSize(16, 16)
        self._text = QLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._action = QPushButton()
        self._action.setProperty("kind", "primary")
        self._action.clicked.connect(self.action_requested)
        self._close = QToolButton()
        self._close.setProperty("kind", "icon")
        self._close.setToolTip(self.tr("Close"))
        self._close.setAccessibleName(self.tr("Close"))
        self._close.clicked.connect(self.hide)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(theme.PANEL_PADDING, theme.SPACE + 2, theme.SPACE * 2, theme.SPACE + 2)
        layout.setSpacing(theme.SPACE * 2)
        layout.addWidget(self._mark)
        layout.addWidget(self._text, 1)
        layout.addWidget(self._action)
        layout.addWidget(self._close)
        self._restyle()
        self.hide()

    @property
    def text(self) -> str:
        """Return the sentence, "" while there is none to be seen."""
        return "" if self.isHidden() else self._text.text()

    def tell(self, sentence: str, *, action: str = "", is_trouble: bool = True) -> None:
        """Show a sentence, with a button if there is something to do about it."""
        theme.set_property(self, "tone", "danger" if is_trouble else "info")
        self._mark.setVisible(is_trouble)
        self._text.setText(sentence)
        self._action.setText(action)
        self._action.setVisible(bool(action))
        self.show()

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icons in the theme's colours."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_close"):
            self._restyle()

    def _restyle(self) -> None:
        colors = theme.palette_of(self)
        self._mark.setPixmap(theme.icon("warning", colors.danger).pixmap(16, 16))
        self._close.setIcon(theme.icon("close", colors.dim))
