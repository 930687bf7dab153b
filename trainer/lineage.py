"""The lineage of the pieces of a run's curve: which goes on from which, and which led to where the run is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """What was measured from the start, a resume, a restore or a rewind to the next of these.

    It goes on from ``parent`` after ``start_step``; ``before_change`` is the number of the change just before which a
    rewind went back, None where it was none.
    """

    start_step: int
    parent: int | None
    before_change: int | None = None


class Lineage:
    """The pieces of a run by their numbers (its segments), of which the last is the present one."""

    def __init__(self) -> None:
        self._pieces = {0: Piece(0, None)}

    @property
    def segment(self) -> int:
        """Return the number of the present piece."""
        return max(self._pieces)

    def begin(self, segment: int, start_step: int, parent: int | None = None, before_change: int | None = None) -> None:
        """Begin a piece, or say more of the present one.

        Without a ``parent``, as in runs of an earlier Thaw, it goes on from the one before it, of whose line only the
        step says how far.
        """
        if parent is None:
            parent = max((known for known in self._pieces if known < segment), default=None)
        self._pieces[segment] = Piece(start_step, parent, before_change)

    def start_step(self, segment: int) -> int:
        """Return the step after which a piece goes on."""
        return self._pieces[segment].start_step

    def path(self, segment: int | None = None) -> list[tuple[int, float]]:
        """Return the pieces that led to one (None: the present one), first to last, that one included.

        Of each, the number and the last step that counts: what it measured after that led elsewhere.
        """
        return list(self.way_back(segment))[::-1]

    def way_back(self, segment: int | None = None) -> Iterator[tuple[int, float]]:
        """Yield what ``path`` returns, last to first."""
        number, last_step = self.segment if segment is None else segment, math.inf
        while True:
            yield number, last_step
            piece = self._pieces[number]
            if piece.parent is None:
                return
            # An earlier Thaw may have gone on from before the start of what it went on from.
            number, last_step = piece.parent, min(last_step, piece.start_step)

    def led_here(self, segment: int, step: int, change: int = 0) -> bool:
        """Tell whether what happened at a step of a piece, as a change if it has a number, led to the present one."""
        number = self.segment
        while number != segment:
            piece = self._pieces[number]
            is_undone = piece.before_change is not None and change >= piece.before_change
            if piece.parent is None or step > piece.start_step or is_undone:
                return False
            number = piece.parent
        return True

    def shared_step(self, one: int, other: int) -> float:
        """Return the last step up to which the lines that led to two pieces are the same."""
        last_steps = dict(self.path(other))
        return max(min(last_step, last_steps[number]) for number, last_step in self.path(one) if number in last_steps)
