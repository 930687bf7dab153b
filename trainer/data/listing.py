"""Listing folders that come from anywhere: in natural order, without following links or opening what is no file."""

from __future__ import annotations

import os
import re
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.data.images import DataError, displayed
from trainer.data_path import PACKED_SUFFIXES, is_ignored, unreadable_folder

UNREAD_SUFFIXES = frozenset({".avif", ".dng", ".eps", ".heic", ".heif", ".ico", ".jxl", ".psd", ".svg", ".tga", ".xcf"})
"""Of images in formats that are not read here."""

IMAGE_SUFFIXES = UNREAD_SUFFIXES | {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
"""Only for telling an image's name from other text: whether a file is an image is told by its bytes."""

_DIGITS = re.compile(r"(\d+)")

PACKED = "it is an archive, and stays packed: unpack it first"

_REPARSE_TAG_JUNCTION = 0xA0000003


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file that may be opened, and what the source says of it: its classes' names, and its split and group or ""."""

    path: str
    shown: str
    labels: tuple[str, ...]
    split: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder. A link is a link whatever it leads to; "special" is a device, pipe or socket."""

    # As text: pathlib's own would take most of the time of listing 100,000 files, and of their memory.
    text: str
    kind: Literal["folder", "file", "link", "special"]

    @property
    def path(self) -> Path:
        """Return where it is."""
        return Path(self.text)


@dataclass(frozen=True)
class Shown:
    """Names files in sentences as the user knows them: inside the archive, not inside our cache.

    Args:
        root: Where the files lie.
        path: What the user calls it.

    """

    root: Path
    path: Path

    def __call__(self, file: str | Path) -> str:
        """Return a file's name."""
        root, text = str(self.root), str(file)
        if text == root or text.startswith(root + os.sep):
            return displayed(str(self.path) + text[len(root) :])
        return displayed(file)


def entries(folder: Path, shown: Shown) -> list[Entry]:
    """Return what is in a folder, in natural order, without hidden files and those of operating systems.

    Raises:
        DataError: The folder cannot be read.

    """
    try:
        return _scanned(folder)
    except OSError as error:
        raise DataError(unreadable_folder(shown(folder), error)) from error


def folder_names(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, in any order; none where it cannot be read: its listing says why."""
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found if _kind(entry) == "folder" and not is_ignored(entry.name)]
    except OSError:
        return []


def files_below(folder: Path, resolved_root: Path, check_cancelled: Callable[[], None]) -> Iterator[tuple[str, str]]:
    """Give every file below a folder in natural order, with the reason why it must not be opened, "" if there is none.

    Args:
        folder: The folder. Where it, or one below it, cannot be read, that is given with the reason.
        resolved_root: The folder that links must not leave, without links in its own path.
        check_cancelled: Called for each folder; raises to end the listing.

    """
    pending = [Entry(str(folder), "folder")]
    while pending:
        entry = pending.pop()
        if entry.kind != "folder":
            yield entry.text, reason_against(entry, resolved_root)
            continue
        check_cancelled()
        try:
            pending += _scanned(entry.path)[::-1]
        except OSError as error:
            yield entry.text, f"it is a folder that cannot be read ({error.strerror})"


def reason_against(entry: Entry, resolved_root: Path) -> str:
    """Say why something that is no folder must not be opened, "" if it may: a plain file, or a link to one inside."""
    if entry.kind == "special":
        return "it is a device, pipe or socket, not a file"
    if entry.kind != "link":
        return ""
    try:
        target = entry.path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):
        return "it is a link that leads nowhere"
    if not target.is_relative_to(resolved_root):
        return "it is a link that leaves the folder"
    return (
        ""
        if stat.S_ISREG(mode)
        else "it is a link to a folder, or to something else that is no file: links are not followed"
    )


def reason_against_format(path: Path) -> str:
    """Say of a file that is no image that can be read here what it is by its name, and what to do; "" if not known."""
    name = path.name.lower()
    if name.endswith(PACKED_SUFFIXES):
        return PACKED
    if path.suffix.lower() in UNREAD_SUFFIXES:
        return f"the format {path.suffix[1:].upper()} is not read here: convert it to JPEG or PNG"
    return ""


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts "2" before "10", without regard to case and to how accents are encoded."""
    key = []
    for part in _DIGITS.split(unicodedata.normalize("NFC", name).casefold()):
        if part.isdecimal():
            # By length, then digit by digit: int() refuses thousands of digits.
            digits = part.lstrip("0")
            key.append((0, len(digits), digits))
        elif part:
            key.append((1, 0, part))
    return key, name


def counted(number: int, noun: str) -> str:
    """Return "no files", "1 file", "2 files"."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _scanned(folder: Path) -> list[Entry]:
    with os.scandir(folder) as found:
        visible = sorted(
            (entry for entry in found if not is_ignored(entry.name)), key=lambda entry: natural(entry.name)
        )
        return [Entry(entry.path, _kind(entry)) for entry in visible]


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "link", "special"]:
    if entry.is_symlink() or _is_junction(entry):
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "special"


def _is_junction(entry: os.DirEntry[str]) -> bool:
    # Windows calls a junction a folder, and one may lead to its own parent.
    if sys.platform != "win32":
        return False
    return entry.stat(follow_symlinks=False).st_reparse_tag == _REPARSE_TAG_JUNCTION
