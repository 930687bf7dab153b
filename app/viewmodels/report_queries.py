"""What the Data tab asks of a report, in a thread: images by the page, sizes and shapes, issues, their CSV file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from PySide6.QtCore import QCoreApplication

from trainer.data_report import (
    Bin,
    DataReport,
    DataReportError,
    ImageChoice,
    IssueKind,
    Measure,
    ReportedImage,
    ReportedIssue,
    write_issues_csv,
)

PAGE_ROWS = 256


class ImagePage(NamedTuple):
    """Images ``page_idx * PAGE_ROWS`` and on, of those that were chosen."""

    report_path: Path
    choice: ImageChoice
    page_idx: int


class BinQuery(NamedTuple):
    """How many images of a class (None: of all) have which size and shape."""

    report_path: Path
    class_idx: int | None


class IssueQuery(NamedTuple):
    """The issues of a kind (None: any) with a text in one of their names or in their sentence."""

    report_path: Path
    kind: IssueKind | None
    text: str


class IssueExport(NamedTuple):
    """The issues of a query, to be written to a CSV file."""

    query: IssueQuery
    csv_path: Path


# Each opens the report anew: a file that is kept open cannot be replaced on Windows when the data are checked again.


def read_images(page: ImagePage) -> list[ReportedImage] | str:
    """Return a page's images, or the sentence that says why they cannot be read."""
    try:
        with closing(DataReport(page.report_path)) as report:
            return report.images(page.choice, page.page_idx * PAGE_ROWS, PAGE_ROWS)
    except (DataReportError, sqlite3.Error) as error:
        return _sentence(page.report_path, error)


def read_bins(query: BinQuery) -> dict[Measure, list[Bin]] | str:
    """Return the bins of each measure, or the sentence that says why they cannot be read."""
    try:
        with closing(DataReport(query.report_path)) as report:
            return report.bins(query.class_idx)
    except (DataReportError, sqlite3.Error) as error:
        return _sentence(query.report_path, error)


def read_issues(query: IssueQuery) -> list[list[ReportedIssue]] | str:
    """Return the issues that match, those of one kind and sentence together, the gravest kind first.

    Or the sentence that says why they cannot be read.
    """
    groups: dict[tuple[IssueKind, str], list[ReportedIssue]] = {}
    try:
        for issue in _matching(query):
            groups.setdefault((issue.kind, issue.sentence), []).append(issue)
        return list(groups.values())
    except (DataReportError, sqlite3.Error) as error:
        return _sentence(query.report_path, error)


def write_issues(export: IssueExport) -> tuple[str, bool]:
    """Write the issues that match, whole or not at all.

    Returns:
        The sentence for the user, and whether the file was written.

    """
    try:
        write_issues_csv(export.csv_path, _matching(export.query))
    except DataReportError as error:
        return str(error), False
    except sqlite3.Error as error:
        return _sentence(export.query.report_path, error), False
    return QCoreApplication.translate("DataReport", "Saved as {path}.").format(path=export.csv_path), True


def _matching(query: IssueQuery) -> Iterator[ReportedIssue]:
    wanted = query.text.casefold()
    with closing(DataReport(query.report_path)) as report:
        for issue in report.issues():
            words = f"{issue.shown}\n{issue.other_shown}\n{issue.sentence}"
            if query.kind in {None, issue.kind} and wanted in words.casefold():
                yield issue


def _sentence(report_path: Path, error: Exception) -> str:
    if isinstance(error, DataReportError):
        return str(error)
    text = QCoreApplication.translate(
        "DataReport", "Cannot read the data's report {path}: {reason}. Check the data again."
    )
    return text.format(path=report_path, reason=error)
