"""The checkpoint table with what can be done with a checkpoint beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QModelIndex, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QGuiApplication, QHideEvent, QKeySequence, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QMenu, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.checkpoint_columns import SAVED
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_run import CheckpointKey
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.quantities import count_text, size_text
from app.views.checkpoint_details import DETAILS_WIDTH, CheckpointDetailsView
from app.views.checkpoint_dialogs import MarkDialog
from app.views.checkpoint_rows import CheckpointTable, TablePlace
from app.views.checkpoint_scope import ScopeButton
from app.views.filter_box import FilterBox
from trainer.messages.run_info import CheckpointInfo

_AGES_INTERVAL_MS = 1000
_OTHERS_INTERVAL_MS = 15_000
_BUTTONS_WIDTH = 112
_FILTER_WIDTH = 300
_LEAST_TABLE_WIDTH = 1040
"""With the columns of every run, and the tags."""
_DETAILS = "details"


class CheckpointsView(QWidget):
    """Lists the run's checkpoints, and those of others; restores one of the run's, or resumes from it."""

    restore_requested = Signal(str)
    """The name of a checkpoint to put into the live run, or to load into a stopped one."""
    weights_requested = Signal(str)
    """The name of a checkpoint whose weights alone are to be put into the run."""
    resume_requested = Signal(str)
    """The name of a checkpoint from which a stopped run is to go on."""
    branch_requested = Signal(object)
    """A checkpoint (CheckpointKey) from which a new run is to begin."""
    export_requested = Signal(object)
    """A checkpoint (CheckpointKey) that is to be written for others."""
    what_if_requested = Signal(str)
    """The name of a checkpoint from which a change is to be tried."""
    verify_requested = Signal(str)
    """The name of a checkpoint from which the steps that follow are to be made again, and compared."""
    compare_requested = Signal(object)
    """These checkpoints (list[CheckpointKey], the oldest first) are to be compared with the first of them."""
    pin_requested = Signal(object, bool)
    """These checkpoints (list[str]) are to be pinned, or not."""
    mark_requested = Signal(str, str, str)
    """A checkpoint, by its name, is to have this label and this note."""
    delete_requested = Signal(object)
    """These checkpoints (list[str]) are to be deleted."""
    put_back_requested = Signal()
    """What was deleted last is to be put back."""
    open_requested = Signal(object)
    """The folder (a Path) of the run of a checkpoint, which is to be opened."""
    others_wanted = Signal()
    """The checkpoints of other runs are to be read again."""
    folder_wanted = Signal(object)
    """A folder (a Path) to be shown in the desktop's file manager."""

    def __init__(
        self, checkpoints: CheckpointItemModel, details: CheckpointDetails, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._checkpoints = checkpoints
        self._can_resume = self._can_take_weights = False
        self._has_chosen = False
        self._is_own: bool | None = None
        self._kept_keys: list[CheckpointKey] = []
        self._kept_place = TablePlace(0, is_current_seen=True)
        self._empty_text = self.tr("A checkpoint is saved after every epoch, and whenever you press Save checkpoint.")
        self._table = CheckpointTable(checkpoints, self._empty_text)
        self._table.setAccessibleName(self.tr("Checkpoints"))
        self._table.doubleClicked.connect(lambda _: self._restore.click())
        self._table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._table.customContextMenuRequested.connect(
            lambda position: self._menu.popup(self._table.viewport().mapToGlobal(position))
        )
        self._table.clicked.connect(self._note_choice)
        self._table.left.connect(self._select_newest)
        self._details = CheckpointDetailsView(details)
        self._build()
        checkpoints.columns_chosen.connect(self._fit_details)
        self._table.selectionModel().selectionChanged.connect(self._enable_buttons)
        checkpoints.selection_wanted.connect(self._choose)
        checkpoints.rowsInserted.connect(self._select_newest)
        checkpoints.dataChanged.connect(self._on_changed)
        self._table.sorted.modelAboutToBeReset.connect(self._keep_selection)
        self._table.sorted.modelReset.connect(self._restore_selection)
        self._ages = QTimer(self)
        self._ages.setInterval(_AGES_INTERVAL_MS)
        self._ages.timeout.connect(checkpoints.refresh_ages)
        self._others = QTimer(self)
        self._others.setInterval(_OTHERS_INTERVAL_MS)
        self._others.timeout.connect(self.others_wanted)
        self._select_newest()
        self._enable_buttons()

    def allow(self, *, restore: bool, resume: bool, weights: bool) -> None:
        """Say what the run's state allows."""
        self._checkpoints.can_restore, self._can_resume, self._can_take_weights = restore, resume, weights
        self._enable_buttons()

    @property
    def selected_key(self) -> CheckpointKey | None:
        """Return the one selected checkpoint, or None."""
        keys = self._table.selected_keys
        return keys[0] if len(keys) == 1 else None

    @property
    def selected_name(self) -> str | None:
        """Return the name of the one selected checkpoint, if it is of the run on display."""
        key = self.selected_key
        return key.name if key is not None and self._is_present(key) else None

    def allow_put_back(self, is_allowed: bool) -> None:
        """Say whether there is a deletion that can be undone."""
        self._put_back.setEnabled(is_allowed)

    def _is_present(self, key: CheckpointKey) -> bool:
        return key.run_dir == self._checkpoints.present.path

    def showEvent(self, event: QShowEvent) -> None:
        """Count the seconds, and follow other runs, only while someone can see that."""
        self._ages.start()
        self._others.start()
        self.others_wanted.emit()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        """Stop that."""
        self._ages.stop()
        self._others.stop()
        super().hideEvent(event)

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        # The window places it beside the tabs, where there is room for words.
        self.filter_box = FilterBox(self.tr("Filter: words, accuracy>0.985, epoch>=3"), self.tr("Filter checkpoints"))
        self.filter_box.setFixedWidth(_FILTER_WIDTH)
        self.filter_box.textChanged.connect(self._table.sorted.set_filter)
        self._table.sorted.modelReset.connect(self._say_filter)
        self._say_filter()
        self.scope = ScopeButton(self._checkpoints, self)
        self._restore = self._button(self.tr("Restore"), self._ask_restore)
        self._restore.setProperty("kind", "primary")
        self._resume = self._button(self.tr("Resume"), self._ask_resume)
        self._menu = QMenu(self)
        self._pin = self._action(self.tr("Pin"), self._ask_pin, "P")
        self._mark = self._action(self.tr("Label and note…"), self._ask_mark, "F2")
        self._menu.addSeparator()
        self._restore_weights = self._action(self.tr("Restore weights only"), self._ask_weights)
        self._branch = self._action(self.tr("Branch…"), self._ask_branch)
        self._branch.setToolTip(self.tr("A new run that begins from this checkpoint, with another configuration"))
        self._what_if = self._action(self.tr("What if…"), self._ask_what_if)
        self._verify = self._action(self.tr("Verify resume"), self._ask_verify)
        self._compare = self._action(self.tr("Compare"), self._ask_compare, "C")
        self._compare.setToolTip(
            self.tr("Show how two or more checkpoints differ: metrics, each layer's weights, mistakes, settings")
        )
        self._export = self._action(self.tr("Export…"), self._ask_export)
        self._export.setToolTip(self.tr("Write this checkpoint for others: weights, a graph, or a bundle with scripts"))
        self._menu.setToolTipsVisible(True)
        self._menu.addSeparator()
        self._show_details = self._action(self.tr("Details"), self._choose_details, "D")
        self._show_details.setCheckable(True)
        self._open = self._action(self.tr("Open this run"), self._ask_open)
        self._copy = self._action(self.tr("Copy path"), self._copy_path)
        self._show = self._action(self.tr("Show in folder"), self._show_in_folder)
        self._menu.addSeparator()
        self._delete = self._action(self.tr("Delete"), self._ask_delete, "Del")
        self._put_back = self._action(self.tr("Put back what was deleted"), self.put_back_requested)
        # The window has the keys, which undo elsewhere something else.
        self._put_back.setText(self._put_back.text() + "\tCtrl+Z")
        self._put_back.setEnabled(False)
        self._more = QPushButton(self.tr("More"))
        self._more.setMenu(self._menu)
        buttons = QVBoxLayout()
        buttons.setSpacing(theme.SPACE + 2)
        for widget in (self._restore, self._resume, self._more):
            widget.setFixedWidth(_BUTTONS_WIDTH)
            buttons.addWidget(widget)
        buttons.addStretch(1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.PANEL_PADDING)
        layout.addWidget(self._table, 1)
        layout.addWidget(self._details)
        layout.addLayout(buttons)

    def _button(self, text: str, slot: object) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(slot)
        return button

    def _action(self, text: str, slot: object, keys: str = "") -> QAction:
        action = self._menu.addAction(text)
        if keys:
            action.setShortcut(QKeySequence(keys))
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            self._table.addAction(action)
        action.triggered.connect(slot)
        return action

    def _on_changed(self, top_left: QModelIndex, bottom_right: QModelIndex) -> None:
        # Ages change every second, and nothing depends on them.
        if top_left.column() == bottom_right.column() == SAVED:
            return
        rows = [self._checkpoints.row_of(key) for key in self._checkpoints.selected_keys]
        if any(row is not None and top_left.row() <= row <= bottom_right.row() for row in rows):
            self._enable_buttons()

    def _enable_buttons(self) -> None:
        keys = self._table.selected_keys
        self._checkpoints.note_selected(keys)
        key, infos = keys[0] if len(keys) == 1 else None, self._selected()
        is_whole = key is not None and not self._checkpoints.problem_of(key)
        is_own = all(map(self._is_present, keys))
        self._restore.setEnabled(is_whole and is_own and self._checkpoints.can_restore)
        self._resume.setEnabled(is_whole and is_own and self._can_resume)
        self._restore_weights.setEnabled(is_whole and is_own and self._can_take_weights)
        self._verify.setEnabled(is_whole and is_own)
        self._what_if.setEnabled(is_whole and is_own)
        self._branch.setEnabled(is_whole)
        self._export.setEnabled(is_whole)
        self._compare.setEnabled(len(keys) > 1)
        self._open.setVisible(self._checkpoints.has_others)
        self._open.setEnabled(key is not None and not is_own)
        self._copy.setEnabled(key is not None)
        self._show.setEnabled(self._folder() is not None)
        self._pin.setEnabled(bool(infos) and is_own)
        self._pin.setText(self.tr("Unpin") if self._are_pinned(infos) else self.tr("Pin"))
        self._mark.setEnabled(key is not None and is_own)
        # All of none are pinned as well.
        self._delete.setEnabled(is_own and not all(info.is_pinned for info in infos))
        self._delete.setText(self._delete_text(infos))
        if is_own != self._is_own:
            self._is_own = is_own
            self._tell_what(is_own=is_own)

    def _tell_what(self, *, is_own: bool) -> None:
        """Say of each action what it does, or that another run's checkpoints do not have it."""
        tips: dict[QAction | QPushButton, str] = {
            self._restore: self.tr(
                "Put this checkpoint's weights, optimizer and freeze set into the run, at the next step"
            ),
            self._resume: self.tr("Go on with the stopped run from this checkpoint"),
            self._restore_weights: self.tr(
                "Go on from these weights at the present step; the optimizer begins anew, all else stays as it is"
            ),
            self._verify: self.tr(
                "Make the steps after this checkpoint again, in a copy, and compare them with the run's to the bit"
            ),
            self._what_if: self.tr("Train some steps from this checkpoint as it is, and with a change"),
            self._pin: "",
            self._mark: "",
            self._delete: "",
        }
        for each, tip in tips.items():
            each.setToolTip(tip if is_own else self.tr("This is a checkpoint of another run. Open this run first."))

    def _delete_text(self, infos: list[CheckpointInfo]) -> str:
        if not infos:
            return self.tr("Delete")
        deleted = [info for info in infos if not info.is_pinned]
        num_bytes = size_text(sum(info.size_bytes for info in deleted))
        if len(infos) == 1:
            return self.tr("Delete, {}").format(num_bytes) if deleted else self.tr("Delete (it is pinned)")
        if len(deleted) == len(infos):
            return self.tr("Delete {} checkpoints, {}").format(count_text(len(infos)), num_bytes)
        text = self.tr("Delete {} of {} checkpoints, {}; the pinned ones stay")
        return text.format(count_text(len(deleted)), count_text(len(infos)), num_bytes)

    def _are_pinned(self, infos: list[CheckpointInfo]) -> bool:
        return bool(infos) and all(info.is_pinned for info in infos)

    def _selected(self) -> list[CheckpointInfo]:
        # As it was noted: the table takes longer to say it.
        keys = self._checkpoints.selected_keys
        return [info for key in keys if (info := self._checkpoints.checkpoint(key)) is not None]

    # -- the pane ---------------------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show the details where there is room for them, unless the user has chosen."""
        super().resizeEvent(event)
        self._fit_details()

    def _fit_details(self) -> None:
        has_room = self.width() >= _LEAST_TABLE_WIDTH + DETAILS_WIDTH + _BUTTONS_WIDTH
        is_shown = self._checkpoints.columns.get(_DETAILS, has_room)
        self._details.setVisible(is_shown)
        self._show_details.setChecked(is_shown)

    def _choose_details(self, is_shown: bool) -> None:
        self._checkpoints.choose_column(_DETAILS, is_shown)

    # -- what is selected -------------------------------------------------------------------------------------

    def _say_filter(self) -> None:
        """Say of an empty table why it is, and of the filter what is wrong with it or what it takes."""
        fault = self._table.sorted.fault_text
        is_empty = not self.filter_box.text().strip()
        nothing = self.tr("No checkpoint has all of that. Escape clears it.")
        self._table.empty_text = fault or (self._empty_text if is_empty else nothing)
        theme.set_property(self.filter_box, "invalid", bool(fault))
        what = self.tr(
            "Words of a name, a tag, a label, a note, or of what is frozen; and numbers that are compared, as in "
            "accuracy>0.985 loss<0.5. All must hold."
        )
        self.filter_box.setToolTip(fault or what)

    def _note_choice(self) -> None:
        self._has_chosen = True

    def _choose(self, keys: list[CheckpointKey]) -> None:
        """Select what was chosen elsewhere, also where the filter hides it."""
        if len(self._table.sorted.rows_of(keys)) < len(keys):
            self.filter_box.clear()
        self._has_chosen = True
        self._table.select_keys(keys)
        self._table.scrollTo(self._table.currentIndex())

    def _keep_selection(self) -> None:
        self._kept_keys, self._kept_place = self._table.selected_keys, self._table.place

    def _restore_selection(self) -> None:
        kept = [key for key in self._kept_keys if self._checkpoints.checkpoint(key) is not None]
        self._has_chosen = self._has_chosen and bool(kept)
        self._table.select_keys(kept)
        if kept:
            # A reading of other runs must not move what someone looks at.
            self._table.go_back_to(self._kept_place)
        self._select_newest()
        # A reset takes the selection away without a word.
        self._enable_buttons()

    def _select_newest(self) -> None:
        # The newest is the likely one, until the user has chosen another.
        listed = self._checkpoints.rowCount()
        is_in_use = self._table.hasFocus() or self._table.viewport().underMouse()
        if listed and not self._has_chosen and not is_in_use:
            self._table.select_keys([self._checkpoints.key_at(listed - 1)])

    # -- actions ----------------------------------------------------------------------------------------------

    def _ask_restore(self) -> None:
        if (name := self.selected_name) is not None:
            self.restore_requested.emit(name)

    def _ask_resume(self) -> None:
        if (name := self.selected_name) is not None:
            self.resume_requested.emit(name)

    def _ask_weights(self) -> None:
        if (name := self.selected_name) is not None:
            self.weights_requested.emit(name)

    def _ask_branch(self) -> None:
        if (key := self.selected_key) is not None:
            self.branch_requested.emit(key)

    def _ask_export(self) -> None:
        if (key := self.selected_key) is not None:
            self.export_requested.emit(key)

    def _ask_open(self) -> None:
        if (key := self.selected_key) is not None:
            self.open_requested.emit(key.run_dir)

    def _ask_what_if(self) -> None:
        if (name := self.selected_name) is not None:
            self.what_if_requested.emit(name)

    def _ask_verify(self) -> None:
        if (name := self.selected_name) is not None:
            self.verify_requested.emit(name)

    def _ask_compare(self) -> None:
        infos = {key: self._checkpoints.checkpoint(key) for key in self._table.selected_keys}
        saved_at = {key: info.saved_at for key, info in infos.items() if info is not None}
        if len(saved_at) > 1:
            self.compare_requested.emit(sorted(saved_at, key=lambda key: saved_at[key]))

    def _ask_pin(self) -> None:
        infos = self._selected()
        if infos:
            self.pin_requested.emit([info.name for info in infos], not self._are_pinned(infos))

    def _ask_mark(self) -> None:
        infos = self._selected()
        if len(infos) == 1:
            dialog = MarkDialog(infos[0], self)
            dialog.chosen.connect(partial(self.mark_requested.emit, infos[0].name))
            dialog.open()

    def _ask_delete(self) -> None:
        if names := [info.name for info in self._selected()]:
            self.delete_requested.emit(names)

    def _copy_path(self) -> None:
        if (key := self.selected_key) is not None:
            QGuiApplication.clipboard().setText(str(key.run_dir / "checkpoints" / key.name))

    def _show_in_folder(self) -> None:
        if (folder := self._folder()) is not None:
            self.folder_wanted.emit(folder)

    def _folder(self) -> Path | None:
        """Return where the selected checkpoint lies, without one those of the run on display."""
        keys = self._checkpoints.selected_keys
        run_dir = keys[0].run_dir if keys else self._checkpoints.present.path
        return run_dir / "checkpoints" if run_dir != Path() else None
