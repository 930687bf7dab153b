"""IssueItemModel: the issues of a report that match a kind and a text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QCoreApplication,
    QObject,
    Qt,
    Signal,
)

from app.backlog import Backlog
from app.viewmodels.picture_page import PageRole, Picture, PicturePage
from app.viewmodels.report_queries import IssueExport, IssueQuery, read_issues, write_issues
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.data_report import IssueKind, ReportedIssue

KIND, FILE, WHAT = range(3)

IsGraveRole = Qt.ItemDataRole.UserRole + 1
"""Whether the issue spoils a run, or its figures: a leak, a conflict, a file that cannot be read."""

_GRAVE = frozenset({IssueKind.LEAK, IssueKind.UNREADABLE, IssueKind.CONFLICT})


class IssueItemModel(TableItemModel):
    """One row an issue, the gravest first. What was found for another filter stays until the new one is answered."""

    failed = Signal(str)
    """The sentence that says why the report cannot be read."""
    saved = Signal(str, bool)
    """The sentence about a CSV file, and whether it was written."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._issues: list[ReportedIssue] = []
        self._query: IssueQuery | None = None
        self._data_path = ""
        self._backlog = Backlog(read_issues, parent=self)
        self._backlog.answered.connect(self._take)
        self._exports = Backlog(write_issues, parent=self)
        self._exports.answered.connect(lambda _, answer: self.saved.emit(*answer))

    def show(self, report_path: Path, kind: IssueKind | None = None, text: str = "", data_path: str = "") -> None:
        """Show a report's issues of a kind (None: any) with a text in a name or in the sentence.

        Files in the data set at ``data_path`` are named as they lie in it.
        """
        self._data_path = data_path
        self._query = IssueQuery(report_path, kind, text.strip())
        self._backlog.want([self._query])

    def clear(self) -> None:
        """Show nothing."""
        self._query = None
        self._backlog.want([])
        self._replace([])

    def save(self, csv_path: Path) -> None:
        """Write the issues that are shown to a CSV file. Emits ``saved``."""
        assert self._query is not None
        self._exports.want([IssueExport(self._query, csv_path)])

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._issues)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            self.tr("Issue"),
            self.tr("File"),
            self.tr("What"),
        )

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        issue = self._issues[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return (kind_name(issue.kind), self._name(issue.shown), issue.sentence)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(part for part in (issue.shown, issue.other_shown, issue.sentence) if part)
        if role == IsGraveRole:
            return issue.kind in _GRAVE
        if role == PageRole:
            return _page(issue)
        return None

    def _name(self, shown: str) -> str:
        within = Path(self._data_path)
        # The files of a table lie beside it.
        return shown.removeprefix(f"{within}{os.sep}").removeprefix(f"{within.parent}{os.sep}")

    # -- inside -----------------------------------------------------------------------------------------------

    def _take(self, query: IssueQuery, answer: list[ReportedIssue] | str) -> None:
        if query != self._query:
            return
        if isinstance(answer, str):
            self.failed.emit(answer)
        else:
            self._replace(answer)

    def _replace(self, issues: list[ReportedIssue]) -> None:
        self.beginResetModel()
        self._issues = issues
        self.endResetModel()


def kind_name(kind: IssueKind) -> str:
    """Return what an issue of a kind is called."""
    return {
        IssueKind.LEAK: QCoreApplication.translate("Issues", "Leak"),
        IssueKind.UNREADABLE: QCoreApplication.translate("Issues", "Unreadable"),
        IssueKind.SKIPPED: QCoreApplication.translate("Issues", "Skipped"),
        IssueKind.CONFLICT: QCoreApplication.translate("Issues", "Conflict"),
        IssueKind.TINY: QCoreApplication.translate("Issues", "Tiny"),
        IssueKind.NOT_AN_IMAGE: QCoreApplication.translate("Issues", "Not an image"),
        IssueKind.DUPLICATE: QCoreApplication.translate("Issues", "Duplicate"),
        IssueKind.NEAR_DUPLICATE: QCoreApplication.translate("Issues", "Near duplicate"),
    }[kind]


def _page(issue: ReportedIssue) -> PicturePage:
    pictures = [Picture(issue.path, issue.shown)]
    if issue.other_path:
        pictures.append(Picture(issue.other_path, issue.other_shown))
    return PicturePage(f"{kind_name(issue.kind)}: {issue.sentence}", tuple(pictures))
