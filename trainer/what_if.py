"""What-if: the same steps from one checkpoint twice, as the run was and with a change, and what each of them gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.data.archive import Progress
from trainer.loop import RunStopped, Trainer
from trainer.messages.base import Event
from trainer.messages.changes import BatchNormChanged, FreezeChanged, RateChanged, RateMultiplierChanged
from trainer.messages.events import LogWritten, MetricsLogged
from trainer.messages.what_if import ChangeTried, TriedBranch, TriedChange, TryChange
from trainer.metrics import TRAIN_LOSS
from trainer.preparation import Preparation
from trainer.run_changes import find_changes
from trainer.runs import RunFolder
from trainer.scratch import Scratch


def try_change(preparation: Preparation, command: TryChange, on_progress: Progress) -> ChangeTried:
    """Train two branches from a checkpoint. Nothing of the run changes, which may be live, and nothing of them is kept.

    Both begin at the checkpoint to the bit, with the plan and the length that the run had then, and take the same
    batches. What the plan, the schedule and the advisor do at these steps, they do in both. Neither ends early: where
    the run would, it has as many more epochs as the steps take, and its patience never ends.

    Raises:
        ValueError: The changes cannot be made, or change nothing; something of the run cannot be read; or the device
            lacks the memory, or is a GPU that a live run uses.

    """
    with RunFolder(Path(command.run_dir), read_only=True) as folder, Scratch(folder) as scratch:
        info = folder.checkpoints.find(command.checkpoint)
        with scratch.database() as db:
            saved = "kind = 'CheckpointSaved' AND json_extract(body, '$.checkpoint.name') = ?"
            (event,) = db.execute(f"SELECT MAX(id) FROM events WHERE {saved}", (info.name,)).fetchone()
        scratch.go_back_to(info, event)
        told: list[Event] = []
        earlier = folder.run_info(info.name)
        with preparation.trial_of(folder, told.append, earlier) as (trainer, scanned):
            events = trainer.go_on(scratch.folder, info)
            notes = _warnings(events)
            if found := find_changes(trainer, scanned, folder, earlier):
                notes.append(
                    f"Since the checkpoint, for both branches alike, something has changed: {'; '.join(found)}."
                )
            notes += _lengthen(trainer, command.num_steps)
            branches = _Branches(trainer, told, command.num_steps, on_progress)
            try:
                tried = branches.run(command.changes)
            except torch.OutOfMemoryError:
                raise ValueError(_without_memory(trainer)) from None
    return ChangeTried(
        run_dir=command.run_dir,
        checkpoint=info.name,
        sentence=tried.sentence,
        first_step=info.step,
        num_steps=command.num_steps,
        start=tried.start,
        unchanged=tried.unchanged,
        changed=tried.changed,
        notes=notes + branches.notes,
        command_id=command.command_id,
    )


def _lengthen(trainer: Trainer, num_steps: int) -> list[str]:
    """Let the run have the epochs that so many steps take, and no patience. Returns a sentence where it gets longer."""
    left = -(-(trainer.data.batches_per_epoch - trainer.batch) // trainer.config.training.accumulate_batches)
    epochs = trainer.epoch + 1 + max(0, -(-(num_steps - left) // trainer.steps_per_epoch))
    before = trainer.num_epochs
    trainer.set_length(max(epochs, before), None)
    if epochs <= before:
        return []
    return [
        f"The run ends after {before:,} epochs, before the last of these steps: both branches train on to {epochs:,}, "
        "over which the rate's schedule is stretched."
    ]


@dataclass(frozen=True)
class _Tried:
    sentence: str
    start: dict[str, float]
    unchanged: TriedBranch
    changed: TriedBranch


class _Branches:
    """Trains the two branches with one trainer, that stands at the checkpoint.

    Args:
        trainer: The trainer; after each branch it is as it was, to the bit.
        told: The list to which its events go.
        num_steps: Steps of each branch.
        on_progress: Called with (what, done, total, unit).

    """

    def __init__(self, trainer: Trainer, told: list[Event], num_steps: int, on_progress: Progress) -> None:
        self.notes: list[str] = []
        self._trainer = trainer
        self._told = told
        self._num_steps = num_steps
        self._on_progress = on_progress

    def run(self, changes: Sequence[TriedChange]) -> _Tried:
        """Train both; what cannot be changed is refused before the first step."""
        trainer = self._trainer
        with trainer.trial():
            sentence = self._change(changes)
        with trainer.trial():
            self._on_progress("Validating the checkpoint", 0, 0, "")
            start = trainer.validate_now(lambda: None).values
        with trainer.trial(), trainer.features.noting_views() as views:
            unchanged = self._train("Steps as it is", 0, "As it is")
        # What is cached would come in other views than what is not, and the branches would be of other images.
        with trainer.trial(), trainer.features.taking_views(views):
            self._change(changes)
            changed = self._train("Steps with the change", 1, "With the change")
            if layers := trainer.features.passed_up:
                self.notes.append(
                    f"With the change, a run keeps the features of {layers}, and its steps take less time than these, "
                    "which compute them: both branches are to have the same images."
                )
        return _Tried(sentence, start, unchanged, changed)

    def _change(self, changes: Sequence[TriedChange]) -> str:
        """Make the changes. Returns what they are; raises a ValueError where nothing would be another."""
        made = [event for change in changes for event in self._trainer.changes.make(change)]
        if changes and not any(map(_has_effect, made)):
            raise ValueError(
                "Nothing would change: at this checkpoint it is so already. Choose other layers, another rate, or "
                "another checkpoint."
            )
        return "; ".join(filter(None, map(_sentence, made)))

    def _train(self, what: str, number: int, name: str) -> TriedBranch:
        trainer, first, num_steps = self._trainer, self._trainer.step, self._num_steps
        self._told.clear()
        # What was measured before is of the other branch.
        trainer.reporter.forget()

        def between_steps() -> None:
            done = number * num_steps + trainer.step - first
            self._on_progress(what, done, 2 * num_steps, "steps")
            if trainer.lacks_memory:
                raise ValueError(_without_memory(trainer))
            if trainer.step >= first + num_steps or self._is_broken(first):
                raise RunStopped

        try:
            trainer.fit(between_steps)
        except RunStopped:
            trainer.report(force=True)
        step_ms = trainer.reporter.pace.step_s * 1000
        steps, losses = self._curve()
        validation: dict[str, float] = {}
        if self._is_broken(first):
            self.notes.append(
                f"{name}, the loss or its gradient was NaN or infinite at step {trainer.non_finite_step:,}: "
                "that branch ends there."
            )
        else:
            self._on_progress(what, (number + 1) * num_steps, 2 * num_steps, "steps")
            validation = trainer.validate_now(lambda: None).values
        self.notes += [f"{name}: {text}" for text in _warnings(self._told)]
        num_trainable = trainer.freeze_set.num_trainable
        return TriedBranch(
            steps=steps, losses=losses, validation=validation, step_ms=step_ms, num_trainable=num_trainable
        )

    def _is_broken(self, first: int) -> bool:
        step = self._trainer.non_finite_step
        return step is not None and step > first

    def _curve(self) -> tuple[list[int], list[float]]:
        """Return the steps that were made and the train loss of each, up to the first that is not finite."""
        steps: list[int] = []
        losses: list[float] = []
        for event in self._told:
            series = event.series.get(TRAIN_LOSS) if isinstance(event, MetricsLogged) else None
            for step, loss in zip(series.steps, series.values, strict=True) if series is not None else ():
                if not math.isfinite(loss) or step == self._trainer.non_finite_step:
                    return steps, losses
                steps.append(step)
                losses.append(loss)
        return steps, losses


def _warnings(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, LogWritten) and event.level == "warning"]


def _has_effect(event: Event) -> bool:
    match event:
        case RateChanged():
            return event.rate != event.before
        case FreezeChanged() | RateMultiplierChanged() | BatchNormChanged():
            return bool(event.layers)
    return False


def _sentence(event: Event) -> str:
    match event:
        case RateChanged():
            return f"rate {event.rate:g}, {event.before:g} before"
        case FreezeChanged() | RateMultiplierChanged() | BatchNormChanged() if event.layers:
            return event.sentence
    return ""


def _without_memory(trainer: Trainer) -> str:
    return f"The device {trainer.device} has no memory for the steps. Free some of it, or try fewer layers."
