"""An axis that stays calm: few round ticks, numbers in the user's locale, and a size that never changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QLocale
from PySide6.QtGui import QFont, QPainter

_X_TICK_SPACING_PX = 84
_Y_TICK_SPACING_PX = 32
_LEFT_WIDTH = 56
_BOTTOM_HEIGHT = 38
_UNTITLED_BOTTOM_HEIGHT = 20
_LARGEST_PLAIN = 100_000


class PlotAxis(pg.AxisItem):  # type: ignore[misc]  # pyqtgraph has no types
    """A left or bottom axis.

    ``is_log`` says that what is drawn are decimal logarithms, ``is_whole`` that there are only whole numbers.
    """

    def __init__(self, orientation: str, *, is_whole: bool = False) -> None:
        super().__init__(orientation)
        self.is_log = False
        self._is_whole = is_whole
        self._has_title = True
        self.enableAutoSIPrefix(False)
        self.setStyle(tickLength=0, tickTextOffset=6, autoExpandTextSpace=False, autoReduceTextSpace=False)
        self.setStyle(hideOverlappingLabels=False)
        # The width of the numbers changes as the loss falls; the plot beside them must not.
        if orientation == "left":
            self.setWidth(_LEFT_WIDTH)
        else:
            self.setHeight(_BOTTOM_HEIGHT)

    def restyle(self, text_color: str, line_color: str, font: QFont, title: str) -> None:
        """Take the theme's colours, and the words that name the axis and its unit."""
        self.setPen(pg.mkPen(line_color))
        self.setTextPen(pg.mkPen(text_color))
        self.setTickFont(font)
        self.setLabel(title, **{"color": text_color, "font-size": f"{font.pixelSize()}px"})
        self.showLabel(self._has_title)

    def set_title_shown(self, is_shown: bool) -> None:
        """Show the title, or give its room to a low plot, whose header and tools name the same."""
        if is_shown == self._has_title:
            return
        self._has_title = is_shown
        self.showLabel(is_shown)
        if self.orientation == "bottom":
            self.setHeight(_BOTTOM_HEIGHT if is_shown else _UNTITLED_BOTTOM_HEIGHT)

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:
        """Return one level of ticks: (spacing, positions) between two positions of an axis ``size`` pixels long."""
        low, high = sorted((minVal * self.scale, maxVal * self.scale))
        num_wanted = max(2.0, size / (_Y_TICK_SPACING_PX if self.orientation == "left" else _X_TICK_SPACING_PX))
        if not math.isfinite(high - low) or high <= low:
            return []
        if self.is_log:
            return [(1.0, _log_ticks(low, high, num_wanted))]
        spacing = _round_spacing((high - low) / num_wanted)
        if self._is_whole and self.scale == 1:
            spacing = max(spacing, 1.0)
        ticks = np.arange(math.ceil(low / spacing), math.floor(high / spacing) + 1) * spacing
        return [(spacing / self.scale, (ticks / self.scale).tolist())]

    def generateDrawSpecs(self, p: QPainter) -> tuple[Any, Any, Any] | None:
        """Return what is drawn: numbers that the plot's edge would cut are left out."""
        specs: tuple[Any, Any, Any] | None = super().generateDrawSpecs(p)
        plot = self.parentItem()
        if specs is None or plot is None or self.orientation != "bottom":
            return specs
        line, ticks, texts = specs
        room = self.mapRectFromItem(plot, plot.boundingRect())
        whole = [text for text in texts if room.left() <= text[0].left() and text[0].right() <= room.right()]
        return line, ticks, whole

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        """Write the ticks' numbers."""
        if self.is_log:
            return [QLocale().toString(10**value, "g", 3) for value in values]
        decimals = max(0, -math.floor(math.log10(spacing * scale) + 1e-9))
        return [_tick_text(value * scale, decimals, is_whole=self._is_whole) for value in values]


def _round_spacing(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is at least ``least``."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _log_ticks(low: float, high: float, num_wanted: float) -> list[float]:
    """Return round values between two logarithms: decades, 1-2-5 in between, or evenly spaced when zoomed in."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    if high - low >= num_wanted:
        every = math.ceil((high - low) / num_wanted)
        return [float(decade) for decade in decades if decade % every == 0]
    ticks = [decade + math.log10(factor) for decade in decades for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) >= 2:
        return inside if len(inside) <= 2 * num_wanted else [tick for tick in inside if tick == round(tick)]
    first, last = 10**low, 10**high
    spacing = _round_spacing((last - first) / num_wanted)
    values = np.arange(math.ceil(first / spacing), math.floor(last / spacing) + 1) * spacing
    return [float(tick) for tick in np.log10(values[values > 0])]


def _tick_text(value: float, decimals: int, *, is_whole: bool) -> str:
    if abs(value) >= _LARGEST_PLAIN and not is_whole:
        return QLocale().toString(value, "g", 3)
    return QLocale().toString(value, "f", decimals)
