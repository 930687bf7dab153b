"""run.db: the SQLite file of a run, opened, read and written from several threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.run_record import RunFolderError

SCHEMA_VERSION = 1

# Keys of the meta table: a table or a column of their own would be another format.
PARENT = "parent "
# Of an earlier Thaw.
_UNDOES = "undoes "

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE segments (id INTEGER PRIMARY KEY, start_step INTEGER NOT NULL, checkpoint TEXT, time REAL NOT NULL);
CREATE TABLE metrics (segment INTEGER NOT NULL, tag TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
                      PRIMARY KEY (tag, segment, step)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL,
                     requested_step INTEGER, applied_step INTEGER, body TEXT NOT NULL);
CREATE INDEX events_by_kind ON events (kind, id);
CREATE TABLE checkpoints (name TEXT PRIMARY KEY, step INTEGER NOT NULL, saved_at REAL NOT NULL, body TEXT NOT NULL);
"""


class RunDatabase:
    """An open run.db. Safe to use from several threads; close it when done."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path / "run.db"
        self._lock = threading.Lock()
        if not self._path.is_file():
            raise RunFolderError(f"{path} is not a run of Thaw: it has no run.db. Choose a folder under runs/.")
        try:
            self._db = sqlite3.connect(
                f"{_sqlite_uri(self._path)}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                timeout=10,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
            except sqlite3.Error:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise RunFolderError(f"Cannot read {self._path}: {error}. Restore the file from a copy.") from error
        if version != SCHEMA_VERSION:
            self._db.close()
            raise RunFolderError(
                f"{self._path} has format {version}, but this Thaw reads format {SCHEMA_VERSION}. "
                "Use the version that wrote it."
            )

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty run.db in a run's folder.

        Raises:
            sqlite3.Error: It cannot be written.

        """
        with closing(sqlite3.connect(path / "run.db")) as database, database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def read(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Return the rows of a query.

        Raises:
            RunFolderError: The file cannot be read.

        """
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise RunFolderError(f"Cannot read {self._path}: {error}. Restore the file from a copy.") from error

    def version(self) -> int:
        """Return a number that is another one once somebody else has written the file; what is written here counts not.

        Raises:
            RunFolderError: The file cannot be read.

        """
        number: int = self.read("PRAGMA data_version")[0][0]
        return number

    @contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Make what is written inside one transaction, ``durable`` when it is over or when the system pleases.

        Raises:
            RunFolderError: The file cannot be written; nothing of it is.

        """
        with self._lock:
            try:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise RunFolderError(
                    f"Cannot write {self._path}: {error}. Make room, or close what holds the file, and try again."
                ) from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def parents(self) -> dict[int, int]:
        """Return of the pieces of the curve from which other one each goes on, where that is kept."""
        # The rewind that it undoes had begun a piece after the one that was to be gone on with.
        undone = {number: undone - 1 for number, undone in self._numbers(_UNDOES).items()}
        return {**undone, **self._numbers(PARENT)}

    def _numbers(self, key: str) -> dict[int, int]:
        rows = self.read("SELECT key, value FROM meta WHERE key GLOB ?", (f"{key}*",))
        return {int(name.removeprefix(key)): int(value) for name, value in rows}

    def copy(self, path: Path) -> None:
        """Write a copy of run.db, as it is at this moment.

        Raises:
            RunFolderError: It cannot be read, or not be written there.

        """
        with self._lock:
            try:
                with closing(sqlite3.connect(path)) as copy:
                    self._db.backup(copy)
            except sqlite3.Error as error:
                raise RunFolderError(f"Cannot copy {self._path} to {path}: {error}. Make room.") from error


def _sqlite_uri(path: Path) -> str:
    """Write a path as SQLite reads it: a host's share as ``file:////host``, which ``as_uri`` writes otherwise."""
    posix = path.resolve().as_posix()
    return f"file://{quote(posix if posix.startswith('/') else f'/{posix}')}"
