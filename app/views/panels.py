"""The window's panels, and the splitters between them."""

from __future__ import annotations

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtWidgets import QFrame, QSplitter, QVBoxLayout, QWidget

from app import theme

_RAISED_SHARE = 0.48
"""Of the window's height, for the tables, when they are raised: pictures need more than rows do."""


def panel(min_width: int, *views: QWidget) -> QFrame:
    """Return a panel with views one above the other; ``min_width`` in pixels."""
    made = QFrame()
    made.setProperty("role", "panel")
    made.setMinimumWidth(min_width)
    layout = QVBoxLayout(made)
    padding = theme.PANEL_PADDING
    layout.setContentsMargins(padding, padding, padding, padding)
    for view in views:
        layout.addWidget(view)
    return made


class PanelSplitter(QSplitter):
    """Panels side by side, or one above the other."""

    def __init__(self, orientation: Qt.Orientation, *panels: QWidget) -> None:
        super().__init__(orientation)
        self.setHandleWidth(theme.PANEL_GAP)
        self.setChildrenCollapsible(False)
        for each in panels:
            self.addWidget(each)


class TablesSplitter(PanelSplitter):
    """The tables below all else. They are raised and lowered only as long as the user has chosen no height."""

    def __init__(self, above: QWidget, tables: QWidget) -> None:
        super().__init__(Qt.Orientation.Vertical, above, tables)
        self.setStretchFactor(0, 1)
        self.setSizes([558, 208])
        self._low_sizes: list[int] = []
        self._is_height_chosen = False
        self.splitterMoved.connect(self._note_height)

    def raise_tables(self) -> None:
        """Give the tables more room, once."""
        if not self._is_height_chosen and not self._low_sizes:
            self._low_sizes = self.sizes()
            height = sum(self._low_sizes)
            wanted = max(self._low_sizes[1], int(_RAISED_SHARE * height))
            self.setSizes([height - wanted, wanted])

    def lower_tables(self) -> None:
        """Take back what raised tables were given."""
        if self._low_sizes:
            self.setSizes(self._low_sizes)
            self._low_sizes = []

    def restore_height(self, state: QByteArray) -> None:
        """Restore the height that the user chose, if one was saved."""
        self._is_height_chosen = self.restoreState(state)

    def save_height(self) -> QByteArray | None:
        """Return the height that the user chose; None without one."""
        return self.saveState() if self._is_height_chosen else None

    def _note_height(self) -> None:
        self._is_height_chosen, self._low_sizes = True, []
