"""Metrics collected on the device and read back in batches: no step waits for a number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from trainer.messages import Series
from trainer.task import Task

TRAIN_LOSS = "Loss/train"
TRAIN_ACCURACY = "Accuracy/train"
VALIDATION_LOSS = "Loss/validation"
VALIDATION_ACCURACY = "Accuracy/validation"
LEARNING_RATE = "Learning rate"
GRADIENT_NORM = "Gradient norm"

_VALUES_AT_ONCE = 8192
"""Probabilities that are gathered before the metrics are brought up to date."""

_EPSILON = 1e-7
_LARGEST_LOG_ODDS = 32.0
"""Above those of 1 - _EPSILON against chance, for up to a million classes."""


class StepMetrics:
    """Loss and accuracy of each training step, kept on the device until the next flush."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._pending: list[Tensor] = []

    def add(self, step: int, loss: Tensor, accuracy: Tensor, gradient_norm: Tensor) -> None:
        """Take one step's results without waiting for the device: each of shape ().

        Args:
            step: Completed optimizer updates.
            loss: Mean loss over the images.
            accuracy: Share of the images that were right.
            gradient_norm: L2 norm of the whole gradient, before it is clipped.

        """
        self._steps.append(step)
        self._pending.append(torch.stack((loss.float(), accuracy, gradient_norm.float())))

    def flush(self) -> dict[str, Series]:
        """Read back what has gathered, by tag; the one place that waits for the device."""
        if not self._steps:
            return {}
        columns = torch.stack(self._pending).T.tolist()
        tags = (TRAIN_LOSS, TRAIN_ACCURACY, GRADIENT_NORM)
        series = {tag: Series(steps=self._steps, values=values) for tag, values in zip(tags, columns, strict=True)}
        self._steps, self._pending = [], []
        return series


@dataclass(frozen=True)
class Evaluation:
    """A split's metrics by tag, and how many images of each class (row) were taken for which class (column)."""

    values: dict[str, float]
    confusion: list[list[int]]


class SplitMetrics:
    """The metrics of "validation" or "test", computed by torchmetrics on the device, many images at a time."""

    def __init__(self, split: str, task: Task, device: torch.device) -> None:
        self._split = split
        self._task = task
        self._loss = MeanMetric(nan_strategy="disable").to(device)
        self._metrics = {name: metric.to(device) for name, metric in task.metrics().items()}
        self._auroc = task.auroc().to(device)
        self._confusion = task.confusion().to(device)
        self._gathered: list[tuple[Tensor, Tensor]] = []
        self._num_gathered = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take a batch: the model's outputs, and class indexes of shape (B,); both on the device."""
        # Once for each image: where NaN is let through, torchmetrics 1.9 leaves weights out.
        self._loss.update(self._task.loss(logits.float(), target).expand(len(target)))
        probabilities = self._task.probabilities(logits)
        self._gathered.append((probabilities, target))
        self._num_gathered += probabilities.numel()
        if self._num_gathered >= _VALUES_AT_ONCE:
            self._take_gathered()

    def compute(self) -> Evaluation:
        """Return the metrics; one that the split's images leave undefined is not among them."""
        self._take_gathered()
        values = {"Loss": float(self._loss.compute())}
        values.update((name, float(metric.compute())) for name, metric in self._metrics.items())
        auroc = self._mean_auroc()
        if auroc is not None:
            values["AUROC"] = auroc
        confusion: list[list[int]] = self._confusion.compute().tolist()
        return Evaluation({f"{name}/{self._split}": value for name, value in values.items()}, confusion)

    def _take_gathered(self) -> None:
        """Bring the metrics up to date. Counting waits for the device: once for many batches, not for each."""
        if not self._gathered:
            return
        probabilities, target = (torch.cat(parts) for parts in zip(*self._gathered, strict=True))
        self._gathered, self._num_gathered = [], 0
        for metric in (*self._metrics.values(), self._confusion):
            metric.update(probabilities, target)
        # Its memory is that of all values times all thresholds.
        num_images = max(1, _VALUES_AT_ONCE * len(target) // probabilities.numel())
        scores = _spread(probabilities)
        for start in range(0, len(target), num_images):
            self._auroc.update(scores[start : start + num_images], target[start : start + num_images])

    def _mean_auroc(self) -> float | None:
        """Return the mean over the classes that some of the images belong to and some do not; None without any."""
        counts = self._auroc.confmat
        assert isinstance(counts, Tensor)
        is_defined = (counts[0].sum(dim=-1) > 0).all(dim=-1)
        defined = self._auroc.compute()[is_defined]
        return float(defined.mean()) if defined.numel() else None


def _spread(probabilities: Tensor) -> Tensor:
    """Return scores in the order of the probabilities, above 0 and below 1, that even thresholds tell apart.

    Log odds against those of chance, and on a scale that is finest there: even thresholds on probabilities themselves
    would find those of a hundred classes all alike, and those of a sure model as well.

    Args:
        probabilities: Of each of C classes, shape (B, C), or of the second of two, shape (B,).

    """
    num_classes = probabilities.shape[1] if probabilities.ndim == 2 else 2
    against_chance = torch.logit(probabilities, eps=_EPSILON) + math.log(max(num_classes - 1, 1))
    return torch.asinh(against_chance) / (2 * math.asinh(_LARGEST_LOG_ODDS)) + 0.5
