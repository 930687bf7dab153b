"""CheckpointEdits: pins, labels, notes and deletions of the run on display, by its worker or in its folder."""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

from app import trash
from app.deletions import (
    Deletion,
    DeletionRecordError,
    LeftBehind,
    Trashed,
    begin_deletion,
    end_deletion,
    forget_deleted,
    has_bytes,
    note_place,
    note_trashed,
    read_deletions,
)
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
    returned = Signal(object)
    """These checkpoints (list[str]), whose deletion was undone here, are listed again."""
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
        self._deleting: dict[str, _Going | None] = {}
        # By the run's folder: whoever comes back to a run, or opens it anew, can still undo what was deleted from it.
        self._deletions: dict[Path, list[Deletion]] = {}
        self._known: set[str] = set()
        """The ids of the deletions that were begun here or have been read."""
        self._going: set[str] = set()
        """The ids of those whose files are to be moved yet."""
        self._returning: dict[str, bool] = {}
        """By the names of those whose deletion was undone last, whether they are listed again."""
        self._best_name: str | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_DRAIN_INTERVAL_MS)
        self._timer.timeout.connect(self._drain)

    # -- what the user asks for -------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Tell whether there is a deletion from the run on display that can be undone."""
        return self._shown is not None and bool(self._deletions.get(self._shown))

    def edit(
        self, names: Sequence[str], *, is_pinned: bool | None = None, label: str | None = None, note: str | None = None
    ) -> None:
        """Pin checkpoints or not, or give them a label or a note. What is None stays."""
        for name in names:
            self._ask(EditCheckpoint(name=name, is_pinned=is_pinned, label=label, note=note))

    def delete(self, names: Sequence[str]) -> None:
        """Delete checkpoints, to the trash; where there is none, ask first."""
        infos = self._infos(names)
        if (shown := self._shown) is not None and infos:
            self._best_name = self._checkpoints.present.best_name
            self._work(partial(_begin, shown, infos), partial(self._delete_if, shown, infos))

    def delete_for_good(self, names: Sequence[str]) -> None:
        """Delete checkpoints whose disk has no trash."""
        if self._session.holds_run:
            self._deleting[self._session.send(DeleteCheckpoints(names=list(names)))] = None
        else:
            self._ask(DeleteCheckpoints(names=list(names)))

    def undo(self) -> None:
        """Put back what was deleted last; then, what was deleted before that."""
        if (shown := self._shown) is not None and self.can_undo:
            deletion = self._deletions[shown].pop()
            self._work(partial(_take_out, deletion), partial(self._list_again, shown, deletion))
            self.undo_changed.emit()

    def show_run(self) -> None:
        """Look for what was deleted from the run on display, by this window or an earlier one."""
        if (shown := self._shown) is None:
            return
        for command_id, going in list(self._deleting.items()):
            # The list was read anew: the worker has deleted these, and its answer may never come.
            if going is None:
                continue
            if gone := [info.name for info in going.infos if self._checkpoints.present.info(info.name) is None]:
                del self._deleting[command_id]
                event = CheckpointsDeleted(names=gone, freed_bytes=0)
                self._work(partial(_move_all, shown, event, going, self._best_name), partial(self._on_moved, shown))
        # Once the run is painted: the first job starts the thread, for which the window waits.
        look = partial(self._work, partial(_read_deletions, shown), partial(self._recall, shown))
        QTimer.singleShot(0, self, look)
        self.undo_changed.emit()

    def leave_run(self) -> None:
        """Wait for no worker's answer any more: another run is on display."""
        self._going -= {going.deletion_id for going in self._deleting.values() if going is not None}
        self._deleting.clear()
        self.undo_changed.emit()

    def close(self) -> None:
        """Return when nothing is half way to the trash, or out of it."""
        self._writer.finish()

    # -- what the worker says ---------------------------------------------------------------------------------

    def take(self, event: ListEvent) -> None:
        """Follow what became of the list of the live run."""
        self.changed.emit(event)
        shown = self._shown
        if isinstance(event, CheckpointsPutBack):
            self._forget(shown, event)
            self._tell_returned(event)
            # What another window or shell asked for is told there.
            if event.problem and self._session.has_sent(event.command_id):
                self.refused.emit(event.problem)
        if not isinstance(event, CheckpointsDeleted) or event.command_id not in self._deleting:
            return
        going = self._deleting.pop(event.command_id)
        if going is None:
            self._tell_deleted(shown, _deletion(event, [], self._best_name), event.problem)
        elif shown is not None:
            self._work(partial(_move_all, shown, event, going, self._best_name), partial(self._on_moved, shown))

    def refuse(self, event: CommandRejected) -> None:
        """Follow a refusal: nothing was deleted. It is told elsewhere."""
        if (going := self._deleting.pop(event.command_id, None)) is not None:
            self._end(going.deletion_id)

    # -- inside -----------------------------------------------------------------------------------------------

    @property
    def _shown(self) -> Path | None:
        """Return the folder of the run on display: the session may come to know it by another path to it."""
        return self._checkpoints.present.path

    def _infos(self, names: Sequence[str]) -> list[CheckpointInfo]:
        return [info for name in names if (info := self._checkpoints.present.info(name)) is not None]

    def _delete_if(self, shown: Path, infos: list[CheckpointInfo], going: _Going | None) -> None:
        names = [info.name for info in infos]
        if going is not None:
            self._known.add(going.deletion_id)
        if self._shown != shown:
            if going is not None:
                self._end(going.deletion_id)
        elif going is None:
            self.confirmation_needed.emit(names)
        else:
            self._going.add(going.deletion_id)
            command = DeleteCheckpoints(names=names, leaves_files=True)
            if self._session.holds_run:
                self._deleting[self._session.send(command)] = going
            else:
                work = partial(_delete_from_ended, shown, command, going, self._best_name)
                self._work(work, lambda done: self._on_moved(shown, done[1], done[0]))

    def _ask(self, command: ListChange) -> None:
        if (shown := self._shown) is None:
            return
        if self._session.holds_run:
            self._session.send(command)
        else:
            self._work(partial(change_list_of_ended, shown, command), partial(self._on_written, shown))

    def _on_written(self, shown: Path, event: ListEvent) -> None:
        if self._shown == shown:
            self.changed.emit(event)
        if isinstance(event, CheckpointsPutBack):
            self._forget(shown, event)
            if self._shown == shown:
                self._tell_returned(event)
            if event.problem:
                self.refused.emit(event.problem)
        elif isinstance(event, CheckpointsDeleted):
            self._tell_deleted(shown, _deletion(event, [], self._best_name), event.problem)

    def _on_moved(self, shown: Path, moved: _Moved, event: CheckpointsDeleted | None = None) -> None:
        self._going.discard(moved.deletion.id)
        if event is not None and self._shown == shown:
            self.changed.emit(event)
        self._put_back(shown, moved.left)
        self._tell_deleted(shown, moved.deletion, moved.problem)

    def _tell_deleted(self, shown: Path | None, deletion: Deletion, problem: str) -> None:
        if shown is not None and deletion.trashed:
            self._deletions.setdefault(shown, []).append(deletion)
            self.undo_changed.emit()
        if problem:
            self.refused.emit(problem)
        elif deletion.names and self._shown == shown:
            self.deleted.emit(deletion)

    def _tell_returned(self, event: CheckpointsPutBack) -> None:
        for info in event.checkpoints:
            if info.name in self._returning:
                self._returning[info.name] = True
        # They may come in several answers.
        if self._returning and all(self._returning.values()):
            self.returned.emit(list(self._returning))
            self._returning.clear()

    def _list_again(self, shown: Path, deletion: Deletion, taken: _Taken) -> None:
        self._returning = dict.fromkeys((info.name for info in taken.back), False)
        self._put_back(shown, taken.back)
        if taken.left:
            self._deletions[shown].append(replace(deletion, trashed=taken.left))
            self.undo_changed.emit()
        if taken.problem:
            self.refused.emit(taken.problem)

    def _put_back(self, shown: Path, infos: list[CheckpointInfo]) -> None:
        """List again what has its file in its place, also where another run is on display by now."""
        for first in range(0, len(infos), _MOST_AT_ONCE):
            command = PutCheckpointsBack(checkpoints=infos[first : first + _MOST_AT_ONCE])
            if self._shown == shown:
                self._ask(command)
            else:
                self._work(partial(change_list_of_ended, shown, command), partial(self._on_written, shown))

    # -- what outlives the window -----------------------------------------------------------------------------

    def _recall(self, shown: Path, kept: tuple[list[Deletion], list[LeftBehind]]) -> None:
        deletions, left = kept
        new = [deletion for deletion in deletions if deletion.id not in self._known]
        self._known.update(deletion.id for deletion in new)
        self._deletions.setdefault(shown, [])[:0] = new
        self.undo_changed.emit()
        if self._shown != shown:
            return
        for each in left:
            if each.deletion_id in self._going:
                continue
            # A window was killed, or left the run, before it moved this to the trash, or when it had it out again.
            self._work(partial(note_trashed, each.deletion_id, shown, each.info, None), _nothing)
            if self._checkpoints.present.info(each.info.name) is None:
                self._put_back(shown, [each.info])
            else:
                self._work(partial(forget_deleted, shown, [each.info.name]), _nothing)

    def _forget(self, shown: Path | None, event: CheckpointsPutBack) -> None:
        if shown is not None:
            self._work(partial(forget_deleted, shown, [info.name for info in event.checkpoints]), _nothing)

    def _end(self, deletion_id: str) -> None:
        self._going.discard(deletion_id)
        if deletion_id:
            self._work(partial(end_deletion, deletion_id), _nothing)

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


def _nothing(_: None) -> None:
    """Do nothing with what came of it."""


class _Going(NamedTuple):
    """A deletion that was begun: the id under which it is kept, what is to go, and why it is not kept."""

    deletion_id: str
    infos: list[CheckpointInfo]
    problem: str


class _Moved(NamedTuple):
    """What was moved to the trash, what could not be and is in its place, and why."""

    deletion: Deletion
    left: list[CheckpointInfo]
    problem: str


class _Taken(NamedTuple):
    """What is out of the trash, in its place again; what is still in it; and why."""

    back: list[CheckpointInfo]
    left: list[Trashed]
    problem: str


def _deletion(event: CheckpointsDeleted, trashed: list[Trashed], best_name: str | None) -> Deletion:
    return Deletion(event.names, event.freed_bytes, trashed, event.kept, has_best=best_name in event.names)


def _begin(shown: Path, infos: list[CheckpointInfo]) -> _Going | None:
    """Keep what is about to be deleted; None where there is no trash for it."""
    if not trash.has_trash(shown / "checkpoints"):
        return None
    try:
        return _Going(begin_deletion(shown, infos), infos, "")
    except DeletionRecordError as error:
        return _Going("", infos, str(error))


def _leave(_: Path) -> None:
    """Leave a file where it is, to be moved to the trash once it is not listed any more."""


def _delete_from_ended(
    shown: Path, command: DeleteCheckpoints, going: _Going, best_name: str | None
) -> tuple[CheckpointsDeleted, _Moved]:
    """Delete checkpoints of a run without a worker, and move their files to the trash."""
    try:
        event = change_list_of_ended(shown, command, _leave)
    except Exception:
        if going.deletion_id:
            end_deletion(going.deletion_id)
        raise
    assert isinstance(event, CheckpointsDeleted), event
    return event, _move_all(shown, event, going, best_name)


def _move_all(shown: Path, event: CheckpointsDeleted, going: _Going, best_name: str | None) -> _Moved:
    """Move to the trash what is not listed any more, and keep where it lies."""
    trashed, left, problem, record_problem = [], [], event.problem, going.problem
    for info in (each for each in going.infos if each.name in event.names):
        path = shown / "checkpoints" / info.name
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
            continue
        if not record_problem:
            try:
                note_trashed(going.deletion_id, shown, info, trashed[-1].trashed)
            except DeletionRecordError as error:
                record_problem = str(error)
    if not record_problem:
        try:
            end_deletion(going.deletion_id)
        except DeletionRecordError as error:
            record_problem = str(error)
    deletion = Deletion(
        [each.info.name for each in trashed],
        sum(each.info.size_bytes for each in trashed),
        trashed,
        f"{event.kept} {record_problem}".strip(),
        has_best=any(each.info.name == best_name for each in trashed),
        id=going.deletion_id,
    )
    return _Moved(deletion, left, problem)


def _read_deletions(run_dir: Path) -> tuple[list[Deletion], list[LeftBehind]]:
    trash.clear_left_over(run_dir / "checkpoints")
    return read_deletions(run_dir)


def _take_out(deletion: Deletion) -> _Taken:
    """Take files out of the trash again, to their places; by another name where a newer checkpoint has theirs."""
    back: list[CheckpointInfo] = []
    left: list[Trashed] = []
    problems: list[str] = []
    record_problem = ""
    for each in deletion.trashed:
        run_dir, named = each.path.parents[1], _with_free_name(each)
        try:
            if trash.size_of(each.trashed) is not None and not has_bytes(each.trashed, each.info):
                raise FileNotFoundError(2, "the trash has another file by its name", str(each.path))
            if deletion.id:
                note_place(deletion.id, run_dir, named.info, each.trashed)
            trash.take_out(each.trashed, named.path)
        except OSError as error:
            sentence = QCoreApplication.translate(
                "CheckpointEdits", "Cannot put {} back: {}. Look for it in the trash."
            )
            problems.append(sentence.format(each.info.name, error.strerror or error))
            if not isinstance(error, FileNotFoundError):
                left.append(each)
            continue
        back.append(named.info)
        if deletion.id:
            try:
                note_trashed(deletion.id, run_dir, named.info, None)
            except DeletionRecordError as error:
                record_problem = str(error)
    if len(problems) > 1:
        more = QCoreApplication.translate("CheckpointEdits", "{} more did not come back either.")
        problems[1:] = [more.format(len(problems) - 1)]
    return _Taken(back, left, " ".join([*problems, record_problem]).strip())


def _with_free_name(trashed: Trashed) -> Trashed:
    path = trash.free_place(trashed.path)
    return replace(trashed, info=trashed.info.model_copy(update={"name": path.name}), path=path)
