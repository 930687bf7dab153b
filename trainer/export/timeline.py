"""What changed in a run on its way to one of its checkpoints, without what a restore or a rewind has left behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from trainer.config import OptimizerConfig
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    StateRestored,
    TrainingChanged,
)
from trainer.messages.events import AnyEvent, FeaturesCached
from trainer.messages.run_info import CheckpointInfo
from trainer.rates import PLATEAU_THRESHOLD
from trainer.run_record import Curve

Applied = (
    LayersFrozen
    | LayersUnfrozen
    | RateChanged
    | RateMultiplierChanged
    | BatchNormChanged
    | TrainingChanged
    | FeaturesCached
)
"""The events that say from which step on a run trains otherwise."""

Change = tuple[int, str, Any]
"""Completed updates, what changes, and to what; as the CHANGES of a bundle's train.py."""


@dataclass(frozen=True)
class _Taken:
    """A change that is on the way to the checkpoint, in force after ``step`` updates."""

    step: int
    event: Applied


def changes_until(info: CheckpointInfo, log: list[AnyEvent], checkpoints: list[CheckpointInfo]) -> list[Applied]:
    """Return the changes that led to a checkpoint, in their order, each with the step at which it took hold.

    Args:
        info: The checkpoint.
        log: The run's events, oldest first.
        checkpoints: All of the run.

    """
    saved_at = {each.name: each.saved_at for each in checkpoints}
    taken: list[_Taken] = []
    # As it was when each piece of the curve ended: another may go on from it later.
    ended: dict[int, list[_Taken]] = {}
    segment = 0
    for event in log:
        if not isinstance(event, Applied | StateRestored) or event.segment > info.segment:
            continue
        ended[segment] = taken
        if isinstance(event, CheckpointRestored) and event.weights_only:
            # It went on from where it stood.
            pass
        elif isinstance(event, CheckpointRestored):
            since = saved_at.get(event.name, event.time)
            before = taken if event.parent is None else ended.get(event.parent, taken)
            taken = _gone_back(taken, event, [each for each in before if _is_before(each, event.step, since)])
        elif isinstance(event, RunRewound):
            before = taken if event.parent is None else ended.get(event.parent, taken)
            numbers = [getattr(each.event, "change", 0) for each in before]
            kept = before[: numbers.index(event.change)] if event.change in numbers else before
            taken = _gone_back(taken, event, [each for each in kept if each.step <= event.step])
        elif isinstance(event, RewindUndone):
            # In runs of an earlier Thaw, the rewind was undone from the piece before its own.
            parent = event.undone_segment - 1 if event.parent is None else event.parent
            taken = _gone_back(taken, event, ended.get(parent, taken))
        elif not isinstance(event, StateRestored):
            if event.segment > segment:
                # It was begun anew, from its very start.
                taken = []
            taken = [*taken, _Taken(event.applied_step, event)]
        segment = max(segment, event.segment)
    if segment < info.segment:
        taken = []
    return [each.event.model_copy(update={"applied_step": each.step}) for each in taken if each.step < info.step]


def foreign_weights(info: CheckpointInfo, log: list[AnyEvent]) -> str:
    """Name the checkpoint whose weights were put into the run before ``info``, the last of them; "" for none."""
    names = [
        event.name
        for event in log
        if isinstance(event, CheckpointRestored)
        and event.weights_only
        and event.segment <= info.segment
        and event.step < info.step
    ]
    return names[-1] if names else ""


def as_change(event: Applied) -> list[Change]:
    """Return what a bundle's train.py is to do, and when."""
    step = event.applied_step
    match event:
        case LayersFrozen():
            return [(step, "freeze", event.layers)]
        case LayersUnfrozen():
            return [(step, "unfreeze", event.layers)]
        case RateChanged():
            return [(step, "rate", event.rate)]
        case RateMultiplierChanged():
            return [(step, "multiply", (event.layers, event.multiplier))]
        case BatchNormChanged():
            return [(step, "adapting", event.adapting)]
        case FeaturesCached():
            # Where every epoch has new views, training's features come out of the whole model.
            return [(step, "views", event.fixed_views), (step, "cached", event.layers if event.fixed_views else [])]
    return [(step, "epochs", event.epochs), (step, "parts", event.batch_parts)]


def decays(config: OptimizerConfig, validation: Curve, last_step: int) -> list[Change]:
    """Return when a plateau schedule lowered the rate before ``last_step``, from the validation losses on the way."""
    if config.schedule != "plateau":
        return []
    found: list[Change] = []
    lowest, num_not_lower = float("inf"), 0
    for step, loss in zip(validation.steps, validation.values, strict=True):
        if step > last_step:
            break
        if loss < lowest * (1 - PLATEAU_THRESHOLD):
            lowest, num_not_lower = loss, 0
            continue
        num_not_lower += 1
        if num_not_lower > config.decay_epochs:
            num_not_lower = 0
            found.append((step, "decays", len(found) + 1))
    return found


def _gone_back(taken: list[_Taken], event: StateRestored, kept: list[_Taken]) -> list[_Taken]:
    # A run's length and the parts of its batches are of no checkpoint: they stay as they were when it went back.
    known = [each.event for each in kept]
    stay = [each for each in taken if each.event not in known and isinstance(each.event, TrainingChanged)]
    return kept + [replace(each, step=event.step) for each in stay]


def _is_before(each: _Taken, step: int, saved_at: float) -> bool:
    return each.step < step or (each.step == step and each.event.time <= saved_at)
