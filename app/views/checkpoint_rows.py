"""The rows of the checkpoint table: which columns have room, and how their cells are painted."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from PySide6.QtCore import (
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QCursor, QPainter, QResizeEvent
from PySide6.QtWidgets import QHeaderView, QMenu, QStyleOptionViewItem, QToolButton, QWidget

from app import theme
from app.viewmodels.checkpoint_columns import (
    ACCURACY,
    EPOCH,
    FROZEN,
    LOSS,
    NUM_COLUMNS,
    PARENT,
    RATE,
    RUN,
    SAVED,
    SIZE,
    STAR,
    STEP,
    TAGS,
)
from app.viewmodels.checkpoint_order import CheckpointSortModel
from app.viewmodels.checkpoint_run import CheckpointKey
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.quantities import count_text
from app.views.table import Table
from app.views.table_delegate import TableDelegate

_LEAST_FROZEN_WIDTH = 190
_METRIC_WIDTH = 88
_WIDTHS = {
    STAR: 32, EPOCH: 72, STEP: 80, LOSS: 88, ACCURACY: 96, FROZEN: _LEAST_FROZEN_WIDTH, SIZE: 88, SAVED: 120, RATE: 96,
    RUN: 210, PARENT: 140
}  # fmt: skip
_STAR_SIZE = 16
_GROUPED = "grouped"
"""Kept with the columns: it is chosen in the same menu."""
_MEASURED = frozenset({EPOCH, STEP, LOSS, ACCURACY})


class TablePlace(NamedTuple):
    """Where a table is scrolled to, in pixels, and whether its current row is in sight there."""

    offset: int
    is_current_seen: bool


class CheckpointTable(Table):
    """Shows the columns that were chosen, and of the others those for which there is room.

    What is frozen gets the room that it needs and the tags can spare, unless the user has chosen a width.
    Where it can scroll, rows that a run adds do not move those under the pointer: a click must not meet another one.
    """

    left = Signal()
    """The pointer has left the table."""

    def __init__(self, checkpoints: CheckpointItemModel, empty_text: str, parent: QWidget | None = None) -> None:
        super().__init__(empty_text, parent)
        self.checkpoints = checkpoints
        self.sorted = CheckpointSortModel(checkpoints, self)
        self._text_widths: dict[str, int] = {}
        self._is_fitting = self._is_width_chosen = False
        self._held_offset: int | None = None
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
        for place, column in ((1, RUN), (2, PARENT)):
            header.moveSection(header.visualIndex(column), place)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(
            lambda position: self.make_column_menu(self).popup(header.mapToGlobal(position))
        )
        self.columns_button = self._make_columns_button(header)
        header.sectionResized.connect(self._note_width)
        self._place_metrics()
        for signal in (self.sorted.columnsInserted, self.sorted.modelReset):
            signal.connect(self._place_metrics)
        for signal in (self.sorted.rowsInserted, checkpoints.columns_chosen):
            signal.connect(self._fit)
        self.sorted.rowsInserted.connect(self._hold_pointed)
        checkpoints.columns_chosen.connect(self._group)
        self._group()

    @property
    def selected_keys(self) -> list[CheckpointKey]:
        """Return the selected checkpoints."""
        return [self.sorted.key_at(index.row()) for index in self.selectionModel().selectedRows()]

    def select_keys(self, keys: list[CheckpointKey]) -> None:
        """Select those of these checkpoints that are shown, and no others; the first is the current one."""
        rows = self.sorted.rows_of(keys)
        selection, flags = self.selectionModel(), QItemSelectionModel.SelectionFlag
        chosen = QItemSelection()
        for row in rows:
            chosen.select(self.sorted.index(row, 0), self.sorted.index(row, 0))
        # At once: each change of what is selected takes as long as that of all.
        selection.select(chosen, flags.ClearAndSelect | flags.Rows)
        if rows:
            selection.setCurrentIndex(self.sorted.index(rows[0], 0), flags.NoUpdate)

    @property
    def place(self) -> TablePlace:
        """Return where it is scrolled to."""
        is_seen = self.viewport().rect().intersects(self.visualRect(self.currentIndex()))
        return TablePlace(self.verticalScrollBar().value(), is_seen)

    def go_back_to(self, place: TablePlace) -> None:
        """Scroll to where it was, though there may be other rows now; what was in sight of the current row stays so."""
        self.executeDelayedItemsLayout()
        self.verticalScrollBar().setValue(place.offset)
        if place.is_current_seen:
            self.scrollTo(self.currentIndex())

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
        if self.checkpoints.has_others:
            group = menu.addAction(self.tr("Group by run"))
            group.setCheckable(True)
            group.setChecked(self.checkpoints.columns.get(_GROUPED, False))
            group.toggled.connect(partial(self.checkpoints.choose_column, _GROUPED))
        menu.addAction(self.tr("By the room there is"), self.checkpoints.forget_columns)
        return menu

    def leaveEvent(self, event: QEvent) -> None:
        """Show the rows that came first meanwhile, unless the user has scrolled, or has the current one in sight."""
        super().leaveEvent(event)
        place = self.place
        if place.offset == self._held_offset and not place.is_current_seen:
            self.scrollToTop()
        self._held_offset = None
        self.left.emit()

    def updateGeometries(self) -> None:
        """Keep the button for hidden columns at the right end of the header."""
        super().updateGeometries()
        if hasattr(self, "columns_button"):
            self._place_columns_button()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the room anew."""
        super().resizeEvent(event)
        self._fit()

    # -- inside -----------------------------------------------------------------------------------------------

    def _hold_pointed(self, _: QModelIndex, first: int, last: int) -> None:
        if not self.viewport().underMouse():
            return
        num_new = last - first + 1
        pointed = self.rowAt(self.viewport().mapFromGlobal(QCursor.pos()).y())
        if first <= pointed < self.sorted.rowCount() - num_new:
            bar = self.verticalScrollBar()
            was_first = bar.value() in {0, self._held_offset}
            self.executeDelayedItemsLayout()
            bar.setValue(bar.value() + num_new * self.rowHeight(first))
            self._held_offset = bar.value() if was_first else None

    def _make_columns_button(self, header: QHeaderView) -> QToolButton:
        button = QToolButton(header)
        button.setProperty("kind", "columns")
        button.clicked.connect(
            lambda: self.make_column_menu(self).popup(button.mapToGlobal(button.rect().bottomLeft()))
        )
        return button

    def _show_hidden(self) -> None:
        """Say how many columns there are beside those that are shown, and which."""
        columns = [column for column in range(self.sorted.columnCount()) if self.isColumnHidden(column)]
        hidden = [self.checkpoints.headings()[column] for column in columns if self.checkpoints.has_values(column)]
        self.columns_button.setVisible(bool(hidden))
        self.columns_button.setText(f"+{count_text(len(hidden))}")
        tip = self.tr("Not shown: {}. Choose the columns.").format(", ".join(hidden))
        self.columns_button.setToolTip(tip)
        self.columns_button.setAccessibleName(tip)
        self._place_columns_button()

    def _place_columns_button(self) -> None:
        header, width = self.horizontalHeader(), self.columns_button.sizeHint().width()
        self.columns_button.setGeometry(header.width() - width, 0, width, header.height())

    def _place_metrics(self) -> None:
        header = self.horizontalHeader()
        for column in range(NUM_COLUMNS, self.sorted.columnCount()):
            if header.visualIndex(column) > header.visualIndex(RATE):
                self.setColumnWidth(column, _METRIC_WIDTH)
                header.moveSection(header.visualIndex(column), header.visualIndex(RATE))
        self._fit()

    def _group(self) -> None:
        self.sorted.group_by_run(self.checkpoints.columns.get(_GROUPED, False))
        self.scrollTo(self.currentIndex())

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
        extra = [PARENT, *range(NUM_COLUMNS, self.sorted.columnCount()), RATE]
        chosen = self.checkpoints.columns
        for column in (RUN, EPOCH, LOSS, ACCURACY, FROZEN, STEP, SIZE, SAVED, *extra):
            width = least_width if column == FROZEN else self._shown_width(column)
            has_room = column not in {STEP, SIZE, SAVED, *extra} or width <= room
            is_shown = self.checkpoints.has_values(column) and chosen.get(self.checkpoints.key(column), has_room)
            if self.isColumnHidden(column) is is_shown:
                self.setColumnHidden(column, not is_shown)
            room -= width if is_shown else 0
        if not self._is_width_chosen:
            wanted = max(map(self._width_of, self.checkpoints.frozen_summaries), default=0)
            self.setColumnWidth(FROZEN, max(_LEAST_FROZEN_WIDTH, min(wanted, room + _LEAST_FROZEN_WIDTH)))
        self._is_fitting = False
        self._show_hidden()

    def _shown_width(self, column: int) -> int:
        # Of a hidden column the header says 0.
        return self.columnWidth(column) or _WIDTHS.get(column, _METRIC_WIDTH)


class CheckpointDelegate(TableDelegate):
    """Draws the best one's star, measured numbers in full colour, what describes or is left behind dim, damage red."""

    table: CheckpointTable

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        """Return the colour of a cell's text."""
        standing = self.table.sorted.standing(index.row())
        if standing.is_damaged:
            return colors.danger
        if standing.is_left_behind:
            return colors.dim
        is_measured = index.column() in _MEASURED or index.column() >= NUM_COLUMNS
        return colors.text if is_measured or standing.is_best else colors.dim

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint one cell."""
        super().paint(painter, option, index)
        if self.table.sorted.begins_group(index.row()):
            painter.setPen(QColor(self.table.colors.dim))
            painter.drawLine(option.rect.topLeft(), option.rect.topRight())
        if index.column() == STAR and self.table.sorted.standing(index.row()).is_best:
            place = QRect(0, 0, _STAR_SIZE, _STAR_SIZE)
            place.moveCenter(option.rect.center())
            color = self.color(index, self.table.colors)
            theme.icon("star", color).paint(painter, place)
