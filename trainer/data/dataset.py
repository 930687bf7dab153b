"""Images as tensors, where each sample's augmentation is a function of the seed, the epoch and the sample alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.images import load_rgb
from trainer.data.transforms import ImageTransform

CACHE_BYTES = 256 * 1024**2


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images of one split.

    Items are asked for as (epoch, index). Which process loads an item, and when, changes nothing in it; and loading
    leaves torch's global generator as it was.
    """

    def __init__(
        self, samples: Sequence[tuple[str, int]], transform: ImageTransform, seed: int, cache_bytes: int = 0
    ) -> None:
        """Describe the images; none is read yet.

        Args:
            samples: (path, class index) of each image.
            transform: What is done to each.
            seed: The run's seed, for augmentation.
            cache_bytes: Up to this many bytes of fitted images are kept in memory, so that later epochs decode nothing.
                Only of use where one process loads everything.

        """
        self._samples = list(samples)
        self._transform = transform
        self._seed = seed
        self._cache: dict[int, Tensor] = {}
        self._cache_bytes_left = cache_bytes

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        """Return (x, y): float32 (3, H, W) and the class index of the image ``index`` in ``epoch``.

        Raises:
            DataError: The file cannot be read any more.

        """
        epoch, index = key
        fitted = self._fitted(index)
        state = torch.get_rng_state()
        # torch.manual_seed would also seed every GPU, and takes 77 times as long.
        torch.default_generator.manual_seed(mixed_seed(self._seed, epoch, index))
        try:
            x = self._transform.finish(fitted)
        finally:
            torch.set_rng_state(state)
        return x, self._samples[index][1]

    def _fitted(self, index: int) -> Tensor:
        fitted = self._cache.get(index)
        if fitted is None:
            fitted = self._transform.fit(load_rgb(self._samples[index][0]))
            if fitted.nbytes <= self._cache_bytes_left:
                self._cache[index] = fitted
                self._cache_bytes_left -= fitted.nbytes
        return fitted


def mixed_seed(*numbers: int) -> int:
    """Mix numbers into one seed, so that neighbouring epochs and samples get unrelated streams."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
