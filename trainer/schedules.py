"""Freeze plans: the same commands that a person gives, issued at the start of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.config import ConfigError, PlanPhase
from trainer.freezing import FreezeError, FreezeSet


def phases_at(plan: Sequence[PlanPhase], epoch: int) -> list[PlanPhase]:
    """Return the phases that take hold when ``epoch`` epochs are complete."""
    return [phase for phase in plan if phase.epoch == epoch]


def check_plan(plan: Sequence[PlanPhase], freeze_set: FreezeSet, num_epochs: int) -> None:
    """Check a plan against a model before the run starts.

    Raises:
        ConfigError: A phase names a layer that the model has not, freezes all that is left, or starts when the run is
            over.

    """
    frozen = set(freeze_set.frozen)
    for phase in sorted(plan, key=lambda phase: phase.epoch):
        try:
            frozen.update(freeze_set.resolve(phase.freeze))
            freeze_set.check(frozen)
            frozen.difference_update(freeze_set.resolve(phase.unfreeze))
        except FreezeError as error:
            raise ConfigError(f"The plan's phase at epoch {phase.epoch}: {error}", "plan") from error
        if phase.epoch >= num_epochs:
            raise ConfigError(
                f"The plan's phase at epoch {phase.epoch} never comes: the run has {num_epochs} epochs. "
                "Choose an earlier epoch, or more epochs.",
                "plan",
            )
