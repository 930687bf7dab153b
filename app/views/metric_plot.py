"""MetricPlot: one quantity over the run, train and validation, with a header that holds its figures."""

from __future__ import annotations

import math
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, Qt, Signal
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import QMenu, QVBoxLayout, QWidget

from app.theme import SIZE_SMALL, SPACE, palette_of, text_font
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.metric_history import Marker, MetricHistory
from app.viewmodels.pyramid import Floats
from app.viewmodels.quantities import count_text
from app.viewmodels.trace import Points
from app.views.metric_header import MetricHeader, Quantity
from app.views.plot_axis import PlotAxis
from app.views.plot_checkpoints import CheckpointMarks
from app.views.plot_markers import EpochLines, MarkerItem, marker_text, place_markers

MAX_POINTS = 2000
_MAX_SYMBOLS = 200
_RAW_ALPHA = 95
_ABANDONED_ALPHA = 190
_ABANDONED_DASHES = [5, 3]
# A spike of the raw values may leave the plot; the curves themselves never do.
_SPIKE_LIMIT = 3.0
_LOG_LIMITS = (-30.0, 30.0)
_LINEAR_LIMIT = 1e12
_MIN_HEIGHT_FOR_TITLES = 170


class MetricPlot(QWidget):
    """Draws one quantity from the history. It draws when told to; what it shows of the steps is set from outside."""

    range_changed = Signal()
    """The plot shows another stretch of steps, or has another size: it must be drawn anew."""
    moved_by_hand = Signal()
    """The user panned or zoomed."""
    rewind_requested = Signal(int)
    """The run is to go back to just before this change, by its number."""
    restore_requested = Signal(str)
    """This checkpoint, by its name, is to be put into the run."""
    hovered = Signal(object)
    """The pointer is at this step (float), or has left (None)."""

    def __init__(
        self,
        history: MetricHistory,
        quantity: Quantity,
        checkpoints: CheckpointItemModel,
        choices: QMenu | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._history = history
        self._quantity = quantity
        self._checkpoints = checkpoints
        self.is_log = False
        self._marker_items: list[MarkerItem] = []
        self._pointed: MarkerItem | None = None
        self._x_axis = PlotAxis("bottom", is_whole=True)
        self._y_axis = PlotAxis("left")
        self.plot = _PlotWidget(axisItems={"bottom": self._x_axis, "left": self._y_axis})
        self.view_box = self.plot.getPlotItem().getViewBox()
        self._header = MetricHeader(quantity, choices)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACE)
        layout.addWidget(self._header)
        layout.addWidget(self.plot, 1)
        self._make_items()
        self._restyle()
        self.view_box.sigRangeChanged.connect(self._on_range_changed)
        self.view_box.sigResized.connect(self._on_range_changed)
        self.view_box.sigRangeChangedManually.connect(self.moved_by_hand)
        self.plot.scene().sigMouseMoved.connect(self._on_mouse_moved)
        self.plot.scene().sigMouseClicked.connect(self._on_mouse_clicked)
        self.plot.left.connect(self._on_mouse_left)

    # -- what the view tells it -------------------------------------------------------------------------------

    @property
    def quantity(self) -> Quantity:
        """Return what the plot shows."""
        return self._quantity

    def set_quantity(self, quantity: Quantity) -> None:
        """Show another quantity of the run, from the next ``redraw`` on."""
        self._quantity = quantity
        self._header.show_quantity(quantity)
        self._header.show_step(None, self._history, quantity)
        self.view_box.setYRange(0, 1e-9, padding=0)
        self._restyle()

    def redraw(self, *, fits_values: bool) -> None:
        """Draw the present stretch of steps; ``fits_values`` lets the value axis follow what is there."""
        first, last = self.view_box.viewRange()[0]
        train, validated, smoothing = self._quantity.train_tag, self._quantity.validation_tag, self._history.smoothing
        max_points = int(min(MAX_POINTS, max(400, 2 * self.view_box.width())))
        raw = self._history.query(train, first, last, max_points)
        smoothed = self._history.query(train, first, last, max_points // 2, smoothed=True)
        validation = self._history.query(validated, first, last, max_points // 2)
        left_train = self._history.query_abandoned(train, first, last, smoothed=True)
        left_validation = self._history.query_abandoned(validated, first, last)
        if fits_values:
            self._fit_values(raw, [smoothed, validation])
        self._raw.setVisible(smoothing > 0)
        for curve, points in (
            (self._raw, raw),
            (self._smoothed, smoothed),
            (self._validation, validation),
            (self._left_train, left_train),
            (self._left_validation, left_validation),
        ):
            curve.setData(points.steps, self._drawn(points.values), connect="finite")
        has_symbols = len(validation) <= _MAX_SYMBOLS
        drawn, is_shown = self._drawn(validation.values), np.isfinite(self._drawn(validation.values))
        self._symbols.setData(validation.steps[is_shown], drawn[is_shown])
        self._symbols.setVisible(has_symbols)
        self._header.show_figures(self._history, self._quantity)

    def refresh_markers(self) -> None:
        """Take over the history's markers and the length of its epochs."""
        drawn, self._marker_items = self._marker_items, []
        for item, marker in zip_longest(drawn, self._history.markers):
            if item is not None and item.marker != marker:
                self.plot.scene().removeItem(item)
            if marker is not None:
                is_drawn = item is not None and item.marker == marker
                self._marker_items.append(item if is_drawn else self._new_marker(marker))
        self._epoch_lines.steps_per_epoch = self._history.steps_per_epoch
        self._epoch_lines.update()
        if self._pointed not in self._marker_items:
            self._pointed = None
        place_markers(self._marker_items, self.view_box, self._pointed)

    def set_log(self, is_log: bool) -> None:
        """Draw decimal logarithms. What is not positive has none and is left out."""
        self.is_log = self._y_axis.is_log = is_log
        low, high = _LOG_LIMITS if is_log else (-_LINEAR_LIMIT, _LINEAR_LIMIT)
        # Without limits, zooming out on logarithms overflows the axis and hangs the program.
        self.view_box.setLimits(yMin=low, yMax=high, minYRange=1e-6, maxYRange=high - low)
        self._y_axis.picture = None
        self._y_axis.update()

    def set_epochs_shown(self, steps_per_epoch: int) -> None:
        """Write epochs of this many steps on the lower axis, or steps (0)."""
        scale = 1 / steps_per_epoch if steps_per_epoch else 1.0
        if scale == self._x_axis.scale:
            return
        self._x_axis.setScale(scale)
        self._x_axis.picture = None
        self._restyle()

    def show_step(self, step: float | None) -> None:
        """Stand the crosshair at a step and write its values in the header; None takes it away."""
        self._crosshair.setVisible(step is not None)
        if step is not None:
            self._crosshair.setValue(step)
        self._header.show_step(step, self._history, self._quantity)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Leave out the axes' titles where the curves need their room."""
        super().resizeEvent(event)
        for axis in (self._x_axis, self._y_axis):
            axis.set_title_shown(self.height() >= _MIN_HEIGHT_FOR_TITLES)

    def changeEvent(self, event: QEvent) -> None:
        """Follow the theme: pyqtgraph does not by itself."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._restyle()

    # -- inside -----------------------------------------------------------------------------------------------

    def _make_items(self) -> None:
        item = self.plot.getPlotItem()
        item.setMenuEnabled(False)
        item.hideButtons()
        # Room for the upper half of the uppermost number and the right half of the last one.
        item.setContentsMargins(0, 6, 8, 0)
        self.view_box.disableAutoRange()
        self.view_box.setDefaultPadding(0)
        self._epoch_lines = EpochLines(self.view_box)
        self._marks = CheckpointMarks(self.view_box, self._checkpoints)
        for signal in (self._checkpoints.rowsInserted, self._checkpoints.modelReset):
            signal.connect(self._marks.forget)
        self._checkpoints.selected.connect(self._marks.update)
        self._left_train, self._left_validation = pg.PlotCurveItem(), pg.PlotCurveItem()
        self._raw = pg.PlotCurveItem(antialias=False)
        self._smoothed = pg.PlotCurveItem(antialias=True)
        self._validation = pg.PlotCurveItem(antialias=True)
        self._symbols = pg.ScatterPlotItem(size=8, pxMode=True)
        self._crosshair = pg.InfiniteLine(angle=90, movable=False)
        self._crosshair.hide()
        for drawn in (
            self._left_train,
            self._left_validation,
            self._raw,
            self._smoothed,
            self._validation,
            self._symbols,
            self._crosshair,
        ):
            item.addItem(drawn, ignoreBounds=True)
        self.set_log(False)

    def _restyle(self) -> None:
        colors = palette_of(self)
        font = text_font(SIZE_SMALL)
        self.plot.setAccessibleName(self._quantity.title)
        self.plot.setBackground(colors.panel)
        is_in_epochs = self._x_axis.scale != 1.0
        self._x_axis.restyle(colors.dim, colors.line, font, self.tr("epoch") if is_in_epochs else self.tr("step"))
        self._y_axis.restyle(colors.dim, colors.line, font, self._quantity.axis_title)
        self._raw.setPen(pg.mkPen(_faint(colors.train, _RAW_ALPHA), width=1))
        self._smoothed.setPen(pg.mkPen(colors.train, width=2))
        self._validation.setPen(pg.mkPen(colors.validation, width=2))
        self._symbols.setPen(pg.mkPen(colors.panel, width=1))
        self._symbols.setBrush(pg.mkBrush(colors.validation))
        self._crosshair.setPen(pg.mkPen(colors.dim, width=1))
        for curve, color in ((self._left_train, colors.train), (self._left_validation, colors.validation)):
            # Broken rather than faint: on a dark ground a faint line of one pixel is not to be seen.
            curve.setPen(pg.mkPen(_faint(color, _ABANDONED_ALPHA), width=1, dash=_ABANDONED_DASHES))
        self._epoch_lines.restyle(colors)
        self._marks.restyle(colors)
        for marker in self._marker_items:
            marker.restyle(colors)
        self._header.restyle(colors)

    def _new_marker(self, marker: Marker) -> MarkerItem:
        item = MarkerItem(self.view_box, marker, text_font(SIZE_SMALL), has_label=self._quantity.has_marker_labels)
        item.restyle(palette_of(self))
        return item

    def _drawn(self, values: Floats) -> Floats:
        scaled = values * self._quantity.factor
        if not self.is_log:
            return np.where(np.isfinite(scaled), scaled, np.nan)
        positive = np.where(scaled > 0, scaled, np.nan)
        return np.log10(np.where(np.isfinite(positive), positive, np.nan))

    def _fit_values(self, raw: Points, curves: list[Points]) -> None:
        values = self._drawn(np.concatenate([points.values for points in curves]))
        values = values[np.isfinite(values)]
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        measured = self._drawn(raw.values)
        measured = measured[np.isfinite(measured)]
        if len(measured):
            spike = (high - low) * (_SPIKE_LIMIT - 1) + abs(high) * 0.05
            low = max(min(low, float(measured.min())), low - spike)
            high = min(max(high, float(measured.max())), high + spike)
        shown_low, shown_high = self.view_box.viewRange()[1]
        is_inside = shown_low <= low and high <= shown_high
        low, high = self._with_room(low, high)
        # The axis stays where it is until the curve leaves it, or has become small in it.
        if not is_inside or (high - low) < 0.6 * (shown_high - shown_low):
            self.view_box.setYRange(low, high, padding=0)

    def _with_room(self, low: float, high: float) -> tuple[float, float]:
        room = max((high - low) * 0.06, abs(high) * 1e-3, 1e-9)
        if self.is_log:
            return low - max(room, 0.05), high + max(room, 0.05)
        largest = self._quantity.largest
        if largest is not None:
            step = largest / 10
            return max(math.floor(low / step) * step, 0.0), largest * 1.02
        return (0.0 if low >= 0 else low - room), high + room

    def _on_range_changed(self, *_: object) -> None:
        place_markers(self._marker_items, self.view_box, self._pointed)
        for item in (self._epoch_lines, self._marks):
            item.prepareGeometryChange()
            item.update()
        self.range_changed.emit()

    def _on_mouse_moved(self, position: QPointF) -> None:
        is_inside = self.view_box.sceneBoundingRect().contains(position)
        self._marks.point_at(self.view_box.mapFromScene(position))
        self._point_at(self._markers_at(position)[-1:])
        self.hovered.emit(self.view_box.mapSceneToView(position).x() if is_inside else None)

    def _on_mouse_left(self) -> None:
        self._point_at([])
        self.hovered.emit(None)

    def _point_at(self, items: list[MarkerItem]) -> None:
        pointed = items[0] if items else None
        if pointed is not self._pointed:
            self._pointed = pointed
            place_markers(self._marker_items, self.view_box, pointed)

    def _markers_at(self, position: QPointF) -> list[MarkerItem]:
        """Return the markers at a position in the plot's pixels, the one whose line is nearest last."""
        box = self.view_box.mapFromScene(position)
        found = [item for item in self._marker_items if item.isVisible() and item.shape().contains(box)]
        # A label is on top of the lines that it covers.
        return sorted(found, key=lambda item: (item.label_rect.contains(box), -abs(item.x_px - box.x())))

    def marker_menu(self, position: QPointF) -> QMenu | None:
        """Return what can be done with the intervention at a position in the plot's pixels, None if there is none."""
        marked = [item.marker for item in self._markers_at(position) if item.marker.can_rewind]
        if not marked:
            return None
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for marker in marked:
            text = self.tr("Rewind to before: {}").format(marker_text(marker))
            # An ampersand in a name would underline the letter after it.
            menu.addAction(text.replace("&", "&&"), partial(self.rewind_requested.emit, marker.change))
        return menu

    def _on_mouse_clicked(self, event: Any) -> None:
        position = event.scenePos()
        if event.button() == Qt.MouseButton.RightButton:
            menu = self.step_menu(position)
        else:
            marked = self._marks.at(self.view_box.mapFromScene(position))
            if marked is not None:
                event.accept()
                self._select(marked.name)
                return
            menu = self.marker_menu(position)
        if menu is not None:
            event.accept()
            menu.popup(event.screenPos().toPoint())

    def _select(self, name: str) -> None:
        self._checkpoints.selection_wanted.emit([self._checkpoints.present.key(name)])

    def step_menu(self, position: QPointF) -> QMenu | None:
        """Return what can be done at a position in the plot's pixels: with the intervention there, and the step."""
        menu = self.marker_menu(position)
        if not self.view_box.sceneBoundingRect().contains(position):
            return menu
        info = self._marks.nearest(self.view_box.mapSceneToView(position).x())
        if info is None:
            return menu
        if menu is None:
            menu = QMenu(self)
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        place = {"epoch": count_text(info.epoch), "step": count_text(info.step)}
        restore = menu.addAction(
            self.tr("Restore the nearest checkpoint (epoch {epoch}, step {step})").format(**place),
            partial(self.restore_requested.emit, info.name),
        )
        restore.setEnabled(self._checkpoints.can_restore)
        menu.addAction(self.tr("Show it in the table"), partial(self._select, info.name))
        return menu


class _PlotWidget(pg.PlotWidget):  # type: ignore[misc]  # pyqtgraph has no types
    left = Signal()
    """The pointer has left the plot."""

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.left.emit()


def _faint(color: str, alpha: int) -> QColor:
    faint = QColor(color)
    faint.setAlpha(alpha)
    return faint
