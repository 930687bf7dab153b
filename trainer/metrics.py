"""Metrics collected on the device and read back in batches: no step waits for a number."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from trainer.messages import Series

TRAIN_LOSS = "Loss/train"
TRAIN_ACCURACY = "Accuracy/train"
VALIDATION_LOSS = "Loss/validation"
VALIDATION_ACCURACY = "Accuracy/validation"
LEARNING_RATE = "Learning rate"
GRADIENT_NORM = "Gradient norm"


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


def num_right(logits: Tensor, target: Tensor) -> Tensor:
    """Count the images that were right; of one mixed from two, the class with the larger share is the right one.

    Args:
        logits: Shape (B, C).
        target: Class indexes, shape (B,), or the share of each class, shape (B, C).

    """
    if target.ndim == 2:
        target = target.argmax(dim=1)
    return (logits.detach().argmax(dim=1) == target).sum()


class SplitMetrics:
    """Mean loss and accuracy over the images of "validation" or "test", computed by torchmetrics."""

    def __init__(self, split: str, num_classes: int, device: torch.device) -> None:
        self._split = split
        self._loss = MeanMetric(nan_strategy="disable").to(device)
        self._accuracy = MulticlassAccuracy(num_classes, average="micro").to(device)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take a batch: logits of shape (B, C), class indexes of shape (B,)."""
        logits = logits.float()
        self._loss.update(cross_entropy(logits, target), weight=len(target))
        self._accuracy.update(logits, target)

    def compute(self) -> dict[str, float]:
        """Return the metrics by tag, as plain floats."""
        return {
            f"Loss/{self._split}": float(self._loss.compute()),
            f"Accuracy/{self._split}": float(self._accuracy.compute()),
        }
