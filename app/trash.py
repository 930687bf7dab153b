"""The system's trash: put a file into it, and take it out again. It moves files: never on the window's thread."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from itertools import chain, count
from pathlib import Path

from PySide6.QtCore import QFile

from trainer.durable import sync_folder

_COPY_PREFIX = ".back-"
_LEFT_AFTER_S = 86_400.0


def move_to_trash(path: Path) -> Path:
    """Move a file to the trash. Returns where it lies there.

    Raises:
        OSError: It is missing, or there is no trash for its disk.

    """
    if not path.exists():
        raise FileNotFoundError(2, "No such file", str(path))
    file = QFile(str(path))
    if not file.moveToTrash():
        raise OSError(0, "the system's trash does not take it", str(path))
    return Path(file.fileName())


def take_out(trashed: Path, path: Path) -> None:
    """Put a file of the trash back to where it was, or to ``free_place``.

    Raises:
        OSError: It is not in the trash any more, or something else has its place.

    """
    if not trashed.exists():
        raise FileNotFoundError(2, "the trash was emptied", str(path))
    try:
        _move_out(trashed, path)
    except FileExistsError as error:
        raise FileExistsError(17, "another file has its place", str(path)) from error
    _forget(trashed)


def _move_out(trashed: Path, path: Path) -> None:
    try:
        _take_place(trashed, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_out(trashed, path)


def _copy_out(trashed: Path, path: Path) -> None:
    """Copy a file from another disk: by a name of its own, which no worker clears away, until it is whole."""
    descriptor, name = tempfile.mkstemp(prefix=_COPY_PREFIX, dir=path.parent)
    copy = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file, trashed.open("rb") as source:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(trashed, copy)
        _take_place(copy, path)
    except OSError:
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)
        raise
    # It is back: what stays in the trash as well is no loss.
    with contextlib.suppress(OSError):
        sync_folder(path.parent)
        trashed.unlink()


def _take_place(file: Path, path: Path) -> None:
    """Move a file on its disk to where none is: a rename alone would replace what a worker has begun to save there."""
    try:
        path.hardlink_to(file)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.EXDEV}:
            raise
        # The disk has no links: an empty file holds the place for the moment that a rename takes.
        path.touch(exist_ok=False)
        try:
            file.replace(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    else:
        with contextlib.suppress(OSError):
            file.unlink()


def clear_left_over(folder: Path) -> None:
    """Remove the copies in which ``take_out`` was killed, once nobody can be at work on them."""
    for copy in folder.glob(f"{_COPY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - copy.stat().st_mtime > _LEFT_AFTER_S:
                copy.unlink()


def free_place(path: Path) -> Path:
    """Return the path, with a number where another file has its place."""
    candidates = chain([path], (path.with_stem(f"{path.stem}_{number}") for number in count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())


def size_of(path: Path) -> int | None:
    """Return the size in bytes of a file in the trash, or in its place; None if it is not there."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def has_trash(folder: Path) -> bool:
    """Tell whether there is a trash for a folder's files: on some disks there is none. An empty file tries it out."""
    descriptor, name = tempfile.mkstemp(prefix=".thaw-trash-", dir=folder)
    os.close(descriptor)
    try:
        trashed = move_to_trash(Path(name))
    except OSError:
        Path(name).unlink(missing_ok=True)
        return False
    with contextlib.suppress(OSError):
        trashed.unlink()
        _forget(trashed)
    return True


def _forget(trashed: Path) -> None:
    # What the freedesktop trash notes of a file, which would be shown there as a file that is missing.
    (trashed.parent.parent / "info" / f"{trashed.name}.trashinfo").unlink(missing_ok=True)
