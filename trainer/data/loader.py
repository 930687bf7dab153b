"""ImageData: the training and validation batches of a run, from this process or from loader processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Generator, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainer.config import DataConfig, TrainingConfig
from trainer.data.dataset import CACHE_BYTES, ImageDataset
from trainer.data.images import DataError, displayed
from trainer.data.sampler import EpochSampler
from trainer.data.scan import ScannedData
from trainer.data.split import split
from trainer.data.transforms import Preprocessing, train_transform, validation_transform

SMALL_IMAGE_SIZE = 64
MAX_CHOSEN_WORKERS = 4

Batch = tuple[Tensor, Tensor]


class ImageData:
    """The images of a run as batches (x, y): float32 (B, 3, H, W), normalized, and int64 (B,).

    Attributes:
        class_names: Names of the classes, by index.
        num_train: Number of training images.
        num_validation: Number of validation images.
        skipped: (path, reason) of the files that no batch will hold.
        preprocessing: How images are made to fit the model.
        steps_per_epoch: Number of training batches in an epoch.
        num_loader_workers: Processes that decode images; 0: this one does.
        fingerprint: SHA-256 over the images' relative paths and sizes, to notice that data changed before a resume.

    """

    def __init__(
        self, data: DataConfig, training: TrainingConfig, preprocessing: Preprocessing, scanned: ScannedData
    ) -> None:
        labels = [label for _, label in scanned.samples]
        train, validation = split(labels, data.validation_fraction, training.seed)
        self.class_names = list(scanned.class_names)
        self.num_train = len(train)
        self.num_validation = len(validation)
        self.skipped = list(scanned.skipped)
        self.preprocessing = preprocessing
        self.num_loader_workers = min(
            _num_workers(training.num_loader_workers, preprocessing.image_size), -(-len(train) // training.batch_size)
        )
        self.fingerprint = _fingerprint(scanned)
        self._sampler = EpochSampler(len(train), training.batch_size, training.seed)
        self.steps_per_epoch = self._sampler.num_batches
        self._validation_keys = [
            [(0, index) for index in range(start, min(start + training.batch_size, len(validation)))]
            for start in range(0, len(validation), training.batch_size)
        ]
        cache_bytes = 0 if self.num_loader_workers else CACHE_BYTES // 2
        self._train = _Stream(
            ImageDataset(
                [scanned.samples[index] for index in train],
                train_transform(preprocessing, data.augmentation),
                training.seed,
                cache_bytes,
            ),
            self.num_loader_workers,
        )
        self._validation = _Stream(
            ImageDataset(
                [scanned.samples[index] for index in validation],
                validation_transform(preprocessing),
                training.seed,
                cache_bytes,
            ),
            self.num_loader_workers,
        )

    def train_batches(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the training batches of an epoch, from ``start_batch`` on. Starting anew ends an earlier iterator.

        Raises:
            DataError: An image cannot be read any more, or a loader process is gone.

        """
        return self._train.batches(list(self._sampler.batches(epoch, start_batch)))

    def validation_batches(self) -> Iterator[Batch]:
        """Yield the validation batches: always the same, without augmentation. Raises as ``train_batches``."""
        return self._validation.batches(self._validation_keys)

    def close(self) -> None:
        """End the loader processes. Batches can be asked for again; that starts new ones."""
        self._train.close()
        self._validation.close()


class _Stream:
    """Batches of one dataset by lists of keys. Loader processes stay from one epoch to the next."""

    def __init__(self, dataset: ImageDataset, num_workers: int) -> None:
        self._dataset = _ErrorsAsItems(dataset)
        self._num_workers = num_workers
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = None
        self._current: Generator[Batch, None, None] | None = None

    def batches(self, keys: list[list[tuple[int, int]]]) -> Iterator[Batch]:
        self._end_current()
        self._current = self._iterate(keys)
        return self._current

    def close(self) -> None:
        self._end_current()
        # Without its last reference the loader's iterator ends its processes and waits for them.
        self._loader = None

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _iterate(self, keys: list[list[tuple[int, int]]]) -> Generator[Batch, None, None]:
        if not keys:
            return
        self._keys.batches = keys
        if self._loader is None:
            self._loader = self._new_loader()
        iterator = iter(self._loader)
        try:
            for _ in keys:
                batch = self._next(iterator)
                if isinstance(batch, DataError):
                    raise batch
                yield batch
        finally:
            # An error keeps its frames alive, and these the processes: they would end at some later garbage collection,
            # which waits ten seconds for them.
            del iterator

    def _next(self, iterator: Iterator[Any]) -> Batch | DataError:
        try:
            batch: Batch | DataError = next(iterator)
        except (RuntimeError, OSError, EOFError) as error:
            # torch notices a killed process either itself, or by a cut connection while it takes a tensor over.
            is_cut = isinstance(error, OSError | EOFError) or "exited unexpectedly" in str(error)
            if self._num_workers == 0 or not is_cut:
                raise
            self._loader = None
            return DataError(
                "A loader process ended unexpectedly, perhaps because memory ran out. Resume with fewer loader workers "
                "or smaller batches.",
                "training.num_loader_workers",
            )
        return batch

    def _new_loader(self) -> DataLoader[Any]:
        return DataLoader(
            self._dataset,
            batch_sampler=self._keys,
            num_workers=self._num_workers,
            collate_fn=_collate,
            # Its own, or making an iterator would draw a number from the global generator.
            generator=torch.Generator(),
            multiprocessing_context=_context() if self._num_workers else None,
            persistent_workers=self._num_workers > 0,
        )


class _Keys(Sampler[list[tuple[int, int]]]):
    """The batches of keys that the loader's next iterator goes through."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _ErrorsAsItems(Dataset[tuple[Tensor, int] | DataError]):
    """Returns a DataError in place of an item: raised in a loader process, it would arrive wrapped in a traceback."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | DataError:
        try:
            return self._dataset[key]
        except DataError as error:
            return error


def _collate(items: list[tuple[Tensor, int] | DataError]) -> Batch | DataError:
    pairs: list[tuple[Tensor, int]] = []
    for item in items:
        if isinstance(item, DataError):
            return item
        pairs.append(item)
    return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs], dtype=torch.int64)


def _context() -> BaseContext:
    """Never fork: a forked loader holds the worker's socket, so that its end is noticed seconds late."""
    if sys.platform in {"win32", "darwin"}:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch and ours are imported once, by the server, and not again by each loader process.
    context.set_forkserver_preload(["torch", "torchvision.transforms.v2", "trainer.data.loader"])
    return context


def _num_workers(asked: int | None, image_size: int) -> int:
    if asked is not None:
        return asked
    num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if image_size <= SMALL_IMAGE_SIZE or num_cores <= 2:
        return 0
    return min(MAX_CHOSEN_WORKERS, num_cores - 1)


def _fingerprint(scanned: ScannedData) -> str:
    digest = hashlib.sha256()
    for path, _ in sorted(scanned.samples):
        try:
            size_bytes = Path(path).stat().st_size
        except OSError as error:
            raise DataError(
                f"Cannot read {displayed(path)} any more: {error.strerror}. Check the data and try again."
            ) from error
        relative = Path(path).relative_to(scanned.root).as_posix()
        digest.update(f"{relative}\0{size_bytes}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
