"""Images as tensors, where each sample's augmentation is a function of the seed, the epoch and the sample alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.images import DataError, quiet_pillow
from trainer.data.store import DecodedStore
from trainer.data.transforms import ImageTransform

ReadAll = Callable[[Callable[[int], "Tensor | DataError"], list[int]], Iterable["Tensor | DataError"]]
"""Calls a function for each of many indexes, as ``map`` does."""


class ImageDataset(Dataset[Tensor]):
    """Images of one split.

    Items are asked for as (epoch, index). Which process loads an item, and when, changes nothing in it; and loading
    leaves torch's global generator as it was. Items are bytes, which a process hands over four times as fast as floats;
    a batch of them is normalized where it arrives.
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, tuple[int, ...]]],
        transform: ImageTransform,
        seed: int,
        store: DecodedStore | None = None,
        num_labels: int | None = None,
    ) -> None:
        """Describe the images; none is read yet.

        Args:
            samples: (path, class indexes) of each image.
            transform: What is done to each.
            seed: The run's seed, for augmentation.
            store: Where fitted images are kept and looked for, under their indexes; None decodes each time.
            num_labels: Number of classes, of which an image may have several or none; None where each has one.

        """
        self._samples = list(samples)
        self._transform = transform
        self._seed = seed
        self._store = store
        self._num_labels = num_labels

    @property
    def item_shape(self) -> tuple[int, int, int]:
        """Return the shape (3, H, W) of the items."""
        return 3, self._transform.image_size, self._transform.image_size

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """Return the image ``index`` as it is in ``epoch``, augmented: uint8 (3, H, W).

        Raises:
            DataError: The file cannot be read any more, and is not kept.

        """
        (item,) = self.items([key])
        return item

    def items(self, keys: Sequence[tuple[int, int]], read_all: ReadAll = map) -> Iterator[Tensor]:
        """Yield images, each as it is for its key (epoch, index) alone. All are read first. Raises as ``__getitem__``.

        Args:
            keys: Which images.
            read_all: Calls the function for each index that is not kept, in any order, and returns what it did in
                theirs. It may do so in threads.

        """
        kept = [None if self._store is None else self._store.read(index) for _, index in keys]
        missing = [index for (_, index), fitted in zip(keys, kept, strict=True) if fitted is None]
        read: list[Tensor | DataError] = []
        if missing:
            with quiet_pillow():
                read = list(read_all(self._read, missing))
        found = iter(read)
        for (epoch, index), fitted in zip(keys, kept, strict=True):
            yield self._augmented(self._keep(index, next(found)) if fitted is None else fitted, epoch, index)

    def _augmented(self, fitted: Tensor, epoch: int, index: int) -> Tensor:
        state = torch.get_rng_state()
        # torch.manual_seed would also seed every GPU, and takes 77 times as long.
        torch.default_generator.manual_seed(mixed_seed(self._seed, epoch, index))
        try:
            return self._transform.augment(fitted)
        finally:
            torch.set_rng_state(state)

    def targets(self, indexes: Sequence[int]) -> Tensor:
        """Return what there is to tell of images.

        Returns:
            Class indexes, int64 (B,); where an image may have several, 1 for each class that it has and 0 for the
            others, float32 (B, num_labels).

        """
        classes = [self._samples[index][1] for index in indexes]
        if self._num_labels is None:
            return torch.tensor([class_idx for (class_idx,) in classes])
        targets = torch.zeros(len(classes), self._num_labels)
        for row, class_idxs in zip(targets, classes, strict=True):
            row[list(class_idxs)] = 1
        return targets

    def normalize(self, x: Tensor, *, is_for_gpu: bool = False) -> Tensor:
        """Return a batch of items, uint8 (B, 3, H, W), as the model wants it: float32, pinned for a GPU."""
        return self._transform.normalize(x, is_for_gpu=is_for_gpu)

    def _read(self, index: int) -> Tensor | DataError:
        # Returned, and raised in its turn: the images before it are kept.
        try:
            return self._transform.read(self._samples[index][0])
        except DataError as error:
            return error

    def _keep(self, index: int, fitted: Tensor | DataError) -> Tensor:
        if isinstance(fitted, DataError):
            raise fitted
        if self._store is not None:
            self._store.write(index, fitted)
        return fitted


def mixed_seed(*numbers: int) -> int:
    """Mix numbers into one seed, so that neighbouring epochs and samples get unrelated streams."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
