"""A run in memory: its model, what trains it and where it stands; saved, put back and rewound as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoints import (
    CheckpointError,
    CheckpointStore,
    checkpoint_name,
    copy_to_cpu,
    read_rng,
    restore_rng,
    seed_generators,
)
from trainer.compiling import Compilation
from trainer.compute import apply_form, default_choice
from trainer.config import Metric, RunConfig
from trainer.data.loader import ImageData
from trainer.early_stopping import EarlyStopping
from trainer.environment import environment
from trainer.feature_cache import FeatureCache
from trainer.file_writer import FileWriter
from trainer.freezing import FreezeSet, freeze_at_start
from trainer.messages.base import Event
from trainer.messages.compute import ComputeChoice
from trainer.messages.events import FreezeVerified
from trainer.messages.model_info import ModelSummary
from trainer.messages.run_info import CheckpointInfo, InForce
from trainer.metrics import VALIDATION_ACCURACY, VALIDATION_LOSS, Evaluation
from trainer.models import LoadedModel, layer_tree, with_version
from trainer.optim import make_optimizer
from trainer.rates import RateSchedule
from trainer.reporting import Phase, Reporter
from trainer.restoring import Restoring
from trainer.run_record import best_checkpoint
from trainer.runs import RunFolder
from trainer.saving import ASKED_FOR, PendingSave, Saver
from trainer.schedules import Plan, check_plan, multiplied_units, multipliers_by_name
from trainer.task import make_task

MIN_PART = 2
"""The fewest images in a part of a batch."""


class LiveRun:
    """One run in memory: model, optimizer, freeze set and the position in the data.

    ``step`` counts optimizer updates, ``epoch`` completed epochs, ``batch`` the batches taken of the present epoch.
    An update that was left out, because the loss or the gradient was not finite, counts as well: the last one of these
    is ``non_finite_step``. ``lacks_memory``: an update was given up for want of memory, and waits. ``only_in_memory``
    is the reason for which this very state is to be saved, as no file leads to it, "" for none. Everything here belongs
    to one thread; ``step`` may be read from others.
    """

    def __init__(
        self,
        config: RunConfig,
        loaded: LoadedModel,
        data: ImageData,
        device: torch.device,
        emit: Callable[[Event], None],
        features_dir: Path | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.device = device
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
        self._emit = emit
        self.compilation: Compilation | None = None
        self.compute_in(default_choice(config, device, torch.get_num_threads()), is_compiled=False)
        self.layers = layer_tree(loaded.module, loaded.head)
        self.freeze_set = FreezeSet(self.module, loaded.head)
        self.optimizer = make_optimizer(config.optimizer, self.module)
        self.rates = RateSchedule(config.optimizer, self.optimizer, self.total_steps, self.steps_per_epoch)
        self.early_stopping = EarlyStopping(config.training)
        self.task = make_task(config, data.class_names, data.class_counts, data.num_train, device)
        self.reporter = Reporter(self.optimizer, self.task.are_right, emit)
        self._phase: Phase = "train"
        self.restoring = Restoring(self)
        self._has_jumped = False
        self._trial_began_at: int | None = None
        self.unsaved: Evaluation | None = None
        self.only_in_memory = ""
        self._folder: RunFolder | None = None
        self._store: CheckpointStore | None = None
        self._saver: Saver | None = None
        self._writer = FileWriter("checkpoint-writer")
        self._last_saved = (time.monotonic(), 0)
        self.freeze_set.before_frozen_changes = self._let_go_of_weights
        seed_generators(config.training.seed)
        freeze_at_start(self.freeze_set, config.model)
        self.frozen_since = dict.fromkeys(self.freeze_set.frozen_atoms, 0)
        self.plan = Plan(config.plan)
        check_plan(config.plan, self.freeze_set, config.training.epochs, self.steps_per_epoch)
        for units, multiplier in multiplied_units(config.optimizer.multipliers, self.freeze_set):
            self.rates.multiply(units, multiplier)
        self.features = FeatureCache(self, features_dir)

    @property
    def precision(self) -> str:
        """Return the arithmetic of the forward pass."""
        return self.compute.form.precision

    @property
    def told_step(self) -> int:
        """Return the completed updates as all have been told: those of a trial are not."""
        began_at = self._trial_began_at
        return self.step if began_at is None else began_at

    @property
    def is_on_trial(self) -> bool:
        """Whether all that is done will be undone, and nothing of it told or kept."""
        return self._trial_began_at is not None

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
        """Return the run's best checkpoint, by what tells it with the patience that it has now."""
        assert self._folder is not None
        return best_checkpoint(self._folder.checkpoints.listed(), self.best_metric)

    @property
    def best_metric(self) -> Metric:
        """Return by what the best checkpoint is told, with the patience that the run has now."""
        return self.config.best_metric(self.early_stopping.patience)

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

    def compute_in(self, choice: ComputeChoice, *, is_compiled: bool) -> None:
        """Compute in a form from here on, without compiling the model for a trial: that takes longer than its steps."""
        self.compute = choice
        apply_form(choice.form, self.module, self.device)
        # Does nothing but in fp16, whose gradients are too small for it.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=choice.form.precision == "fp16")
        if is_compiled and choice.is_compiled and self.compilation is None:
            self.compilation = Compilation(self.module, self._emit)

    @property
    def can_scale_less(self) -> bool:
        """Whether the loss is scaled, and could be by less."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def renew_scaler(self) -> None:
        """Forget an update that was begun and given up; the scale stays."""
        state = self.scaler.state_dict()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.scaler.is_enabled())
        if state:
            self.scaler.load_state_dict(state)

    def set_length(self, num_epochs: int, patience: int | None) -> None:
        """Change how long the run is."""
        self.num_epochs, self.early_stopping.patience = num_epochs, patience
        self.rates.total_steps = self.total_steps

    def tell(self, event: Event) -> None:
        """Send an event."""
        self._emit(event)

    def report(self, *, force: bool = False) -> None:
        """Send the metrics that have gathered, and the progress, if it is time (or ``force``)."""
        self.reporter.report(self, self._phase, force=force)

    def close(self) -> None:
        """End the loader's processes, and write what is to be kept."""
        self.data.close()
        self.features.close()
        self._writer.finish()
        if self.compilation is not None:
            self.compilation.close()

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
        self.restoring.find_rewinds()
        run = folder.run_info()
        if run is not None:
            # Of the run as a whole, and of no checkpoint: a restore does not change them back.
            self.set_length(run.present.epochs, run.present.patience)
            self.batch_parts = run.present.batch_parts
            self.plan = Plan([*run.present.begun, *run.present.plan])
        if info is None:
            self.load_model(store.read_base(), "base.pt")
            self.segment = folder.begin_segment(0, None, time.time())
            self.restoring.forget_rewinds()
            return []
        return self.restoring.put_checkpoint_back(info.name)

    def _take(self, folder: RunFolder) -> CheckpointStore:
        self._folder, self._store = folder, CheckpointStore(folder)
        self._saver = Saver(
            self.config.checkpoints, folder, self._store, self._writer, self._emit, lambda: self.best_metric
        )
        self.restoring.take(folder, self._store, self._saver, self._writer, self._emit)
        self._last_saved = (time.monotonic(), self.step)
        return self._store

    def save(self, *, reason: str, evaluation: Evaluation | None = None, command_id: str = "") -> CheckpointInfo:
        """Save a checkpoint of this very moment, durable when this returns.

        Args:
            reason: Why it is saved: "epoch", "periodic" (within one), "user", "stop", "branch" or "weights".
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
        if self._trial_began_at is not None:
            return
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
        """Save a state to which no file leads, or within an epoch where the last checkpoint lies long enough back."""
        assert self._saver is not None
        if self.only_in_memory and not self._saver.is_busy:
            self.begin_save(reason=self.only_in_memory)
            return
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
        """Copy what a checkpoint of this moment holds and a step would change."""
        assert self._store is not None
        # First: one copy in memory at a time.
        self.settle()
        self.report(force=True)
        metrics = {} if evaluation is None else evaluation.values
        loss, accuracy = metrics.get(VALIDATION_LOSS), metrics.get(VALIDATION_ACCURACY)
        frozen = sorted(self.freeze_set.names_for_config())
        content: dict[str, Any] = {
            **self.content(),
            "loss": loss,
            "metrics": metrics,
            "class_names": list(self.data.class_names),
            "data_fingerprint": self.data.fingerprint,
            "config": self.config.model_dump(mode="json"),
            "made_with": environment(self.device, self.compute),
        }
        state, still = self.module.state_dict(), self.freeze_set.still_keys()
        # What is frozen is written from where it is: a copy of a backbone would be a second one in memory.
        live = {key: tensor for key, tensor in state.items() if key in still and _can_be_written(tensor)}
        moving = {key: tensor for key, tensor in state.items() if key not in live}
        # In one go: on a GPU the copies are waited for once.
        content, moving = copy_to_cpu([content, moving], is_fast=True)
        model_state = {key: live[key] if key in live else moving[key] for key in state}
        # Hashed by the writer: it may be half a gigabyte.
        find_drifted, step = self.freeze_set.drift_check(model_state), self.step
        num_adapting = len(self.freeze_set.adapting & self.freeze_set.frozen)
        num_verified = len(self.freeze_set.units_of(self.freeze_set.frozen_atoms))

        def verify() -> FreezeVerified:
            return FreezeVerified(
                step=step, num_verified=num_verified, drifted=find_drifted(), num_adapting=num_adapting
            )

        # The last that may fail: a name that is held is written under, or let go.
        name = self._store.hold_name(checkpoint_name(self.config.model.name, self.epoch, self.step, loss, accuracy))
        self._last_saved = (time.monotonic(), self.step)
        if reason not in ASKED_FOR:
            # Those that fail are not tried again.
            self.only_in_memory = ""
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
            multipliers=multipliers_by_name(self.rates.multipliers, self.freeze_set),
            adapting=sorted(self.freeze_set.adapting),
        )
        names = content["class_names"]
        confusion = None if evaluation is None else evaluation.matrix("validation", name, self.step, names)
        return PendingSave(info, content, model_state, confusion, verify, command_id, is_awaited, list(live.values()))

    def _let_go_of_weights(self) -> None:
        if self._saver is not None:
            self._saver.let_go_of_weights()

    # -- the state as a whole ---------------------------------------------------------------------------------

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo to the bit, at the end, whatever is trained inside. Nothing of it is told or kept."""
        content = copy_to_cpu({**self.content(), "model_state_dict": dict(self.module.state_dict())})
        rates, non_finite_step = self.rates, self.non_finite_step
        self._trial_began_at = self.step
        try:
            with self.reporter.set_aside():
                yield
        finally:
            self.rates = rates
            self.load_state(content, "The state in memory")
            self.freeze_set.set_mode(training=self._phase == "train")
            self.non_finite_step = non_finite_step
            self._trial_began_at = None
            # The batches that the fit was taking ended with those of the trial: it takes them anew from here.
            self._has_jumped = True

    def content(self) -> dict[str, Any]:
        """Return the state beside the model's, as a checkpoint has it. Its tensors may be the live ones."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.rates.state_dict(),
            "plan": self.plan.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "scaler_state_dict": self.scaler.state_dict(),
            "rng": read_rng(self.device),
            "freeze": sorted(self.freeze_set.frozen),
            "adapting": sorted(self.freeze_set.adapting),
            "frozen_since": dict(self.frozen_since),
            "rewinds": self.restoring.changes,
            "views": self.features.views_of_state,
        }

    def begin_piece(self, segment: int, unsaved: dict[str, Any] | None) -> None:
        """Go on from what was just put back, in a piece of the curve of its own; ``unsaved`` is what it validated."""
        self.segment, self.only_in_memory = segment, ""
        self.non_finite_step, self.lacks_memory = None, False
        self._last_saved = (self._last_saved[0], self.step)
        self.unsaved = None if unsaved is None else Evaluation(**unsaved)
        self._has_jumped = True
        self.reporter.forget()

    def load_state(self, content: dict[str, Any], source: str) -> None:
        """Put back what ``content`` returned, with a whole model; ``source`` names it in a sentence."""
        self.load_model(content["model_state_dict"], source)
        self.optimizer.load_state_dict(content["optimizer_state_dict"])
        self.optimizer.zero_grad(set_to_none=True)
        self.rates.load_state_dict(content["scheduler_state_dict"])
        if self.scaler.is_enabled() and content.get("scaler_state_dict"):
            self.scaler.load_state_dict(content["scaler_state_dict"])
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
        # An earlier Thaw had none.
        self.features.expect_views(content.get("views", 0))
        restore_rng(content["rng"], self.device)
        self.step, self.epoch, self.batch = content["step"], content["epoch"], content["batch"]

    def load_model(self, state: dict[str, Tensor], source: str) -> None:
        """Put a whole state_dict into the model, if it is one of it."""
        self.check_model(state, source)
        self._let_go_of_weights()
        self.module.load_state_dict(with_version(self.module, state))

    def check_model(self, state: dict[str, Tensor], source: str) -> None:
        """Refuse (CheckpointError) a state_dict of another model."""
        ours = {key: tensor.shape for key, tensor in self.module.state_dict().items()}
        if ours != {key: tensor.shape for key, tensor in state.items()}:
            # Checked before: load_state_dict copies what fits and complains afterwards.
            raise CheckpointError(
                f"{source} holds another model than {self.config.model.name} with "
                f"{len(self.data.class_names)} classes. Choose a checkpoint of this model."
            )


def _can_be_written(tensor: Tensor) -> bool:
    """Tell whether a tensor can be written from where it is: on the CPU, and no view, as all behind it would be."""
    # From a GPU each small piece that is hashed would wait for the steps that are queued.
    return tensor.device.type == "cpu" and tensor.untyped_storage().nbytes() == tensor.nbytes
