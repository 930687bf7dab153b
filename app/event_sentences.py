"""What changed in a run, in the sentences of a terminal: each with the step at which it took hold."""

from __future__ import annotations

from app.figures import counted, percent, size
from trainer.messages.changes import (
    BatchNormChanged,
    LayersFrozen,
    LayersUnfrozen,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.events import FeaturesCached
from trainer.messages.replay import Replay
from trainer.messages.what_if import ChangeTried


def rate_sentence(event: RateChanged) -> str:
    """Say a change of the rate with its step."""
    return f"Rate {event.rate:g}, {event.before:g} before · from step {event.applied_step:,} on"


def change_sentence(event: RateMultiplierChanged | BatchNormChanged) -> str:
    """Say what changed in some layers, with the steps of the asking and of the taking hold."""
    return f"{event.sentence} · asked at step {event.requested_step:,}, applied at step {event.applied_step:,}"


def plan_change_sentence(event: PlanChanged) -> str:
    """Say how many phases of a changed plan are still to come."""
    num_left = len(event.plan) - event.num_begun
    return f"Plan changed at step {event.applied_step:,} · {num_left} {'phase' if num_left == 1 else 'phases'} to come"


def training_sentence(event: TrainingChanged) -> str:
    """Say a change of the run's length, or of its batches, with its step."""
    parts = []
    if event.epochs != event.before_epochs:
        parts.append(f"{counted(event.epochs, 'epoch')}, {event.before_epochs:,} before")
    if event.patience != event.before_patience:
        parts.append(f"Patience {event.patience or 'off'}, {event.before_patience or 'off'} before")
    if event.batch_parts != event.before_batch_parts:
        parts.append(f"Batches in {counted(event.batch_parts, 'part')}, {event.before_batch_parts:,} before")
    return f"{'; '.join(parts) or 'Nothing changed'} · from step {event.applied_step:,} on"


def replay_sentences(replay: Replay) -> list[str]:
    """Say what came of making the steps after a checkpoint again: a sentence for each thing."""
    begins = f"{replay.checkpoint}, made again from step {replay.first_step:,} on: "
    causes = "; ".join(replay.causes)
    difference = replay.difference
    if difference is None:
        weights = f", and so are the weights of {replay.later}" if replay.later else ""
        exact = f"{begins}exact over {counted(replay.num_steps, 'step')}. All that was measured is equal to the bit"
        return [f"{exact}{weights}.", *([f"That is so although: {causes}."] if causes else [])]
    if difference.recorded is None:
        what = f"the weights {difference.what} differ by up to {difference.difference:.3g}"
    else:
        what = (
            f"{difference.what} was {difference.recorded!r} and is {difference.replayed!r}, "
            f"{difference.difference:.3g} apart"
        )
    number = difference.step - replay.first_step
    said = f"{begins}differs first at step {difference.step:,}, number {number:,} of {replay.num_steps:,}: {what}."
    if causes:
        return [said, f"Likely cause: {causes}."]
    return [said, "No cause is known, nothing has changed since: please report this defect of Thaw."]


def rewound_sentence(event: RunRewound) -> str:
    """Say where a rewind went back to."""
    return f"Rewound to before: {event.sentence} · goes on from epoch {event.epoch}, step {event.step:,}"


def undone_rewind_sentence(event: RewindUndone) -> str:
    """Say where a run is again that had gone back."""
    return f"The run is where it was before it went back · goes on from epoch {event.epoch}, step {event.step:,}"


def freeze_sentence(event: LayersFrozen | LayersUnfrozen) -> str:
    """Say what was frozen or unfrozen, the step at which it was asked for, and the step at which it took hold."""
    symbol = "❄" if isinstance(event, LayersFrozen) else "☀"
    return f"{symbol} {event.sentence} · asked at step {event.requested_step:,}, applied at step {event.applied_step:,}"


def cached_sentence(event: FeaturesCached) -> str:
    """Say what is computed only once an image from now on, what that takes and saves, or why nothing is."""
    if not event.layers:
        return event.reason
    places = {(True, True): "in memory and on disk", (True, False): "in memory", (False, True): "on disk"}
    place = places.get((event.is_in_memory, event.is_on_disk), "partly in memory, partly on disk")
    takes = f"{size(event.num_bytes)} {place}, {percent(event.saved_share)} of the forward computing saved"
    if not event.views:
        return f"Features of {event.sentence} are cached for validation alone: {takes}. {event.reason}"
    views = "once an image" if event.views == 1 else f"once for each of {event.views:,} views of an image"
    return f"Features of {event.sentence} are computed {views}, then read: {takes}. {event.reason}".rstrip()


def tried_sentence(tried: ChangeTried) -> str:
    """Say what a change made of the validation loss and of the time, as a measurement: it is one, of one seed."""
    begins = f"After {counted(tried.num_steps, 'step')} from {tried.checkpoint} with {tried.sentence}, "
    before, after = tried.validation_losses
    if before is None or after is None:
        return f"{begins}there is nothing to compare: a branch has ended before."
    same = f"the validation loss is the same ({after:.4g})"
    much = f"the validation loss is {abs(after - before):.3g} {'lower' if after < before else 'higher'}"
    figures = same if after == before else f"{much} ({after:.4g} against {before:.4g})"
    if tried.unchanged.step_ms and tried.changed.step_ms:
        figures += f", at {tried.changed.step_ms / tried.unchanged.step_ms:.2g} × the time per step"
    return f"{begins}{figures}. That is one measurement, with one seed."
