"""The tables and the tree of a comparison: how their cells are painted, and how their rows are copied."""

from __future__ import annotations

from PySide6.QtCore import (
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QRectF,
    Qt,
)
from PySide6.QtGui import QColor, QFontMetrics, QGuiApplication, QKeySequence, QPainter, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyleOptionViewItem,
    QTreeView,
    QWidget,
)

from app import theme
from app.viewmodels import compared_layers as columns
from app.viewmodels.compared_layers import ComparedCell, ComparedLayerItemModel
from app.viewmodels.comparison_items import ComparedMetricItemModel, IsBetterRole, SettingItemModel
from app.viewmodels.frozen_layers import LayerState
from app.views.layer_delegate import LayerDelegate
from app.views.table import Table
from app.views.table_delegate import TableDelegate

_PADDING = 6
_BAR_WIDTH = 72
_WIDTHS = {columns.STATE: 34, columns.MOVED: 150, columns.COSINE: 72, columns.WEIGHTS: 88}
_NAME_WIDTH, _VALUE_WIDTH, _DIFFERENCE_WIDTH = 104, 78, 124
_SETTING_WIDTH = 132
_HEADING_PADDING, _LEAST_VALUE, _WIDEST_VALUE = 40, 78, 220


def metric_table(metrics: ComparedMetricItemModel) -> Table:
    """Make the table of metrics."""
    table = _table(metrics)
    table.setItemDelegate(_MetricDelegate(table))

    def fit() -> None:
        for column, heading in enumerate(metrics.headings()):
            table.setColumnWidth(column, _heading_width(heading))
        for column in metrics.difference_columns:
            wanted = table.sizeHintForColumn(column) + 4 * theme.SPACE
            table.setColumnWidth(column, min(max(_DIFFERENCE_WIDTH, wanted), _WIDEST_VALUE))
        table.setColumnWidth(0, _NAME_WIDTH)

    metrics.modelReset.connect(fit)
    return table


def setting_table(settings: SettingItemModel, empty_text: str) -> Table:
    """Make the table of settings; the sentence stands where none differs."""
    table = _table(settings, empty_text)
    table.setItemDelegate(TableDelegate(table))

    def fit() -> None:
        wanted = table.sizeHintForColumn(0) + 4 * theme.SPACE
        table.set_widths({0: min(max(_SETTING_WIDTH, wanted), _WIDEST_VALUE)})
        for column, heading in enumerate(settings.headings()[1:], start=1):
            wanted = table.sizeHintForColumn(column) + 4 * theme.SPACE
            table.setColumnWidth(column, min(max(_heading_width(heading), wanted), _WIDEST_VALUE))
        # Whatever room is left; without any, the table scrolls rather than cut all short.
        table.horizontalHeader().setStretchLastSection(True)

    settings.modelReset.connect(fit)
    return table


def _heading_width(heading: str) -> int:
    letters = QFontMetrics(theme.text_font(theme.SIZE_LABEL, is_strong=True))
    return min(max(letters.horizontalAdvance(heading) + _HEADING_PADDING, _VALUE_WIDTH), _WIDEST_VALUE)


def copy_on_request(view: QAbstractItemView) -> None:
    """Let Ctrl+C copy the selected rows of a table or a tree as text, or all where none is selected."""
    shortcut = QShortcut(QKeySequence.StandardKey.Copy, view)
    shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
    shortcut.activated.connect(lambda: QGuiApplication.clipboard().setText(rows_text(view)))


def rows_text(view: QAbstractItemView) -> str:
    """Return the heading and the selected rows (all, where none is) as lines with tabs, in the order of the view."""
    items = view.model()
    chosen = {QPersistentModelIndex(index) for index in view.selectionModel().selectedRows()}
    num_columns = items.columnCount()
    lines = [[items.headerData(column, Qt.Orientation.Horizontal) for column in range(num_columns)]]

    def take(parent: QModelIndex, depth: int) -> None:
        for row in range(items.rowCount(parent)):
            first = items.index(row, 0, parent)
            if not chosen or QPersistentModelIndex(first) in chosen:
                cells = [items.data(items.index(row, column, parent)) for column in range(num_columns)]
                lines.append(["    " * depth + cells[0], *cells[1:]])
            take(first, depth + 1)

    take(QModelIndex(), 0)
    return "\n".join("\t".join(cell or "" for cell in line) for line in lines)


class ComparedTree(QTreeView):
    """The layers with their bars; a click on a heading sorts them, and one on Layer puts them in the model's order."""

    def __init__(self, layers: ComparedLayerItemModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(layers)
        self.setItemDelegate(ComparedLayerDelegate(self))
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setFrameShape(QTreeView.Shape.NoFrame)
        self.setIndentation(4 * theme.SPACE)
        header = self.header()
        header.setSortIndicator(columns.LAYER, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        header.setStretchLastSection(False)
        header.setHighlightSections(False)
        header.setMinimumSectionSize(28)
        header.setSectionResizeMode(columns.LAYER, QHeaderView.ResizeMode.Stretch)
        for column, width in _WIDTHS.items():
            header.resizeSection(column, width)
        header.resizeSection(columns.NOTE, 150)
        copy_on_request(self)


class ComparedLayerDelegate(LayerDelegate):
    """Paints a layer's name and sign as the model's tree does, and a bar for how far it has moved."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._view = parent

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint one cell."""
        self.colors = theme.palette_of(self._view)
        style = self._view.style()
        style.drawPrimitive(QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, self._view)
        cell: ComparedCell = index.data(columns.CELL_ROLE)
        column, rect = index.column(), QRect(option.rect)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if column == columns.STATE:
            self._paint_sign(painter, rect, cell.state, is_pending=False)
        elif cell.text:
            if cell.bar is not None:
                self._paint_bar(painter, QRectF(rect.left(), rect.top(), _BAR_WIDTH, rect.height()), cell.bar)
            self._paint_cell(painter, rect.adjusted(_PADDING, 0, -_PADDING, 0), cell, index)
        painter.restore()

    def _paint_cell(
        self, painter: QPainter, rect: QRect, cell: ComparedCell, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        is_name = index.column() == columns.LAYER
        is_cool = cell.state is LayerState.FROZEN and (is_name or index.column() == columns.MOVED)
        is_plain = is_name or index.column() == columns.MOVED
        color = self.colors.frozen if is_cool else self.colors.text if is_plain else self.colors.dim
        painter.setFont(
            theme.text_font(theme.SIZE_TEXT if is_name else theme.SIZE_LABEL, is_strong=is_name and cell.is_top)
        )
        painter.setPen(QColor(self.colors.danger if cell.is_trouble and not is_name else color))
        text = painter.fontMetrics().elidedText(cell.text, Qt.TextElideMode.ElideRight, rect.width())
        painter.drawText(rect, int(index.data(Qt.ItemDataRole.TextAlignmentRole)), text)


class _MetricDelegate(TableDelegate):
    """Paints what is better in the colour of what is right, and what is worse in that of what is wrong."""

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        is_better = index.data(IsBetterRole)
        if is_better is None:
            return colors.text
        return colors.accent if is_better else colors.validation


def _table(items: ComparedMetricItemModel | SettingItemModel, empty_text: str = "") -> Table:
    table = Table(empty_text)
    table.setModel(items)
    table.horizontalHeader().setTextElideMode(Qt.TextElideMode.ElideMiddle)
    table.horizontalHeader().setMinimumSectionSize(_LEAST_VALUE)
    copy_on_request(table)
    return table
