"""The issues of the data: advice above, chips for each kind and a filter, and a table of what was found."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QSize, QStandardPaths, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.data import DataViewModel
from app.viewmodels.issue_items import FILE, KIND, WHAT, IsFoldedRole, IsGraveRole, kind_name
from app.views.advice import AdviceLines
from app.views.filter_box import FilterBox
from app.views.issue_chips import IssueChips
from app.views.table import Table
from trainer.data_report import IssueKind

# A word is typed in this time; each of its letters need not be looked for.
_FILTER_DELAY_MS = 150
_ADVICE_SHARE = 0.3
"""Of the panel's height."""
_KIND_PADDING = 6 * theme.SPACE
_FILE_SHARE = 0.32
"""Of the width beside the kind: what is wrong with a file takes more words than its name."""
_LEAST_FILE_WIDTH = 110
_LINE_WIDTH = 600
"""What most sentences take; where there is less, they get a second line, if the table is high enough."""
_TWO_LINES_HEIGHT = 38
_LEAST_HEIGHT_FOR_HEADINGS = 200
_HEADINGS_HEIGHT = 30


class IssuesPanel(QWidget):
    """Lists what was found in the data, and saves it."""

    opened = Signal(QModelIndex)
    """The pictures of an issue were asked for, by a click or by Enter."""

    def __init__(self, data: DataViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._data = data
        self._build()
        data.changed.connect(self._show)
        data.issues.modelReset.connect(self._enable_save)
        data.issues.saved.connect(self._tell)
        self._show()

    def save(self, csv_path: Path) -> None:
        """Write the issues that are listed to a CSV file."""
        self._data.issues.save(csv_path)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the room anew: the rows come first, then the columns' headings, then all of the advice."""
        super().resizeEvent(event)
        self.table.horizontalHeader().setFixedHeight(_HEADINGS_HEIGHT if self._is_high else 0)
        self.advice.set_room(int(self.height() * _ADVICE_SHARE))
        self._fit()

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.advice = AdviceLines()
        self.chips = IssueChips()
        self.chips.chosen.connect(self._filter)
        self.filter_box = FilterBox(self.tr("Filter issues by file or words"), self.tr("Filter issues"))
        self._filter_timer = QTimer(self)
        self._filter_timer.setSingleShot(True)
        self._filter_timer.setInterval(_FILTER_DELAY_MS)
        self._filter_timer.timeout.connect(self._filter)
        self.filter_box.textEdited.connect(lambda _: self._filter_timer.start())
        self.filter_box.textChanged.connect(self._filter_when_cleared)
        self.save_button = QToolButton()
        self.save_button.setText(self.tr("Save as CSV…"))
        self.save_button.setToolTip(self.tr("Save the issues that are listed"))
        self.save_button.clicked.connect(self._ask_and_save)
        self.message = QLabel()
        self.message.setTextFormat(Qt.TextFormat.PlainText)
        self.message.setWordWrap(True)
        self.message.hide()
        tools = QHBoxLayout()
        tools.setSpacing(theme.SPACE)
        tools.addWidget(self.filter_box, 1)
        tools.addWidget(self.save_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addLayout(tools)
        for widget in (self.advice, self.chips, self.message):
            layout.addWidget(widget)
        layout.addWidget(self._make_table(), 1)

    def _make_table(self) -> Table:
        self.table = _IssueTable(self.tr("Nothing is wrong with any file."))
        self.table.setModel(self._data.issues)
        self.table.setItemDelegate(_IssueDelegate(self.table))
        self.table.setSelectionMode(Table.SelectionMode.SingleSelection)
        self.table.setAccessibleName(self.tr("Issues"))
        self.table.horizontalHeader().setSectionResizeMode(WHAT, QHeaderView.ResizeMode.Stretch)
        self.table.clicked.connect(self._open)
        self.table.enter_pressed.connect(self._open_current)
        return self.table

    @property
    def _is_high(self) -> bool:
        return self.height() >= _LEAST_HEIGHT_FOR_HEADINGS

    def _fit(self) -> None:
        """Share the room by what it is, and by the kinds that were found: no filter makes the columns jump."""
        names = [kind_name(kind) for kind in self._found_kinds()] or [self._data.issues.headings()[KIND]]
        kind_width = max(self.table.fontMetrics().horizontalAdvance(name) for name in names) + _KIND_PADDING
        room = self.width() - kind_width
        file_width = max(_LEAST_FILE_WIDTH, int(room * _FILE_SHARE))
        self.table.set_widths({KIND: kind_width, FILE: file_width})
        has_second_line = self._is_high and room - file_width < _LINE_WIDTH
        self.table.setWordWrap(has_second_line)
        row_height = _TWO_LINES_HEIGHT if has_second_line else theme.ROW_HEIGHT
        if self.table.verticalHeader().defaultSectionSize() != row_height:
            self.table.verticalHeader().setDefaultSectionSize(row_height)

    def _found_kinds(self) -> list[IssueKind]:
        counts = self._data.summary.issue_counts if self._data.summary is not None else {}
        return [kind for kind in IssueKind if counts.get(kind.value)]

    # -- what is shown ----------------------------------------------------------------------------------------

    def _show(self) -> None:
        summary = self._data.summary
        self.message.hide()
        if summary is None:
            return
        self.chips.show_counts(summary.issue_counts, self._data.issue_kind)
        if self.filter_box.text().strip() != self._data.issue_text:
            self.filter_box.setText(self._data.issue_text)
        has_issues = any(summary.issue_counts.values())
        self.filter_box.setVisible(has_issues)
        self.save_button.setVisible(has_issues)
        self.advice.show_sentences(summary.advice)
        self._fit()

    def _enable_save(self) -> None:
        has_rows = bool(self._data.issues.rowCount())
        self.save_button.setEnabled(has_rows)
        is_filtered = self._data.issue_kind is not None or bool(self._data.issue_text)
        self.table.empty_text = (
            self.tr("No issue matches.") if is_filtered else self.tr("Nothing is wrong with any file.")
        )

    def _tell(self, sentence: str, is_written: bool) -> None:
        theme.set_property(self.message, "role", "note" if is_written else "error")
        self.message.setText(sentence)
        self.message.show()

    # -- actions ----------------------------------------------------------------------------------------------

    def _filter(self) -> None:
        self._filter_timer.stop()
        self._data.filter_issues(self.chips.kind, self.filter_box.text().strip())

    def _filter_when_cleared(self, text: str) -> None:
        # The clear button tells no edit.
        if not text and self._data.issue_text:
            self._filter()

    def _open(self, index: QModelIndex) -> None:
        if not self._data.issues.unfold(index.row()):
            self.opened.emit(index)

    def _open_current(self) -> None:
        if self.table.currentIndex().isValid():
            self._open(self.table.currentIndex())

    def _ask_and_save(self) -> None:
        folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
        proposed = str(Path(folder) / "issues.csv")
        dialog = QFileDialog(self, self.tr("Save the issues"), proposed, self.tr("Tables (*.csv)"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("csv")
        dialog.fileSelected.connect(lambda path: self.save(Path(path)))
        dialog.open()


class _IssueTable(Table):
    enter_pressed = Signal()
    """The pictures of the present row were asked for."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self.enter_pressed.emit()
        else:
            super().keyPressEvent(event)

    def keyboardSearch(self, search: str) -> None:
        """Do nothing: a letter that leads nowhere would be looked for in every row. The filter is for that."""


class _IssueDelegate(QStyledItemDelegate):
    """Writes the kinds that spoil a run red, the file in full colour, the sentence dim; what unfolds as a link."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().initStyleOption(option, index)
        view = self.parent()
        assert isinstance(view, QWidget)
        colors = theme.palette_of(view)
        color = colors.text if index.column() == FILE else colors.dim
        if index.column() == FILE and index.data(IsFoldedRole):
            color = colors.accent
        if index.column() == KIND and index.data(IsGraveRole):
            color = colors.danger
        option.palette.setColor(option.palette.ColorRole.Text, QColor(color))
        if index.column() == WHAT:
            option.textElideMode = Qt.TextElideMode.ElideRight
        else:
            # A name is cut in its middle, and not broken after a slash.
            option.features &= ~QStyleOptionViewItem.ViewItemFeature.WrapText

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        """Return a row's size: all are of one height."""
        view = self.parent()
        assert isinstance(view, Table)
        return QSize(0, view.verticalHeader().defaultSectionSize())
