"""What stands behind and above the curves: epoch lines, and the interventions with their sentences."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable

import pyqtgraph as pg
from PySide6.QtCore import QCoreApplication, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPainterPath, QPen
from PySide6.QtWidgets import QGraphicsItem, QStyleOptionGraphicsItem, QWidget

from app.theme import Palette, icon
from app.viewmodels.metric_history import Marker
from app.viewmodels.quantities import count_text

_LEAST_EPOCH_SPACING_PX = 18
_ROW_HEIGHT = 22
_LABEL_HEIGHT = 18
_LABEL_PADDING = 5
_ICON_SIZE = 13
_LABEL_GAP = 4
_FIRST_ROW_Y = 8
_HOVER_WIDTH = 9
_MOST_ROWS = 2
"""Of labels: more of them would hide the curves."""
_TEXT_SHARE = 0.5
"""Of the plot's width, for a label's sentence while the pointer is elsewhere."""
_FLAG_WIDTH = _ICON_SIZE + 2 * _LABEL_PADDING


class EpochLines(QGraphicsItem):
    """A hairline at the end of each epoch; of every second, fifth, tenth … one where they would crowd."""

    def __init__(self, view_box: pg.ViewBox) -> None:
        super().__init__(view_box)
        self._view_box = view_box
        self._pen = QPen()
        self.steps_per_epoch = 0
        self.setZValue(-5)

    def restyle(self, colors: Palette) -> None:
        """Take the theme's colours."""
        self._pen = pg.mkPen(colors.line)
        self.update()

    def boundingRect(self) -> QRectF:
        """Return the whole plot: the lines are drawn where they are wanted."""
        return QRectF(self._view_box.rect())

    def paint(self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None) -> None:
        """Draw the lines that the plot shows."""
        if self.steps_per_epoch <= 0:
            return
        (first, last), bounds = self._view_box.viewRange()[0], self.boundingRect()
        pixels_a_step = bounds.width() / max(last - first, 1e-9)
        every = _skip(_LEAST_EPOCH_SPACING_PX / (pixels_a_step * self.steps_per_epoch))
        spacing = every * self.steps_per_epoch
        painter.setPen(self._pen)
        for number in range(max(1, math.ceil(first / spacing)), math.floor(last / spacing) + 1):
            x = round(self._view_box.mapFromView(QPointF(number * spacing, 0)).x())
            painter.drawLine(QPointF(x, bounds.top()), QPointF(x, bounds.bottom()))


class MarkerItem(QGraphicsItem):
    """A dashed line at an intervention, and its label if the plot shows labels. Its tooltip tells both steps."""

    def __init__(self, view_box: pg.ViewBox, marker: Marker, font: QFont, *, has_label: bool) -> None:
        super().__init__(view_box)
        self._view_box = view_box
        self.marker = marker
        self._font = font
        self.text = marker_text(marker)
        text_width = QFontMetricsF(font).horizontalAdvance(self.text)
        self.label_width = text_width + _FLAG_WIDTH + _LABEL_GAP  # in pixels
        self.has_label = has_label and not marker.is_abandoned
        self.label_rect = QRectF()
        self._others: list[QRectF] = []
        self.x_px = 0.0
        self.setToolTip(marker_tooltip(marker))
        self.setAcceptedMouseButtons(Qt.MouseButton.NoButton)

    def restyle(self, colors: Palette) -> None:
        """Take the theme's colours."""
        color, background, name = {
            "freeze": (colors.frozen, colors.frozen_background, "snowflake"),
            "unfreeze": (colors.trainable, colors.trainable_background, "sun"),
            "rate": (colors.accent, colors.selection, "chart"),
            "weights": (colors.accent, colors.selection, "restore"),
            "multiplier": (colors.trainable, colors.trainable_background, "times"),
        }[self.marker.kind]
        self._color, self._background = QColor(color), QColor(background)
        if self.marker.is_abandoned:
            self._color = QColor(colors.dim)
        self._icon = icon(name, color)
        self.update()

    def place(self, label_rect: QRectF, others: list[QRectF]) -> None:
        """Stand at ``x_px``; an empty ``label_rect`` hides the label. ``others`` are labels that the line goes under.

        All are in the plot's pixels.
        """
        self.prepareGeometryChange()
        self.label_rect = label_rect
        self._others = [other for other in others if other.left() <= self.x_px <= other.right()]

    def boundingRect(self) -> QRectF:
        """Return the line and the label."""
        return self._line_rect().united(self.label_rect).adjusted(-1, 0, 1, 0)

    def shape(self) -> QPainterPath:
        """Return where the tooltip answers."""
        path = QPainterPath()
        path.addRect(self._line_rect())
        path.addRect(self.label_rect)
        return path

    def paint(self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None) -> None:
        """Draw the line, and over it the label."""
        bounds = self._view_box.rect()
        pen = QPen(self._color, 1.0 if self.marker.is_abandoned else 2.0)
        pen.setDashPattern([4, 3])
        painter.setPen(pen)
        line_top = bounds.top()
        for other in sorted(self._others, key=QRectF.top):
            painter.drawLine(QPointF(self.x_px, line_top), QPointF(self.x_px, max(line_top, other.top())))
            line_top = max(line_top, other.bottom())
        painter.drawLine(QPointF(self.x_px, line_top), QPointF(self.x_px, bounds.bottom()))
        if self.label_rect.isEmpty():
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._background)
        painter.drawRoundedRect(self.label_rect, 4, 4)
        icon_rect = QRectF(0, 0, _ICON_SIZE, _ICON_SIZE)
        icon_rect.moveCenter(
            QPointF(self.label_rect.left() + _LABEL_PADDING + _ICON_SIZE / 2, self.label_rect.center().y())
        )
        self._icon.paint(painter, icon_rect.toAlignedRect())
        if self.label_rect.width() <= _FLAG_WIDTH:
            return
        painter.setPen(self._color)
        painter.setFont(self._font)
        text_rect = self.label_rect.adjusted(_LABEL_PADDING + _ICON_SIZE + _LABEL_GAP, 0, -_LABEL_PADDING, 0)
        # A name is known by its beginning, and the step stands at the end.
        shown = QFontMetricsF(self._font).elidedText(self.text, Qt.TextElideMode.ElideMiddle, text_rect.width() + 1)
        painter.drawText(text_rect, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)

    def _line_rect(self) -> QRectF:
        bounds = self._view_box.rect()
        return QRectF(self.x_px - _HOVER_WIDTH / 2, bounds.top(), _HOVER_WIDTH, bounds.height())


def place_markers(items: list[MarkerItem], view_box: pg.ViewBox, pointed: MarkerItem | None = None) -> None:
    """Put every marker at its step, its label in the first row where it covers no other, on the side that has room.

    Of labels that come close, the later keep their sentences, and the earlier only an icon. The one that the pointer
    is on is written out over all others.
    """
    bounds = QRectF(view_box.rect())
    labels: dict[MarkerItem, QRectF] = {}
    for item in sorted(items, key=lambda placed: placed.marker.applied_step, reverse=True):
        # On whole pixels, or lines of one width look like two.
        item.x_px = float(round(view_box.mapFromView(QPointF(item.marker.applied_step, 0)).x()))
        is_inside = bounds.left() - 1 <= item.x_px <= bounds.right() + 1
        item.setVisible(is_inside)
        if item.has_label and is_inside:
            labels[item] = _free_place(item, bounds, labels.values())
    if pointed in labels:
        assert pointed is not None
        top = labels[pointed].top() if labels[pointed].isValid() else _row_top(bounds, 0)
        labels[pointed] = _label_rect(pointed.x_px, pointed.label_width, top, bounds)
    for item in items:
        item.setZValue(20 if item is pointed else 10)
        item.place(labels.get(item, QRectF()), [label for other, label in labels.items() if other is not item])


def marker_text(marker: Marker) -> str:
    """Write a marker's label: "stage4 unfrozen · step 128"."""
    text = QCoreApplication.translate("MetricPlot", "{sentence} · step {step}")
    return text.format(sentence=marker.sentence, step=count_text(marker.applied_step))


def marker_tooltip(marker: Marker) -> str:
    """Write a marker's tooltip, escaped: a layer's name is never markup."""
    sources = {
        "user": QCoreApplication.translate("MetricPlot", "by hand"),
        "plan": QCoreApplication.translate("MetricPlot", "by the plan"),
        "restore": QCoreApplication.translate("MetricPlot", "by restoring a checkpoint"),
        "advisor": QCoreApplication.translate("MetricPlot", "as advised"),
    }
    lines = [
        marker.sentence,
        QCoreApplication.translate(
            "MetricPlot", "Asked for at step {requested}, applied at step {applied}, {source}."
        ).format(
            requested=count_text(marker.requested_step),
            applied=count_text(marker.applied_step),
            source=sources.get(marker.source, marker.source),
        ),
    ]
    if marker.is_abandoned:
        lines.append(QCoreApplication.translate("MetricPlot", "A restore went back to before this."))
    elif marker.can_rewind:
        lines.append(QCoreApplication.translate("MetricPlot", "Click it to go back to just before this."))
    return "<br>".join(html.escape(line) for line in lines)


def _free_place(item: MarkerItem, bounds: QRectF, taken: Iterable[QRectF]) -> QRectF:
    for width in (min(item.label_width, max(_TEXT_SHARE * bounds.width(), _FLAG_WIDTH)), _FLAG_WIDTH):
        for row in range(_MOST_ROWS):
            place = _label_rect(item.x_px, width, _row_top(bounds, row), bounds)
            if not any(place.adjusted(-2, 0, 2, 0).intersects(other) for other in taken):
                return place
    return QRectF()


def _row_top(bounds: QRectF, row: int) -> float:
    return bounds.top() + _FIRST_ROW_Y + row * _ROW_HEIGHT


def _label_rect(x: float, width: float, top: float, bounds: QRectF) -> QRectF:
    """Return where a label stands: right of its line, left of it where there is no room, and never outside."""
    width = min(width, bounds.width())
    left = x + _LABEL_GAP
    if left + width > bounds.right():
        left = max(x - _LABEL_GAP - width, bounds.left())
    return QRectF(left, top, width, _LABEL_HEIGHT)


def _skip(least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20 … that is at least ``least``."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10
