"""One thread that writes files in the order in which they come, so that training need not wait for a disk."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable


class FileWriter:
    """Does jobs one after another on a thread of its own, which begins with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, job: Callable[[], None]) -> None:
        """Have a job done soon; what it is to write must not change meanwhile. It tells of its failures itself.

        Called from one thread, or by a job.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._do_all, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def finish(self) -> None:
        """Return when all jobs are done, and those that they put."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _do_all(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Do a job. Returns whether there may be more; holds nothing of the job while it waits for another."""
        job = self._jobs.get()
        if job is None and self._jobs.empty():
            return False
        if job is None:
            self._jobs.put(None)
            return True
        try:
            job()
        except Exception:  # noqa: BLE001 (whatever it was, the jobs after it are to be done)
            traceback.print_exc()
        return True
