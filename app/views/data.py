"""The Data tab: the classes, their images, and what is wrong with them, before the first step."""

from __future__ import annotations

from PySide6.QtCore import QAbstractItemModel, QModelIndex, Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.data import DataState, DataViewModel
from app.views.class_chart import ClassChart
from app.views.elided_label import ElidedLabel
from app.views.issues import IssuesPanel
from app.views.picture_dialog import PictureDialog
from app.views.thumbnails import ThumbnailGrid
from trainer.messages.data_info import DataSummary

_HEADER_HEIGHT = 30
# A check that is answered from its cache takes less, and what it found the last time need not go for it.
_CHECKING_DELAY_MS = 300


class DataView(QWidget):
    """Classes on the left, images in the middle, issues on the right; a sentence while there are none."""

    check_wanted = Signal()
    """The data are to be looked through, after all."""
    views_wanted = Signal(str)
    """The path of an image that is looked at: what the model sees of it would be good to know."""

    def __init__(self, data: DataViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._data = data
        self._dialog: PictureDialog | None = None
        self._shown_summary: DataSummary | None = None
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.sentence.setWordWrap(True)
        self.check_button = QPushButton(self.tr("Check again"))
        self.check_button.clicked.connect(self.check_wanted)
        self.chart = ClassChart(data)
        self.grid = ThumbnailGrid(data.images)
        self.issues = IssuesPanel(data)
        self.grid.opened.connect(lambda index: self._open(index, self.grid, self.tr("Image")))
        self.issues.opened.connect(lambda index: self._open(index, self.issues.table, self.tr("Issue")))
        self._stack = QStackedWidget()
        self._stack.addWidget(self._make_sentence())
        self._stack.addWidget(self._make_columns())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._stack)
        self._checking_timer = QTimer(self)
        self._checking_timer.setSingleShot(True)
        self._checking_timer.setInterval(_CHECKING_DELAY_MS)
        self._checking_timer.timeout.connect(lambda: self._stack.setCurrentIndex(0))
        data.changed.connect(self._show)
        data.choice_changed.connect(self._show_figures)
        self._show()

    @property
    def dialog(self) -> PictureDialog | None:
        """Return the dialog that shows a picture, if it is open."""
        return self._dialog

    # -- what is shown ----------------------------------------------------------------------------------------

    def _show(self) -> None:
        data = self._data
        self._checking_timer.stop()
        is_checking = data.state is DataState.CHECKING
        if data.problem:
            self.sentence.setText(data.problem)
        elif is_checking:
            self.sentence.setText(self.tr("Looking through the images …"))
        elif data.state is DataState.UNCHECKED:
            self.sentence.setText(self.tr("You stopped the check, so nothing is known of these data yet."))
        else:
            self.sentence.setText(self.tr("Choose data: what Thaw finds in them stands here before the first step."))
        theme.set_property(self.sentence, "role", "error" if data.problem else "dim")
        self.check_button.setVisible(data.state is DataState.UNCHECKED)
        if is_checking and self._stack.currentIndex() == 1:
            self._checking_timer.start()
        else:
            self._stack.setCurrentIndex(1 if data.state is DataState.CHECKED and not data.problem else 0)
        if data.summary is not self._shown_summary:
            # A file may be another one by now.
            self._shown_summary = data.summary
            self.grid.loader.clear()
        self._show_figures()

    def _show_figures(self) -> None:
        self._whose.set_whole_text(self._data.images_text())
        self._figures.set_whole_text(self._data.figures_text())

    # -- pictures ---------------------------------------------------------------------------------------------

    def _open(self, index: QModelIndex, listing: QAbstractItemView, title: str) -> None:
        if self._dialog is not None:
            self._dialog.close()
        model: QAbstractItemModel = listing.model()
        self._dialog = PictureDialog(model, index.row(), title, self)
        self._dialog.row_changed.connect(lambda row: listing.setCurrentIndex(model.index(row, 0)))
        if listing is self.grid:
            # An issue's file is no image of the run, or one of two.
            self._dialog.views_wanted.connect(self.views_wanted)
            self._data.views_shown.connect(self._dialog.show_views)
            self._data.views_refused.connect(self._dialog.refuse_views)
        self._dialog.finished.connect(self._forget_dialog)
        self._dialog.show_row()
        self._dialog.show()

    def _forget_dialog(self) -> None:
        self._dialog = None

    # -- building ---------------------------------------------------------------------------------------------

    def _make_sentence(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setSpacing(2 * theme.SPACE)
        layout.addStretch(1)
        layout.addWidget(self.sentence)
        layout.addWidget(self.check_button, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(1)
        return page

    def _make_columns(self) -> QSplitter:
        columns = QSplitter(Qt.Orientation.Horizontal)
        columns.setHandleWidth(2 * theme.PANEL_PADDING)
        columns.setChildrenCollapsible(False)
        for widget, least_width in ((self.chart, 244), (self._make_images(), 240), (self.issues, 300)):
            widget.setMinimumWidth(least_width)
            columns.addWidget(widget)
        # What a larger window brings, all three share: names, pictures and sentences are cut in a small one.
        for column, factor in enumerate((2, 3, 4)):
            columns.setStretchFactor(column, factor)
        columns.setSizes([268, 372, 588])
        return columns

    def _make_images(self) -> QWidget:
        self._whose = ElidedLabel(Qt.TextElideMode.ElideMiddle, 120)
        self._whose.setProperty("role", "heading")
        self._figures = ElidedLabel(Qt.TextElideMode.ElideRight, 40)
        self._figures.setProperty("role", "dim")
        self._figures.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        header = QWidget()
        header.setFixedHeight(_HEADER_HEIGHT)
        line = QHBoxLayout(header)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(3 * theme.SPACE)
        line.addWidget(self._whose)
        line.addWidget(self._figures, 1)
        images = QWidget()
        layout = QVBoxLayout(images)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addWidget(header)
        layout.addWidget(self.grid, 1)
        return images
