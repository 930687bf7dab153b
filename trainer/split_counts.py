"""How a split's images were answered, counted on the device: the reported metrics are quotients of these counts.

torchmetrics has them, too, but importing it took 68 MB of each worker and a sixth of its start (95 MB and a fourth
where SciPy and Matplotlib are installed, which it loads along).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from trainer.validation_metrics import TOP

_NUM_BINS = 2000
"""Of a ranking: they tell log odds apart that differ by some 1 %, or, near those of chance, by 0.0001."""
_FINENESS = 100.0
_LARGEST_LOG_ODDS = 1000.0


class SplitCounts(ABC):
    """Counts of right and wrong answers: their memory does not grow with the images, and adding waits for nothing."""

    num_images = 0

    def add(self, log_odds: Tensor, target: Tensor) -> None:
        """Count images: their task's log odds, and their targets, (B,) or (B, C), not mixed; both on the device."""
        self.num_images += len(target)
        self._count(log_odds, target)

    @abstractmethod
    def _count(self, log_odds: Tensor, target: Tensor) -> None: ...

    @abstractmethod
    def metrics(self) -> dict[str, Tensor]:
        """Return the metrics by name, float64 on the CPU: shape (), or (C,) for one of each class by itself.

        One of a class is NaN where it is not defined, and the mean of the others is what is reported.
        """

    @property
    def confusion(self) -> Tensor | None:
        """Counts of [true class, class taken for], int64 (C, C), on the CPU; None where an image has several."""
        return None


class ClassCounts(SplitCounts):
    """Of images of one class each: accuracy, macro F1, and top-5 accuracy where there are more than five classes.

    Args:
        num_classes: Number of classes, C; each has an output, so that the log odds are (B, C).
        device: Where the images' outputs are.

    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self._num_in_top = torch.zeros((), dtype=torch.int64, device=device)

    def _count(self, log_odds: Tensor, target: Tensor) -> None:
        num_classes = len(self._confusion)
        _add_ones(self._confusion, target * num_classes + self._taken(log_odds))
        if num_classes > TOP:
            self._num_in_top += (log_odds.topk(TOP, dim=1).indices == target[:, None]).sum()

    def _taken(self, log_odds: Tensor) -> Tensor:
        """Return the index of the class that each image is taken for, shape (B,)."""
        return log_odds.argmax(dim=1)

    def metrics(self) -> dict[str, Tensor]:
        """As in the base class. F1 is not defined for a class that no image has or is taken for."""
        confusion = self._confusion.cpu()
        metrics = {"Accuracy": confusion.diagonal().sum().double() / self.num_images}
        if len(confusion) > TOP:
            metrics["Top-5 accuracy"] = self._num_in_top.cpu().double() / self.num_images
        return metrics | {"F1": self._f1(confusion)}

    def _f1(self, confusion: Tensor) -> Tensor:
        return 2 * confusion.diagonal().double() / (confusion.sum(dim=0) + confusion.sum(dim=1))

    @property
    def confusion(self) -> Tensor:
        """As in the base class."""
        return self._confusion.cpu()


class BinaryCounts(ClassCounts):
    """Of images of two classes and one output, the log odds (B,) of the second: F1 is that of the second class.

    It is 0 where no image has that class, or is taken for it.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(2, device)

    def _taken(self, log_odds: Tensor) -> Tensor:
        return (log_odds > 0).long()

    def _f1(self, confusion: Tensor) -> Tensor:
        return super()._f1(confusion)[1].nan_to_num(0.0)


class LabelCounts(SplitCounts):
    """Of images that have any number of classes, log odds and targets (B, C): the exact match, and each class's F1.

    F1 is not defined for a class that no image has or is said to have.

    Args:
        num_classes: Number of classes, C.
        device: Where the images' outputs are.

    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._num_exact = torch.zeros((), dtype=torch.int64, device=device)
        self._num_hits = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self._num_said_or_there = torch.zeros_like(self._num_hits)

    def _count(self, log_odds: Tensor, target: Tensor) -> None:
        said, there = log_odds > 0, target > 0
        self._num_exact += (said == there).all(dim=1).sum()
        self._num_hits += (said & there).sum(dim=0)
        self._num_said_or_there += said.sum(dim=0) + there.sum(dim=0)

    def metrics(self) -> dict[str, Tensor]:
        """As in the base class."""
        return {
            "Accuracy": self._num_exact.cpu().double() / self.num_images,
            "F1": 2 * self._num_hits.cpu().double() / self._num_said_or_there.cpu(),
        }


class RankingCounts:
    """Where positive and negative images are in the order of their log odds, in bins of it.

    They give the area under each output's ROC curve, which is how likely a positive image is to be put above a
    negative one, and the average precision: the mean, over the positive images, of the share of positive ones among
    those that are put as high or higher. Two images of one bin are half right: the trapezoids of a ROC curve with as
    many thresholds as bins.

    Args:
        num_outputs: Number of outputs, C.
        device: Where they are.

    """

    def __init__(self, num_outputs: int, device: torch.device) -> None:
        self._counts = torch.zeros(2, num_outputs, _NUM_BINS, dtype=torch.int32, device=device)

    def add(self, log_odds: Tensor, positives: Tensor) -> None:
        """Count images: log odds and whether they are positive, both of shape (B, C), or (B,) with one output."""
        # One that is not a number puts its image below all others.
        bins = (_spread(log_odds).nan_to_num(0.0) * _NUM_BINS).long()
        _, num_outputs, num_bins = self._counts.shape
        place = (positives.reshape(bins.shape) * num_outputs).long()
        if num_outputs > 1:
            place = place + torch.arange(num_outputs, device=bins.device)
        _add_ones(self._counts, (place * num_bins + bins).flatten())

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the areas and the average precisions, both float64 (C,), on the CPU.

        An area is NaN where the images are all positive, or all negative; a precision where none is positive.
        """
        negatives, positives = self._counts.cpu().double()
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


def _add_ones(counts: Tensor, places: Tensor) -> None:
    """Add 1 at places in counts' flat order, int64 (B,), once for each time that a place is there."""
    counts.view(-1).scatter_add_(0, places, torch.ones_like(places, dtype=counts.dtype))
