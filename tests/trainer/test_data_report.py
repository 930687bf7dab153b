"""A scan's report: what was written is read again, a screenful at a time, whatever the names are."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data_report import (
    MAX_SIZE_BINS,
    DataReport,
    DataReportError,
    ImageChoice,
    IssueKind,
    Measure,
    ReportedImage,
    ReportedIssue,
    write_issues_csv,
    write_report,
)
from trainer.messages.data_info import DataSummary

SUMMARY = DataSummary(layout="table", class_names=["cat", "dog"], counts={"train": [3, 3], "validation": [1, 1]})


def image(number: int, class_idx: int) -> ReportedImage:
    return ReportedImage(f"/data/{number}.png", f"{number}.png", (class_idx,), "train", 40 + number, 30, 1000)


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
    assert report.images(ImageChoice(1), offset=1, limit=2) == [image(3, 1), image(5, 1)]
    assert len(report.images()) == 8
    assert report.images(offset=5, limit=2) == report.images()[5:7] == [image(5, 1), image(6, 0)]
    assert [each.shown for each in report.images(offset=6)] == ["6.png", "7.png"]
    report.close()


SIDES = ((28, 28), (500, 375), (375, 500), (500, 375), (640, 480), (1920, 1080), (3000, 1000), (100, 2000))


@pytest.fixture
def mixed_report(tmp_path: Path) -> Iterator[DataReport]:
    """Return a report on images of many sizes and shapes, every other one of class 1, the last in validation."""
    images = [
        ReportedImage(
            f"/{idx}.png", f"{idx}.png", (idx % 2,), "train" if idx < 7 else "validation", width, height, 1000
        )
        for idx, (width, height) in enumerate(SIDES)
    ]
    write_report(tmp_path / "mixed.db", SUMMARY, images, [])
    with closing(DataReport(tmp_path / "mixed.db")) as report:
        yield report


def test_images_are_counted_by_size_and_by_shape(mixed_report: DataReport) -> None:
    bins = mixed_report.bins()
    sizes = {found.low: found.counts for found in bins[Measure.SIZE] if found.num_images}
    assert sizes == {25: (1, 0, 0), 100: (0, 1, 0), 250: (3, 0, 0), 400: (1, 0, 0), 1000: (2, 0, 0)}
    shapes = {found.shape: found.counts for found in bins[Measure.SHAPE] if found.num_images}
    assert shapes == {
        (1, 3): (0, 1, 0),
        (3, 4): (1, 0, 0),
        (1, 1): (1, 0, 0),
        (4, 3): (3, 0, 0),
        (16, 9): (1, 0, 0),
        (3, 1): (1, 0, 0),
    }
    for found in bins.values():
        assert all(left.high == right.low for left, right in pairwise(found)), "side by side"
        assert sum(each.num_images for each in found) == len(SIDES)


def test_the_bins_of_a_class_are_those_of_all(mixed_report: DataReport) -> None:
    everything, of_class = mixed_report.bins(), mixed_report.bins(1)
    for measure in Measure:
        assert [(each.low, each.high) for each in of_class[measure]] == [
            (each.low, each.high) for each in everything[measure]
        ]
        assert sum(each.num_images for each in of_class[measure]) == 4


def test_a_bin_has_the_images_that_it_counts(mixed_report: DataReport) -> None:
    for class_idx in (None, 0, 1):
        for found in (each for bins in mixed_report.bins(class_idx).values() for each in bins):
            assert len(mixed_report.images(ImageChoice(class_idx, found))) == found.num_images
    square = next(each for each in mixed_report.bins()[Measure.SHAPE] if each.shape == (1, 1))
    assert [each.shown for each in mixed_report.images(ImageChoice(None, square))] == ["0.png"]


@given(st.lists(st.tuples(st.integers(1, 60_000), st.integers(1, 60_000)), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_every_image_has_its_bin_and_there_are_few(sides: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.db"
        images = (ReportedImage("/a", "a", (0,), "train", width, height, 1) for width, height in sides)
        write_report(path, SUMMARY, images, [])
        with closing(DataReport(path)) as report:
            sizes = report.bins()[Measure.SIZE]
    assert sum(each.num_images for each in sizes) == len(sides)
    assert len(sizes) <= MAX_SIZE_BINS
    assert sizes[0].num_images
    assert sizes[-1].num_images


def test_a_report_without_images_has_no_bins(tmp_path: Path) -> None:
    write_report(tmp_path / "empty.db", SUMMARY, [], [])
    with closing(DataReport(tmp_path / "empty.db")) as report:
        assert report.bins() == {Measure.SIZE: [], Measure.SHAPE: []}


def test_samples_come_in_the_order_of_the_data_by_split(mixed_report: DataReport) -> None:
    samples = mixed_report.samples()
    assert samples["train"] == [(f"/{idx}.png", (idx % 2,)) for idx in range(7)]
    assert (samples["validation"], samples["test"]) == ([("/7.png", (1,))], [])


def test_the_gravest_issues_come_first(report_path: Path) -> None:
    report = DataReport(report_path)
    assert [issue.kind for issue in report.issues()] == [IssueKind.LEAK, IssueKind.DUPLICATE]
    assert [issue.other_path for issue in report.issues()] == ["", "/data/a.png"]
    report.close()


def test_a_name_that_is_no_text_comes_back_as_the_same_bytes(tmp_path: Path) -> None:
    path = os.fsdecode(b"/data/\xff.png")
    write_report(tmp_path / "one.db", SUMMARY, [ReportedImage(path, "�.png", (0,), "train", 1, 1, 1)], [])
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
