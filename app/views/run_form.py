"""The run form: what a run is made of, each field with its error below it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import QByteArray, QEvent, Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.field_words import field_label, field_tip, section_title
from app.viewmodels.model_offer import weights_text
from app.viewmodels.plan_text import plan_tip, plan_title
from app.viewmodels.quantities import count_text, percent_text, size_text
from app.viewmodels.run_config import RunConfigViewModel
from app.viewmodels.run_fields import CHECKED_FIELDS, COLUMN_FIELDS, LIVE_FIELDS, MODEL_FIELDS, SECTIONS
from app.views.branch_line import BranchLine
from app.views.choice_field import ChoiceField
from app.views.field_note import FieldNote
from app.views.path_line import PathLine
from app.views.section_heading import SectionHeading
from trainer.messages.model_info import ModelEntry
from trainer.plans import PlanName

_WEIGHT_FILES = "*.pt *.pth *.safetensors *.ckpt *.bin *.pth.tar"
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
    "checkpoints.before_changes": ("True", "False"),
    "checkpoints.self_contained": ("False", "True"),
    "training.advisor": ("tell", "act", "off"),
    "training.precision": ("auto", "fp32", "bf16"),
    "training.device": ("auto",),
    "data.layout": ("auto", "class_folders", "split_folders", "splits_in_classes", "table", "file_names"),
    "data.task": ("multi_class", "binary", "multi_label"),
    **dict.fromkeys(COLUMN_FIELDS, ()),
    "data.label_separator": ("auto", "none", ";", "|", ",", "space"),
    "data.augmentation": ("light", "none", "standard", "strong"),
    "data.mixing": ("none", "mixup", "cutmix"),
    "data.balance": ("none", "class_weights", "sampler"),
}
_FREE_CHOICES = frozenset({"model.name", "model.weights", "training.device", *COLUMN_FIELDS})
_NOTE_LINES = {
    "data.path": 2,
    "data.layout": 1,
    "data.label_separator": 1,
    "model.weights": 1,
    "data.task": 1,
    "plan": 1,
    "data.image_size": 1,
    "training.precision": 1,
    "training.device": 1,
}
"""The fields that notes are about, and the lines that are kept for them: no row moves as a note comes or goes."""
_NEED_LINES = 3
_OPEN_AT_FIRST = frozenset({"data", "model", "training"})
# A scan or a model's tree is asked for when the typing rests.
_TYPING_PAUSE_MS = 400
# The room for an error is taken, or given back, when the typing rests for longer: the rows below it move.
_ERROR_PAUSE_MS = 800


class RunForm(QWidget):
    """Edits a RunConfigViewModel; of a live run's values only those may be changed that the worker can change."""

    start_requested = Signal()
    """Start was pressed; the values are not yet checked."""
    apply_requested = Signal()
    """What was typed for the live run is to be sent."""
    plan_chosen = Signal(object)
    """This plan (PlanName) is to be written out for the model."""
    rate_wanted = Signal()
    """A learning rate is to be looked for."""
    data_changed = Signal()
    """Other data, or another split of them, were chosen: typing has rested, or they were picked."""
    model_chosen = Signal()
    """Another model, another head, other weights or another image size were chosen."""

    def __init__(self, run_config: RunConfigViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._run_config = run_config
        self._headings: dict[str, SectionHeading] = {}
        self._editors: dict[str, QLineEdit | ChoiceField] = {}
        self._labels: dict[str, QLabel] = {}
        self._hints: dict[str, FieldNote] = {}
        self._holders: dict[str, QWidget] = {}
        self._browse: dict[str, QToolButton] = {}
        self._data_timer = self._pause_timer(self.data_changed.emit)
        self._model_timer = self._pause_timer(self.model_chosen.emit)
        self._typed_field = ""
        self._offered_models: list[ModelEntry] | None = None
        self._error_timer = self._pause_timer(self._show_typed)
        self._error_timer.setInterval(_ERROR_PAUSE_MS)
        self._build()
        run_config.changed.connect(self._show_values)
        run_config.need.changed.connect(self._show_need)
        run_config.refused.connect(self._reveal)
        run_config.live_changed.connect(self._show_apply)
        self._show_values()
        self._show_need()

    def set_editable(self, is_editable: bool, *, is_live: bool = False) -> None:
        """Let the values be changed, or show them as a run has them; of a live one, some can be changed still."""
        focused = self.window().focusWidget()
        if not is_editable and focused is not None and self.isAncestorOf(focused):
            # It would go on to whatever comes next, and frame that as if someone had chosen it.
            self.window().setFocus(Qt.FocusReason.OtherFocusReason)
        for field, editor in self._editors.items():
            editor.setEnabled(is_editable or (is_live and field in LIVE_FIELDS.values()))
        for button in self._browse.values():
            button.setVisible(is_editable)
        self._find.setVisible(is_editable or is_live)
        self._plans.setVisible(is_editable)
        self.branch_line.leave.setVisible(is_editable)
        self._start.setVisible(is_editable)
        self._show_need()
        self._apply.setVisible(is_live and not is_editable)
        self._live_note.setText(
            self.tr("Plan, epochs, patience and rate can still change.")
            if is_live
            else self.tr("The values of this run. New run begins another with them.")
        )
        self._live_note.setVisible(not is_editable)
        for hint in self._hints.values():
            hint.keep_room(is_editable)
        self._show_hints()

    def allow_rate_search(self, is_allowed: bool) -> None:
        """Say whether the worker could look for a rate now."""
        tip = self.tr("Find a rate: some steps at rising rates, which are undone")
        self._find.setEnabled(is_allowed)
        self._find.setToolTip(tip if is_allowed else self.tr("{}. Pause the run first.").format(tip))

    def focus_first(self) -> None:
        """Put the cursor where a new run begins: into the data field."""
        self._unfold("data.path")
        self._editors["data.path"].setFocus(Qt.FocusReason.OtherFocusReason)

    def save_state(self) -> QByteArray:
        """Return which sections are open, for ``restore_state``."""
        is_open = {section: heading.isChecked() for section, heading in self._headings.items()}
        return QByteArray(json.dumps(is_open).encode())

    def restore_state(self, state: QByteArray) -> None:
        """Fold and unfold the sections as they were; a state that is empty or damaged changes nothing."""
        try:
            is_open = json.loads(bytes(state.data()))
        except ValueError:
            return
        for section, heading in self._headings.items():
            if isinstance(is_open, dict):
                heading.setChecked(bool(is_open.get(section, heading.isChecked())))

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icon in the theme's colour."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_start"):
            self._restyle()

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        title = QLabel(self.tr("Run"))
        title.setProperty("role", "heading")
        self._start = QPushButton(self.tr("Start"))
        self._start.setProperty("kind", "primary")
        self._start.clicked.connect(self.start_requested)
        tip = self.tr("From a few trial steps, as the run begins; unfreezing layers changes it.")
        self._need = FieldNote(_NEED_LINES, tip)
        self._apply = QPushButton()
        self._apply.setProperty("kind", "primary")
        self._apply.clicked.connect(self._send_changes)
        self._live_note = QLabel()
        self._live_note.setProperty("role", "note")
        self._live_note.setWordWrap(True)

        self.branch_line = BranchLine(self._run_config)

        fields = QWidget()
        grid = QGridLayout()
        grid.setHorizontalSpacing(theme.SPACE * 2)
        grid.setVerticalSpacing(0)
        grid.setColumnStretch(1, 1)
        for section, names in SECTIONS.items():
            self._headings[section] = SectionHeading(section_title(section), is_open=section in _OPEN_AT_FIRST)
            self._headings[section].toggled.connect(self._show_rows)
            grid.addWidget(self._headings[section], grid.rowCount(), 0, 1, 2)
            for field in names:
                self._add_row(grid, grid.rowCount(), field)
        grid.setRowStretch(grid.rowCount(), 1)
        # Those of folded sections, too: unfolding one must not move the fields of the others.
        grid.setColumnMinimumWidth(0, max(label.sizeHint().width() for label in self._labels.values()))

        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # Its place is kept: where there is nothing to scroll, the bar shows nothing.
        self._scroll.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        # What is said of all values stands above them and goes by with them: the height is theirs.
        page = QVBoxLayout(fields)
        page.setContentsMargins(0, 0, theme.SPACE, 0)
        page.setSpacing(theme.SPACE)
        page.addWidget(self._live_note)
        page.addWidget(self.branch_line)
        page.addLayout(grid, 1)
        bar = self._scroll.verticalScrollBar()
        bar.rangeChanged.connect(lambda lowest, highest: bar.setEnabled(highest > lowest))
        self._scroll.setWidget(fields)
        # Coming to a field must not push the labels out of sight where the form is narrow.
        self._scroll.horizontalScrollBar().valueChanged.connect(
            lambda _: self._scroll.horizontalScrollBar().setValue(0)
        )
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)

        head = QHBoxLayout()
        # As high with Apply as without, so that the fields stay where they are.
        head.addStrut(self._apply.sizeHint().height())
        head.addWidget(title, 1)
        head.addWidget(self._apply)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE * 2)
        layout.addLayout(head)
        layout.addWidget(self._scroll, 1)
        layout.addWidget(self._need)
        layout.addWidget(self._start)
        self._apply.hide()
        self._live_note.hide()
        self._show_apply()
        self._restyle()

    def _add_row(self, grid: QGridLayout, row: int, field: str) -> None:
        label = QLabel(field_label(field))
        label.setProperty("role", "field")
        editor = self._editor(field)
        label.setBuddy(editor)
        editor.setAccessibleName(field_label(field))
        label.setToolTip(field_tip(field))
        hint = FieldNote(_NOTE_LINES.get(field, 0))

        holder = QWidget()
        cell = QVBoxLayout(holder)
        cell.setContentsMargins(0, theme.SPACE // 2, 0, theme.SPACE // 2)
        cell.setSpacing(1)
        if field in {"data.path", "model.weights"}:
            self._browse[field] = self._browse_data_button() if field == "data.path" else self._browse_weights_button()
            cell.addLayout(_line(editor, self._browse[field]))
        elif field == "plan":
            self._plans = self._plans_button()
            cell.addLayout(_line(editor, self._plans))
            # Phases are longer than any other value: they get the whole width, below their label.
            grid.addWidget(holder, row + 1, 0, 1, 2)
        elif field == "optimizer.rate":
            self._find = _icon_button(self.tr("Find a rate"))
            self._find.clicked.connect(self.rate_wanted)
            cell.addLayout(_line(editor, self._find))
        else:
            cell.addWidget(editor)
        cell.addWidget(hint)
        label.setFixedHeight(theme.FIELD_HEIGHT + theme.SPACE)
        grid.addWidget(label, row, 0, Qt.AlignmentFlag.AlignTop)
        if field != "plan":
            grid.addWidget(holder, row, 1)
        self._holders[field] = holder
        self._editors[field], self._labels[field], self._hints[field] = editor, label, hint

    def _editor(self, field: str) -> QLineEdit | ChoiceField:
        if field not in _CHOICES:
            edit = PathLine() if field == "data.path" else QLineEdit()
            edit.textEdited.connect(lambda text: self._take(field, text))
            if field in LIVE_FIELDS.values():
                edit.returnPressed.connect(self._apply.click)
            return edit
        line = PathLine() if field == "model.weights" else None
        choice = ChoiceField(_CHOICES[field], is_free=field in _FREE_CHOICES, line=line)
        if field in _FREE_CHOICES:
            choice.currentTextChanged.connect(lambda text: self._take(field, text))
        else:
            choice.currentIndexChanged.connect(lambda _: self._take(field, choice.currentData()))
        return choice

    def _browse_weights_button(self) -> QToolButton:
        button = _icon_button(self.tr("Choose a file of weights"))
        button.clicked.connect(
            lambda: self._browse_for(
                "model.weights",
                QFileDialog.FileMode.ExistingFile,
                self.tr("Weights ({})").format(_WEIGHT_FILES),
            )
        )
        return button

    def _browse_data_button(self) -> QToolButton:
        button = _icon_button(self.tr("Choose the data"))
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        menu.aboutToShow.connect(lambda: self._fill_data_menu(menu))
        button.setMenu(menu)
        return button

    def _plans_button(self) -> QToolButton:
        button = _icon_button(self.tr("Choose a plan"))
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        menu.setToolTipsVisible(True)
        for name in PlanName:
            action = menu.addAction(plan_title(name), partial(self.plan_chosen.emit, name))
            action.setToolTip(plan_tip(name))
        button.setMenu(menu)
        return button

    def _fill_data_menu(self, menu: QMenu) -> None:
        menu.clear()
        menu.addAction(self.tr("Folder…"), self._browse_folder)
        menu.addAction(self.tr("Archive or table…"), self._browse_file)
        if self._run_config.text("data.path").strip():
            menu.addAction(self.tr("Check again"), self.data_changed.emit)
        if self._run_config.recent_data:
            menu.addSection(self.tr("Recent"))
        for path in self._run_config.recent_data:
            # An ampersand in a name would underline the letter after it.
            menu.addAction(path.replace("&", "&&"), partial(self._pick, "data.path", path))

    def _pause_timer(self, slot: object) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(_TYPING_PAUSE_MS)
        timer.timeout.connect(slot)
        return timer

    def _restyle(self) -> None:
        for button in self._browse.values():
            button.setIcon(theme.icon("folder", theme.palette_of(self).dim))
        self._find.setIcon(theme.icon("chart", theme.palette_of(self).dim))
        self._plans.setIcon(theme.icon("sun", theme.palette_of(self).dim))

    # -- typing -----------------------------------------------------------------------------------------------

    def _send_changes(self) -> None:
        # From here on Ctrl+Z takes back what was sent, and not the typing of it.
        self.window().setFocus(Qt.FocusReason.OtherFocusReason)
        for field in LIVE_FIELDS.values():
            editor = self._editors[field]
            if isinstance(editor, QLineEdit):
                editor.setText(editor.text())
        self.apply_requested.emit()

    def _take(self, field: str, text: str) -> None:
        if field != self._typed_field:
            self._show_typed()
        self._typed_field = field
        self._error_timer.start()
        self._run_config.set_text(field, text)
        if field in CHECKED_FIELDS:
            self._data_timer.start()
        elif field in MODEL_FIELDS:
            self._model_timer.start()

    def _show_typed(self) -> None:
        """Say what is wrong with the field that was typed in; until now only its frame did."""
        self._error_timer.stop()
        self._typed_field = ""
        self._show_hints()

    def _browse_folder(self) -> None:
        self._browse_for("data.path", QFileDialog.FileMode.Directory, "")

    def _browse_file(self) -> None:
        kinds = "*.zip *.tar *.tar.gz *.tgz *.tar.bz2 *.tar.xz *.csv *.tsv"
        name_filter = self.tr("Archives and tables ({})").format(kinds)
        self._browse_for("data.path", QFileDialog.FileMode.ExistingFile, name_filter)

    def _browse_for(self, field: str, mode: QFileDialog.FileMode, name_filter: str) -> None:
        dialog = QFileDialog(self, self._browse[field].toolTip())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(mode)
        if name_filter:
            dialog.setNameFilter(name_filter)
        dialog.fileSelected.connect(lambda path: self._pick(field, path))
        dialog.open()

    def _pick(self, field: str, path: str) -> None:
        self._run_config.set_text(field, path)
        if field == "data.path":
            self.data_changed.emit()
        else:
            self.model_chosen.emit()

    # -- showing ----------------------------------------------------------------------------------------------

    def _show_values(self) -> None:
        self._offer_models()
        self._offer("training.device", ["auto", *self._run_config.devices])
        for field in COLUMN_FIELDS:
            self._offer(field, self._run_config.found.columns)
        for field, editor in self._editors.items():
            text = self._run_config.text(field)
            if isinstance(editor, ChoiceField):
                editor.show_value(text)
            elif editor.text() != text:
                editor.setText(text)
            line = editor.lineEdit() if isinstance(editor, ChoiceField) else editor
            if line is not None:
                line.setPlaceholderText(self._run_config.placeholder(field))
        self._show_rows()
        self._show_hints()

    def _show_rows(self) -> None:
        for section, fields in SECTIONS.items():
            shown = {field for field in fields if self._run_config.has_field(field)}
            heading = self._headings[section]
            heading.setVisible(bool(shown))
            for field in fields:
                is_shown = heading.isChecked() and field in shown
                self._labels[field].setVisible(is_shown)
                self._holders[field].setVisible(is_shown)

    def _unfold(self, field: str) -> None:
        section = next(section for section, fields in SECTIONS.items() if field in fields)
        self._headings[section].setChecked(True)

    def _reveal(self, field: str) -> None:
        if field not in self._editors:
            return
        self._show_typed()
        for wrong in self._editors:
            if self._run_config.error(wrong):
                self._unfold(wrong)
        self._editors[field].setFocus(Qt.FocusReason.OtherFocusReason)
        # Once the form has made room for the error below the field.
        QTimer.singleShot(0, self, lambda: self._scroll.ensureWidgetVisible(self._holders[field]))

    def _offer(self, field: str, names: Sequence[str], tips: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        choice = self._editors[field]
        assert isinstance(choice, ChoiceField)
        choice.offer(names, tips, notes)

    def _offer_models(self) -> None:
        models = self._run_config.offer.models
        # The texts of eighty models take as long as all the rest of the form.
        if models is not self._offered_models:
            self._offered_models = models
            self._offer(
                "model.name",
                [entry.name for entry in models],
                [self._model_text(entry) for entry in models],
                [self._model_note(entry) for entry in models],
            )
        chosen = self._run_config.offer.chosen_entry
        sets = [] if chosen is None else chosen.weight_sets
        texts = [weights_text(each) for each in sets]
        names = ["published", *(each.name for each in sets), "random"]
        notes = [*(f"{text} · {each.name}" for each, text in zip(sets[:1], texts, strict=False)), *texts, ""]
        self._offer("model.weights", names, notes=notes if sets else ())

    def _model_note(self, entry: ModelEntry) -> str:
        count = count_text(entry.num_params)
        is_here = any(each.is_cached for each in entry.weight_sets)
        return self.tr("on this disk · {}").format(count) if is_here else count

    def _model_text(self, entry: ModelEntry) -> str:
        place = self.tr("on this disk") if entry.is_cached else self.tr("to be downloaded")
        return self.tr("{} parameters · ImageNet {} · {} {}").format(
            count_text(entry.num_params), percent_text(entry.accuracy), size_text(entry.size_bytes), place
        )

    def _tip(self, field: str) -> str:
        if field != "model.name":
            return field_tip(field)
        name = self._run_config.text("model.name")
        chosen = next((entry for entry in self._run_config.offer.models if entry.name == name), None)
        return "" if chosen is None else self._model_text(chosen)

    def _show_need(self) -> None:
        resting = self.tr("What the run will need stands here once the data are checked.")
        self._need.show_text(self._run_config.need.text or resting, is_error=self._run_config.need.lacks_room)
        self._need.setVisible(not self._start.isHidden())

    def _show_apply(self) -> None:
        is_applying = self._run_config.live.is_applying
        self._apply.setText(self.tr("Waiting for the next step …") if is_applying else self.tr("Apply"))
        self._apply.setEnabled(self._run_config.live.can_apply)

    def _show_hints(self) -> None:
        for field, hint in self._hints.items():
            error = self._run_config.error(field)
            text = error or self._run_config.note(field)
            theme.set_property(self._editors[field], "invalid", bool(error))
            # All of it, where there is no room for all of it below.
            self._editors[field].setToolTip(error or self._tip(field))
            self._editors[field].setAccessibleDescription(text or self._run_config.placeholder(field))
            if field == self._typed_field and (error or hint.is_error):
                continue
            if error and error != hint.whole_text:
                self._unfold(field)
            hint.show_text(text, is_error=bool(error))


def _line(editor: QWidget, button: QToolButton) -> QHBoxLayout:
    line = QHBoxLayout()
    line.setSpacing(theme.SPACE)
    line.addWidget(editor, 1)
    line.addWidget(button)
    return line


def _icon_button(words: str) -> QToolButton:
    button = QToolButton()
    button.setToolTip(words)
    button.setAccessibleName(words)
    button.setProperty("kind", "icon")
    # As high as its field, so that the row stays as it is without the button.
    button.setFixedHeight(theme.FIELD_HEIGHT)
    return button
