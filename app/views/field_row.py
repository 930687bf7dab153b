"""FieldRow: a field of the run form: its label, its editor with a button beside it, and the note below."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QLineEdit, QToolButton, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.field_words import field_label, field_tip
from app.viewmodels.run_fields import COLUMN_FIELDS
from app.views.choice_field import ChoiceField
from app.views.field_note import FieldNote
from app.views.path_line import PathLine
from trainer.config import METRICS

_CHOICES: dict[str, tuple[str, ...]] = {
    "model.name": (),
    "model.weights": ("published", "random"),
    "model.head": ("replace", "append"),
    "optimizer.name": ("AdamW", "Adam", "SGD", "RMSprop"),
    "optimizer.schedule": ("constant", "cosine", "one_cycle", "step", "plateau"),
    "optimizer.nesterov": ("False", "True"),
    "optimizer.state_on_unfreeze": ("auto", "keep", "drop"),
    "model.batchnorm": ("frozen", "adapting"),
    "training.stop_metric": ("loss", "accuracy"),
    "training.restore_best": ("True", "False"),
    "checkpoints.best_metric": ("auto", *METRICS),
    "checkpoints.before_changes": ("True", "False"),
    "checkpoints.self_contained": ("False", "True"),
    "training.feature_cache": ("auto", "off"),
    "training.feature_precision": ("same", "half"),
    "training.advisor": ("tell", "act", "off"),
    "training.precision": ("auto", "fp32", "bf16", "fp16"),
    "training.channels_last": ("auto", "on", "off"),
    "training.compile": ("off", "on"),
    "training.device": ("auto",),
    "training.deterministic": ("False", "True"),
    "data.layout": ("auto", "class_folders", "split_folders", "splits_in_classes", "table", "file_names"),
    "data.task": ("multi_class", "binary", "multi_label"),
    **dict.fromkeys(COLUMN_FIELDS, ()),
    "data.label_separator": ("auto", "none", ";", "|", ",", "space"),
    "data.augmentation": ("light", "none", "standard", "strong"),
    "data.mixing": ("none", "mixup", "cutmix"),
    "data.balance": ("none", "class_weights", "sampler"),
}
_FREE_CHOICES = frozenset({"model.name", "model.weights", "training.device", *COLUMN_FIELDS})
_PATHS = frozenset({"data.path", "model.weights"})
_NOTE_LINES = {
    "data.path": 2,
    "data.layout": 1,
    "data.label_separator": 1,
    "model.weights": 1,
    "data.task": 1,
    "data.views": 1,
    "plan": 1,
    "data.image_size": 1,
    "training.precision": 2,
    "training.device": 1,
}
"""The fields that notes are about, and the lines that are kept for them: no row moves as a note comes or goes."""
_WHOLE_WIDTH = frozenset({"plan"})
"""What is longer than any other value gets the whole width, below its label."""


class FieldRow(QObject):
    """One field by its name in the configuration; what it means is the view model's."""

    typed = Signal(str)
    """Another value, as text, was typed or chosen."""
    entered = Signal()
    """Return was pressed in a line."""

    def __init__(self, field: str, button: QToolButton | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.field = field
        self.button = button
        self.label = QLabel(field_label(field))
        self.label.setProperty("role", "field")
        self.label.setToolTip(field_tip(field))
        self.label.setFixedHeight(theme.FIELD_HEIGHT + theme.SPACE)
        self.editor = self._make_editor()
        self.editor.setAccessibleName(field_label(field))
        self.label.setBuddy(self.editor)
        self.note = FieldNote(_NOTE_LINES.get(field, 0))
        self.holder = QWidget()
        cell = QVBoxLayout(self.holder)
        cell.setContentsMargins(0, theme.SPACE // 2, 0, theme.SPACE // 2)
        cell.setSpacing(1)
        line = QHBoxLayout()
        line.setSpacing(theme.SPACE)
        line.addWidget(self.editor, 1)
        if button is not None:
            line.addWidget(button)
        cell.addLayout(line)
        cell.addWidget(self.note)

    def place(self, grid: QGridLayout) -> None:
        """Put it below what the grid has."""
        row = grid.rowCount()
        grid.addWidget(self.label, row, 0, Qt.AlignmentFlag.AlignTop)
        if self.field in _WHOLE_WIDTH:
            grid.addWidget(self.holder, row + 1, 0, 1, 2)
        else:
            grid.addWidget(self.holder, row, 1)

    def set_shown(self, is_shown: bool) -> None:
        """Show it, or take it away."""
        self.label.setVisible(is_shown)
        self.holder.setVisible(is_shown)

    def focus(self) -> None:
        """Put the cursor into it."""
        self.editor.setFocus(Qt.FocusReason.OtherFocusReason)

    def show_value(self, text: str, placeholder: str) -> None:
        """Show a value as the view model has it; what is typed already stays as it is."""
        if isinstance(self.editor, ChoiceField):
            self.editor.show_value(text)
        elif self.editor.text() != text:
            self.editor.setText(text)
        line = self.editor.lineEdit() if isinstance(self.editor, ChoiceField) else self.editor
        if line is not None:
            line.setPlaceholderText(placeholder)

    def forget_typing(self) -> None:
        """Have Ctrl+Z take back what was sent, and not the typing of it."""
        if isinstance(self.editor, QLineEdit):
            self.editor.setText(self.editor.text())

    def offer(self, names: Sequence[str], tips: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        """Offer these values, of a field that has a choice."""
        assert isinstance(self.editor, ChoiceField)
        self.editor.offer(names, tips, notes)

    def tell(self, error: str, tip: str, description: str) -> None:
        """Say in its frame and its tooltip that it is wrong, or in the tooltip what it is."""
        theme.set_property(self.editor, "invalid", bool(error))
        # All of it, where there is no room for all of it below.
        self.editor.setToolTip(error or tip)
        self.editor.setAccessibleDescription(description)

    def _make_editor(self) -> QLineEdit | ChoiceField:
        line = PathLine() if self.field in _PATHS else None
        if self.field not in _CHOICES:
            edit = line or QLineEdit()
            edit.textEdited.connect(self.typed)
            edit.returnPressed.connect(self.entered)
            return edit
        is_free = self.field in _FREE_CHOICES
        choice = ChoiceField(_CHOICES[self.field], is_free=is_free, line=line)
        if is_free:
            choice.currentTextChanged.connect(self.typed)
        else:
            choice.currentIndexChanged.connect(lambda _: self.typed.emit(choice.currentData()))
        return choice
