"""What the Data tab knows: the pages of a report, its filters, the issues as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PySide6.QtCore import QPersistentModelIndex, Qt
from PySide6.QtTest import QAbstractItemModelTester

from app.viewmodels.bar_items import BAR, COUNT, NAME, SharesRole
from app.viewmodels.data import DataState, DataViewModel
from app.viewmodels.image_items import MAX_PAGES, ImageItemModel, PathRole, SplitRole
from app.viewmodels.issue_items import FILE, KIND, MAX_ALIKE, WHAT, IsFoldedRole, IsGraveRole
from app.viewmodels.picture_page import PageRole
from app.viewmodels.report_queries import PAGE_ROWS
from tests.app.data_reports import make_event, make_issues
from trainer.data_report import IssueKind, Measure, ReportedImage, ReportedIssue, write_report


@pytest.fixture
def data(qapp) -> DataViewModel:
    made = DataViewModel()
    mode = QAbstractItemModelTester.FailureReportingMode.Fatal
    models = (made.classes, made.images, made.issues, *made.bins.values())
    made.testers = [QAbstractItemModelTester(model, mode) for model in models]
    return made


def read(qtbot, images: ImageItemModel, row: int) -> None:
    images.want_rows(row, row)
    qtbot.waitUntil(lambda: images.image(row) is not None)


def column(model, number: int) -> list[str]:
    return [model.index(row, number).data() for row in range(model.rowCount())]


# -- classes ------------------------------------------------------------------------------------------------------


def test_classes_have_their_counts_and_all_of_them_come_first(data, tmp_path) -> None:
    data.show(make_event(tmp_path))
    assert column(data.classes, NAME) == ["All classes", "2", "10", "cat"]
    assert column(data.classes, COUNT) == ["600", "40", "300", "260"]
    assert data.classes.splits == ["train", "validation"]
    shares = dict(data.classes.index(1, BAR).data(SharesRole))
    assert shares == pytest.approx({"train": 32 / 300, "validation": 8 / 300})
    assert sum(dict(data.classes.index(0, BAR).data(SharesRole)).values()) == pytest.approx(1)
    read_aloud = data.classes.index(1, BAR).data(Qt.ItemDataRole.AccessibleTextRole)
    assert read_aloud == "32 train, 8 validation (6.7 % of all)"


def test_classes_sort_by_name_and_by_count_and_a_selected_one_stays_so(data, tmp_path) -> None:
    data.show(make_event(tmp_path))
    kept = QPersistentModelIndex(data.classes.index(3, COUNT))
    data.classes.sort(COUNT, Qt.SortOrder.DescendingOrder)
    assert column(data.classes, NAME) == ["All classes", "10", "cat", "2"]
    assert (kept.row(), kept.data()) == (2, "260")
    data.classes.sort(NAME, Qt.SortOrder.DescendingOrder)
    assert column(data.classes, NAME) == ["All classes", "cat", "10", "2"]


def test_an_image_of_several_classes_counts_in_each_and_once_in_all(data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path, (2, 0, 0))
    classes = [(0, 1), (0, 2), (0, 1, 2), (), (1,)]
    images = [
        ReportedImage(f"/{number}.png", f"{number}.png", class_idxs, "train", 20, 20, 9)
        for number, class_idxs in enumerate(classes)
    ]
    update = {"counts": {"train": [3, 3, 2]}, "num_images": {"train": 5}, "is_multi_label": True}
    summary = event.summary.model_copy(update=update)
    write_report(tmp_path / "scenes.db", summary, images, [])
    data.show(event.model_copy(update={"summary": summary, "report_path": str(tmp_path / "scenes.db")}))
    assert column(data.classes, COUNT) == ["5", "3", "3", "2"]
    assert data.images_text() == "All classes · 5 images"
    assert dict(data.classes.index(0, BAR).data(SharesRole)) == {"train": 1}
    read_aloud = data.classes.index(1, BAR).data(Qt.ItemDataRole.AccessibleTextRole)
    assert read_aloud == "3 train (60.0 % of all)"
    read(qtbot, data.images, 4)
    tips = [data.images.index(row).data(Qt.ItemDataRole.ToolTipRole).splitlines()[1] for row in range(5)]
    assert [tip.split(" · ")[0] for tip in tips] == ["2, 10", "2, cat", "2, 10, cat", "no class", "10"]
    data.choose_class(2)
    read(qtbot, data.images, 1)
    assert [data.images.image(row).shown for row in range(2)] == ["1.png", "2.png"]


# -- images -------------------------------------------------------------------------------------------------------


def test_images_are_read_a_page_at_a_time_when_they_are_wanted(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    assert data.images.rowCount() == 600
    assert data.images.index(0).data() is None
    assert data.images.index(0).data(PathRole) == ""
    with qtbot.waitSignal(data.images.dataChanged) as changed:
        data.images.want_rows(520, 530)
    assert (changed.args[0].row(), changed.args[1].row()) == (512, 599)
    assert data.images.image(520) is not None
    assert data.images.image(0) is None
    index = data.images.index(345)
    read(qtbot, data.images, 345)
    assert index.data() == "0005.jpg"
    assert index.data(SplitRole) == "validation"
    assert index.data(Qt.ItemDataRole.ToolTipRole).startswith("animals/cat/0005.jpg\ncat · validation · 25 × 20 px · ")


def test_a_class_shows_its_own_images_only(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    with qtbot.waitSignal(data.choice_changed):
        data.choose_class(0)
    assert data.images.rowCount() == 40
    read(qtbot, data.images, 39)
    assert data.images.image(39).shown == "animals/2/0039.jpg"
    assert data.images_text() == "2 · 40 images"
    data.choose_class(None)
    assert data.images.rowCount() == 600
    assert data.images_text() == "All classes · 600 images"


def test_an_answer_for_the_class_before_is_not_taken_for_this_one(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    data.images.want_rows(0, 0)
    wishes = data.images._backlog._wishes
    # The answer is there, and is not fetched yet.
    data.images._backlog._timer.stop()
    qtbot.waitUntil(lambda: not wishes.answers.empty())
    data.choose_class(2)
    data.images._backlog._timer.start()
    qtbot.waitUntil(wishes.answers.empty)
    assert data.images.image(0) is None
    read(qtbot, data.images, 0)
    assert data.images.image(0).shown == "animals/cat/0000.jpg"


def test_few_pages_are_kept_and_the_last_ones_are_among_them(data, tmp_path, qtbot) -> None:
    num_pages = MAX_PAGES + 3
    data.show(make_event(tmp_path, num_per_class=(0, 0, num_pages * PAGE_ROWS)))
    for page_idx in range(num_pages):
        read(qtbot, data.images, page_idx * PAGE_ROWS)
    known = [data.images.image(page_idx * PAGE_ROWS) is not None for page_idx in range(num_pages)]
    assert known == [False] * 3 + [True] * MAX_PAGES


def test_a_report_that_is_gone_is_told_in_a_sentence(data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path)
    Path(event.report_path).unlink()
    data.show(event)
    with qtbot.waitSignal(data.changed):
        data.images.want_rows(0, 0)
    assert "Cannot read the data's report" in data.problem
    assert "Check the data again." in data.problem


def test_a_damaged_report_is_told_in_a_sentence(data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path, num_per_class=(0, 0, 2000))
    path = Path(event.report_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    data.show(event)
    with qtbot.waitSignal(data.changed):
        data.images.want_rows(1990, 1990)
    assert "Check the data again." in data.problem


def test_the_chosen_class_stays_when_the_same_data_are_checked_again(data, tmp_path) -> None:
    data.show(make_event(tmp_path / "one"))
    data.choose_class(2)
    data.show_checking()
    assert data.state is DataState.CHECKING
    data.show(make_event(tmp_path / "one", name="again.db"))
    assert (data.state, data.class_idx, data.images.rowCount()) == (DataState.CHECKED, 2, 260)
    data.show(make_event(tmp_path / "two"))
    assert data.class_idx is None


def test_nothing_is_left_when_it_is_cleared(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path, issues=make_issues(tmp_path)))
    qtbot.waitUntil(lambda: data.issues.rowCount() == 4)
    data.clear()
    assert data.state is DataState.EMPTY
    assert [model.rowCount() for model in (data.classes, data.images, data.issues)] == [0, 0, 0]


# -- issues -------------------------------------------------------------------------------------------------------


def test_issues_are_listed_the_gravest_first_and_filtered_by_kind_and_text(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path, issues=make_issues(tmp_path)))
    qtbot.waitUntil(lambda: column(data.issues, KIND) == ["Leak", "Unreadable", "Unreadable", "Duplicate"])
    assert [data.issues.index(row, KIND).data(IsGraveRole) for row in range(4)] == [True, True, True, False]
    data.filter_issues(IssueKind.UNREADABLE, "")
    qtbot.waitUntil(lambda: column(data.issues, FILE) == ["train/broken.jpg", "train/Größe.jpg"])
    data.filter_issues(None, "GRÖSSE")
    qtbot.waitUntil(lambda: column(data.issues, FILE) == ["train/Größe.jpg"])
    data.filter_issues(None, "val/b")
    qtbot.waitUntil(lambda: column(data.issues, KIND) == ["Leak"])


def test_every_kind_of_issue_has_a_name_and_its_filter_in_the_table_and_in_the_csv(data, tmp_path, qtbot) -> None:
    issues = [ReportedIssue(kind, str(tmp_path / f"{kind}.jpg"), f"{kind}.jpg", "So it is.") for kind in IssueKind]
    data.show(make_event(tmp_path, issues=issues))
    qtbot.waitUntil(lambda: column(data.issues, FILE) == [f"{kind}.jpg" for kind in IssueKind])
    assert len(set(column(data.issues, KIND))) == len(IssueKind)
    for kind in IssueKind:
        data.filter_issues(kind, "")
        qtbot.waitUntil(lambda kind=kind: column(data.issues, FILE) == [f"{kind}.jpg"])
    data.filter_issues(IssueKind.TINY, "")
    with qtbot.waitSignal(data.issues.saved):
        data.issues.save(tmp_path / "issues.csv")
    assert (tmp_path / "issues.csv").read_text().splitlines()[1:] == ["tiny,tiny.jpg,,So it is."]


def alike(kind: IssueKind, num_issues: int, sentence: str) -> list[ReportedIssue]:
    return [ReportedIssue(kind, "", f"{number:04}.txt", sentence) for number in range(num_issues)]


def test_thousands_of_one_kind_do_not_bury_the_one_of_another(data, tmp_path, qtbot) -> None:
    texts = alike(IssueKind.UNREADABLE, 2500, "It is no image.")
    broken = ReportedIssue(IssueKind.UNREADABLE, "", "z.jpg", "It is truncated.")
    twice = ReportedIssue(IssueKind.DUPLICATE, "", "y.jpg", "Twice in train.", "", "x.jpg")
    data.show(make_event(tmp_path, issues=[*texts[:2000], broken, *texts[2000:], twice]))
    folded = ["0000.txt", "0001.txt", "0002.txt", "and 2,497 more", "z.jpg", "y.jpg"]
    qtbot.waitUntil(lambda: column(data.issues, FILE) == folded)
    row = data.issues.index(3, FILE)
    assert row.siblingAtColumn(WHAT).data() == "It is no image."
    assert row.data(IsFoldedRole)
    assert not data.issues.index(2, FILE).data(IsFoldedRole)
    assert row.data(Qt.ItemDataRole.ToolTipRole) == "A click lists all 2,497."
    assert row.data(PageRole).pictures == ()
    kept = QPersistentModelIndex(data.issues.index(4, FILE))
    assert data.issues.unfold(3)
    assert data.issues.rowCount() == 2502
    assert (data.issues.index(3, FILE).data(), kept.data(), kept.row()) == ("0003.txt", "z.jpg", 2500)
    assert not data.issues.unfold(3)
    # Where there is nothing else to be buried, all are listed.
    data.filter_issues(None, "no image")
    qtbot.waitUntil(lambda: data.issues.rowCount() == 2500)
    assert column(data.issues, FILE)[-1] == "2499.txt"
    # And all are saved, folded or not.
    data.filter_issues(None, "")
    with qtbot.waitSignal(data.issues.saved):
        data.issues.save(tmp_path / "issues.csv")
    assert len((tmp_path / "issues.csv").read_text().splitlines()) == 2503


def test_a_few_that_are_alike_are_listed_each(data, tmp_path, qtbot) -> None:
    few = alike(IssueKind.SKIPPED, MAX_ALIKE, "Not used.")
    data.show(make_event(tmp_path, issues=[*few, *make_issues(tmp_path)]))
    qtbot.waitUntil(lambda: data.issues.rowCount() == MAX_ALIKE + 4)


def test_a_pair_has_both_pictures(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path, issues=make_issues(tmp_path)))
    qtbot.waitUntil(lambda: data.issues.rowCount() == 4)
    page = data.issues.index(0, 0).data(PageRole)
    assert [picture.name for picture in page.pictures] == ["train/a.jpg", "val/b.jpg"]
    assert page.sentence == "Leak: In train and in validation."
    assert len(data.issues.index(1, 0).data(PageRole).pictures) == 1


def test_the_listed_issues_are_saved_as_csv(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path, issues=make_issues(tmp_path)))
    data.filter_issues(IssueKind.LEAK, "")
    target = tmp_path / "issues.csv"
    with qtbot.waitSignal(data.issues.saved) as saved:
        data.issues.save(target)
    assert saved.args == [f"Saved as {target}.", True]
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["issue", "file", "other file", "what"],
        ["leak", "train/a.jpg", "val/b.jpg", "In train and in validation."],
    ]


def test_a_csv_that_cannot_be_written_is_told_in_a_sentence(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path, issues=make_issues(tmp_path)))
    with qtbot.waitSignal(data.issues.saved) as saved:
        data.issues.save(tmp_path / "no folder" / "issues.csv")
    sentence, is_written = saved.args
    assert not is_written
    assert sentence.startswith(f"Cannot write {tmp_path / 'no folder' / 'issues.csv'}: ")
    assert sentence.endswith(". Choose another folder.")


@pytest.mark.parametrize(("lies_in", "name"), [("animals/dog", "dog/1.jpg"), ("images", "images/1.jpg")])
def test_an_issues_file_is_named_as_it_lies_in_the_data(data, tmp_path, qtbot, lies_in, name) -> None:
    shown = f"{tmp_path / 'animals'}/dog/1.jpg" if lies_in == "animals/dog" else f"{tmp_path}/images/1.jpg"
    event = make_event(tmp_path, issues=[ReportedIssue(IssueKind.UNREADABLE, shown, shown, "Not used.")])
    data.show(event.model_copy(update={"path": str(tmp_path / "animals")}))
    qtbot.waitUntil(lambda: column(data.issues, FILE) == [name])


# -- sizes and shapes ---------------------------------------------------------------------------------------------


def test_sizes_and_shapes_are_counted_only_when_they_are_looked_at(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    assert data.bins[Measure.SIZE].rowCount() == 0
    data.want_bins(are_wanted=True)
    qtbot.waitUntil(lambda: data.bins[Measure.SIZE].rowCount() == 2)
    assert column(data.bins[Measure.SIZE], NAME) == ["All sizes", "20"]
    assert column(data.bins[Measure.SHAPE], NAME) == ["All shapes", "1 : 1", "4 : 3"]
    assert column(data.bins[Measure.SHAPE], COUNT) == ["600", "150", "450"]
    shape = data.bins[Measure.SHAPE].index(2, BAR)
    spoken = "Width to height about 4 : 3 (1.15 to 1.41)"
    assert shape.data(Qt.ItemDataRole.ToolTipRole) == f"{spoken}\n360 train, 90 validation (75.0 % of all)"
    assert shape.siblingAtColumn(NAME).data(Qt.ItemDataRole.AccessibleTextRole) == spoken
    assert dict(shape.data(SharesRole)) == pytest.approx({"train": 0.8, "validation": 0.2})


def test_the_counts_are_those_of_the_chosen_class(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    data.want_bins(are_wanted=True)
    qtbot.waitUntil(lambda: column(data.bins[Measure.SHAPE], COUNT) == ["600", "150", "450"])
    data.choose_class(0)
    qtbot.waitUntil(lambda: column(data.bins[Measure.SHAPE], COUNT) == ["40", "10", "30"])


def test_a_chosen_shape_shows_its_images_only_and_another_class_all_of_its_own(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    data.want_bins(are_wanted=True)
    data.choose_class(1)
    qtbot.waitUntil(lambda: column(data.bins[Measure.SHAPE], COUNT) == ["300", "75", "225"])
    data.choose_bin(data.bins[Measure.SHAPE].bins[0])
    assert data.images_text() == "10 · 1 : 1 · 75 images"
    assert data.images.rowCount() == 75
    read(qtbot, data.images, 74)
    assert {data.images.image(row).width for row in range(75)} == {20}
    data.choose_bin(data.bins[Measure.SIZE].bins[0])
    assert data.images_text() == "10 · 20 px · 300 images"
    data.choose_class(None)
    assert data.images_text() == "All classes · 600 images"


def test_a_report_that_goes_while_it_is_counted_is_told_in_a_sentence(data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    (tmp_path / "report.db").unlink()
    data.want_bins(are_wanted=True)
    qtbot.waitUntil(lambda: "Cannot read the data's report" in data.problem)
