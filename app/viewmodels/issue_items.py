"""IssueItemModel: the issues of a report that match a kind and a text, many of a kind folded into a row."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QCoreApplication,
    QModelIndex,
    QObject,
    Qt,
    Signal,
)

from app.backlog import Backlog
from app.viewmodels.picture_page import PageRole, Picture, PicturePage
from app.viewmodels.quantities import count_text
from app.viewmodels.report_queries import IssueExport, IssueQuery, read_issues, write_issues
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.data_report import IssueKind, ReportedIssue

KIND, FILE, WHAT = range(3)

IsGraveRole = Qt.ItemDataRole.UserRole + 1
"""Whether the issue spoils a run, or its figures: a leak, a conflict, a file that cannot be read."""

IsFoldedRole = Qt.ItemDataRole.UserRole + 2
"""Whether the row stands for many issues that are alike; None where it does not."""

_GRAVE = frozenset({IssueKind.LEAK, IssueKind.UNREADABLE, IssueKind.CONFLICT})

MAX_ALIKE = 8
"""More issues of one kind and sentence than this are folded, where there are others that they would bury."""
NUM_UNFOLDED = 3
"""The first ones of many that are alike stay in sight."""


@dataclass(frozen=True)
class _Folded:
    """A row that stands for issues of one kind and sentence."""

    issues: list[ReportedIssue]


class IssueItemModel(TableItemModel):
    """One row an issue, the gravest first; the many that are alike share one until it is unfolded.

    What was found for another filter stays until the new one is answered.
    """

    failed = Signal(str)
    """The sentence that says why the report cannot be read."""
    saved = Signal(str, bool)
    """The sentence about a CSV file, and whether it was written."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[ReportedIssue | _Folded] = []
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

    def unfold(self, row: int) -> bool:
        """List all the issues that a row stands for, from that row on. Returns whether there are any."""
        folded = self._rows[row]
        if not isinstance(folded, _Folded):
            return False
        first, *others = folded.issues
        self._rows[row] = first
        self.dataChanged.emit(self.index(row, KIND), self.index(row, WHAT))
        self.beginInsertRows(QModelIndex(), row + 1, row + len(others))
        self._rows[row + 1 : row + 1] = others
        self.endInsertRows()
        return True

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            self.tr("Issue"),
            self.tr("File"),
            self.tr("What"),
        )

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        issue = self._rows[index.row()]
        if isinstance(issue, _Folded):
            return self._folded_data(issue, index.column(), role)
        if role == Qt.ItemDataRole.DisplayRole:
            return (kind_name(issue.kind), self._name(issue.shown), issue.sentence)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(part for part in (issue.shown, issue.other_shown, issue.sentence) if part)
        if role == IsGraveRole:
            return issue.kind in _GRAVE
        if role == PageRole:
            return _page(issue)
        return None

    def _folded_data(self, folded: _Folded, column: int, role: int) -> Any:
        first, num_issues = folded.issues[0], count_text(len(folded.issues))
        if role == Qt.ItemDataRole.DisplayRole:
            return (kind_name(first.kind), self.tr("and {} more").format(num_issues), first.sentence)[column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self.tr("A click lists all {}.").format(num_issues)
        if role == IsGraveRole:
            return first.kind in _GRAVE
        if role == PageRole:
            words = self.tr("{} more of these. A click on their row lists them.").format(num_issues)
            return PicturePage(f"{kind_name(first.kind)}: {first.sentence} {words}", ())
        return role == IsFoldedRole or None

    def _name(self, shown: str) -> str:
        within = Path(self._data_path)
        # The files of a table lie beside it.
        return shown.removeprefix(f"{within}{os.sep}").removeprefix(f"{within.parent}{os.sep}")

    # -- inside -----------------------------------------------------------------------------------------------

    def _take(self, query: IssueQuery, answer: list[list[ReportedIssue]] | str) -> None:
        if query != self._query:
            return
        if isinstance(answer, str):
            self.failed.emit(answer)
        else:
            self._replace(answer)

    def _replace(self, groups: list[list[ReportedIssue]]) -> None:
        self.beginResetModel()
        self._rows = []
        for issues in groups:
            is_folded = len(groups) > 1 and len(issues) > MAX_ALIKE
            self._rows += issues[:NUM_UNFOLDED] if is_folded else issues
            if is_folded:
                self._rows.append(_Folded(issues[NUM_UNFOLDED:]))
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
