"""SectionHeading: the heading of a part of a form, which folds it."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QPushButton, QWidget

from app import theme

_ICON_SIZE = 16


class SectionHeading(QPushButton):
    """A button that stays pressed while its section is open, with an arrow that says so. Space turns it, as a click."""

    def __init__(self, title: str, *, is_open: bool, parent: QWidget | None = None) -> None:
        super().__init__(title, parent)
        self.setProperty("kind", "section")
        self.setCheckable(True)
        self.setChecked(is_open)
        self.setIconSize(QSize(_ICON_SIZE, _ICON_SIZE))
        self.toggled.connect(self._show_state)
        self._show_state()

    def _show_state(self) -> None:
        # The icons of the tree's branches, which have one colour for both themes.
        self.setIcon(theme.icon("control-down" if self.isChecked() else "control-right", ""))
        self.setAccessibleDescription(self.tr("Section, unfolded") if self.isChecked() else self.tr("Section, folded"))
