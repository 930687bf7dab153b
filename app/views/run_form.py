"""The run form: what a run is made of, each field with its error below it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from PySide6.QtCore import QEvent, QStringListModel, Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QCompleter,
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
from app.viewmodels.field_words import choice_text, field_label
from app.viewmodels.quantities import count_text, percent_text, size_text
from app.viewmodels.run_config import (
    CHECKED_FIELDS,
    COLUMN_FIELDS,
    FIELDS,
    RunConfigViewModel,
)

_CHOICES: dict[str, tuple[str, ...]] = {
    "model.weights": ("published", "random"),
    "optimizer.name": ("AdamW", "Adam", "SGD"),
    "optimizer.schedule": ("constant", "cosine"),
    "training.precision": ("auto", "fp32", "bf16"),
    "training.device": ("auto", "cpu"),
    "data.layout": ("auto", "class_folders", "split_folders", "table", "file_names"),
    "data.augmentation": ("light", "none", "standard", "strong"),
    "data.mixing": ("none", "mixup", "cutmix"),
    "data.balance": ("none", "class_weights", "sampler"),
}
_FREE_CHOICES = frozenset({"model.name", "model.weights", "training.device"})
# A scan or a model's tree is asked for when the typing rests.
_TYPING_PAUSE_MS = 400


class RunForm(QWidget):
    """Edits a RunConfigViewModel; shows a live run's values without letting them be changed."""

    start_requested = Signal()
    """Start was pressed; the values are not yet checked."""
    data_changed = Signal()
    """Other data, or another split of them, were chosen: typing has rested, or they were picked."""
    model_chosen = Signal()
    """Another model or other weights were chosen."""

    def __init__(self, run_config: RunConfigViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._run_config = run_config
        self._editors: dict[str, QLineEdit | QComboBox] = {}
        self._labels: dict[str, QLabel] = {}
        self._hints: dict[str, QLabel] = {}
        self._holders: dict[str, QWidget] = {}
        self._browse: dict[str, QToolButton] = {}
        self._model_names = QStringListModel(self)
        self._offered: dict[str, list[str]] = {}
        self._is_showing = False
        self._data_timer = self._pause_timer(self.data_changed.emit)
        self._model_timer = self._pause_timer(self.model_chosen.emit)
        self._build()
        run_config.changed.connect(self._show_values)
        run_config.need_changed.connect(self._show_need)
        run_config.refused.connect(self._reveal)
        self._show_values()
        self._show_need()

    def set_editable(self, is_editable: bool) -> None:
        """Let the values be changed, or show them as a live run has them."""
        for editor in self._editors.values():
            editor.setEnabled(is_editable)
        for button in self._browse.values():
            button.setVisible(is_editable)
        self._start.setVisible(is_editable)
        self._show_need()
        self._live_note.setVisible(not is_editable)
        self._show_hints()

    def focus_first(self) -> None:
        """Put the cursor where a new run begins: into the data field."""
        self._editors["data.path"].setFocus(Qt.FocusReason.OtherFocusReason)

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icon in the theme's colour."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_start"):
            self._restyle()

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        heading = QLabel(self.tr("Run"))
        heading.setProperty("role", "heading")
        self._start = QPushButton(self.tr("Start"))
        self._start.setProperty("kind", "primary")
        self._start.clicked.connect(self.start_requested)
        self._need = QLabel()
        self._need.setTextFormat(Qt.TextFormat.PlainText)
        self._need.setWordWrap(True)
        self._need.setToolTip(self.tr("From a few trial steps, as the run begins; unfreezing layers changes it."))
        self._live_note = QLabel(self.tr("The values of this run. New run begins another with them."))
        self._live_note.setProperty("role", "note")
        self._live_note.setWordWrap(True)

        fields = QWidget()
        grid = QGridLayout(fields)
        grid.setContentsMargins(0, 0, theme.SPACE, 0)
        grid.setHorizontalSpacing(theme.SPACE * 2)
        grid.setVerticalSpacing(0)
        grid.setColumnStretch(1, 1)
        for row, field in enumerate(FIELDS):
            self._add_row(grid, row, field)
        grid.setRowStretch(len(FIELDS), 1)

        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(fields)
        # Coming to a field must not push the labels out of sight where the form is narrow.
        self._scroll.horizontalScrollBar().valueChanged.connect(
            lambda _: self._scroll.horizontalScrollBar().setValue(0)
        )
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE * 2)
        layout.addWidget(heading)
        layout.addWidget(self._scroll, 1)
        layout.addWidget(self._need)
        layout.addWidget(self._start)
        layout.addWidget(self._live_note)
        self._live_note.hide()
        self._restyle()

    def _add_row(self, grid: QGridLayout, row: int, field: str) -> None:
        label = QLabel(field_label(field))
        label.setProperty("role", "field")
        editor = self._editor(field)
        label.setBuddy(editor)
        editor.setAccessibleName(field_label(field))
        hint = QLabel()
        hint.setTextFormat(Qt.TextFormat.PlainText)
        hint.setWordWrap(True)
        hint.hide()

        holder = QWidget()
        cell = QVBoxLayout(holder)
        cell.setContentsMargins(0, 3, 0, 3)
        cell.setSpacing(2)
        if field in {"data.path", "model.weights"}:
            line = QHBoxLayout()
            line.setSpacing(theme.SPACE)
            line.addWidget(editor, 1)
            self._browse[field] = self._browse_data_button() if field == "data.path" else self._browse_weights_button()
            line.addWidget(self._browse[field])
            cell.addLayout(line)
        else:
            cell.addWidget(editor)
        cell.addWidget(hint)
        label.setFixedHeight(theme.FIELD_HEIGHT + 6)
        grid.addWidget(label, row, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(holder, row, 1)
        self._holders[field] = holder
        self._editors[field], self._labels[field], self._hints[field] = editor, label, hint

    def _editor(self, field: str) -> QLineEdit | QComboBox:
        if field != "model.name" and field not in _CHOICES:
            edit = QLineEdit()
            edit.setPlaceholderText(self._placeholder(field))
            edit.textEdited.connect(lambda text: self._take(field, text))
            return edit
        combo = QComboBox()
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(5)
        combo.setMaxVisibleItems(16)
        # Scrolling the form must not change a value that happens to lie under the pointer.
        combo.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        combo.installEventFilter(self)
        for value in _CHOICES.get(field, ()):
            combo.addItem(choice_text(value), value)
        if field not in _FREE_CHOICES:
            combo.currentIndexChanged.connect(lambda _: self._take(field, combo.currentData()))
            return combo
        combo.setEditable(True)
        combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        if field == "model.name":
            completer = QCompleter(self._model_names, combo)
            completer.setFilterMode(Qt.MatchFlag.MatchContains)
            completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
            combo.setCompleter(completer)
        combo.currentTextChanged.connect(lambda text: self._take(field, text))
        return combo

    def eventFilter(self, watched: object, event: QEvent) -> bool:
        """Give the wheel to the scrolled form, unless the field has the focus."""
        is_wheel = event.type() == QEvent.Type.Wheel
        if is_wheel and isinstance(watched, QComboBox) and not watched.hasFocus():
            event.ignore()
            return True
        return False

    def _placeholder(self, field: str) -> str:
        return {
            "name": self.tr("the data's name"),
            "data.path": self.tr("a folder, an archive or a table of images"),
            **dict.fromkeys(COLUMN_FIELDS, self.tr("found by its name")),
            "data.group_column": self.tr("none"),
            "data.cache_gb": self.tr("what the disk can spare"),
            "plan": self.tr("3: +stage4, +conv5"),
            **dict.fromkeys(
                ("data.image_size", "data.resize_size", "data.mean", "data.std"), self.tr("the weights' own")
            ),
        }.get(field, "")

    def _browse_weights_button(self) -> QToolButton:
        button = _icon_button(self.tr("Choose a file of weights"))
        button.clicked.connect(
            lambda: self._browse_for(
                "model.weights", QFileDialog.FileMode.ExistingFile, self.tr("Weights (*.pt *.pth *.safetensors)")
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

    # -- typing -----------------------------------------------------------------------------------------------

    def _take(self, field: str, text: str) -> None:
        if self._is_showing:
            return
        self._run_config.set_text(field, text)
        if field in CHECKED_FIELDS:
            self._data_timer.start()
        elif field in {"model.name", "model.weights"}:
            self._model_timer.start()

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

    # -- showing ----------------------------------------------------------------------------------------------

    def _show_values(self) -> None:
        self._is_showing = True
        try:
            self._offer("model.name", [entry.name for entry in self._run_config.models])
            self._offer("training.device", ["auto", *self._run_config.devices])
            for field, editor in self._editors.items():
                text = self._run_config.text(field)
                if isinstance(editor, QLineEdit):
                    if editor.text() != text:
                        editor.setText(text)
                elif (line := editor.lineEdit()) is not None:
                    if editor.currentText() != text:
                        editor.setEditText(text)
                        # A name is known by its beginning, a path by its end.
                        line.setCursorPosition(len(text) if field == "model.weights" else 0)
                else:
                    editor.setCurrentIndex(editor.findData(text))
        finally:
            self._is_showing = False
        self._show_model_tooltip()
        is_sgd = self._run_config.text("optimizer.name") == "SGD"
        for field, is_shown in (
            ("optimizer.momentum", is_sgd),
            *((f, self._run_config.is_table) for f in COLUMN_FIELDS),
        ):
            self._labels[field].setVisible(is_shown)
            self._holders[field].setVisible(is_shown)
        self._show_hints()

    def _reveal(self, field: str) -> None:
        if field not in self._editors:
            return
        self._editors[field].setFocus(Qt.FocusReason.OtherFocusReason)
        # Once the form has made room for the error below the field.
        QTimer.singleShot(0, self, lambda: self._scroll.ensureWidgetVisible(self._holders[field]))

    def _offer(self, field: str, names: Iterable[str]) -> None:
        combo = self._editors[field]
        assert isinstance(combo, QComboBox)
        offered = list(dict.fromkeys(names))
        if not offered or offered == self._offered.get(field):
            return
        self._offered[field] = offered
        text = combo.currentText()
        combo.clear()
        combo.addItems(offered)
        combo.setEditText(text)
        if field == "model.name":
            self._model_names.setStringList(offered)
            for row, entry in enumerate(self._run_config.models):
                combo.setItemData(row, self._model_text(row), Qt.ItemDataRole.ToolTipRole)
                assert combo.itemText(row) == entry.name

    def _model_text(self, row: int) -> str:
        entry = self._run_config.models[row]
        place = self.tr("on this disk") if entry.is_cached else self.tr("to be downloaded")
        return self.tr("{} parameters · ImageNet {} · {} {}").format(
            count_text(entry.num_params), percent_text(entry.accuracy), size_text(entry.size_bytes), place
        )

    def _show_model_tooltip(self) -> None:
        name = self._run_config.text("model.name")
        row = next((row for row, entry in enumerate(self._run_config.models) if entry.name == name), None)
        self._editors["model.name"].setToolTip("" if row is None else self._model_text(row))

    def _show_need(self) -> None:
        self._need.setText(self._run_config.need)
        theme.set_property(self._need, "role", "error" if self._run_config.lacks_room else "note")
        self._need.setVisible(bool(self._run_config.need) and not self._start.isHidden())

    def _show_hints(self) -> None:
        for field, hint in self._hints.items():
            error = self._run_config.error(field)
            text = error or self._run_config.note(field)
            hint.setVisible(bool(text))
            theme.set_property(hint, "role", "error" if error else "note")
            hint.setText(text)
            theme.set_property(self._editors[field], "invalid", bool(error))
            self._editors[field].setAccessibleDescription(text)


def _icon_button(words: str) -> QToolButton:
    button = QToolButton()
    button.setToolTip(words)
    button.setAccessibleName(words)
    button.setProperty("kind", "icon")
    return button
