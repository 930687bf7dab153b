"""What stands behind and above the curves: epoch lines, and the interventions with their sentences."""

from __future__ import annotations

import html
import math

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
        self.label_width = text_width + _ICON_SIZE + _LABEL_GAP + 2 * _LABEL_PADDING  # in pixels
        self.has_label = has_label and not marker.is_abandoned
        self.label_rect = QRectF()
        self.x_px = 0.0
        self.setToolTip(marker_tooltip(marker))
        self.setAcceptedMouseButtons(Qt.MouseButton.NoButton)

    def restyle(self, colors: Palette) -> None:
        """Take the theme's colours."""
        color, background, name = {
            "freeze": (colors.frozen, colors.frozen_background, "snowflake"),
            "unfreeze": (colors.trainable, colors.trainable_background, "sun"),
            "rate": (colors.accent, colors.selection, "chart"),
            "multiplier": (colors.trainable, colors.trainable_background, "times"),
        }[self.marker.kind]
        self._color, self._background = QColor(color), QColor(background)
        if self.marker.is_abandoned:
            self._color = QColor(colors.dim)
        self._icon = icon(name, color)
        self.update()

    def place(self, x_px: float, label_rect: QRectF) -> None:
        """Stand at ``x_px``; an empty ``label_rect`` hides the label. Both in the plot's pixels."""
        if (x_px, label_rect) != (self.x_px, self.label_rect):
            self.prepareGeometryChange()
            self.x_px, self.label_rect = x_px, label_rect

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
        painter.drawLine(QPointF(self.x_px, bounds.top()), QPointF(self.x_px, bounds.bottom()))
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
        painter.setPen(self._color)
        painter.setFont(self._font)
        text_rect = self.label_rect.adjusted(_LABEL_PADDING + _ICON_SIZE + _LABEL_GAP, 0, 0, 0)
        painter.drawText(text_rect, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, self.text)

    def _line_rect(self) -> QRectF:
        bounds = self._view_box.rect()
        return QRectF(self.x_px - _HOVER_WIDTH / 2, bounds.top(), _HOVER_WIDTH, bounds.height())


def place_markers(items: list[MarkerItem], view_box: pg.ViewBox) -> None:
    """Put every marker at its step, its label in the first row where it covers no other, on the side that has room."""
    bounds = QRectF(view_box.rect())
    num_rows = max(1, int((bounds.height() - _FIRST_ROW_Y) // _ROW_HEIGHT) - 1)
    taken: list[QRectF] = []
    for position, item in enumerate(sorted(items, key=lambda placed: placed.marker.applied_step)):
        # A label reaches to the right, over the lines that follow it.
        item.setZValue(20 - position / (len(items) + 1))
        # On whole pixels, or lines of one width look like two.
        x = float(round(view_box.mapFromView(QPointF(item.marker.applied_step, 0)).x()))
        is_inside = bounds.left() - 1 <= x <= bounds.right() + 1
        item.setVisible(is_inside)
        label = _free_place(item, x, bounds, num_rows, taken) if item.has_label and is_inside else QRectF()
        if not label.isEmpty():
            taken.append(label)
        item.place(x, label)


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


def _free_place(item: MarkerItem, x: float, bounds: QRectF, num_rows: int, taken: list[QRectF]) -> QRectF:
    left = x + _LABEL_GAP
    if left + item.label_width > bounds.right():
        left = x - _LABEL_GAP - item.label_width
    for row in range(num_rows):
        place = QRectF(left, bounds.top() + _FIRST_ROW_Y + row * _ROW_HEIGHT, item.label_width, _LABEL_HEIGHT)
        if not any(place.adjusted(-2, 0, 2, 0).intersects(other) for other in taken):
            return place
    return QRectF()


def _skip(least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20 … that is at least ``least``."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10
