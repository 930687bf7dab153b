"""The Trainer: fits a model. It reads as the algorithm, and knows no socket and no window."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from trainer.advisor import Stage
from trainer.checkpoints import CheckpointError
from trainer.config import RunConfig
from trainer.data.loader import ImageData
from trainer.data.mixing import BatchMixer
from trainer.feature_batches import ModelBatch
from trainer.live_changes import LiveChanges
from trainer.live_run import MIN_PART, LiveRun
from trainer.messages.base import Event
from trainer.messages.events import ChangeAdvised, LogWritten, RewindsKept
from trainer.messages.run_info import CheckpointInfo, Series
from trainer.messages.states import RunState
from trainer.metrics import VALIDATION_ACCURACY, VALIDATION_LOSS, Answers, Evaluation, SplitMetrics, read_numbers
from trainer.models import LoadedModel, with_version
from trainer.optim import Learners, autocast
from trainer.plans import stages
from trainer.reporting import Phase
from trainer.run_record import RunFolderError, best_word, metrics_text
from trainer.runs import RunFolder

_NUM_EPOCHS_TOLD = 2
LOOK_INTERVAL_S = 10.0
"""At least so long lies between two looks for files that have changed."""


class RunStopped(Exception):  # noqa: N818 (a request that ends the fit, not an error)
    """Raised between two steps to end the fit there."""


class OutOfMemory(torch.OutOfMemoryError):
    """The device has no memory for an update, and the weights, the buffers and the position are as before it."""


class Trainer(LiveRun):
    """A live run that trains: epochs, steps, validation, and the test at the end.

    What it is made of, and how it is saved and put back, is in LiveRun; what changes it as it goes is in LiveChanges.
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
        super().__init__(config, loaded, data, device, emit, features_dir)
        mixing = config.data.mixing
        self._mixer = None if mixing == "none" else BatchMixer(mixing, len(data.class_names), config.training.seed)
        self._stages = stages(self.layers)
        self._has_told_caching = False
        self._looked_at = -math.inf
        self._learners = Learners(self.optimizer, self.freeze_set)
        # The worker asks for these by a person's command, the plan and the advisor by themselves.
        self.changes = LiveChanges(self)

    def fit(self, between_steps: Callable[[], None]) -> str:
        """Train to the last epoch, or until the patience is at its end. Returns why it ended early, or "".

        Args:
            between_steps: Called at every step boundary, where it may change anything here, wait, or raise RunStopped.

        """
        # What could not be written before the run was paused for it.
        self.settle()
        self._save_epoch()
        is_tested = False
        sentence = ""
        # More epochs may be asked for while the test split is evaluated.
        while not is_tested or self.has_epochs_left:
            while self.has_epochs_left:
                # What was said of an earlier end is not so any more.
                self._has_jumped, sentence = False, ""
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
                self.unsaved = evaluation
                self._save_epoch()
                self._advise(values[VALIDATION_LOSS])
            # The best one is looked for among those that are durable.
            self.settle()
            sentence = self._end_early(sentence)
            self._has_jumped = False
            is_tested = self._test(between_steps)
        return sentence

    def _train_epoch(self, between_steps: Callable[[], None]) -> None:
        self._set_phase("train")
        # An epoch of cached features is shorter than a look at its files.
        if time.monotonic() - self._looked_at >= LOOK_INTERVAL_S:
            self._looked_at = time.monotonic()
            self.data.look_for_changes()
        num_batches = self.data.batches_per_epoch
        if self.batch >= num_batches:
            return
        loaded = self.features.train_batches(self.epoch, self.batch)
        began, known_share = time.perf_counter(), self.features.known_share(self.epoch) or 0.0
        while self.batch < num_batches:
            self._follow_plan()
            between_steps()
            self.check_saved()
            if self._is_elsewhere():
                return
            self.save_if_due()
            started = time.perf_counter()
            batches = self.take_batches(loaded)
            while not self._has_memory_for(batches):
                between_steps()
                if self._is_elsewhere():
                    return
                started = time.perf_counter()
            self.reporter.pace.add(time.perf_counter() - started, sum(map(len, batches)))
            self.report()
        self._tell_loading()
        self._tell_caching(time.perf_counter() - began, known_share)

    def _is_elsewhere(self) -> bool:
        """Tell whether the batches that are being taken are not those that come next."""
        # Those of another cut begin at the present one.
        self._has_jumped |= self.features.follow()
        return self._has_jumped

    def _has_memory_for(self, batches: Sequence[ModelBatch]) -> bool:
        """Make an update, or find that the device lacks the memory. Returns whether it was made."""
        self.lacks_memory = False
        try:
            self.train_step(batches)
        except OutOfMemory:
            self.lacks_memory = True
        else:
            return True
        # Not in the handler: the traceback holds what the update had allocated.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    def take_batches(self, loaded: Iterator[ModelBatch]) -> list[ModelBatch]:
        """Return what the next update is made from; nothing at the end of an epoch."""
        num_left = self.data.batches_per_epoch - self.batch
        return list(islice(loaded, min(self.config.training.accumulate_batches, num_left)))

    def train_step(self, batches: Sequence[ModelBatch]) -> float:
        """Make one optimizer update from the gradients of some batches: that of one batch with all of their images.

        Returns the mean loss over the images.

        The loss is of the mixed images, weighted by class and of smoothed targets, where the run asks for that;
        validation's is none of these.
        The update is left out where the loss or the gradient is NaN or infinite.

        Raises:
            OutOfMemory: The device has no memory for it. Only what the forward pass drew of the generators is gone.

        Args:
            batches: As ``take_batches`` returned them.

        """
        self.rates.set_rates(self.step)
        buffers = [buffer.clone() for buffer in self.freeze_set.adapting_buffers]
        try:
            loss, answers = self._backward(batches)
            self.scaler.unscale_(self.optimizer)
            self.reporter.layer_norms.begin()
            norms = torch._foreach_norm(self._learners.gradients)
            self._clip(norms)
            # On a GPU this waits for the device, once a step.
            loss_value, *norm_values = read_numbers([loss, *norms])
            gradient_norm = math.hypot(*norm_values)
        except torch.OutOfMemoryError as error:
            # In the optimizer's step it is not caught: what that had moved already could not be put back.
            self._put_buffers_back(buffers)
            self.optimizer.zero_grad(set_to_none=True)
            self.reporter.layer_norms.forget()
            self.renew_scaler()
            raise OutOfMemory(str(error)) from error
        self.batch += len(batches)
        if math.isfinite(loss_value + gradient_norm):
            self._learners.update()
            self.reporter.layer_norms.finish(self.step + 1, self.segment)
        else:
            # A gradient that fp16 cannot hold is scaled less from the next step on; the loss itself is not scaled.
            if not (self.can_scale_less and math.isfinite(loss_value)):
                self.non_finite_step = self.step + 1
            # BatchNorm's running statistics took part in the forward pass, and would stay NaN.
            self._put_buffers_back(buffers)
            self.optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.step += 1
        self.reporter.metrics.add(self.step, loss_value, answers, gradient_norm)
        return loss_value

    def _backward(self, batches: Sequence[ModelBatch]) -> tuple[Tensor, list[Answers]]:
        """Sum up the gradients of batches, a part at a time.

        Returns the mean loss over the images, shape (), on the device, and the outputs and targets of each part.
        """
        weight = self.task.weight if self._mixer is None else len
        is_all = len(batches) == self.batch_parts == 1
        weight_of_all = 0 if is_all else sum(weight(batch.target) for batch in batches)
        losses: list[Tensor] = []
        answers: list[Answers] = []
        for number, batch in enumerate(batches, start=self.batch):
            inputs, target = batch.inputs(), batch.target
            if self._mixer is not None:
                # Nothing is cached of images that are mixed.
                (images,) = inputs
                images, target = self._mixer(images, target, self.epoch, number)
                inputs = (images,)
            # BatchNorm in train mode cannot take a single image.
            num_parts = max(1, min(self.batch_parts, len(target) // MIN_PART))
            parts = [(*inputs, target)]
            if num_parts > 1:
                parts = list(zip(*(whole.tensor_split(num_parts) for whole in parts[0]), strict=True))
            for *part, part_target in parts:
                with autocast(self.precision, self.device):
                    logits = batch.model(*part)
                    part_loss = self.task.training_loss(logits, part_target)
                share = part_loss if is_all else part_loss * (weight(part_target) / weight_of_all)
                self.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
                losses.append(share.detach())
                answers.append((logits.detach(), part_target))
        return functools.reduce(torch.add, losses), answers

    def _put_buffers_back(self, buffers: Sequence[Tensor]) -> None:
        for buffer, before in zip(self.freeze_set.adapting_buffers, buffers, strict=True):
            buffer.copy_(before)

    def _clip(self, norms: Sequence[Tensor]) -> None:
        """Shorten the gradient, of whose tensors these are the L2 norms, to the run's limit."""
        limit = self.config.optimizer.clip_norm
        if limit is not None:
            # As torch.nn.utils.get_total_norm does, which the exported script takes: the same to the bit.
            whole = torch.linalg.vector_norm(torch.stack(list(norms)))
            clip_grads_with_norm_(self._learners.parameters, limit, whole)

    def _tell_loading(self) -> None:
        """Say how fast the images came in the first epoch, which decodes them, and in the second."""
        images_per_s = self.data.images_per_s.get(self.epoch)
        if self.epoch < _NUM_EPOCHS_TOLD and images_per_s is not None:
            text = f"Epoch {self.epoch + 1}: images are loaded at {images_per_s:,.0f} a second."
            self._emit(LogWritten(level="info", text=text))

    def _tell_caching(self, seconds: float, known_share: float) -> None:
        """Say what the first epoch took that found all of its features in the cache."""
        if known_share == 1 and not self._has_told_caching:
            self._has_told_caching = True
            took = f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
            text = f"Epoch {self.epoch + 1} is trained in {took}, as its features are in the cache."
            self._emit(LogWritten(level="info", text=text))

    def _follow_plan(self) -> None:
        for event in self.changes.follow_plan():
            self._emit(event)

    def _set_phase(self, phase: Phase) -> None:
        self._phase = phase
        self.freeze_set.set_mode(training=phase == "train")

    def _validate(self, between_steps: Callable[[], None]) -> Evaluation | None:
        self._set_phase("validation")
        started = time.perf_counter()
        self.report(force=True)
        evaluation = self._evaluate("validation", self.features.validation_batches(), between_steps)
        if evaluation is None:
            return None
        self.reporter.pace.validation_s = time.perf_counter() - started
        self._log(evaluation, self.step)
        self._set_phase("train")
        return evaluation

    def validate_now(self, between_steps: Callable[[], None]) -> Evaluation:
        """Evaluate the model as it is on the validation split, while no fit goes on."""
        self._has_jumped = False
        evaluation = self._validate(between_steps)
        assert evaluation is not None, "nothing restores a run that waits for this"
        return evaluation

    @torch.no_grad()
    def _evaluate(
        self, split: str, batches: Iterator[ModelBatch], between_steps: Callable[[], None]
    ) -> Evaluation | None:
        metrics = SplitMetrics(split, self.task, self.device)
        for batch in batches:
            between_steps()
            if self._has_jumped:
                return None
            inputs = (whole.chunk(self.batch_parts) for whole in (*batch.inputs(), batch.target))
            for *part, target in zip(*inputs, strict=True):
                with autocast(self.precision, self.device):
                    logits = batch.model(*part)
                metrics.add(logits, target)
        return metrics.compute()

    def _log(self, evaluation: Evaluation, step: int) -> None:
        self.reporter.log(self, {tag: Series(steps=[step], values=[value]) for tag, value in evaluation.values.items()})

    def _tell_plateau(self, loss: float) -> None:
        if self.rates.end_epoch(loss):
            num_epochs = self.config.optimizer.decay_epochs
            text = (
                f"The validation loss has not fallen for more than {num_epochs} epochs: the rate is multiplied by "
                f"{self.config.optimizer.decay_factor:g}."
            )
            self._emit(LogWritten(level="info", text=text))

    def _save_epoch(self) -> None:
        """Save the epoch that has just ended."""
        if self.unsaved is None:
            return
        self.begin_save(reason="epoch", evaluation=self.unsaved)
        self.unsaved = None
        self._follow_plan()

    def _advise(self, validation_loss: float) -> None:
        """Propose the next freeze or unfreeze, or make it, where the run asks for that."""
        self.reporter.advice.end_epoch(validation_loss)
        choice = self.config.training.advisor
        if choice == "off" or self.plan.num_begun < len(self.plan.phases) or not self.has_epochs_left:
            return
        of_model = [
            Stage(
                layers,
                [layer for layer in layers if self.freeze_set.learning([layer])],
                self.freeze_set.units_of(self.freeze_set.resolve(layers)),
            )
            for layers in self._stages
        ]
        advice = self.reporter.advice.advise(of_model)
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
        change = self.changes.freeze if advice.is_freeze else self.changes.unfreeze
        self._emit(change(advice.layers, source="advisor"))

    def _end_early(self, said: str) -> str:
        """Put the best checkpoint back, once, where the patience has ended the run; ``said`` is what was said of that.

        Returns a sentence about it, "" where the run has not ended early.
        """
        if not self.early_stopping.is_over:
            return ""
        if said:
            return said
        counted = self.early_stopping.state_dict()
        sentence, best = self.early_stopping.sentence(), self.best_checkpoint
        if self.config.training.restore_best and best is not None:
            try:
                for event in self.restoring.put_checkpoint_back(best.name):
                    self._emit(event)
                # The run is over all the same, though it was not when that checkpoint was saved.
                self.early_stopping.load_state_dict(counted)
                by = "that" if self.best_metric == self.config.training.stop_metric else best_word(self.best_metric)
                sentence = f"{sentence} Its best checkpoint by {by}, {best.name}, is restored."
            except (CheckpointError, RunFolderError) as error:
                sentence = f"{sentence} Its best checkpoint was not restored. {error}"
        # Whoever runs this says it with the run's last state.
        return sentence

    def _test(self, between_steps: Callable[[], None]) -> bool:
        """Evaluate the best checkpoint on the test split, if there is one. Returns whether that was done to the end."""
        if not self.data.num_test:
            return True
        assert self._folder is not None
        assert self._store is not None
        best = self.best_checkpoint or self._folder.checkpoints.listed()[-1]
        # A copy: a person may save, freeze or restore meanwhile, and means the model that was trained last.
        try:
            module = copy.deepcopy(self.module).eval()
            module.load_state_dict(with_version(module, self._store.load(best)["model_state_dict"]))
            evaluation = self._evaluate("test", self.features.test_batches(module), between_steps)
        except torch.OutOfMemoryError:
            text = f"The test split was not evaluated: the device {self.device} has no memory for a second model."
            self._emit(LogWritten(level="warning", text=text))
            return True
        except CheckpointError as error:
            # It would be the same at every try, and the run could never end.
            self._emit(LogWritten(level="warning", text=f"The test split was not evaluated. {error}"))
            return True
        if evaluation is None:
            return False
        self._log(evaluation, best.step)
        confusion = evaluation.matrix("test", best.name, best.step, list(self.data.class_names))
        if confusion is not None:
            self._folder.checkpoints.keep_test_confusion(confusion)
        text = f"Test split ({self.data.num_test:,} images), {best.name}: {metrics_text(evaluation.values)}."
        self._emit(LogWritten(level="info", text=text))
        return True

    # -- from elsewhere ---------------------------------------------------------------------------------------

    def go_on(self, folder: RunFolder, info: CheckpointInfo | None) -> list[Event]:
        """Go on with the run of an existing folder, from a checkpoint of it or (None) from its start.

        Returns the events that say so, which nobody has been told yet.

        Raises:
            CheckpointError: A file that this needs is missing, damaged or another model's.

        """
        events = self.open(folder, info)
        if info is None:
            return events
        # A run that was killed as its patience ended is to end, as it would have; one that had ended is to go on.
        return events + self._go_on_from_here(has_patience_anew=folder.recorded_state()[0] is RunState.FINISHED)

    def restore(self, name: str, *, weights_only: bool = False, command_id: str = "") -> list[Event]:
        """Put a checkpoint of this run back, to go on from it: weights, optimizer, schedule, freeze set, position.

        With ``weights_only`` the position, the schedule and the freeze set stay as they are.
        Returns the events that say so, which nobody has been told yet.

        Raises:
            RunFolderError: The run has no such checkpoint.
            CheckpointError: Its file is missing, damaged or another model's, or there are no epochs left to train its
                weights in; nothing has changed then.

        """
        if weights_only:
            if self.epoch >= self.num_epochs:
                raise CheckpointError(
                    "The run is at its end, so that there is no step left for the weights of another checkpoint. "
                    "Restore the checkpoint as a whole, or train on for more epochs first."
                )
            return self.restoring.put_weights_back(name, command_id) + self._go_on_from_here(has_patience_anew=True)
        restored = self.restoring.put_checkpoint_back(name, command_id, is_undoable=True)
        events = restored + self._go_on_from_here(has_patience_anew=True)
        if not any(isinstance(event, RewindsKept) for event in events):
            return events
        # As it is now: where the plan's next phase begins here, that is a change, after which no restore is undone.
        return [event for event in events if not isinstance(event, RewindsKept)] + [self.restoring.rewinds_kept()]

    def renew_patience(self) -> None:
        """Have a run that its patience had ended go on for as long again."""
        if self.early_stopping.is_over:
            self.early_stopping.num_epochs = 0

    def _go_on_from_here(self, *, has_patience_anew: bool) -> list[Event]:
        if has_patience_anew:
            self.renew_patience()
        # An epoch's checkpoint is saved before the plan's change for the next one.
        return self.changes.follow_plan()
