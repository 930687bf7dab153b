"""Records kept in a file of the user's cache: what was computed once, and what later epochs and runs only read."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

if sys.platform != "win32":
    import fcntl

MAX_CHOSEN_BYTES = 20 * 10**9
MAX_CHOSEN_SHARE = 0.5
"""Of the free disk, where the user names no budget."""

MIN_FREE_BYTES = 10**9
"""Never taken from the disk, whatever the budget: a run must be able to save its checkpoints."""

CHECKSUM_BYTES = 4

_log = logging.getLogger(__name__)

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class RecordStore:
    """Records in one file, each in a place that is known in advance, behind a table of their checksums.

    Every process that uses the file opens it for itself; a copy that is sent to another process opens it there. Two
    processes that fill one place write the same bytes. A checksum is written after its record and compared when a
    process first reads what it has not written, so that a record half written, at a crash or by another process, counts
    as missing.

    The file is read and written, not mapped: the system keeps it in memory all the same, but a full disk or a network
    folder that is gone raises OSError, where a map would kill the process. The store then keeps no more. For one thread
    of each process.

    Attributes:
        path: The file.
        num_kept: Number of records that have a place: the first ones.
        num_bytes: What the file takes when all of them are in it.
        all_bytes: What it would take if there were a place for every record.

    """

    def __init__(self, path: Path, sizes: np.ndarray[Any, np.dtype[np.int64]], max_bytes: int) -> None:
        """Open or create the file.

        Args:
            path: The file. Its name tells what is in it.
            sizes: Bytes of each record, int64.
            max_bytes: The file stays below.

        """
        self._file: io.FileIO | None = None
        self.path = path
        self._sizes = sizes
        ends = CHECKSUM_BYTES * len(sizes) + np.cumsum(sizes)
        self._starts = ends - sizes
        self.num_kept = int(np.searchsorted(ends, max_bytes, side="right"))
        self.num_bytes = int(ends[self.num_kept - 1]) if self.num_kept else 0
        self.all_bytes = int(ends[-1]) if len(ends) else 0
        self._is_compared = bytearray(self.num_kept)
        if self.num_kept:
            try:
                _claim(self._opened(), self.num_bytes)
                os.utime(path)
            except OSError as error:
                self._give_up(error)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        # Nothing is buffered: a store that is merely forgotten loses nothing.
        self.close()

    def written(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return of which records something was written, bool (number of records,): one may still be broken."""
        table = np.zeros(len(self._sizes), dtype="<u4")
        try:
            if self.num_kept:
                file = self._opened()
                file.seek(0)
                file.readinto(table.data)
        except OSError as error:
            self._give_up(error)
        table[self.num_kept :] = 0
        return np.not_equal(table, 0)

    def read_into(self, number: int, record: Bytes) -> bool:
        """Read a record into an array of its size. Returns False where it is not kept, or not whole."""
        if number >= self.num_kept:
            return False
        try:
            return self._read_into(number, record)
        except OSError as error:
            self._give_up(error)
            return False

    def write(self, number: int, record: Bytes) -> None:
        """Keep a record, if it has a place and the disk has room."""
        if number >= self.num_kept:
            return
        assert record.nbytes == self._sizes[number]
        try:
            if shutil.disk_usage(self.path.parent).free < MIN_FREE_BYTES + record.nbytes:
                return
            file = self._opened()
            file.seek(int(self._starts[number]))
            if file.write(record.data) == record.nbytes:
                file.seek(CHECKSUM_BYTES * number)
                file.write(_checksum(record))
                self._is_compared[number] = True
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close this process's file. The next read or write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_into(self, number: int, record: Bytes) -> bool:
        file = self._opened()
        checksum = b""
        if not self._is_compared[number]:
            file.seek(CHECKSUM_BYTES * number)
            checksum = file.read(CHECKSUM_BYTES)
            if not any(checksum):
                return False
        file.seek(int(self._starts[number]))
        if file.readinto(record.data) != record.nbytes:
            return False
        if not self._is_compared[number]:
            self._is_compared[number] = checksum == _checksum(record)
        return bool(self._is_compared[number])

    def _opened(self) -> io.FileIO:
        if self._file is None:
            self._file = io.FileIO(
                self.path, "r+", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, mode=0o600)
            )
            _lock_against_removal(self._file)
        return self._file

    def _give_up(self, error: OSError) -> None:
        _log.warning("Nothing is kept any longer in %s: %s.", self.path, error)
        self.num_kept = self.num_bytes = 0
        self.close()


def make_room(
    folder: Path,
    what: str,
    suffix: str,
    budget_gb: float | None,
    own: Collection[Path],
    wanted_bytes: int,
    left: Collection[Path] = (),
) -> int:
    """Delete what a budget does not reach, least recently used first, unless a process has it open.

    Args:
        folder: Where the stores live, those of all runs; nothing else with this suffix may. It is made.
        what: What they hold, for a sentence.
        suffix: That of their files.
        budget_gb: Disk space for all of them; None takes up to half of the free disk, and at most 20 GB.
        own: Those that are not to go.
        wanted_bytes: What ``own`` would take.
        left: Those that this process has open, and fills no more.

    Returns:
        The bytes that ``own`` may take; 0 where the folder cannot be used, which a warning says.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        states = {path: path.stat() for path in folder.glob(f"*{suffix}")}
        budget_bytes = _budget(folder, budget_gb, sum(_taken_bytes(state) for state in states.values()))
    except OSError as error:
        _log.warning("%s are not kept: %s.", what, error)
        return 0
    others = {path: state for path, state in states.items() if path not in own}
    claimed = {
        path: _taken_bytes(state) if path in left else _claimed_bytes(path, state) for path, state in others.items()
    }
    others_bytes = sum(claimed.values())
    for path, _ in sorted(others.items(), key=lambda other: other[1].st_mtime_ns):
        if others_bytes + wanted_bytes <= budget_bytes:
            break
        if _is_removed(path):
            others_bytes -= claimed[path]
    return max(budget_bytes - others_bytes, 0)


def find_budget(folder: Path, suffix: str, budget_gb: float | None) -> int:
    """Return the bytes that all stores in a folder may take, used ones included; 0 where none can be kept."""
    try:
        return _budget(folder, budget_gb, sum(_taken_bytes(path.stat()) for path in folder.glob(f"*{suffix}")))
    except OSError:
        # Opening stores has said why.
        return 0


def _budget(folder: Path, budget_gb: float | None, taken_bytes: int) -> int:
    available_bytes = shutil.disk_usage(folder).free + taken_bytes
    if budget_gb is None:
        return min(MAX_CHOSEN_BYTES, int(available_bytes * MAX_CHOSEN_SHARE))
    return min(int(budget_gb * 1e9), max(available_bytes - MIN_FREE_BYTES, 0))


def _taken_bytes(state: os.stat_result) -> int:
    """Return what a file takes on the disk: where nothing was written yet, that is less than its size."""
    # Python has st_blocks only where the system has.
    return int(getattr(state, "st_blocks", -(-state.st_size // 512))) * 512


def _claim(file: io.FileIO, num_bytes: int) -> None:
    """Make a file as large as it will be, which takes nothing of the disk yet: others leave it that room."""
    # Windows would fill it with zeros, and so would a file system without holes; where that fails, nothing is claimed.
    if sys.platform != "win32" and file.seek(0, os.SEEK_END) < num_bytes:
        with contextlib.suppress(OSError):
            file.truncate(num_bytes)


def _claimed_bytes(path: Path, state: os.stat_result) -> int:
    """Return what a file takes, and where a process has it open, what it will take once it is full."""
    taken_bytes = _taken_bytes(state)
    if sys.platform != "win32" and state.st_size > taken_bytes:
        with contextlib.suppress(OSError), path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return state.st_size
    return taken_bytes


def _is_removed(path: Path) -> bool:
    """Delete a store, unless a process has it open or the system does not let us."""
    with contextlib.suppress(OSError):
        if sys.platform != "win32":
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        else:
            path.unlink()
        return True
    return False


def _lock_against_removal(file: io.FileIO) -> None:
    """Mark a store as open. Windows deletes no open file anyway; where nothing can be locked, nothing is removed."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            # Whoever looks whether it is open holds it for microseconds.
            fcntl.flock(file, fcntl.LOCK_SH)


def _checksum(record: Bytes) -> bytes:
    """Return the checksum of a record, which is never 0: that marks an empty place."""
    return (zlib.crc32(record.data) or 1).to_bytes(CHECKSUM_BYTES, "little")
