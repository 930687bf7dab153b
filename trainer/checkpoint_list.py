"""What people do to the list of a run's checkpoints: name and pin them, delete them, and put deleted ones back.

Whoever is the run's one writer calls these: its worker while it lives, else whoever has opened the folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from trainer.messages.commands import DeleteCheckpoints, EditCheckpoint, PutCheckpointsBack
from trainer.messages.events import CheckpointEdited, CheckpointsDeleted, CheckpointsPutBack
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

ListChange = EditCheckpoint | DeleteCheckpoints | PutCheckpointsBack
"""The commands that change the list."""


def change_list(
    folder: RunFolder, command: ListChange, discard: Callable[[Path], object] = Path.unlink
) -> CheckpointEdited | CheckpointsDeleted | CheckpointsPutBack:
    """Do what a command asks for. Returns what there is to tell of that.

    Raises:
        RunFolderError: It cannot be done, and nothing was.

    """
    match command:
        case EditCheckpoint():
            event: CheckpointEdited | CheckpointsDeleted | CheckpointsPutBack = edit_checkpoint(folder, command)
        case DeleteCheckpoints():
            event = delete_checkpoints(folder, command.names, discard)
        case PutCheckpointsBack():
            event = put_checkpoints_back(folder, command.checkpoints)
    return event.model_copy(update={"command_id": command.command_id})


def change_list_of_ended(
    run_dir: Path, command: ListChange, discard: Callable[[Path], object] = Path.unlink
) -> CheckpointEdited | CheckpointsDeleted | CheckpointsPutBack:
    """Do what a command asks for in a run without a worker, and keep that it was done.

    Raises:
        RunFolderError: It cannot be done, or a living worker has the run.

    """
    with RunFolder(run_dir) as folder:
        if folder.worker() is not None:
            raise RunFolderError(f"{run_dir.name} has a worker by now, which alone may change it. Open the run again.")
        event = change_list(folder, command, discard).model_copy(update={"time": time.time()})
        folder.add_event(event)
    return event


def edit_checkpoint(folder: RunFolder, edit: EditCheckpoint) -> CheckpointEdited:
    """Pin a checkpoint or not, and give it a label and a note.

    Raises:
        RunFolderError: There is no such checkpoint, or run.db cannot be written.

    """
    values = {"is_pinned": edit.is_pinned, "label": edit.label, "note": edit.note}
    changes = {key: value for key, value in values.items() if value is not None}
    info = _listed(folder, [edit.name])[0].model_copy(update=changes)
    folder.change_checkpoint(info)
    return CheckpointEdited(checkpoint=info)


def check_deletable(folder: RunFolder, names: Iterable[str]) -> None:
    """See that a living worker can do without these checkpoints.

    Raises:
        RunFolderError: There is no such checkpoint, or a resume would begin at it.

    """
    point = folder.resume_point()
    for info in _listed(folder, names):
        if point is not None and info.name == point.name:
            raise RunFolderError(
                f"{info.name} is what the run would go on from after a crash. Save another checkpoint first, then "
                "delete this one."
            )


def delete_checkpoints(
    folder: RunFolder, names: Iterable[str], discard: Callable[[Path], object] = Path.unlink
) -> CheckpointsDeleted:
    """Delete checkpoints: every deletion of a checkpoint's file goes through here.

    The rows go first: a kill in between leaves no row without a file, and no file that the next worker leaves. One that
    cannot be discarded is listed again, and the event says why. ``discard`` unlinks, or moves to the trash.

    Raises:
        RunFolderError: There is no such checkpoint, or one is pinned, or run.db cannot be written. Nothing is deleted.

    """
    listed = _listed(folder, names)
    for info in listed:
        if info.is_pinned:
            raise RunFolderError(f"{info.name} is pinned, so it is kept. Unpin it first, then delete it.")
    folder.begin_deleting([info.name for info in listed])
    deleted, problem = [], ""
    for info in listed:
        path = folder.checkpoints_dir / info.name
        try:
            discard(path)
        except FileNotFoundError:
            # Somebody was there before: it is gone as it should be.
            pass
        except OSError as error:
            folder.add_checkpoint(info)
            problem = f"Cannot delete {path}: {error.strerror or error}. Mend that, and delete it again."
            continue
        deleted.append(info)
    # Also of what a client is to move to the trash: whatever becomes of that, no worker deletes it for good.
    folder.end_deleting([info.name for info in deleted])
    freed_bytes = sum(info.size_bytes for info in deleted)
    return CheckpointsDeleted(names=[info.name for info in deleted], freed_bytes=freed_bytes, problem=problem)


def put_checkpoints_back(folder: RunFolder, infos: Iterable[CheckpointInfo]) -> CheckpointsPutBack:
    """List deleted checkpoints again, whose files are in their place again.

    Raises:
        RunFolderError: A file is missing or another one, or run.db cannot be written. Nothing is listed then.

    """
    infos = list(infos)
    listed = {info.name for info in folder.checkpoints()}
    for info in infos:
        problem = "a newer one has its name" if info.name in listed else folder.problem_of(info)
        if problem:
            raise RunFolderError(f"{info.name} cannot be listed again: {problem}. Look for it in the trash.")
    for info in infos:
        folder.add_checkpoint(info)
    return CheckpointsPutBack(checkpoints=infos)


def _listed(folder: RunFolder, names: Iterable[str]) -> list[CheckpointInfo]:
    by_name = {info.name: info for info in folder.checkpoints()}
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in by_name:
            raise RunFolderError(
                f"{folder.path.name} has no checkpoint {name} any more. `thaw checkpoints` lists them."
            )
    return [by_name[name] for name in wanted]
