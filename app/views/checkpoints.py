"""The checkpoint table with what can be done with a checkpoint beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QGuiApplication, QHideEvent, QPainter, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.checkpoint_table import (
    ACCURACY,
    EPOCH,
    FROZEN,
    LOSS,
    SAVED,
    SIZE,
    STAR,
    STEP,
    TAGS,
    CheckpointItemModel,
    CheckpointSortModel,
    IsBestRole,
    IsDamagedRole,
    NameRole,
)
from app.views.table import Table
from app.views.table_delegate import TableDelegate

_AGES_INTERVAL_MS = 1000
_LEAST_FROZEN_WIDTH = 190
_STAR_SIZE = 16


class CheckpointsView(QWidget):
    """Lists the run's checkpoints; restores one, or resumes from it."""

    restore_requested = Signal(str)
    """The name of a checkpoint to put into the live run, or to load into a stopped one."""
    resume_requested = Signal(str)
    """The name of a checkpoint from which a stopped run is to go on."""

    verify_requested = Signal(str)
    """The name of a checkpoint from which an ended run is to be made again for some steps, and compared."""

    folder_wanted = Signal(object)
    """A folder (a Path) to be shown in the desktop's file manager."""

    def __init__(self, checkpoints: CheckpointItemModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._checkpoints = checkpoints
        self._checkpoints_dir: Path | None = None
        self._can_restore = self._can_resume = self._can_verify = False
        self._has_chosen = False
        self._table = _CheckpointTable(
            self.tr("A checkpoint is saved after every epoch, and whenever you press Save checkpoint.")
        )
        self._table.setModel(CheckpointSortModel(checkpoints, self))
        self._table.setItemDelegate(_CheckpointDelegate(self._table))
        self._table.setSelectionMode(Table.SelectionMode.SingleSelection)
        self._table.setAccessibleName(self.tr("Checkpoints"))
        self._table.setSortingEnabled(True)
        header = self._table.horizontalHeader()
        header.setSortIndicator(SAVED, Qt.SortOrder.DescendingOrder)
        header.setSectionResizeMode(STAR, QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(TAGS, QHeaderView.ResizeMode.Stretch)
        self._table.set_widths(
            {STAR: 32, EPOCH: 72, STEP: 80, LOSS: 88, ACCURACY: 96, FROZEN: _LEAST_FROZEN_WIDTH, SIZE: 88, SAVED: 120}
        )
        header.sectionResized.connect(self._table.note_width)
        self._table.doubleClicked.connect(lambda _: self._restore.click())
        self._table.selectionModel().selectionChanged.connect(self._enable_buttons)
        self._table.clicked.connect(self._note_choice)
        checkpoints.rowsInserted.connect(self._select_newest)
        checkpoints.rowsInserted.connect(self._give_room)
        checkpoints.dataChanged.connect(self._enable_buttons)
        checkpoints.modelReset.connect(self._forget_choice)
        # In a menu: the column of buttons is as high as a small window has room for.
        self._verify = QAction(self.tr("Verify resume"), self._table)
        self._verify.setToolTip(
            self.tr("Make the steps after this checkpoint again, in a copy, and compare them with the run's to the bit")
        )
        self._verify.triggered.connect(self._ask_verify)
        self._table.addAction(self._verify)
        self._table.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self._build()
        self._ages = QTimer(self)
        self._ages.setInterval(_AGES_INTERVAL_MS)
        self._ages.timeout.connect(checkpoints.refresh_ages)
        self._select_newest()

    def allow(self, *, restore: bool, resume: bool, verify: bool, checkpoints_dir: Path | None) -> None:
        """Say what the run's state allows, and where its checkpoints lie."""
        self._can_restore, self._can_resume, self._can_verify = restore, resume, verify
        self._checkpoints_dir = checkpoints_dir
        self._enable_buttons()

    @property
    def selected_name(self) -> str | None:
        """Return the name of the selected checkpoint, or None."""
        rows = self._table.selectionModel().selectedRows()
        return str(rows[0].data(NameRole)) if rows else None

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
        self._restore = self._button(self.tr("Restore"), self._ask_restore)
        self._restore.setProperty("kind", "primary")
        self._restore.setToolTip(
            self.tr("Put this checkpoint's weights, optimizer and freeze set into the run, at the next step")
        )
        self._resume = self._button(self.tr("Resume"), self._ask_resume)
        self._resume.setToolTip(self.tr("Go on with the stopped run from this checkpoint"))
        self._copy = self._button(self.tr("Copy path"), self._copy_path)
        self._show = self._button(self.tr("Show in folder"), self._show_in_folder)
        buttons = QVBoxLayout()
        buttons.setSpacing(theme.SPACE + 2)
        for button in (self._restore, self._resume, self._copy, self._show):
            buttons.addWidget(button)
        buttons.addStretch(1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.PANEL_PADDING)
        layout.addWidget(self._table, 1)
        layout.addLayout(buttons)

    def _button(self, text: str, slot: object) -> QPushButton:
        button = QPushButton(text)
        button.setMinimumWidth(112)
        button.clicked.connect(slot)
        return button

    def _enable_buttons(self) -> None:
        name = self.selected_name
        is_whole = name is not None and not self._checkpoints.problem_of(name)
        self._restore.setEnabled(is_whole and self._can_restore)
        self._resume.setEnabled(is_whole and self._can_resume)
        self._verify.setEnabled(is_whole and self._can_verify)
        self._copy.setEnabled(name is not None and self._checkpoints_dir is not None)
        self._show.setEnabled(self._checkpoints_dir is not None)

    def _note_choice(self) -> None:
        self._has_chosen = True

    def _forget_choice(self) -> None:
        self._has_chosen = False
        self._select_newest()
        self._give_room()

    def _give_room(self) -> None:
        summaries = {checkpoint.frozen_summary for checkpoint in self._checkpoints.checkpoints()}
        self._table.give_room(summaries, self._checkpoints.longest_tags())

    def _select_newest(self) -> None:
        # The newest is the likely one, until the user has chosen another.
        if self._checkpoints.rowCount() and not self._has_chosen and not self._table.hasFocus():
            self._table.selectRow(0)
        self._enable_buttons()

    # -- actions ----------------------------------------------------------------------------------------------

    def _ask_restore(self) -> None:
        if (name := self.selected_name) is not None:
            self.restore_requested.emit(name)

    def _ask_resume(self) -> None:
        if (name := self.selected_name) is not None:
            self.resume_requested.emit(name)

    def _ask_verify(self) -> None:
        if (name := self.selected_name) is not None:
            self.verify_requested.emit(name)

    def _copy_path(self) -> None:
        if (name := self.selected_name) is not None and self._checkpoints_dir is not None:
            QGuiApplication.clipboard().setText(str(self._checkpoints_dir / name))

    def _show_in_folder(self) -> None:
        if self._checkpoints_dir is not None:
            self.folder_wanted.emit(self._checkpoints_dir)


class _CheckpointTable(Table):
    """Gives what is frozen the room that it needs and the tags can spare, unless the user has chosen a width."""

    def __init__(self, empty_text: str, parent: QWidget | None = None) -> None:
        super().__init__(empty_text, parent)
        self._wanted_width = self._tags_width = 0
        self._is_fitting = self._is_width_chosen = False

    def give_room(self, frozen: Iterable[str], tags: str) -> None:
        """Make room for what is frozen in the checkpoints, and leave room for tags as long as these."""
        self._wanted_width = max((self._width_of(text) for text in frozen), default=0)
        self._tags_width = self._width_of(tags)
        self._fit()

    def note_width(self, column: int) -> None:
        """Leave a width that the user has chosen as it is."""
        if column == FROZEN and not self._is_fitting:
            self._is_width_chosen = True

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the room anew."""
        super().resizeEvent(event)
        self._fit()

    def _width_of(self, text: str) -> int:
        # Widths are rounded: with a pixel less than it takes, a text is shortened by a word.
        return self.fontMetrics().horizontalAdvance(text) + 4 * theme.SPACE + 2

    def _fit(self) -> None:
        if self._is_width_chosen:
            return
        others = sum(self.columnWidth(column) for column in range(TAGS) if column != FROZEN)
        spare = self.viewport().width() - others - self._tags_width
        self._is_fitting = True
        self.setColumnWidth(FROZEN, max(_LEAST_FROZEN_WIDTH, min(self._wanted_width, spare)))
        self._is_fitting = False


class _CheckpointDelegate(TableDelegate):
    """Draws the star of the best, measured numbers in full colour, what only describes dim, damage red."""

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        if index.data(IsDamagedRole):
            return colors.danger
        is_measured = index.column() in {EPOCH, STEP, LOSS, ACCURACY}
        return colors.text if is_measured or index.data(IsBestRole) else colors.dim

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().paint(painter, option, index)
        if index.column() == STAR and index.data(IsBestRole):
            place = QRect(0, 0, _STAR_SIZE, _STAR_SIZE)
            place.moveCenter(option.rect.center())
            color = self.color(index, theme.palette_of(self.table))
            theme.icon("star", color).paint(painter, place)
