"""A scan's report: what was written is read again, a screenful at a time, whatever the names are."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from trainer.data_report import (
    DataReport,
    DataReportError,
    IssueKind,
    ReportedImage,
    ReportedIssue,
    write_issues_csv,
    write_report,
)
from trainer.messages import DataSummary

SUMMARY = DataSummary(layout="table", class_names=["cat", "dog"], counts={"train": [3, 3], "validation": [1, 1]})


def image(number: int, class_idx: int) -> ReportedImage:
    return ReportedImage(f"/data/{number}.png", f"{number}.png", class_idx, "train", 40 + number, 30, 1000)


@pytest.fixture
def report_path(tmp_path: Path) -> Path:
    images = [image(number, number % 2) for number in range(8)]
    issues = [
        ReportedIssue(IssueKind.DUPLICATE, "/data/b.png", "b.png", "Twice.", "/data/a.png", "a.png"),
        ReportedIssue(IssueKind.LEAK, "/data/c.png", "c.png", "In both."),
    ]
    path = tmp_path / "reports" / "one.db"
    write_report(path, SUMMARY, images, issues)
    return path


def test_a_report_is_read_as_it_was_written(report_path: Path) -> None:
    report = DataReport(report_path)
    assert report.summary == SUMMARY
    assert report.summary.class_counts == {"cat": 4, "dog": 4}
    assert report.images(1, offset=1, limit=2) == [image(3, 1), image(5, 1)]
    assert len(report.images()) == 8
    report.close()


def test_the_gravest_issues_come_first(report_path: Path) -> None:
    report = DataReport(report_path)
    assert [issue.kind for issue in report.issues()] == [IssueKind.LEAK, IssueKind.DUPLICATE]
    assert [issue.other_path for issue in report.issues()] == ["", "/data/a.png"]
    report.close()


def test_a_name_that_is_no_text_comes_back_as_the_same_bytes(tmp_path: Path) -> None:
    path = os.fsdecode(b"/data/\xff.png")
    write_report(tmp_path / "one.db", SUMMARY, [ReportedImage(path, "�.png", 0, "train", 1, 1, 1)], [])
    report = DataReport(tmp_path / "one.db")
    assert [read.path for read in report.images()] == [path]
    report.close()


def test_a_new_report_takes_the_place_of_the_old_one_while_that_is_read(report_path: Path) -> None:
    old = DataReport(report_path)
    write_report(report_path, SUMMARY, [], [])
    new = DataReport(report_path)
    assert (len(old.images()), len(new.images())) == (8, 0)
    old.close()
    new.close()
    assert [path.name for path in report_path.parent.iterdir()] == ["one.db"]


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataReportError, match="Check the data again"):
        DataReport(tmp_path / "none.db")
    (tmp_path / "other.db").write_bytes(b"no database at all, but long enough to be looked at")
    with pytest.raises(DataReportError, match="Check the data again"):
        DataReport(tmp_path / "other.db")


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file where the folder should be")
    with pytest.raises(DataReportError, match="Cannot write the data's report"):
        write_report(tmp_path / "reports" / "one.db", SUMMARY, [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]


def test_every_issue_goes_into_the_csv(report_path: Path, tmp_path: Path) -> None:
    report = DataReport(report_path)
    write_issues_csv(tmp_path / "issues.csv", report.issues())
    report.close()
    rows = list(csv.reader((tmp_path / "issues.csv").read_text(encoding="utf-8").splitlines()))
    assert rows == [
        ["issue", "file", "other file", "what"],
        ["leak", "c.png", "", "In both."],
        ["duplicate", "b.png", "a.png", "Twice."],
    ]
