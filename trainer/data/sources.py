"""Sources: which files of a data set are meant as images, of which class and split, however the set is laid out."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.config import DataConfig
from trainer.data.archive import Progress, unpack
from trainer.data.images import DataError, displayed
from trainer.data.layouts import Level, find_layout, label_of, one_class, split_of
from trainer.data.listing import Entry, LabelledFile, Shown, entries, files_below, natural, reason_against
from trainer.data.table import read_table
from trainer.data_path import look_at
from trainer.messages.data_info import TableColumns

IN_NO_CLASS = "it is in no class subfolder"
IN_NO_SPLIT = "it is in no split's subfolder"
NO_SPLIT = "it is a folder of no split"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A plain file that may be opened. Whether it is an image is not known yet.

    Attributes:
        path: Where it lies on this disk; inside the cache for an archive.
        shown: The name that the user knows; inside the archive.
        class_idxs: The positions of its classes among the source's class names, rising; a table may give it several,
            or none.
        split: "train", "validation" or "test"; "" where the source says nothing.
        group: Images of one group must not straddle splits; "" for none.

    """

    path: str
    shown: str
    class_idxs: tuple[int, ...]
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Source:
    """What a data set says of its files. The order is natural ("2" before "10") and the same on every file system.

    Attributes:
        layout: "class_folders", "split_folders", "splits_in_classes", "table" or "file_names".
        root: The folder that has the classes, the splits, the table or the files in it.
        class_names: The classes, also those without any file.
        files: The files of all classes and splits.
        skipped: (shown, reason) of what no run will open. It stays where it is, untouched.
        columns: A table's columns, None in another layout.

    """

    layout: str
    root: Path
    class_names: list[str]
    files: list[SourceFile]
    skipped: list[tuple[str, str]]
    columns: TableColumns | None = None


def read_source(
    data: DataConfig, cache_dir: Path, on_progress: Progress, check_cancelled: Callable[[], None]
) -> Source:
    """List the files of a folder, an archive or a table, with their classes and splits. Opens no image.

    Args:
        data: Its path, its layout ("auto" looks for the first that fits), and a table's columns.
        cache_dir: Where an archive is unpacked, once, into a folder named after its SHA-256.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called several times a second; raises to end the work.

    Raises:
        ConfigError: The path leads to nothing that could be a data set.
        DataError: There are no classes to be found; says what to do, and names the config field at fault.

    """
    path, kind = look_at(data)
    if kind == "table":
        return _Reader(data, Shown(path.parent, path.parent), on_progress, check_cancelled).of_table(path)
    root = path if kind == "folder" else unpack(path, cache_dir, on_progress, check_cancelled)
    return _Reader(data, Shown(root, path), on_progress, check_cancelled).of_folder()


@dataclass(frozen=True)
class _Reader:
    data: DataConfig
    shown: Shown
    on_progress: Progress
    check_cancelled: Callable[[], None]

    def of_folder(self) -> Source:
        found = find_layout(self.data, self.shown, self.check_cancelled)
        if found.layout == "table" and found.table is not None:
            return self.of_table(found.table, self.shown.root)
        return self._of_level(found.layout, found.level)

    def of_table(self, table: Path, confines: Path | None = None) -> Source:
        if self.data.layout not in {"auto", "table"}:
            raise DataError(
                f'{self.shown(table)} is a table: its layout cannot be "{self.data.layout}". Choose the layout "auto".',
                "data.layout",
            )
        read = read_table(table, self.shown, self.data, confines, self.on_progress, self.check_cancelled)
        found = {label for file in read.files for label in file.labels}
        if len(found) < 2:
            only, wanted = (
                (f'has only one class, "{found.pop()}"', "one more") if found else ("gives no image a class", "two")
            )
            raise DataError(
                f"{self.shown(table)} {only}. Add rows of at least {wanted}, or choose another column of classes.",
                "data.label_column",
                read.columns.names,
            )
        read.files.sort(key=lambda file: natural(file.shown))
        return replace(
            _numbered("table", table.parent, read.class_names, read.files, read.skipped), columns=read.columns
        )

    def _of_level(self, layout: str, level: Level) -> Source:
        listing = _Listing(level.folder.resolve(), self.shown, self.check_cancelled)
        if layout == "file_names":
            for entry in level.others:
                listing.add(entry, label_of(entry.path), 'its name is not like "cat_12.jpg"')
            return _numbered(layout, level.folder, listing.labels, listing.files, listing.skipped)
        class_folders, strays = self._class_folders(layout, level, listing)
        for done, (folder, name, split) in enumerate(class_folders, start=1):
            listing.add_class_folder(folder, name, split)
            self.on_progress("Listing files", done, len(class_folders), "folders")
        for stray, reason in strays:
            listing.add(stray, "", reason)
        if len(set(listing.labels)) == 1:
            raise DataError(one_class(self.shown(level.folder), displayed(listing.labels[0])))
        return _numbered(layout, level.folder, listing.labels, listing.files, listing.skipped)

    def _class_folders(
        self, layout: str, level: Level, listing: _Listing
    ) -> tuple[list[tuple[Path, str, str]], list[tuple[Entry, str]]]:
        """Return (folder, class, split) of each folder of a class's images, and what lies beside them, and why not."""
        strays = [(entry, IN_NO_CLASS) for entry in level.others]
        if layout == "class_folders":
            return [(folder, folder.name, "") for folder in level.folders], strays
        found = []
        for outer in level.folders:
            is_class = layout == "splits_in_classes"
            if is_class:
                listing.add_class(outer.name)
            elif outer not in level.splits:
                listing.skipped.append((self.shown(outer), NO_SPLIT))
                continue
            for entry in entries(outer, self.shown):
                inner = entry.path
                name, split = (outer.name, split_of(inner.name)) if is_class else (inner.name, level.splits[outer])
                if entry.kind != "folder":
                    strays.append((entry, IN_NO_SPLIT if is_class else IN_NO_CLASS))
                elif split:
                    found.append((inner, name, split))
                else:
                    listing.skipped.append((self.shown(inner), NO_SPLIT))
        return found, strays


class _Listing:
    """Collects the files of one data set, and what is skipped of it.

    Args:
        resolved_root: The folder that links must not leave.
        shown: Names files as the user knows them.
        check_cancelled: Called often; raises to end the work.

    """

    def __init__(self, resolved_root: Path, shown: Shown, check_cancelled: Callable[[], None]) -> None:
        self.labels: list[str] = []
        self.files: list[LabelledFile] = []
        self.skipped: list[tuple[str, str]] = []
        self._resolved_root = resolved_root
        self._shown = shown
        self._check_cancelled = check_cancelled

    def add_class(self, name: str) -> str:
        """Add a class, which need not have a file, by the name of its folder."""
        label = unicodedata.normalize("NFC", name)
        self.labels.append(label)
        return label

    def add_class_folder(self, folder: Path, name: str, split: str) -> None:
        """Add all that is below a folder to a class."""
        label = self.add_class(name)
        for path, reason in files_below(folder, self._resolved_root, self._check_cancelled):
            self._add(path, label, split, reason)

    def add(self, entry: Entry, label: str, without_label: str) -> None:
        """Add a file that has the class in its name, or skip one that has none, for the reason given."""
        self._add(entry.text, label, "", reason_against(entry, self._resolved_root) or ("" if label else without_label))

    def _add(self, path: str, label: str, split: str, reason: str) -> None:
        if reason:
            self.skipped.append((self._shown(path), reason))
        else:
            self.files.append(LabelledFile(path, self._shown(path), (label,), split))


def _numbered(
    layout: str, root: Path, labels: list[str], files: list[LabelledFile], skipped: list[tuple[str, str]]
) -> Source:
    """Give numbers to the classes: those of the files, and those that have none."""
    ordered = sorted({*labels, *(label for file in files for label in file.labels)}, key=natural)
    numbers = {label: idx for idx, label in enumerate(ordered)}

    def class_idxs(file: LabelledFile) -> tuple[int, ...]:
        return tuple(sorted(numbers[label] for label in file.labels))

    return Source(
        layout,
        root,
        [displayed(label) for label in ordered],
        [SourceFile(file.path, file.shown, class_idxs(file), file.split, file.group) for file in files],
        skipped,
    )
