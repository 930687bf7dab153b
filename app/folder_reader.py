"""FolderReader: what is read from disk besides a run's record, in threads: the window never waits for a disk."""

from __future__ import annotations

import os
import queue
import shutil
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from app.viewmodels.run_status import FolderSize
from trainer.messages.run_info import CheckpointInfo
from trainer.run_list import list_runs, read_checkpoints
from trainer.run_record import RunCheckpoints, RunFolderError, RunListing
from trainer.runs import RunFolder

_DRAIN_INTERVAL_MS = 50


@dataclass(frozen=True)
class CheckpointFindings:
    """What is wrong with each checkpoint's file by its name, "" for nothing; and which ones the run left behind.

    ``resume_point`` is the one from which it would go on, None for its start.
    """

    problems: dict[str, str] = field(default_factory=dict)
    left_behind: set[str] = field(default_factory=set)
    resume_point: str | None = None


_Answer = list[RunListing] | list[RunCheckpoints] | FolderSize | CheckpointFindings | None


class FolderReader(QObject):
    """Answers with a signal from the GUI thread. One that is still being answered is asked once more after it."""

    runs_listed = Signal(object)
    """list[RunListing]: the runs of a folder, newest first."""
    folder_measured = Signal(object)
    """FolderSize of a run's folder; None if it is gone."""
    checkpoints_examined = Signal(object)
    """CheckpointFindings of a run."""
    checkpoints_read = Signal(object)
    """list[RunCheckpoints]: those of several runs, the newest run's first."""
    failed = Signal(str)
    """The sentence that says what could not be read, once until it can be read again."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answers: queue.SimpleQueue[tuple[str, _Answer | Exception]] = queue.SimpleQueue()
        self._asked: set[str] = set()
        self._again: dict[str, Callable[[], _Answer]] = {}
        self._failing: set[str] = set()
        self._signals = {
            "runs": self.runs_listed,
            "size": self.folder_measured,
            "checkpoints": self.checkpoints_examined,
            "runs' checkpoints": self.checkpoints_read,
        }
        self._timer = QTimer(self)
        self._timer.setInterval(_DRAIN_INTERVAL_MS)
        self._timer.timeout.connect(self._drain)

    def list_runs(self, runs_dir: Path) -> None:
        """List the runs of a folder."""
        self._ask("runs", lambda: list_runs(runs_dir))

    def read_checkpoints(self, runs_dir: Path, relatives_of: Path | None, besides: Path | None) -> None:
        """Read the checkpoints of a folder's runs, or of one's parents and branches, all ``besides`` one run."""
        self._ask("runs' checkpoints", lambda: _others(read_checkpoints(runs_dir, relatives_of), besides))

    def measure(self, run_dir: Path) -> None:
        """Measure a run's folder and the room on its disk."""
        self._ask("size", lambda: _size_of(run_dir))

    def examine(self, run_dir: Path, checkpoints: list[CheckpointInfo]) -> None:
        """Look whether the checkpoints' files are there as they were written, and on the way to where the run is."""
        self._ask("checkpoints", lambda: _findings_of(run_dir, checkpoints))

    def _ask(self, what: str, work: Callable[[], _Answer]) -> None:
        if what in self._asked:
            self._again[what] = work
            return
        self._asked.add(what)
        self._timer.start()
        thread = threading.Thread(target=self._answer, args=(what, work), name=f"read-{what}", daemon=True)
        # Once the window has painted what it shows by now: a start waits until the thread runs, and that takes the
        # interpreter from the window. Of one event that has several questions, they took as long as all the rest.
        QTimer.singleShot(0, self, thread.start)

    def _answer(self, what: str, work: Callable[[], _Answer]) -> None:
        answer: _Answer | Exception
        try:
            answer = work()
        except (OSError, RunFolderError):
            # The folder went away in between: there is nothing to show of it, and the run list says so.
            empty: _Answer = None if what == "size" else CheckpointFindings() if what == "checkpoints" else []
            answer = empty
        except Exception as error:  # noqa: BLE001 (whatever it was, it must be told, and asked again later)
            answer = error
        self._answers.put((what, answer))

    def _drain(self) -> None:
        while not self._answers.empty():
            what, answer = self._answers.get_nowait()
            self._asked.discard(what)
            if isinstance(answer, Exception):
                self._tell(what, answer)
            else:
                self._failing.discard(what)
                self._signals[what].emit(answer)
            if (work := self._again.pop(what, None)) is not None:
                self._ask(what, work)
        if not self._asked:
            self._timer.stop()

    def _tell(self, what: str, error: Exception) -> None:
        if what in self._failing:
            return
        self._failing.add(what)
        traceback.print_exception(error)
        sentence = {
            "runs": self.tr("Cannot list the runs: {}. Please report this defect of Thaw."),
            "size": self.tr("Cannot measure the run's folder: {}. Please report this defect of Thaw."),
            "runs' checkpoints": self.tr(
                "Cannot read the other runs' checkpoints: {}. Please report this defect of Thaw."
            ),
            "checkpoints": self.tr("Cannot look at the run's checkpoints: {}. Please report this defect of Thaw."),
        }[what]
        self.failed.emit(sentence.format(f"{type(error).__name__}: {error}"))


def _others(readings: list[RunCheckpoints], besides: Path | None) -> list[RunCheckpoints]:
    # A link may lead to the same folder by another path.
    own = None if besides is None else besides.resolve()
    return [reading for reading in readings if reading.path.resolve() != own]


def _size_of(run_dir: Path) -> FolderSize:
    total = 0
    for folder, _, names in os.walk(run_dir):
        for name in names:
            path = Path(folder) / name
            if path.is_file():
                total += path.stat().st_size
    return FolderSize(total, shutil.disk_usage(run_dir).free)


def _findings_of(run_dir: Path, checkpoints: list[CheckpointInfo]) -> CheckpointFindings:
    with RunFolder(run_dir, read_only=True) as folder:
        rows = folder.checkpoints
        problems = {checkpoint.name: rows.problem_of(checkpoint) for checkpoint in checkpoints}
        point = rows.resume_point(checkpoints)
        return CheckpointFindings(problems, rows.left_behind(checkpoints), None if point is None else point.name)
