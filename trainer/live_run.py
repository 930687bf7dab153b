"""A run in memory: its model, what trains it and where it stands; saved, put back and rewound as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoints import (
    CheckpointError,
    CheckpointStore,
    checkpoint_name,
    copy_to_cpu,
    missing_rng,
    read_rng,
    restore_rng,
    seed_generators,
    size_of,
)
from trainer.config import Metric, RunConfig
from trainer.data.loader import ImageData
from trainer.early_stopping import EarlyStopping
from trainer.environment import environment
from trainer.file_writer import FileWriter
from trainer.freezing import BACKBONE, HEAD, FreezeSet
from trainer.messages.base import Event
from trainer.messages.changes import CheckpointRestored, RewindUndone, RunRewound
from trainer.messages.events import FreezeVerified, LogWritten
from trainer.messages.model_info import ModelSummary
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix, InForce, RewindInfo
from trainer.metrics import VALIDATION_ACCURACY, VALIDATION_LOSS, Evaluation
from trainer.models import LoadedModel, layer_tree, with_version
from trainer.optim import choose_precision, make_optimizer
from trainer.rates import RateSchedule
from trainer.reporting import Phase, Reporter
from trainer.rewinds import KeptState, Rewinds, UndoneRewind
from trainer.run_record import best_checkpoint
from trainer.runs import RunFolder
from trainer.saving import PendingSave, Saver
from trainer.schedules import Plan, check_plan, multiplied_units

MIN_PART = 2
"""The fewest images in a part of a batch."""


class LiveRun:
    """One run in memory: model, optimizer, freeze set and the position in the data.

    ``step`` counts optimizer updates, ``epoch`` completed epochs, ``batch`` the batches taken of the present epoch.
    An update that was left out, because the loss or the gradient was not finite, counts as well: the last one of these
    is ``non_finite_step``. ``lacks_memory``: an update was given up for want of memory, and waits. Everything here
    belongs to one thread; ``step`` may be read from others.
    """

    def __init__(
        self,
        config: RunConfig,
        loaded: LoadedModel,
        data: ImageData,
        device: torch.device,
        emit: Callable[[Event], None],
    ) -> None:
        self.config = config
        self.data = data
        self.device = device
        self.precision = choose_precision(config.training.precision, device)
        self.step = 0
        self.epoch = 0
        self.batch = 0
        self.segment = 0
        self.non_finite_step: int | None = None
        self.lacks_memory = False
        self.batch_parts = 1
        self.steps_per_epoch = -(-data.batches_per_epoch // config.training.accumulate_batches)
        self.num_epochs = config.training.epochs
        self.module = loaded.module.to(device)
        self.layers = layer_tree(loaded.module, loaded.head)
        self.freeze_set = FreezeSet(self.module, loaded.head)
        self.optimizer = make_optimizer(config.optimizer, self.module)
        self.rates = RateSchedule(config.optimizer, self.optimizer, self.total_steps, self.steps_per_epoch)
        self.early_stopping = EarlyStopping(config.training)
        self.reporter = Reporter(self.optimizer, emit)
        self._emit = emit
        self._phase: Phase = "train"
        self._has_jumped = False
        self._trial_began_at: int | None = None
        self._unsaved: Evaluation | None = None
        self._rewinds: Rewinds | None = None
        self._num_changes = 0
        self._folder: RunFolder | None = None
        self._store: CheckpointStore | None = None
        self._saver: Saver | None = None
        self._writer = FileWriter("checkpoint-writer")
        self._last_saved = (time.monotonic(), 0)
        seed_generators(config.training.seed)
        self.freeze_set.freeze(config.model.frozen)
        self.frozen_since = dict.fromkeys(self.freeze_set.frozen_atoms, 0)
        if config.model.batchnorm == "adapting" and any(layer.has_statistics for layer in self.layers):
            self.freeze_set.set_adapting([BACKBONE, HEAD], is_adapting=True)
        for layer in config.model.adapting:
            self.freeze_set.set_adapting([layer], is_adapting=True)
        self.plan = Plan(config.plan)
        check_plan(config.plan, self.freeze_set, config.training.epochs, self.steps_per_epoch)
        self._multiply_at_start()

    @property
    def told_step(self) -> int:
        """Return the completed updates as all have been told: those of a trial are not."""
        began_at = self._trial_began_at
        return self.step if began_at is None else began_at

    @property
    def total_steps(self) -> int:
        """Return the optimizer updates in the whole run."""
        return self.num_epochs * self.steps_per_epoch

    @property
    def most_parts(self) -> int:
        """Return the most parts in which a batch can go through the model."""
        return max(1, self.config.training.batch_size // MIN_PART)

    @property
    def has_epochs_left(self) -> bool:
        """Whether there is more to train."""
        return self.epoch < self.num_epochs and not self.early_stopping.is_over

    @property
    def best_checkpoint(self) -> CheckpointInfo | None:
        """Return the run's best checkpoint, by what the patience watches that it has now."""
        assert self._folder is not None
        return best_checkpoint(self._folder.checkpoints(), self.best_metric)

    @property
    def best_metric(self) -> Metric:
        """Return by what the best checkpoint is told, with the patience that the run has now."""
        return self.config.training.best_metric(self.early_stopping.patience)

    @property
    def in_force(self) -> InForce:
        """Return what may change as the run goes on, as it is now."""
        return InForce(
            rate=self.rates.rate,
            epochs=self.num_epochs,
            patience=self.early_stopping.patience,
            plan=self.plan.phases[self.plan.num_begun :],
            begun=self.plan.phases[: self.plan.num_begun],
            batch_parts=self.batch_parts,
        )

    def summary(self) -> ModelSummary:
        """Describe the model and its freeze set as they are now."""
        return ModelSummary(
            model=self.config.model.name,
            layers=self.layers,
            frozen=sorted(self.freeze_set.frozen),
            num_params=self.freeze_set.num_params,
            num_trainable=self.freeze_set.num_trainable,
            multipliers=self.rates.multipliers,
            adapting=sorted(self.freeze_set.adapting),
        )

    def set_length(self, num_epochs: int, patience: int | None) -> None:
        """Change how long the run is."""
        self.num_epochs, self.early_stopping.patience = num_epochs, patience
        self.rates.total_steps = self.total_steps

    def report(self, *, force: bool = False) -> None:
        """Send the metrics that have gathered, and the progress, if it is time (or ``force``)."""
        self.reporter.report(self, self._phase, force=force)

    def close(self) -> None:
        """End the loader's processes, and write what is to be kept."""
        self.data.close()
        self._writer.finish()

    # -- its folder -------------------------------------------------------------------------------------------

    def begin(self, folder: RunFolder) -> None:
        """Begin a new run in a new folder: write its base and open the first piece of its curve."""
        store = self._take(folder)
        store.write_base(self.module.state_dict())
        self.segment = folder.begin_segment(0, None, time.time())

    def open(self, folder: RunFolder, info: CheckpointInfo | None) -> list[Event]:
        """Take up the run of an existing folder, at a checkpoint of it or (None) at its start.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            CheckpointError: A file that this needs is missing, damaged or another model's.

        """
        store = self._take(folder)
        assert self._rewinds is not None
        self._rewinds.load()
        # Each change is an event: no number of this run is as large.
        self._num_changes = folder.last_event_id()
        run = folder.run_info()
        if run is not None:
            # Of the run as a whole, and of no checkpoint: a restore does not change them back.
            self.set_length(run.present.epochs, run.present.patience)
            self.batch_parts = run.present.batch_parts
            self.plan = Plan([*run.present.begun, *run.present.plan])
        if info is None:
            self._load_model(store.read_base(), "base.pt")
            self.segment = folder.begin_segment(0, None, time.time())
            self._rewinds.go_to([])
            return []
        return self.put_checkpoint_back(info.name)

    def _take(self, folder: RunFolder) -> CheckpointStore:
        self._folder, self._store = folder, CheckpointStore(folder)
        self._rewinds = Rewinds(self.config.training, folder, self._store, self._writer, self._emit)
        self._saver = Saver(
            self.config.checkpoints, folder, self._store, self._writer, self._emit, lambda: self.best_metric
        )
        self._last_saved = (time.monotonic(), self.step)
        return self._store

    def save(self, *, reason: str, evaluation: Evaluation | None = None, command_id: str = "") -> CheckpointInfo:
        """Save a checkpoint of this very moment, durable when this returns.

        Args:
            reason: Why it is saved: "epoch", "periodic" (within one), "user" or "stop".
            evaluation: Validation's at this step, if any.
            command_id: The command that asked for it.

        Raises:
            CheckpointError: It, or one before it, cannot be written.
            RunFolderError: Its row cannot be written.

        """
        assert self._saver is not None
        return self._saver.finish(self._copied(reason, evaluation, command_id, is_awaited=True))

    def begin_save(self, *, reason: str, evaluation: Evaluation | None = None, command_id: str = "") -> None:
        """Save a checkpoint of this very moment, written beside the steps that follow.

        The arguments are those of ``save``. ``CheckpointSaved`` is told when it is durable; where that fails, whoever
        asked for it is told so, and one that nobody asked for is what ``fit`` ends with at the next step boundary.

        Raises:
            CheckpointError: One before it cannot be written.
            RunFolderError: The row of one before it cannot be written.

        """
        assert self._saver is not None
        self._saver.begin(self._copied(reason, evaluation, command_id, is_awaited=False))

    def settle(self) -> None:
        """Return when what was saved is durable; what could not be written is tried again.

        Raises:
            CheckpointError: It cannot be written.
            RunFolderError: Its row cannot be written.

        """
        assert self._saver is not None
        self._saver.settle()

    def save_if_due(self) -> None:
        """Save within an epoch, where the last checkpoint lies long enough back."""
        assert self._saver is not None
        rules, (saved_at, saved_step) = self.config.checkpoints, self._last_saved
        is_due = rules.every_steps is not None and self.step - saved_step >= rules.every_steps
        if rules.every_minutes is not None and time.monotonic() - saved_at >= rules.every_minutes * 60:
            is_due = True
        # The end of an epoch is saved when it is validated; a slow disk is not kept busy with these alone.
        if is_due and self.batch and self.step > saved_step and not self._saver.is_busy:
            self.begin_save(reason="periodic")

    def check_saved(self) -> None:
        """Tell, without waiting, whether what was last saved could not be written, and is to be tried again.

        Raises:
            CheckpointError: It could not; ``settle`` tries again.
            RunFolderError: As above; its row could not be written.

        """
        assert self._saver is not None
        self._saver.check()

    def _copied(self, reason: str, evaluation: Evaluation | None, command_id: str, *, is_awaited: bool) -> PendingSave:
        """Copy what a checkpoint of this moment holds."""
        assert self._store is not None
        # First: one copy in memory at a time.
        self.settle()
        self.report(force=True)
        metrics = {} if evaluation is None else evaluation.values
        loss, accuracy = metrics.get(VALIDATION_LOSS), metrics.get(VALIDATION_ACCURACY)
        name = self._store.unused_name(checkpoint_name(self.config.model.name, self.epoch, self.step, loss, accuracy))
        frozen = sorted(self.freeze_set.frozen)
        content: dict[str, Any] = {
            **self._content(),
            "loss": loss,
            "metrics": metrics,
            "class_names": list(self.data.class_names),
            "data_fingerprint": self.data.fingerprint,
            "config": self.config.model_dump(mode="json"),
            "made_with": environment(self.device, self.precision),
        }
        self._last_saved = (time.monotonic(), self.step)
        # In one go: on a GPU the copies are waited for once.
        content, model_state = copy_to_cpu([content, dict(self.module.state_dict())], is_fast=True)
        # Hashed by the writer: it may be half a gigabyte.
        find_drifted, step = self.freeze_set.drift_check(model_state), self.step
        num_adapting = len(self.freeze_set.adapting & self.freeze_set.frozen)
        num_verified = len(self.freeze_set.units_of(self.freeze_set.frozen_atoms))

        def verify() -> FreezeVerified:
            return FreezeVerified(
                step=step, num_verified=num_verified, drifted=find_drifted(), num_adapting=num_adapting
            )

        info = CheckpointInfo(
            name=name,
            epoch=self.epoch,
            step=self.step,
            loss=loss,
            accuracy=accuracy,
            metrics=metrics,
            frozen=frozen,
            frozen_summary=self.freeze_set.describe(frozen),
            size_bytes=0,
            sha256="",
            saved_at=time.time(),
            reason=reason,
            segment=self.segment,
            rate=self.rates.applied,
        )
        confusion = None if evaluation is None else self._confusion(evaluation, "validation", name, self.step)
        return PendingSave(info, content, model_state, confusion, verify, command_id, is_awaited)

    def put_checkpoint_back(self, name: str, command_id: str = "") -> list[Event]:
        """Put the state of a checkpoint back: weights, optimizer, schedule, freeze set, position.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            RunFolderError: The run has no such checkpoint.
            CheckpointError: Its file is missing, damaged or another model's; nothing has changed then.

        """
        assert self._rewinds is not None
        info, checkpoint = self._read_checkpoint(name)
        self._put_back(checkpoint, info.name, info.name)
        events: list[Event] = [CheckpointRestored(name=info.name, **self._restored(command_id))]
        # An earlier Thaw kept no states in files, to which its checkpoints could lead.
        if self._rewinds.go_to(checkpoint.get("rewinds", [])):
            events.append(self._rewinds.event())
        for missing in missing_rng(checkpoint["rng"], self.device):
            text = f"The run does not go on exactly as it was: {missing}."
            events.append(LogWritten(level="warning", text=text))
        if checkpoint["data_fingerprint"] != self.data.fingerprint:
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
        info, checkpoint = self._read_checkpoint(name)
        with self.changing(f"weights of {info.name} restored", "user", is_change=True) as number:
            self.reporter.flush(self)
            self._check_model(checkpoint["model_state_dict"], info.name)
            segment = self._new_segment(self.step, self._resume_from())
            self._load_model(checkpoint["model_state_dict"], info.name)
            self.optimizer.state.clear()
            self.optimizer.zero_grad(set_to_none=True)
            self.freeze_set.take_hashes()
            # What was validated last, and is yet to be saved, were other weights.
            self._begin_piece(segment, None)
        return [CheckpointRestored(name=info.name, weights_only=True, change=number, **self._restored(command_id))]

    def _read_checkpoint(self, name: str) -> tuple[CheckpointInfo, dict[str, Any]]:
        assert self._folder is not None
        assert self._store is not None
        assert self._saver is not None
        # It may be the one that is asked for.
        self._saver.wait()
        info = self._folder.checkpoint(name)
        checkpoint = self._store.load(info)
        if checkpoint["class_names"] != list(self.data.class_names):
            raise CheckpointError(
                f"The checkpoint {info.name} was trained on the classes {_shorten(checkpoint['class_names'])}, but the "
                f"data now has {_shorten(self.data.class_names)}. Put the data back as it was."
            )
        return info, checkpoint

    # -- the states before its changes ------------------------------------------------------------------------

    @contextmanager
    def changing(self, sentence: str, source: str, *, is_change: bool) -> Iterator[int]:
        """Give the change that is made inside its number (0 if it is none), and keep the state before it."""
        before = self._present_state() if is_change else None
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
            CheckpointError: Its file is missing or damaged; nothing has changed then.

        """
        assert self._rewinds is not None
        kept = self._rewinds.find(change, step)
        content, before = self._rewinds.read(kept), self._present_state()
        # Counted as a change: the state before it has a number of its own.
        self._num_changes += 1
        info = None if before is None else self._rewind_info(before, kept.info.sentence, "user")
        self._put_back(content, "The state before a change", kept.info.resume_from)
        left = None
        if before is not None and info is not None:
            left = KeptState(info, before, UndoneRewind(self.segment, self.step, before["rewinds"]))
        self._rewinds.go_back(content["rewinds"], left)
        rewound = RunRewound(
            change=kept.info.change,
            sentence=kept.info.sentence,
            source=kept.info.source,
            **self._restored(command_id),
        )
        return [rewound, self._rewinds.event()]

    def undo_rewind(self, *, command_id: str = "") -> list[Event]:
        """Go back to the state just before the last rewind, as long as nothing was changed since.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            RewindError: That state is not kept.
            CheckpointError: Its file is missing or damaged; nothing has changed then.

        """
        assert self._rewinds is not None
        kept, undone = self._rewinds.find_undone()
        content = self._rewinds.read(kept)
        self._put_back(content, "The state before a rewind", kept.info.resume_from, undone.segment)
        self._rewinds.go_forth(kept, undone)
        event = RewindUndone(undone_segment=undone.segment, undone_step=undone.step, **self._restored(command_id))
        return [event, self._rewinds.event()]

    def _present_state(self) -> dict[str, Any] | None:
        """Return a copy of the whole state, of the model what differs from the run's start; None where none is kept."""
        if self._store is None or self._rewinds is None or not self._rewinds.keeps_any:
            return None
        content = {
            **self._content(),
            "unsaved": None if self._unsaved is None else asdict(self._unsaved),
            "model_state_dict": self._store.changed(self.module.state_dict()),
        }
        return copy_to_cpu(content) if self._rewinds.has_room(size_of(content)) else None

    def _rewind_info(self, content: dict[str, Any], sentence: str, source: str) -> RewindInfo:
        return RewindInfo(
            change=self._num_changes,
            sentence=sentence,
            source=source,
            step=content["step"],
            resume_from=self._resume_from(),
        )

    def _resume_from(self) -> str | None:
        """Name the checkpoint from which the run would go on if it were killed now, None for its start."""
        assert self._folder is not None
        assert self._saver is not None
        point = self._folder.resume_point()
        pending = self._saver.pending
        if pending is not None and pending.segment == self.segment:
            # Where it is never durable, the run goes on from the one before it.
            return pending.name
        return None if point is None else point.name

    # -- the state as a whole ---------------------------------------------------------------------------------

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo to the bit, at the end, whatever is trained inside. Nothing of it is told or kept."""
        content = copy_to_cpu({**self._content(), "model_state_dict": dict(self.module.state_dict())})
        rates, non_finite_step = self.rates, self.non_finite_step
        self._trial_began_at = self.step
        try:
            with self.reporter.set_aside():
                yield
        finally:
            self.rates = rates
            self._load_state(content, "The state in memory")
            self.freeze_set.set_mode(training=self._phase == "train")
            self.non_finite_step = non_finite_step
            self._trial_began_at = None
            # The batches that the fit was taking ended with those of the trial: it takes them anew from here.
            self._has_jumped = True

    def _content(self) -> dict[str, Any]:
        """Return the state beside the model's, as a checkpoint has it. Its tensors may be the live ones."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.rates.state_dict(),
            "plan": self.plan.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "rng": read_rng(self.device),
            "freeze": sorted(self.freeze_set.frozen),
            "adapting": sorted(self.freeze_set.adapting),
            "frozen_since": dict(self.frozen_since),
            "rewinds": [] if self._rewinds is None else self._rewinds.changes,
        }

    def _put_back(
        self, content: dict[str, Any], source: str, resume_from: str | None, undoes: int | None = None
    ) -> None:
        """Put a whole state back and begin a new piece of the curve, which a killed run would begin at a checkpoint."""
        self.reporter.flush(self)
        phases = self.plan.phases
        # What may fail comes first: what is refused has changed nothing.
        self._check_model(content["model_state_dict"], source)
        segment = self._new_segment(content["step"], resume_from, undoes)
        self._load_state(content, source)
        # What is to come of the plan is the run's, as its length is.
        self.plan.go_on_with(phases)
        self._begin_piece(segment, content.get("unsaved"))

    def _new_segment(self, step: int, resume_from: str | None, undoes: int | None = None) -> int:
        assert self._folder is not None
        return self._folder.begin_segment(step, resume_from, time.time(), undoes)

    def _begin_piece(self, segment: int, unsaved: dict[str, Any] | None) -> None:
        self.segment = segment
        self.non_finite_step, self.lacks_memory = None, False
        self._last_saved = (self._last_saved[0], self.step)
        self._unsaved = None if unsaved is None else Evaluation(**unsaved)
        self._has_jumped = True
        self.reporter.forget()

    def _load_state(self, content: dict[str, Any], source: str) -> None:
        self._load_model(content["model_state_dict"], source)
        self.optimizer.load_state_dict(content["optimizer_state_dict"])
        self.optimizer.zero_grad(set_to_none=True)
        self.rates.load_state_dict(content["scheduler_state_dict"])
        self.plan.load_state_dict(content["plan"])
        self.early_stopping.load_state_dict(content["early_stopping"])
        self.freeze_set.adapting = set(content["adapting"])
        self.freeze_set.set_frozen(content["freeze"])
        # Of an earlier Thaw, by unit.
        since = [
            (self.freeze_set.resolve([name], is_exact=True), step) for name, step in content["frozen_since"].items()
        ]
        self.frozen_since = {atom: step for atoms, step in since for atom in atoms}
        self.freeze_set.take_hashes()
        restore_rng(content["rng"], self.device)
        self.step, self.epoch, self.batch = content["step"], content["epoch"], content["batch"]

    def _load_model(self, state: dict[str, Tensor], source: str) -> None:
        self._check_model(state, source)
        self.module.load_state_dict(with_version(self.module, state))

    def _check_model(self, state: dict[str, Tensor], source: str) -> None:
        ours = {key: tensor.shape for key, tensor in self.module.state_dict().items()}
        if ours != {key: tensor.shape for key, tensor in state.items()}:
            # Checked before: load_state_dict copies what fits and complains afterwards.
            raise CheckpointError(
                f"{source} holds another model than {self.config.model.name} with "
                f"{len(self.data.class_names)} classes. Choose a checkpoint of this model."
            )

    def _restored(self, command_id: str) -> dict[str, Any]:
        return {
            "step": self.step,
            "epoch": self.epoch,
            "frozen": sorted(self.freeze_set.frozen),
            "num_trainable": self.freeze_set.num_trainable,
            "segment": self.segment,
            "rate": self.rates.rate,
            "multipliers": self.rates.multipliers,
            "plan": self.plan.phases,
            "num_phases_begun": self.plan.num_begun,
            "adapting": sorted(self.freeze_set.adapting),
            "command_id": command_id,
        }

    def _multiply_at_start(self) -> None:
        for units, multiplier in multiplied_units(self.config.optimizer.multipliers, self.freeze_set):
            self.rates.multiply(units, multiplier)

    def _confusion(self, evaluation: Evaluation, split: str, checkpoint: str, step: int) -> ConfusionMatrix | None:
        names = list(self.data.class_names)
        if evaluation.confusion is None:
            return None
        return ConfusionMatrix(
            split=split, checkpoint=checkpoint, step=step, class_names=names, counts=evaluation.confusion
        )


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} … ({len(names)})"
