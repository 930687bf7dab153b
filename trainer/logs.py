"""TensorBoard's files, written from the same events that the window gets."""

from __future__ import annotations

import time
from bisect import bisect_left

from torch.utils.tensorboard import SummaryWriter

from trainer.messages.base import Event
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    FreezeChanged,
    RateMultiplierChanged,
    RewindUndone,
    StateRestored,
)
from trainer.messages.events import CheckpointSaved, MetricsLogged
from trainer.runs import RunFolder

MAX_POINTS_PER_FLUSH = 2
"""Of a tag: each is handed to TensorBoard's own thread, and training waits while that takes it."""
MAX_POINTS_AGAIN = 1000
"""Of a tag: more are not shown."""
_FLUSH_INTERVAL_S = 5


class TensorBoardLog:
    """Writes scalars by tag, and a text record of every intervention.

    TensorBoard shows at most 1,000 points a tag, so of a flush with thousands of steps only some are written, evenly
    spaced and always the last; run.db keeps them all.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Begin a file of a run, which goes on where its present piece does."""
        self._folder = folder
        segment = folder.lineage().segment
        # What earlier files show is the line of the piece before.
        self._go_on(max(0, segment - 1), segment, time.time())

    def write(self, event: Event) -> None:
        """Write what TensorBoard can show of an event."""
        if isinstance(event, MetricsLogged):
            for tag, points in event.series.items():
                stride = -(-len(points.steps) // MAX_POINTS_PER_FLUSH)
                for index in range(len(points.steps) - 1, -1, -stride)[::-1]:
                    self._writer.add_scalar(tag, points.values[index], points.steps[index], event.time)
        elif isinstance(event, FreezeChanged | RateMultiplierChanged | BatchNormChanged):
            text = (
                f"{event.sentence} by {event.source}: asked at step {event.requested_step}, "
                f"applied at step {event.applied_step}"
            )
            self._writer.add_text("Interventions", text, event.applied_step, event.time)
        elif isinstance(event, CheckpointSaved):
            info = event.checkpoint
            self._writer.add_text(
                "Interventions", f"checkpoint {info.name} saved ({info.reason})", info.step, event.time
            )
        elif isinstance(event, StateRestored):
            if event.segment != self._segment:
                self._writer.close()
                self._go_on(self._segment, event.segment, event.time)
            what = "rewind undone" if isinstance(event, RewindUndone) else "rewound"
            if isinstance(event, CheckpointRestored):
                what = f"{'weights of ' if event.weights_only else ''}checkpoint {event.name} restored"
            self._writer.add_text("Interventions", what, event.step, event.time)

    def _go_on(self, before: int, segment: int, now: float) -> None:
        """Begin a file that hides what of the earlier ones did not lead to a piece, and has what they had hidden."""
        self._segment = segment
        lineage = self._folder.lineage(segment)
        first_hidden = None if segment == before else int(lineage.shared_step(before, segment)) + 1
        # The stock two minutes between flushes would be lost in a kill.
        self._writer = SummaryWriter(
            str(self._folder.tensorboard_dir), flush_secs=_FLUSH_INTERVAL_S, purge_step=first_hidden
        )
        if first_hidden is not None and first_hidden <= lineage.start_step(segment):
            self._write_again(segment, first_hidden, now)

    def _write_again(self, segment: int, first_step: int, now: float) -> None:
        """Write what led to a piece: nothing shows what was hidden as another one began."""
        for tag, curve in self._folder.curves(segment).items():
            first = bisect_left(curve.steps, first_step)
            stride = -(-(len(curve.steps) - first) // MAX_POINTS_AGAIN) or 1
            for index in range(len(curve.steps) - 1, first - 1, -stride)[::-1]:
                self._writer.add_scalar(tag, curve.values[index], curve.steps[index], now)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
