"""Backlog: slow work in threads, of which only the newest wishes count: what was scrolled away is not done any more."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

_DRAIN_INTERVAL_MS = 15
_DRAIN_BUDGET_S = 0.008
"""What one turn may spend on answers: half a frame; the rest of them wait for the next turn."""


class Backlog(QObject):
    """Does work for keys, the first wish first, and answers from the GUI thread.

    The work runs in at most ``num_threads`` threads at once and must not touch the window. What may go wrong, it
    says in its answer; an exception is a defect and is raised in the GUI thread.
    """

    answered = Signal(object, object)
    """A key, and what the work gave for it."""

    def __init__(self, work: Callable[[Any], Any], num_threads: int = 1, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._wishes = _Wishes(work)
        self._num_threads = num_threads
        self._timer = QTimer(self)
        self._timer.setInterval(_DRAIN_INTERVAL_MS)
        self._timer.timeout.connect(self._drain)
        self.destroyed.connect(self._wishes.drop)
        # It also keeps them whole until this object is gone: a collection of garbage might empty them before.
        weakref.finalize(self, self._wishes.drop)
        if (app := QCoreApplication.instance()) is not None:
            app.aboutToQuit.connect(self._drop)

    def want(self, keys: Iterable[Hashable]) -> None:
        """Do the work for these keys, in this order. Earlier keys that were not begun yet are dropped."""
        num_new = self._wishes.replace(keys, self._num_threads)
        for _ in range(num_new):
            # No daemons: one that comes back from C++ while the interpreter ends would abort the process.
            threading.Thread(target=self._wishes.work_off, name="backlog").start()
        if self._wishes.is_open:
            self._timer.start()

    def _drop(self) -> None:
        self._wishes.drop()

    def _drain(self) -> None:
        wishes, deadline = self._wishes, time.monotonic() + _DRAIN_BUDGET_S
        while not wishes.answers.empty() and time.monotonic() < deadline:
            key, answer, error = wishes.answers.get_nowait()
            if error is not None:
                raise error
            self.answered.emit(key, answer)
        if not wishes.is_open:
            self._timer.stop()


class _Wishes:
    """What the threads share. They do not hold the Backlog: a QObject must end in the thread that it lives in."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._pending: deque[Hashable] = deque()
        self._in_work: set[Hashable] = set()
        self._num_running = 0
        self.answers: queue.SimpleQueue[tuple[Hashable, Any, Exception | None]] = queue.SimpleQueue()

    @property
    def is_open(self) -> bool:
        """Whether an answer is still to come or to be fetched."""
        with self._lock:
            return self._num_running > 0 or not self.answers.empty()

    def replace(self, keys: Iterable[Hashable], num_threads: int) -> int:
        """Take the newest wishes. Returns how many threads are to be started for them."""
        with self._lock:
            self._pending = deque(key for key in keys if key not in self._in_work)
            num_new = min(len(self._pending), num_threads - self._num_running)
            self._num_running += num_new
            return num_new

    def drop(self) -> None:
        with self._lock:
            self._pending.clear()

    def work_off(self) -> None:
        """Work until nothing is wanted."""
        while True:
            with self._lock:
                if not self._pending:
                    self._num_running -= 1
                    return
                key = self._pending.popleft()
                self._in_work.add(key)
            answer, error = None, None
            try:
                answer = self._work(key)
            except Exception as raised:  # noqa: BLE001 (raised again in the GUI thread)
                error = raised
            # First the answer, then the end of the work: in between, is_open must not say that all is told.
            self.answers.put((key, answer, error))
            with self._lock:
                self._in_work.discard(key)
