"""The split of a run, kept in its folder, so that a resume validates on what was never trained on.

With each image's size and hash it also tells which of them are others by now.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.data.images import DataError, displayed
from trainer.data.scan import ScannedData, place_in

FILE_NAME = "split.csv"
_COLUMNS = ["path", "class", "split", "bytes", "sha256"]
_OLD_COLUMNS = [_COLUMNS[:3], _COLUMNS[:4]]
"""Of earlier Thaws."""
NUM_NAMED = 3


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
            writer.writerows(_rows(scanned))
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
    rows = _read(run_dir)
    return None if rows is None else [(place, classes, split) for place, classes, split, *_ in rows]


def changes_since(run_dir: Path, scanned: ScannedData) -> list[str]:
    """Say what of a run's images is not as it was when the run began: "2 images removed (cat/1.png, cat/7.png)".

    Raises:
        DataError: The file of the split is damaged.

    """
    then = {place: rest for place, *rest in _read(run_dir) or []}
    now = {place: rest for place, *rest in _rows(scanned)}
    places = {
        "added": [place for place in now if place not in then],
        "removed": [place for place in then if place not in now],
        # Earlier Thaws did not keep the sizes or the hashes.
        "changed": [place for place in now if place in then and now[place][: len(then[place])] != then[place]],
    }
    return [f"{_num_images(named)} {what} ({_shortened(named)})" for what, named in places.items() if named]


def _num_images(places: list[str]) -> str:
    return f"{len(places):,} image{'' if len(places) == 1 else 's'}"


def _shortened(places: list[str]) -> str:
    return ", ".join([*(displayed(Path(place)) for place in places[:NUM_NAMED]), *["…"] * (len(places) > NUM_NAMED)])


def _rows(scanned: ScannedData) -> Iterator[list[str]]:
    columns = (scanned.samples, scanned.splits, scanned.sizes, scanned.hashes)
    for (path, class_idxs), split, size_bytes, sha256 in zip(*columns, strict=True):
        classes = "; ".join(scanned.class_names[idx] for idx in class_idxs)
        yield [place_in(scanned.root, path), classes, split, str(size_bytes), sha256]


def _read(run_dir: Path) -> list[list[str]] | None:
    path = run_dir / FILE_NAME
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            columns, *rows = list(csv.reader(file)) or [[]]
    except (OSError, csv.Error) as error:
        raise DataError(f"Cannot read {displayed(path)}: {error}. Put it back from a copy.") from error
    if columns not in (_COLUMNS, *_OLD_COLUMNS) or any(len(row) != len(columns) for row in rows):
        raise DataError(f"{displayed(path)} is damaged: it should have the columns {', '.join(_COLUMNS)}. Put it back.")
    return rows
