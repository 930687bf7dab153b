"""What the path of a data set leads to: a folder, an archive or a table. Told at once, without torch or an image."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from trainer.config import ConfigError, DataConfig, RunConfig, config_from_toml, read_toml
from trainer.config_error import Faults
from trainer.path_text import displayed

Kind = Literal["folder", "archive", "table"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
PACKED_SUFFIXES = (*ARCHIVE_SUFFIXES, ".7z", ".rar")
"""By which an archive is known that is not unpacked here: one inside of a folder or of another archive."""

SPREADSHEET_SUFFIXES = frozenset({".xlsx", ".xlsm", ".xls", ".ods", ".numbers"})
"""Most are zips inside, and their parts would be taken for classes."""

TABLE_SUFFIXES = (".csv", ".tsv")

IGNORED_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)
"""What reading an archive raises on damaged bytes, or for a compression that Python does not know."""


def look_at(data: DataConfig) -> tuple[Path, Kind]:
    """Tell what a data set's path leads to. Opens no FIFO, and reads no more of a file than its first and last bytes.

    Returns:
        The absolute path, and what is there.

    Raises:
        ConfigError: Nothing that could be a data set; says what to do.

    """
    if not data.path:
        raise ConfigError("No data is chosen. Choose a folder, an archive or a table of images.", "data.path")
    # pathlib's own would follow links, so that sentences name another path, and raise for an unknown "~user".
    path = Path(os.path.abspath(os.path.expanduser(data.path)))  # noqa: PTH100, PTH111
    shown = displayed(path)
    if _is_folder(path, shown):
        try:
            problem = emptiness(path, shown)
        except OSError as error:
            raise ConfigError(unreadable_folder(shown, error), "data.path") from error
        if problem:
            raise ConfigError(problem, "data.path")
        return path, "folder"
    if path.suffix.lower() in SPREADSHEET_SUFFIXES:
        raise ConfigError(f"{shown} is a spreadsheet's own file. Save it as CSV UTF-8, and choose that.", "data.path")
    try:
        has_archive_bytes = is_archive(path)
    except OSError as error:
        raise ConfigError(f"Cannot read {shown}: {error.strerror}. Check its permissions.", "data.path") from error
    if has_archive_bytes or path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return path, "archive"
    if data.layout == "table" or path.suffix.lower() in TABLE_SUFFIXES:
        return path, "table"
    raise ConfigError(_neither(shown), "data.path")


def load_run(path: Path) -> RunConfig:
    """Read the configuration of a run that is to begin, and look at its data's path, all before torch is loaded.

    Raises:
        ConfigError: The file cannot be read, a field is bad, or the path leads to no data: with all that is wrong.

    """
    values, faults = read_toml(path), Faults()
    config: RunConfig | None = None
    with faults.noting():
        config = config_from_toml(values, path)
    with faults.noting():
        # By itself, as a bad field elsewhere says nothing against it.
        section = values.get("data", {})
        if isinstance(section, dict):
            section = {key: section[key] for key in ("path", "layout") if key in section}
        look_at(config_from_toml({"data": section}, path).data)
    faults.tell()
    assert config is not None
    return config


def _is_folder(path: Path, shown: str) -> bool:
    """Tell a folder from a regular file without opening either: opening a FIFO would hang."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ConfigError(f"There is no file or folder {shown}. Check the path.", "data.path") from None
    except OSError as error:
        raise ConfigError(
            f"Cannot look at {shown}: {error.strerror}. Check the path and its permissions.", "data.path"
        ) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise ConfigError(_neither(shown), "data.path")
    return stat.S_ISDIR(mode)


def _neither(shown: str) -> str:
    return (
        f"{shown} is neither a folder nor a zip, a tar or a table (.csv, .tsv). Choose a folder of class subfolders, "
        "an archive of one, or a table of images."
    )


def unreadable_folder(shown: str, error: OSError) -> str:
    """Return the sentence for a folder that cannot be opened."""
    return f"Cannot read the folder {shown}: {error.strerror}. Check its permissions."


def emptiness(folder: Path, shown: str) -> str:
    """Return the sentence for a folder that holds nothing that is looked at, "" for one that does.

    Raises:
        OSError: It cannot be read.

    """
    hidden = ""
    with os.scandir(folder) as found:
        for entry in found:
            if not is_ignored(entry.name):
                return ""
            hidden = hidden or displayed(entry.name)
    if hidden:
        return only_hidden(shown, hidden)
    return f"{shown} is empty. Put one subfolder of images in it for each class."


def only_hidden(shown: str, name: str) -> str:
    """Return the sentence for what holds only files that nobody meant as images; ``name`` is that of one of them."""
    return (
        f"{shown} holds only hidden files, like {name}, which are passed over. Put one subfolder of images in it for "
        "each class."
    )


def is_ignored(name: str) -> bool:
    """Tell a hidden name, or one of an operating system: passed over wherever it is."""
    return name.startswith(".") or name in IGNORED_NAMES


def is_archive(path: Path) -> bool:
    """Tell a zip or a tar (plain, gzip, bzip2, xz) by its bytes, whatever its name.

    Raises:
        OSError: The file cannot be read.

    """
    return is_tar(path) or zipfile.is_zipfile(path)


def is_tar(path: Path) -> bool:
    """Look at the first header alone: tarfile's own test would read as much as that header asks for.

    Raises:
        OSError: The file cannot be read.

    """
    with path.open("rb") as raw:
        try:
            block = decompressed(raw).read(tarfile.BLOCKSIZE)
            tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
        except (*DAMAGE, OSError) as error:
            # gzip's and bzip2's own errors about the bytes have no number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            return path.name.lower().endswith(ARCHIVE_SUFFIXES[1:])
    return True


def decompressed(raw: io.BufferedReader) -> io.BufferedIOBase:
    """Return a stream of what a file holds, unpacked as its first bytes say, from its start."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(raw)
    return raw
