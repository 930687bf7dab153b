"""The batches of one split, made in this process or in loader processes."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from trainer.data.dataset import ImageDataset
from trainer.data.images import DataError

Batch = tuple[Tensor, Tensor]


class Stream:
    """Batches of one dataset by lists of keys. Loader processes stay from one epoch to the next."""

    def __init__(self, dataset: ImageDataset, num_workers: int) -> None:
        """Describe the batches; no process is started yet.

        Args:
            dataset: The images.
            num_workers: Number of loader processes; 0 loads in this one.

        """
        self._dataset = dataset
        self._num_workers = num_workers
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = None
        self._current: Generator[Batch, None, None] | None = None

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

    def close(self) -> None:
        """End the loader processes. Batches can be asked for again; that starts new ones."""
        self._end_current()
        # Without its last reference the loader's iterator ends its processes and waits for them.
        self._loader = None

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _iterate(
        self, keys: list[list[tuple[int, int]]], tell_images_per_s: Callable[[float], None] | None
    ) -> Generator[Batch, None, None]:
        if not keys:
            return
        self._keys.batches = keys
        if self._loader is None:
            self._loader = self._new_loader()
        iterator = iter(self._loader)
        num_images, busy_s = 0, 0.0
        try:
            for _ in keys:
                loaded = self._next(iterator)
                if isinstance(loaded, DataError):
                    raise loaded
                num_images += len(loaded.y)
                busy_s += loaded.busy_s
                if tell_images_per_s is not None:
                    tell_images_per_s(num_images * max(self._num_workers, 1) / busy_s)
                yield self._dataset.normalize(loaded.x), loaded.y
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

    def _new_loader(self) -> DataLoader[Any]:
        return DataLoader(
            _WholeBatches(self._dataset),
            # One item of the dataset is a batch.
            batch_size=None,
            sampler=self._keys,
            num_workers=self._num_workers,
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


class _Loaded(NamedTuple):
    """A batch before it is normalized, and the seconds that loading it took in the process that did."""

    x: Tensor
    y: Tensor
    busy_s: float


class _WholeBatches(Dataset["_Loaded | DataError"]):
    """The batch of a list of keys, or a DataError: raised in a loader process, it would come wrapped in a traceback."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, keys: list[tuple[int, int]]) -> _Loaded | DataError:
        started = time.perf_counter()
        try:
            # In a loader process this stacks right into the memory that is handed over.
            x, y = default_collate([self._dataset[key] for key in keys])
        except DataError as error:
            return error
        return _Loaded(x, y, time.perf_counter() - started)


def _context() -> BaseContext:
    """Never fork: a forked loader holds the worker's socket, so that its end is noticed seconds late."""
    if sys.platform in {"win32", "darwin"}:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch and ours are imported once, by the server, and not again by each loader process.
    context.set_forkserver_preload(["torch", "torchvision.transforms.v2", "trainer.data.loader"])
    return context
