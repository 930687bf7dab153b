"""PlanTimelineView: the phases of the run's plan over the curves, the present one marked."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QHelpEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app import theme
from app.viewmodels.plan_timeline import PlanTimeline, Stage

_LEAST_WIDTH = 84
_HEIGHT = 10 * theme.SPACE
_BAR_HEIGHT = 3
_GAP = 2


class PlanTimelineView(QWidget):
    """One row of stages of the same width: those that have room, the present one among them."""

    def __init__(self, timeline: PlanTimeline, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._timeline = timeline
        self._stages: list[Stage] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        timeline.changed.connect(self._show)
        self._show()

    def sizeHint(self) -> QSize:
        """Ask for one row."""
        return QSize(4 * _LEAST_WIDTH, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        """Give way in width: stages that have no room are counted at the ends."""
        return QSize(_LEAST_WIDTH, _HEIGHT)

    def shown(self) -> list[tuple[Stage, QRect]]:
        """Return the stages that have room, with their places."""
        num_shown = max(min(len(self._stages), self.width() // _LEAST_WIDTH), 1)
        present = next((idx for idx, stage in enumerate(self._stages) if stage.is_present), 0)
        # One that is past, the present one, and as many of those to come as have room.
        first = min(max(present - 1, 0), max(len(self._stages) - num_shown, 0))
        width = self.width() / num_shown
        return [
            (stage, QRect(round(position * width), 0, round(width) - _GAP, self.height()))
            for position, stage in enumerate(self._stages[first : first + num_shown])
        ]

    def event(self, event: QEvent) -> bool:
        """Say all of a stage in its tooltip."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            found = next((stage for stage, place in self.shown() if place.contains(event.pos())), None)
            QToolTip.showText(event.globalPos(), found.sentence if found else "", self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the stages."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colors = theme.palette_of(self)
        for stage, place in self.shown():
            self._paint_stage(painter, stage, place, colors)
        painter.end()

    def _paint_stage(self, painter: QPainter, stage: Stage, place: QRect, colors: theme.Palette) -> None:
        bar = QRect(place.left(), place.top(), place.width(), _BAR_HEIGHT)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colors.accent if stage.is_past or stage.is_present else colors.line))
        if not stage.is_never:
            painter.drawRoundedRect(bar, 1.5, 1.5)
        font = QFont(self.font())
        font.setPixelSize(theme.SIZE_LABEL)
        font.setWeight(QFont.Weight.DemiBold if stage.is_present else QFont.Weight.Normal)
        font.setStrikeOut(stage.is_never)
        line_height = (place.height() - 2 * _BAR_HEIGHT) // 2
        line = QRect(place.left(), bar.bottom() + _BAR_HEIGHT, place.width() - theme.SPACE, line_height)
        self._write(painter, line, stage.what, font, colors.text if stage.is_present else colors.dim)
        small = QFont(self.font())
        small.setPixelSize(theme.SIZE_SMALL)
        small.setStrikeOut(stage.is_never)
        when = self.tr("{} · changed by hand").format(stage.when) if stage.is_by_hand else stage.when
        self._write(painter, line.translated(0, line_height), when, small, colors.dim)

    def _write(self, painter: QPainter, line: QRect, text: str, font: QFont, color: str) -> None:
        painter.setFont(font)
        painter.setPen(QColor(color))
        shown = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, line.width())
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)

    def _show(self) -> None:
        self._stages = self._timeline.stages
        self.setVisible(bool(self._stages))
        present = next((stage for stage in self._stages if stage.is_present), None)
        name = self.tr("Plan, phase {} of {}: {}")
        position = self._stages.index(present) + 1 if present else 0
        said = [name.format(position, len(self._stages), present.sentence)] if present else []
        num_never = sum(stage.is_never for stage in self._stages)
        if num_never:
            said.append(self.tr("%n phase(s) never come: the run ends before.", "", num_never))
        self.setAccessibleName(" ".join(said))
        self.update()
