"""The split of a run, kept in its folder, so that a resume validates on what was never trained on."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from trainer.data.images import DataError, displayed
from trainer.data.scan import ScannedData, place_in

FILE_NAME = "split.csv"
_COLUMNS = ["path", "class", "split"]


def write_split(run_dir: Path, scanned: ScannedData) -> None:
    """Write which image is in which split, by its path in the data set.

    Raises:
        DataError: The file cannot be written.

    """
    path = run_dir / FILE_NAME
    try:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(
                [place_in(scanned.root, path), "; ".join(scanned.class_names[idx] for idx in class_idxs), split]
                for (path, class_idxs), split in zip(scanned.samples, scanned.splits, strict=True)
            )
    except OSError as error:
        raise DataError(f"Cannot write {displayed(path)}: {error.strerror}. Check the disk's space.") from error


def read_split(run_dir: Path) -> Mapping[str, str] | None:
    """Return each image's split by its path in the data set; None for a run that kept none.

    Raises:
        DataError: The file is damaged.

    """
    rows = read_split_rows(run_dir)
    return None if rows is None else {place: split for place, _, split in rows}


def read_split_rows(run_dir: Path) -> list[tuple[str, str, str]] | None:
    """Return (path in the data set, classes with "; " between them, split) of each image, in the run's order.

    None for a run that kept none.

    Raises:
        DataError: The file is damaged.

    """
    path = run_dir / FILE_NAME
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, csv.Error) as error:
        raise DataError(f"Cannot read {displayed(path)}: {error}. Put it back from a copy.") from error
    if not rows or rows[0] != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise DataError(f"{displayed(path)} is damaged: it should have the columns path, class, split. Put it back.")
    return [(place, classes, split) for place, classes, split in rows[1:]]
