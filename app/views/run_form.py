"""The run form: what a run is made of, each field with its error below it."""

from __future__ import annotations

import json
from functools import partial

from PySide6.QtCore import QByteArray, QEvent, Qt, QTimer, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.field_words import field_tip, section_title
from app.viewmodels.model_offer import weights_text
from app.viewmodels.plan_text import plan_tip, plan_title
from app.viewmodels.quantities import count_text, percent_text, size_text
from app.viewmodels.run_config import RunConfigViewModel
from app.viewmodels.run_fields import CHECKED_FIELDS, COLUMN_FIELDS, LIVE_FIELDS, MODEL_FIELDS, SECTIONS
from app.views.branch_line import BranchLine
from app.views.field_note import FieldNote
from app.views.field_row import FieldRow
from app.views.focus import give_up_focus
from app.views.section_heading import SectionHeading
from trainer.messages.model_info import ModelEntry
from trainer.plans import PlanName

_WEIGHT_FILES = "*.pt *.pth *.safetensors *.ckpt *.bin *.pth.tar"
_ICONS = {"data.path": "folder", "model.weights": "folder", "plan": "sun", "optimizer.rate": "chart"}
"""The fields with a button beside them."""
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
        self._rows: dict[str, FieldRow] = {}
        self._data_timer = self._pause_timer(self.data_changed.emit)
        self._model_timer = self._pause_timer(self.model_chosen.emit)
        self._typed_field = ""
        self._revealed: FieldRow | None = None
        self._editable: tuple[bool, bool] | None = None
        """Whether the values can be changed, and whether they are a live run's; None until it is said."""
        self._offered_models: list[ModelEntry] | None = None
        self._error_timer = self._pause_timer(self._show_typed)
        self._error_timer.setInterval(_ERROR_PAUSE_MS)
        self._values_timer = self._pause_timer(self._show_values)
        self._values_timer.setInterval(0)
        self._build()
        run_config.changed.connect(self._on_changed)
        run_config.need.changed.connect(self._show_need)
        run_config.refused.connect(self._reveal)
        run_config.live_changed.connect(self._show_apply)
        self._show_values()
        self._show_need()

    def set_editable(self, is_editable: bool, *, is_live: bool = False) -> None:
        """Let the values be changed, or show them as a run has them; of a live one, some can be changed still."""
        if self._editable == (is_editable, is_live):
            return
        self._editable = is_editable, is_live
        if not is_editable:
            give_up_focus(self)
        for field, row in self._rows.items():
            row.editor.setEnabled(is_editable or (is_live and field in LIVE_FIELDS.values()))
        for button in self._buttons.values():
            button.setVisible(is_editable or (is_live and button is self._find))
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
        for row in self._rows.values():
            row.note.keep_room(is_editable)
        self._show_hints()

    def allow_rate_search(self, is_allowed: bool) -> None:
        """Say whether the worker could look for a rate now."""
        tip = self.tr("Find a rate: some steps at rising rates, which are undone")
        self._find.setEnabled(is_allowed)
        self._find.setToolTip(tip if is_allowed else self.tr("{}. Pause the run first.").format(tip))

    def focus_first(self) -> None:
        """Put the cursor where a new run begins: into the data field."""
        self._unfold("data.path")
        self._rows["data.path"].focus()

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
        # Its own weights are looked at from then on.
        self.branch_line.leave.clicked.connect(self.model_chosen)

        self._find = self._icon_button(self.tr("Find a rate"))
        self._find.clicked.connect(self.rate_wanted)
        self._buttons = {
            "data.path": self._browse_data_button(),
            "model.weights": self._browse_weights_button(),
            "plan": self._plans_button(),
            "optimizer.rate": self._find,
        }
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
                self._add_row(field).place(grid)
        grid.setRowStretch(grid.rowCount(), 1)
        # Those of folded sections, too: unfolding one must not move the fields of the others.
        grid.setColumnMinimumWidth(0, max(row.label.sizeHint().width() for row in self._rows.values()))

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
        bar.rangeChanged.connect(self._follow_error)
        self._scroll.setWidget(fields)
        # Coming to a field must not push the labels out of sight where the form is narrow.
        self._scroll.horizontalScrollBar().valueChanged.connect(
            lambda _: self._scroll.horizontalScrollBar().setValue(0)
        )
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)

        head = QHBoxLayout()
        # As high with Apply as without, so that the fields stay where they are.
        keeps_room = self._apply.sizePolicy()
        keeps_room.setRetainSizeWhenHidden(True)
        self._apply.setSizePolicy(keeps_room)
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

    def _add_row(self, field: str) -> FieldRow:
        row = FieldRow(field, self._buttons.get(field), self)
        row.typed.connect(partial(self._take, field))
        if field in LIVE_FIELDS.values():
            row.entered.connect(self._apply.click)
            escape = QShortcut(QKeySequence(Qt.Key.Key_Escape), row.editor)
            escape.setContext(Qt.ShortcutContext.WidgetShortcut)
            escape.activated.connect(partial(self._run_config.put_back, field))
        self._rows[field] = row
        return row

    def _icon_button(self, words: str) -> QToolButton:
        button = QToolButton()
        button.setToolTip(words)
        button.setAccessibleName(words)
        button.setProperty("kind", "icon")
        # As high as its field, so that the row stays as it is without the button.
        button.setFixedHeight(theme.FIELD_HEIGHT)
        return button

    def _browse_weights_button(self) -> QToolButton:
        button = self._icon_button(self.tr("Choose a file of weights"))
        button.clicked.connect(
            lambda: self._browse_for(
                "model.weights",
                QFileDialog.FileMode.ExistingFile,
                self.tr("Weights ({})").format(_WEIGHT_FILES),
            )
        )
        return button

    def _browse_data_button(self) -> QToolButton:
        button = self._icon_button(self.tr("Choose the data"))
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        menu.aboutToShow.connect(lambda: self._fill_data_menu(menu))
        button.setMenu(menu)
        return button

    def _plans_button(self) -> QToolButton:
        button = self._icon_button(self.tr("Choose a plan"))
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
        for field, icon in _ICONS.items():
            self._buttons[field].setIcon(theme.icon(icon, theme.palette_of(self).dim))

    # -- typing -----------------------------------------------------------------------------------------------

    def _send_changes(self) -> None:
        self.window().setFocus(Qt.FocusReason.OtherFocusReason)
        for field in LIVE_FIELDS.values():
            self._rows[field].forget_typing()
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
        dialog = QFileDialog(self, self._buttons[field].toolTip())
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

    def _on_changed(self) -> None:
        if self._run_config.run is None:
            self._show_values()
        else:
            # What a run tells changes all the rest of the window, too: the form follows in a turn of its own.
            self._values_timer.start()

    def _show_values(self) -> None:
        self._values_timer.stop()
        self._offer_models()
        self._rows["training.device"].offer(["auto", *self._run_config.devices])
        for field in COLUMN_FIELDS:
            self._rows[field].offer(self._run_config.found.columns)
        for field, row in self._rows.items():
            row.show_value(self._run_config.text(field), self._run_config.placeholder(field))
        self._show_rows()
        self._show_hints()

    def _show_rows(self) -> None:
        for section, fields in SECTIONS.items():
            shown = {field for field in fields if self._run_config.has_field(field)}
            heading = self._headings[section]
            heading.setVisible(bool(shown))
            for field in fields:
                self._rows[field].set_shown(heading.isChecked() and field in shown)

    def _unfold(self, field: str) -> None:
        section = next(section for section, fields in SECTIONS.items() if field in fields)
        self._headings[section].setChecked(True)

    def _reveal(self, field: str) -> None:
        if field not in self._rows:
            return
        self._show_typed()
        for wrong in self._rows:
            if self._run_config.error(wrong):
                self._unfold(wrong)
        self._rows[field].focus()
        row = self._rows[field]
        self._scroll.ensureWidgetVisible(row.holder)
        if row.note.heightForWidth(row.note.width()) > row.note.height():
            self._revealed = row

    def _follow_error(self) -> None:
        """Have an error in sight that there was no room for below its field as that was revealed."""
        if self._revealed is not None:
            self._scroll.ensureWidgetVisible(self._revealed.holder)
            self._revealed = None

    def _offer_models(self) -> None:
        models = self._run_config.offer.models
        # The texts of eighty models take as long as all the rest of the form.
        if models is not self._offered_models:
            self._offered_models = models
            self._rows["model.name"].offer(
                [entry.name for entry in models],
                [self._model_text(entry) for entry in models],
                [self._model_note(entry) for entry in models],
            )
        chosen = self._run_config.offer.chosen_entry
        sets = [] if chosen is None else chosen.weight_sets
        texts = [weights_text(each) for each in sets]
        names = ["published", *(each.name for each in sets), "random"]
        notes = [*(f"{text} · {each.name}" for each, text in zip(sets[:1], texts, strict=False)), *texts, ""]
        self._rows["model.weights"].offer(names, notes=notes if sets else ())

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
        for field, row in self._rows.items():
            error = self._run_config.error(field)
            text = error or self._run_config.note(field)
            row.tell(error, self._tip(field), text or self._run_config.placeholder(field))
            if field == self._typed_field and (error or row.note.is_error):
                continue
            if error and error != row.note.whole_text:
                self._unfold(field)
            row.note.show_text(text, is_error=bool(error))
