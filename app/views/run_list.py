"""The list of runs: open one, live or ended."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QSortFilterProxyModel, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QHideEvent, QKeySequence, QPainter, QPen, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.run_list import (
    ACCURACY,
    EPOCH,
    FOLDER,
    MODEL,
    RUN,
    STARTED,
    STATE,
    PathRole,
    RailsRole,
    RunListItemModel,
    SortRole,
    ToneRole,
)
from app.views.table import Table
from app.views.table_delegate import TableDelegate

# A run changes its state several times at once when it begins or ends; the last of them is in its folder by then.
_REFRESH_DELAY_MS = 300
# While someone looks: a run in a shell says nothing to this window. A look reads a database for each run.
_LOOK_INTERVAL_MS = 5000
_RAIL_WIDTH = 16


class RunListView(QWidget):
    """Lists the runs of a folder, newest first, each above its branches while they are in that order."""

    open_requested = Signal(object)
    """The folder (a Path) of a run to open."""
    refresh_requested = Signal()
    """The folder is to be read again."""
    folder_wanted = Signal(object)
    """A folder (a Path) to be shown in the desktop's file manager."""

    def __init__(self, runs: RunListItemModel, runs_dir: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._runs_dir = runs_dir
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(runs)
        self._sorted.setSortRole(SortRole)
        self._table = Table(self.tr("Every run is listed here. Choose data and press Start for the first one."))
        self._table.setModel(self._sorted)
        self._table.setItemDelegate(_ToneDelegate(self._table))
        self._table.setSelectionMode(Table.SelectionMode.SingleSelection)
        self._table.setAccessibleName(self.tr("Runs"))
        self._table.setSortingEnabled(True)
        self._table.sortByColumn(STARTED, Qt.SortOrder.DescendingOrder)
        self._table.set_widths({RUN: 160, MODEL: 190, STATE: 110, EPOCH: 88, ACCURACY: 118, STARTED: 150})
        self._table.horizontalHeader().setSectionResizeMode(FOLDER, QHeaderView.ResizeMode.Stretch)
        self._table.doubleClicked.connect(lambda _: self._ask_open())
        self._table.selectionModel().selectionChanged.connect(self._enable_buttons)
        runs.modelAboutToBeReset.connect(self._note_choice)
        # The table forgets its selection at the same signal, so the choice comes back after it.
        runs.modelReset.connect(self._choose_again, Qt.ConnectionType.QueuedConnection)
        self._chosen: Path | None = None
        self._refresh_timer = QTimer(self)
        self._refresh_timer.setSingleShot(True)
        self._refresh_timer.setInterval(_REFRESH_DELAY_MS)
        self._refresh_timer.timeout.connect(self.refresh_requested)
        self._look_timer = QTimer(self)
        self._look_timer.setInterval(_LOOK_INTERVAL_MS)
        self._look_timer.timeout.connect(self.refresh_requested)
        enter = QShortcut(QKeySequence(Qt.Key.Key_Return), self._table)
        enter.setContext(Qt.ShortcutContext.WidgetShortcut)
        enter.activated.connect(self._ask_open)
        self._build()
        self._enable_buttons()

    @property
    def selected_path(self) -> Path | None:
        """Return the folder of the selected run, or None."""
        rows = self._table.selectionModel().selectedRows()
        return Path(str(rows[0].data(PathRole))) if rows else None

    def refresh_soon(self) -> None:
        """Read the folder again in a moment, if anyone can see the list: something has happened to a run."""
        if self.isVisible():
            self._refresh_timer.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Read the folder again whenever the list comes into sight, and as long as it is."""
        self.refresh_requested.emit()
        self._look_timer.start()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        """Leave the folder alone."""
        self._look_timer.stop()
        super().hideEvent(event)

    def _build(self) -> None:
        self._open = self._button(self.tr("Open"), self._ask_open)
        self._open.setProperty("kind", "primary")
        refresh = self._button(self.tr("Refresh"), self.refresh_requested.emit)
        show = self._button(self.tr("Show in folder"), self._show_in_folder)
        buttons = QVBoxLayout()
        buttons.setSpacing(theme.SPACE + 2)
        for button in (self._open, refresh, show):
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
        self._open.setEnabled(self.selected_path is not None)

    def _note_choice(self) -> None:
        self._chosen = self.selected_path or self._chosen

    def _choose_again(self) -> None:
        chosen, self._chosen = self._chosen, None
        for row in range(self._sorted.rowCount()):
            if chosen is not None and self._sorted.index(row, RUN).data(PathRole) == str(chosen):
                self._table.selectRow(row)
        self._enable_buttons()

    def _ask_open(self) -> None:
        if (path := self.selected_path) is not None:
            self.open_requested.emit(path)

    def _show_in_folder(self) -> None:
        self.folder_wanted.emit(self.selected_path or self._runs_dir)


class _ToneDelegate(TableDelegate):
    """Writes a live run's state in the accent colour, a damaged or interrupted one's red, what only describes dim."""

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        if index.column() == STATE:
            return {"live": colors.accent, "danger": colors.danger}.get(index.data(ToneRole), colors.dim)
        return colors.dim if index.column() in {MODEL, STARTED, FOLDER} else colors.text

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint one cell; of a branch, its name to the right of the lines of its tree."""
        rails = index.data(RailsRole) if index.column() == RUN and self._shows_trees() else ()
        if not rails:
            super().paint(painter, option, index)
            return
        place = QStyleOptionViewItem(option)
        self.paint_background(painter, option)
        painter.setPen(QPen(QColor(self.table.colors.dim), 1))
        top, middle, bottom = option.rect.top(), option.rect.center().y(), option.rect.bottom()
        for level, goes_on in enumerate(rails):
            x = option.rect.left() + theme.SPACE * 3 + level * _RAIL_WIDTH
            is_own = level == len(rails) - 1
            if is_own:
                painter.drawLine(x, middle, x + _RAIL_WIDTH // 2, middle)
            if goes_on or is_own:
                painter.drawLine(x, top, x, bottom if goes_on else middle)
        place.rect = option.rect.adjusted(len(rails) * _RAIL_WIDTH, 0, 0, 0)
        super().paint(painter, place, index)

    def _shows_trees(self) -> bool:
        header = self.table.horizontalHeader()
        is_newest_first = header.sortIndicatorOrder() is Qt.SortOrder.DescendingOrder
        return header.sortIndicatorSection() == STARTED and is_newest_first
