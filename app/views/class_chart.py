"""The classes, the sizes and the shapes of the images as bar charts. Choosing a bar filters the images."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, Qt
from PySide6.QtGui import QColor, QHideEvent, QPainter, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QStackedWidget,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.bar_items import BAR, COUNT, NAME, BarIdxRole, BarItemModel, SharesRole
from app.viewmodels.data import DataViewModel
from app.viewmodels.quantities import count_text
from app.views.split_marks import SplitLegend, paint_split
from app.views.table import Table
from app.views.table_delegate import TableDelegate
from trainer.data_report import Measure

_BAR_HEIGHT, _ALL_HEIGHT = 8, 3
_LEAST_BAR_WIDTH = 2.0
_LEAST_NAME_WIDTH = 72
_NAME_SHARE = 0.48
"""Of the chart's width: a long name is cut in its middle before its bar is."""
_LEAST_COUNT_WIDTH, _ARROW_WIDTH = 62, 16
"""Of the heading, and of the arrow beside it."""
_HEADINGS_HEIGHT = 30
_LEAST_HEIGHT_FOR_HEADINGS = 200


class ClassChart(QWidget):
    """Three charts in one place, with a switch above: classes, sizes, shapes."""

    def __init__(self, data: DataViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._data = data
        self.table = _BarTable(data.classes, self.tr("Classes"), lambda: data.class_idx, data.choose_class)
        self.table.set_sortable()
        self.bins = {
            Measure.SIZE: self._bin_table(Measure.SIZE, self.tr("Sizes")),
            Measure.SHAPE: self._bin_table(Measure.SHAPE, self.tr("Shapes")),
        }
        self._pages = QStackedWidget()
        self._switch = QButtonGroup(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addLayout(self._make_switch())
        layout.addWidget(self._pages, 1)
        self.legend = SplitLegend()
        layout.addWidget(self.legend)
        data.classes.modelReset.connect(self._show_splits, Qt.ConnectionType.QueuedConnection)
        data.choice_changed.connect(self._select_chosen)
        self._show_splits()

    def button(self, page: int) -> QPushButton:
        """Return the button that shows a page: 0 the classes, 1 the sizes, 2 the shapes."""
        button = self._switch.button(page)
        assert isinstance(button, QPushButton)
        return button

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show the columns' headings where there is room; the bars come first."""
        super().resizeEvent(event)
        has_room = self.height() >= _LEAST_HEIGHT_FOR_HEADINGS
        for table in self._tables:
            table.horizontalHeader().setFixedHeight(_HEADINGS_HEIGHT if has_room else 0)

    def showEvent(self, event: QShowEvent) -> None:
        """Count the images, if the counts are in sight."""
        super().showEvent(event)
        self._want_bins()

    def hideEvent(self, event: QHideEvent) -> None:
        """Count nothing that nobody sees."""
        super().hideEvent(event)
        self._want_bins()

    # -- inside -----------------------------------------------------------------------------------------------

    @property
    def _tables(self) -> tuple[_BarTable, ...]:
        return (self.table, *self.bins.values())

    def _bin_table(self, measure: Measure, name: str) -> _BarTable:
        model, data = self._data.bins[measure], self._data

        def chosen() -> int | None:
            return model.bins.index(data.bin) if data.bin in model.bins else None

        def choose(bar_idx: int | None) -> None:
            data.choose_bin(None if bar_idx is None else model.bins[bar_idx])

        return _BarTable(model, name, chosen, choose)

    def _make_switch(self) -> QHBoxLayout:
        line = QHBoxLayout()
        line.setSpacing(theme.SPACE)
        for page, table in enumerate(self._tables):
            self._pages.addWidget(table)
            button = QPushButton(table.accessibleName())
            button.setProperty("kind", "flat")
            button.setCheckable(True)
            self._switch.addButton(button, page)
            line.addWidget(button)
        self.button(0).setToolTip(self.tr("Images of each class"))
        self.button(1).setToolTip(self.tr("Images by the length of their short side"))
        self.button(2).setToolTip(self.tr("Images by width to height"))
        line.addStretch(1)
        self.button(0).setChecked(True)
        self._switch.idToggled.connect(self._show_page)
        return line

    def _show_page(self, page: int, is_shown: bool) -> None:
        if is_shown:
            self._pages.setCurrentIndex(page)
            # What was chosen on a page that is out of sight would be looked for in vain.
            self._data.choose_bin(None)
            self._want_bins()

    def _want_bins(self) -> None:
        self._data.want_bins(are_wanted=self.isVisible() and self._pages.currentIndex() > 0)

    def _show_splits(self) -> None:
        self.legend.show_splits(self._data.classes.splits)

    def _select_chosen(self) -> None:
        for table in self._tables:
            table.select_chosen()


class _BarTable(Table):
    """One row a bar: its name, the bar, its number of images. The row of all images comes first."""

    def __init__(
        self,
        model: BarItemModel,
        name: str,
        chosen: Callable[[], int | None],
        choose: Callable[[int | None], None],
    ) -> None:
        super().__init__("")
        self._bars = model
        self._chosen, self._choose = chosen, choose
        self._is_selecting = False
        self.setModel(model)
        self.setItemDelegate(_BarDelegate(self))
        self.setSelectionMode(Table.SelectionMode.SingleSelection)
        self.setAccessibleName(name)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(BAR, QHeaderView.ResizeMode.Stretch)
        # The table empties its selection at the same signal, and this comes after it.
        model.modelReset.connect(self._show_bars, Qt.ConnectionType.QueuedConnection)
        self.selectionModel().currentRowChanged.connect(self._choose_row)
        self._show_bars()

    def set_sortable(self) -> None:
        """Let a click on a heading sort the rows."""
        self.horizontalHeader().setSortIndicator(NAME, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)

    def select_chosen(self) -> None:
        """Select the bar whose images are shown."""
        if self._bars.rowCount():
            self._is_selecting = True
            self.selectRow(self._bars.row_of(self._chosen()))
            self._is_selecting = False

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the width anew."""
        super().resizeEvent(event)
        self._fit_columns()

    def _show_bars(self) -> None:
        if not self._bars.rowCount():
            return
        if self.isSortingEnabled():
            header = self.horizontalHeader()
            self._bars.sort(header.sortIndicatorSection(), header.sortIndicatorOrder())
        self._fit_columns()
        self.select_chosen()

    def _fit_columns(self) -> None:
        if not self._bars.rowCount():
            return
        metrics = self.fontMetrics()
        # Of thousands of names, measuring each would take longer than a frame.
        names = [self._bars.all_text(), self._bars.headings()[NAME], *heapq.nlargest(20, self._bars.names, key=len)]
        widest = max(metrics.horizontalAdvance(name) for name in names) + 5 * theme.SPACE
        most = max(_LEAST_NAME_WIDTH, int(self.viewport().width() * _NAME_SHARE))
        self.setColumnWidth(NAME, min(max(widest, _LEAST_NAME_WIDTH), most))
        count_width = metrics.horizontalAdvance(count_text(self._bars.num_images(None))) + 5 * theme.SPACE
        least = _LEAST_COUNT_WIDTH + (_ARROW_WIDTH if self.isSortingEnabled() else 0)
        self.setColumnWidth(COUNT, max(count_width, least))

    def _choose_row(self, current: QModelIndex) -> None:
        if current.isValid() and not self._is_selecting:
            self._choose(current.data(BarIdxRole))


class _BarDelegate(TableDelegate):
    """Draws the bars, and the counts dim."""

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        is_described = index.column() == COUNT and index.data(BarIdxRole) is not None
        return colors.dim if is_described else colors.text

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint one cell."""
        super().paint(painter, option, index)
        colors, is_all = self.table.colors, index.data(BarIdxRole) is None
        if is_all:
            painter.fillRect(option.rect.adjusted(0, option.rect.height() - 1, 0, 0), QColor(colors.line))
        if index.column() != BAR:
            return
        painter.save()
        left = float(option.rect.left() + theme.SPACE)
        room = option.rect.width() - 2 * theme.SPACE
        # How the splits share all images is another scale: as high a bar would pass for one of the largest class.
        height = _ALL_HEIGHT if is_all else _BAR_HEIGHT
        top = option.rect.center().y() + 1 - height / 2
        for split, share in index.data(SharesRole):
            # A bar of one image among thousands still is to be seen.
            width = max(share * room, _LEAST_BAR_WIDTH)
            paint_split(painter, QRectF(left, top, width, height), split, colors)
            left += width
        painter.restore()
