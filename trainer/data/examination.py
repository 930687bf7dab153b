"""Examining every file of a data set, and remembering what was found: only what is new or changed is decoded again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import PIL

from trainer.data.archive import Progress
from trainer.data.decoding import File, decode
from trainer.data.file_facts import FileFacts

__all__ = ["FileFacts", "examine"]

KEPT_UNUSED_DAYS = 90
COMMIT_INTERVAL_S = 1.0
BUSY_TIMEOUT_S = 0.25
"""How long another process's writing is waited for: what could not be written is tried again with the next."""

_LABEL = "Checking images"
_FILES_PER_LOOK = 500
"""Looked for with one query: one for each took a tenth of a second for 10,000."""

# Other code, or another Pillow, may read what this one could not: what they found does not count here.
_VERSION = zlib.crc32(f"2 {PIL.__version__}".encode()) & 0x7FFF_FFFF

_TABLE = """
CREATE TABLE facts (
    path BLOB PRIMARY KEY, key_size_bytes INTEGER, key_mtime_ns INTEGER, used_day INTEGER,
    reason TEXT, width INTEGER, height INTEGER, size_bytes INTEGER, content_hash TEXT, picture_hash BLOB
) WITHOUT ROWID
"""
_FIND = f"SELECT * FROM facts WHERE path IN ({', '.join('?' * _FILES_PER_LOOK)})"
_KEEP = f"INSERT OR REPLACE INTO facts VALUES ({', '.join('?' * 10)})"

# What is not the file's own fault; it is left as it is.
_OUTSIDE_CAUSES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


def examine(
    paths: Sequence[str | Path], cache_path: Path, on_progress: Progress, check_cancelled: Callable[[], None]
) -> list[FileFacts]:
    """Read and decode every file, or recall what that gave: one FileFacts for each path, in their order.

    Args:
        paths: Plain files, or links to plain files that may be read.
        cache_path: SQLite file of what was found before. It is made where it is missing, made anew where it is
            damaged, and done without where it cannot be used.
        on_progress: Called with ("Checking images", done, total, "images").
        check_cancelled: Called several times a second; raises to end the work at once. What was found by then is kept.

    Raises:
        DataError: The processes that decode cannot be started.

    """
    facts: dict[int, FileFacts] = {}
    keys: list[_Key] = []

    def unknown() -> Iterator[File]:
        # What is not known yet is decoded while the next files are looked at.
        for start in range(0, len(paths), _FILES_PER_LOOK):
            check_cancelled()
            some = [_key(path) for path in paths[start : start + _FILES_PER_LOOK]]
            keys.extend(some)
            facts.update((start + offset, found) for offset, found in cache.find(some))
            on_progress(_LABEL, len(facts), len(paths), "images")
            for idx, key in enumerate(some, start):
                if idx not in facts:
                    yield File(idx, paths[idx], key.size_bytes)

    on_progress(_LABEL, 0, len(paths), "images")
    with contextlib.closing(_Cache(cache_path)) as cache, contextlib.closing(decode(unknown())) as decoded:
        for found in decoded:
            check_cancelled()
            for idx, file_facts in found:
                facts[idx] = file_facts
                cache.keep(keys[idx], file_facts)
            on_progress(_LABEL, len(facts), len(paths), "images")
    return [facts[idx] for idx in range(len(paths))]


class _Key(NamedTuple):
    """What a file is recognized by. Taken before it is read: one that changes meanwhile has another key afterwards."""

    path: bytes
    size_bytes: int
    mtime_ns: int


def _key(path: str | Path) -> _Key:
    name = os.fsencode(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links)
    try:
        status = os.stat(name)  # noqa: PTH116 (a Path takes twice as long)
    except OSError:
        # Reading it will say why; nothing is recalled under this key, as nothing is kept of what could not be read.
        return _Key(name, 0, -1)
    return _Key(name, status.st_size, status.st_mtime_ns)


class _Cache:
    """The facts of earlier examinations. Its troubles cost time and never the examination: they are printed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._today = int(time.time() // 86_400)
        self._pending: list[tuple[_Key, FileFacts]] = []
        self._used_again: list[bytes] = []
        self._was_replaced = False
        self._committed_at_s = time.monotonic()
        self._connection: sqlite3.Connection | None = None
        with self._surviving():
            self._connection = self._opened()

    def find(self, keys: list[_Key]) -> list[tuple[int, FileFacts]]:
        """Return the facts that are known of up to 500 files, each with the position of its key."""
        found: list[tuple[int, FileFacts]] = []
        if self._connection is None:
            return found
        with self._surviving():
            positions: dict[_Key, list[int]] = {}
            for position, key in enumerate(keys):
                positions.setdefault(key, []).append(position)
            names = [key.path for key in keys] + [b""] * (_FILES_PER_LOOK - len(keys))
            for row in self._connection.execute(_FIND, names):
                *key_columns, used_day, reason, width, height, size_bytes, content_hash, packed = row
                key = _Key(*key_columns)
                if key not in positions:
                    # The file is another one by now.
                    continue
                picture_hash = None if packed is None else int.from_bytes(packed, "big")
                facts = FileFacts(reason, width, height, size_bytes, content_hash, picture_hash)
                found += [(position, facts) for position in positions[key]]
                if used_day != self._today:
                    self._used_again.append(key.path)
        return found

    def keep(self, key: _Key, facts: FileFacts) -> None:
        """Remember what was found, on disk within a second or so."""
        if not facts.content_hash:
            # A permission, a disk or memory was at fault: it may be well again while the file's key stays the same.
            return
        self._pending.append((key, facts))
        if time.monotonic() - self._committed_at_s >= COMMIT_INTERVAL_S:
            self._commit()

    def close(self) -> None:
        """Write what is left, and forget what nobody asked for in a long time."""
        self._commit()
        if self._connection is None:
            return
        with self._surviving(), _transaction(self._connection):
            self._connection.executemany(
                "UPDATE facts SET used_day = ? WHERE path = ?", ((self._today, path) for path in self._used_again)
            )
            self._connection.execute("DELETE FROM facts WHERE used_day < ?", (self._today - KEPT_UNUSED_DAYS,))
        if self._pending:
            self._tell(f"it was busy, and {len(self._pending)} files will be checked again")
        self._disconnect()

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            if connection.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                with _transaction(connection):
                    connection.execute("DROP TABLE IF EXISTS facts")
                    connection.execute(_TABLE)
                    connection.execute("CREATE INDEX facts_by_used_day ON facts (used_day)")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _commit(self) -> None:
        self._committed_at_s = time.monotonic()
        if self._connection is None:
            self._pending.clear()
            return
        with self._surviving():
            with _transaction(self._connection):
                self._connection.executemany(_KEEP, (_row(key, facts, self._today) for key, facts in self._pending))
            self._pending.clear()

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Keep on after an error: wait where it is busy, begin anew where it is damaged, else do without."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code == sqlite3.SQLITE_BUSY and self._connection is not None:
                return
            self._disconnect()
            is_damaged = isinstance(error, sqlite3.Error) and code not in _OUTSIDE_CAUSES
            if not is_damaged or self._was_replaced:
                self._tell(str(error))
            else:
                self._was_replaced = True
                with self._surviving():
                    self._path.unlink()
                    self._connection = self._opened()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tell(self, why: str) -> None:
        print(f"Could not use {self._path}, which remembers checked images: {why}.", flush=True)  # noqa: T201 (worker.log)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing of what is written within."""
    with connection:
        # At once: a lock that is only taken later does not wait for that of another process.
        connection.execute("BEGIN IMMEDIATE")
        yield


def _row(key: _Key, facts: FileFacts, today: int) -> tuple[bytes | str | int | None, ...]:
    packed = None if facts.picture_hash is None else facts.picture_hash.to_bytes(8, "big")
    return (*key, today, facts.reason, facts.width, facts.height, facts.size_bytes, facts.content_hash, packed)
