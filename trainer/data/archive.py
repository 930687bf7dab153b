"""Unpacking a zip that comes from anywhere: once, completely or not at all, and within limits."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from trainer.data.images import DataError

MAX_BYTES = 64 * 1024**3
MAX_FILES = 2_000_000
MAX_RATIO = 100
RATIO_FLOOR_BYTES = 16 * 1024**2
"""Below this unpacked size the ratio is not looked at: a few flat drawings compress well and harm nobody."""

MAX_DEPTH = 32

_CHUNK_BYTES = 1024 * 1024
_LEFTOVER_AGE_S = 24 * 3600.0
_TEMPORARY_PREFIX = ".unpacking-"

# What reading a zip raises on damaged bytes, or for a compression that Python does not know.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, UnicodeDecodeError)

Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, unit), as in the event PreparationProgressed."""


def unpack(path: Path, cache_dir: Path, on_progress: Progress, check_cancelled: Callable[[], None]) -> Path:
    """Unpack a zip into ``cache_dir/<its SHA-256>`` unless that is there already. Returns the folder.

    Raises:
        DataError: The zip is damaged, over the limits, or holds what no data set needs (links, "..", passwords).

    """
    try:
        target = cache_dir / _sha256(path, on_progress, check_cancelled)
        if target.is_dir():
            return target
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(cache_dir)
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(path, archive)
            _check_limits(path, [info for info, _ in members], cache_dir)
            _unpack_at_once(path, archive, members, target, on_progress, check_cancelled)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is not a readable zip: it is damaged or incomplete ({error}). Copy or download it again."
        ) from error
    except OSError as error:
        raise DataError(
            f"Cannot unpack {path} into {cache_dir}: {error.strerror or error}. Check the disk's space and permissions."
        ) from error
    return target


def _sha256(path: Path, on_progress: Progress, check_cancelled: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    total = path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            check_cancelled()
            digest.update(chunk)
            on_progress(f"Reading {path.name}", file.tell(), total, "bytes")
    return digest.hexdigest()


def _remove_leftovers(cache_dir: Path) -> None:
    """Remove what a killed process left half unpacked, a day later, so that no live one loses its folder."""
    for folder in cache_dir.glob(f"{_TEMPORARY_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > _LEFTOVER_AGE_S:
            shutil.rmtree(folder, ignore_errors=True)


def _checked_members(path: Path, archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    members = []
    for info in archive.infolist():
        # Archives from old Windows programs separate folders with backslashes.
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in (name.parts or ("",))[0]:
            raise DataError(
                f"{path} has an entry that would leave its folder, {info.filename!r}. Pack it anew without."
            )
        if len(name.parts) > MAX_DEPTH:
            raise DataError(f"{path} has folders more than {MAX_DEPTH} deep. Pack it anew, one folder for each class.")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise DataError(
                f"{path} has a link or device in it, {info.filename!r}. Pack it anew with plain files only."
            )
        if info.flag_bits & 0x1:
            raise DataError(f"{path} is encrypted. Unpack it with its password and choose the folder.")
        if not any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
            members.append((info, name))
    return members


def _check_limits(path: Path, members: list[zipfile.ZipInfo], cache_dir: Path) -> None:
    num_bytes = sum(info.file_size for info in members)
    size = path.stat().st_size
    advice = "If you trust it, unpack it yourself and choose the folder."
    if len(members) > MAX_FILES:
        raise DataError(f"{path} has {len(members):,} entries, over the limit of {MAX_FILES:,}. {advice}")
    if num_bytes > MAX_BYTES:
        raise DataError(
            f"{path} would unpack to {num_bytes / 1e9:.1f} GB, over the limit of {MAX_BYTES / 1e9:.0f}. {advice}"
        )
    if num_bytes > RATIO_FLOOR_BYTES and num_bytes > MAX_RATIO * size:
        raise DataError(
            f"{path} would unpack to {num_bytes // max(size, 1)} times its size, as no images do (limit {MAX_RATIO}). "
            + advice
        )
    free = shutil.disk_usage(cache_dir).free
    if num_bytes > free:
        raise DataError(
            f"{path} needs {num_bytes / 1e9:.1f} GB to unpack, but {cache_dir} has {free / 1e9:.1f} GB free. Make room."
        )


def _unpack_at_once(
    path: Path,
    archive: zipfile.ZipFile,
    members: list[tuple[zipfile.ZipInfo, PurePosixPath]],
    target: Path,
    on_progress: Progress,
    check_cancelled: Callable[[], None],
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=target.parent))
    try:
        total, done = sum(info.file_size for info, _ in members), 0
        for info, name in members:
            check_cancelled()
            place = temporary / name
            if info.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            done += _write_member(path, archive, info, place, check_cancelled)
            on_progress(f"Unpacking {path.name}", done, total, "bytes")
        try:
            temporary.rename(target)
        except OSError:
            # Another process may have unpacked the same zip meanwhile: its folder is as good as ours.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path, check_cancelled: Callable[[], None]
) -> int:
    num_bytes = 0
    try:
        with archive.open(info) as source, place.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                check_cancelled()
                num_bytes += file.write(chunk)
    except FileExistsError as error:
        raise DataError(f"{path} has two entries named {info.filename!r}. Pack it anew.") from error
    return num_bytes
