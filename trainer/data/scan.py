"""Scanning a data set before a run: which classes, which images, and which files no run will read, and why."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainer.data.archive import Progress, unpack
from trainer.data.images import DataError, displayed, quiet_pillow, try_load

__all__ = ["DataError", "Progress", "ScannedData", "scan"]

IGNORED_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
TRAIN_NAMES = frozenset({"train", "training"})
VALIDATION_NAMES = frozenset({"val", "valid", "validation", "test", "testing"})
MIN_IMAGES_PER_CLASS = 2
IMAGES_PER_SLICE = 64
"""Images decoded between two looks at the cancel flag: well under a second even for photographs."""


@dataclass(frozen=True)
class ScannedData:
    """What a scan found. The order of classes and samples is natural ("2" before "10") on every file system.

    Attributes:
        root: The folder whose subfolders are the classes.
        class_names: Names of the subfolders.
        samples: (absolute path, class index) of every readable image.
        skipped: (path, reason) of every file that is not used. They stay where they are, untouched.

    """

    root: Path
    class_names: list[str]
    samples: list[tuple[str, int]]
    skipped: list[tuple[str, str]]


def scan(path: Path, cache_dir: Path, on_progress: Progress, check_cancelled: Callable[[], None]) -> ScannedData:
    """Read every image of a folder of class subfolders, or of a zip of one.

    Args:
        path: The folder or the zip. A wrapping folder with a single subfolder is looked through.
        cache_dir: Where a zip is unpacked, once, into a folder named after its SHA-256.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called several times a second; raises to end the scan.

    Raises:
        DataError: There is nothing that can be trained on; says what to do.

    """
    # pathlib's own would follow links, so that sentences name another path, and raise for an unknown "~user".
    path = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111
    shown = _Shown(path, path)
    if _is_folder(path):
        root = path
    else:
        root = _unpacked(path, cache_dir, on_progress, check_cancelled)
        shown = _Shown(root, path)
    root = _look_through(root, shown)
    class_dirs, strays = _class_dirs(root, shown)
    candidates: list[tuple[Path, int]] = []
    skipped = [(shown(stray), "it is in no class subfolder") for stray in strays]
    for class_idx, class_dir in enumerate(class_dirs):
        for file, reason in _walk(class_dir, root.resolve(), shown):
            if reason:
                skipped.append((shown(file), reason))
            else:
                candidates.append((file, class_idx))
        check_cancelled()
    samples: list[tuple[str, int]] = []
    for (file, class_idx), reason in zip(
        candidates, _reasons([file for file, _ in candidates], on_progress, check_cancelled), strict=True
    ):
        if reason:
            skipped.append((shown(file), reason))
        else:
            samples.append((str(file), class_idx))
    class_names = [displayed(class_dir.name) for class_dir in class_dirs]
    _check_counts([shown(class_dir) for class_dir in class_dirs], samples, skipped)
    return ScannedData(root, class_names, samples, skipped)


@dataclass(frozen=True)
class _Shown:
    """Names files in sentences as the user knows them: inside the zip, not inside our cache."""

    root: Path
    path: Path

    def __call__(self, file: Path) -> str:
        return displayed(self.path / file.relative_to(self.root))


def _is_folder(path: Path) -> bool:
    """Tell a folder from a regular file without opening either: opening a FIFO would hang."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise DataError(f"There is no file or folder {path}. Check the path.") from None
    except OSError as error:
        raise DataError(f"Cannot look at {path}: {error.strerror}. Check the path and its permissions.") from error
    if stat.S_ISDIR(mode):
        return True
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is neither a folder nor a zip. Choose a folder of class subfolders, or a zip of one.")
    return False


def _unpacked(path: Path, cache_dir: Path, on_progress: Progress, check_cancelled: Callable[[], None]) -> Path:
    try:
        is_zip = zipfile.is_zipfile(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Check its permissions.") from error
    if is_zip:
        return unpack(path, cache_dir, on_progress, check_cancelled)
    if path.suffix.lower() == ".zip":
        raise DataError(f"{path} is not a readable zip: it is damaged or incomplete. Copy or download it again.")
    raise DataError(f"{path} is neither a folder nor a zip. Choose a folder of class subfolders, or a zip of one.")


def _look_through(root: Path, shown: _Shown) -> Path:
    while True:
        entries = _entries(root, shown)
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        if len(folders) != 1:
            return root
        inner = Path(folders[0].path)
        if not any(entry.is_dir(follow_symlinks=False) for entry in _entries(inner, shown)):
            return root
        root = inner


def _class_dirs(root: Path, shown: _Shown) -> tuple[list[Path], list[Path]]:
    """Return the class folders, in natural order, and what else lies beside them."""
    entries = _entries(root, shown)
    folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    if not entries:
        raise DataError(f"{shown(root)} is empty. Put one subfolder of images in it for each class.")
    if not folders:
        raise DataError(
            f"{shown(root)} has {_count(len(entries), 'file')} directly in it, but no class subfolders. "
            "Sort the images into one subfolder for each class."
        )
    names = {folder.name.lower(): folder for folder in folders}
    if TRAIN_NAMES & names.keys() and VALIDATION_NAMES & names.keys() and len(names) <= 3:
        train = names[sorted(TRAIN_NAMES & names.keys())[0]]
        if any(entry.is_dir(follow_symlinks=False) for entry in _entries(train, shown)):
            parts = " and ".join(displayed(folder.name) for folder in folders)
            raise DataError(
                f"{shown(root)} is split into {parts}, which would be taken for classes. "
                f"Choose {shown(train)} instead: validation images are set aside from it."
            )
    if len(folders) == 1:
        raise DataError(
            f'{shown(root)} has only one class, "{displayed(folders[0].name)}". '
            "Add a subfolder of images for at least one more."
        )
    return folders, [Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False)]


def _walk(folder: Path, resolved_root: Path, shown: _Shown) -> Iterator[tuple[Path, str]]:
    """Give every file below a class folder in natural order, with the reason why it must not be opened, if any."""
    pending = _entries(folder, shown)[::-1]
    while pending:
        entry = pending.pop()
        path = Path(entry.path)
        if entry.is_symlink():
            yield path, _reason_against_link(path, resolved_root)
        elif entry.is_dir(follow_symlinks=False):
            pending += _entries(path, shown)[::-1]
        elif not entry.is_file(follow_symlinks=False):
            yield path, "it is a device, pipe or socket, not a file"
        else:
            yield path, ""


def _reason_against_link(path: Path, resolved_root: Path) -> str:
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):
        return "it is a link that leads nowhere"
    if not target.is_relative_to(resolved_root):
        return "it is a link that leaves the folder"
    return "" if stat.S_ISREG(mode) else "it is a link to something that is no file"


def _reasons(paths: list[Path], on_progress: Progress, check_cancelled: Callable[[], None]) -> Iterator[str]:
    """Decode all images (Pillow lets go of the GIL) and give for each the reason against it, "" if there is none."""
    on_progress("Checking images", 0, len(paths), "images")
    with quiet_pillow(), ThreadPoolExecutor(min(8, (os.cpu_count() or 2) + 1), "image-check") as pool:
        for start in range(0, len(paths), IMAGES_PER_SLICE):
            check_cancelled()
            some = paths[start : start + IMAGES_PER_SLICE]
            yield from pool.map(_reason_against, some)
            on_progress("Checking images", start + len(some), len(paths), "images")


def _reason_against(path: Path) -> str:
    with contextlib.suppress(OSError):  # try_load finds better words for a file that cannot be looked at
        if path.stat().st_size == 0:
            return "it is empty (0 bytes)"
    return try_load(path)[1]


def _check_counts(folders: list[str], samples: list[tuple[str, int]], skipped: list[tuple[str, str]]) -> None:
    counts = Counter(class_idx for _, class_idx in samples)
    for class_idx, folder in enumerate(folders):
        if counts[class_idx] < MIN_IMAGES_PER_CLASS:
            num_skipped = sum(path.startswith(folder + os.sep) for path, _ in skipped)
            why = f" ({_count(num_skipped, 'file')} skipped: {_first_reason(skipped, folder)})" if num_skipped else ""
            raise DataError(
                f"{folder} has {_count(counts[class_idx], 'readable image')}{why}, but a class needs at least one to "
                "train on and one to validate. Add images to it, or take the folder out."
            )


def _first_reason(skipped: list[tuple[str, str]], folder: str) -> str:
    path, reason = next(entry for entry in skipped if entry[0].startswith(folder + os.sep))
    return f"{Path(path).name}, {reason}"


def _entries(folder: Path, shown: _Shown) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in IGNORED_NAMES]
    except OSError as error:
        raise DataError(f"Cannot read the folder {shown(folder)}: {error.strerror}. Check its permissions.") from error
    return sorted(visible, key=lambda entry: _natural(entry.name))


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"(\d+)", unicodedata.normalize("NFC", name).casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
