"""A scan's report as a SQLite file: 100,000 images and their issues, read a screenful at a time, without torch."""

from __future__ import annotations

import csv
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from pydantic import ValidationError

from trainer.messages import DataSummary

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE summary (body TEXT NOT NULL);
CREATE TABLE images (id INTEGER PRIMARY KEY, path BLOB NOT NULL, shown TEXT NOT NULL, class_idx INTEGER NOT NULL,
                     split TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, size_bytes INTEGER NOT NULL);
CREATE INDEX images_by_class ON images (class_idx, id);
CREATE TABLE issues (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, path BLOB NOT NULL, shown TEXT NOT NULL,
                     sentence TEXT NOT NULL, other_path BLOB NOT NULL, other_shown TEXT NOT NULL);
CREATE INDEX issues_by_kind ON issues (kind, id);
"""


class DataReportError(ValueError):
    """A report that cannot be read. The sentence says what to do."""


class IssueKind(StrEnum):
    """What may be wrong with a file, the gravest first."""

    LEAK = "leak"
    """The same picture, or nearly, is in train and in validation or test."""
    UNREADABLE = "unreadable"
    """The file is no image, is damaged, or is too large: no run reads it."""
    SKIPPED = "skipped"
    """The file is not looked at: it is in no class, leaves the folder, or is no file."""
    CONFLICT = "conflict"
    """The same picture is in two classes."""
    DUPLICATE = "duplicate"
    """The same file twice, in one split."""
    NEAR_DUPLICATE = "near_duplicate"
    """Nearly the same picture twice, in one split."""


@dataclass(frozen=True)
class ReportedImage:
    """A readable image. ``path`` is where it lies, ``shown`` the name that the user knows; sides upright, in pixels."""

    path: str
    shown: str
    class_idx: int
    split: str
    width: int
    height: int
    size_bytes: int


@dataclass(frozen=True)
class ReportedIssue:
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
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            database.execute("INSERT INTO summary VALUES (?)", (summary.model_dump_json(),))
            database.executemany(
                "INSERT INTO images (path, shown, class_idx, split, width, height, size_bytes) VALUES (?,?,?,?,?,?,?)",
                (
                    (_text(image.path), image.shown, image.class_idx, image.split, image.width, image.height,
                     image.size_bytes)
                    for image in images
                ),
            )  # fmt: skip
            database.executemany(
                "INSERT INTO issues (kind, path, shown, sentence, other_path, other_shown) VALUES (?,?,?,?,?,?)",
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
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                self._db.close()
                raise DataReportError(f"{path} has format {version}, not {SCHEMA_VERSION}. Check the data again.")
            (body,) = self._db.execute("SELECT body FROM summary").fetchone()
            self.summary = DataSummary.model_validate_json(body)
        except (sqlite3.Error, TypeError, ValidationError) as error:
            raise DataReportError(f"Cannot read the data's report {path}: {error}. Check the data again.") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def images(self, class_idx: int | None = None, offset: int = 0, limit: int = -1) -> list[ReportedImage]:
        """Return images in the order of the data set, of a class or of all."""
        where, values = ("", ()) if class_idx is None else (" WHERE class_idx = ?", (class_idx,))
        rows = self._db.execute(
            "SELECT path, shown, class_idx, split, width, height, size_bytes FROM images"
            f"{where} ORDER BY id LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        return [ReportedImage(_path(path), *rest) for path, *rest in rows]

    def issues(self) -> Iterator[ReportedIssue]:
        """Give every issue, the gravest kind first, each kind in the order of the data set."""
        for kind in IssueKind:
            rows = self._db.execute(
                "SELECT path, shown, sentence, other_path, other_shown FROM issues WHERE kind = ? ORDER BY id",
                (kind.value,),
            )
            for path, shown, sentence, other_path, other_shown in rows:
                yield ReportedIssue(kind, _path(path), shown, sentence, _path(other_path), other_shown)


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
