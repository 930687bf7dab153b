"""Files that are not there before they are whole: made aside, flushed to the disk, then given their name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer.durable import sync_folder
from trainer.export.shared_model import ExportError


@contextmanager
def unfinished_beside(path: Path) -> Iterator[Path]:
    """Give a folder beside ``path``, on the same disk, in which it can be made; at the end nothing is left of it.

    Raises:
        ExportError: There is no room, or the place cannot be written to.

    """
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=".thaw-export-", dir=path.parent))
        yield folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(f"Cannot write {path}: {reason}. Make room, or choose another place.") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to write where there is no folder, or over what is there.

    Raises:
        ExportError: There is none, or something is.

    """
    folder = paths[0].parent
    if not folder.is_dir():
        raise ExportError(f"There is no folder {folder}. Make it first, or choose another place.")
    taken = [path for path in paths if path.exists() or path.is_symlink()]
    if taken and not overwrite:
        raise ExportError(f"{taken[0]} is there already. Choose another name, or have it overwritten (--overwrite).")
    folders = [path for path in taken if path.is_dir()]
    if folders:
        raise ExportError(f"{folders[0]} is a folder, which no file replaces. Choose another name.")


def flush(path: Path) -> None:
    """Bring a file, or all that is in a folder, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            flush(child)
        sync_folder(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def put_in_place(made: Sequence[Path], folder: Path) -> None:
    """Move what was made, and is on the disk already, into a folder; each under its own name, in place of an older one.

    The last one counts: whoever finds it finds the others.
    """
    for path in made:
        path.replace(folder / path.name)
    sync_folder(folder)
