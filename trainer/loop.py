"""The Trainer: fits a model. It reads as the algorithm, and knows no socket and no window."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trainer.advisor import AdviceInput, Stage
from trainer.checkpoints import (
    CheckpointError,
    CheckpointStore,
    checkpoint_name,
    read_rng,
    restore_rng,
    to_cpu,
)
from trainer.config import ConfigError, PlanPhase, RunConfig
from trainer.data.loader import ImageData
from trainer.data.mixing import BatchMixer
from trainer.data.stream import Batch
from trainer.early_stopping import EarlyStopping
from trainer.freezing import BACKBONE, HEAD, FreezeError, FreezeSet
from trainer.layer_norms import LayerNorms
from trainer.messages.base import Event
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    FreezeChanged,
    LayersFrozen,
    LayersUnfrozen,
    PhaseBegan,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.events import (
    ChangeAdvised,
    CheckpointSaved,
    FreezeVerified,
    LogWritten,
    MetricsLogged,
    ProgressReported,
)
from trainer.messages.model_info import ModelSummary
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix, InForce, Series
from trainer.messages.states import RunState
from trainer.metrics import (
    LEARNING_RATE,
    TRAIN_LOSS,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
    Evaluation,
    SplitMetrics,
    StepMetrics,
)
from trainer.models import LoadedModel, layer_tree
from trainer.optim import autocast, choose_precision, make_optimizer
from trainer.pace import Pace
from trainer.plans import stages
from trainer.rates import RateSchedule
from trainer.rewinds import KeptState, Rewinds, size_of
from trainer.run_record import RunFolderError, best_checkpoint, metrics_text
from trainer.runs import RunFolder
from trainer.schedules import Plan, check_plan, frozen_after, start_step
from trainer.task import make_task

FLUSH_INTERVAL_S = 0.05
PROGRESS_INTERVAL_S = 0.25
_NUM_EPOCHS_TOLD = 2


class RunStopped(Exception):  # noqa: N818 (a request that ends the fit, not an error)
    """Raised between two steps to end the fit there."""


class Trainer:
    """One run in memory: model, optimizer, freeze set and the position in the data.

    ``step`` counts optimizer updates, ``epoch`` completed epochs, ``batch`` the batches taken of the present epoch.
    An update that was left out, because the loss or the gradient was not finite, counts as well: the last one of these
    is ``non_finite_step``. Everything here belongs to one thread; ``step`` may be read from others.
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
        self.steps_per_epoch = -(-data.batches_per_epoch // config.training.accumulate_batches)
        self.num_epochs = config.training.epochs
        self.module = loaded.module.to(device)
        self.layers = layer_tree(loaded.module, loaded.head)
        self.freeze_set = FreezeSet(self.module, loaded.head)
        self.optimizer = make_optimizer(config.optimizer, self.module)
        self.rates = RateSchedule(config.optimizer, self.optimizer, self.total_steps, self.steps_per_epoch)
        self.early_stopping = EarlyStopping(config.training)
        self._rewinds = Rewinds(round(config.training.rewind_gb * 1e9))
        self._num_changes = 0
        self._is_too_large_told = False
        self._trial_began_at: int | None = None
        self._frozen_since: dict[str, int] = {}
        mixing = config.data.mixing
        self._mixer = None if mixing == "none" else BatchMixer(mixing, len(data.class_names), config.training.seed)
        self._task = make_task(config, data.class_names, data.class_counts, data.num_train, device)
        self._emit = emit
        self._metrics = StepMetrics()
        self._layer_norms = LayerNorms(self.optimizer)
        self._stages = stages(self.layers)
        self._advice = AdviceInput()
        self._pace = Pace()
        self._has_jumped = False
        self._unsaved: Evaluation | None = None
        self._phase = "train"
        self._folder: RunFolder | None = None
        self._store: CheckpointStore | None = None
        torch.manual_seed(config.training.seed)
        self._frozen_since = dict.fromkeys(self.freeze_set.freeze(config.model.frozen), 0)
        if config.model.batchnorm == "adapting" and any(layer.has_statistics for layer in self.layers):
            self.freeze_set.set_adapting([BACKBONE, HEAD], is_adapting=True)
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
    def in_force(self) -> InForce:
        """Return what may change as the run goes on, as it is now."""
        return InForce(
            rate=self.rates.rate,
            epochs=self.num_epochs,
            patience=self.early_stopping.patience,
            plan=self.plan.phases[self.plan.num_begun :],
        )

    # -- the run ----------------------------------------------------------------------------------------------

    def begin(self, folder: RunFolder) -> None:
        """Begin a new run in a new folder: write its base and open the first piece of its curve."""
        self._folder, self._store = folder, CheckpointStore(folder)
        self._store.write_base(self.module.state_dict())
        self.segment = folder.begin_segment(0, None, time.time())

    def go_on(self, folder: RunFolder, info: CheckpointInfo | None) -> list[Event]:
        """Go on with the run of an existing folder, from a checkpoint of it or (None) from its start.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            CheckpointError: A file that this needs is missing, damaged or another model's.

        """
        self._folder, self._store = folder, CheckpointStore(folder)
        # Each change is an event: no number of this run is as large.
        self._num_changes = folder.last_event_id()
        run = folder.run_info()
        if run is not None:
            # Of the run as a whole, and of no checkpoint: a restore does not change them back.
            self._set_length(run.present.epochs, run.present.patience)
        if info is None:
            self._load_model(self._store.read_base(), "base.pt")
            self.segment = folder.begin_segment(0, None, time.time())
            return []
        events = self._put_checkpoint_back(info.name)
        # A run that was killed as its patience ended is to end, as it would have; one that had ended is to go on.
        return events + self._go_on_from_here(has_patience_anew=folder.recorded_state()[0] is RunState.FINISHED)

    def fit(self, between_steps: Callable[[], None]) -> str:
        """Train to the last epoch, or until the patience is at its end. Returns why it ended early, or "".

        Args:
            between_steps: Called at every step boundary, where it may change anything here, wait, or raise RunStopped.

        """
        self._save_epoch()
        is_tested = False
        sentence = ""
        # More epochs may be asked for while the test split is evaluated.
        while not is_tested or self._has_epochs_left:
            while self._has_epochs_left:
                self._has_jumped = False
                self._train_epoch(between_steps)
                evaluation = None if self._has_jumped else self._validate(between_steps)
                if evaluation is None:
                    # A restore put the run elsewhere: begin again from there.
                    continue
                self.epoch, self.batch = self.epoch + 1, 0
                values = evaluation.values
                self._tell_plateau(values[VALIDATION_LOSS])
                self.plan.end_epoch(values[VALIDATION_LOSS], values[VALIDATION_ACCURACY])
                self.early_stopping.end_epoch(values)
                self._unsaved = evaluation
                self._save_epoch()
                self._advise(values[VALIDATION_LOSS])
            sentence = self._end_early(sentence)
            self._has_jumped = False
            is_tested = self._test(between_steps)
        return sentence

    @property
    def _has_epochs_left(self) -> bool:
        return self.epoch < self.num_epochs and not self.early_stopping.is_over

    def train_step(self, batches: Sequence[Batch]) -> Tensor:
        """Make one optimizer update from the gradients of some batches: that of one batch with all of their images.

        Returns the mean loss over the images, shape (), on the device.

        The loss is of the mixed images, weighted by class and of smoothed targets, where the run asks for that;
        validation's is none of these.
        The update is left out where the loss or the gradient is NaN or infinite.

        Args:
            batches: Images, shape (B, 3, H, W), float32, and the task's targets; on the run's device.

        """
        self.rates.set_rates(self.step)
        buffers = [buffer.clone() for buffer in self.freeze_set.adapting_buffers]
        num_images = sum(len(target) for _, target in batches)
        loss: Tensor
        loss, right = torch.zeros((2,), device=self.device)
        for images, target in batches:
            batch_loss, logits, mixed_target = self._forward(images, target)
            share = batch_loss * (len(target) / num_images)
            share.backward()  # type: ignore[no-untyped-call]
            loss = loss + share.detach()
            right = right + self._task.num_right(logits, mixed_target)
            self.batch += 1
        self._layer_norms.begin()
        gradient_norm = self._clipped_norm()
        # On a GPU this waits for the device, once a step.
        if torch.isfinite(loss + gradient_norm):
            self.optimizer.step()
            self._layer_norms.finish(self.step + 1, self.segment)
        else:
            self.non_finite_step = self.step + 1
            # BatchNorm's running statistics took part in the forward pass, and would stay NaN.
            for buffer, before in zip(self.freeze_set.adapting_buffers, buffers, strict=True):
                buffer.copy_(before)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._metrics.add(self.step, loss, right / num_images, gradient_norm)
        return loss

    def take_batches(self, loaded: Iterator[Batch]) -> list[Batch]:
        """Return what the next update is made from, on the device; nothing at the end of an epoch."""
        num_left = self.data.batches_per_epoch - self.batch
        batches = islice(loaded, min(self.config.training.accumulate_batches, num_left))
        return [
            (images.to(self.device, non_blocking=True), target.to(self.device, non_blocking=True))
            for images, target in batches
        ]

    def _forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._mixer is not None:
            images, target = self._mixer(images, target, self.epoch, self.batch)
        with autocast(self.precision, self.device):
            logits = self.module(images)
            return self._task.training_loss(logits, target), logits, target

    def _clipped_norm(self) -> Tensor:
        """Return the L2 norm of the whole gradient, shape (), and shorten the gradient to the run's limit."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.config.optimizer.clip_norm is not None:
            clip_grads_with_norm_(parameters, self.config.optimizer.clip_norm, norm)
        return norm

    def _train_epoch(self, between_steps: Callable[[], None]) -> None:
        self._set_phase("train")
        self.data.look_for_changes()
        num_batches = self.data.batches_per_epoch
        if self.batch >= num_batches:
            return
        loaded = self.data.train_batches(self.epoch, self.batch)
        while self.batch < num_batches:
            self._follow_plan()
            between_steps()
            if self._has_jumped:
                return
            started = time.perf_counter()
            batches = self.take_batches(loaded)
            self.train_step(batches)
            self._pace.add(time.perf_counter() - started, sum(len(target) for _, target in batches))
            self.report()
        self._tell_loading()

    def _end_early(self, said: str) -> str:
        """Put the best checkpoint back, once, where the patience has ended the run; ``said`` is what was said of that.

        Returns a sentence about it, "" where the run has not ended early.
        """
        if not self.early_stopping.is_over:
            return ""
        if said:
            return said
        counted = self.early_stopping.state_dict()
        sentence, name = self.early_stopping.sentence(), self.early_stopping.best_name
        if self.config.training.restore_best and name:
            try:
                for event in self._put_checkpoint_back(name):
                    self._emit(event)
                # The run is over all the same, though it was not when that checkpoint was saved.
                self.early_stopping.load_state_dict(counted)
                sentence = f"{sentence} Its best checkpoint by that, {name}, is restored."
            except (CheckpointError, RunFolderError) as error:
                sentence = f"{sentence} Its best checkpoint was not restored. {error}"
        self._emit(LogWritten(level="info", text=sentence))
        return sentence

    def _tell_plateau(self, loss: float) -> None:
        if self.rates.end_epoch(loss):
            num_epochs = self.config.optimizer.decay_epochs
            text = (
                f"The validation loss has not fallen for more than {num_epochs} epochs: the rate is multiplied by "
                f"{self.config.optimizer.decay_factor:g}."
            )
            self._emit(LogWritten(level="info", text=text))

    def _tell_loading(self) -> None:
        """Say how fast the images came in the first epoch, which decodes them, and in the second."""
        images_per_s = self.data.images_per_s.get(self.epoch)
        if self.epoch < _NUM_EPOCHS_TOLD and images_per_s is not None:
            text = f"Epoch {self.epoch + 1}: images are loaded at {images_per_s:,.0f} a second."
            self._emit(LogWritten(level="info", text=text))

    def _validate(self, between_steps: Callable[[], None]) -> Evaluation | None:
        self._set_phase("validation")
        started = time.perf_counter()
        self.report(force=True)
        evaluation = self._evaluate(self.module, "validation", self.data.validation_batches(), between_steps)
        if evaluation is None:
            return None
        self._pace.validation_s = time.perf_counter() - started
        self._log({tag: Series(steps=[self.step], values=[value]) for tag, value in evaluation.values.items()})
        self._set_phase("train")
        return evaluation

    def _test(self, between_steps: Callable[[], None]) -> bool:
        """Evaluate the best checkpoint on the test split, if there is one. Returns whether that was done to the end."""
        if not self.data.num_test:
            return True
        assert self._folder is not None
        assert self._store is not None
        checkpoints = self._folder.checkpoints()
        best = self._kept_as_best(checkpoints) or best_checkpoint(checkpoints) or checkpoints[-1]
        # A copy: a person may save, freeze or restore meanwhile, and means the model that was trained last.
        try:
            module = copy.deepcopy(self.module).eval()
            module.load_state_dict(self._store.load(best)["model_state_dict"])
            evaluation = self._evaluate(module, "test", self.data.test_batches(), between_steps)
        except torch.OutOfMemoryError:
            text = f"The test split was not evaluated: the device {self.device} has no memory for a second model."
            self._emit(LogWritten(level="warning", text=text))
            return True
        if evaluation is None:
            return False
        self._log({tag: Series(steps=[best.step], values=[value]) for tag, value in evaluation.values.items()})
        confusion = self._confusion(evaluation, "test", best.name, best.step)
        if confusion is not None:
            self._folder.keep_test_confusion(confusion)
        text = f"Test split ({self.data.num_test:,} images), {best.name}: {metrics_text(evaluation.values)}."
        self._emit(LogWritten(level="info", text=text))
        return True

    def _kept_as_best(self, checkpoints: list[CheckpointInfo]) -> CheckpointInfo | None:
        """Return the best checkpoint by what the patience watches, None without a patience."""
        name = self.early_stopping.best_name if self.early_stopping.patience is not None else ""
        return next((info for info in checkpoints if info.name == name), None)

    @torch.no_grad()
    def _evaluate(
        self, module: nn.Module, split: str, batches: Iterator[Batch], between_steps: Callable[[], None]
    ) -> Evaluation | None:
        metrics = SplitMetrics(split, self._task, self.device)
        for images, target in batches:
            between_steps()
            if self._has_jumped:
                return None
            with autocast(self.precision, self.device):
                logits = module(images.to(self.device, non_blocking=True))
            metrics.add(logits, target.to(self.device, non_blocking=True))
        return metrics.compute()

    def _confusion(self, evaluation: Evaluation, split: str, checkpoint: str, step: int) -> ConfusionMatrix | None:
        names = list(self.data.class_names)
        if evaluation.confusion is None:
            return None
        return ConfusionMatrix(
            split=split, checkpoint=checkpoint, step=step, class_names=names, counts=evaluation.confusion
        )

    def _save_epoch(self) -> None:
        """Save the epoch that has just ended; again, if that failed before the run was paused for it."""
        if self._unsaved is None:
            return
        self.save(reason="epoch", evaluation=self._unsaved)
        self._unsaved = None
        self._follow_plan()

    def _advise(self, validation_loss: float) -> None:
        """Propose the next freeze or unfreeze, or make it, where the run asks for that."""
        self._advice.end_epoch(validation_loss)
        choice = self.config.training.advisor
        if choice == "off" or self.plan.num_begun < len(self.plan.phases) or not self._has_epochs_left:
            return
        units = [self.freeze_set.resolve(stage) for stage in self._stages]
        of_model = [
            Stage(names, below, self.freeze_set.frozen.issuperset(below))
            for names, below in zip(self._stages, units, strict=True)
        ]
        advice = self._advice.advise(of_model)
        if advice is None:
            return
        if choice == "tell":
            self._emit(
                ChangeAdvised(
                    layers=advice.layers,
                    is_freeze=advice.is_freeze,
                    sentence=advice.sentence,
                    step=self.step,
                    segment=self.segment,
                )
            )
            return
        self._emit(LogWritten(level="info", text=advice.sentence))
        change = self.freeze if advice.is_freeze else self.unfreeze
        self._emit(change(advice.layers, source="advisor"))

    def _follow_plan(self) -> None:
        for event in self._due_changes():
            self._emit(event)

    def _due_changes(self) -> list[Event]:
        """Make the plan's changes whose time has come, once: what a person then changes stays as it is."""
        events: list[Event] = []
        while self._has_epochs_left and (phase := self.plan.due(self.epoch, self.step)):
            self.plan.begin_next()
            events.append(self._phase_began())
            try:
                self.freeze_set.check(frozen_after(phase, self.freeze_set, self.freeze_set.frozen))
                # What is to train comes first: at no moment is everything frozen.
                changes: tuple[FreezeChanged | RateMultiplierChanged, ...] = (
                    self.unfreeze(phase.unfreeze, source="plan"),
                    self.freeze(phase.freeze, but=phase.unfreeze, source="plan"),
                    *(self.set_rate_multiplier([layer], rate, source="plan") for layer, rate in phase.rates.items()),
                )
                events += (change for change in changes if change.layers)
            except FreezeError as error:
                text = f"The plan's change at {phase.start} was left out. {error}"
                events.append(LogWritten(level="warning", text=text))
        return events

    def _phase_began(self) -> PhaseBegan:
        return PhaseBegan(plan=self.plan.phases, num_begun=self.plan.num_begun, step=self.step, segment=self.segment)

    def _set_phase(self, phase: str) -> None:
        self._phase = phase
        self.freeze_set.set_mode(training=phase == "train")

    # -- what a command may do between two steps --------------------------------------------------------------

    def freeze(
        self,
        layers: Sequence[str],
        *,
        but: Sequence[str] = (),
        is_exact: bool = False,
        requested_step: int | None = None,
        source: str = "user",
        command_id: str = "",
    ) -> LayersFrozen:
        """Freeze layers, ``but`` some of them, here and now. Returns the event, which nobody has been told yet.

        Raises:
            FreezeError: A name is no layer, or nothing would be left to train.

        """
        changed = self.freeze_set.learning(layers, but=but, is_exact=is_exact)
        self.freeze_set.check(self.freeze_set.frozen.union(changed))
        before = self._present_state() if changed else None
        self.freeze_set.set_frozen(self.freeze_set.frozen.union(changed))
        self._frozen_since.update(dict.fromkeys(changed, self.step))
        return LayersFrozen(**self._freeze_change(before, changed, "frozen", requested_step, source, command_id))

    def unfreeze(
        self,
        layers: Sequence[str],
        *,
        is_exact: bool = False,
        requested_step: int | None = None,
        source: str = "user",
        command_id: str = "",
    ) -> LayersUnfrozen:
        """Unfreeze layers here and now. Returns the event that says so, which nobody has been told yet.

        Raises:
            FreezeError: A name is no layer.

        """
        changed = self.freeze_set.frozen_among(layers, is_exact=is_exact)
        before = self._present_state() if changed else None
        self.freeze_set.set_frozen(self.freeze_set.frozen.difference(changed))
        frozen_since = {unit: self._frozen_since.pop(unit) for unit in changed}
        for parameter in self.freeze_set.parameters(filter(self._drops_state(frozen_since), changed)):
            self.optimizer.state.pop(parameter, None)
        if self.step:
            # Adam's first steps after a pause are too long; before the first step there was no pause.
            self.rates.ramp(changed, self.step)
        return LayersUnfrozen(**self._freeze_change(before, changed, "unfrozen", requested_step, source, command_id))

    def set_rate(self, rate: float, *, requested_step: int | None = None, command_id: str = "") -> RateChanged:
        """Change the run's rate here and now. Returns the event that says so, which nobody has been told yet."""
        before = self.rates.rate
        if rate != before:
            self._keep(self._present_state(), f"rate {rate:g}", "user")
        self.rates.rate = rate
        return RateChanged(
            rate=rate,
            before=before,
            change=self._num_changes if rate != before else 0,
            requested_step=self.step if requested_step is None else requested_step,
            applied_step=self.step,
            segment=self.segment,
            command_id=command_id,
        )

    def set_plan(
        self, phases: Sequence[PlanPhase], *, requested_step: int | None = None, command_id: str = ""
    ) -> PlanChanged:
        """Have other phases follow those that have begun. Returns the event, which nobody has been told yet.

        Raises:
            ConfigError: A phase cannot work with this model, or with what is frozen now.

        """
        check_plan(phases, self.freeze_set, self.num_epochs, self.steps_per_epoch, self.step)
        self.plan.replace_rest(phases)
        return PlanChanged(
            plan=self.plan.phases,
            num_begun=self.plan.num_begun,
            requested_step=self.step if requested_step is None else requested_step,
            applied_step=self.step,
            segment=self.segment,
            command_id=command_id,
        )

    def set_rate_multiplier(
        self,
        layers: Sequence[str],
        multiplier: float,
        *,
        is_exact: bool = False,
        requested_step: int | None = None,
        source: str = "user",
        command_id: str = "",
    ) -> RateMultiplierChanged:
        """Multiply the rate of layers here and now. Returns the event that says so, which nobody has been told yet.

        Raises:
            FreezeError: A name is no layer.

        """
        before = self.rates.multipliers
        named = self.freeze_set.resolve(layers, is_exact=is_exact)
        changed = [unit for unit in named if before.get(unit, 1.0) != multiplier]
        sentence = f"{self.freeze_set.describe(changed)} at rate × {multiplier:g}"
        if changed:
            self._keep(self._present_state(), sentence, source)
        self.rates.multiply(changed, multiplier)
        return RateMultiplierChanged(
            layers=changed,
            before=[before.get(unit, 1.0) for unit in changed],
            change=self._num_changes if changed else 0,
            multiplier=multiplier,
            sentence=sentence,
            multipliers=self.rates.multipliers,
            requested_step=self.step if requested_step is None else requested_step,
            applied_step=self.step,
            source=source,
            segment=self.segment,
            command_id=command_id,
        )

    def set_batchnorm(
        self, layers: Sequence[str], *, is_adapting: bool, requested_step: int | None = None, command_id: str = ""
    ) -> BatchNormChanged:
        """Let statistics go on in frozen layers, or not. Returns the event that says so, which nobody was told yet.

        Raises:
            FreezeError: A name is no layer, or none of them has running statistics.

        """
        changed = self.freeze_set.set_adapting(layers, is_adapting=is_adapting)
        policy = "adapt when frozen" if is_adapting else "freeze with the layer"
        return BatchNormChanged(
            layers=changed,
            is_adapting=is_adapting,
            sentence=f"statistics of {self.freeze_set.describe(changed)} {policy}",
            adapting=sorted(self.freeze_set.adapting),
            requested_step=self.step if requested_step is None else requested_step,
            applied_step=self.step,
            source="user",
            segment=self.segment,
            command_id=command_id,
        )

    def change_training(
        self,
        epochs: int | None,
        patience: int | None,
        *,
        requested_step: int | None = None,
        command_id: str = "",
    ) -> list[Event]:
        """Change how long the run is, here and now; None leaves a value as it is, a patience of 0 ends nothing early.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            ConfigError: The run is longer than that already.

        """
        before = self.in_force
        if epochs is not None and epochs != before.epochs and epochs <= self.epoch:
            raise ConfigError(
                f"Epochs cannot be {epochs}: the run is in epoch {self.epoch + 1} already. Choose {self.epoch + 1} or "
                "more, or stop the run.",
                "training.epochs",
            )
        self._set_length(
            before.epochs if epochs is None else epochs, before.patience if patience is None else patience or None
        )
        changed = TrainingChanged(
            epochs=self.num_epochs,
            before_epochs=before.epochs,
            patience=self.early_stopping.patience,
            before_patience=before.patience,
            total_steps=self.total_steps,
            requested_step=self.step if requested_step is None else requested_step,
            applied_step=self.step,
            segment=self.segment,
            command_id=command_id,
        )
        never = [phase for phase in self.plan.phases[self.plan.num_begun :] if self._is_after_the_end(phase)]
        texts = [f"The plan's phase at {phase.start} never comes: the run now ends before it." for phase in never]
        return [changed, *(LogWritten(level="warning", text=text) for text in texts)]

    def _is_after_the_end(self, phase: PlanPhase) -> bool:
        start = start_step(phase, self.steps_per_epoch)
        return start is not None and start >= self.total_steps

    def _set_length(self, num_epochs: int, patience: int | None) -> None:
        self.num_epochs, self.early_stopping.patience = num_epochs, patience
        self.rates.total_steps = self.total_steps

    def save(self, *, reason: str, evaluation: Evaluation | None = None, command_id: str = "") -> CheckpointInfo:
        """Save a checkpoint of this very moment, durable when this returns.

        Args:
            reason: Why it is kept: "epoch", "user" or "stop".
            evaluation: Validation's at this step, if any.
            command_id: The command that asked for it.

        Raises:
            CheckpointError: It cannot be written.

        """
        assert self._folder is not None
        assert self._store is not None
        self.report(force=True)
        drifted = self.freeze_set.find_drifted()
        num_adapting = len(self.freeze_set.adapting & self.freeze_set.frozen)
        num_verified = len(self.freeze_set.frozen)
        verified = FreezeVerified(step=self.step, num_verified=num_verified, drifted=drifted, num_adapting=num_adapting)
        self._emit(verified)
        metrics = {} if evaluation is None else evaluation.values
        loss, accuracy = metrics.get(VALIDATION_LOSS), metrics.get(VALIDATION_ACCURACY)
        name = self._unused_name(checkpoint_name(self.config.model.name, self.epoch, self.step, loss, accuracy))
        if reason == "epoch":
            self.early_stopping.name_epoch(name)
        frozen = sorted(self.freeze_set.frozen)
        content: dict[str, Any] = {
            **self._content(),
            "loss": loss,
            "metrics": metrics,
            "class_names": list(self.data.class_names),
            "data_fingerprint": self.data.fingerprint,
            "config": self.config.model_dump(mode="json"),
        }
        size_bytes, sha256 = self._store.save(name, content, self.module.state_dict())
        info = CheckpointInfo(
            name=name,
            epoch=self.epoch,
            step=self.step,
            loss=loss,
            accuracy=accuracy,
            metrics=metrics,
            frozen=frozen,
            frozen_summary=self.freeze_set.describe(frozen),
            size_bytes=size_bytes,
            sha256=sha256,
            saved_at=time.time(),
            reason=reason,
            segment=self.segment,
        )
        confusion = None if evaluation is None else self._confusion(evaluation, "validation", name, self.step)
        self._folder.add_checkpoint(info, confusion)
        self._emit(CheckpointSaved(checkpoint=info, command_id=command_id))
        return info

    def restore(self, name: str, *, command_id: str = "") -> list[Event]:
        """Put a checkpoint of this run back, to go on from it: weights, optimizer, schedule, freeze set, position.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            RunFolderError: The run has no such checkpoint.
            CheckpointError: Its file is missing, damaged or another model's; nothing has changed then.

        """
        return self._put_checkpoint_back(name, command_id) + self._go_on_from_here(has_patience_anew=True)

    def _go_on_from_here(self, *, has_patience_anew: bool) -> list[Event]:
        if has_patience_anew and self.early_stopping.is_over:
            self.early_stopping.num_epochs = 0
        # An epoch's checkpoint is saved before the plan's change for the next one.
        return self._due_changes()

    def _put_checkpoint_back(self, name: str, command_id: str = "") -> list[Event]:
        assert self._folder is not None
        assert self._store is not None
        info = self._folder.checkpoint(name)
        checkpoint = self._store.load(info)
        if checkpoint["class_names"] != list(self.data.class_names):
            raise CheckpointError(
                f"The checkpoint {info.name} was trained on the classes {_shorten(checkpoint['class_names'])}, but the "
                f"data now has {_shorten(self.data.class_names)}. Put the data back as it was."
            )
        self._put_back(checkpoint, info.name, info.name)
        events: list[Event] = [CheckpointRestored(name=info.name, **self._restored(command_id))]
        if self._rewinds.forget_after(self.step):
            events.append(self._rewinds.event())
        if checkpoint["data_fingerprint"] != self.data.fingerprint:
            text = (
                "The data set has changed since this checkpoint was saved. The run goes on with it as it is now; new "
                "images train, the others stay in their splits."
            )
            events.append(LogWritten(level="warning", text=text))
        return events

    def rewind(self, change: int | None, step: int | None, *, command_id: str = "") -> list[Event]:
        """Go back to the state just before a change (None: before the first one at ``step``, or before the last).

        Returns the events that say so, which nobody has been told yet.

        Raises:
            RewindError: That state is not kept.

        """
        assert self._store is not None
        kept = self._rewinds.find(change, step)
        content = {**kept.content, "model_state_dict": self._store.whole(kept.content["model_state_dict"])}
        self._put_back(content, "The state in memory", kept.resume_from)
        self._unsaved = kept.unsaved
        self._rewinds.forget_from(kept.change)
        rewound = RunRewound(
            change=kept.change, sentence=kept.sentence, source=kept.source, **self._restored(command_id)
        )
        return [rewound, self._rewinds.event()]

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

    def close(self) -> None:
        """End the loader's processes."""
        self.data.close()

    # -- reporting --------------------------------------------------------------------------------------------

    def report(self, *, force: bool = False) -> None:
        """Send the metrics that have gathered, and the progress, if it is time (or ``force``)."""
        now = time.perf_counter()
        if force or now - self._pace.flushed_at >= FLUSH_INTERVAL_S:
            self._pace.flushed_at = now
            self._flush()
        if force or now - self._pace.reported_at >= PROGRESS_INTERVAL_S:
            self._pace.reported_at = now
            self._emit(self._progress())

    def _flush(self) -> None:
        series = self._metrics.flush()
        if not series:
            return
        series[LEARNING_RATE] = Series(steps=[self.step], values=[self.rates.applied])
        self._advice.take_losses(series[TRAIN_LOSS].values)
        self._log(series)
        stats = self._layer_norms.take()
        if stats is not None:
            self._advice.take_norms(stats)
            self._emit(stats)

    def _log(self, series: dict[str, Series]) -> None:
        self._emit(MetricsLogged(segment=self.segment, series=series))

    def _progress(self) -> ProgressReported:
        return ProgressReported(
            epoch=self.epoch,
            num_epochs=self.num_epochs,
            step=self.step,
            total_steps=self.total_steps,
            samples_per_s=self._pace.samples_per_s,
            seconds_left=self._pace.seconds_left(self.total_steps - self.step, self.num_epochs - self.epoch),
            step_ms=self._pace.step_s * 1000,
            worker_bytes=psutil.Process().memory_info().rss,
            phase="validation" if self._phase == "validation" else "train",
            num_epochs_no_better=self.early_stopping.num_epochs,
            patience=self.early_stopping.patience,
        )

    def _multiply_at_start(self) -> None:
        for layer, multiplier in self.config.optimizer.multipliers.items():
            try:
                self.rates.multiply(self.freeze_set.resolve([layer]), multiplier)
            except FreezeError as error:
                raise ConfigError(f"The rate multiplier of {layer!r}: {error}", "optimizer.multipliers") from error

    # -- the state as a whole ---------------------------------------------------------------------------------

    def _content(self) -> dict[str, Any]:
        """Return the state beside the model's, as a checkpoint has it. Its tensors may be the live ones."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "optimizer_state_dict": to_cpu(self.optimizer.state_dict()),
            "scheduler_state_dict": self.rates.state_dict(),
            "plan": self.plan.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "rng": read_rng(self.device),
            "freeze": sorted(self.freeze_set.frozen),
            "adapting": sorted(self.freeze_set.adapting),
            "frozen_since": dict(self._frozen_since),
        }

    def _put_back(self, content: dict[str, Any], source: str, resume_from: str | None) -> None:
        """Put a whole state back and begin a new piece of the curve, which a killed run would begin at a checkpoint."""
        assert self._folder is not None
        self._flush()
        self._load_state(content, source)
        self.segment = self._folder.begin_segment(self.step, resume_from, time.time())
        self.non_finite_step = None
        self._unsaved = None
        self._has_jumped = True
        self._pace.forget()
        self._advice = AdviceInput()

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo to the bit, at the end, whatever is trained inside. Nothing of it is told or kept."""
        content = copy.deepcopy({**self._content(), "model_state_dict": to_cpu(self.module.state_dict())})
        rates, metrics, norms, non_finite_step = self.rates, self._metrics, self._layer_norms, self.non_finite_step
        self._metrics, self._layer_norms = StepMetrics(), LayerNorms(self.optimizer)
        self._trial_began_at = self.step
        try:
            yield
        finally:
            self.rates, self._metrics, self._layer_norms = rates, metrics, norms
            self._load_state(content, "The state in memory")
            self.freeze_set.set_mode(training=self._phase == "train")
            self.non_finite_step = non_finite_step
            self._trial_began_at = None
            # The batches that the fit was taking ended with those of the trial: it takes them anew from here.
            self._has_jumped = True

    def _load_state(self, content: dict[str, Any], source: str) -> None:
        self._load_model(content["model_state_dict"], source)
        self.optimizer.load_state_dict(content["optimizer_state_dict"])
        self.optimizer.zero_grad(set_to_none=True)
        self.rates.load_state_dict(content["scheduler_state_dict"])
        self.plan.load_state_dict(content["plan"])
        self.early_stopping.load_state_dict(content["early_stopping"])
        self.freeze_set.adapting = set(content["adapting"])
        self.freeze_set.set_frozen(content["freeze"])
        self._frozen_since = dict(content["frozen_since"])
        self.freeze_set.take_hashes()
        restore_rng(content["rng"], self.device)
        self.step, self.epoch, self.batch = content["step"], content["epoch"], content["batch"]

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

    def _present_state(self) -> dict[str, Any] | None:
        """Return a copy of the whole state, of the model what differs from the run's start; None where none is kept.

        One that is larger than all the memory for these is not copied, and that is said once.
        """
        if self._store is None or not self._rewinds.budget_bytes:
            return None
        content = {**self._content(), "model_state_dict": self._store.changed(self.module.state_dict())}
        num_bytes = size_of(content)
        if num_bytes <= self._rewinds.budget_bytes:
            return copy.deepcopy(content)
        if not self._is_too_large_told:
            self._is_too_large_told = True
            text = (
                f"The state before a change is not kept for a rewind: it takes {num_bytes / 1e9:.3g} GB, and rewind_gb "
                f"is {self.config.training.rewind_gb:g}."
            )
            self._emit(LogWritten(level="warning", text=text))
        return None

    def _keep(self, content: dict[str, Any] | None, sentence: str, source: str) -> None:
        """Give a change its number, and keep the state before it."""
        self._num_changes += 1
        if content is None or self._folder is None:
            return
        point = self._folder.resume_point()
        resume_from = None if point is None else point.name
        self._rewinds.keep(KeptState(self._num_changes, sentence, source, content, resume_from, self._unsaved))
        self._emit(self._rewinds.event())

    def _drops_state(self, frozen_since: dict[str, int]) -> Callable[[str], bool]:
        """Tell of which units the optimizer's state is too old to be kept: it would make the first steps too long."""
        choice = self.config.optimizer.state_on_unfreeze
        return lambda unit: (
            choice == "drop" or (choice == "auto" and self.step - frozen_since[unit] >= self.steps_per_epoch)
        )

    def _freeze_change(
        self,
        before: dict[str, Any] | None,
        changed: list[str],
        verb: str,
        requested_step: int | None,
        source: str,
        command_id: str,
    ) -> dict[str, Any]:
        sentence = f"{self.freeze_set.describe(changed)} {verb}"
        if changed:
            self._keep(before, sentence, source)
        # The steps before and after the change cost differently: a pace over both would tell neither.
        self._pace.forget()
        self._advice = AdviceInput()
        return {
            "layers": changed,
            "sentence": sentence,
            "change": self._num_changes if changed else 0,
            "frozen": sorted(self.freeze_set.frozen),
            "num_trainable": self.freeze_set.num_trainable,
            "requested_step": self.step if requested_step is None else requested_step,
            "applied_step": self.step,
            "source": source,
            "segment": self.segment,
            "command_id": command_id,
        }

    def _load_model(self, state: dict[str, Tensor], source: str) -> None:
        ours = {key: tensor.shape for key, tensor in self.module.state_dict().items()}
        if ours != {key: tensor.shape for key, tensor in state.items()}:
            # Checked before: load_state_dict copies what fits and complains afterwards.
            raise CheckpointError(
                f"{source} holds another model than {self.config.model.name} with "
                f"{len(self.data.class_names)} classes. Choose a checkpoint of this model."
            )
        self.module.load_state_dict(state)

    def _unused_name(self, name: str) -> str:
        assert self._folder is not None
        taken = {info.name for info in self._folder.checkpoints()}
        stem = name.removesuffix(".pt")
        candidates = (f"{stem}_{number}.pt" for number in range(2, len(taken) + 3))
        return name if name not in taken else next(c for c in candidates if c not in taken)


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} … ({len(names)})"
