"""The order of training images: a function of the seed and the epoch, so that any step can be found again."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainer.data.dataset import mixed_seed


class EpochSampler:
    """Shuffles the samples anew for each epoch and cuts the order into batches.

    ``num_batches`` is the number of batches in an epoch. A last batch of one image is left out where there are others:
    BatchNorm in train mode cannot take one (the image is in another batch in the next epoch).
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed
        has_single_rest = batch_size > 1 and num_samples > batch_size and num_samples % batch_size == 1
        self.num_batches = -(-num_samples // batch_size) - has_single_rest

    def order(self, epoch: int) -> list[int]:
        """Return all sample indexes in the order of an epoch."""
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, epoch))
        order: list[int] = torch.randperm(self._num_samples, generator=generator).tolist()
        return order

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of an epoch as lists of (epoch, index), from ``start_batch`` on."""
        order = self.order(epoch)
        for batch in range(start_batch, self.num_batches):
            start = batch * self._batch_size
            yield [(epoch, index) for index in order[start : start + self._batch_size]]
