"""Unpacking a zip or tar that comes from anywhere: once, completely or not at all, and within limits."""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
import tarfile
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from trainer.data.images import DataError, displayed
from trainer.data_path import DAMAGE, decompressed, is_ignored, is_tar, only_hidden

MAX_BYTES = 64 * 1024**3
MAX_FILES = 2_000_000
MAX_RATIO = 100
RATIO_FLOOR_BYTES = 16 * 1024**2
"""Below this unpacked size the ratio is not looked at: a few flat drawings compress well and harm nobody."""

MAX_DEPTH = 32

_CHUNK_BYTES = 1024 * 1024
_LEFTOVER_AGE_S = 24 * 3600.0
_TEMPORARY_PREFIX = ".unpacking-"
_ADVICE = "If you trust it, unpack it yourself and choose the folder."

Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, unit), as in the event PreparationProgressed."""


def unpack(path: Path, cache_dir: Path, on_progress: Progress, check_cancelled: Callable[[], None]) -> Path:
    """Unpack a zip or tar into ``cache_dir/<its SHA-256>`` unless that is there already. Returns the folder.

    What an archive says of its sizes may be a lie, and a compressed tar says nothing: bytes are counted as they are
    read. Hidden entries and ``__MACOSX`` are left out; archives inside the archive stay packed.

    Args:
        path: The archive.
        cache_dir: Where its folder goes.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called several times a second; raises to end the work, which leaves nothing behind.

    Raises:
        DataError: The archive is damaged, over the limits, or holds what no data set needs (links, "..", passwords).

    """
    shown = displayed(path)
    kind = "zip"
    try:
        if is_tar(path):
            kind = "tar"
        target = cache_dir / _sha256(path, on_progress, check_cancelled)
        if target.is_dir():
            return target
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(cache_dir)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=cache_dir))
        try:
            intake = _Intake(path, temporary, on_progress, check_cancelled)
            (_unpack_tar if kind == "tar" else _unpack_zip)(path, intake)
            intake.check_anything_came()
            _settle(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except DataError:
        raise
    except (*DAMAGE, ValueError) as error:  # a plain ValueError: tarfile's, about numbers in its extended headers
        raise DataError(_damaged(shown, kind, error)) from error
    except OSError as error:
        if error.errno is None:  # gzip's and bzip2's own errors about the bytes
            raise DataError(_damaged(shown, kind, error)) from error
        raise DataError(
            f"Cannot unpack {shown} into {displayed(cache_dir)}: {error.strerror}. Check the disk's space and "
            "permissions."
        ) from error
    return target


def _damaged(shown: str, kind: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).strip(" .") or type(error).__name__
    return f"{shown} is not a readable {kind}: it is damaged or incomplete ({reason}). Copy or download it again."


def _sha256(path: Path, on_progress: Progress, check_cancelled: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    total = path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            check_cancelled()
            digest.update(chunk)
            on_progress(f"Reading {displayed(path.name)}", file.tell(), total, "bytes")
    return digest.hexdigest()


def _remove_leftovers(cache_dir: Path) -> None:
    """Remove what a killed process left half unpacked, a day later, so that no live one loses its folder."""
    for folder in cache_dir.glob(f"{_TEMPORARY_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > _LEFTOVER_AGE_S:
            shutil.rmtree(folder, ignore_errors=True)


def _settle(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        # Another process may have unpacked the same archive meanwhile: its folder is as good as ours.
        if not target.is_dir():
            raise


def _unpack_zip(path: Path, intake: _Intake) -> None:
    with zipfile.ZipFile(path) as archive:
        members = []
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            place = intake.place(info.filename, info.is_dir(), kind in {0, stat.S_IFREG, stat.S_IFDIR})
            if info.flag_bits & 0x1:
                raise DataError(f"{displayed(path)} is encrypted. Unpack it with its password and choose the folder.")
            if place is not None:
                members.append((info, place))
        total = sum(info.file_size for info, _ in members)
        intake.check_declared(total)
        for info, place in members:
            if info.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            with archive.open(info) as source:
                intake.write(_CountedStream(source, intake.count), place)
            intake.report(intake.num_bytes, total)


def _unpack_tar(path: Path, intake: _Intake) -> None:
    total = path.stat().st_size
    with path.open("rb") as raw:
        stream = _CountedStream(decompressed(raw), intake.count)
        # TarFile needs no more of a file than this stream can do.
        with tarfile.TarFile(fileobj=cast("IO[bytes]", stream)) as archive:
            while (info := archive.next()) is not None:
                # A sparse file may be terabytes of nothing.
                place = intake.place(info.name, info.isdir(), (info.isreg() and not info.issparse()) or info.isdir())
                if place is not None and info.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                elif place is not None and (source := archive.extractfile(info)) is not None:
                    with source:
                        intake.write(source, place)
                intake.report(raw.tell(), total)
                # TarFile would keep every entry for a second look: gigabytes, at the limit of entries.
                vars(archive)["members"].clear()
        # TarFile takes bytes that are no header for the end; the true end is a block of zeros.
        if stream.latest != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without an end mark")
        while stream.read(_CHUNK_BYTES):  # the checksum stands behind the last byte
            pass


class _CountedStream:
    """A stream that is read forward only, in small pieces, each of which is counted.

    Args:
        stream: What to read from.
        count: Called with the number of bytes of each piece; raises to end the reading.

    """

    def __init__(self, stream: io.BufferedIOBase | IO[bytes], count: Callable[[int], None]) -> None:
        self._stream = stream
        self._count = count
        self._position = 0
        self.latest = b""

    def read(self, num_bytes: int) -> bytes:
        """Read up to so many bytes: a header that asks for more than a chunk is a bomb for the memory."""
        if num_bytes > _CHUNK_BYTES:
            raise tarfile.ReadError(f"a header of {num_bytes:,} bytes")
        self.latest = self._stream.read(num_bytes)
        self._position += len(self.latest)
        self._count(len(self.latest))
        return self.latest

    def tell(self) -> int:
        """Return the number of bytes read."""
        return self._position

    def seek(self, position: int) -> int:
        """Read on to a position."""
        if position < self._position:
            raise tarfile.ReadError("a header that points backwards")
        while self._position < position and self.read(min(position - self._position, _CHUNK_BYTES)):
            pass
        return self._position


class _Intake:
    """Lets an archive's entries into one folder: plain files with names of their own, within the limits.

    Args:
        path: The archive.
        folder: An empty folder.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called often; raises to end the work.

    """

    def __init__(self, path: Path, folder: Path, on_progress: Progress, check_cancelled: Callable[[], None]) -> None:
        self.num_bytes = 0
        self._num_entries = 0
        self._hidden = ""
        self._has_placed = False
        self._archive_bytes = path.stat().st_size
        self._shown = displayed(path)
        self._what = f"Unpacking {displayed(path.name)}"
        self._folder = folder
        self._on_progress = on_progress
        self._check_cancelled = check_cancelled
        self._names: dict[str, str] = {}

    def place(self, entry: str, is_folder: bool, is_plain: bool) -> Path | None:
        """Return where an entry goes, or None for one that is left out (hidden, of an operating system).

        Raises:
            DataError: It must not be unpacked.

        """
        self._check_cancelled()
        self._num_entries += 1
        if self._num_entries > MAX_FILES:
            raise DataError(f"{self._shown} has more than {MAX_FILES:,} entries, over the limit. {_ADVICE}")
        if "\0" in entry:
            raise tarfile.ReadError("a name with a zero byte in it")
        # Archives from old Windows programs separate folders with backslashes.
        name = PurePosixPath(entry.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in (name.parts or ("",))[0]:
            raise DataError(f"{self._shown} has an entry that would leave its folder, {entry!r}. Pack it anew without.")
        hidden = next((part for part in name.parts if is_ignored(part)), "")
        if hidden or not name.parts:
            self._hidden = self._hidden or hidden
            return None
        if len(name.parts) > MAX_DEPTH:
            raise DataError(
                f"{self._shown} has folders more than {MAX_DEPTH} deep. Pack it anew, one folder for each class."
            )
        if not is_plain:
            raise DataError(f"{self._shown} has a link or device in it, {entry!r}. Pack it anew with plain files only.")
        self._claim(name, is_folder)
        self._has_placed = True
        return self._folder / name

    def write(self, source: _CountedStream | IO[bytes], place: Path) -> None:
        """Write one entry's bytes to its place."""
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                file.write(chunk)

    def count(self, num_bytes: int) -> None:
        """Note that so many unpacked bytes were read.

        Raises:
            DataError: They are more than an archive of images has.

        """
        self._check_cancelled()
        self.num_bytes += num_bytes
        self._check_size(self.num_bytes)

    def check_declared(self, num_bytes: int) -> None:
        """Refuse, before the work, an archive that says that it is too large.

        Raises:
            DataError: It is over the limits, or needs more than the disk has.

        """
        self._check_size(num_bytes)
        free = shutil.disk_usage(self._folder).free
        if num_bytes > free:
            raise DataError(
                f"{self._shown} needs {num_bytes / 1e9:.1f} GB to unpack, but {displayed(self._folder.parent)} has "
                f"{free / 1e9:.1f} GB free. Make room."
            )

    def check_anything_came(self) -> None:
        """Refuse an archive of nothing but entries that are left out.

        Raises:
            DataError: It is one.

        """
        if self._hidden and not self._has_placed:
            raise DataError(only_hidden(self._shown, displayed(self._hidden)))

    def report(self, done: int, total: int) -> None:
        """Pass on progress, in bytes."""
        self._on_progress(self._what, min(done, total), total, "bytes")

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > MAX_BYTES:
            raise DataError(
                f"{self._shown} would unpack to {num_bytes / 1e9:.1f} GB or more, over the limit of "
                f"{MAX_BYTES / 1e9:.0f}. {_ADVICE}"
            )
        if num_bytes > RATIO_FLOOR_BYTES and num_bytes > MAX_RATIO * self._archive_bytes:
            raise DataError(
                f"{self._shown} would unpack to {num_bytes // max(self._archive_bytes, 1)} times its size or more, as "
                f"no images do (limit {MAX_RATIO}). {_ADVICE}"
            )

    def _claim(self, name: PurePosixPath, is_folder: bool) -> None:
        """Refuse names that Windows and macOS, which compare them without case, would take for one."""
        folders = name.parts if is_folder else name.parts[:-1]
        spelled = ""
        for part in folders:
            spelled += f"{part}/"
            self._claim_one(spelled)
        if not is_folder:
            self._claim_one(spelled + name.parts[-1])

    def _claim_one(self, spelled: str) -> None:
        key = unicodedata.normalize("NFC", spelled).casefold().rstrip("/")
        if key not in self._names:
            self._names[key] = spelled
        elif self._names[key] != spelled:
            raise DataError(
                f"{self._shown} has two entries that Windows and macOS cannot tell apart, {self._names[key]!r} and "
                f"{spelled!r}. Rename one and pack it anew."
            )
        elif not spelled.endswith("/"):
            raise DataError(f"{self._shown} has two entries named {spelled!r}. Pack it anew.")
