"""A run's curves as a picture, for a page that needs neither a window nor TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from trainer.metrics import TRAIN_ACCURACY, TRAIN_LOSS, VALIDATION_ACCURACY, VALIDATION_LOSS
from trainer.run_record import Curve

_PANEL_SIZE = 560, 360
_MARGINS = 64, 40, 18, 40
"""Left, top, right and bottom of a panel's plot, in pixels."""
_SCALE = 2
"""Drawn so much larger: Pillow's lines have steps, which a smaller picture does not show."""
_NUM_POINTS = 240
_INK, _GRID, _FAINT = "#3c4450", "#e6e9ee", "#7b8594"
_TRAIN, _VALIDATION = "#9bb7d4", "#1f6fb2"
_NUM_TICKS = 4


def draw_curves(curves: Mapping[str, Curve], path: Path) -> None:
    """Write loss and accuracy of training and validation by step, side by side, as a PNG."""
    panels = (("Loss", TRAIN_LOSS, VALIDATION_LOSS), ("Accuracy", TRAIN_ACCURACY, VALIDATION_ACCURACY))
    width, height = _PANEL_SIZE
    picture = Image.new("RGB", (width * len(panels) * _SCALE, height * _SCALE), "white")
    for number, (title, train, validation) in enumerate(panels):
        panel = _Panel(ImageDraw.Draw(picture), number * width)
        panel.draw(title, _thinned(curves.get(train, Curve())), _points(curves.get(validation, Curve())))
    picture.resize((width * len(panels), height), Image.Resampling.LANCZOS).save(path, optimize=True)


class _Panel:
    """One plot; positions are in pixels of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: int) -> None:
        self._draw = draw
        self._left = left
        left_margin, top, right_margin, bottom_margin = _MARGINS
        width, height = _PANEL_SIZE
        self._box = left + left_margin, top, left + width - right_margin, height - bottom_margin

    def draw(self, title: str, train: list[tuple[float, float]], validation: list[tuple[float, float]]) -> None:
        left, top, right, bottom = self._box
        self._text((left, 12), title, 17, _INK, "lt")
        self._legend(right)
        both = [*train, *validation]
        if not both:
            self._text(((left + right) / 2, (top + bottom) / 2), "nothing was measured", 13, _FAINT, "mm")
            return
        last = max(step for step, _ in both) or 1
        ticks = _ticks(min(value for _, value in both), max(value for _, value in both))
        low, high = ticks[0], ticks[-1]

        def place(point: tuple[float, float]) -> tuple[float, float]:
            step, value = point
            share = (value - low) / (high - low)
            return left + (right - left) * step / last, bottom - (bottom - top) * share

        for tick in ticks:
            _, y = place((0, tick))
            self._line([(left, y), (right, y)], _GRID, 1)
            self._text((left - 8, y), f"{tick:g}", 12, _FAINT, "rm")
        for step in (0, last):
            self._text((place((step, low))[0], bottom + 8), f"{step:,.0f}", 12, _FAINT, "mt" if step == 0 else "rt")
        self._text(((left + right) / 2, bottom + 8), "step", 12, _FAINT, "mt")
        self._line([place(point) for point in train], _TRAIN, 1.5)
        self._line([place(point) for point in validation], _VALIDATION, 2.2)
        for x, y in map(place, validation):
            self._draw.ellipse([(at - by) * _SCALE for at, by in ((x, 3), (y, 3), (x, -3), (y, -3))], _VALIDATION)

    def _legend(self, right: float) -> None:
        x = right
        for name, colour in (("validation", _VALIDATION), ("training", _TRAIN)):
            self._text((x, 14), name, 12, _FAINT, "rt")
            x -= self._draw.textlength(name, _font(12)) / _SCALE + 8
            self._line([(x - 18, 20), (x, 20)], colour, 2.2)
            x -= 34

    def _line(self, points: list[tuple[float, float]], colour: str, width: float) -> None:
        if len(points) > 1:
            scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
            self._draw.line(scaled, colour, round(width * _SCALE), joint="curve")

    def _text(self, at: tuple[float, float], text: str, size: int, colour: str, anchor: str) -> None:
        self._draw.text((at[0] * _SCALE, at[1] * _SCALE), text, colour, _font(size), anchor)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _SCALE)


def _points(curve: Curve) -> list[tuple[float, float]]:
    pairs = zip(curve.steps, curve.values, strict=True)
    return [(step, value) for step, value in pairs if math.isfinite(value)]


def _thinned(curve: Curve) -> list[tuple[float, float]]:
    """Return the means of a curve's points over even stretches: what is drawn has no more points than pixels."""
    points = _points(curve)
    by = -(-len(points) // _NUM_POINTS) or 1
    parts = [points[start : start + by] for start in range(0, len(points), by)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers from at or below ``low`` to at or above ``high``, about _NUM_TICKS of them."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _NUM_TICKS))
    step = next(power * by for by in (1, 2, 5, 10) if span / (power * by) <= _NUM_TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]
