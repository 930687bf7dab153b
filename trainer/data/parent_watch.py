"""A helper process of the worker's must not outlive it, however the worker ends."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Have this process end as soon as the one that started it has, whatever it is busy with or waits for.

    Also where a fork server made it: that one is kept alive by the processes that it made, and torch's own watch over
    its loaders looks at the server.
    """
    threading.Thread(target=_wait_and_end, name="parent-watch", daemon=True).start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child of multiprocessing runs this"
    parent.join()
    os._exit(1)
