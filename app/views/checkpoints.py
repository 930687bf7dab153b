"""The checkpoint table with what can be done with a checkpoint beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QModelIndex, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QGuiApplication, QHideEvent, QKeySequence, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QMenu, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_table import SAVED, CheckpointItemModel
from app.viewmodels.quantities import count_text, size_text
from app.views.checkpoint_details import DETAILS_WIDTH, CheckpointDetailsView
from app.views.checkpoint_dialogs import MarkDialog
from app.views.checkpoint_rows import CheckpointTable
from trainer.messages.run_info import CheckpointInfo

_AGES_INTERVAL_MS = 1000
_BUTTONS_WIDTH = 112
_LEAST_TABLE_WIDTH = 1040
"""With the columns of every run, and the tags."""
_DETAILS = "details"


class CheckpointsView(QWidget):
    """Lists the run's checkpoints; restores one, or resumes from it."""

    restore_requested = Signal(str)
    """The name of a checkpoint to put into the live run, or to load into a stopped one."""
    weights_requested = Signal(str)
    """The name of a checkpoint whose weights alone are to be put into the run."""
    resume_requested = Signal(str)
    """The name of a checkpoint from which a stopped run is to go on."""
    branch_requested = Signal(str)
    """The name of a checkpoint from which a new run is to begin."""
    verify_requested = Signal(str)
    """The name of a checkpoint from which the steps that follow are to be made again, and compared."""
    pin_requested = Signal(object, bool)
    """These checkpoints (list[str]) are to be pinned, or not."""
    mark_requested = Signal(str, str, str)
    """A checkpoint, by its name, is to have this label and this note."""
    delete_requested = Signal(object)
    """These checkpoints (list[str]) are to be deleted."""
    folder_wanted = Signal(object)
    """A folder (a Path) to be shown in the desktop's file manager."""

    def __init__(
        self, checkpoints: CheckpointItemModel, details: CheckpointDetails, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._checkpoints = checkpoints
        self._checkpoints_dir: Path | None = None
        self._can_resume = self._can_take_weights = self._can_verify = False
        self._has_chosen = False
        self._kept_names: list[str] = []
        self._empty_text = self.tr("A checkpoint is saved after every epoch, and whenever you press Save checkpoint.")
        self._table = CheckpointTable(checkpoints, self._empty_text)
        self._table.setAccessibleName(self.tr("Checkpoints"))
        self._table.doubleClicked.connect(lambda _: self._restore.click())
        self._table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._table.customContextMenuRequested.connect(
            lambda position: self._menu.popup(self._table.viewport().mapToGlobal(position))
        )
        self._table.clicked.connect(self._note_choice)
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
        self._select_newest()

    def allow(self, *, restore: bool, resume: bool, weights: bool, verify: bool, checkpoints_dir: Path | None) -> None:
        """Say what the run's state allows, and where its checkpoints lie."""
        self._checkpoints.can_restore, self._can_resume = restore, resume
        self._can_take_weights, self._can_verify = weights, verify
        self._checkpoints_dir = checkpoints_dir
        self._enable_buttons()

    @property
    def selected_name(self) -> str | None:
        """Return the name of the one selected checkpoint, or None."""
        names = self._table.selected_names
        return names[0] if len(names) == 1 else None

    def showEvent(self, event: QShowEvent) -> None:
        """Count the seconds only while someone can see them."""
        self._ages.start()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        """Stop counting."""
        self._ages.stop()
        super().hideEvent(event)

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.filter_box = QLineEdit()
        self.filter_box.setPlaceholderText(self.tr("Filter"))
        self.filter_box.setToolTip(self.tr("Words of a name, a tag, a label, a note, or of what is frozen"))
        self.filter_box.setAccessibleName(self.tr("Filter checkpoints"))
        self.filter_box.setClearButtonEnabled(True)
        self.filter_box.textChanged.connect(self._filter)
        self._restore = self._button(self.tr("Restore"), self._ask_restore)
        self._restore.setProperty("kind", "primary")
        self._restore.setToolTip(
            self.tr("Put this checkpoint's weights, optimizer and freeze set into the run, at the next step")
        )
        self._resume = self._button(self.tr("Resume"), self._ask_resume)
        self._resume.setToolTip(self.tr("Go on with the stopped run from this checkpoint"))
        self._menu = QMenu(self)
        self._pin = self._action(self.tr("Pin"), self._ask_pin, "P")
        self._mark = self._action(self.tr("Label and note …"), self._ask_mark, "F2")
        self._menu.addSeparator()
        self._restore_weights = self._action(self.tr("Restore weights only"), self._ask_weights)
        self._restore_weights.setToolTip(
            self.tr("Go on from these weights at the present step; the optimizer begins anew, all else stays as it is")
        )
        self._branch = self._action(self.tr("Branch…"), self._ask_branch)
        self._branch.setToolTip(self.tr("A new run that begins from this checkpoint, with another configuration"))
        self._verify = self._action(self.tr("Verify resume"), self._ask_verify)
        self._verify.setToolTip(
            self.tr("Make the steps after this checkpoint again, in a copy, and compare them with the run's to the bit")
        )
        self._menu.setToolTipsVisible(True)
        self._menu.addSeparator()
        self._show_details = self._action(self.tr("Details"), self._choose_details, "D")
        self._show_details.setCheckable(True)
        self._copy = self._action(self.tr("Copy path"), self._copy_path)
        self._show = self._action(self.tr("Show in folder"), self._show_in_folder)
        self._menu.addSeparator()
        self._delete = self._action(self.tr("Delete"), self._ask_delete, "Del")
        self._more = QPushButton(self.tr("More"))
        self._more.setMenu(self._menu)
        buttons = QVBoxLayout()
        buttons.setSpacing(theme.SPACE + 2)
        for widget in (self.filter_box, self._restore, self._resume, self._more):
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
        if not top_left.column() == bottom_right.column() == SAVED:
            self._enable_buttons()

    def _enable_buttons(self) -> None:
        infos = self._selected()
        self._checkpoints.note_selected([info.name for info in infos])
        name = infos[0].name if len(infos) == 1 else None
        is_whole = name is not None and not self._checkpoints.problem_of(name)
        self._restore.setEnabled(is_whole and self._checkpoints.can_restore)
        self._resume.setEnabled(is_whole and self._can_resume)
        self._restore_weights.setEnabled(is_whole and self._can_take_weights)
        self._branch.setEnabled(is_whole and self._checkpoints_dir is not None)
        self._verify.setEnabled(is_whole and self._can_verify)
        self._copy.setEnabled(name is not None and self._checkpoints_dir is not None)
        self._show.setEnabled(self._checkpoints_dir is not None)
        self._pin.setEnabled(bool(infos))
        self._pin.setText(self.tr("Unpin") if self._are_pinned(infos) else self.tr("Pin"))
        self._mark.setEnabled(name is not None)
        self._delete.setEnabled(not all(info.is_pinned for info in infos))
        self._delete.setText(self._delete_text(infos))

    def _delete_text(self, infos: list[CheckpointInfo]) -> str:
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
        names = self._table.selected_names
        return [info for name in names if (info := self._checkpoints.checkpoint(name)) is not None]

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

    def _filter(self, text: str) -> None:
        is_empty = not text.strip()
        self._table.empty_text = self._empty_text if is_empty else self.tr("No checkpoint has these words.")
        self._table.sorted.set_filter(text)

    def _note_choice(self) -> None:
        self._has_chosen = True

    def _choose(self, names: list[str]) -> None:
        """Select what was chosen elsewhere, also where the filter hides it."""
        if any(self._table.sorted.row_of(name) is None for name in names):
            self.filter_box.clear()
        self._has_chosen = True
        self._table.select_names(names)
        self._table.scrollTo(self._table.currentIndex())

    def _keep_selection(self) -> None:
        self._kept_names = self._table.selected_names

    def _restore_selection(self) -> None:
        kept = [name for name in self._kept_names if self._checkpoints.checkpoint(name) is not None]
        self._has_chosen = self._has_chosen and bool(kept)
        self._table.select_names(kept)
        self._select_newest()

    def _select_newest(self) -> None:
        # The newest is the likely one, until the user has chosen another.
        listed = self._checkpoints.rowCount()
        if listed and not self._has_chosen and not self._table.hasFocus():
            self._table.select_names([self._checkpoints.at(listed - 1).name])
        self._enable_buttons()

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
        if (name := self.selected_name) is not None:
            self.branch_requested.emit(name)

    def _ask_verify(self) -> None:
        if (name := self.selected_name) is not None:
            self.verify_requested.emit(name)

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
        if names := [info.name for info in self._selected() if not info.is_pinned]:
            self.delete_requested.emit(names)

    def _copy_path(self) -> None:
        if (name := self.selected_name) is not None and self._checkpoints_dir is not None:
            QGuiApplication.clipboard().setText(str(self._checkpoints_dir / name))

    def _show_in_folder(self) -> None:
        if self._checkpoints_dir is not None:
            self.folder_wanted.emit(self._checkpoints_dir)
