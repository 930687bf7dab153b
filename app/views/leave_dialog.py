"""The question that closing the window asks while a run trains."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QAbstractButton, QMessageBox, QWidget


class LeaveDialog(QMessageBox):
    """Stop and save, keep training in the background, or cancel. Opens without holding up the window."""

    stop_chosen = Signal()
    background_chosen = Signal()

    def __init__(self, title: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Close Thaw"))
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(self.tr("{} is still training.").format(title))
        self.setInformativeText(
            self.tr(
                "It can stop after saving a checkpoint, or go on without the window; "
                "open it again under Runs to see it with a curve without gaps."
            )
        )
        self.stop = self.addButton(self.tr("Stop and save"), QMessageBox.ButtonRole.DestructiveRole)
        self.background = self.addButton(self.tr("Keep training in the background"), QMessageBox.ButtonRole.AcceptRole)
        self.background.setProperty("kind", "primary")
        self.cancel = self.addButton(QMessageBox.StandardButton.Cancel)
        self.setDefaultButton(self.background)
        self.setEscapeButton(self.cancel)
        self.buttonClicked.connect(self._choose)

    def _choose(self, button: QAbstractButton) -> None:
        if button is self.stop:
            self.stop_chosen.emit()
        elif button is self.background:
            self.background_chosen.emit()
