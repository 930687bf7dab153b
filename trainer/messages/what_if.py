"""What-if: what is asked of the process that tries a change from a checkpoint, and what it says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.messages.base import Command, Event, Record
from trainer.messages.commands import FreezeLayers, SetBatchNorm, SetRate, SetRateMultiplier, UnfreezeLayers

TriedChange = Annotated[
    FreezeLayers | UnfreezeLayers | SetRate | SetRateMultiplier | SetBatchNorm, Field(discriminator="kind")
]
"""The commands that can be tried."""

MAX_STEPS = 1_000_000


class TryChange(Command):
    """Train ``num_steps`` steps from a checkpoint as it is, and again with changes. Of the run nothing changes.

    An errand (``trainer.errand``), not for a worker. ``checkpoint`` is as in RunFolder.checkpoint. The changes are made
    together, at the checkpoint's step.
    """

    kind: Literal["TryChange"] = "TryChange"
    run_dir: str
    checkpoint: str
    changes: list[TriedChange]
    num_steps: int = Field(50, ge=1, le=MAX_STEPS)


class TriedBranch(Record):
    """What one of the two branches measured.

    ``losses`` are those of the train images after each of ``steps``, ``validation`` has the metrics after the last one
    by tag; where the loss was not finite, the steps end before that, and ``validation`` is empty. ``step_ms`` is the
    time of a step in milliseconds, over the last ones. ``num_trainable`` counts parameters, after the last step.
    """

    steps: list[int]
    losses: list[float]
    validation: dict[str, float]
    step_ms: float
    num_trainable: int


class ChangeTried(Event):
    """Two branches of ``num_steps`` steps each from a checkpoint: one as the run was, one with the changes.

    ``sentence`` says the changes. ``first_step`` is the checkpoint's, and ``start`` has its validation metrics by tag.
    ``notes`` are sentences about what limits the comparison.
    """

    kind: Literal["ChangeTried"] = "ChangeTried"
    run_dir: str
    checkpoint: str
    sentence: str
    first_step: int
    num_steps: int
    start: dict[str, float]
    unchanged: TriedBranch
    changed: TriedBranch
    notes: list[str] = Field(default_factory=list)

    @property
    def validation_losses(self) -> tuple[float | None, float | None]:
        """Return the validation loss as it is and with the changes; None of a branch that ended before."""
        unchanged, changed = (each.validation.get("Loss/validation") for each in (self.unchanged, self.changed))
        return unchanged, changed
