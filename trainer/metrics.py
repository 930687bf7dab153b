"""Metrics collected on the device and read back in batches: no step waits for a number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from trainer.messages.run_info import ConfusionMatrix, Series
from trainer.task import Task
from trainer.validation_metrics import METRIC_TAGS

TRAIN_LOSS = "Loss/train"
TRAIN_ACCURACY = "Accuracy/train"
VALIDATION_LOSS = METRIC_TAGS["loss"]
VALIDATION_ACCURACY = METRIC_TAGS["accuracy"]
LEARNING_RATE = "Learning rate"
GRADIENT_NORM = "Gradient norm"

_VALUES_AT_ONCE = 8192
"""Log odds that are gathered before the metrics are brought up to date."""

_NUM_BINS = 2000
"""Of a ranking: they tell log odds apart that differ by some 1 %, or, near those of chance, by 0.0001."""
_FINENESS = 100.0
_LARGEST_LOG_ODDS = 1000.0


class StepMetrics:
    """Loss and accuracy of each training step, kept on the device until the next flush."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._num_images: list[int] = []
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, right: Tensor, num_images: int, gradient_norm: Tensor) -> None:
        """Take one step's results without waiting for the device: each tensor of shape ().

        Args:
            step: Completed optimizer updates.
            loss: Mean loss over the images.
            right: Number of the images that were right.
            num_images: Number of the images.
            gradient_norm: L2 norm of the whole gradient, before it is clipped.

        """
        self._steps.append(step)
        self._num_images.append(num_images)
        # Put together when they are sent: in a step on cached features, that would take a tenth of it.
        self._pending.append((loss, right, gradient_norm))

    def flush(self) -> dict[str, Series]:
        """Read back what has gathered, by tag; the one place that waits for the device."""
        if not self._steps:
            return {}
        loss, right, norm = (torch.stack(column).float() for column in zip(*self._pending, strict=True))
        accuracy = right / torch.tensor(self._num_images, dtype=torch.float32, device=right.device)
        columns = torch.stack((loss, accuracy, norm)).tolist()
        tags = (TRAIN_LOSS, TRAIN_ACCURACY, GRADIENT_NORM)
        series = {tag: Series(steps=self._steps, values=values) for tag, values in zip(tags, columns, strict=True)}
        self._steps, self._num_images, self._pending = [], [], []
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
    """The metrics of "validation" or "test", computed by torchmetrics on the device, many images at a time."""

    def __init__(self, split: str, task: Task, device: torch.device) -> None:
        self._split = split
        self._task = task
        self._loss = MeanMetric(nan_strategy="disable").to(device)
        self._metrics = {name: metric.to(device) for name, metric in task.metrics().items()}
        self._ranking = BinnedRanking(task.num_outputs).to(device)
        confusion = task.confusion()
        self._confusion = None if confusion is None else confusion.to(device)
        self._gathered: list[tuple[Tensor, Tensor]] = []
        self._num_gathered = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take a batch: the model's outputs, and the task's targets, of shape (B,) or (B, C); both on the device."""
        # Once for each image: where NaN is let through, torchmetrics 1.9 leaves weights out.
        self._loss.update(self._task.loss(logits.float(), target).expand(len(target)))
        log_odds = self._task.log_odds(logits)
        self._gathered.append((log_odds, target))
        self._num_gathered += log_odds.numel()
        if self._num_gathered >= _VALUES_AT_ONCE:
            self._take_gathered()

    def compute(self) -> Evaluation:
        """Return the metrics; one that the split's images leave undefined is not among them."""
        self._take_gathered()
        areas, precisions = self._ranking.compute()
        computed = {name: metric.compute() for name, metric in self._metrics.items()}
        computed["AUROC"] = areas
        if self._task.has_average_precision:
            computed["Mean AP"] = precisions
        values = {"Loss": float(self._loss.compute())}
        for name, value in computed.items():
            # Of classes that some of the images belong to and some do not, where that matters.
            defined = value[~value.isnan()]
            if defined.numel():
                values[name] = float(defined.mean())
        confusion = None if self._confusion is None else self._confusion.compute().tolist()
        return Evaluation({f"{name}/{self._split}": value for name, value in values.items()}, confusion)

    def _take_gathered(self) -> None:
        """Bring the metrics up to date. Counting waits for the device: once for many batches, not for each."""
        if not self._gathered:
            return
        log_odds, target = (torch.cat(parts) for parts in zip(*self._gathered, strict=True))
        self._gathered, self._num_gathered = [], 0
        for metric in (*self._metrics.values(), self._confusion):
            if metric is not None:
                metric.update(self._task.decided(log_odds), target)
        self._ranking.update(log_odds, self._task.positives(target))


class BinnedRanking(Metric):
    """How well each output puts positive images above negative ones: the area under its ROC curve, and its precision.

    The area is how likely a positive image is to be put above a negative one; the average precision is the mean, over
    the positive images, of the share of positive ones among those that are put as high or higher.

    It counts the images in bins of their log odds, so that its memory does not grow with them, and two of one bin
    are half right: the trapezoids of a ROC curve with as many thresholds. torchmetrics' own compares each value with
    each threshold: of a hundred classes, that took twenty times as long as all the metrics of an image together now do.

    Args:
        num_outputs: Number of outputs, C.

    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(2, num_outputs, _NUM_BINS, dtype=torch.int32), dist_reduce_fx="sum")

    def update(self, log_odds: Tensor, positives: Tensor) -> None:
        """Count images: log odds and whether they are positive, both of shape (B, C), or (B,) with one output."""
        # One that is not a number puts its image below all others.
        bins = (_spread(log_odds).nan_to_num(0.0) * _NUM_BINS).long()
        _, num_outputs, num_bins = self.counts.shape
        place = (positives.reshape(bins.shape) * num_outputs).long()
        if num_outputs > 1:
            place = place + torch.arange(num_outputs, device=bins.device)
        place = (place * num_bins + bins).flatten()
        self.counts.view(-1).scatter_add_(0, place, torch.ones_like(place, dtype=torch.int32))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the areas and the average precisions, both float64 (C,), on the CPU.

        An area is NaN where the images are all positive, or all negative; a precision where none is positive.
        """
        negatives, positives = self.counts.cpu().double()
        num_positive = positives.sum(dim=-1)
        above = num_positive[:, None] - positives.cumsum(dim=-1)
        num_right: Tensor = (negatives * (above + positives / 2)).sum(dim=-1)
        # Each is as high as itself, and as half of the others of its bin.
        as_high = above + (positives + 1) / 2
        negatives_as_high = negatives.sum(dim=-1, keepdim=True) - negatives.cumsum(dim=-1) + negatives / 2
        precision: Tensor = (positives * as_high / (as_high + negatives_as_high)).sum(dim=-1) / num_positive
        return num_right / (negatives.sum(dim=-1) * num_positive), precision


def _spread(log_odds: Tensor) -> Tensor:
    """Return numbers in the order of the log odds, above 0 and below 1, that bins of one size tell apart.

    Args:
        log_odds: Of each of C classes, shape (B, C), or of the second of two, shape (B,).

    """
    num_classes = log_odds.shape[1] if log_odds.ndim == 2 else 2
    against_chance = (log_odds + math.log(max(num_classes - 1, 1))).clamp(-_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)
    return torch.asinh(_FINENESS * against_chance) / (2.01 * math.asinh(_FINENESS * _LARGEST_LOG_ODDS)) + 0.5
