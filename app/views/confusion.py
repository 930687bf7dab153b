"""The Confusion tab: which classes the model takes for which, and how well each is told from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QStandardPaths, Qt
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.confusion import CONFUSIONS
from app.viewmodels import confusion_items as items
from app.viewmodels.confusion import ConfusionViewModel
from app.views.confusion_map import ConfusionMap
from app.views.elided_label import ElidedLabel
from app.views.file_export import FileExport
from app.views.table import Table
from app.views.table_delegate import TableDelegate

Rows = Callable[[], Iterable[Sequence[object]]]


class ConfusionView(QWidget):
    """The matrix on the left, the most frequent mistakes in the middle, the classes on the right."""

    def __init__(self, confusion: ConfusionViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._confusion = confusion
        self._export: FileExport | None = None
        self._pointed = QModelIndex()
        self.map = ConfusionMap(confusion.matrix)
        self.pairs, self.classes = self._make_pairs(), self._make_classes()
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setProperty("role", "dim")
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.sentence.setWordWrap(True)
        self._stack = QStackedWidget()
        self._stack.addWidget(self.sentence)
        self._stack.addWidget(self._make_columns())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, theme.SPACE, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addLayout(self._make_tools())
        layout.addWidget(self._stack, 1)
        self.map.cell_chosen.connect(confusion.choose_cell)
        self.map.cell_pointed.connect(self._point)
        confusion.changed.connect(self._show)
        confusion.cell_changed.connect(self._show_cell)
        self._show()

    def button(self, which: str) -> QPushButton:
        """Return the button that shows one of ``CONFUSIONS``."""
        button = self._switch.button(CONFUSIONS.index(which))
        assert isinstance(button, QPushButton)
        return button

    def export(self, path: Path, rows: Rows) -> None:
        """Write one of the tables to a CSV file; what came of it is said beside the button."""
        self._export = FileExport()
        self._export.finished.connect(self._tell)
        self._export.write_csv(path, rows())

    def showEvent(self, event: QShowEvent) -> None:
        """Read the matrix, now that someone looks."""
        super().showEvent(event)
        self._confusion.want(is_wanted=True)

    def hideEvent(self, event: QHideEvent) -> None:
        """Read nothing that nobody sees."""
        super().hideEvent(event)
        self._confusion.want(is_wanted=False)

    # -- what is shown ----------------------------------------------------------------------------------------

    def _show(self) -> None:
        confusion = self._confusion
        has_matrix = confusion.confusion is not None
        self._stack.setCurrentIndex(1 if has_matrix else 0)
        self.sentence.setText(
            confusion.problem
            or self.tr("Which classes are mistaken for which stands here after the first epoch's validation.")
        )
        self._export_button.setEnabled(has_matrix)
        self._title.set_whole_text(confusion.title())
        self._pairs_title.set_whole_text(confusion.pairs_title())
        self._say_cell()

    def _show_cell(self) -> None:
        cell = self._confusion.cell
        self.map.show_cell(cell)
        for table, model in ((self.pairs, self._confusion.pairs), (self.classes, self._confusion.classes)):
            row = None if cell is None else model.row_of(cell)
            if row is None:
                table.clearSelection()
                table.setCurrentIndex(QModelIndex())
            elif row != table.currentIndex().row():
                table.selectRow(row)
        # What was chosen last is told, wherever the pointer rests.
        self._pointed = QModelIndex()
        self._say_cell()

    def _point(self, index: QModelIndex) -> None:
        self._pointed = index
        self._say_cell()

    def _say_cell(self) -> None:
        index = self._pointed if self._pointed.isValid() else self.map.currentIndex()
        if index.isValid():
            self._cell_text.set_whole_text(self._confusion.matrix.cell_text(index.row(), index.column()))
        elif self.map.has_numbers:
            self._cell_text.set_whole_text(self.tr("Rows: the class. Columns: what it was taken for."))
        else:
            self._cell_text.set_whole_text(self.tr("Rows: the class. Columns: taken for. + and − zoom."))

    def _tell(self, sentence: str, is_written: bool) -> None:
        theme.set_property(self._message, "role", "note" if is_written else "error")
        self._message.set_whole_text(sentence)

    # -- building ---------------------------------------------------------------------------------------------

    def _make_tools(self) -> QHBoxLayout:
        names = {
            "best": (self.tr("Best"), self.tr("The validation of the best checkpoint")),
            "latest": (self.tr("Latest"), self.tr("The validation of the latest epoch")),
            "test": (self.tr("Test"), self.tr("The test split, with the best checkpoint, at the end of the run")),
        }
        line = QHBoxLayout()
        line.setSpacing(theme.SPACE)
        self._switch = QButtonGroup(self)
        for position, which in enumerate(CONFUSIONS):
            name, tip = names[which]
            button = QPushButton(name)
            button.setProperty("kind", "flat")
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setChecked(which == self._confusion.which)
            self._switch.addButton(button, position)
            line.addWidget(button)
        self._switch.idClicked.connect(lambda position: self._confusion.choose(CONFUSIONS[position]))
        self._title = ElidedLabel(Qt.TextElideMode.ElideRight, 120)
        self._title.setProperty("role", "dim")
        self._message = ElidedLabel(Qt.TextElideMode.ElideMiddle, 40)
        self._message.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        menu = QMenu(self)
        for text, name, rows in (
            (self.tr("Matrix (CSV)…"), "confusion", self._confusion.matrix_rows),
            (self.tr("Mistakes (CSV)…"), "mistakes", self._confusion.pair_rows),
            (self.tr("Classes (CSV)…"), "classes", self._confusion.class_rows),
        ):
            menu.addAction(text, partial(self._ask_and_export, name, rows))
        self._export_button = QToolButton()
        self._export_button.setText(self.tr("Export"))
        self._export_button.setProperty("kind", "menu-flat")
        self._export_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._export_button.setMenu(menu)
        line.addSpacing(theme.SPACE)
        line.addWidget(self._title, 2)
        line.addWidget(self._message, 1)
        line.addWidget(self._export_button)
        return line

    def _make_columns(self) -> QSplitter:
        self._cell_text = ElidedLabel(Qt.TextElideMode.ElideMiddle, 120)
        self._pairs_title = ElidedLabel(Qt.TextElideMode.ElideRight, 120)
        classes_title = ElidedLabel(Qt.TextElideMode.ElideRight, 120)
        classes_title.set_whole_text(self.tr("How well each class is told from the others"))
        columns = QSplitter(Qt.Orientation.Horizontal)
        columns.setHandleWidth(2 * theme.PANEL_PADDING)
        columns.setChildrenCollapsible(False)
        for title, view, least_width in (
            (self._cell_text, self.map, 240),
            (self._pairs_title, self.pairs, 260),
            (classes_title, self.classes, 300),
        ):
            title.setProperty("role", "dim")
            column = QWidget()
            column.setMinimumWidth(least_width)
            layout = QVBoxLayout(column)
            layout.setContentsMargins(0, 0, 0, 0)
            layout.setSpacing(theme.SPACE)
            layout.addWidget(title)
            layout.addWidget(view, 1)
            columns.addWidget(column)
        for position, factor in enumerate((2, 3, 3)):
            columns.setStretchFactor(position, factor)
        columns.setSizes([376, 404, 450])
        return columns

    def _make_pairs(self) -> Table:
        table = self._make_table(self._confusion.pairs, items.COUNT, self.tr("Mistakes"))
        table.sortByColumn(items.COUNT, Qt.SortOrder.DescendingOrder)
        for column in (items.TRUE, items.TAKEN):
            table.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        table.set_widths({items.COUNT: 80, items.SHARE: 112})
        return table

    def _make_classes(self) -> Table:
        table = self._make_table(self._confusion.classes, items.IMAGES, self.tr("Classes"))
        table.sortByColumn(items.NAME, Qt.SortOrder.AscendingOrder)
        table.horizontalHeader().setSectionResizeMode(items.NAME, QHeaderView.ResizeMode.Stretch)
        table.set_widths({items.IMAGES: 72, items.RECALL: 72, items.PRECISION: 84, items.F1: 70})
        return table

    def _make_table(self, model: items.SortedItemModel, count_column: int, name: str) -> Table:
        # Empty where nothing was mistaken, which its title says.
        table = Table("")
        table.setModel(model)
        table.setItemDelegate(_FigureDelegate(table, count_column))
        table.setSelectionMode(Table.SelectionMode.SingleSelection)
        table.setAccessibleName(name)
        table.setSortingEnabled(True)
        table.selectionModel().currentRowChanged.connect(self._choose_row)
        return table

    # -- actions ----------------------------------------------------------------------------------------------

    def _choose_row(self, current: QModelIndex) -> None:
        if current.isValid():
            self._confusion.choose_cell(*current.data(items.CellRole))

    def _ask_and_export(self, name: str, rows: Rows) -> None:
        folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
        proposed = str(Path(folder) / f"{name}.csv")
        dialog = QFileDialog(self, self.tr("Export the confusion matrix"), proposed, self.tr("Tables (*.csv)"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("csv")
        dialog.fileSelected.connect(lambda path: self.export(Path(path), rows))
        dialog.open()


class _FigureDelegate(TableDelegate):
    """Writes names and shares in full colour, and the counts that they are of dim."""

    def __init__(self, table: Table, count_column: int) -> None:
        super().__init__(table)
        self._count_column = count_column

    def color(self, index: QModelIndex | QPersistentModelIndex, colors: theme.Palette) -> str:
        return colors.dim if index.column() == self._count_column else colors.text
