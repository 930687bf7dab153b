"""RunOpener: opens a run's folder in a thread, attaching to its worker if one serves it."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from pathlib import Path

from trainer.client import RunOpened, WorkerClient
from trainer.runs import RunFolder


@dataclass(frozen=True)
class CannotOpen:
    """A folder that could not be opened; ``sentence`` is what the user reads."""

    sentence: str


Opened = WorkerClient | RunOpened | CannotOpen


class RunOpener:
    """Opens one run at a time; what was asked for before the last request is dropped."""

    def __init__(self) -> None:
        self._found: queue.SimpleQueue[tuple[int, Opened]] = queue.SimpleQueue()
        self._request = 0

    def open(self, path: Path) -> None:
        """Begin to open a run; ``take`` returns it when it is there."""
        self._request += 1
        threading.Thread(target=self._open, args=(self._request, path), name="run-opener", daemon=True).start()

    def cancel(self) -> None:
        """Drop what is being opened."""
        self._request += 1

    def take(self) -> Opened | None:
        """Return what was opened: a client of its live worker, its record, or why not; None while there is none."""
        while not self._found.empty():
            request, opened = self._found.get()
            if request == self._request:
                return opened
            if isinstance(opened, WorkerClient):
                opened.close()
        return None

    def _open(self, request: int, path: Path) -> None:
        opened: Opened
        try:
            with RunFolder(path, read_only=True) as folder:
                is_served = folder.worker() is not None
                record = None if is_served else folder.read()
            opened = WorkerClient.attach(path) if record is None else RunOpened(record, is_live=False)
        except (ValueError, OSError) as error:
            opened = CannotOpen(str(error))
        self._found.put((request, opened))
