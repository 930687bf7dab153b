"""The rows of the checkpoint table: which columns have room, and how their cells are painted."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QItemSelectionModel, QModelIndex, QPersistentModelIndex, QRect, Qt
from PySide6.QtGui import QPainter, QResizeEvent
from PySide6.QtWidgets import QHeaderView, QMenu, QStyleOptionViewItem, QWidget

from app import theme
from app.viewmodels.checkpoint_order import CheckpointSortModel
from app.viewmodels.checkpoint_table import (
    ACCURACY,
    EPOCH,
    FROZEN,
    LOSS,
    NUM_COLUMNS,
    RATE,
    SAVED,
    SIZE,
    STAR,
    STEP,
    TAGS,
    CheckpointItemModel,
    IsBestRole,
    IsDamagedRole,
    NameRole,
)
from app.views.table import Table
from app.views.table_delegate import TableDelegate

_LEAST_FROZEN_WIDTH = 190
_METRIC_WIDTH = 88
_WIDTHS = {
    STAR: 32, EPOCH: 72, STEP: 80, LOSS: 88, ACCURACY: 96, FROZEN: _LEAST_FROZEN_WIDTH, SIZE: 88, SAVED: 120, RATE: 96
}  # fmt: skip
_STAR_SIZE = 16


class CheckpointTable(Table):
    """Shows the columns that were chosen, and of the others those for which there is room.

    What is frozen gets the room that it needs and the tags can spare, unless the user has chosen a width.
    """

    def __init__(self, checkpoints: CheckpointItemModel, empty_text: str, parent: QWidget | None = None) -> None:
        super().__init__(empty_text, parent)
        self.checkpoints = checkpoints
        self.sorted = CheckpointSortModel(checkpoints, self)
        self._text_widths: dict[str, int] = {}
        self._is_fitting = self._is_width_chosen = False
        self.setModel(self.sorted)
        self.setItemDelegate(CheckpointDelegate(self))
        self.setSelectionMode(Table.SelectionMode.ExtendedSelection)
        header = self.horizontalHeader()
        header.setSortIndicator(SAVED, Qt.SortOrder.DescendingOrder)
        self.setSortingEnabled(True)
        header.setSectionResizeMode(STAR, QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(TAGS, QHeaderView.ResizeMode.Stretch)
        self.set_widths(_WIDTHS)
        header.moveSection(header.visualIndex(RATE), header.visualIndex(FROZEN))
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(
            lambda position: self.make_column_menu(self).popup(header.mapToGlobal(position))
        )
        header.sectionResized.connect(self._note_width)
        self._place_metrics()
        for signal in (self.sorted.columnsInserted, self.sorted.modelReset):
            signal.connect(self._place_metrics)
        for signal in (self.sorted.rowsInserted, checkpoints.columns_chosen):
            signal.connect(self._fit)

    @property
    def selected_names(self) -> list[str]:
        """Return the names of the selected checkpoints."""
        return [str(index.data(NameRole)) for index in self.selectionModel().selectedRows()]

    def select_names(self, names: list[str]) -> None:
        """Select the checkpoints of these names that are shown, and no others; the first is the present one."""
        rows = [row for name in names if (row := self.sorted.row_of(name)) is not None]
        selection, flags = self.selectionModel(), QItemSelectionModel.SelectionFlag
        selection.clearSelection()
        for row in rows:
            selection.select(self.sorted.index(row, 0), flags.Select | flags.Rows)
        if rows:
            selection.setCurrentIndex(self.sorted.index(rows[0], 0), flags.NoUpdate)

    def make_column_menu(self, parent: QWidget) -> QMenu:
        """Make the menu that chooses the columns."""
        menu = QMenu(self.tr("Columns"), parent)
        headings, header = self.checkpoints.headings(), self.horizontalHeader()
        for column in sorted(range(len(headings)), key=header.visualIndex):
            if column in {STAR, TAGS} or not self.checkpoints.has_values(column):
                continue
            action = menu.addAction(headings[column])
            action.setCheckable(True)
            action.setChecked(not self.isColumnHidden(column))
            action.toggled.connect(partial(self.checkpoints.choose_column, self.checkpoints.key(column)))
        menu.addSeparator()
        menu.addAction(self.tr("By the room there is"), self.checkpoints.forget_columns)
        return menu

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the room anew."""
        super().resizeEvent(event)
        self._fit()

    # -- inside -----------------------------------------------------------------------------------------------

    def _place_metrics(self) -> None:
        header = self.horizontalHeader()
        for column in range(NUM_COLUMNS, self.sorted.columnCount()):
            if header.visualIndex(column) > header.visualIndex(RATE):
                self.setColumnWidth(column, _METRIC_WIDTH)
                header.moveSection(header.visualIndex(column), header.visualIndex(RATE))
        self._fit()

    def _note_width(self, column: int) -> None:
        # A width that the user has chosen stays as it is.
        if column == FROZEN and not self._is_fitting:
            self._is_width_chosen = True

    def _width_of(self, text: str) -> int:
        if text not in self._text_widths:
            # Widths are rounded: with a pixel less than it takes, a text is shortened by a word.
            self._text_widths[text] = self.fontMetrics().horizontalAdvance(text) + 4 * theme.SPACE + 2
        return self._text_widths[text]

    def _fit(self) -> None:
        self._is_fitting = True
        tags_width = self._width_of(self.checkpoints.longest_tags())
        least_width = self.columnWidth(FROZEN) if self._is_width_chosen else _LEAST_FROZEN_WIDTH
        room = self.viewport().width() - tags_width - self.columnWidth(STAR)
        # The columns of every run come before those for which there may be no room.
        extra = [*range(NUM_COLUMNS, self.sorted.columnCount()), RATE]
        chosen = self.checkpoints.columns
        for column in (EPOCH, STEP, LOSS, ACCURACY, FROZEN, SIZE, SAVED, *extra):
            width = least_width if column == FROZEN else self._shown_width(column)
            has_room = column not in extra or width <= room
            is_shown = self.checkpoints.has_values(column) and chosen.get(self.checkpoints.key(column), has_room)
            if self.isColumnHidden(column) is is_shown:
                self.setColumnHidden(column, not is_shown)
            room -= width if is_shown else 0
        if not self._is_width_chosen:
            wanted = max(map(self._width_of, self.checkpoints.frozen_summaries), default=0)
            self.setColumnWidth(FROZEN, max(_LEAST_FROZEN_WIDTH, min(wanted, room + _LEAST_FROZEN_WIDTH)))
        self._is_fitting = False

    def _shown_width(self, column: int) -> int:
        # Of a hidden column the header says 0.
        return self.columnWidth(column) or _WIDTHS.get(column, _METRIC_WIDTH)


class CheckpointDelegate(TableDelegate):
    """Draws the star of the best, measured numbers in full colour, what only describes dim, damage red."""

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        """Return the colour of a cell's text."""
        if index.data(IsDamagedRole):
            return colors.danger
        is_measured = index.column() in {EPOCH, STEP, LOSS, ACCURACY} or index.column() >= NUM_COLUMNS
        return colors.text if is_measured or index.data(IsBestRole) else colors.dim

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint one cell."""
        super().paint(painter, option, index)
        if index.column() == STAR and index.data(IsBestRole):
            place = QRect(0, 0, _STAR_SIZE, _STAR_SIZE)
            place.moveCenter(option.rect.center())
            color = self.color(index, theme.palette_of(self.table))
            theme.icon("star", color).paint(painter, place)
