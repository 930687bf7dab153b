"""One tag's points, by the pieces of the curve that measured them: those that led to where the run is, and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from app.viewmodels.trace import Points, Trace
from trainer.lineage import Lineage
from trainer.run_record import Curve


class TagPoints:
    """The ``line`` to where the run is, and what its pieces measured beside it (``abandoned``, by their numbers)."""

    def __init__(self, new_trace: Callable[[], Trace]) -> None:
        self._new_trace = new_trace
        self.line = new_trace()
        self.abandoned: dict[int, Trace] = {}
        # Of the line, in its order.
        self._num_points: dict[int, int] = {}

    @classmethod
    def of(cls, curve: Curve, new_trace: Callable[[], Trace]) -> TagPoints:
        """Take what a run's folder has of a tag."""
        points = cls(new_trace)
        points.line.append(curve.steps, curve.values)
        points._num_points = dict(curve.num_points)
        for segment, (steps, values) in curve.abandoned.items():
            points._abandon(segment, steps, values)
        return points

    @property
    def traces(self) -> list[Trace]:
        """Return the line, and what was left behind in the order of the pieces."""
        return [self.line, *(self.abandoned[segment] for segment in sorted(self.abandoned))]

    def append(self, segment: int, steps: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Add what the present piece has measured; steps that are on the line already are dropped."""
        before = len(self.line)
        self.line.append(steps, values)
        if len(self.line) > before:
            self._num_points[segment] = self._num_points.get(segment, 0) + len(self.line) - before

    def follow(self, path: Sequence[tuple[int, float]]) -> None:
        """Let the line be the one along the path to another piece: of each the number and the last step that counts."""
        kept = self._num_shared(dict(path))
        pieces, self._num_points = self._num_points, {}
        steps, values = self.line.cut_to(kept)
        start = 0
        for segment, num in pieces.items():
            stop, keep = start + num, min(max(kept - start, 0), num)
            if keep:
                self._num_points[segment] = keep
            if keep < num:
                cut = slice(start + keep - kept, stop - kept)
                self._abandon(segment, steps[cut], values[cut])
            start = stop
        for segment, last_step in path:
            self._take_back(segment, last_step)

    def query_abandoned(
        self, lineage: Lineage, first_step: float, last_step: float, max_points: int, *, smoothed: bool
    ) -> Points:
        """Return what was left behind between two steps: pieces with a gap after each.

        Each begins with the point that it went on from, unless they are ``smoothed``: that is done piece by piece.
        """
        parts: list[Points] = []
        starts = dict(zip(self._num_points, accumulate(self._num_points.values(), initial=0), strict=False))
        for segment in sorted(self.abandoned):
            piece = self.abandoned[segment].query(first_step, last_step, max_points, smoothed=smoothed)
            if not len(piece):
                continue
            if not smoothed and piece.steps[0] == self.abandoned[segment].steps[0]:
                parts.append(self._point_before(lineage, segment, starts))
            parts += [piece, Points(piece.steps[-1:], np.array([np.nan]))]
        if not parts:
            return NO_POINTS
        return Points(np.concatenate([part.steps for part in parts]), np.concatenate([part.values for part in parts]))

    # -- inside -----------------------------------------------------------------------------------------------

    def _num_shared(self, last_steps: dict[int, float]) -> int:
        """Count the line's points up to where another one leaves it."""
        kept = 0
        for segment, num in self._num_points.items():
            if segment not in last_steps:
                break
            steps = self.line.steps[kept : kept + num]
            kept += (num_shared := int(np.searchsorted(steps, last_steps[segment], side="right")))
            if num_shared < num:
                break
        return kept

    def _abandon(self, segment: int, steps: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Leave points of a piece behind, which come before those of it that are already."""
        trace, known = self._new_trace(), self.abandoned.get(segment)
        trace.append(steps, values)
        if known is not None:
            trace.append(known.steps, known.values)
        self.abandoned[segment] = trace

    def _take_back(self, segment: int, last_step: float) -> None:
        """Put what a piece has up to a step at the end of the line."""
        left = self.abandoned.get(segment)
        keep = 0 if left is None else int(np.searchsorted(left.steps, last_step, side="right"))
        if left is None or not keep:
            return
        self.append(segment, left.steps[:keep], left.values[:keep])
        del self.abandoned[segment]
        if keep < len(left):
            self._abandon(segment, left.steps[keep:], left.values[keep:])

    def _point_before(self, lineage: Lineage, segment: int, starts: dict[int, int]) -> Points:
        """Return the point from which what was left behind of a piece went on; none where it was the first.

        ``starts`` are the positions on the line at which the pieces on it begin.
        """
        first_step = int(self.abandoned[segment].steps[0])
        for number, last_step in lineage.way_back(segment):
            # What was left behind of a piece came after what of it is on the line.
            left = self.abandoned.get(number)
            measured = [] if left is None else [(left.steps, left.values)]
            if number in starts:
                on_line = slice(starts[number], starts[number] + self._num_points[number])
                measured.append((self.line.steps[on_line], self.line.values[on_line]))
            for steps, values in measured:
                if before := int(np.searchsorted(steps, min(last_step, first_step - 1), side="right")):
                    return Points(steps[before - 1 : before].astype(np.float64), values[before - 1 : before])
        return NO_POINTS


NO_POINTS = Points(np.empty(0), np.empty(0))
