"""The batches of one split, made in this process or in loader processes."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainer.data.dataset import ImageDataset, ReadAll
from trainer.data.images import DataError
from trainer.data.parent_watch import end_with_parent

Batch = tuple[Tensor, Tensor]

BATCHES_AHEAD = 2
"""Batches that each loader process makes before they are asked for."""

_IMAGES_PER_READER = 16

_log = logging.getLogger(__name__)


class Stream:
    """Batches of one dataset by lists of keys. Loader processes stay from one epoch to the next."""

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        num_workers: int,
        num_readers: int = 1,
        *,
        is_for_gpu: bool = False,
    ) -> None:
        """Describe the batches; no process is started yet.

        Args:
            dataset: The images.
            batch_size: The largest number of images in a batch.
            num_workers: Number of loader processes; 0 loads in this one.
            num_readers: Number of threads that read the images of a batch in this process.
            is_for_gpu: Whether batches are to be copied to a GPU.

        """
        self._dataset = dataset
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._num_readers = num_readers
        self._is_for_gpu = is_for_gpu
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = None
        self._current: Generator[Batch, None, None] | None = None
        self._slots = torch.empty(0)

    def batches(
        self, keys: list[list[tuple[int, int]]], tell_images_per_s: Callable[[float], None] | None = None
    ) -> Iterator[Batch]:
        """Yield the batch (x, y) of each list of keys (epoch, index). Starting anew ends an earlier iterator.

        Args:
            keys: The images of each batch.
            tell_images_per_s: Called with each batch: images a second that loading alone has sustained so far.

        Raises:
            DataError: An image cannot be read any more, or a loader process is gone.

        """
        self._end_current()
        self._current = self._iterate(keys, tell_images_per_s)
        return self._current

    def load(self, keys: list[tuple[int, int]]) -> Tensor:
        """Return images by their keys (epoch, index), float32 (B, 3, H, W), loaded in this process.

        Raises:
            DataError: An image cannot be read any more.

        """
        return self._dataset.normalize(torch.stack(list(_items(self._dataset, keys, self._num_readers))))

    def targets(self) -> Tensor:
        """Return the targets of all images, by index."""
        return self._dataset.targets(range(len(self._dataset)))

    def close(self) -> None:
        """End the loader processes. Batches can be asked for again; that starts new ones."""
        self._end_current()
        # Without its last reference the loader's iterator ends its processes and waits for them.
        self._loader = None
        self._slots = torch.empty(0)

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _iterate(
        self, keys: list[list[tuple[int, int]]], tell_images_per_s: Callable[[float], None] | None
    ) -> Generator[Batch, None, None]:
        if not keys:
            return
        if self._loader is None:
            self._slots = self._new_slots()
            self._loader = self._new_loader()
        self._keys.batches = [(number % len(self._slots), batch) for number, batch in enumerate(keys)]
        iterator = iter(self._loader)
        num_images, busy_s = 0, 0.0
        try:
            for batch in keys:
                indexes = [index for _, index in batch]
                loaded = self._next(iterator)
                if isinstance(loaded, DataError):
                    raise loaded
                num_images += len(indexes)
                busy_s += loaded.busy_s
                if tell_images_per_s is not None:
                    tell_images_per_s(num_images * max(self._num_workers, 1) / busy_s)
                x = self._slots[loaded.slot, : len(indexes)]
                yield self._dataset.normalize(x, is_for_gpu=self._is_for_gpu), self._dataset.targets(indexes)
        finally:
            # An error keeps its frames alive, and these the processes: they would end at some later garbage collection,
            # which waits ten seconds for them.
            del iterator

    def _next(self, iterator: Iterator[Any]) -> _Loaded | DataError:
        try:
            loaded: _Loaded | DataError = next(iterator)
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
        return loaded

    def _new_slots(self) -> Tensor:
        """Return room for the batches under way: uint8 (num_slots, batch_size, 3, H, W).

        Each batch is written into a slot that another one had before, since fresh shared memory for each costs a third
        of all loading. The loader asks for a batch ahead before it hands over the present one, hence one slot more.
        """
        num_slots = self._num_workers * BATCHES_AHEAD + 1
        slots = torch.empty((num_slots, self._batch_size, *self._dataset.item_shape), dtype=torch.uint8)
        if self._num_workers:
            try:
                slots.share_memory_()  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                # A container often has 64 MB of it.
                _log.warning(
                    "There is no room in shared memory for the batches of %d loader processes (%s): images are loaded "
                    "by the worker itself. Give the container more shared memory, or choose smaller batches.",
                    self._num_workers,
                    error,
                )
                self._num_workers = 0
                return self._new_slots()
        return slots

    def _new_loader(self) -> DataLoader[Any]:
        return DataLoader(
            _WholeBatches(self._dataset, self._slots, 1 if self._num_workers else self._num_readers),
            # One item of the dataset is a batch.
            batch_size=None,
            sampler=self._keys,
            num_workers=self._num_workers,
            # Its own, or making an iterator would draw a number from the global generator.
            generator=torch.Generator(),
            multiprocessing_context=_context() if self._num_workers else None,
            prefetch_factor=BATCHES_AHEAD if self._num_workers else None,
            worker_init_fn=_begin_loader,
            persistent_workers=self._num_workers > 0,
        )


Keys = tuple[int, list[tuple[int, int]]]
"""The slot of a batch, and the key of each of its images."""


class _Keys(Sampler[Keys]):
    """The batches that the loader's next iterator goes through."""

    def __init__(self) -> None:
        self.batches: list[Keys] = []

    def __iter__(self) -> Iterator[Keys]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Loaded(NamedTuple):
    """Where a batch lies, and the seconds that loading took in the process that did.

    No tensor is in it: each would be handed over by a file of shared memory of its own.
    """

    slot: int
    busy_s: float


class _WholeBatches(Dataset["_Loaded | DataError"]):
    """The batch of a list of keys, or a DataError: raised in a loader process, it would come wrapped in a traceback."""

    def __init__(self, dataset: ImageDataset, slots: Tensor, num_readers: int) -> None:
        self._dataset = dataset
        self._slots = slots
        self._num_readers = num_readers

    def __getitem__(self, keys: Keys) -> _Loaded | DataError:
        started = time.perf_counter()
        slot, batch = keys
        try:
            for position, item in enumerate(_items(self._dataset, batch, self._num_readers)):
                self._slots[slot, position] = item
        except DataError as error:
            return error
        return _Loaded(slot, time.perf_counter() - started)


def _items(dataset: ImageDataset, keys: list[tuple[int, int]], num_readers: int) -> Iterator[Tensor]:
    """Yield images of a dataset, of which no more are held than the threads read in one go."""
    at_once = 1 if num_readers == 1 else num_readers * _IMAGES_PER_READER
    read_all: ReadAll = map if num_readers == 1 else partial(_read_in_threads, num_readers)
    for start in range(0, len(keys), at_once):
        yield from dataset.items(keys[start : start + at_once], read_all)


def _read_in_threads(
    num_threads: int, read: Callable[[int], Tensor | DataError], indexes: list[int]
) -> list[Tensor | DataError]:
    """Read images in threads: Pillow lets go of the interpreter's lock while it decodes.

    Returns when all are read: where some are augmented meanwhile, the threads wait longer for the lock than is gained.
    """
    with ThreadPoolExecutor(num_threads, "image-read") as pool:
        return list(pool.map(read, indexes))


def _begin_loader(_: int) -> None:
    end_with_parent()


def _context() -> BaseContext:
    """Never fork: a forked loader holds the worker's socket, so that its end is noticed seconds late."""
    if sys.platform in {"win32", "darwin"}:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch and ours are imported once, by the server, and not again by each loader process.
    context.set_forkserver_preload(["torch", "torchvision.transforms.v2", "trainer.data.loader"])
    return context
