"""ComparisonDialog: what differs between checkpoints, in a window of its own."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QSignalBlocker, QSize, Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.comparison import ComparisonViewModel
from app.views.compared_rows import ComparedTree, metric_table, setting_table
from app.views.confusion_map import ConfusionMap
from app.views.elided_label import ElidedLabel
from app.views.panels import PanelSplitter, panel

_SIZE = QSize(1120, 720)
_LEAST_SIZE = QSize(640, 440)
_LEFT_WIDTH, _RIGHT_WIDTH = 620, 420
_LEAST_LEFT_WIDTH, _LEAST_RIGHT_WIDTH = 280, 220
_LARGEST_SHARE = 0.9
"""Of the screen's width and height."""
_PROGRESS_WIDTH = 320
_CHOICE_LETTERS = 18


class ComparisonDialog(QDialog):
    """Metrics and settings above; below them the layers, and where the confusion matrices differ.

    Closing it ends what is still computed.
    """

    def __init__(self, comparison: ComparisonViewModel, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Compare checkpoints"))
        self._comparison = comparison
        comparison.setParent(self)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._make_waiting())
        self._stack.addWidget(self._make_page())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[theme.PANEL_PADDING] * 4)
        layout.addWidget(self._stack)
        self.setMinimumSize(_LEAST_SIZE)
        self.resize(_SIZE.boundedTo(self.screen().availableSize() * _LARGEST_SHARE))
        comparison.changed.connect(self._show)
        comparison.chosen.connect(self._show_chosen)
        comparison.metrics.modelReset.connect(self._make_room)
        self._show()

    def done(self, result: int) -> None:
        """End what nobody waits for any more: Esc and the window's own button come here as well."""
        self._comparison.close()
        super().done(result)

    # -- what is shown ----------------------------------------------------------------------------------------

    def _show(self) -> None:
        comparison = self._comparison
        has_result = comparison.compared is not None
        self._stack.setCurrentIndex(1 if has_result else 0)
        self.sentence.setText(comparison.sentence)
        theme.set_property(self.sentence, "role", "error" if comparison.is_failed else "")
        self.progress.setVisible(comparison.is_going)
        self.progress.setRange(0, comparison.total)
        self.progress.setValue(comparison.done)
        self.cancel.setText(self.tr("Cancel") if comparison.is_going else self.tr("Close"))
        if has_result:
            self._show_choices()
            self._show_chosen()
            self.tree.setFocus()

    def _make_room(self) -> None:
        """Give the metrics of all checkpoints the width that they need, as far as the screen has it."""
        needed = self.metrics.horizontalHeader().length() + self.metrics.verticalScrollBar().sizeHint().width()
        needed += 2 * theme.PANEL_PADDING
        left = max(_LEFT_WIDTH, needed)
        screen, margins = self.screen().availableGeometry(), 2 * theme.PANEL_PADDING + theme.PANEL_GAP
        width = min(left + _RIGHT_WIDTH + margins, int(screen.width() * _LARGEST_SHARE))
        if width > self.width() and not self.isMaximized():
            self.resize(width, self.height())
            over = self.frameGeometry().right() - screen.right()
            if over > 0:
                self.move(max(screen.left(), self.x() - over), self.y())
        left = min(left, self.width() - margins - _LEAST_RIGHT_WIDTH)
        for splitter in self._splitters:
            splitter.setSizes([left, self.width() - margins - left])

    def _show_choices(self) -> None:
        titles = self._comparison.titles()
        self.setWindowTitle(self.tr("{} compared with {}").format(", ".join(titles[1:]), titles[0]))
        # Of two there is nothing to choose.
        self.choice.setVisible(len(titles) > 2)
        with QSignalBlocker(self.choice):
            self.choice.clear()
            self.choice.addItems(titles[1:])

    def _show_chosen(self) -> None:
        comparison = self._comparison
        self._layers_title.set_whole_text(comparison.layers_title())
        has_layers = comparison.layers.whole is not None
        self.tree.setVisible(has_layers)
        self.warning.setText("\n".join(comparison.warnings()))
        self.warning.setVisible(bool(self.warning.text()))
        self.warning.setToolTip(comparison.warnings_in_full())
        has_matrix = bool(comparison.matrix.class_names)
        self._confusion_stack.setCurrentIndex(1 if has_matrix else 0)
        self._axes_text.setVisible(has_matrix)
        self._cell_text.setVisible(has_matrix)
        self.no_confusion.setText(comparison.confusion_title())
        self._confusion_title.set_whole_text(comparison.confusion_title() if has_matrix else "")
        self._say_cell(QModelIndex())

    def _say_cell(self, pointed: QModelIndex) -> None:
        index = pointed if pointed.isValid() else self.map.currentIndex()
        if index.isValid():
            self._cell_text.set_whole_text(self._comparison.matrix.cell_text(index.row(), index.column()))
        else:
            self._cell_text.set_whole_text(self.tr("Blue: more right, or fewer wrong. Orange: the reverse."))

    # -- building ---------------------------------------------------------------------------------------------

    def _make_waiting(self) -> QWidget:
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setWordWrap(True)
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedWidth(_PROGRESS_WIDTH)
        self.progress.setAccessibleName(self.tr("How far the comparison is"))
        self.cancel = QPushButton()
        self.cancel.setAutoDefault(False)
        self.cancel.clicked.connect(self._end)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setSpacing(theme.PANEL_PADDING)
        layout.addStretch(1)
        layout.addWidget(self.sentence)
        for widget in (self.progress, self.cancel):
            layout.addWidget(widget, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(1)
        return page

    def _make_page(self) -> QWidget:
        comparison = self._comparison
        self.metrics = metric_table(comparison.metrics)
        self.metrics.setAccessibleName(self.tr("Metrics of the checkpoints"))
        same = self.tr("The same configuration, rate and freeze set.")
        self.settings = setting_table(comparison.settings, same)
        self.settings.setAccessibleName(self.tr("Settings that differ"))
        above = PanelSplitter(
            Qt.Orientation.Horizontal,
            panel(_LEAST_LEFT_WIDTH, _heading(self.tr("Metrics")), self.metrics),
            panel(_LEAST_RIGHT_WIDTH, _heading(self.tr("Settings that differ")), self.settings),
        )
        below = PanelSplitter(
            Qt.Orientation.Horizontal,
            panel(_LEAST_LEFT_WIDTH, *self._make_layers()),
            panel(_LEAST_RIGHT_WIDTH, *self._make_confusion()),
        )
        self._splitters = above, below
        for splitter in self._splitters:
            splitter.setSizes([_LEFT_WIDTH, _RIGHT_WIDTH])
        rows: QSplitter = PanelSplitter(Qt.Orientation.Vertical, above, below)
        rows.setSizes([220, 480])
        rows.setStretchFactor(1, 1)
        return rows

    def _make_layers(self) -> list[QWidget]:
        head = QWidget()
        self.choice = QComboBox()
        self.choice.setAccessibleName(self.tr("Which checkpoint is compared with the first one"))
        self.choice.setToolTip(self.tr("Whose weights and mistakes are shown beside those of the first one"))
        self.choice.setMinimumContentsLength(_CHOICE_LETTERS)
        self.choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.choice.currentIndexChanged.connect(self._comparison.choose)
        line = QHBoxLayout(head)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(_heading(self.tr("Weights")))
        line.addStretch(1)
        line.addWidget(self.choice)
        self._layers_title = _dim_line()
        self.tree = ComparedTree(self._comparison.layers)
        self.tree.setAccessibleName(self.tr("How far each layer has moved"))
        self.warning = QLabel()
        self.warning.setTextFormat(Qt.TextFormat.PlainText)
        self.warning.setProperty("role", "note")
        self.warning.setWordWrap(True)
        return [head, self._layers_title, self.tree, self.warning]

    def _make_confusion(self) -> list[QWidget]:
        self._confusion_title, self._axes_text, self._cell_text = _dim_line(), _dim_line(), _dim_line()
        self._axes_text.set_whole_text(self.tr("A row is a class, a column what its images were taken for."))
        self.no_confusion = QLabel()
        self.no_confusion.setTextFormat(Qt.TextFormat.PlainText)
        self.no_confusion.setProperty("role", "dim")
        self.no_confusion.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.no_confusion.setWordWrap(True)
        self.map = ConfusionMap(self._comparison.matrix)
        self.map.setAccessibleName(
            self.tr("Difference of the confusion matrices: a row for each class, a column for what it was taken for")
        )
        self.map.cell_pointed.connect(self._say_cell)
        self.map.cell_chosen.connect(lambda *_: self._say_cell(QModelIndex()))
        self._confusion_stack = QStackedWidget()
        self._confusion_stack.addWidget(self.no_confusion)
        self._confusion_stack.addWidget(self.map)
        heading = _heading(self.tr("Mistakes"))
        return [heading, self._confusion_title, self._confusion_stack, self._axes_text, self._cell_text]

    # -- actions ----------------------------------------------------------------------------------------------

    def _end(self) -> None:
        if self._comparison.is_going:
            self._comparison.cancel()
        else:
            self.close()


def _heading(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "heading")
    return label


def _dim_line() -> ElidedLabel:
    line = ElidedLabel(Qt.TextElideMode.ElideRight, 80)
    line.setProperty("role", "dim")
    return line
