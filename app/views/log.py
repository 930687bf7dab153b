"""The log: what was asked for, when it took hold, and what came of it."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, Qt, QTimer
from PySide6.QtGui import QGuiApplication, QHideEvent, QKeySequence, QResizeEvent, QShortcut, QShowEvent
from PySide6.QtWidgets import QHeaderView, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.log import APPLIED, ASKED, RESULT, TIME, WHAT, LevelRole, LogItemModel
from app.views.table import Table
from app.views.table_delegate import TableDelegate

_TIME_WIDTH, _ASKED_WIDTH, _APPLIED_WIDTH = 84, 112, 120
_WHAT_SHARE = 0.3
"""Of the width beside the time and the steps; the result has the rest."""


class LogView(QWidget):
    """The rows of a LogItemModel, the newest in sight as long as the user has not scrolled up."""

    def __init__(self, log: LogItemModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._log = log
        self._table = Table(self.tr("What you and the plan do to the run is written down here, step by step."))
        self._table.setModel(log)
        self._table.setItemDelegate(_LevelDelegate(self._table))
        self._table.setAccessibleName(self.tr("Log"))
        self._table.set_widths({TIME: _TIME_WIDTH, ASKED: _ASKED_WIDTH, APPLIED: _APPLIED_WIDTH})
        self._table.horizontalHeader().setSectionResizeMode(RESULT, QHeaderView.ResizeMode.Stretch)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        log.rowsAboutToBeInserted.connect(self._note_place)
        log.rowsInserted.connect(self._follow)
        log.modelReset.connect(self._go_to_end)
        self._is_at_end = True
        copy = QShortcut(QKeySequence.StandardKey.Copy, self._table)
        copy.setContext(Qt.ShortcutContext.WidgetShortcut)
        copy.activated.connect(self._copy)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the width anew."""
        super().resizeEvent(event)
        room = self.width() - _TIME_WIDTH - _ASKED_WIDTH - _APPLIED_WIDTH
        self._table.setColumnWidth(WHAT, int(_WHAT_SHARE * room))

    def showEvent(self, event: QShowEvent) -> None:
        """Begin at the newest row, once the table knows its height."""
        super().showEvent(event)
        if self._is_at_end:
            QTimer.singleShot(0, self, self._table.scrollToBottom)

    def hideEvent(self, event: QHideEvent) -> None:
        """Remember whether the newest row was in sight."""
        self._is_at_end = self._is_newest_in_sight()
        super().hideEvent(event)

    def _go_to_end(self) -> None:
        self._is_at_end = True
        self._table.scrollToBottom()

    def _note_place(self) -> None:
        # A hidden table does not know its height, so nothing can be told from its scroll bar.
        if self.isVisible():
            self._is_at_end = self._is_newest_in_sight()

    def _is_newest_in_sight(self) -> bool:
        bar = self._table.verticalScrollBar()
        return bar.value() >= bar.maximum()

    def _follow(self) -> None:
        if self._is_at_end:
            self._table.scrollToBottom()

    def _copy(self) -> None:
        rows = sorted(index.row() for index in self._table.selectionModel().selectedRows())
        QGuiApplication.clipboard().setText(self._log.rows_text(rows))


class _LevelDelegate(TableDelegate):
    """Writes warnings warm and errors red; times and steps dim."""

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        plain = colors.text if index.column() == WHAT else colors.dim
        return {"error": colors.danger, "warning": colors.trainable}.get(index.data(LevelRole), plain)
