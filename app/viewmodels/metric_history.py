"""MetricHistory: every curve of the run and the interventions on it. Holds arrays; emits one signal a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QObject, QTimer, Signal

from app.viewmodels.pyramid import Floats, Ints
from app.viewmodels.quantities import rate_text
from app.viewmodels.smoothing import MAX_WEIGHT
from app.viewmodels.trace import Points, Trace
from trainer.messages.changes import (
    CheckpointRestored,
    FreezeChanged,
    LayersFrozen,
    LayersUnfrozen,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    StateRestored,
)
from trainer.messages.events import MetricsLogged
from trainer.run_record import Curve, RunRecord

DEFAULT_SMOOTHING = 0.88
# Indexing and smoothing 25,000 points takes some 10 ms: the window stays free while a long run is opened.
_POINTS_A_SLICE = 25_000


@dataclass(frozen=True)
class Marker:
    """An intervention on the run, at the step where it took hold.

    ``abandoned_by`` is the segment that began as a restore or a rewind went back before it, None if none has.
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
    abandoned_by: int | None = None
    can_rewind: bool = False

    @property
    def is_abandoned(self) -> bool:
        """Whether the run went back before it."""
        return self.abandoned_by is not None


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
        self._traces: dict[str, Trace] = {}
        # By the segment that began as they were left behind.
        self._abandoned: dict[str, dict[int, Trace]] = {}
        self._segment = 0
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
        self._traces, self._abandoned, self._markers, self._segment = {}, {}, [], 0
        self._rewinds = frozenset()
        self.steps_per_epoch = self.total_steps = 0
        self.changed.emit()
        self.markers_changed.emit()

    def open_run(self, record: RunRecord) -> None:
        """Show a run as its folder holds it; live events that repeat what was read are dropped afterwards."""
        self.clear()
        if record.info is not None:
            self.set_epochs(record.info.steps_per_epoch, record.info.total_steps)
        self.set_curves(record.curves, record.segment)
        for event in record.freeze_events:
            self.add_marker(event)
        for entry in record.log:
            if isinstance(entry, RateChanged | RateMultiplierChanged | CheckpointRestored):
                self.add_marker(entry)
        for entry in record.log:
            if isinstance(entry, RewindUndone):
                self._take_markers_back(entry.undone_segment)
            elif isinstance(entry, StateRestored):
                self._abandon_markers(entry.step, entry.segment, _change_of(entry))

    def set_curves(self, curves: dict[str, Curve], segment: int = 0) -> None:
        """Replace all points by those of a run's folder, which was read in ``segment``."""
        self._segment = segment
        self._traces = {tag: self._new_trace(tag, curve.steps, curve.values) for tag, curve in curves.items()}
        self._abandoned = {
            tag: {by: self._new_trace(tag, steps, values) for by, (steps, values) in curve.abandoned.items()}
            for tag, curve in curves.items()
        }
        self._advance()

    def add(self, event: MetricsLogged) -> None:
        """Add a batch of measurements. What is here already, or belongs to a segment that was left, is dropped."""
        if event.segment < self._segment or not event.series:
            return
        if event.segment > self._segment:
            first_steps = [series.steps[0] for series in event.series.values() if series.steps]
            self.restore(min(first_steps, default=0) - 1, event.segment)
        for tag, series in event.series.items():
            trace = self._traces.get(tag)
            if trace is None:
                trace = self._traces[tag] = self._new_trace(tag)
            trace.append(series.steps, series.values)
        self._advance()

    def restore(self, step: int, segment: int, change: int | None = None) -> None:
        """Go on from ``step`` in a new segment: the points after it become abandoned pieces.

        ``change`` is the number of the first change that is undone by it, where it was one just after ``step``.
        """
        if segment <= self._segment:
            return
        self._segment = segment
        self._cut_after(step)
        self._abandon_markers(step, segment, change)
        self._advance()

    def undo_rewind(self, event: RewindUndone) -> None:
        """Go on in a new segment from what a rewind had left behind; what came of the rewind is abandoned in turn."""
        if event.segment <= self._segment:
            return
        self._segment = event.segment
        self._cut_after(event.undone_step)
        for tag, pieces in self._abandoned.items():
            piece = pieces.pop(event.undone_segment, None)
            if piece is not None:
                self._traces[tag].append(piece.steps, piece.values)
        self._take_markers_back(event.undone_segment)
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
        if any(replace(known, abandoned_by=None, can_rewind=False) == marker for known in self._markers):
            return
        self._markers.append(replace(marker, can_rewind=self._can_rewind(marker)))
        self.markers_changed.emit()

    def set_rewinds(self, changes: Sequence[int]) -> None:
        """Say before which changes, by their numbers, the worker keeps the state."""
        self._rewinds = frozenset(changes)
        self._set_markers([replace(known, can_rewind=self._can_rewind(known)) for known in self._markers])

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
        return not any(len(trace) for trace in self._traces.values())

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
        return tag in self._traces and len(self._traces[tag]) > 0

    def query(
        self, tag: str, first_step: float, last_step: float, max_points: int = 2000, *, smoothed: bool = False
    ) -> Points:
        """Return about ``max_points`` points at most that show a tag between two steps, with every peak."""
        trace = self._traces.get(tag)
        return trace.query(first_step, last_step, max_points, smoothed=smoothed) if trace else _NO_POINTS

    def query_abandoned(
        self, tag: str, first_step: float, last_step: float, max_points: int = 500, *, smoothed: bool = False
    ) -> Points:
        """Return what restores left behind between two steps: pieces with a gap after each."""
        pieces = [
            piece.query(first_step, last_step, max_points, smoothed=smoothed)
            for piece in self._abandoned.get(tag, {}).values()
        ]
        pieces = [piece for piece in pieces if len(piece)]
        if not pieces:
            return _NO_POINTS
        gap = np.array([np.nan])
        return Points(
            np.concatenate([part for piece in pieces for part in (piece.steps, piece.steps[-1:])]),
            np.concatenate([part for piece in pieces for part in (piece.values, gap)]),
        )

    def at(self, tag: str, step: float, *, smoothed: bool = False) -> tuple[int, float] | None:
        """Return a tag's last (step, value) at or before a step, or its first; None if there is none."""
        trace = self._traces.get(tag)
        return trace.at(step, smoothed=smoothed) if trace else None

    def best(self, tag: str) -> Best | None:
        """Return the lowest loss, or the highest of any other metric, that is on the run's own line."""
        trace = self._traces.get(tag)
        found = trace.extreme(is_lowest=tag.startswith("Loss")) if trace else None
        return Best(*found) if found else None

    def all_points(self) -> list[ExportedPiece]:
        """Return copies of all points, tag by tag, each tag's own line before its abandoned pieces."""
        return [
            ExportedPiece(tag, is_abandoned, trace.steps.copy(), trace.values.copy())
            for tag in sorted(self._traces.keys() | self._abandoned.keys())
            for is_abandoned, traces in (
                (False, [self._traces[tag]] if tag in self._traces else []),
                (True, list(self._abandoned.get(tag, {}).values())),
            )
            for trace in traces
        ]

    # -- inside -----------------------------------------------------------------------------------------------

    def _new_trace(self, tag: str, steps: npt.ArrayLike = (), values: npt.ArrayLike = ()) -> Trace:
        # Validation comes once an epoch: smoothing it would hide what was measured.
        trace = Trace(self.smoothing if tag.endswith("/train") else None)
        trace.append(steps, values)
        return trace

    def _all_traces(self) -> list[Trace]:
        return list(chain(self._traces.values(), *(pieces.values() for pieces in self._abandoned.values())))

    def _cut_after(self, step: int) -> None:
        for tag, trace in self._traces.items():
            taken = trace.cut_after(step)
            if taken is not None:
                self._abandoned.setdefault(tag, {})[self._segment] = self._new_trace(tag, *taken)

    def _abandon_markers(self, step: int, segment: int, change: int | None) -> None:
        def is_undone(known: Marker) -> bool:
            is_after = known.applied_step > step or (change is not None and known.change >= change)
            return is_after and not known.is_abandoned

        self._set_markers(
            [
                replace(known, abandoned_by=segment, can_rewind=False)
                if known.segment < segment and is_undone(known)
                else known
                for known in self._markers
            ]
        )

    def _take_markers_back(self, segment: int) -> None:
        kept = [
            replace(known, abandoned_by=None) if known.abandoned_by == segment else known for known in self._markers
        ]
        self._set_markers([replace(known, can_rewind=self._can_rewind(known)) for known in kept])

    def _can_rewind(self, marker: Marker) -> bool:
        return marker.change in self._rewinds and not marker.is_abandoned

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


def _change_of(event: StateRestored) -> int | None:
    return event.change if isinstance(event, RunRewound) else None


_KINDS: dict[type, str] = {LayersFrozen: "freeze", LayersUnfrozen: "unfreeze", RateMultiplierChanged: "multiplier"}
_NO_POINTS = Points(np.empty(0), np.empty(0))
