"""MetricHistory: every curve of the run and the interventions on it. Holds arrays; emits one signal a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

from PySide6.QtCore import QObject, QTimer, Signal

from app.viewmodels.pyramid import Floats, Ints
from app.viewmodels.quantities import rate_text
from app.viewmodels.smoothing import MAX_WEIGHT
from app.viewmodels.tag_points import NO_POINTS, TagPoints
from app.viewmodels.trace import Points, Trace
from trainer.lineage import Lineage
from trainer.messages.changes import (
    CheckpointRestored,
    FreezeChanged,
    LayersFrozen,
    LayersUnfrozen,
    RateChanged,
    RateMultiplierChanged,
)
from trainer.messages.events import MetricsLogged
from trainer.run_record import Curve, RunRecord

DEFAULT_SMOOTHING = 0.88
# Indexing and smoothing 25,000 points takes some 10 ms: the window stays free while a long run is opened.
_POINTS_A_SLICE = 25_000


@dataclass(frozen=True)
class Marker:
    """An intervention on the run, at the step where it took hold.

    ``is_abandoned``: it did not lead to where the run is, which went back before it or on from elsewhere.
    ``kind`` is "freeze", "unfreeze", "rate", "multiplier" or "weights". ``change`` is the number of the change, 0 if
    it has none; the run can go back to the state before it if ``can_rewind``.
    """

    applied_step: int
    requested_step: int
    sentence: str
    kind: str
    source: str
    segment: int
    change: int = 0
    is_abandoned: bool = False
    can_rewind: bool = False


@dataclass(frozen=True)
class Best:
    """The best value of a tag and the step at which it was measured."""

    step: int
    value: float


@dataclass(frozen=True)
class ExportedPiece:
    """All points of one unbroken piece of a tag, for a file."""

    tag: str
    is_abandoned: bool
    steps: Ints
    values: Floats


class MetricHistory(QObject):
    """The points of every tag, by step, with what a restore left behind, the markers and the run's length."""

    changed = Signal()
    """There are other points, another smoothing, or another length of the run to draw. At most one a call."""
    markers_changed = Signal()
    """There are other markers to draw."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._tags: dict[str, TagPoints] = {}
        self._lineage = Lineage()
        self._markers: list[Marker] = []
        self._rewinds: frozenset[int] = frozenset()
        self.smoothing = DEFAULT_SMOOTHING
        self.steps_per_epoch = 0
        self.total_steps = 0
        # An interval of zero comes back when nothing else waits, so that a long run is taken in between two clicks.
        self._catch_up = QTimer(self)
        self._catch_up.setInterval(0)
        self._catch_up.timeout.connect(self._advance)

    # -- what comes in ----------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything, for a new run. The smoothing is the user's and stays."""
        self._tags, self._lineage, self._markers = {}, Lineage(), []
        self._rewinds = frozenset()
        self.steps_per_epoch = self.total_steps = 0
        self.changed.emit()
        self.markers_changed.emit()

    def open_run(self, record: RunRecord) -> None:
        """Show a run as its folder holds it; live events that repeat what was read are dropped afterwards."""
        self.clear()
        if record.info is not None:
            self.set_epochs(record.info.steps_per_epoch, record.info.total_steps)
        self.set_curves(record.curves, record.lineage)
        for event in record.freeze_events:
            self.add_marker(event)
        for entry in record.log:
            if isinstance(entry, RateChanged | RateMultiplierChanged | CheckpointRestored):
                self.add_marker(entry)

    def set_curves(self, curves: Mapping[str, Curve], lineage: Lineage) -> None:
        """Replace all points by those of a run's folder."""
        # A copy: the record stays as it was read.
        self._lineage = deepcopy(lineage)
        self._tags = {tag: TagPoints.of(curve, partial(self._new_trace, tag)) for tag, curve in curves.items()}
        self._advance()

    def add(self, event: MetricsLogged) -> None:
        """Add a batch of measurements. What is here already, or belongs to a segment that was left, is dropped."""
        if event.segment < self._lineage.segment or not event.series:
            return
        if event.segment > self._lineage.segment:
            first_steps = [series.steps[0] for series in event.series.values() if series.steps]
            self.restore(min(first_steps, default=0) - 1, event.segment)
        for tag, series in event.series.items():
            points = self._tags.get(tag)
            if points is None:
                points = self._tags[tag] = TagPoints(partial(self._new_trace, tag))
            points.append(event.segment, series.steps, series.values)
        self._advance()

    def restore(self, step: int, segment: int, parent: int | None = None, change: int | None = None) -> None:
        """Go on from ``step`` of the segment ``parent`` in a new one: what did not lead there is abandoned.

        Without a parent, it is the segment before. ``change`` is the number of the first change that is undone by it,
        where it was one just after ``step``.
        """
        if segment < self._lineage.segment or segment == 0:
            return
        self._lineage.begin(segment, step, parent, change)
        path = self._lineage.path()
        for points in self._tags.values():
            points.follow(path)
        self._set_markers([self._seen_from_here(known) for known in self._markers])
        self._advance()

    def add_marker(self, event: FreezeChanged | RateChanged | RateMultiplierChanged | CheckpointRestored) -> None:
        """Mark a freeze, an unfreeze, another rate or restored weights.

        What changed nothing, or is here already, is dropped.
        """
        if isinstance(event, CheckpointRestored):
            # One that was restored as a whole shows as a piece of the curve that was left.
            if event.weights_only:
                self._mark(self._weights_marker(event))
            return
        if isinstance(event, RateChanged):
            has_changed, kind, source = event.rate != event.before, "rate", "user"
            sentence = self.tr("rate {}").format(rate_text(event.rate))
        else:
            has_changed, sentence, source = bool(event.layers), event.sentence, event.source
            kind = _KINDS[type(event)]
        if not has_changed:
            return
        self._mark(
            Marker(
                applied_step=event.applied_step,
                requested_step=event.requested_step,
                sentence=sentence,
                kind=kind,
                source=source,
                segment=event.segment,
                change=event.change,
            )
        )

    def _weights_marker(self, event: CheckpointRestored) -> Marker:
        sentence = self.tr("weights restored")
        return Marker(event.step, event.step, sentence, "weights", "user", event.segment, event.change)

    def _mark(self, marker: Marker) -> None:
        if any(replace(known, is_abandoned=False, can_rewind=False) == marker for known in self._markers):
            return
        self._markers.append(self._seen_from_here(marker))
        self.markers_changed.emit()

    def set_rewinds(self, changes: Sequence[int]) -> None:
        """Say before which changes, by their numbers, the worker keeps the state."""
        self._rewinds = frozenset(changes)
        self._set_markers([self._seen_from_here(known) for known in self._markers])

    def set_epochs(self, steps_per_epoch: int, total_steps: int = 0) -> None:
        """Say how long an epoch is, and the run if that is known, in steps."""
        self.steps_per_epoch, self.total_steps = steps_per_epoch, total_steps
        self.changed.emit()

    def set_smoothing(self, weight: float) -> None:
        """Smooth the train curves anew. The weight goes from 0 (as measured) to 0.99."""
        self.smoothing = min(max(weight, 0.0), MAX_WEIGHT)
        for trace in self._all_traces():
            trace.set_weight(self.smoothing)
        self._advance()

    # -- what is drawn ----------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether there is no point to draw."""
        return not any(len(points.line) for points in self._tags.values())

    @property
    def is_catching_up(self) -> bool:
        """Whether some points are not ready to be drawn yet; ``changed`` comes as they are."""
        return self._catch_up.isActive()

    @property
    def last_step(self) -> int:
        """Return the last step of which anything is known, abandoned pieces included; 0 before the first."""
        return max((trace.last_step for trace in self._all_traces()), default=0)

    @property
    def markers(self) -> Sequence[Marker]:
        """Return the interventions in the order in which they came."""
        return self._markers

    def has(self, tag: str) -> bool:
        """Return whether there is a point of a tag on the run's own line."""
        return tag in self._tags and len(self._tags[tag].line) > 0

    def query(
        self, tag: str, first_step: float, last_step: float, max_points: int = 2000, *, smoothed: bool = False
    ) -> Points:
        """Return about ``max_points`` points at most that show a tag between two steps, with every peak."""
        points = self._tags.get(tag)
        return points.line.query(first_step, last_step, max_points, smoothed=smoothed) if points else NO_POINTS

    def query_abandoned(
        self, tag: str, first_step: float, last_step: float, max_points: int = 500, *, smoothed: bool = False
    ) -> Points:
        """Return what was left behind between two steps: pieces with a gap after each."""
        points = self._tags.get(tag)
        if points is None:
            return NO_POINTS
        return points.query_abandoned(self._lineage, first_step, last_step, max_points, smoothed=smoothed)

    def at(self, tag: str, step: float, *, smoothed: bool = False) -> tuple[int, float] | None:
        """Return a tag's last (step, value) at or before a step, or its first; None if there is none."""
        points = self._tags.get(tag)
        return points.line.at(step, smoothed=smoothed) if points else None

    def best(self, tag: str) -> Best | None:
        """Return the lowest loss, or the highest of any other metric, that is on the run's own line."""
        points = self._tags.get(tag)
        found = points.line.extreme(is_lowest=tag.startswith("Loss")) if points else None
        return Best(*found) if found else None

    def all_points(self) -> list[ExportedPiece]:
        """Return copies of all points, tag by tag, each tag's own line before its abandoned pieces."""
        return [
            ExportedPiece(tag, trace is not points.line, trace.steps.copy(), trace.values.copy())
            for tag, points in sorted(self._tags.items())
            for trace in points.traces
        ]

    # -- inside -----------------------------------------------------------------------------------------------

    def _new_trace(self, tag: str) -> Trace:
        # Validation comes once an epoch: smoothing it would hide what was measured.
        return Trace(self.smoothing if tag.endswith("/train") else None)

    def _all_traces(self) -> list[Trace]:
        return [trace for points in self._tags.values() for trace in points.traces]

    def _seen_from_here(self, marker: Marker) -> Marker:
        is_abandoned = not self._lineage.led_here(marker.segment, marker.applied_step, marker.change)
        can_rewind = marker.change in self._rewinds and not is_abandoned
        return replace(marker, is_abandoned=is_abandoned, can_rewind=can_rewind)

    def _set_markers(self, markers: list[Marker]) -> None:
        if markers != self._markers:
            self._markers = markers
            self.markers_changed.emit()

    def _advance(self) -> None:
        budget = _POINTS_A_SLICE
        traces = self._all_traces()
        for trace in traces:
            if budget > 0:
                budget -= trace.advance(budget)
        if all(trace.is_ready for trace in traces):
            self._catch_up.stop()
        elif not self._catch_up.isActive():
            self._catch_up.start()
        self.changed.emit()


_KINDS: dict[type, str] = {LayersFrozen: "freeze", LayersUnfrozen: "unfreeze", RateMultiplierChanged: "multiplier"}
