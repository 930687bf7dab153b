"""The system's trash: put a file into it, and take it out again. It moves files: never on the window's thread."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from itertools import chain, count
from pathlib import Path

from PySide6.QtCore import QFile


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
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # On another disk. The copy has no name that a worker clears away; left by a kill, the next try writes over it.
    copy = path.with_name(f".{path.name}.back")
    try:
        shutil.copy2(trashed, copy)
        with copy.open("rb+") as file:
            os.fsync(file.fileno())
        _take_place(copy, path)
    except OSError:
        copy.unlink(missing_ok=True)
        raise
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
        file.unlink()


def free_place(path: Path) -> Path:
    """Return the path, with a number where another file has its place."""
    candidates = chain([path], (path.with_stem(f"{path.stem}_{number}") for number in count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())


def size_of(trashed: Path) -> int | None:
    """Return the size in bytes of a file that was moved to the trash; None if it is not there any more."""
    try:
        return trashed.stat().st_size
    except FileNotFoundError:
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
