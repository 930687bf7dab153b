"""The order of training images, and what evens out classes of different size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trainer.data.dataset import mixed_seed


class EpochSampler:
    """Shuffles the samples anew for each epoch and cuts the order into batches: a function of the seed and the epoch.

    Given labels, it draws each class equally often (to one image): a small class's images come again and again, a
    large class shows others in each epoch. An epoch has as many batches as without.

    ``num_batches`` is the number of batches in an epoch. A last batch of one image is left out where there are others:
    BatchNorm in train mode cannot take one (the image is in another batch in the next epoch).
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int, labels: Sequence[int] | None = None) -> None:
        """Describe the samples.

        Args:
            num_samples: Number of training images.
            batch_size: Images in a batch.
            seed: The run's seed.
            labels: The class index of each sample, to draw the classes equally often; None draws each sample once.

        """
        assert labels is None or len(labels) == num_samples
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed
        self._classes = None if labels is None else _samples_by_class(labels)
        has_single_rest = batch_size > 1 and num_samples > batch_size and num_samples % batch_size == 1
        self.num_batches = -(-num_samples // batch_size) - has_single_rest

    def order(self, epoch: int) -> list[int]:
        """Return the ``num_samples`` sample indexes of an epoch in their order."""
        order: list[int] = self._order(epoch).tolist()
        return order

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of an epoch as lists of (epoch, index), from ``start_batch`` on."""
        order = self.order(epoch)
        for batch in range(start_batch, self.num_batches):
            yield [(epoch, index) for index in order[self._part(batch)]]

    def indexes(self, epoch: int, start_batch: int = 0) -> Tensor:
        """Return the sample indexes of these batches, one batch after another: int64, shape (N,)."""
        return self._order(epoch)[start_batch * self._batch_size : self.num_batches * self._batch_size]

    def places(self, epoch: int, index: int) -> list[tuple[int, int, list[int]]]:
        """Find a sample in the batches of an epoch, without going through all of them.

        Returns:
            For each time that it comes: the number of the batch, its position in it, and all indexes of that batch.

        """
        order = self._order(epoch)
        found = (divmod(place, self._batch_size) for place in torch.nonzero(order == index).flatten().tolist())
        return [
            (batch, position, order[self._part(batch)].tolist())
            for batch, position in found
            if batch < self.num_batches
        ]

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, epoch))
        shuffled = torch.randperm(self._num_samples, generator=generator)
        if self._classes is None:
            return shuffled
        return _draw_equally(self._classes, self._num_samples, generator)[shuffled]

    def _part(self, batch: int) -> slice:
        """Return which part of an epoch's order a batch is."""
        return slice(batch * self._batch_size, (batch + 1) * self._batch_size)


def class_weights(class_counts: Sequence[int]) -> Tensor:
    """Return the weight of each class in the loss: inverse to its number of training images, 1 in the mean over them.

    These are scikit-learn's "balanced" weights.

    Args:
        class_counts: Training images of each class. A class without any has the weight 0.

    Returns:
        Shape (num_classes,), float32.

    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    has_images = counts > 0
    weights = torch.where(has_images, counts.sum() / (has_images.sum() * counts.clamp(min=1)), 0)
    return weights.to(torch.float32)


def _samples_by_class(labels: Sequence[int]) -> list[Tensor]:
    """Return the sample indexes of each class that has any."""
    by_label = torch.tensor(labels, dtype=torch.int64)
    sizes = torch.bincount(by_label)
    return list(torch.split(torch.argsort(by_label, stable=True), sizes[sizes > 0].tolist()))


def _draw_equally(classes: Sequence[Tensor], num_samples: int, generator: torch.Generator) -> Tensor:
    """Draw ``num_samples`` sample indexes, class by class; which classes get one more is drawn as well."""
    each, num_larger = divmod(num_samples, len(classes))
    is_larger = torch.randperm(len(classes), generator=generator) < num_larger
    drawn: list[Tensor] = []
    for members, extra in zip(classes, is_larger.tolist(), strict=True):
        num_wanted = each + extra
        num_rounds = -(-num_wanted // len(members))
        # Whole rounds, so that within an epoch no image comes twice before all of its class came once.
        rounds = [members[torch.randperm(len(members), generator=generator)] for _ in range(num_rounds)]
        drawn.append(torch.cat(rounds)[:num_wanted])
    return torch.cat(drawn)
