"""The line above the run form that says from which checkpoint the run begins."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from app import theme
from app.viewmodels.run_config import RunConfigViewModel
from app.views.elided_label import ElidedLabel

_LEAST_WIDTH = 80


class BranchLine(QWidget):
    """Names the checkpoint, and lets go of it while the form can be changed. Without one, there is no line."""

    def __init__(self, run_config: RunConfigViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._run_config = run_config
        self._text = ElidedLabel(Qt.TextElideMode.ElideMiddle, _LEAST_WIDTH)
        self._text.setProperty("role", "field")
        self.leave = QToolButton()
        self.leave.setProperty("kind", "icon")
        self.leave.setToolTip(self.tr("Begin with the model's own weights instead"))
        self.leave.setAccessibleName(self.leave.toolTip())
        self.leave.clicked.connect(run_config.leave_branch)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addWidget(self._text, 1)
        layout.addWidget(self.leave)
        run_config.changed.connect(self._show)
        self._restyle()
        self._show()

    @property
    def text(self) -> str:
        """Return what the line says."""
        return self._text.whole_text

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icon in the theme's colour."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "leave"):
            self._restyle()

    def _restyle(self) -> None:
        self.leave.setIcon(theme.icon("close", theme.palette_of(self).dim))

    def _show(self) -> None:
        self._text.set_whole_text(self._run_config.branch_text)
        self.setVisible(bool(self._run_config.branch_text))
