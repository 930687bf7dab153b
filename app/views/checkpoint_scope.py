"""ScopeButton: whose checkpoints the table lists."""

from __future__ import annotations

from functools import partial

from PySide6.QtGui import QActionGroup
from PySide6.QtWidgets import QMenu, QToolButton, QWidget

from app.viewmodels.checkpoint_table import CheckpointItemModel, Scope


class ScopeButton(QToolButton):
    """A small choice: this run, its relatives as well, or all runs."""

    def __init__(self, checkpoints: CheckpointItemModel, parent: QWidget) -> None:
        super().__init__(parent)
        self._checkpoints = checkpoints
        self.setProperty("kind", "menu")
        self.setAccessibleName(self.tr("Whose checkpoints are listed"))
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        group = QActionGroup(menu)
        words: tuple[tuple[Scope, str, str], ...] = (
            ("run", self.tr("This run"), self.tr("The checkpoints of the run on display")),
            (
                "lineage",
                self.tr("This run and its branches"),
                self.tr("Also those of its branches, and of the runs that it branches from"),
            ),
            ("all", self.tr("All runs"), self.tr("The checkpoints of all runs in the folder of runs")),
        )
        self.choices = {scope: menu.addAction(text) for scope, text, _ in words}
        for scope, _, tip in words:
            action = self.choices[scope]
            action.setCheckable(True)
            action.setToolTip(tip)
            action.triggered.connect(partial(checkpoints.choose_scope, scope))
            group.addAction(action)
        self.setMenu(menu)
        checkpoints.scope_chosen.connect(self._show)
        self._show()

    def _show(self) -> None:
        chosen = self.choices[self._checkpoints.scope]
        chosen.setChecked(True)
        self.setText(chosen.text())
        self.setToolTip(chosen.toolTip())
