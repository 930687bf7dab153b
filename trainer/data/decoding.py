"""Decoding many files at once: in processes that a damaged file may take down without harm, or in threads for a few."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from trainer.data.file_facts import FileFacts, read_facts
from trainer.data.images import DataError, quiet_pillow
from trainer.data.parent_watch import end_with_parent

CRASHED = "its decoder crashed"

MIN_BYTES_FOR_PROCESSES = 16_000_000
MIN_FILES_FOR_PROCESSES = 2_000
"""Below both of these, threads are done in some 0.1 s, before processes have started (measured on two cores)."""

MAX_PROCESSES = 32
FILES_PER_SLICE = 8
SLICES_PER_PROCESS = 8
"""Given ahead, so that a process need not wait for us between two slices, nor while we write to a disk."""

FILES_PER_THREAD_SLICE = 64
POLL_INTERVAL_S = 0.1


class File(NamedTuple):
    """A file to be decoded, with its number for whoever asked."""

    idx: int
    path: str | Path
    size_bytes: int


Found = list[tuple[int, FileFacts]]
"""Facts, each with the number of its file."""


def decode(files: Iterable[File]) -> Generator[Found, None, None]:
    """Decode files in any order. Yields what was found, perhaps nothing, several times a second.

    Closing the iterator ends the work at once.

    Args:
        files: The files. They are asked for a few at a time, while those before them are decoded.

    Raises:
        DataError: The processes cannot be started.

    """
    files, few, num_bytes = iter(files), list[File](), 0
    for file in files:
        few.append(file)
        num_bytes += file.size_bytes
        if num_bytes >= MIN_BYTES_FOR_PROCESSES or len(few) >= MIN_FILES_FOR_PROCESSES:
            yield from _in_processes(chain(few, files))
            return
    yield from _in_threads(few)


def _in_threads(files: list[File]) -> Generator[Found, None, None]:
    # Pillow lets go of the interpreter's lock while it decodes.
    with quiet_pillow(), ThreadPoolExecutor(min(8, num_usable_cores() + 1), "image-check") as pool:
        for start in range(0, len(files), FILES_PER_THREAD_SLICE):
            some = files[start : start + FILES_PER_THREAD_SLICE]
            facts = pool.map(read_facts, [file.path for file in some])
            yield [(file.idx, found) for file, found in zip(some, facts, strict=True)]


def _in_processes(files: Iterator[File]) -> Generator[Found, None, None]:
    num_processes = min(num_usable_cores(), MAX_PROCESSES)
    first = list(islice(files, num_processes * FILES_PER_SLICE))
    waiting = _Waiting(chain(first, files))
    decoders: list[_Decoder] = []
    try:
        # One by one: where one cannot be started, those before it are ended.
        for _ in range(0, len(first), FILES_PER_SLICE):
            decoders.append(_Decoder())
        while waiting or any(decoder.slices for decoder in decoders):
            found: Found = []
            ready = wait([decoder.connection for decoder in decoders], POLL_INTERVAL_S)
            for position, decoder in enumerate(decoders):
                if decoder.connection not in ready:
                    continue
                try:
                    found += decoder.take()
                    decoder.give(waiting)
                except (EOFError, OSError):
                    found += decoder.take_rest()
                    found += _put_back(decoder, waiting)
                    decoder.end()
                    decoders[position] = _Decoder()
            yield found
    finally:
        for decoder in decoders:
            decoder.end()


class _Waiting:
    """What no process was given yet, in slices."""

    def __init__(self, files: Iterator[File]) -> None:
        self._files = files
        self._slices: deque[list[File]] = deque()

    def __bool__(self) -> bool:
        self._look_ahead()
        return bool(self._slices)

    def take(self) -> list[File]:
        """Take the next slice, where there is one."""
        self._look_ahead()
        return self._slices.popleft()

    def _look_ahead(self) -> None:
        if not self._slices and (some := list(islice(self._files, FILES_PER_SLICE))):
            self._slices.append(some)

    def put_back(self, slices: Iterable[list[File]]) -> None:
        """Have slices be the next ones."""
        self._slices.extendleft(slices)


def _put_back(decoder: _Decoder, waiting: _Waiting) -> Found:
    """Queue again what a dead process was given: one by one where one of several files was the cause."""
    if not decoder.has_begun:
        decoder.process.join()
        raise DataError(
            "Cannot check the images: a process that decodes them ended as it started "
            f"(exit code {decoder.process.exitcode}). Free some memory and try again."
        )
    if not decoder.slices:
        return []
    suspects = decoder.slices.popleft()
    waiting.put_back(decoder.slices)
    if len(suspects) == 1:
        return [(suspects[0].idx, FileFacts(CRASHED))]
    waiting.put_back([file] for file in suspects)
    return []


class _Decoder:
    """One process that decodes. Each has a pipe of its own: a shared queue's lock would stay taken by a dead process.

    Attributes:
        process: The process.
        connection: Our end of its pipe; it can be read when there are results, or when the process is dead.
        slices: What it was given, in order, and has not answered.
        has_begun: Whether it ever got as far as to ask for work.

    """

    def __init__(self) -> None:
        # Not forkserver: there is one for the whole process, and with this one's modules loaded in it in place of
        # torch, each process of the data loader would have to import torch by itself.
        context = multiprocessing.get_context("spawn")
        self.slices: deque[list[File]] = deque()
        self.has_begun = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), name="image-check", daemon=True)
        self.process.start()
        # With our copy of its end open, its death would not be noticed.
        theirs.close()

    def take(self) -> Found:
        """Return what it has sent. Raises EOFError or OSError where it is dead."""
        facts: list[FileFacts] = self.connection.recv()
        if not self.has_begun:
            self.has_begun = True
            return []
        return [(file.idx, found) for file, found in zip(self.slices.popleft(), facts, strict=True)]

    def take_rest(self) -> Found:
        """Return what it had sent before it died: only of what it has not answered can the cause be."""
        rest: Found = []
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll():
                rest += self.take()
        return rest

    def give(self, waiting: _Waiting) -> None:
        """Give it what there is to do. Raises as ``take``."""
        while len(self.slices) < SLICES_PER_PROCESS and waiting:
            self.slices.append(waiting.take())
            self.connection.send([os.fspath(file.path) for file in self.slices[-1]])

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """Decode the slices that come, in a process of its own, until there is nobody to do it for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    # EOFError, OSError: nobody waits for the facts any more.
    with quiet_pillow(), contextlib.suppress(EOFError, OSError):
        connection.send([])
        while True:
            connection.send([read_facts(path) for path in connection.recv()])


def num_usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
