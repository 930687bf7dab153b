"""CheckpointEdits: pins, labels, notes and deletions of the run on display, by its worker or in its folder."""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

from app import trash
from app.deletions import Deletion, Trashed, begin_deletion, end_deletion, forget_deletion, read_deletions
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


class CheckpointEdits(QObject):
    """Asks the worker that has the run, which alone writes then; without one, writes in a thread."""

    changed = Signal(object)
    """A checkpoint was marked, or some were deleted or put back (ListEvent): the list is another one."""
    deleted = Signal(object)
    """What was deleted here (Deletion), with its files: they are in the trash, or gone."""
    undo_changed = Signal()
    """Whether there is a deletion to undo has changed."""
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
        # By the run's folder: whoever comes back to a run, or opens it anew, can still undo what was deleted from it.
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
            deletion = self._deletions[run_dir].pop()
            self._work(partial(_take_out, deletion), partial(self._list_again, run_dir, deletion))
            self.undo_changed.emit()

    def show_run(self) -> None:
        """Look for what was deleted from the run on display, by this window or an earlier one."""
        if (run_dir := self._session.run_dir) is not None:
            # Once the run is painted: the first job starts the thread, for which the window waits.
            look = partial(self._work, partial(read_deletions, run_dir), partial(self._recall, run_dir))
            QTimer.singleShot(0, self, look)

    def leave_run(self) -> None:
        """Wait for no worker's answer any more: another run is on display."""
        self._deleting.clear()
        self.undo_changed.emit()

    # -- what the worker says ---------------------------------------------------------------------------------

    def take(self, event: ListEvent) -> None:
        """Follow what became of the list of the live run."""
        self.changed.emit(event)
        if not isinstance(event, CheckpointsDeleted) or event.command_id not in self._deleting:
            return
        infos, run_dir = self._deleting.pop(event.command_id), self._session.run_dir
        if infos is None:
            self._tell_deleted(run_dir, _deletion(event, [], self._best_name), event.problem)
        elif run_dir is not None:
            self._work(partial(_move_all, run_dir, event, infos, self._best_name), partial(self._on_moved, run_dir))

    def refuse(self, event: CommandRejected) -> None:
        """Follow a refusal: nothing was deleted. It is told elsewhere."""
        infos, run_dir = self._deleting.pop(event.command_id, None), self._session.run_dir
        if infos is not None and run_dir is not None:
            self._work(partial(end_deletion, run_dir, [info.name for info in infos]), lambda _: None)

    # -- inside -----------------------------------------------------------------------------------------------

    def _infos(self, names: Sequence[str]) -> list[CheckpointInfo]:
        return [info for name in names if (info := self._checkpoints.present.info(name)) is not None]

    def _delete_if(self, names: list[str], has_trash: bool) -> None:
        run_dir = self._session.run_dir
        if not has_trash:
            self.confirmation_needed.emit(names)
        elif run_dir is not None:
            infos = self._infos(names)
            self._work(partial(begin_deletion, run_dir, infos), lambda _: self._delete_kept(run_dir, infos))

    def _delete_kept(self, run_dir: Path, infos: list[CheckpointInfo]) -> None:
        names = [info.name for info in infos]
        if self._session.run_dir != run_dir:
            self._work(partial(end_deletion, run_dir, names), lambda _: None)
        elif self._session.holds_run:
            self._deleting[self._session.send(DeleteCheckpoints(names=names, leaves_files=True))] = infos
        else:
            work = partial(_trash_from_ended, run_dir, infos, self._best_name)
            self._work(work, lambda done: self._on_written(run_dir, *done))

    def _ask(self, command: ListChange) -> None:
        run_dir = self._session.run_dir
        if run_dir is None:
            return
        if self._session.holds_run:
            self._session.send(command)
        else:
            self._work(partial(change_list_of_ended, run_dir, command), partial(self._on_written, run_dir))

    def _on_written(self, run_dir: Path, event: ListEvent, deletion: Deletion | None = None) -> None:
        if self._session.run_dir == run_dir:
            self.changed.emit(event)
        if isinstance(event, CheckpointsDeleted):
            self._tell_deleted(run_dir, deletion or _deletion(event, [], self._best_name), event.problem)

    def _on_moved(self, run_dir: Path, moved: tuple[Deletion, list[CheckpointInfo], str]) -> None:
        deletion, left, problem = moved
        self._put_back(run_dir, left)
        self._tell_deleted(run_dir, deletion, problem)

    def _tell_deleted(self, run_dir: Path | None, deletion: Deletion, problem: str) -> None:
        if run_dir is not None:
            if deletion.trashed:
                self._deletions.setdefault(run_dir, []).append(deletion)
            self.undo_changed.emit()
        if problem:
            self.refused.emit(problem)
        elif deletion.names and self._session.run_dir == run_dir:
            self.deleted.emit(deletion)

    def _list_again(self, run_dir: Path, deletion: Deletion, taken: tuple[list[CheckpointInfo], str]) -> None:
        infos, problem = taken
        self._put_back(run_dir, infos)
        self._work(partial(forget_deletion, run_dir, deletion), lambda _: None)
        if problem:
            self.refused.emit(problem)

    def _put_back(self, run_dir: Path, infos: list[CheckpointInfo]) -> None:
        """List again what has its file in its place, also where another run is on display by now."""
        for first in range(0, len(infos), _MOST_AT_ONCE):
            command = PutCheckpointsBack(checkpoints=infos[first : first + _MOST_AT_ONCE])
            if self._session.run_dir == run_dir:
                self._ask(command)
            else:
                self._work(partial(change_list_of_ended, run_dir, command), partial(self._on_written, run_dir))

    def _recall(self, run_dir: Path, kept: tuple[list[Deletion], list[CheckpointInfo]]) -> None:
        self._deletions[run_dir], left = kept
        self.undo_changed.emit()
        if left and self._session.run_dir == run_dir:
            # A window was killed, or left the run, before it moved these to the trash or after it had them out again.
            self._put_back(run_dir, [info for info in left if self._checkpoints.present.info(info.name) is None])

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


def _deletion(event: CheckpointsDeleted, trashed: list[Trashed], best_name: str | None) -> Deletion:
    return Deletion(event.names, event.freed_bytes, trashed, event.kept, has_best=best_name in event.names)


def _trash_from_ended(
    run_dir: Path, infos: list[CheckpointInfo], best_name: str | None
) -> tuple[CheckpointsDeleted, Deletion]:
    """Delete checkpoints of a run without a worker, and move their files to the trash."""
    by_name = {info.name: info for info in infos}
    trashed: list[Trashed] = []

    def discard(path: Path) -> None:
        trashed.append(Trashed(by_name[path.name], path, trash.move_to_trash(path)))

    try:
        event = change_list_of_ended(run_dir, DeleteCheckpoints(names=list(by_name)), discard)
        assert isinstance(event, CheckpointsDeleted), event
        deletion = _deletion(event, trashed, best_name)
    except Exception:
        # Whatever could not be written then: what lies in the trash can be put back.
        gone = [each.info for each in trashed]
        names, freed_bytes = [info.name for info in gone], sum(info.size_bytes for info in gone)
        end_deletion(run_dir, by_name, Deletion(names, freed_bytes, trashed))
        raise
    end_deletion(run_dir, by_name, deletion)
    return event, deletion


def _move_all(
    run_dir: Path, event: CheckpointsDeleted, infos: list[CheckpointInfo], best_name: str | None
) -> tuple[Deletion, list[CheckpointInfo], str]:
    """Move what a worker has deleted of ``infos`` to the trash. Returns that, what is not there, and why."""
    trashed, left, problem = [], [], ""
    for info in (each for each in infos if each.name in event.names):
        path = run_dir / "checkpoints" / info.name
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
    gone = [each.info for each in trashed]
    moved = {"names": [info.name for info in gone], "freed_bytes": sum(info.size_bytes for info in gone)}
    deletion = _deletion(event.model_copy(update=moved), trashed, best_name)
    end_deletion(run_dir, [info.name for info in infos], deletion)
    return deletion, left, problem


def _take_out(deletion: Deletion) -> tuple[list[CheckpointInfo], str]:
    """Take files out of the trash again. Returns what is back in its place, and why the rest is not."""
    back, problem = [], ""
    for each in deletion.trashed:
        assert each.trashed is not None, "it was moved before it could be undone"
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
