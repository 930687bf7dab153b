"""CheckpointEdits: pins, labels, notes and deletions of the run on display, by its worker or in its folder."""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

from app import trash
from app.session import TrainingSession
from app.viewmodels.checkpoint_table import CheckpointItemModel
from trainer.checkpoint_list import ListChange, change_list_of_ended
from trainer.file_writer import FileWriter
from trainer.messages.commands import DeleteCheckpoints, EditCheckpoint, PutCheckpointsBack
from trainer.messages.events import CheckpointEdited, CheckpointsDeleted, CheckpointsPutBack, CommandRejected
from trainer.messages.run_info import CheckpointInfo

_DRAIN_INTERVAL_MS = 50
_MOST_AT_ONCE = 500
"""Of checkpoints in a command: with the names of all that is frozen in them, more would not go into a frame."""

ListEvent = CheckpointEdited | CheckpointsDeleted | CheckpointsPutBack


@dataclass(frozen=True)
class Trashed:
    """A deleted checkpoint, where its file was, and where it lies in the trash."""

    info: CheckpointInfo
    path: Path
    trashed: Path


@dataclass(frozen=True)
class Deletion:
    """What was deleted in one go. ``trashed`` can be put back as long as the trash is not emptied."""

    names: list[str]
    freed_bytes: int
    trashed: list[Trashed]
    kept: str = ""
    """The sentence that says which were to go, too, and stay."""
    has_best: bool = False
    """Whether the best one is among them."""


class CheckpointEdits(QObject):
    """Asks the worker that has the run, which alone writes then; without one, writes in a thread."""

    changed = Signal(object)
    """A checkpoint was marked, or some were deleted or put back (ListEvent): the list is another one."""
    deleted = Signal(object)
    """What was deleted here (Deletion), with its files: they are in the trash, or gone."""
    refused = Signal(str)
    """The sentence that says what could not be done."""
    confirmation_needed = Signal(object)
    """These checkpoints (list[str]) would be gone for good, because their disk has no trash."""

    def __init__(
        self, session: TrainingSession, checkpoints: CheckpointItemModel, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._checkpoints = checkpoints
        self._answers: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # One thread: two that each read a row and write it would lose what the first one wrote.
        self._writer = FileWriter("checkpoint-edits")
        self._num_asked = 0
        # By the command's id; None where the worker deletes the files itself.
        self._deleting: dict[str, list[CheckpointInfo] | None] = {}
        # By the run's folder: whoever comes back to a run can still undo what was deleted from it.
        self._deletions: dict[Path, list[Deletion]] = {}
        self._best_name: str | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_DRAIN_INTERVAL_MS)
        self._timer.timeout.connect(self._drain)

    # -- what the user asks for -------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Tell whether there is a deletion from the run on display that can be undone."""
        return self._session.run_dir is not None and bool(self._deletions.get(self._session.run_dir))

    def edit(
        self, names: Sequence[str], *, is_pinned: bool | None = None, label: str | None = None, note: str | None = None
    ) -> None:
        """Pin checkpoints or not, or give them a label or a note. What is None stays."""
        for name in names:
            self._ask(EditCheckpoint(name=name, is_pinned=is_pinned, label=label, note=note))

    def delete(self, names: Sequence[str]) -> None:
        """Delete checkpoints, to the trash; where there is none, ask first."""
        if (run_dir := self._session.run_dir) is not None and names:
            folder, self._best_name = run_dir / "checkpoints", self._checkpoints.present.best_name
            self._work(partial(trash.has_trash, folder), partial(self._delete_if, list(names)))

    def delete_for_good(self, names: Sequence[str]) -> None:
        """Delete checkpoints whose disk has no trash."""
        if self._session.holds_run:
            self._deleting[self._session.send(DeleteCheckpoints(names=list(names)))] = None
        else:
            self._ask(DeleteCheckpoints(names=list(names)))

    def undo(self) -> None:
        """Put back what was deleted last; then, what was deleted before that."""
        run_dir = self._session.run_dir
        if run_dir is not None and self.can_undo:
            trashed = self._deletions[run_dir].pop().trashed
            self._work(partial(_take_out, trashed), partial(self._list_again, run_dir))

    def leave_run(self) -> None:
        """Wait for no worker's answer any more: another run is on display."""
        self._deleting.clear()

    # -- what the worker says ---------------------------------------------------------------------------------

    def take(self, event: ListEvent) -> None:
        """Follow what became of the list of the live run."""
        self.changed.emit(event)
        if not isinstance(event, CheckpointsDeleted) or event.command_id not in self._deleting:
            return
        infos, run_dir = self._deleting.pop(event.command_id), self._session.run_dir
        if infos is None:
            self._tell_deleted(run_dir, self._deletion(event, event.names, []), event.problem)
        elif run_dir is not None:
            agreed = [info for info in infos if info.name in event.names]
            self._work(partial(_move_all, run_dir / "checkpoints", agreed), partial(self._on_moved, run_dir, event))

    def refuse(self, event: CommandRejected) -> None:
        """Follow a refusal: nothing was deleted. It is told elsewhere."""
        self._deleting.pop(event.command_id, None)

    # -- inside -----------------------------------------------------------------------------------------------

    def _infos(self, names: Sequence[str]) -> list[CheckpointInfo]:
        return [info for name in names if (info := self._checkpoints.present.info(name)) is not None]

    def _delete_if(self, names: list[str], has_trash: bool) -> None:
        if not has_trash:
            self.confirmation_needed.emit(names)
        elif self._session.holds_run:
            infos = self._infos(names)
            command_id = self._session.send(DeleteCheckpoints(names=names, leaves_files=True))
            self._deleting[command_id] = infos
        else:
            self._ask(DeleteCheckpoints(names=names), self._infos(names), is_to_trash=True)

    def _ask(self, command: ListChange, infos: Sequence[CheckpointInfo] = (), *, is_to_trash: bool = False) -> None:
        run_dir = self._session.run_dir
        if run_dir is None:
            return
        if self._session.holds_run:
            self._session.send(command)
            return
        trashed: list[Trashed] = []
        by_name = {info.name: info for info in infos}

        def discard(path: Path) -> None:
            trashed.append(Trashed(by_name[path.name], path, trash.move_to_trash(path)))

        work = partial(change_list_of_ended, run_dir, command, discard if is_to_trash else Path.unlink)
        self._work(work, partial(self._on_written, run_dir, trashed))

    def _on_written(self, run_dir: Path, trashed: list[Trashed], event: ListEvent) -> None:
        if self._session.run_dir == run_dir:
            self.changed.emit(event)
        if isinstance(event, CheckpointsDeleted):
            self._tell_deleted(run_dir, self._deletion(event, event.names, trashed), event.problem)

    def _deletion(self, event: CheckpointsDeleted, names: list[str], trashed: list[Trashed]) -> Deletion:
        return Deletion(names, event.freed_bytes, trashed, event.kept, has_best=self._best_name in names)

    def _on_moved(
        self, run_dir: Path, event: CheckpointsDeleted, moved: tuple[list[Trashed], list[CheckpointInfo], str]
    ) -> None:
        trashed, left, problem = moved
        self._put_back(run_dir, left)
        freed = sum(each.info.size_bytes for each in trashed)
        moved_event = event.model_copy(update={"freed_bytes": freed})
        self._tell_deleted(run_dir, self._deletion(moved_event, [each.info.name for each in trashed], trashed), problem)

    def _tell_deleted(self, run_dir: Path | None, deletion: Deletion, problem: str) -> None:
        if deletion.trashed and run_dir is not None:
            self._deletions.setdefault(run_dir, []).append(deletion)
        if problem:
            self.refused.emit(problem)
        elif deletion.names and self._session.run_dir == run_dir:
            self.deleted.emit(deletion)

    def _list_again(self, run_dir: Path, taken: tuple[list[CheckpointInfo], str]) -> None:
        infos, problem = taken
        self._put_back(run_dir, infos)
        if problem:
            self.refused.emit(problem)

    def _put_back(self, run_dir: Path, infos: list[CheckpointInfo]) -> None:
        """List again what has its file in its place, also where another run is on display by now."""
        for first in range(0, len(infos), _MOST_AT_ONCE):
            command = PutCheckpointsBack(checkpoints=infos[first : first + _MOST_AT_ONCE])
            if self._session.run_dir == run_dir:
                self._ask(command)
            else:
                self._work(partial(change_list_of_ended, run_dir, command), partial(self._on_written, run_dir, []))

    # -- threads ----------------------------------------------------------------------------------------------

    def _work(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do something on the disk in a thread, and then go on here with what came of it."""
        self._num_asked += 1
        self._timer.start()
        self._writer.put(partial(self._answer, work, then))

    def _answer(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        try:
            answer = work()
        except (ValueError, OSError) as error:
            self._answers.put(partial(self.refused.emit, str(error)))
        except Exception as error:  # noqa: BLE001 (whatever it was, the user must hear of it)
            traceback.print_exc()
            sentence = self.tr("Cannot change the checkpoints: {}. Please report this defect of Thaw.")
            self._answers.put(partial(self.refused.emit, sentence.format(f"{type(error).__name__}: {error}")))
        else:
            self._answers.put(partial(then, answer))

    def _drain(self) -> None:
        while not self._answers.empty():
            self._num_asked -= 1
            self._answers.get_nowait()()
        if not self._num_asked:
            self._timer.stop()


def _move_all(folder: Path, infos: list[CheckpointInfo]) -> tuple[list[Trashed], list[CheckpointInfo], str]:
    """Move files to the trash. Returns those that are there, those that are not, and why."""
    trashed, left, problem = [], [], ""
    for info in infos:
        path = folder / info.name
        try:
            trashed.append(Trashed(info, path, trash.move_to_trash(path)))
        except FileNotFoundError:
            continue
        except OSError as error:
            left.append(info)
            sentence = QCoreApplication.translate(
                "CheckpointEdits", "Cannot delete {}: {}. Mend that, and delete it again."
            )
            problem = sentence.format(path, error.strerror)
    return trashed, left, problem


def _take_out(trashed: list[Trashed]) -> tuple[list[CheckpointInfo], str]:
    """Take files out of the trash again. Returns what is back in its place, and why the rest is not."""
    back, problem = [], ""
    for each in trashed:
        try:
            trash.take_out(each.trashed, each.path)
        except OSError as error:
            sentence = QCoreApplication.translate(
                "CheckpointEdits", "Cannot put {} back: {}. Look for it in the trash."
            )
            problem = sentence.format(each.info.name, error.strerror)
        else:
            back.append(each.info)
    return back, problem
