"""What is asked of the user about checkpoints: a label and a note, and whether some may be gone for good."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.quantities import count_text, size_text
from trainer.messages.commands import MAX_LABEL, MAX_NOTE
from trainer.messages.run_info import CheckpointInfo

_NOTE_LINES = 5


class MarkDialog(QDialog):
    """A label and a note for one checkpoint."""

    chosen = Signal(str, str)
    """The label and the note, as they are to be."""

    def __init__(self, info: CheckpointInfo, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Checkpoint of epoch {}").format(count_text(info.epoch)))
        self.label = QLineEdit(info.label)
        self.label.setMaxLength(MAX_LABEL)
        self.label.setPlaceholderText(self.tr("A few words, shown among its tags"))
        self.note = QPlainTextEdit(info.note)
        self.note.setTabChangesFocus(True)
        self.note.setFixedHeight(_NOTE_LINES * self.note.fontMetrics().lineSpacing() + theme.PANEL_PADDING)
        fields = QFormLayout()
        fields.setSpacing(theme.SPACE * 2)
        fields.addRow(self.tr("Label"), self.label)
        fields.addRow(self.tr("Note"), self.note)
        cancel, save = QPushButton(self.tr("Cancel")), QPushButton(self.tr("Keep"))
        cancel.setAutoDefault(False)
        cancel.clicked.connect(self.reject)
        save.setProperty("kind", "primary")
        save.setDefault(True)
        save.clicked.connect(self._choose)
        # Return in the note is a new line.
        for keys in ("Ctrl+Return", "Ctrl+Enter"):
            QShortcut(QKeySequence(keys), self).activated.connect(save.click)
        save.setToolTip(self.tr("Keep the label and the note (Ctrl+Enter)"))
        buttons = QHBoxLayout()
        buttons.setSpacing(theme.SPACE * 2)
        buttons.addStretch(1)
        buttons.addWidget(cancel)
        buttons.addWidget(save)
        layout = QVBoxLayout(self)
        padding = theme.PANEL_PADDING
        layout.setContentsMargins(padding, padding, padding, padding)
        layout.setSpacing(padding)
        layout.addLayout(fields)
        layout.addLayout(buttons)
        self.resize(420, self.sizeHint().height())

    def _choose(self) -> None:
        self.chosen.emit(self.label.text().strip(), self.note.toPlainText().strip()[:MAX_NOTE])
        self.accept()


class DeleteDialog(QMessageBox):
    """Whether checkpoints may be deleted for good, where their disk has no trash."""

    confirmed = Signal()

    def __init__(self, infos: list[CheckpointInfo], parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Delete checkpoints"))
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(self.tr("The disk of this run has no trash: what is deleted cannot be put back."))
        num_bytes = size_text(sum(info.size_bytes for info in infos))
        words = (
            self.tr("Delete it for good, {}").format(num_bytes)
            if len(infos) == 1
            else self.tr("Delete {} for good, {}").format(count_text(len(infos)), num_bytes)
        )
        self.setInformativeText("\n".join(info.name for info in infos[:3]) + ("\n…" if len(infos) > 3 else ""))
        self.delete = self.addButton(words, QMessageBox.ButtonRole.DestructiveRole)
        self.cancel = self.addButton(QMessageBox.StandardButton.Cancel)
        self.setDefaultButton(self.cancel)
        self.setEscapeButton(self.cancel)
        self.delete.clicked.connect(self.confirmed)
