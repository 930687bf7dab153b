"""Metrics of steps and splits: what is counted stays on the device, and is read back for many batches at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.messages.run_info import ConfusionMatrix, Series
from trainer.split_counts import RankingCounts
from trainer.task import Task
from trainer.validation_metrics import METRIC_TAGS

TRAIN_LOSS = "Loss/train"
TRAIN_ACCURACY = "Accuracy/train"
VALIDATION_LOSS = METRIC_TAGS["loss"]
VALIDATION_ACCURACY = METRIC_TAGS["accuracy"]
LEARNING_RATE = "Learning rate"
GRADIENT_NORM = "Gradient norm"

Answers = tuple[Tensor, Tensor]
"""What a model gave for some images, (B, C) or (B, 1), and the task's targets for them, (B,) or (B, C)."""

_OUTPUTS_AT_ONCE = 1 << 16
"""Outputs that are kept until it is counted which are right."""
_VALUES_AT_ONCE = 8192
"""Log odds that are gathered before the metrics are brought up to date."""


def read_numbers(numbers: Sequence[Tensor]) -> list[float]:
    """Return the values of tensors of shape (), all on one device, which is waited for once."""
    if numbers[0].device.type == "cpu":
        # Where nothing is to be waited for, stacking a head's numbers takes longer than reading them.
        return [number.item() for number in numbers]
    values: list[float] = torch.stack([number.float() for number in numbers]).tolist()
    return values


class StepMetrics:
    """Loss, accuracy and gradient norm of each training step until the next flush, which counts what was right.

    Args:
        are_right: The task's.

    """

    def __init__(self, are_right: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._are_right = are_right
        self._steps: list[int] = []
        self._num_images: list[int] = []
        self._losses: list[float] = []
        self._gradient_norms: list[float] = []
        self._answers: list[Answers] = []
        self._num_values = 0
        self._right: list[Tensor] = []

    def add(self, step: int, loss: float, answers: Sequence[Answers], gradient_norm: float) -> None:
        """Take one step's results without waiting for the device.

        Args:
            step: Completed optimizer updates.
            loss: Mean loss over the images.
            answers: The model's outputs and the targets of all of its images, a part at a time.
            gradient_norm: L2 norm of the whole gradient, before it is clipped.

        """
        self._steps.append(step)
        self._losses.append(loss)
        self._gradient_norms.append(gradient_norm)
        # Looked at when they are sent: in a step on cached features, that would take a tenth of it.
        self._answers += answers
        num_images = 0
        for logits, target in answers:
            num_images += len(target)
            self._num_values += logits.numel()
        self._num_images.append(num_images)
        if self._num_values >= _OUTPUTS_AT_ONCE:
            self._look_at_answers()

    def _look_at_answers(self) -> None:
        logits, targets = (
            torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*self._answers, strict=True)
        )
        self._right.append(self._are_right(logits, targets))
        self._answers, self._num_values = [], 0

    def flush(self) -> dict[str, Series]:
        """Read back what has gathered, by tag; the one place that waits for the device."""
        if not self._steps:
            return {}
        if self._answers:
            self._look_at_answers()
        right = torch.cat(self._right).cpu().double().numpy()
        num_right = np.add.reduceat(right, np.cumsum([0, *self._num_images[:-1]]))
        accuracies = (num_right / self._num_images).tolist()
        columns = {TRAIN_LOSS: self._losses, TRAIN_ACCURACY: accuracies, GRADIENT_NORM: self._gradient_norms}
        series = {tag: Series(steps=self._steps, values=values) for tag, values in columns.items()}
        self._steps, self._num_images, self._right = [], [], []
        self._losses, self._gradient_norms = [], []
        return series


@dataclass(frozen=True)
class Evaluation:
    """A split's metrics by tag, and how many images of each class (row) were taken for which class (column).

    ``confusion`` is None where an image may have several classes.
    """

    values: dict[str, float]
    confusion: list[list[int]] | None

    def matrix(self, split: str, checkpoint: str, step: int, class_names: list[str]) -> ConfusionMatrix | None:
        """Return the confusion matrix as it is kept; the arguments are as there."""
        if self.confusion is None:
            return None
        return ConfusionMatrix(
            split=split, checkpoint=checkpoint, step=step, class_names=class_names, counts=self.confusion
        )


class SplitMetrics:
    """The metrics of "validation" or "test", from counts on the device that take many images at a time."""

    def __init__(self, split: str, task: Task, device: torch.device) -> None:
        self._split = split
        self._task = task
        self._counts = task.new_counts(device)
        self._ranking = RankingCounts(task.num_outputs, device)
        self._loss_of_all = 0.0
        self._gathered: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_gathered = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take a batch: the model's outputs, and the task's targets, of shape (B,) or (B, C); both on the device."""
        log_odds = self._task.log_odds(logits)
        self._gathered.append((log_odds, target, self._task.loss(logits.float(), target) * len(target)))
        self._num_gathered += log_odds.numel()
        if self._num_gathered >= _VALUES_AT_ONCE:
            self._count_gathered()

    def compute(self) -> Evaluation:
        """Return the metrics; one that the split's images leave undefined is not among them."""
        self._count_gathered()
        assert self._counts.num_images, "no split is evaluated that has no images"
        areas, precisions = self._ranking.compute()
        computed = self._counts.metrics() | {"AUROC": areas}
        if self._task.has_average_precision:
            computed["Mean AP"] = precisions
        values = {"Loss": self._loss_of_all / self._counts.num_images}
        for name, value in computed.items():
            # Of classes that some of the images belong to and some do not, where that matters.
            defined = value[~value.isnan()]
            if defined.numel():
                values[name] = float(defined.mean())
        confusion = self._counts.confusion
        tagged = {f"{name}/{self._split}": value for name, value in values.items()}
        return Evaluation(tagged, None if confusion is None else confusion.tolist())

    def _count_gathered(self) -> None:
        """Bring the counts up to date. Reading the loss waits for the device: once for many batches, not for each."""
        if not self._gathered:
            return
        all_log_odds, targets, losses = zip(*self._gathered, strict=True)
        log_odds, target = torch.cat(all_log_odds), torch.cat(targets)
        self._gathered, self._num_gathered = [], 0
        self._loss_of_all += sum(torch.stack(losses).tolist())
        self._counts.add(log_odds, target)
        self._ranking.add(log_odds, self._task.positives(target))
