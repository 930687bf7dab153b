"""A scan's report as a SQLite file: 100,000 images and their issues, read a screenful at a time, without torch."""

from __future__ import annotations

import csv
import math
import os
import sqlite3
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pydantic import ValidationError

from trainer.messages.data_info import SPLITS, DataSummary
from trainer.sqlite_rows import insert_rows

SCHEMA_VERSION = 2
_ONE_CLASS_VERSION = 1
"""Of reports that runs of Thaw 0.1 refer to: there, each image has one class, in a column of its own."""

_SCHEMA = """
PRAGMA journal_mode = OFF;
BEGIN;
CREATE TABLE summary (body TEXT NOT NULL);
CREATE TABLE images (id INTEGER PRIMARY KEY, path BLOB NOT NULL, shown TEXT NOT NULL,
                     split TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, size_bytes INTEGER NOT NULL);
CREATE TABLE image_classes (image_id INTEGER NOT NULL, class_idx INTEGER NOT NULL, PRIMARY KEY (image_id, class_idx))
    WITHOUT ROWID;
CREATE INDEX images_by_class ON image_classes (class_idx, image_id);
CREATE TABLE issues (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, path BLOB NOT NULL, shown TEXT NOT NULL,
                     sentence TEXT NOT NULL, other_path BLOB NOT NULL, other_shown TEXT NOT NULL);
CREATE INDEX issues_by_kind ON issues (kind, id);
"""


SHAPES = ((1, 3), (1, 2), (9, 16), (2, 3), (3, 4), (1, 1), (4, 3), (3, 2), (16, 9), (2, 1), (3, 1))
"""The shapes that people know, width to height; each image is counted with the nearest one."""

MAX_SIZE_BINS = 14
_ROUND_NUMBERS = (
    # Renard's series: 40, 20, 10 or 5 round numbers in each power of ten, at even distances of the logarithm.
    (100, 106, 112, 118, 125, 132, 140, 150, 160, 170, 180, 190, 200, 212, 224, 236, 250, 265, 280, 300, 315, 335, 355,
     375, 400, 425, 450, 475, 500, 530, 560, 600, 630, 670, 710, 750, 800, 850, 900, 950),
    (100, 112, 125, 140, 160, 180, 200, 224, 250, 280, 315, 355, 400, 450, 500, 560, 630, 710, 800, 900),
    (100, 125, 160, 200, 250, 315, 400, 500, 630, 800),
    (100, 160, 250, 400, 630),
    (100, 250, 500),
    (100,),
)  # fmt: skip


class DataReportError(ValueError):
    """A report that cannot be read. The sentence says what to do."""


class IssueKind(StrEnum):
    """What may be wrong with a file, the gravest first."""

    LEAK = "leak"
    """The same picture, or nearly, is in train and in validation or test."""
    UNREADABLE = "unreadable"
    """The image is damaged, too large, or of a format that is not read: no run reads it."""
    SKIPPED = "skipped"
    """The file is not looked at: it is in no class, leaves the folder, or is no file."""
    CONFLICT = "conflict"
    """The same picture is in two classes."""
    TINY = "tiny"
    """The picture has hardly a pixel to learn from; runs read it all the same."""
    NOT_AN_IMAGE = "not_an_image"
    """The file is something else, by its name and its bytes, and nothing is wrong with it: no run reads it."""
    DUPLICATE = "duplicate"
    """The same file twice, in one split."""
    NEAR_DUPLICATE = "near_duplicate"
    """Nearly the same picture twice, in one split."""


class ReportedImage(NamedTuple):
    """A readable image. ``path`` is where it lies, ``shown`` the name that the user knows; sides upright, in pixels.

    ``class_idxs`` are the indexes of its classes, rising: of several, or of none, where a table says so.
    """

    path: str
    shown: str
    class_idxs: tuple[int, ...]
    split: str
    width: int
    height: int
    size_bytes: int


class Measure(StrEnum):
    """What images are counted by."""

    SIZE = "size"
    """The short side, in pixels."""
    SHAPE = "shape"
    """Width divided by height."""


_EXPRESSIONS = {Measure.SIZE: "MIN(width, height)", Measure.SHAPE: "CAST(width AS REAL) / height"}


@dataclass(frozen=True)
class Bin:
    """The images of which ``low <= measure < high``. ``counts`` has their number in each of SPLITS."""

    measure: Measure
    low: float
    high: float
    counts: tuple[int, ...]

    @property
    def num_images(self) -> int:
        """Return the number of images over all splits."""
        return sum(self.counts)

    @property
    def shape(self) -> tuple[int, int]:
        """Return the one of SHAPES that a bin of shapes stands for."""
        return SHAPES[_SHAPE_EDGES.index(self.low)]


@dataclass(frozen=True)
class ImageChoice:
    """Which images of a report: those of a class (None: of all), and of them those of a bin (None: of all)."""

    class_idx: int | None = None
    bin: Bin | None = None


ALL_IMAGES = ImageChoice()


class ReportedIssue(NamedTuple):
    """Something about a file, or a pair of files. The paths are where they lie, ``shown`` the names the user knows."""

    kind: IssueKind
    path: str
    shown: str
    sentence: str
    other_path: str = ""
    other_shown: str = ""


def write_report(
    path: Path, summary: DataSummary, images: Iterable[ReportedImage], issues: Iterable[ReportedIssue]
) -> None:
    """Write a report anew: whole, or not at all.

    Raises:
        DataReportError: The file cannot be written.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as database, database:
            # In one transaction, without a journal: what fails half way is deleted, so the disk is waited for once.
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            database.execute("INSERT INTO summary VALUES (?)", (summary.model_dump_json(),))
            numbered = list(enumerate(images, start=1))
            insert_rows(
                database,
                "INSERT INTO images (id, path, shown, split, width, height, size_bytes)",
                ((image_id, _text(image.path), image.shown, *image[3:]) for image_id, image in numbered),
            )
            insert_rows(
                database,
                "INSERT INTO image_classes",
                ((image_id, class_idx) for image_id, image in numbered for class_idx in image.class_idxs),
            )
            insert_rows(
                database,
                "INSERT INTO issues (kind, path, shown, sentence, other_path, other_shown)",
                (
                    (issue.kind.value, _text(issue.path), issue.shown, issue.sentence, _text(issue.other_path),
                     issue.other_shown)
                    for issue in issues
                ),
            )  # fmt: skip
        temporary.replace(path)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):  # where there is no such folder, nothing was left in it
            temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise DataReportError(
            f"Cannot write the data's report {path}: {reason}. Check the disk's space and permissions."
        ) from error


class DataReport:
    """A report that was written. Safe to use from one thread; close it when done.

    Raises:
        DataReportError: There is no such report, or it is damaged.

    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False)
            try:
                self.summary = self._read_summary(path)
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, TypeError, ValidationError) as error:
            raise DataReportError(f"Cannot read the data's report {path}: {error}. Check the data again.") from error

    def _read_summary(self, path: Path) -> DataSummary:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == _ONE_CLASS_VERSION:
            self._db.execute(
                "CREATE TEMP VIEW image_classes AS SELECT id AS image_id, class_idx AS class_idx FROM main.images"
            )
        elif version != SCHEMA_VERSION:
            raise DataReportError(f"{path} has format {version}, not {SCHEMA_VERSION}. Check the data again.")
        (body,) = self._db.execute("SELECT body FROM summary").fetchone()
        return DataSummary.model_validate_json(body)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def images(self, choice: ImageChoice = ALL_IMAGES, offset: int = 0, limit: int = -1) -> list[ReportedImage]:
        """Return images in the order of the data set."""
        chosen, values = _chosen(choice)
        if choice == ALL_IMAGES:
            # They are numbered from 1 without gaps. Rows that are skipped are read first, to the last one before.
            chosen, values, offset = f"{chosen} WHERE id > ?", (offset,), 0
        # The same order; but of a class, only this one is read from the index, without sorting.
        order = "id" if choice.class_idx is None else "chosen.image_id"
        rows = self._db.execute(
            f"SELECT path, shown, {_CLASSES}, split, width, height, size_bytes {chosen} ORDER BY {order} "
            "LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        return [ReportedImage(_path(path), shown, _class_idxs(classes), *rest) for path, shown, classes, *rest in rows]

    def samples(self) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
        """Return (path, class indexes) of the images of each split, in the order in which a run numbers them."""
        found: dict[str, list[tuple[str, tuple[int, ...]]]] = {split: [] for split in SPLITS}
        for path, classes, split in self._db.execute(f"SELECT path, {_CLASSES}, split FROM images ORDER BY id"):
            found[split].append((_path(path), _class_idxs(classes)))
        return found

    def bins(self, class_idx: int | None = None) -> dict[Measure, list[Bin]]:
        """Count the images of a class, or of all, by their sizes and by their shapes.

        The bins of a measure lie side by side, from the lowest to the highest. They are the same for every class.
        """
        size, shape = _EXPRESSIONS.values()
        (smallest, largest, lowest, highest) = self._db.execute(
            f"SELECT MIN({size}), MAX({size}), MIN({shape}), MAX({shape}) FROM images"
        ).fetchone()
        if smallest is None:
            return {measure: [] for measure in Measure}
        edges = {
            Measure.SIZE: _size_edges(smallest, largest),
            Measure.SHAPE: _around(_SHAPE_EDGES, lowest, highest),
        }
        counts = {measure: [[0] * len(SPLITS) for _ in bounds[1:]] for measure, bounds in edges.items()}
        chosen, values = _chosen(ImageChoice(class_idx))
        rows = self._db.execute(f"SELECT split, width, height, COUNT(*) {chosen} GROUP BY split, width, height", values)
        for split, width, height, num_images in rows:
            for measure, value in ((Measure.SIZE, min(width, height)), (Measure.SHAPE, width / height)):
                counts[measure][bisect_right(edges[measure], value) - 1][SPLITS.index(split)] += num_images
        return {
            measure: [
                Bin(measure, low, high, tuple(by_split))
                for (low, high), by_split in zip(pairwise(bounds), counts[measure], strict=True)
            ]
            for measure, bounds in edges.items()
        }

    def issues(self) -> Iterator[ReportedIssue]:
        """Give every issue, the gravest kind first, each kind in the order of the data set."""
        for kind in IssueKind:
            rows = self._db.execute(
                "SELECT path, shown, sentence, other_path, other_shown FROM issues WHERE kind = ? ORDER BY id",
                (kind.value,),
            )
            for path, shown, sentence, other_path, other_shown in rows:
                yield ReportedIssue(kind, _path(path), shown, sentence, _path(other_path), other_shown)


def check_csv_path(path: Path) -> None:
    """Look whether a CSV file can be written, before the work whose outcome it is to hold. Leaves nothing behind.

    Raises:
        DataReportError: It cannot.

    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no plain file"
        raise DataReportError(f"Cannot write {path}: it is {what}. Choose the name of a new file.")
    try:
        # Permissions alone do not tell: a disk may be read-only.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataReportError(f"Cannot write {path}: {error.strerror or error}. Choose another folder.") from error


def write_issues_csv(path: Path, issues: Iterable[ReportedIssue]) -> None:
    """Write issues as a table with the columns issue, file, other file, what: whole, or not at all.

    Raises:
        DataReportError: The file cannot be written.

    """
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["issue", "file", "other file", "what"])
            writer.writerows([issue.kind.value, issue.shown, issue.other_shown, issue.sentence] for issue in issues)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataReportError(f"Cannot write {path}: {error.strerror or error}. Choose another folder.") from error


_CLASSES = "(SELECT group_concat(class_idx) FROM image_classes WHERE image_id = images.id)"


def _class_idxs(classes: str | None) -> tuple[int, ...]:
    return tuple(sorted(map(int, classes.split(",")))) if classes else ()


def _chosen(choice: ImageChoice) -> tuple[str, tuple[float, ...]]:
    """Return which images to read, as SQL, and its values."""
    tables = "FROM images"
    conditions: list[str] = []
    values: list[float] = []
    if choice.class_idx is not None:
        tables = "FROM image_classes AS chosen JOIN images ON images.id = chosen.image_id"
        conditions.append("chosen.class_idx = ?")
        values.append(choice.class_idx)
    if choice.bin is not None:
        expression = _EXPRESSIONS[choice.bin.measure]
        conditions.append(f"{expression} >= ? AND {expression} < ?")
        values += [choice.bin.low, choice.bin.high]
    return f"{tables} WHERE {' AND '.join(conditions)}" if conditions else tables, tuple(values)


def _shape_edges() -> list[float]:
    """Return the bounds between the shapes: half-way by factors, so that 3:4 is as wide as 4:3."""
    ratios = [width / height for width, height in SHAPES]
    between = [math.sqrt(ratio * following) for ratio, following in pairwise(ratios)]
    return [0.0, *between, math.inf]


_SHAPE_EDGES = _shape_edges()


def _size_edges(low: int, high: int) -> list[float]:
    """Return round numbers of pixels that part ``low`` to ``high`` into few bins; the last one lies above ``high``."""
    if low == high:
        return [low, low + 1]
    candidates = (_rounded_edges(numbers, low, high) for numbers in _ROUND_NUMBERS)
    return next(edges for edges in candidates if len(edges) <= MAX_SIZE_BINS + 1)


def _rounded_edges(numbers: Sequence[int], low: int, high: int) -> list[float]:
    # Sides are whole pixels, at most 8 digits of them: a bound of 1.06 would part nothing.
    scaled = (number * 10.0**power for power in range(-2, 7) for number in numbers)
    bounds = sorted({float(round(bound)) for bound in scaled if bound >= 1})
    return _around(bounds, low, high)


def _around(bounds: list[float], low: float, high: float) -> list[float]:
    return bounds[bisect_right(bounds, low) - 1 : bisect_right(bounds, high) + 1]


def is_text(path: str) -> bool:
    """Tell whether a path can be sent or shown as it is: a name on Linux is bytes, and need be no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(path: str) -> bytes:
    # A name on Linux is bytes that need be no text; SQLite's text must be.
    return os.fsencode(path)


def _path(stored: bytes) -> str:
    return os.fsdecode(stored)
