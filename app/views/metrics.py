"""MetricsView: loss and accuracy over the run, linked, and the tools that say how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QLocale, QStandardPaths, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QActionGroup, QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSlider,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.theme import SPACE
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.metric_history import ExportedPiece, MetricHistory
from app.viewmodels.smoothing import MAX_WEIGHT
from app.views.file_export import FileExport
from app.views.metric_header import Quantity
from app.views.metric_plot import MetricPlot

# Curves are read, not watched: ten repaints a second leave the cores to the training.
REPAINT_MS = 100
# One plot at a time: between two, the window answers.
_NEXT_PLOT_MS = 5
# A hand on the plot wants an answer at once.
_HAND_REPAINT_MS = 15
_GROWTH = 1.25
_ROOM = 1.02


class MetricsView(QWidget):
    """Two plots with one step axis. Repaints only while it can be seen and something has changed."""

    rewind_requested = Signal(int)
    """The run is to go back to just before this change, by its number."""

    restore_requested = Signal(str)
    """A checkpoint, by its name, is to be put into the run."""

    def __init__(self, history: MetricHistory, checkpoints: CheckpointItemModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._history = history
        self._is_dirty = True
        self._due: list[MetricPlot] = []
        self._is_following = True
        self._export: FileExport | None = None
        self.loss = MetricPlot(
            history,
            Quantity("Loss", self.tr("Loss"), self.tr("loss"), "", 1.0, 3, has_marker_labels=True),
            checkpoints,
        )
        self._choices = self._make_choices()
        self.choice_menu = QMenu(self)
        self.choice_menu.aboutToShow.connect(self._fill_choice_menu)
        # Accuracy at first; its title chooses another quantity.
        self.accuracy = MetricPlot(history, self._choices[0], checkpoints, self.choice_menu)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._repaint)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._make_empty())
        self._stack.addWidget(self._make_plots())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._stack)
        self.setAccessibleName(self.tr("Curves"))
        self._connect()
        self._repaint()

    # -- what the user does -----------------------------------------------------------------------------------

    def fit(self) -> None:
        """Show all that was measured, once."""
        self.set_following(False)
        self._show_steps(0.0, max(self._history.last_step, 1) * _ROOM)
        for plot in self._plots:
            plot.view_box.setYRange(0, 1e-9, padding=0)
            plot.redraw(fits_values=True)

    def set_following(self, is_following: bool) -> None:
        """Keep the whole run in view as it goes on, or leave the view as it is."""
        self._is_following = is_following
        self.follow_button.setChecked(is_following)
        if is_following:
            self._schedule(_HAND_REPAINT_MS)

    def choose(self, quantity: Quantity) -> None:
        """Show another quantity in the lower plot."""
        self.accuracy.set_quantity(quantity)
        self.accuracy.redraw(fits_values=True)

    def export_png(self, path: Path) -> None:
        """Write a picture of both plots; what came of it is said under the plots."""
        self._start_export().write_png(path, self._drawing.grab())

    def export_csv(self, path: Path) -> None:
        """Write every point of every tag; what came of it is said under the plots."""
        self._start_export().write_csv(path, _point_rows(self._history.all_points()))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Put the tools into two rows where they have no room in one."""
        super().resizeEvent(event)
        has_room = sum(group.minimumSizeHint().width() for group in self._tool_groups) + SPACE <= self.width()
        direction = QBoxLayout.Direction.LeftToRight if has_room else QBoxLayout.Direction.TopToBottom
        if direction is not self._tools.direction():
            self._tools.setDirection(direction)

    def showEvent(self, event: QShowEvent) -> None:
        """Draw what came while nobody looked."""
        super().showEvent(event)
        if self._is_dirty or self._due:
            self._schedule(0)

    def hideEvent(self, event: QHideEvent) -> None:
        """Leave what is due until somebody looks."""
        super().hideEvent(event)
        self._timer.stop()

    # -- drawing ----------------------------------------------------------------------------------------------

    @property
    def _plots(self) -> tuple[MetricPlot, MetricPlot]:
        return self.loss, self.accuracy

    def _schedule(self, delay_ms: int = REPAINT_MS) -> None:
        self._is_dirty = True
        if not self.isVisible():
            return
        if not self._timer.isActive() or self._timer.remainingTime() > delay_ms:
            self._timer.start(delay_ms)

    def _repaint(self) -> None:
        if not self._due:
            self._begin_round()
        if self._due:
            plot = self._due.pop(0)
            plot.redraw(fits_values=self._is_following)
            plot.refresh_markers()
        if self._due:
            self._timer.start(_NEXT_PLOT_MS)
        elif self._is_dirty:
            self._timer.start(REPAINT_MS)

    def _begin_round(self) -> None:
        self._is_dirty = False
        self._stack.setCurrentIndex(0 if self._history.is_empty else 1)
        if self._history.is_empty:
            return
        if self._choices[0].is_in(self._history) and not self.accuracy.quantity.is_in(self._history):
            # Another run does not measure what the plot showed of the last one.
            self.accuracy.set_quantity(self._choices[0])
        if self._is_following:
            self._follow()
        self._due = list(self._plots)

    def _follow(self) -> None:
        last_step = max(self._history.last_step, 1)
        end = self._history.total_steps * _ROOM
        if end < last_step:
            # The length is not known: grow in leaps, so that the curve does not crawl with every step.
            end = max(10.0, _GROWTH ** math.ceil(math.log(last_step * _ROOM, _GROWTH)))
        self._show_steps(0.0, end)

    def _show_steps(self, first: float, last: float) -> None:
        # Of two linked plots, setting one moves the other.
        self.accuracy.view_box.setXRange(first, last, padding=0)

    def _on_moved_by_hand(self) -> None:
        self.set_following(False)

    def _on_hovered(self, step: float | None) -> None:
        known = None if step is None or self._history.is_empty else min(max(step, 0.0), self._history.last_step)
        for plot in self._plots:
            plot.show_step(known)

    # -- tools ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._history.changed.connect(self._on_history_changed)
        self._history.markers_changed.connect(self._schedule_calmly)
        self.loss.view_box.setXLink(self.accuracy.view_box)
        for plot in self._plots:
            plot.range_changed.connect(lambda: self._schedule(_HAND_REPAINT_MS))
            plot.moved_by_hand.connect(self._on_moved_by_hand)
            plot.hovered.connect(self._on_hovered)
            plot.rewind_requested.connect(self.rewind_requested)
            plot.restore_requested.connect(self.restore_requested)
            plot.view_box.setLimits(xMin=-1, xMax=1e12, minXRange=4)

    def _schedule_calmly(self) -> None:
        self._schedule(REPAINT_MS)

    def _on_history_changed(self) -> None:
        has_epochs = self._history.steps_per_epoch > 0
        self._epoch_action.setEnabled(has_epochs)
        self._set_unit(in_epochs=self._epoch_action.isChecked() and has_epochs)
        self._schedule(REPAINT_MS)

    def _set_unit(self, *, in_epochs: bool) -> None:
        self.unit_button.setText(self.tr("Epoch") if in_epochs else self.tr("Step"))
        for plot in self._plots:
            plot.set_epochs_shown(self._history.steps_per_epoch if in_epochs else 0)

    def _set_smoothing(self, percent: int) -> None:
        self._history.set_smoothing(percent / 100)
        self._smoothing_value.setText(QLocale().toString(percent / 100, "f", 2))

    def _set_log(self, is_log: bool) -> None:
        self.loss.set_log(is_log)
        self.loss.view_box.setYRange(*((-3.0, 1.0) if is_log else (0.0, 1.0)), padding=0)
        self.loss.redraw(fits_values=True)
        self._schedule(0)

    def _make_choices(self) -> list[Quantity]:
        share = partial(Quantity, unit="%", factor=100.0, decimals=1, has_marker_labels=False, largest=100.0)
        plain = partial(Quantity, unit="", factor=1.0, has_marker_labels=False)
        return [
            share("Accuracy", self.tr("Accuracy"), self.tr("accuracy, %")),
            share("Top-5 accuracy", self.tr("Top-5 accuracy"), self.tr("top-5 accuracy, %"), has_train=False),
            plain("F1", self.tr("F1"), self.tr("F1"), decimals=3, largest=1.0, has_train=False),
            plain("AUROC", self.tr("AUROC"), self.tr("AUROC"), decimals=3, largest=1.0, has_train=False),
            plain("Mean AP", self.tr("Mean AP"), self.tr("mean AP"), decimals=3, largest=1.0, has_train=False),
            plain(
                "Gradient norm", self.tr("Gradient norm"), self.tr("gradient norm"), decimals=3, has_validation=False
            ),
        ]

    def _fill_choice_menu(self) -> None:
        self.choice_menu.clear()
        for quantity in self._choices:
            if quantity.is_in(self._history) or quantity is self.accuracy.quantity:
                action = self.choice_menu.addAction(quantity.title, partial(self.choose, quantity))
                action.setCheckable(True)
                action.setChecked(quantity is self.accuracy.quantity)

    def _make_empty(self) -> QWidget:
        self.empty_label = QLabel(self.tr("The curves appear with the first step. Choose data and press Start."))
        self.empty_label.setProperty("role", "dim")
        self.empty_label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty_label.setWordWrap(True)
        return self.empty_label

    def _make_plots(self) -> QWidget:
        page = QWidget()
        self._drawing = QWidget()
        drawing_layout = QVBoxLayout(self._drawing)
        drawing_layout.setContentsMargins(0, 0, 0, 0)
        drawing_layout.setSpacing(2 * SPACE)
        drawing_layout.addWidget(self.loss, 1)
        drawing_layout.addWidget(self.accuracy, 1)
        self.message = QLabel()
        self.message.setTextFormat(Qt.TextFormat.PlainText)
        self.message.setWordWrap(True)
        self.message.hide()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACE)
        layout.addWidget(self._drawing, 1)
        layout.addLayout(self._make_tools())
        layout.addWidget(self.message)
        return page

    def _make_tools(self) -> QBoxLayout:
        self.unit_button = _menu_button(self.tr("Step"), self._make_unit_menu())
        self.unit_button.setToolTip(self.tr("Unit of the lower axis"))
        # The longer of its two words, so that the tools beside it stay where they are.
        self.unit_button.setMinimumWidth(self.unit_button.fontMetrics().horizontalAdvance(self.tr("Epoch")) + 9 * SPACE)
        smoothing_name = QLabel(self.tr("Smoothing"))
        self.smoothing = QSlider(Qt.Orientation.Horizontal)
        self.smoothing.setRange(0, round(MAX_WEIGHT * 100))
        self.smoothing.setMinimumWidth(48)
        self.smoothing.setMaximumWidth(96)
        self.smoothing.setAccessibleName(self.tr("Smoothing of the train curves"))
        self.smoothing.setToolTip(self.tr("Weight of the past in the train curves; 0 draws what was measured"))
        smoothing_name.setBuddy(self.smoothing)
        self._smoothing_value = QLabel()
        self._smoothing_value.setProperty("role", "dim")
        self._smoothing_value.setMinimumWidth(30)
        self.smoothing.valueChanged.connect(self._set_smoothing)
        self.smoothing.setValue(round(self._history.smoothing * 100))
        self.log_button = _button(self.tr("Log"), self.tr("Logarithmic loss; what is not positive is left out"))
        self.log_button.setCheckable(True)
        self.log_button.toggled.connect(self._set_log)
        self.fit_button = _button(self.tr("Fit"), self.tr("Show all that was measured"))
        self.fit_button.clicked.connect(self.fit)
        self.follow_button = _button(self.tr("Follow"), self.tr("Keep the whole run in view as it goes on"))
        self.follow_button.setCheckable(True)
        self.follow_button.setChecked(True)
        self.follow_button.clicked.connect(self.set_following)
        self.export_button = _menu_button(self.tr("Export"), self._make_export_menu())
        self._tool_groups = (
            _row(self.unit_button, smoothing_name, self.smoothing, self._smoothing_value),
            _row(self.log_button, self.fit_button, self.follow_button, self.export_button),
        )
        self._tools = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._tools.setSpacing(SPACE)
        for stretch, group in enumerate(self._tool_groups):
            self._tools.addWidget(group, stretch)
        return self._tools

    def _make_unit_menu(self) -> QMenu:
        menu = QMenu(self)
        group = QActionGroup(menu)
        self._step_action, self._epoch_action = QAction(self.tr("Step"), menu), QAction(self.tr("Epoch"), menu)
        for action in (self._step_action, self._epoch_action):
            action.setCheckable(True)
            group.addAction(action)
            menu.addAction(action)
        self._step_action.setChecked(True)
        self._epoch_action.setEnabled(self._history.steps_per_epoch > 0)
        self._epoch_action.toggled.connect(lambda is_chosen: self._set_unit(in_epochs=is_chosen))
        return menu

    def _make_export_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.addAction(self.tr("Picture (PNG)…"), lambda: self._ask_and_export("png"))
        menu.addAction(self.tr("All points (CSV)…"), lambda: self._ask_and_export("csv"))
        return menu

    def _ask_and_export(self, suffix: str) -> None:
        folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
        proposed = str(Path(folder) / f"curves.{suffix}")
        file_filter = self.tr("Pictures (*.png)") if suffix == "png" else self.tr("Tables (*.csv)")
        chosen, _ = QFileDialog.getSaveFileName(self, self.tr("Export the curves"), proposed, file_filter)
        if not chosen:
            return
        path = Path(chosen) if Path(chosen).suffix else Path(f"{chosen}.{suffix}")
        if suffix == "png":
            self.export_png(path)
        else:
            self.export_csv(path)

    def _start_export(self) -> FileExport:
        self._export = FileExport()
        self._export.finished.connect(self._on_exported)
        return self._export

    def _on_exported(self, sentence: str, is_written: bool) -> None:
        self.message.setProperty("role", "note" if is_written else "error")
        self.message.style().unpolish(self.message)
        self.message.style().polish(self.message)
        self.message.setText(sentence)
        self.message.show()


def _point_rows(pieces: list[ExportedPiece]) -> Iterator[Sequence[object]]:
    yield ["tag", "step", "value", "abandoned"]
    for piece in pieces:
        for step, value in zip(piece.steps.tolist(), piece.values.tolist(), strict=True):
            yield [piece.tag, step, value, int(piece.is_abandoned)]


def _row(*tools: QWidget) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACE)
    for tool in tools:
        layout.addWidget(tool)
    layout.addStretch(1)
    return row


def _button(text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    return button


def _menu_button(text: str, menu: QMenu) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setProperty("kind", "menu-flat")
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setMenu(menu)
    return button
