"""The line above a plot: its title, its legend, the values under the pointer, and the best of validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyqtgraph as pg
from PySide6.QtCore import QLocale, QPointF, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QSizePolicy, QToolButton, QWidget

from app.theme import SPACE, Palette
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.quantities import count_text, number_text


@dataclass(frozen=True)
class Quantity:
    """What a plot shows: the tags' stem, its words, the factor to the unit on the screen, and the decimals to write."""

    stem: str
    title: str
    axis_title: str
    unit: str
    factor: float
    decimals: int
    has_marker_labels: bool
    largest: float | None = None
    has_train: bool = True
    has_validation: bool = True

    @property
    def train_tag(self) -> str:
        """Return the tag of what is measured in every step; what only training has carries no split in its tag."""
        return f"{self.stem}/train" if self.has_validation else self.stem

    @property
    def validation_tag(self) -> str:
        """Return the tag of what is measured after every epoch."""
        return f"{self.stem}/validation"

    def is_in(self, history: MetricHistory) -> bool:
        """Return whether a run has measured it."""
        return history.has(self.validation_tag if self.has_validation else self.train_tag)

    def text(self, value: float) -> str:
        """Write a measured value with its unit."""
        return number_text(value * self.factor, self.decimals) + (f" {self.unit}" if self.unit else "")


class MetricHeader(QWidget):
    """Title, legend, the values under the pointer, and the best value of validation at the right end.

    The title is a menu where ``choices`` holds one: it says what else the plot could show.
    """

    def __init__(self, quantity: Quantity, choices: QMenu | None = None) -> None:
        super().__init__()
        self.title = _label("", "heading") if choices is None else _title_button(choices)
        self._train_swatch, self._validation_swatch = _Swatch(has_point=False), _Swatch(has_point=True)
        self._legend = [_label(self.tr("train"), "dim"), _label(self.tr("validation"), "dim")]
        self._step, self._train, self._validation = _label("", "dim"), _label("", "value"), _label("", "value")
        self._problem = _label("", "chip-small")
        self._problem.setProperty("tone", "danger")
        self._problem.hide()
        self._best = _label("", "heading")
        for label, tone in ((self._train, "train"), (self._validation, "validation"), (self._best, "validation")):
            label.setProperty("tone", tone)
        self._best_words = _label(self.tr("validation, best"), "dim")
        self._best_words.hide()
        readout = QWidget()
        # What the pointer finds takes the room that is there: it must not widen the plot.
        readout.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        _line_up(readout, 2 * SPACE, [self._step, self._train, self._validation]).addStretch(1)
        legend = QWidget()
        keys = [self._train_swatch, self._legend[0], self._validation_swatch, self._legend[1]]
        _line_up(legend, SPACE, keys).insertSpacing(2, SPACE)
        layout = _line_up(self, 3 * SPACE, [self.title, legend, readout, self._problem])
        layout.setStretchFactor(readout, 1)
        best = QWidget()
        _line_up(best, SPACE, [self._best, self._best_words])
        layout.addWidget(best)
        self.show_quantity(quantity)

    def show_quantity(self, quantity: Quantity) -> None:
        """Write what the plot shows, and which curves that has."""
        self.title.setText(quantity.title)
        for key, is_shown in (
            (self._train_swatch, quantity.has_train),
            (self._legend[0], quantity.has_train),
            (self._validation_swatch, quantity.has_validation),
            (self._legend[1], quantity.has_validation),
        ):
            key.setVisible(is_shown)

    def restyle(self, colors: Palette) -> None:
        """Take the theme's colours."""
        self._train_swatch.color, self._validation_swatch.color = QColor(colors.train), QColor(colors.validation)
        self._train_swatch.update()
        self._validation_swatch.update()

    def show_figures(self, history: MetricHistory, quantity: Quantity) -> None:
        """Write the best value, and say so if the loss is lost."""
        best = history.best(quantity.validation_tag)
        self._best.setText(quantity.text(best.value) if best else "")
        self._best_words.setVisible(best is not None)
        if best is not None:
            self._best.setToolTip(self.tr("at step {step}").format(step=count_text(best.step)))
        latest = history.at(quantity.train_tag, math.inf)
        is_lost = latest is not None and not math.isfinite(latest[1])
        self._problem.setVisible(is_lost)
        if latest is not None and is_lost:
            name = "NaN" if math.isnan(latest[1]) else QLocale().toString(latest[1])
            text = self.tr("train {value} at step {step}")
            self._problem.setText(text.format(value=name, step=count_text(latest[0])))

    def show_step(self, step: float | None, history: MetricHistory, quantity: Quantity) -> None:
        """Write the values at a step; None clears them."""
        train = history.at(quantity.train_tag, step, smoothed=True) if step is not None else None
        raw = history.at(quantity.train_tag, step) if step is not None else None
        validation = history.at(quantity.validation_tag, step) if step is not None else None
        self._step.setText(self.tr("step {step}").format(step=count_text(raw[0])) if raw else "")
        self._train.setText(quantity.text(train[1]) if train else "")
        self._validation.setText(quantity.text(validation[1]) if validation else "")
        if raw:
            self._train.setToolTip(self.tr("measured {value}").format(value=quantity.text(raw[1])))
        if validation:
            self._validation.setToolTip(self.tr("validated at step {step}").format(step=count_text(validation[0])))


class _Swatch(QWidget):
    """The sample of a curve in a legend: a line, or a line with a point."""

    def __init__(self, *, has_point: bool) -> None:
        super().__init__()
        self._has_point = has_point
        self.color = QColor()
        self.setFixedSize(16, 12)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(pg.mkPen(self.color, width=2))
        painter.drawLine(QPointF(1, 6), QPointF(15, 6))
        if self._has_point:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self.color)
            painter.drawEllipse(QPointF(8, 6), 4, 4)


def _line_up(parent: QWidget, spacing: int, widgets: Sequence[QWidget]) -> QHBoxLayout:
    layout = QHBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def _label(text: str, role: str) -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    if role:
        label.setProperty("role", role)
    return label


def _title_button(choices: QMenu) -> QToolButton:
    button = QToolButton()
    button.setProperty("kind", "menu-title")
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setMenu(choices)
    button.setToolTip(button.tr("What this plot shows"))
    return button
