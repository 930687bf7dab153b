"""One tag's points: as they were measured and smoothed, both ready to be drawn at any zoom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.viewmodels.pyramid import Floats, GrowingArray, Ints, Pyramid
from app.viewmodels.smoothing import Smoother


@dataclass(frozen=True)
class Points:
    """Points to draw, in the order of their steps. A value of NaN is a gap."""

    steps: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)


class Trace:
    """The points of one tag along one line of training.

    ``append`` only copies; ``advance`` does the indexing and the smoothing in pieces, so that opening a run of a
    million steps never holds up the window. What is not yet advanced is not yet drawn.
    """

    def __init__(self, weight: float | None) -> None:
        """Make an empty trace; ``weight`` is the smoothing's, None for a tag that is never smoothed."""
        self._steps = GrowingArray(np.int64)
        self._values = GrowingArray(np.float64)
        self._pyramid = Pyramid(self._values)
        self._smoothed = None if weight is None else _Smoothed(weight)
        self._resmoothed: _Smoothed | None = None

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> Ints:
        """Return every point's step, without a copy."""
        view: Ints = self._steps.view
        return view

    @property
    def values(self) -> Floats:
        """Return every point's value as it was measured, without a copy."""
        view: Floats = self._values.view
        return view

    @property
    def last_step(self) -> int:
        """Return the step of the last point, -1 if there is none."""
        return int(self._steps.view[-1]) if len(self) else -1

    def append(self, steps: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Add points after the last one; those that repeat steps already here are dropped."""
        new_steps, new_values = np.asarray(steps, np.int64), np.asarray(values, np.float64)
        first = int(np.searchsorted(new_steps, self.last_step, side="right"))
        self._steps.write(len(self), new_steps[first:])
        self._values.write(len(self._values), new_values[first:])

    @property
    def is_ready(self) -> bool:
        """Whether every point can be drawn, smoothed with the present weight."""
        return self._pyramid.num_indexed == len(self) and self._resmoothed is None

    def advance(self, max_points: int) -> int:
        """Make about ``max_points`` more points ready to be drawn. Returns how many were worked on."""
        start = self._pyramid.num_indexed
        stop = min(len(self), start + max_points)
        self._pyramid.index_up_to(stop)
        if self._smoothed is not None:
            self._smoothed.advance(self.values, stop)
        num_worked_on = stop - start
        if self._resmoothed is not None:
            behind = self._resmoothed.num_ready
            self._resmoothed.advance(self.values, min(stop, behind + max_points))
            num_worked_on += self._resmoothed.num_ready - behind
            if self._resmoothed.num_ready == stop:
                self._smoothed, self._resmoothed = self._resmoothed, None
        return num_worked_on

    def set_weight(self, weight: float) -> None:
        """Smooth anew. The old smoothing stays on the screen until ``advance`` has caught up."""
        if self._smoothed is not None:
            self._resmoothed = _Smoothed(weight)

    def query(self, first_step: float, last_step: float, max_points: int, *, smoothed: bool) -> Points:
        """Return points that show the curve between two steps, and its nearest neighbour on each side."""
        start = max(int(np.searchsorted(self.steps, first_step, side="left")) - 1, 0)
        stop = min(int(np.searchsorted(self.steps, last_step, side="right")) + 1, len(self))
        pyramid, values = self._pyramid, self.values
        if smoothed and self._smoothed is not None:
            pyramid, values = self._smoothed.pyramid, self._smoothed.values.view
        chosen = pyramid.indices(start, stop, max_points)
        return Points(self.steps[chosen].astype(np.float64), values[chosen])

    def at(self, step: float, *, smoothed: bool) -> tuple[int, float] | None:
        """Return the last point at or before a step, or the first point; None if there is none."""
        values = self._smoothed.values.view if smoothed and self._smoothed is not None else self.values
        if not len(values):
            return None
        position = max(int(np.searchsorted(self.steps[: len(values)], step, side="right")) - 1, 0)
        return int(self.steps[position]), float(values[position])

    def extreme(self, *, is_lowest: bool) -> tuple[int, float] | None:
        """Return the point with the lowest or highest value (the first among equals), or None."""
        chosen = self._pyramid.indices(0, len(self), 1)
        chosen = chosen[np.isfinite(self.values[chosen])]
        if not len(chosen):
            return None
        values = self.values[chosen]
        position = int(chosen[values.argmin() if is_lowest else values.argmax()])
        return int(self.steps[position]), float(self.values[position])

    def cut_to(self, size: int) -> tuple[Ints, Floats]:
        """Keep so many points, and return the others."""
        taken = self.steps[size:].copy(), self.values[size:].copy()
        if size < len(self):
            self._steps.truncate(size)
            self._values.truncate(size)
            self._pyramid.truncate(size)
            if self._smoothed is not None:
                self._smoothed.truncate(size)
            if self._resmoothed is not None:
                self._resmoothed.truncate(size)
        return taken


class _Smoothed:
    """The smoothed values of a trace under one weight, as far as they have been worked out."""

    def __init__(self, weight: float) -> None:
        self.values = GrowingArray(np.float64)
        self.pyramid = Pyramid(self.values)
        self._smoother = Smoother(weight)

    @property
    def num_ready(self) -> int:
        return len(self.values)

    def advance(self, raw: Floats, stop: int) -> None:
        if stop > self.num_ready:
            self.values.write(self.num_ready, self._smoother.feed(raw[self.num_ready : stop]))
            self.pyramid.index_up_to(stop)

    def truncate(self, size: int) -> None:
        if size < self.num_ready:
            self.values.truncate(size)
            self.pyramid.truncate(size)
            self._smoother.rewind(self.values.view)
