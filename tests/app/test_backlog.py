"""A backlog goes with whoever holds it, and what it was to do with it."""

from __future__ import annotations

import gc
import threading
import weakref

from PySide6.QtCore import QObject

from app.backlog import Backlog


class Holder(QObject):
    """Holds a backlog, and itself: only a collection of garbage ends it."""

    def __init__(self, work) -> None:
        super().__init__()
        self.backlog = Backlog(work, parent=self)
        self.itself = self


def test_what_a_backlog_was_to_do_is_dropped_when_it_is_collected(qtbot) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(key: int) -> None:
        done.append(key)
        begun.set()
        assert go_on.wait(30)

    holder = Holder(work)
    holder.backlog.want(range(100))
    wishes = weakref.ref(holder.backlog._wishes)
    assert begun.wait(30)
    with qtbot.captureExceptions() as raised:
        del holder
        gc.collect()
    go_on.set()
    qtbot.waitUntil(lambda: not any(thread.name == "backlog" for thread in threading.enumerate()))
    gc.collect()
    assert (done, raised, wishes()) == ([0], [], None)
