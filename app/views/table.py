"""Table: the look that the window's tables share."""

from __future__ import annotations

from PySide6.QtCore import QAbstractItemModel, QModelIndex, QPersistentModelIndex, QRect, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from app import theme

_HEADER_HEIGHT = 30


class Table(QTableView):
    """Whole rows, hairlines instead of a grid, columns that do not resize by themselves, a sentence while empty."""

    def __init__(self, empty_text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.empty_text = empty_text
        self.colors = theme.LIGHT
        """Those of the theme, at the present painting."""
        self._alignments: dict[int, int] = {}
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        rows = self.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(theme.ROW_HEIGHT)
        columns = self.horizontalHeader()
        columns.setHighlightSections(False)
        columns.setFixedHeight(_HEADER_HEIGHT)
        columns.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        columns.setMinimumSectionSize(28)

    def setModel(self, model: QAbstractItemModel | None) -> None:
        """Show an item model, and its heading only while it has rows."""
        super().setModel(model)
        if model is not None:
            for signal in (model.rowsInserted, model.rowsRemoved, model.modelReset):
                signal.connect(self._show_header)
        self._show_header()

    def set_widths(self, widths: dict[int, int]) -> None:
        """Set columns' widths in pixels."""
        for column, width in widths.items():
            self.setColumnWidth(column, width)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the rows, or the sentence that says what fills the table."""
        # Once for all cells: each of these questions takes as long as the text of one.
        self.colors, self._alignments = theme.palette_of(self), {}
        super().paintEvent(event)
        if self._num_rows():
            return
        painter = QPainter(self.viewport())
        painter.setFont(theme.text_font(theme.SIZE_TEXT))
        painter.setPen(QColor(self.colors.dim))
        room: QRect = self.viewport().rect().adjusted(24, 0, -24, 0)
        painter.drawText(room, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), self.empty_text)
        painter.end()

    def alignment(self, index: QModelIndex | QPersistentModelIndex) -> int:
        """Return how the cells of an index's column are aligned."""
        column = index.column()
        if column not in self._alignments:
            self._alignments[column] = int(index.data(Qt.ItemDataRole.TextAlignmentRole))
        return self._alignments[column]

    def _num_rows(self) -> int:
        model = self.model()
        return model.rowCount() if model is not None else 0

    def _show_header(self) -> None:
        has_rows = bool(self._num_rows())
        self.horizontalHeader().setVisible(has_rows)
        # The columns stay as wide as they were: nothing of the sentence is to be scrolled into view.
        needed, never = Qt.ScrollBarPolicy.ScrollBarAsNeeded, Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        self.setHorizontalScrollBarPolicy(needed if has_rows else never)
        self.viewport().update()
