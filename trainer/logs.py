"""TensorBoard's files, written from the same events that the window gets."""

from __future__ import annotations

from pathlib import Path

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

MAX_POINTS_PER_FLUSH = 5
_FLUSH_INTERVAL_S = 5


class TensorBoardLog:
    """Writes scalars by tag, and a text record of every intervention.

    TensorBoard shows at most 1,000 points a tag, so of a flush with thousands of steps only some are written, evenly
    spaced and always the last; run.db keeps them all.
    """

    def __init__(self, folder: Path, step: int | None) -> None:
        """Begin a file. A run that goes on from a step hides what earlier files have after it; a new run gives None."""
        self._folder = folder
        self._begin(step)

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
            self._writer.close()
            # What was trained before a rewind was undone is abandoned, and hides these steps of the piece that is back.
            self._begin(event.undone_step if isinstance(event, RewindUndone) else event.step)
            what = "rewind undone" if isinstance(event, RewindUndone) else "rewound"
            if isinstance(event, CheckpointRestored):
                what = f"{'weights of ' if event.weights_only else ''}checkpoint {event.name} restored"
            self._writer.add_text("Interventions", what, event.step, event.time)

    def _begin(self, step: int | None) -> None:
        # The stock two minutes between flushes would be lost in a kill.
        self._writer = SummaryWriter(
            str(self._folder), flush_secs=_FLUSH_INTERVAL_S, purge_step=None if step is None else step + 1
        )

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
