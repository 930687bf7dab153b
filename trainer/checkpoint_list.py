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

_MOST_NAMED = 5
"""Of checkpoints in a sentence."""
_WAY_OUT = "Unpin what is to go, or save another checkpoint first, then delete it."


def change_list(
    folder: RunFolder,
    command: ListChange,
    discard: Callable[[Path], object] = Path.unlink,
    *,
    keeps_resume_point: bool = False,
) -> CheckpointEdited | CheckpointsDeleted | CheckpointsPutBack:
    """Do what a command asks for. Returns what there is to tell of that.

    Raises:
        RunFolderError: Nothing of it can be done, or run.db cannot be written any more.

    """
    match command:
        case EditCheckpoint():
            event: CheckpointEdited | CheckpointsDeleted | CheckpointsPutBack = edit_checkpoint(folder, command)
        case DeleteCheckpoints():
            event = delete_checkpoints(folder, command.names, discard, keeps_resume_point=keeps_resume_point)
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
        RunFolderError: There is no such checkpoint, or it is to be pinned and its file is missing or was altered, or
            run.db cannot be written.

    """
    values = {"is_pinned": edit.is_pinned, "label": edit.label, "note": edit.note}
    changes = {key: value for key, value in values.items() if value is not None}
    (info,) = _listed(folder, [edit.name])
    problem = folder.checkpoints.problem_of(info) if edit.is_pinned else ""
    if problem:
        raise RunFolderError(
            f"{info.name} cannot be pinned: its {problem}. Put the file back in {folder.checkpoints_dir}, or pin "
            "another checkpoint."
        )
    info = info.model_copy(update=changes)
    folder.checkpoints.change(info)
    return CheckpointEdited(checkpoint=info)


def delete_checkpoints(
    folder: RunFolder,
    names: Iterable[str],
    discard: Callable[[Path], object] = Path.unlink,
    *,
    keeps_resume_point: bool = False,
) -> CheckpointsDeleted:
    """Delete checkpoints: every deletion of a checkpoint's file goes through here. The event says which stay, and why.

    The rows go first: a kill in between leaves no row without a file, and no file that the next worker leaves. One that
    cannot be discarded is listed again, and the event says why. ``discard`` unlinks, or moves to the trash.

    Args:
        folder: The run's folder.
        names: What is to go; those that are pinned stay.
        discard: Unlinks, or moves to the trash.
        keeps_resume_point: Whether the one stays from which a resume would begin, as a living worker needs it.

    Raises:
        RunFolderError: There is no such checkpoint, or all of them stay, or run.db cannot be written. Nothing is
            deleted.

    """
    asked = _listed(folder, names)
    point = folder.checkpoints.resume_point() if keeps_resume_point else None
    listed = [info for info in asked if not info.is_pinned and info != point]
    kept = _kept_sentence([info for info in asked if info not in listed])
    if not listed:
        raise RunFolderError(f"{kept} {_WAY_OUT}")
    folder.checkpoints.begin_deleting([info.name for info in listed])
    deleted, problem = [], ""
    for info in listed:
        path = folder.checkpoints_dir / info.name
        try:
            discard(path)
        except FileNotFoundError:
            # Somebody was there before: it is gone as it should be.
            pass
        except OSError as error:
            folder.checkpoints.add(info)
            problem = f"Cannot delete {path}: {error.strerror or error}. Mend that, and delete it again."
            continue
        deleted.append(info)
    # Also of what a client is to move to the trash: whatever becomes of that, no worker deletes it for good.
    folder.checkpoints.end_deleting([info.name for info in deleted])
    freed_bytes = sum(info.size_bytes for info in deleted)
    return CheckpointsDeleted(
        names=[info.name for info in deleted], freed_bytes=freed_bytes, problem=problem, kept=kept
    )


def _kept_sentence(kept: list[CheckpointInfo]) -> str:
    """Say which checkpoints stay, and why; "" for none."""
    pinned = [info for info in kept if info.is_pinned]
    sentences = [
        f"{info.name} stays: the run would go on from it after a crash." for info in kept if not info.is_pinned
    ]
    if len(pinned) == 1:
        sentences.append(f"{pinned[0].name} stays: it is pinned.")
    elif pinned:
        sentences.append(f"{len(pinned)} stay: they are pinned.")
    return " ".join(sentences)


def put_checkpoints_back(folder: RunFolder, infos: Iterable[CheckpointInfo]) -> CheckpointsPutBack:
    """List deleted checkpoints again, whose files are in their place again.

    Raises:
        RunFolderError: None of them can be listed, or run.db cannot be written any more.

    """
    listed = {info.name for info in folder.checkpoints.listed()}
    back: list[CheckpointInfo] = []
    left: list[str] = []
    for info in infos:
        wrong = "a newer one has its name" if info.name in listed else folder.checkpoints.problem_of(info)
        if wrong:
            left.append(f"{info.name} ({wrong})")
        else:
            folder.checkpoints.add(info)
            back.append(info)
    more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
    problem = (
        f"Cannot list again: {', '.join(left[:_MOST_NAMED])}{more}. "
        f"Look for the files in {folder.checkpoints_dir} and in the trash."
        if left
        else ""
    )
    if left and not back:
        raise RunFolderError(problem)
    return CheckpointsPutBack(checkpoints=back, problem=problem)


def _listed(folder: RunFolder, names: Iterable[str]) -> list[CheckpointInfo]:
    by_name = {info.name: info for info in folder.checkpoints.listed()}
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in by_name:
            raise RunFolderError(
                f"{folder.path.name} has no checkpoint {name} any more. `thaw checkpoints` lists them."
            )
    return [by_name[name] for name in wanted]
