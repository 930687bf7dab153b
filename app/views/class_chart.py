"""The classes as a bar chart: each bar is split in train, validation and test. Choosing a class filters the images."""

from __future__ import annotations

import heapq

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QHeaderView, QStyledItemDelegate, QStyleOptionViewItem, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.class_items import BAR, COUNT, NAME, ClassIdxRole, SharesRole
from app.viewmodels.data import DataViewModel
from app.viewmodels.quantities import count_text
from app.views.split_marks import SplitLegend, paint_split
from app.views.table import Table

_BAR_HEIGHT = 8
_LEAST_BAR_WIDTH = 2.0
_NAME_WIDTHS = (72, 116)


class ClassChart(QWidget):
    """One row a class: its name, its bar, its number of images. "All classes" comes first."""

    def __init__(self, data: DataViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._data = data
        self.table = Table("")
        self.table.setModel(data.classes)
        self.table.setItemDelegate(_ClassDelegate(self.table))
        self.table.setSelectionMode(Table.SelectionMode.SingleSelection)
        self.table.setAccessibleName(self.tr("Classes"))
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(BAR, QHeaderView.ResizeMode.Stretch)
        header.setSortIndicator(NAME, Qt.SortOrder.AscendingOrder)
        self.table.setSortingEnabled(True)
        self.legend = SplitLegend()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.legend)
        # The table empties its selection at the same signal, and this comes after it.
        data.classes.modelReset.connect(self._show_classes, Qt.ConnectionType.QueuedConnection)
        data.class_changed.connect(self._select_chosen)
        self.table.selectionModel().currentRowChanged.connect(self._choose)
        self._show_classes()

    def _show_classes(self) -> None:
        classes = self._data.classes
        if not classes.rowCount():
            return
        header = self.table.horizontalHeader()
        classes.sort(header.sortIndicatorSection(), header.sortIndicatorOrder())
        metrics = self.table.fontMetrics()
        # Of thousands of classes, measuring each name would take longer than a frame.
        names = [classes.index(0, NAME).data(), *heapq.nlargest(20, classes.names, key=len)]
        widest = max(metrics.horizontalAdvance(name) for name in names) + 5 * theme.SPACE
        self.table.setColumnWidth(NAME, min(max(widest, _NAME_WIDTHS[0]), _NAME_WIDTHS[1]))
        count_width = metrics.horizontalAdvance(count_text(classes.num_images(None))) + 5 * theme.SPACE
        # The heading, with room for the arrow beside it.
        self.table.setColumnWidth(COUNT, max(count_width, 80))
        self.legend.show_splits(classes.splits)
        self._select_chosen()

    def _select_chosen(self) -> None:
        self.table.selectRow(self._data.classes.row_of(self._data.class_idx))

    def _choose(self, current: QModelIndex) -> None:
        if current.isValid():
            self._data.choose_class(current.data(ClassIdxRole))


class _ClassDelegate(QStyledItemDelegate):
    """Draws the bars, and the counts dim."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().initStyleOption(option, index)
        colors = theme.palette_of(self._view())
        is_described = index.column() == COUNT and index.data(ClassIdxRole) is not None
        option.palette.setColor(option.palette.ColorRole.Text, QColor(colors.dim if is_described else colors.text))

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint one cell."""
        super().paint(painter, option, index)
        if index.column() != BAR:
            return
        colors = theme.palette_of(self._view())
        painter.save()
        left = float(option.rect.left() + theme.SPACE)
        room = option.rect.width() - 2 * theme.SPACE
        top = option.rect.center().y() + 1 - _BAR_HEIGHT / 2
        for split, share in index.data(SharesRole):
            # A class with one image among thousands still has a bar to be seen.
            width = max(share * room, _LEAST_BAR_WIDTH)
            paint_split(painter, QRectF(left, top, width, _BAR_HEIGHT), split, colors)
            left += width
        painter.restore()

    def _view(self) -> QWidget:
        view = self.parent()
        assert isinstance(view, QWidget)
        return view
