"""FolderReader: what is read from disk besides a run's record, in threads: the window never waits for a disk."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from app.viewmodels.run_status import FolderSize
from trainer.messages import CheckpointInfo
from trainer.runs import RunFolder, RunFolderError, RunListing, list_runs

_DRAIN_INTERVAL_MS = 50

_Answer = list[RunListing] | FolderSize | dict[str, str] | None


class FolderReader(QObject):
    """Answers with a signal from the GUI thread. A question that is still being answered is not asked twice."""

    runs_listed = Signal(object)
    """list[RunListing]: the runs of a folder, newest first."""
    folder_measured = Signal(object)
    """FolderSize of a run's folder; None if it is gone."""
    checkpoints_examined = Signal(object)
    """dict[str, str]: what is wrong with each checkpoint's file by its name, "" for nothing."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answers: queue.SimpleQueue[tuple[str, _Answer]] = queue.SimpleQueue()
        self._asked: set[str] = set()
        self._signals = {
            "runs": self.runs_listed,
            "size": self.folder_measured,
            "checkpoints": self.checkpoints_examined,
        }
        self._timer = QTimer(self)
        self._timer.setInterval(_DRAIN_INTERVAL_MS)
        self._timer.timeout.connect(self._drain)

    def list_runs(self, runs_dir: Path) -> None:
        """List the runs of a folder."""
        self._ask("runs", lambda: list_runs(runs_dir))

    def measure(self, run_dir: Path) -> None:
        """Measure a run's folder and the room on its disk."""
        self._ask("size", lambda: _size_of(run_dir))

    def examine(self, run_dir: Path, checkpoints: list[CheckpointInfo]) -> None:
        """Look whether the checkpoints' files are there as they were written."""
        self._ask("checkpoints", lambda: _problems_of(run_dir, checkpoints))

    def _ask(self, what: str, work: Callable[[], _Answer]) -> None:
        if what in self._asked:
            return
        self._asked.add(what)
        self._timer.start()
        threading.Thread(target=self._answer, args=(what, work), name=f"read-{what}", daemon=True).start()

    def _answer(self, what: str, work: Callable[[], _Answer]) -> None:
        try:
            self._answers.put((what, work()))
        except (OSError, RunFolderError):
            # The folder went away in between: there is nothing to show of it, and the run list says so.
            self._answers.put((what, {} if what == "checkpoints" else [] if what == "runs" else None))

    def _drain(self) -> None:
        while not self._answers.empty():
            what, answer = self._answers.get_nowait()
            self._asked.discard(what)
            self._signals[what].emit(answer)
        if not self._asked:
            self._timer.stop()


def _size_of(run_dir: Path) -> FolderSize:
    total = 0
    for folder, _, names in os.walk(run_dir):
        for name in names:
            path = Path(folder) / name
            if path.is_file():
                total += path.stat().st_size
    return FolderSize(total, shutil.disk_usage(run_dir).free)


def _problems_of(run_dir: Path, checkpoints: list[CheckpointInfo]) -> dict[str, str]:
    with RunFolder(run_dir, read_only=True) as folder:
        return {checkpoint.name: folder.problem_of(checkpoint) for checkpoint in checkpoints}
