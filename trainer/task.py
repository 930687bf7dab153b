"""What a run learns of its images: the loss, what counts as right, and which metrics are reported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from trainer.config import ConfigError, DataConfig, RunConfig
from trainer.data.sampler import class_weights
from trainer.messages.data_info import DataSummary
from trainer.split_counts import BinaryCounts, ClassCounts, LabelCounts, SplitCounts

_NUM_NAMED = 4
_HALF = 0.5


class Task(ABC):
    """What a run learns of its images. The loop meets it only as "batch in, loss and metrics out".

    Targets are class indexes, int64 (B,), or, of mixed images, the share of each class, float32 (B, C). Of images that
    may have several classes, they are 1 for each class and 0 for the others, float32 (B, C), mixed or not.

    Args:
        class_names: Names of the classes, by index.
        smoothing: What of each target is spread evenly over the classes, 0 to 1; in the training's loss only.
        weights: Weight of each class in the training's loss, by ``balancing_weights``, shape (C,); None weighs none.

    """

    has_average_precision = False
    """Whether the mean average precision is reported: it is asked of images of several classes."""

    def __init__(self, class_names: Sequence[str], smoothing: float, weights: Tensor | None) -> None:
        self.class_names = list(class_names)
        self._smoothing = smoothing
        self._weights = weights

    @staticmethod
    def balancing_weights(class_counts: Sequence[int], num_images: int) -> Tensor:
        """Return the weights that even classes out, shape (C,), from the training images of each and of all."""
        return class_weights(class_counts)

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Return how many outputs the model has."""

    @abstractmethod
    def training_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss that is minimized, shape (), with the run's class weights and label smoothing."""

    def weight(self, target: Tensor) -> Tensor | int:
        """Return what the mean in the training's loss is taken over: weighted by it, parts add up to their batch."""
        return len(target)

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss that is reported of a split, shape (): neither weighted nor smoothed."""

    @abstractmethod
    def are_right(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return which images were right, bool (B,); of one mixed from two, the class with the larger share counts."""

    @abstractmethod
    def log_odds(self, logits: Tensor) -> Tensor:
        """Return what the metrics are computed from, float32: log(p / (1 - p)) of each output, shape (B, C) or (B,).

        Probabilities themselves would be 1 for whatever is more than 17 above the rest.
        """

    @abstractmethod
    def new_counts(self, device: torch.device) -> SplitCounts:
        """Return the counts, none so far, that a split's metrics are made of: by ``log_odds`` and targets."""

    @abstractmethod
    def positives(self, target: Tensor) -> Tensor:
        """Return for each of ``log_odds`` whether it is of what the image shows: bool, of the same shape."""


class MultiClass(Task):
    """One of several classes: an output for each, and cross entropy."""

    @property
    def num_outputs(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    def training_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss that is minimized, shape (); logits of shape (B, C)."""
        return cross_entropy(logits, target, weight=self._weights, label_smoothing=self._smoothing)

    def weight(self, target: Tensor) -> Tensor | int:
        """Return the sum of the classes' weights; a mixed image counts once, whatever its classes weigh."""
        return len(target) if self._weights is None or target.ndim == 2 else self._weights[target].sum()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross entropy, shape ()."""
        return cross_entropy(logits, target)

    def are_right(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return of which images the largest output is that of their class."""
        return logits.argmax(dim=1) == _whole(target)

    def log_odds(self, logits: Tensor) -> Tensor:
        """Return the log odds of each class against the rest, shape (B, C)."""
        shares = logits.float().log_softmax(dim=1)
        top = shares.argmax(dim=1, keepdim=True)
        # Of the top class, 1 - p is what the others have: the difference could be 0.
        others = shares.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
        return (shares - torch.log1p(-shares.exp())).scatter(1, top, shares.gather(1, top) - others)

    def new_counts(self, device: torch.device) -> ClassCounts:
        """Return counts of (true class, class taken for)."""
        return ClassCounts(len(self.class_names), device)

    def positives(self, target: Tensor) -> Tensor:
        """Return where each image's own class is, shape (B, C)."""
        return target[:, None] == torch.arange(len(self.class_names), device=target.device)


class Binary(Task):
    """One of two classes: a single output, the logit of the second class (the positive one), and binary cross entropy.

    F1 is that of the positive class.
    """

    def __init__(self, class_names: Sequence[str], smoothing: float, weights: Tensor | None) -> None:
        super().__init__(class_names, smoothing, weights)
        # A class without training images has the weight 0: then there is nothing to even out.
        is_weighted = weights is not None and bool((weights > 0).all())
        self._positive_weight = weights[1] / weights[0] if weights is not None and is_weighted else None

    @property
    def num_outputs(self) -> int:
        """Return 1."""
        return 1

    def training_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss that is minimized, shape (); logits of shape (B, 1)."""
        share = self._share(target) * (1 - self._smoothing) + self._smoothing / 2
        return binary_cross_entropy_with_logits(logits[:, 0].float(), share, pos_weight=self._positive_weight)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross entropy, shape ()."""
        return binary_cross_entropy_with_logits(logits[:, 0].float(), self._share(target))

    def are_right(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return of which images the output is above 0 if they are of the positive class, and not above it if not."""
        return (logits[:, 0] > 0) == _whole(target)

    def log_odds(self, logits: Tensor) -> Tensor:
        """Return the log odds of the positive class, shape (B,): the output itself."""
        return logits[:, 0].float()

    def new_counts(self, device: torch.device) -> BinaryCounts:
        """Return counts of (true class, class taken for)."""
        return BinaryCounts(device)

    def positives(self, target: Tensor) -> Tensor:
        """Return which images are of the positive class, shape (B,)."""
        return target == 1

    @staticmethod
    def _share(target: Tensor) -> Tensor:
        """Return the share of the positive class in each target, float32 (B,)."""
        return target[:, 1] if target.ndim == 2 else target.float()


class MultiLabel(Task):
    """Any number of the classes: an output for each, a yes above 0, and binary cross entropy, the mean over them.

    An image is right if each of its classes is, and no other ("Accuracy", the exact match). F1 is the mean over the
    classes that are to be seen in an image, or were said to be.
    """

    has_average_precision = True

    @staticmethod
    def balancing_weights(class_counts: Sequence[int], num_images: int) -> Tensor:
        """Return the weight of a yes of each class: as much as of a no, all together (torch's ``pos_weight``).

        A class that all images have, or none, has the weight 1.
        """
        yes = torch.tensor(class_counts, dtype=torch.float32)
        no = num_images - yes
        return torch.where((yes > 0) & (no > 0), no / yes.clamp(min=1), 1.0)

    @property
    def num_outputs(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    def training_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss that is minimized, shape (); logits of shape (B, C).

        Smoothing spreads each target over yes and no: 0.1 makes them 0.95 and 0.05.
        """
        share = target * (1 - self._smoothing) + self._smoothing / 2
        return binary_cross_entropy_with_logits(logits.float(), share, pos_weight=self._weights)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross entropy over images and classes, shape ()."""
        return binary_cross_entropy_with_logits(logits.float(), target)

    def are_right(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return of which images every output is on its side of 0; mixed ones have what more than half has."""
        return ((logits > 0) == (target > _HALF)).all(dim=1)

    def log_odds(self, logits: Tensor) -> Tensor:
        """Return the log odds of each class, shape (B, C): the outputs themselves."""
        return logits.float()

    def new_counts(self, device: torch.device) -> LabelCounts:
        """Return counts of each class, and of the images of which all were right."""
        return LabelCounts(len(self.class_names), device)

    def positives(self, target: Tensor) -> Tensor:
        """Return which classes each image has, shape (B, C)."""
        return target > _HALF


_TASKS: dict[str, type[Task]] = {"multi_class": MultiClass, "binary": Binary, "multi_label": MultiLabel}


def make_task(
    config: RunConfig, class_names: Sequence[str], class_counts: Sequence[int], num_images: int, device: torch.device
) -> Task:
    """Make the task of a run.

    Args:
        config: The run's configuration, which ``check_task`` has no word against.
        class_names: Names of the classes, by index.
        class_counts: Number of training images of each class.
        num_images: Number of training images.
        device: The run's device.

    """
    kind = _TASKS[config.data.task]
    is_weighted = config.data.balance == "class_weights"
    weights = kind.balancing_weights(class_counts, num_images).to(device) if is_weighted else None
    task = kind(class_names, config.training.label_smoothing, weights)
    assert task.num_outputs == config.data.num_outputs(len(class_names)), "the form asks the configuration"
    return task


def check_task(data: DataConfig, summary: DataSummary) -> None:
    """Refuse a task that the data are not made for.

    Raises:
        ConfigError: Names the field, and what to choose instead.

    """
    names = summary.class_names
    if data.task == "multi_label" and not summary.is_multi_label:
        raise ConfigError(
            "Every image has one class, but the task multi_label (any of several) is for images that have several, or "
            "none. Choose multi_class (one of several); or, if the cells of a table hold several classes, what "
            "separates them (data.label_separator).",
            "data.task",
        )
    if data.task != "multi_label" and summary.is_multi_label:
        raise ConfigError(
            f"Some images have several classes, or none, but the task {data.task} is for images of one. Choose "
            "multi_label (any of several); or, if each cell of the table is one class, no separator "
            "(data.label_separator).",
            "data.task",
        )
    if data.task == "multi_label" and data.balance == "sampler":
        raise ConfigError(
            "Images of several classes cannot be drawn so that each class comes equally often: one brings the others "
            "along. Balance them by class weights, or not at all.",
            "data.balance",
        )
    if data.task == "binary" and len(names) != 2:
        named = ", ".join(names[:_NUM_NAMED]) + (" and more" if len(names) > _NUM_NAMED else "")
        raise ConfigError(
            f"A binary task is to tell two classes apart, but the data have {len(names)} ({named}). Choose the "
            "task multi_class, or data of two classes.",
            "data.task",
        )


def _whole(target: Tensor) -> Tensor:
    """Return class indexes, shape (B,), also of mixed images: there the class with the larger share."""
    return target.argmax(dim=1) if target.ndim == 2 else target
