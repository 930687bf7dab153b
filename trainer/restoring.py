"""Restoring: a checkpoint's state, its weights alone, or the state before a change, put back into a live run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trainer.checkpoints import CheckpointError, CheckpointStore, copy_to_cpu, missing_rng, size_of
from trainer.file_writer import FileWriter
from trainer.messages.base import Event
from trainer.messages.changes import CheckpointRestored, RewindUndone, RunRewound
from trainer.messages.events import LogWritten, RewindsKept
from trainer.messages.run_info import CheckpointInfo, RewindInfo
from trainer.rewinds import KeptState, Rewinds, UndoneRewind
from trainer.runs import RunFolder
from trainer.saving import Saver

if TYPE_CHECKING:
    from trainer.live_run import LiveRun


class Restoring:
    """Puts earlier states of a live run back, and keeps those before its changes once the run has a folder."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._num_changes = 0
        self.parent: int | None = None
        """The piece of the curve that the present one goes on from; None for the run's first, or if it is not known."""
        self._folder: RunFolder | None = None
        self._store: CheckpointStore | None = None
        self._saver: Saver | None = None
        self._rewinds: Rewinds | None = None

    def take(
        self, folder: RunFolder, store: CheckpointStore, saver: Saver, writer: FileWriter, emit: Callable[[Event], None]
    ) -> None:
        """Take the folder that the run has from now on, and what reads and writes it."""
        self._folder, self._store, self._saver = folder, store, saver
        self._rewinds = Rewinds(self._run.config.training, folder, store, writer, emit)

    def find_rewinds(self) -> None:
        """Find what earlier workers of the run have kept of the states before its changes."""
        assert self._folder is not None
        assert self._rewinds is not None
        self._rewinds.load()
        # Each change is an event: no number of this run is as large.
        self._num_changes = self._folder.last_event_id()

    def forget_rewinds(self) -> None:
        """Take it that the run is at its start, to which no change has led."""
        assert self._rewinds is not None
        self._rewinds.go_to([])

    @property
    def changes(self) -> list[int]:
        """Return the changes before which the run can go back from here, by their numbers."""
        return [] if self._rewinds is None else self._rewinds.changes

    def rewinds_kept(self) -> RewindsKept:
        """Return the event that says which states are kept now."""
        assert self._rewinds is not None
        return self._rewinds.event()

    # -- checkpoints ------------------------------------------------------------------------------------------

    def put_checkpoint_back(self, name: str, command_id: str = "", *, is_undoable: bool = False) -> list[Event]:
        """Put the state of a checkpoint back: weights, optimizer, schedule, freeze set, position.

        ``is_undoable`` keeps the state before that, so that it can be undone as a rewind can.
        Returns the events that say so, which nobody has been told yet.

        Raises:
            RunFolderError: The run has no such checkpoint.
            CheckpointError: Its file is missing, damaged or another model's; nothing has changed then.

        """
        assert self._rewinds is not None
        info, checkpoint = self._read_checkpoint(name)
        before = self._present_state() if is_undoable else None
        has_other_rewinds = self._go_back(
            {**checkpoint, "segment": info.segment}, info.name, info.name, f"{info.name} restored", before
        )
        events: list[Event] = [CheckpointRestored(name=info.name, **self._restored(command_id))]
        if has_other_rewinds:
            events.append(self._rewinds.event())
        for missing in missing_rng(checkpoint["rng"], self._run.device):
            text = f"The run does not go on exactly as it was: {missing}."
            events.append(LogWritten(level="warning", text=text))
        if checkpoint["data_fingerprint"] not in self._run.data.fingerprints:
            text = (
                "The data set has changed since this checkpoint was saved. The run goes on with it as it is now; new "
                "images train, the others stay in their splits."
            )
            events.append(LogWritten(level="warning", text=text))
        return events

    def put_weights_back(self, name: str, command_id: str = "") -> list[Event]:
        """Put the weights of a checkpoint into the run where it stands, and begin a new piece of the curve there.

        The optimizer's state is dropped, as it is of other weights; all else stays as it is.
        Returns the events that say so, which nobody has been told yet.

        Raises:
            RunFolderError: The run has no such checkpoint.
            CheckpointError: Its file is missing, damaged or another model's; nothing has changed then.

        """
        run = self._run
        info, checkpoint = self._read_checkpoint(name)
        with self.changing(f"weights of {info.name} restored", "user", is_change=True) as number:
            run.reporter.flush(run)
            run.check_model(checkpoint["model_state_dict"], info.name)
            segment = self._new_segment(run.step, self.resume_from(), run.segment)
            run.load_model(checkpoint["model_state_dict"], info.name)
            run.optimizer.state.clear()
            run.optimizer.zero_grad(set_to_none=True)
            run.freeze_set.take_hashes()
            # What was validated last, and is yet to be saved, were other weights.
            run.begin_piece(segment, None)
            run.only_in_memory = "weights"
        return [CheckpointRestored(name=info.name, weights_only=True, change=number, **self._restored(command_id))]

    def _read_checkpoint(self, name: str) -> tuple[CheckpointInfo, dict[str, Any]]:
        assert self._folder is not None
        assert self._store is not None
        assert self._saver is not None
        # It may be the one that is asked for.
        self._saver.wait()
        info = self._folder.checkpoints.find(name)
        checkpoint = self._store.load(info)
        if checkpoint["class_names"] != list(self._run.data.class_names):
            raise CheckpointError(
                f"The checkpoint {info.name} was trained on the classes {_shorten(checkpoint['class_names'])}, but the "
                f"data now has {_shorten(self._run.data.class_names)}. Put the data back as it was."
            )
        return info, checkpoint

    # -- the states before its changes ------------------------------------------------------------------------

    @contextmanager
    def changing(self, sentence: str, source: str, *, is_change: bool) -> Iterator[int]:
        """Give the change that is made inside its number (0 if it is none), and keep the state before it."""
        before = self._present_state() if is_change and not self._run.is_on_trial else None
        yield self._num_changes + 1 if is_change else 0
        if is_change:
            self._num_changes += 1
            if before is not None and self._rewinds is not None:
                self._rewinds.keep(KeptState(self._rewind_info(before, sentence, source), before))

    def rewind(self, change: int | None, step: int | None, *, command_id: str = "") -> list[Event]:
        """Go back to the state just before a change (None: before the first one at ``step``, or before the last).

        Returns the events that say so, which nobody has been told yet.

        Raises:
            RewindError: That state is not kept.
            CheckpointError: Its file, or the run's base.pt, is missing or damaged; nothing has changed then.

        """
        assert self._rewinds is not None
        kept = self._rewinds.find(change, step)
        content, before = self._rewinds.read(kept), self._present_state()
        self._go_back(content, "The state before a change", kept.info.resume_from, kept.info.sentence, before)
        rewound = RunRewound(
            change=kept.info.change,
            sentence=kept.info.sentence,
            source=kept.info.source,
            **self._restored(command_id),
        )
        return [rewound, self._rewinds.event()]

    def undo_rewind(self, *, command_id: str = "") -> list[Event]:
        """Go back to the state just before the last rewind or restore, as long as nothing was changed since.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            RewindError: That state is not kept.
            CheckpointError: Its file, or the run's base.pt, is missing or damaged; nothing has changed then.

        """
        assert self._rewinds is not None
        kept, undone = self._rewinds.find_undone()
        content = self._rewinds.read(kept)
        self._put_back(content, "The state before a rewind", kept.info.resume_from)
        self._rewinds.go_forth(kept, undone)
        event = RewindUndone(undone_segment=undone.segment, undone_step=undone.step, **self._restored(command_id))
        return [event, self._rewinds.event()]

    def _present_state(self) -> dict[str, Any] | None:
        """Return a copy of the whole state, of the model what differs from the run's start; None where none is kept."""
        if self._store is None or self._rewinds is None or not self._rewinds.keeps_any:
            return None
        run = self._run
        content = {
            **run.content(),
            "segment": run.segment,
            "unsaved": None if run.unsaved is None else asdict(run.unsaved),
            "model_state_dict": self._store.changed(run.module.state_dict()),
        }
        return copy_to_cpu(content) if self._rewinds.has_room(size_of(content)) else None

    def _rewind_info(self, content: dict[str, Any], sentence: str, source: str) -> RewindInfo:
        return RewindInfo(
            change=self._num_changes,
            sentence=sentence,
            source=source,
            step=content["step"],
            resume_from=self.resume_from(),
        )

    def resume_from(self) -> str | None:
        """Name the checkpoint from which the run would go on if it were killed now, None for its start."""
        assert self._folder is not None
        assert self._saver is not None
        point = self._folder.checkpoints.resume_point()
        pending = self._saver.pending
        if pending is not None and pending.segment == self._run.segment:
            # Where it is never durable, the run goes on from the one before it.
            return pending.name
        return None if point is None else point.name

    # -- inside -----------------------------------------------------------------------------------------------

    def _go_back(
        self,
        content: dict[str, Any],
        source: str,
        resume_from: str | None,
        sentence: str,
        before: dict[str, Any] | None,
    ) -> bool:
        """Put a whole state back, and keep the one ``before`` that, if any. Returns whether other states are kept."""
        assert self._rewinds is not None
        info = None
        if before is not None:
            # Counted as a change: the state before it has a number of its own.
            self._num_changes += 1
            info = self._rewind_info(before, sentence, "user")
        self._put_back(content, source, resume_from)
        left = None
        if before is not None and info is not None:
            left = KeptState(info, before, UndoneRewind(self._run.segment, self._run.step, before["rewinds"]))
        # An earlier Thaw kept no states in files, to which its checkpoints could lead.
        return self._rewinds.go_to(content.get("rewinds", []), left)

    def _put_back(self, content: dict[str, Any], source: str, resume_from: str | None) -> None:
        """Put a whole state back and begin a new piece of the curve, which a killed run would begin at a checkpoint."""
        run = self._run
        run.reporter.flush(run)
        phases = run.plan.phases
        # What may fail comes first: what is refused has changed nothing.
        run.check_model(content["model_state_dict"], source)
        # Files of an earlier Thaw do not say of which piece they are.
        segment = self._new_segment(content["step"], resume_from, content.get("segment"))
        run.load_state(content, source)
        # What is to come of the plan is the run's, as its length is.
        run.plan.go_on_with(phases)
        run.begin_piece(segment, content.get("unsaved"))

    def _new_segment(self, step: int, resume_from: str | None, parent: int | None) -> int:
        assert self._folder is not None
        segment = self._folder.begin_segment(step, resume_from, time.time(), parent)
        self.parent = parent
        return segment

    def _restored(self, command_id: str) -> dict[str, Any]:
        run = self._run
        return {
            "step": run.step,
            "epoch": run.epoch,
            "frozen": sorted(run.freeze_set.frozen),
            "num_trainable": run.freeze_set.num_trainable,
            "segment": run.segment,
            "parent": self.parent,
            "rate": run.rates.rate,
            "multipliers": run.rates.multipliers,
            "plan": run.plan.phases,
            "num_phases_begun": run.plan.num_begun,
            "is_plan_overridden": run.plan.is_overridden,
            "adapting": sorted(run.freeze_set.adapting),
            "command_id": command_id,
        }


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} … ({len(names)})"
