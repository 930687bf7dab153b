"""Verify a resume: make the steps after a checkpoint again in a scratch copy of the run, and compare to the bit."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trainer.checkpoints import CheckpointStore, missing_rng
from trainer.data.archive import Progress
from trainer.loop import RunStopped, Trainer
from trainer.messages.base import Event
from trainer.messages.events import MetricsLogged
from trainer.messages.replay import Replay, ResumeVerified, StepDifference, VerifyResume
from trainer.messages.run_info import CheckpointInfo
from trainer.metrics import GRADIENT_NORM, LEARNING_RATE, TRAIN_LOSS
from trainer.preparation import Preparation
from trainer.run_changes import find_changes
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder
from trainer.scratch import Scratch
from trainer.tensor_bytes import is_same


@dataclass(frozen=True)
class Recorded:
    """What a run kept of the steps after a checkpoint, up to the first change by hand.

    Attributes:
        info: The checkpoint.
        last_step: The last step that is to be made again.
        values: The measurements by step and tag.
        later: The next checkpoint, where it is within reach.

    """

    info: CheckpointInfo
    last_step: int
    values: dict[int, dict[str, float]]
    later: CheckpointInfo | None


@dataclass(frozen=True)
class _Piece:
    """A piece of the curve that goes on from a checkpoint: ``event`` is the last one before it."""

    segment: int
    event: int
    last_step: int


def verify(preparation: Preparation, command: VerifyResume, on_progress: Progress) -> ResumeVerified:
    """Make the first steps after a checkpoint again, and compare them. Of the run, which may be live, nothing changes.

    Raises:
        ValueError: There is no such step, something of the run cannot be read, or a live run uses the GPU; or no
            checkpoint is named, and the one from which a resume would begin is damaged.

    """
    run_dir = Path(command.run_dir)
    with RunFolder(run_dir, read_only=True) as folder, Scratch(folder) as scratch:
        recorded = _find_recorded(scratch, folder, command.checkpoint, command.num_steps)
        told: list[Event] = []
        earlier = folder.run_info(recorded.info.name)
        with preparation.trial_of(folder, told.append, earlier) as (trainer, scanned):
            content = CheckpointStore(scratch.folder).load(recorded.info)
            causes = missing_rng(content["rng"], trainer.device)
            causes += find_changes(trainer, scanned, folder, earlier)
            difference = _replay(trainer, told, scratch.folder, recorded, on_progress)
            if difference is not None:
                causes += filter(None, [trainer.features.other_views])
                if trainer.device.type != "cpu" and not trainer.config.training.deterministic:
                    causes.append(f"operators of {trainer.device} that add in another order each time")
    done = Replay(
        checkpoint=recorded.info.name,
        first_step=recorded.info.step,
        num_steps=recorded.last_step - recorded.info.step,
        later=recorded.later.name if recorded.later else "",
        difference=difference,
        causes=causes,
    )
    return ResumeVerified(run_dir=command.run_dir, replay=done, command_id=command.command_id)


def _find_recorded(scratch: Scratch, folder: RunFolder, checkpoint: str | None, num_steps: int) -> Recorded:
    """Find what the run kept of the steps after a checkpoint, and put the scratch copy back to where they began."""
    point = None if checkpoint else folder.checkpoints.resume_point()
    if point is not None:
        # Often no step was made after it; but it is what a resume would begin with, whatever is exact before it.
        CheckpointStore(folder, read_only=True).check(point)
    listed = [folder.checkpoints.find(checkpoint)] if checkpoint else folder.checkpoints.listed()[::-1]
    with scratch.database() as db:
        found = next(((info, piece) for info in listed for piece in _pieces(db, info)), None)
        if found is None:
            raise RunFolderError(
                f"{folder.path.name} has no steps to compare with: none was made after "
                f"{listed[0].name if checkpoint else 'a checkpoint'} before something was changed by hand. Choose "
                "an earlier checkpoint."
            )
        info, piece = found
        last_step = min(piece.last_step, info.step + num_steps)
        later = [
            other
            for other in folder.checkpoints.listed()
            if other.segment == piece.segment and info.step < other.step <= last_step
        ]
        values = _values(db, piece.segment, info.step, last_step)
    recorded = Recorded(info, last_step, values, later[0] if later else None)
    scratch.go_back_to(info, piece.event, later[:1])
    return recorded


def _replay(
    trainer: Trainer, told: list[Event], folder: RunFolder, recorded: Recorded, on_progress: Progress
) -> StepDifference | None:
    """Make the recorded steps again. Returns the first difference, None where all is equal to the bit.

    Args:
        trainer: One of the run's configuration, that has not begun; it is of no use afterwards.
        told: The list to which the trainer's events go.
        folder: The scratch copy of the run.
        recorded: The steps.
        on_progress: Called with (what, done, total, unit).

    Raises:
        ValueError: A file of the checkpoint is damaged, or the device lacks the memory.

    """
    store = CheckpointStore(folder)
    first, later = recorded.info.step, recorded.later
    # Before the copy saves a checkpoint of the same name.
    theirs = {} if later is None else store.load(later)["model_state_dict"]
    weights: dict[int, StepDifference | None] = {}

    def between_steps() -> None:
        on_progress("Making steps again", trainer.step - first, recorded.last_step - first, "steps")
        if trainer.lacks_memory:
            raise ValueError(f"The device {trainer.device} has no memory to make the steps again. Free some of it.")
        if later is not None and trainer.step == later.step and later.step not in weights:
            weights[later.step] = _largest_difference(trainer.module.state_dict(), theirs, later.step)
        if trainer.step >= recorded.last_step:
            raise RunStopped

    trainer.go_on(folder, recorded.info)
    try:
        trainer.fit(between_steps)
    except RunStopped:
        trainer.report(force=True)
    measured: dict[int, dict[str, float]] = {}
    for event in told:
        if isinstance(event, MetricsLogged):
            for tag, series in event.series.items():
                for step, value in zip(series.steps, series.values, strict=True):
                    measured.setdefault(step, {})[tag] = value
    return _first_difference(recorded.values, measured, weights)


def _pieces(db: sqlite3.Connection, info: CheckpointInfo) -> list[_Piece]:
    """Find the pieces of the curve that go on from a checkpoint, the newest first, each up to a change by hand."""
    saved = "kind = 'CheckpointSaved' AND json_extract(body, '$.checkpoint.name') = ?"
    (own_event,) = db.execute(f"SELECT MAX(id) FROM events WHERE {saved}", (info.name,)).fetchone()
    # Where its weights alone were restored, the run did not go on from it.
    restored = (
        "kind = 'CheckpointRestored' AND json_extract(body, '$.name') = ? AND "
        "json_extract(body, '$.weights_only') IS NOT 1"
    )
    sql = f"SELECT json_extract(body, '$.segment'), id FROM events WHERE {restored} ORDER BY id DESC"
    begun = db.execute(sql, (info.name,)).fetchall()
    if own_event is not None:
        begun.append((info.segment, own_event))
    pieces = []
    for segment, event in begun:
        # What the plan does, it does again; and what is cached, nobody has changed.
        by_hand = (
            "SELECT MIN(applied_step) FROM events WHERE id > ? AND applied_step >= ? AND "
            "ifnull(json_extract(body, '$.segment'), ?) = ? AND json_extract(body, '$.source') IS NOT 'plan' AND "
            "kind IS NOT 'FeaturesCached'"
        )
        (changed_at,) = db.execute(by_hand, (event, info.step, segment, segment)).fetchone()
        (last_step,) = db.execute(
            "SELECT MAX(step) FROM metrics WHERE segment = ? AND tag = ?", (segment, TRAIN_LOSS)
        ).fetchone()
        last_step = min((step for step in (last_step, changed_at) if step is not None), default=0)
        if last_step > info.step:
            pieces.append(_Piece(segment, event, last_step))
    return pieces


def _values(db: sqlite3.Connection, segment: int, first: int, last: int) -> dict[int, dict[str, float]]:
    values: dict[int, dict[str, float]] = {}
    sql = "SELECT step, tag, value FROM metrics WHERE segment = ? AND step > ? AND step <= ? AND tag != ?"
    # The rate is kept whenever the metrics are sent, and that goes by the clock.
    for step, tag, value in db.execute(sql, (segment, first, last, LEARNING_RATE)):
        # What is validated after the last step is not made again.
        if step < last or not tag.endswith(("/validation", "/test")):
            values.setdefault(step, {})[tag] = math.nan if value is None else value
    return values


def _first_difference(
    recorded: dict[int, dict[str, float]],
    measured: dict[int, dict[str, float]],
    weights: dict[int, StepDifference | None],
) -> StepDifference | None:
    for step in sorted(recorded):
        tags = sorted(recorded[step], key=lambda tag: (tag not in {TRAIN_LOSS, GRADIENT_NORM}, tag != TRAIN_LOSS, tag))
        for tag in tags:
            was, now = recorded[step][tag], measured.get(step, {}).get(tag, math.nan)
            if was != now and not (math.isnan(was) and math.isnan(now)):
                return StepDifference(step=step, what=tag, recorded=was, replayed=now, difference=abs(now - was))
        if (difference := weights.get(step)) is not None:
            return difference
    return None


def _largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor], step: int) -> StepDifference | None:
    """Return the tensor with the largest difference, None where all are equal to the bit."""
    found = [
        StepDifference(
            step=step,
            what=name,
            recorded=None,
            replayed=None,
            difference=float((tensor.detach().cpu().double() - theirs[name].double()).abs().max()),
        )
        for name, tensor in ours.items()
        if not is_same(tensor.detach().cpu(), theirs[name])
    ]
    return max(found, key=lambda each: each.difference, default=None)
