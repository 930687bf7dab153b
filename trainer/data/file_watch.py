"""Noticing that files of a run were deleted or changed while it trains, also where kept copies serve for them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

import numpy as np

from trainer.data.images import displayed

FILES_PER_SLICE = 500
PAUSE_S = 0.005
"""Between two slices, in which the training thread has the interpreter for itself."""

_log = logging.getLogger(__name__)


class FileWatch:
    """Compares files with what they were like at first, and warns once of each that is gone or another one by now.

    Size and time of the last change tell, as in the cache of checked images. For 100,000 files that takes about a
    second, and some tenths of a second of one core.
    """

    def __init__(self, paths: Sequence[str], states: Sequence[os.stat_result]) -> None:
        """Note what the files are like; nothing is looked at yet.

        Args:
            paths: Their absolute paths.
            states: Of each, from when the run was prepared.

        """
        self._paths = paths
        self._states = np.array([(state.st_size, state.st_mtime_ns) for state in states], dtype=np.int64)
        self._is_told = np.zeros(len(paths), dtype=bool)
        self._thread: threading.Thread | None = None
        self._is_ended = threading.Event()

    def look(self) -> None:
        """Begin to compare the files, in a thread of its own; not where the last look is still under way."""
        if self._thread is not None and self._thread.is_alive():
            return
        # Its own for each thread: one that was ended may still be waiting for a disk.
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self.compare, args=(self._is_ended,), name="file-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End a look that is under way, without waiting for it: nothing is told any more."""
        self._is_ended.set()

    def compare(self, is_ended: threading.Event) -> None:
        """Compare the files here and now, and warn of what was not told before; stop when ``is_ended``."""
        gone: list[int] = []
        changed: list[int] = []
        why_gone = ""
        for start in range(0, len(self._paths), FILES_PER_SLICE):
            for idx, known in enumerate(self._states[start : start + FILES_PER_SLICE].tolist(), start):
                try:
                    state = os.stat(self._paths[idx])  # noqa: PTH116 (a Path for each takes four times as long)
                except OSError as error:
                    if not self._is_told[idx]:
                        gone.append(idx)
                        why_gone = why_gone or error.strerror or str(error)
                    continue
                if [state.st_size, state.st_mtime_ns] != known and not self._is_told[idx]:
                    changed.append(idx)
            if is_ended.wait(PAUSE_S):
                return
        self._is_told[gone + changed] = True
        if gone:
            _log.warning(
                "%s cannot be found any more (%s): the run goes on with decoded copies where it keeps some, and ends "
                "where it does not. Put back what is gone, or begin a new run without it.",
                self._named(gone),
                why_gone,
            )
        if changed:
            _log.warning(
                "%s changed since the run was prepared: it goes on with the decoded copies from before where it keeps "
                "some. Begin a new run to train on the files as they are now.",
                self._named(changed),
            )

    def _named(self, positions: list[int]) -> str:
        """Name the first of some files, and count the others."""
        first, num_more = displayed(self._paths[positions[0]]), len(positions) - 1
        return f"{first} and {num_more:,} more {'image' if num_more == 1 else 'images'}" if num_more else first
