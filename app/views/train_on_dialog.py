"""The question for how many more epochs a run is to train that is over."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QIntValidator
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.quantities import count_text
from trainer.config import MAX_EPOCHS

_OFFERED_EPOCHS = 5
_FIELD_WIDTH = 72


class TrainOnDialog(QDialog):
    """Asks for a number of epochs, and says how many the run will then have. Opens without holding up the window."""

    chosen = Signal(int)
    """How many epochs the run is to have in all."""

    def __init__(self, title: str, epoch: int, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Train on"))
        self._epoch = epoch
        self._most = MAX_EPOCHS - epoch
        question = QLabel(self.tr("How many more epochs is {} to train?").format(title))
        question.setTextFormat(Qt.TextFormat.PlainText)
        self.field = QLineEdit(str(min(_OFFERED_EPOCHS, self._most)))
        self.field.setValidator(QIntValidator(1, max(1, self._most), self))
        self.field.setFixedWidth(_FIELD_WIDTH)
        self.field.setAccessibleName(self.tr("More epochs"))
        self.note = QLabel()
        self.note.setProperty("role", "dim")
        self.start = QPushButton(self.tr("Train on"))
        self.start.setProperty("kind", "primary")
        self.start.setDefault(True)
        cancel = QPushButton(self.tr("Cancel"))
        cancel.setAutoDefault(False)
        cancel.clicked.connect(self.reject)
        self.start.clicked.connect(self._choose)
        self.field.textChanged.connect(self._show)
        fields, buttons = QHBoxLayout(), QHBoxLayout()
        fields.setSpacing(theme.SPACE * 2)
        fields.addWidget(self.field)
        fields.addWidget(self.note, 1)
        buttons.setSpacing(theme.SPACE * 2)
        buttons.addStretch(1)
        buttons.addWidget(cancel)
        buttons.addWidget(self.start)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[theme.PANEL_PADDING * 2] * 4)
        layout.setSpacing(theme.PANEL_PADDING)
        layout.addWidget(question)
        layout.addLayout(fields)
        layout.addLayout(buttons)
        self.field.selectAll()
        self._show()

    def _show(self) -> None:
        is_number = self.field.hasAcceptableInput()
        self.start.setEnabled(is_number)
        self.note.setText(
            self.tr("{} epochs in all").format(count_text(self._epoch + int(self.field.text())))
            if is_number
            else self.tr("A number from 1 to {}").format(count_text(self._most))
        )

    def _choose(self) -> None:
        self.chosen.emit(self._epoch + int(self.field.text()))
        self.accept()
