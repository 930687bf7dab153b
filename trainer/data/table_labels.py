"""The classes of a table's images: one cell with one class or several, or a column of 0 and 1 for each class."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.data.images import DataError

FOUND_SEPARATORS = (";", "|")
"""Those that "auto" looks for. Commas and spaces stand within the names of classes as well: "tench, Tinca tinca"."""

Labels = tuple[str, ...]
"""The names of an image's classes, each once, in the table's order."""

_YES, _NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})


@dataclass(frozen=True)
class LabelColumns:
    """Where a row's classes stand.

    Attributes:
        positions: Of the one column of classes, or of the columns of 0 and 1.
        class_names: Of the columns of 0 and 1; none where there is one column of classes.
        are_guessed: Whether nothing but the 0 or 1 in the first row tells that these columns are of classes.

    """

    positions: list[int]
    class_names: list[str]
    are_guessed: bool = False

    def cells(self, row: Sequence[str]) -> tuple[str, ...]:
        """Return the cells that tell a row's classes."""
        return tuple(tidied(row[position]) for position in self.positions)

    def guess_failed(self, shown: str, number: int, reason: str, choices: list[str]) -> DataError:
        """Return the error of columns that only looked like classes in the first row."""
        # All of them: with some, the classes of the others would be gone without a word.
        looked_at = ", ".join(self.class_names)
        return DataError(
            f"{shown} has no column of classes by its name, so its columns of 0 and 1 were looked at; but row {number} "
            f'{reason}. Choose which of them are classes, with commas between them: "{looked_at}".',
            "data.label_column",
            choices,
        )


def is_yes_or_no(cell: str) -> bool:
    """Tell whether a cell may be one of a column of 0 and 1."""
    return tidied(cell).lower() in _YES | _NO


def find_separator(columns: LabelColumns, rows: Sequence[tuple[str, ...]], wanted: str, shown: str) -> str:
    """Return what stands between the classes in a cell, "" if each cell is one class, or there is a column for each.

    Args:
        columns: Where the classes stand.
        rows: Each row's cells there.
        wanted: The config field's value.
        shown: The table's name.

    Raises:
        DataError: There could be two separators, and the user has chosen none of them.

    """
    if columns.class_names:
        return ""
    if wanted != "auto":
        return {"none": "", "space": " "}.get(wanted, wanted)
    found = [
        (separator, cell)
        for separator in FOUND_SEPARATORS
        if (cell := next((cell for (cell,) in rows if separator in cell), ""))
    ]
    if len(found) > 1:
        (first, example), (second, other) = found
        raise DataError(
            f'Either "{first}" or "{second}" may separate the classes in {shown} ("{example}", "{other}"). Choose '
            "which of them does, or none.",
            "data.label_separator",
        )
    return found[0][0] if found else ""


def labels_of(columns: LabelColumns, cells: tuple[str, ...], separator: str, image: str) -> tuple[Labels, str]:
    """Return the classes of a row, in the table's order, and the reason why they cannot be told, "" if they can.

    Args:
        columns: Where they stand.
        cells: The row's cells there.
        separator: What stands between classes in one cell; "" takes it as one class.
        image: The cell that names the row's image.

    """
    if columns.class_names:
        wrong = next((idx for idx, cell in enumerate(cells) if not is_yes_or_no(cell)), None)
        if wrong is not None:
            return (), f'has "{cells[wrong]}" in the column "{columns.class_names[wrong]}", which should be 0 or 1'
        named = zip(columns.class_names, cells, strict=True)
        return tuple(name for name, cell in named if cell.lower() in _YES), ""
    (cell,) = cells
    if not separator:
        return ((cell,), "") if cell else ((), f'gives no class to "{tidied(image)}"')
    labels = tuple(dict.fromkeys(label for part in cell.split(separator) if (label := part.strip())))
    if cell and not labels:
        return (), f'has only separators where its classes should be ("{cell}")'
    return labels, ""


def tidied(text: str) -> str:
    """Return text in NFC as one line, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())
