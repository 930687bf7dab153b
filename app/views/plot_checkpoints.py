"""The marks of the checkpoints along the lower edge of the curves: one at each step that was saved."""

from __future__ import annotations

import bisect

import pyqtgraph as pg
from PySide6.QtCore import QCoreApplication, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPen, QPolygonF
from PySide6.QtWidgets import QGraphicsItem, QStyleOptionGraphicsItem, QWidget

from app.theme import Palette
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.quantities import count_text
from trainer.messages.run_info import CheckpointInfo

_HALF_WIDTH, _HEIGHT = 4.0, 7.0
_LARGE = 1.4
"""Of a selected one's mark, so that it differs in more than its colour."""
_REACH_PX = 7.0
_EDGE_PX = 14.0
_LINE_ALPHA = 130


class CheckpointMarks(QGraphicsItem):
    """Triangles that stand on the axis of steps. Those of the selected rows are larger, with a line above them."""

    def __init__(self, view_box: pg.ViewBox, checkpoints: CheckpointItemModel) -> None:
        super().__init__(view_box)
        self._view_box = view_box
        self._checkpoints = checkpoints
        self._steps: list[tuple[int, float, str]] | None = None
        self._color = self._selected_color = QColor()
        self.setZValue(15)
        self.setAcceptedMouseButtons(Qt.MouseButton.NoButton)

    def restyle(self, colors: Palette) -> None:
        """Take the theme's colours."""
        self._color, self._selected_color = QColor(colors.dim), QColor(colors.accent)
        self.update()

    def forget(self) -> None:
        """Look at the checkpoints anew when they are drawn: there are others now."""
        self._steps = None
        self.update()

    def nearest(self, step: float) -> CheckpointInfo | None:
        """Return the whole checkpoint that was saved nearest to a step, the newest of several; None without any."""
        whole = [each for each in self._sorted() if not self._checkpoints.present.problems.get(each[2])]
        if not whole:
            return None
        place = bisect.bisect(whole, step, key=lambda each: each[0])
        # The last of those at the same step is the newest.
        after = bisect.bisect(whole, whole[min(place, len(whole) - 1)][0], key=lambda each: each[0]) - 1
        near = {max(place - 1, 0), after}
        best = min(sorted(near, reverse=True), key=lambda position: abs(whole[position][0] - step))
        return self._checkpoints.present.info(whole[best][2])

    def at(self, position: QPointF) -> CheckpointInfo | None:
        """Return the checkpoint whose mark is at a position in the plot's pixels, None if there is none."""
        bounds = QRectF(self._view_box.rect())
        if not bounds.bottom() - _EDGE_PX <= position.y() <= bounds.bottom() + _REACH_PX:
            return None
        pixel = self._view_box.mapToView(QPointF(1, 0)).x() - self._view_box.mapToView(QPointF(0, 0)).x()
        step = self._view_box.mapToView(position).x()
        listed = self._sorted()
        place = bisect.bisect(listed, step, key=lambda each: each[0])
        near = [each for each in listed[max(0, place - 1) : place + 1] if abs(each[0] - step) <= _REACH_PX * pixel]
        if not near:
            return None
        found = min(near, key=lambda each: abs(each[0] - step))[0]
        newest = bisect.bisect(listed, found, key=lambda each: each[0]) - 1
        return self._checkpoints.present.info(listed[newest][2])

    def point_at(self, position: QPointF) -> None:
        """Have the tooltip name the checkpoint whose mark is at a position in the plot's pixels."""
        info = self.at(position)
        self.setToolTip("" if info is None else mark_text(info))

    def boundingRect(self) -> QRectF:
        """Return the whole plot: the marks are drawn where they are wanted."""
        return QRectF(self._view_box.rect())

    def shape(self) -> QPainterPath:
        """Return where the tooltip answers."""
        path, bounds = QPainterPath(), self.boundingRect()
        path.addRect(QRectF(bounds.left(), bounds.bottom() - _EDGE_PX, bounds.width(), _EDGE_PX))
        return path

    def paint(self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None) -> None:
        """Draw the marks that the plot shows, those of selected rows last."""
        (first, last), bounds = self._view_box.viewRange()[0], self.boundingRect()
        listed, present = self._sorted(), self._checkpoints.present.path
        selected = {key.name for key in self._checkpoints.selected_keys if key.run_dir == present}
        start = bisect.bisect_left(listed, first, key=lambda each: each[0])
        end = bisect.bisect(listed, last, key=lambda each: each[0])
        left, scale = self._view_box.mapFromView(QPointF(0, 0)).x(), bounds.width() / max(last - first, 1e-9)
        places: dict[int, bool] = {}
        for step, _, name in listed[start:end]:
            # On whole pixels: of many on one, one is drawn.
            x = round(left + step * scale)
            places[x] = places.get(x, False) or name in selected
        for x, is_selected in sorted(places.items(), key=lambda place: place[1]):
            self._draw(painter, QPointF(x, bounds.bottom()), bounds.top(), is_selected=is_selected)

    def _draw(self, painter: QPainter, foot: QPointF, top: float, *, is_selected: bool) -> None:
        scale = _LARGE if is_selected else 1.0
        color = self._selected_color if is_selected else self._color
        if is_selected:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
            painter.setPen(QPen(_faint(color), 1.0))
            painter.drawLine(QPointF(foot.x(), top), foot)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(color)
        width, height = scale * _HALF_WIDTH, scale * _HEIGHT
        corners = QPointF(-width, 0), QPointF(width, 0), QPointF(0, -height)
        painter.drawPolygon(QPolygonF([foot + corner for corner in corners]))

    def _sorted(self) -> list[tuple[int, float, str]]:
        if self._steps is None:
            infos = self._checkpoints.present.infos
            self._steps = sorted((info.step, info.saved_at, info.name) for info in infos)
        return self._steps


def _faint(color: QColor) -> QColor:
    faint = QColor(color)
    faint.setAlpha(_LINE_ALPHA)
    return faint


def mark_text(info: CheckpointInfo) -> str:
    """Name a checkpoint by where it was saved: "epoch 5, step 230"."""
    text = QCoreApplication.translate("MetricPlot", "Checkpoint of epoch {epoch}, step {step}")
    return text.format(epoch=count_text(info.epoch), step=count_text(info.step))
