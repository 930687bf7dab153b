"""RateDialog: the loss at rising rates, and the rate that it suggests."""

from __future__ import annotations

import math

import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.quantities import rate_text
from app.viewmodels.rate_search import RateSearchViewModel

_WIDTH, _HEIGHT = 560, 420
_SENTENCE_LINES = 2
_RAW_ALPHA = 95
_ROOM = 1.6
_EXPONENTS = (-6.0, 1.0)
"""Decimal logarithms of the rates that the empty plot shows."""


class RateDialog(QDialog):
    """Follows a search and offers what it found. Closing it while the worker still tries rates ends the search."""

    rate_chosen = Signal(float)
    """The suggested rate is to be the run's."""
    cancelled = Signal()
    """Nobody waits for the answer any more."""

    def __init__(self, search: RateSearchViewModel, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Find a rate"))
        self._search = search
        self._build()
        self.resize(_WIDTH, _HEIGHT)
        search.changed.connect(self._show)
        self.finished.connect(self._leave)
        self._show()

    def _build(self) -> None:
        colors, font = theme.palette_of(self), theme.text_font(theme.SIZE_SMALL)
        self.plot = pg.PlotWidget()
        self.plot.setBackground(colors.panel)
        self.plot.setAccessibleName(self.tr("Loss by learning rate"))
        item = self.plot.getPlotItem()
        item.setMenuEnabled(False)
        item.hideButtons()
        item.setLogMode(x=True, y=False)
        item.setMouseEnabled(x=False, y=False)
        # Room for the upper half of the uppermost number and the right half of the last one.
        item.setContentsMargins(0, 6, 8, 0)
        item.setXRange(*_EXPONENTS, padding=0)
        for side, title in (("bottom", self.tr("rate")), ("left", self.tr("loss"))):
            axis = item.getAxis(side)
            axis.enableAutoSIPrefix(False)
            axis.setTickFont(font)
            axis.setTextPen(colors.dim)
            axis.setPen(colors.line)
            axis.setLabel(title, color=colors.dim)
            axis.label.setFont(font)
        faint = QColor(colors.train)
        faint.setAlpha(_RAW_ALPHA)
        self._measured = item.plot(pen=pg.mkPen(faint, width=1))
        self._smoothed = item.plot(pen=pg.mkPen(colors.train, width=2), antialias=True)
        self._line = pg.InfiniteLine(angle=90, pen=pg.mkPen(colors.trainable, width=2, style=Qt.PenStyle.DashLine))
        item.addItem(self._line, ignoreBounds=True)
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setWordWrap(True)
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.sentence.setMinimumHeight(_SENTENCE_LINES * self.sentence.fontMetrics().lineSpacing())
        self.use = QPushButton()
        self.use.setProperty("kind", "primary")
        self.use.clicked.connect(self._use)
        self.close_button = QPushButton()
        self.close_button.clicked.connect(self.reject)
        buttons = QHBoxLayout()
        buttons.setSpacing(theme.SPACE * 2)
        buttons.addStretch(1)
        buttons.addWidget(self.close_button)
        buttons.addWidget(self.use)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[theme.PANEL_PADDING] * 4)
        layout.setSpacing(theme.SPACE * 2)
        layout.addWidget(self.plot, 1)
        layout.addWidget(self.sentence)
        layout.addLayout(buttons)

    def _show(self) -> None:
        search, curve = self._search, self._search.curve
        self.sentence.setText(search.sentence)
        theme.set_property(self.sentence, "role", "error" if search.is_refused else "")
        suggestion = None if curve is None else curve.suggestion
        rates, losses, smoothed = ([], [], []) if curve is None else (curve.rates, curve.losses, curve.smoothed)
        self._measured.setData(rates, losses)
        self._smoothed.setData(rates, smoothed)
        if smoothed:
            self.plot.getPlotItem().setXRange(math.log10(rates[0]), math.log10(rates[-1]), padding=0.02)
            # What ran away at the end would press all else to the ground.
            self.plot.getPlotItem().setYRange(0.0, smoothed[0] * _ROOM, padding=0)
        self._line.setVisible(suggestion is not None)
        if suggestion is not None:
            self._line.setValue(math.log10(suggestion))
        self.use.setEnabled(suggestion is not None)
        self.use.setText(self.tr("Use {}").format(rate_text(_rounded(suggestion))) if suggestion else self.tr("Use"))
        self.close_button.setText(self.tr("Cancel") if search.is_searching else self.tr("Close"))

    def _use(self) -> None:
        assert self._search.curve is not None
        assert self._search.curve.suggestion is not None
        self.rate_chosen.emit(_rounded(self._search.curve.suggestion))
        self.accept()

    def _leave(self) -> None:
        self._search.changed.disconnect(self._show)
        if self._search.is_searching:
            self.cancelled.emit()


def _rounded(rate: float) -> float:
    """Return a rate with the two digits that a search of this kind can tell."""
    return float(f"{rate:.1e}")
