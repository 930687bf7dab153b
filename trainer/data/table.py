"""A table of images: a CSV or TSV with a column of paths, its classes, and perhaps a column of splits and of groups."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trainer.config import DataConfig
from trainer.config_error import Faults
from trainer.data.archive import Progress
from trainer.data.images import DataError, displayed
from trainer.data.listing import IMAGE_SUFFIXES, LabelledFile, Shown, counted
from trainer.data.table_labels import LabelColumns, Labels, find_separator, is_yes_or_no, labels_of, tidied
from trainer.messages.data_info import TableColumns

PATH_NAMES: tuple[str, ...] = (
    *("path", "file", "filename", "file_name", "filepath", "file_path"),
    *("image", "image_path", "image_name", "img", "img_path", "image_id", "image_index"),
)
LABEL_NAMES = (
    *("label", "class", "category", "target", "y", "class_name"),
    *("labels", "classes", "categories", "tags", "finding_labels"),
)
SPLIT_NAMES = ("split", "set", "subset")

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""The words for splits, in small letters, and ours for them."""

_ROWS_PER_LOOK = 1000
_LONGEST_HEADER = 65_536
_LONGEST_SHOWN = 60
_MOST_SHOWN = 12
_MOST_OFFERED = 200
_RARELY_FILES = ("image_id", "image_index")


class ReadTable(NamedTuple):
    """What a table says: its files in the order of the rows, each once, and (shown, reason) of what is skipped.

    ``class_names`` are those that stand in the header, also without any image; none where they stand in cells.
    """

    files: list[LabelledFile]
    skipped: list[tuple[str, str]]
    columns: TableColumns
    class_names: list[str]


def read_table(
    table: Path,
    shown: Shown,
    data: DataConfig,
    confines: Path | None,
    on_progress: Progress,
    check_cancelled: Callable[[], None],
) -> ReadTable:
    """Read which images a table names. A row that cannot be used is skipped, with the reason and its number.

    Rows are numbered as a spreadsheet does: the header is row 1. Labels compare in NFC, with runs of white space (a
    newline, too) as one space. An image's classes stand in one column, or in a column of 0 and 1 for each class, as
    one_hot encoding and scikit-learn's MultiLabelBinarizer write them.

    Args:
        table: The file; relative paths in it are taken beside it.
        shown: Names files as the user knows them.
        data: Which columns to read, where the user said so.
        confines: A folder that the images must not lie outside of, for a table that came with an archive or folder;
            None for one that the user chose.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called often; raises to end the reading.

    Raises:
        DataError: The table cannot be read, has no column of paths or of classes, a word in its column of splits that
            is none, classes that could be told in two ways, or no row that can be used.

    """
    columns, separator, rows, skipped = _rows(table, shown(table), data, check_cancelled)
    first: dict[str, tuple[int, LabelledFile]] = {}
    conflicts: dict[str, str] = {}
    for idx, (row, labels) in enumerate(rows):
        if idx % _ROWS_PER_LOOK == 0:
            check_cancelled()
            on_progress(f"Looking for the images of {displayed(table.name)}", idx, len(rows), "rows")
        path, reason = _located(row.cell, table.parent, confines)
        file = LabelledFile(str(path), shown(path), labels, row.split, row.group)
        if reason:
            skipped.append((file.shown, f"{reason} (row {row.number} of {displayed(table.name)})"))
            continue
        first_number, same = first.setdefault(os.path.normcase(path), (row.number, file))
        if difference := _difference(same, file):
            conflicts.setdefault(os.path.normcase(path), f"rows {first_number} and {row.number} give it {difference}")
    skipped += [(first[key][1].shown, reason) for key, reason in conflicts.items()]
    files = [file for key, (_, file) in first.items() if key not in conflicts]
    if not files:
        why = ", ".join(skipped[0]) if skipped else "they are empty"
        raise DataError(f"No row of {shown(table)} can be used: {tidied(why)}. Mend the table, or choose another.")
    return ReadTable(files, skipped, columns.said(separator), columns.label.class_names)


def check_columns(table: Path, shown: Shown, data: DataConfig) -> None:
    """Look whether a file is a table of images, by its first two rows.

    Raises:
        DataError: It is none, or cannot be read; names the columns that it has.

    """
    with _opened(table, shown(table)) as reader:
        _columns(reader, shown(table), data)


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    cell: str
    label_cells: tuple[str, ...]
    split: str
    group: str


@dataclass(frozen=True)
class _Columns:
    """Positions of the columns, -1 for one that there is not, and the first row below the header."""

    names: list[str]
    path: int
    label: LabelColumns
    split: int
    group: int
    first_row: list[str]

    def said(self, separator: str) -> TableColumns:
        places = {
            "path": [self.path],
            "label": self.label.positions,
            "split": [self.split],
            "group": [self.group],
        }
        taken = {
            f"{what}_column": ", ".join(tidied(self.names[idx]) for idx in idxs)
            for what, idxs in places.items()
            if idxs[0] >= 0
        }
        if separator:
            taken["label_separator"] = separator
        return TableColumns(names=_offered(self.names), taken=taken)


def _rows(
    table: Path, shown: str, data: DataConfig, check_cancelled: Callable[[], None]
) -> tuple[_Columns, str, list[tuple[_Row, Labels]], list[tuple[str, str]]]:
    read: list[_Row] = []
    reasons: dict[int, str] = {}
    with _opened(table, shown) as reader:
        columns = _columns(reader, shown, data)
        for number, cells in enumerate(itertools.chain([columns.first_row], reader), start=2):
            if number % _ROWS_PER_LOOK == 0:
                check_cancelled()
            if not any(cell.strip() for cell in cells):
                continue
            if reason := _reason_against(cells, columns):
                reasons[number] = reason
                continue
            read.append(
                _Row(
                    number,
                    cells[columns.path].strip(),
                    columns.label.cells(cells),
                    _split(cells[columns.split], number, shown) if columns.split >= 0 else "",
                    tidied(cells[columns.group]) if columns.group >= 0 else "",
                )
            )
    separator = find_separator(columns.label, [row.label_cells for row in read], data.label_separator, shown)
    rows: list[tuple[_Row, Labels]] = []
    for row in read:
        labels, reason = labels_of(columns.label, row.label_cells, separator, row.cell)
        if not reason:
            rows.append((row, labels))
        elif columns.label.are_guessed:
            raise columns.label.guess_failed(shown, row.number, reason, _offered(columns.names))
        else:
            reasons[row.number] = reason
    return columns, separator, rows, [(shown, f"row {number} {reasons[number]}") for number in sorted(reasons)]


@contextlib.contextmanager
def _opened(table: Path, shown: str) -> Iterator[Iterator[list[str]]]:
    """Open a table, whatever separates its columns; errors about its text become sentences, while it is open."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(file.readline(_LONGEST_HEADER))
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                yield reader
            except csv.Error as error:
                raise DataError(
                    f"{shown} is not a readable table: {error} (line {reader.line_num}). Mend the quotes there, or "
                    "before."
                ) from error
    except OSError as error:
        raise DataError(f"Cannot read {shown}: {error.strerror}. Check its permissions.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{shown} is not UTF-8 text. Save it as UTF-8 (in a spreadsheet: CSV UTF-8).") from error


def _delimiter(header: str) -> str:
    """Return what cuts the header into most columns: unlike the rows, it hardly ever has another one in its text.

    csv.Sniffer looks at the rows as well, and takes what stands within quoted labels.
    """
    return max(",;\t|", key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _columns(reader: Iterator[list[str]], shown: str, data: DataConfig) -> _Columns:
    header = [cell.strip() for cell in next(reader, [])]
    if not any(header):
        raise DataError(f'{shown} has no header. Name the columns in its first row: "path" and "label".')
    first_row = next(reader, None)
    if first_row is None:
        raise DataError(f"{shown} has no rows below its header. Add one row for each image.")
    table = _Header(shown, header)
    path_names = PATH_NAMES
    if not any(Path(cell.strip()).suffix.lower() in IMAGE_SUFFIXES for cell in first_row):
        # An image_id often is no file's name.
        path_names = tuple(name for name in PATH_NAMES if name not in _RARELY_FILES)
    path = split = group = -1
    label = LabelColumns([], [])
    faults = Faults()
    with faults.noting():
        path = table.position(data.path_column, path_names, "data.path_column", "image paths", "path")
    with faults.noting():
        split = table.position(data.split_column, SPLIT_NAMES, "data.split_column")
    with faults.noting():
        group = table.position(data.group_column, (), "data.group_column")
    with faults.noting():
        label = table.label_columns(data.label_column, first_row, (path, split, group))
    faults.tell()
    return _Columns(header, path, label, split, group, first_row)


@dataclass(frozen=True)
class _Header:
    shown: str
    names: list[str]

    def position(self, chosen: str, usual: tuple[str, ...], field: str, needed: str = "", name: str = "") -> int:
        """Return where the chosen column is, or else the first that has a usual name; -1 if there is none of these.

        Args:
            chosen: Its name, "" if none was chosen.
            usual: Names that are looked for then.
            field: Of the configuration, which chooses it.
            needed: What no table can do without; "" for a column that there need not be.
            name: What such a column is best called.

        Raises:
            DataError: There is no such column, or two of the name.

        """
        plain = [_plain(name) for name in self.names]
        wanted = [_plain(chosen)] if chosen else [name for name in usual if name in plain][:1]
        if not wanted:
            if needed:
                raise self._lacks(needed, name, field)
            return -1
        matches = [idx for idx, name in enumerate(plain) if name == wanted[0]]
        if len(matches) > 1:
            raise DataError(f'{self.shown} has two columns named "{self.names[matches[0]]}". Rename one.', field)
        if not matches:
            raise DataError(
                f'{self.shown} has no column "{chosen}". It has {self._listed()}: choose one of them.',
                field,
                _offered(self.names),
            )
        return matches[0]

    def label_columns(self, chosen: str, first_row: list[str], others: tuple[int, ...]) -> LabelColumns:
        """Return where the classes stand: as the user says, else in a column that has a usual name, else by 0 and 1.

        Raises:
            DataError: There are no such columns, or two of a name.

        """
        field = "data.label_column"
        if "," in chosen and _plain(chosen) not in map(_plain, self.names):
            return self._one_a_class([name.strip() for name in chosen.split(",") if name.strip()], are_guessed=False)
        position = self.position(chosen, LABEL_NAMES, field)
        if position >= 0:
            return LabelColumns([position], [])
        # A column without a name is the numbers of rows, as pandas writes them.
        ones = [
            name
            for idx, (name, cell) in enumerate(zip(self.names, first_row, strict=False))
            if name and idx not in others and is_yes_or_no(cell)
        ]
        if len(ones) < 2:
            raise self._lacks("classes", "label", field)
        return self._one_a_class(ones, are_guessed=True)

    def _one_a_class(self, names: list[str], *, are_guessed: bool) -> LabelColumns:
        positions = list(dict.fromkeys(self.position(name, (), "data.label_column") for name in names))
        return LabelColumns(positions, [tidied(self.names[idx]) for idx in positions], are_guessed)

    def _lacks(self, what: str, name: str, field: str) -> DataError:
        return DataError(
            f'{self.shown} has no column of {what}: its first row has {self._listed()}. Name one "{name}", or choose '
            "one of them.",
            field,
            _offered(self.names),
        )

    def _listed(self) -> str:
        shown = ", ".join(f'"{tidied(name)[:_LONGEST_SHOWN]}"' for name in self.names[:_MOST_SHOWN])
        return shown + (" and more" if len(self.names) > _MOST_SHOWN else "")


def _offered(names: list[str]) -> list[str]:
    """Return the names to choose from; each is found again, however it is spelt in the table."""
    return [offered for name in names if (offered := tidied(name))][:_MOST_OFFERED]


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", unicodedata.normalize("NFC", name).strip().casefold())


def _reason_against(cells: list[str], columns: _Columns) -> str:
    excess = len(cells) - len(columns.names)
    if excess:
        return f"has {counted(abs(excess), 'column')} too {'many' if excess > 0 else 'few'}"
    if not cells[columns.path].strip():
        return "names no image"
    return ""


def _split(cell: str, number: int, shown: str) -> str:
    word = tidied(cell)
    if word.lower() not in SPLIT_WORDS and word:
        raise DataError(
            f'{shown} has the split "{word[:_LONGEST_SHOWN]}" in row {number}, which is none of train, validation and '
            "test. Mend it, or rename the column if it is no split.",
            "data.split_column",
        )
    return SPLIT_WORDS.get(word.lower(), "")


def _located(cell: str, folder: Path, confines: Path | None) -> tuple[Path, str]:
    """Return where the image of a row lies, and the reason why it must not be opened, "" if it may."""
    # Tables come from other systems: with their separators, and with accents in another encoding than the disk's.
    spellings = dict.fromkeys(
        [
            cell,
            cell.replace("\\", "/"),
            unicodedata.normalize("NFC", cell),
            unicodedata.normalize("NFD", cell),
        ]
    )
    paths = [Path(os.path.normpath(folder / spelling)) for spelling in spellings]
    path = next((path for path in paths if os.path.lexists(path)), paths[0])
    if confines is not None and not path.is_relative_to(confines):
        return Path(cell), "it lies outside of the folder"
    try:
        mode = path.stat().st_mode
        if confines is not None and not path.resolve().is_relative_to(confines.resolve()):
            return path, "it is a link that leaves the folder"
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return path, "there is no such file"
    except OSError as error:
        return path, f"it cannot be looked at: {error.strerror}"
    if stat.S_ISDIR(mode):
        return path, "it is a folder"
    return path, "" if stat.S_ISREG(mode) else "it is a device, pipe or socket, not a file"


def _difference(first: LabelledFile, second: LabelledFile) -> str:
    if set(first.labels) != set(second.labels):
        return f'different classes, "{"; ".join(first.labels)}" and "{"; ".join(second.labels)}"'
    if first.split != second.split:
        return f'different splits, "{first.split}" and "{second.split}"'
    if first.group != second.group:
        return f'different groups, "{first.group}" and "{second.group}"'
    return ""
