"""The events that say that a live run trains otherwise, or from elsewhere, and what follows from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.config import PlanPhase
from trainer.messages.base import Event
from trainer.messages.run_info import RunInfo


class FreezeChanged(Event):
    """Layers were frozen or unfrozen at a step boundary.

    ``layers`` are the changed units, by their parameters where only some of these changed ("bn1.weight"), ``sentence``
    says it for the marker ("stage4 unfrozen"), ``frozen`` is the whole freeze set afterwards, likewise.
    ``requested_step`` and ``applied_step`` count completed updates; ``source`` is "user", "plan", "advisor" or
    "restore". ``change`` is the number of the change, which rises over the run's whole life; 0 if nothing changed, or
    in runs of an earlier Thaw.
    """

    layers: list[str]
    sentence: str
    frozen: list[str]
    num_trainable: int
    requested_step: int
    applied_step: int
    source: str
    segment: int
    change: int = 0


class LayersFrozen(FreezeChanged):
    """From here to the unfreeze, these layers' parameters and buffers do not change."""

    kind: Literal["LayersFrozen"] = "LayersFrozen"


class LayersUnfrozen(FreezeChanged):
    """These layers learn again."""

    kind: Literal["LayersUnfrozen"] = "LayersUnfrozen"


class RateChanged(Event):
    """The run's learning rate is another one from ``applied_step`` on; steps count completed updates.

    ``change`` is as in FreezeChanged.
    """

    kind: Literal["RateChanged"] = "RateChanged"
    rate: float
    before: float
    requested_step: int
    applied_step: int
    segment: int
    change: int = 0


class RateMultiplierChanged(Event):
    """The rate of single layers is multiplied by another number from ``applied_step`` on.

    ``layers`` are the changed units, ``before`` what the rate was multiplied by in each of them, ``sentence`` says it
    for the marker ("stage4 at rate × 0.1"), ``multipliers`` are all of the run afterwards, by unit. ``change`` numbers
    it, 0 if nothing changed. Steps count completed updates.
    """

    kind: Literal["RateMultiplierChanged"] = "RateMultiplierChanged"
    layers: list[str]
    before: list[float] = Field(default_factory=list)
    change: int = 0
    multiplier: float
    sentence: str
    multipliers: dict[str, float]
    requested_step: int
    applied_step: int
    source: str
    segment: int


class BatchNormChanged(Event):
    """The running statistics of single layers go on while these are frozen, or no longer do.

    ``layers`` are the changed units, ``adapting`` all of the run whose statistics go on. Steps count completed updates.
    """

    kind: Literal["BatchNormChanged"] = "BatchNormChanged"
    layers: list[str]
    is_adapting: bool
    sentence: str
    adapting: list[str]
    requested_step: int
    applied_step: int
    source: str
    segment: int


class TrainingChanged(Event):
    """The run has another length, patience or ``batch_parts`` from ``applied_step`` on; steps count updates."""

    kind: Literal["TrainingChanged"] = "TrainingChanged"
    epochs: int
    before_epochs: int
    patience: int | None
    before_patience: int | None
    batch_parts: int = 1
    before_batch_parts: int = 1
    total_steps: int
    requested_step: int
    applied_step: int
    segment: int


class PhaseBegan(Event):
    """A phase of the run's plan began at ``step``; ``num_begun`` counts it and those before it, of all in ``plan``."""

    kind: Literal["PhaseBegan"] = "PhaseBegan"
    plan: list[PlanPhase]
    num_begun: int
    step: int
    segment: int


class PlanChanged(Event):
    """Other phases follow the ``num_begun`` that have begun; ``plan`` has all of them."""

    kind: Literal["PlanChanged"] = "PlanChanged"
    plan: list[PlanPhase]
    num_begun: int
    requested_step: int
    applied_step: int
    segment: int


class StateRestored(Event):
    """The live run has an earlier state; what follows belongs to ``segment``, which starts at ``step``.

    ``parent`` is the segment that it goes on from, that of the state; None where that is not known, as in runs of an
    earlier Thaw.
    ``rate`` is the run's rate again, None in runs of an earlier Thaw. ``is_plan_overridden``: a person had changed what
    the plan's present phase set up.
    """

    step: int
    epoch: int
    frozen: list[str]
    num_trainable: int
    segment: int
    parent: int | None = None
    rate: float | None = None
    multipliers: dict[str, float] = Field(default_factory=dict)
    plan: list[PlanPhase] = Field(default_factory=list)
    num_phases_begun: int = 0
    is_plan_overridden: bool = False
    adapting: list[str] = Field(default_factory=list)


class CheckpointRestored(StateRestored):
    """The state is that of a checkpoint; with ``weights_only`` the weights are, and the rest is as it was.

    ``change`` numbers that as in FreezeChanged, 0 where it is no change but a state as a whole.
    """

    kind: Literal["CheckpointRestored"] = "CheckpointRestored"
    name: str
    weights_only: bool = False
    change: int = 0


class RunRewound(StateRestored):
    """The state is the one just before a change: ``change`` is its number, ``sentence`` names it, by ``source``."""

    kind: Literal["RunRewound"] = "RunRewound"
    change: int
    sentence: str
    source: str = "user"


class RewindUndone(StateRestored):
    """The state is the one just before a rewind again, and so is the curve.

    The rewind had begun the piece ``undone_segment`` of it, at ``undone_step``.
    """

    kind: Literal["RewindUndone"] = "RewindUndone"
    undone_segment: int
    undone_step: int


def follow(run: RunInfo, event: Event) -> RunInfo:
    """Bring what a run trains with up to date with an event."""
    present, total_steps = run.present, run.total_steps
    if isinstance(event, RateChanged) or (isinstance(event, StateRestored) and event.rate is not None):
        present = present.model_copy(update={"rate": event.rate})
        if isinstance(event, StateRestored):
            present = present.model_copy(update=_parted(event.plan, event.num_phases_begun))
    elif isinstance(event, PhaseBegan | PlanChanged):
        present = present.model_copy(update=_parted(event.plan, event.num_begun))
    elif isinstance(event, TrainingChanged):
        changed = {"epochs": event.epochs, "patience": event.patience, "batch_parts": event.batch_parts}
        present = present.model_copy(update=changed)
        total_steps = event.total_steps
    else:
        return run
    return run.model_copy(update={"in_force": present, "total_steps": total_steps})


def _parted(plan: list[PlanPhase], num_begun: int) -> dict[str, list[PlanPhase]]:
    return {"plan": plan[num_begun:], "begun": plan[:num_begun]}
