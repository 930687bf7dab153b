"""What was deleted here from runs, kept beside the trash: it can be undone also after the window was closed.

All of it reads and writes files: never on the window's thread.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import platformdirs
import psutil

from app import trash
from trainer.messages.run_info import CheckpointInfo

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deleted (
    deletion TEXT NOT NULL, run_dir BLOB NOT NULL, path BLOB NOT NULL, trashed BLOB, info TEXT NOT NULL,
    pid INTEGER NOT NULL, begun_at REAL NOT NULL
)
"""
_OUT = b""
"""In place of where a checkpoint lies in the trash: nowhere, it is in its place."""
_PATIENCE_S = 10.0


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
    id: str = field(default="", compare=False)
    """Under which it is kept; "" where it could not be."""


class LeftBehind(NamedTuple):
    """A checkpoint that was to be deleted, or was put back, and has its file in its place."""

    deletion_id: str
    info: CheckpointInfo


class DeletionRecordError(OSError):
    """What was deleted cannot be kept or read, with the sentence for the user."""


def begin_deletion(run_dir: Path, infos: Iterable[CheckpointInfo]) -> str:
    """Keep what is about to be moved to the trash. Returns the deletion's id.

    Raises:
        DeletionRecordError: It cannot be kept.

    """
    deletion_id, folder = uuid.uuid4().hex, run_dir.resolve()
    this = psutil.Process()
    rows = [
        (deletion_id, os.fsencode(folder), os.fsencode(_path_in(folder, info)), info.model_dump_json(), this.pid,
         this.create_time())
        for info in infos
    ]  # fmt: skip
    with _database() as database:
        database.executemany("INSERT INTO deleted VALUES (?, ?, ?, NULL, ?, ?, ?)", rows)
    return deletion_id


def note_trashed(deletion_id: str, run_dir: Path, info: CheckpointInfo, trashed: Path | None) -> None:
    """Keep where in the trash a checkpoint lies, as soon as it is there; None: it is in its place, to be listed again.

    Raises:
        DeletionRecordError: It cannot be kept.

    """
    path = _path_in(run_dir.resolve(), info)
    with _database() as database:
        database.execute(
            "UPDATE deleted SET trashed = ? WHERE deletion = ? AND path = ?",
            (_OUT if trashed is None else os.fsencode(trashed), deletion_id, os.fsencode(path)),
        )


def note_place(deletion_id: str, run_dir: Path, info: CheckpointInfo, trashed: Path) -> None:
    """Keep under which name a checkpoint is about to come back: a newer one may have its own.

    Raises:
        DeletionRecordError: It cannot be kept.

    """
    path = _path_in(run_dir.resolve(), info)
    with _database() as database:
        database.execute(
            "UPDATE deleted SET path = ?, info = ? WHERE deletion = ? AND trashed = ?",
            (os.fsencode(path), info.model_dump_json(), deletion_id, os.fsencode(trashed)),
        )


def end_deletion(deletion_id: str) -> None:
    """Forget of a deletion what was not moved to the trash: it is over.

    Raises:
        DeletionRecordError: It cannot be forgotten.

    """
    with _database() as database:
        database.execute("DELETE FROM deleted WHERE deletion = ? AND trashed IS NULL", (deletion_id,))


def forget_deleted(run_dir: Path, names: Iterable[str]) -> None:
    """Forget that checkpoints were deleted which are out of the trash: they are listed again.

    What was deleted under the same names, and lies in the trash, is remembered.

    Raises:
        DeletionRecordError: It cannot be forgotten.

    """
    folder = run_dir.resolve()
    paths = [(os.fsencode(folder / "checkpoints" / name), _OUT) for name in names]
    with _database() as database:
        database.executemany("DELETE FROM deleted WHERE path = ? AND trashed = ?", paths)


def read_deletions(run_dir: Path) -> tuple[list[Deletion], list[LeftBehind]]:
    """Return the deletions from a run that can be undone, the latest last, and what has its file in its place.

    The latter is left where a window was killed in the middle of a deletion, or of undoing one. What the trash has no
    more is forgotten.

    Raises:
        DeletionRecordError: What was kept cannot be read.

    """
    found: dict[str, list[Trashed]] = {}
    left: list[LeftBehind] = []
    with _database() as database:
        rows = database.execute(
            "SELECT rowid, deletion, path, trashed, info, pid, begun_at FROM deleted WHERE run_dir = ? ORDER BY rowid",
            (os.fsencode(run_dir.resolve()),),
        ).fetchall()
        for row_id, deletion_id, raw_path, raw_trashed, text, pid, begun_at in rows:
            path, info = Path(os.fsdecode(raw_path)), CheckpointInfo.model_validate_json(text)
            if raw_trashed is None and _is_others(pid, begun_at):
                # Another window is about to move it.
                continue
            # Before the look at its place, which a newer one may have by now: a run makes an epoch again by its name.
            trashed = Path(os.fsdecode(raw_trashed)) if raw_trashed else None
            # With an empty file a run holds the name, for what it saves at this moment.
            has_other = bool(trash.size_of(path))
            if trashed is not None and _is_in_trash(info, trashed) and (not has_other or has_bytes(trashed, info)):
                found.setdefault(deletion_id, []).append(Trashed(info, path, trashed))
            elif has_other:
                left.append(LeftBehind(deletion_id, info))
            elif raw_trashed is not None or pid != os.getpid():
                database.execute("DELETE FROM deleted WHERE rowid = ?", (row_id,))
    return [_deletion(deletion_id, trashed) for deletion_id, trashed in found.items()], left


def _deletion(deletion_id: str, trashed: list[Trashed]) -> Deletion:
    infos = [each.info for each in trashed]
    return Deletion([info.name for info in infos], sum(info.size_bytes for info in infos), trashed, id=deletion_id)


def _is_others(pid: int, begun_at: float) -> bool:
    """Tell whether another process that lives has begun a deletion."""
    if pid == os.getpid():
        return False
    try:
        return psutil.Process(pid).create_time() == begun_at
    except psutil.Error:
        return False


def _is_in_trash(info: CheckpointInfo, trashed: Path) -> bool:
    # A trash gives a name again that has become free: another file may have it by now.
    return trash.size_of(trashed) == info.size_bytes


def has_bytes(trashed: Path, info: CheckpointInfo) -> bool:
    """Tell whether a file of the trash is the checkpoint: checkpoints of other runs have its name and size, too."""
    with trashed.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == info.sha256


def _path_in(folder: Path, info: CheckpointInfo) -> Path:
    return folder / "checkpoints" / info.name


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """Open the record for one transaction."""
    path = platformdirs.user_data_path("thaw") / "deleted.db"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_PATIENCE_S)) as database, database:
            database.execute(_SCHEMA)
            yield database
    except (OSError, sqlite3.Error) as error:
        raise DeletionRecordError(
            f"Cannot keep in {path} what is deleted: {getattr(error, 'strerror', None) or error}. What lies in the "
            "system's trash can be put back from there, or from here until this window is closed."
        ) from error
