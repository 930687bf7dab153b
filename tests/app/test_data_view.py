"""The Data tab on the screen: what is read and when, what keys and clicks do, and how a picture is opened."""

from __future__ import annotations

import csv

import pytest
from PySide6.QtCore import QModelIndex, QPoint, Qt
from PySide6.QtGui import QColor, QImage

from app import theme
from app.viewmodels.bar_items import BAR, COUNT, NAME
from app.viewmodels.data import DataViewModel
from app.viewmodels.issue_items import FILE, KIND, WHAT
from app.viewmodels.report_queries import PAGE_ROWS
from app.views.data import DataView
from tests.app.data_reports import make_event, make_issues, make_jpeg
from trainer.data_report import IssueKind, Measure, ReportedIssue
from trainer.messages.data_info import DataSummary, ImageView
from trainer.messages.events import DataChecked

pytestmark = [
    pytest.mark.window,
    # Only the offscreen platform says so, of every window.
    pytest.mark.qt_log_ignore("This plugin does not support propagateSizeHints"),
]


@pytest.fixture
def data(qapp) -> DataViewModel:
    return DataViewModel()


@pytest.fixture
def view(qtbot, themed, data: DataViewModel) -> DataView:
    made = DataView(data)
    qtbot.addWidget(made)
    made.resize(1256, 460)
    made.show()
    qtbot.waitExposed(made)
    return made


@pytest.fixture
def shown(view: DataView, data: DataViewModel, tmp_path, qtbot) -> DataView:
    """Return a view on 600 images and four issues, whose first thumbnails are there."""
    data.show(make_event(tmp_path, issues=make_issues(tmp_path)))
    qtbot.waitUntil(lambda: has_thumbnails(view, data) and data.issues.rowCount() == 4)
    return view


def has_thumbnails(view: DataView, data: DataViewModel) -> bool:
    images = [data.images.image(row) for row in view.grid.visible_rows()]
    return bool(images) and all(image and view.grid.loader.pixmap(image.path) for image in images)


def test_an_empty_tab_says_what_fills_it(view) -> None:
    assert view.sentence.isVisible()
    assert view.sentence.text() == "Choose data: what Thaw finds in them stands here before the first step."


def test_while_the_data_are_checked_a_line_says_so(view, data, tmp_path) -> None:
    data.show_checking()
    assert view.sentence.isVisible()
    assert view.sentence.text() == "Looking through the images …"
    data.show(make_event(tmp_path))
    assert not view.sentence.isVisible()
    assert view.grid.isVisible()


def test_a_check_that_was_stopped_can_be_made_again(view, data, tmp_path, qtbot) -> None:
    data.show_checking()
    assert not view.check_button.isVisible()
    data.show_unchecked()
    assert view.sentence.text() == "You stopped the check, so nothing is known of these data yet."
    assert view.sentence.property("role") == "dim"
    with qtbot.waitSignal(view.check_wanted):
        qtbot.mouseClick(view.check_button, Qt.MouseButton.LeftButton)
    data.show(make_event(tmp_path))
    assert view.grid.isVisible()


def test_what_was_found_stays_through_a_short_check_and_goes_in_a_long_one(shown, data, qtbot) -> None:
    data.show_checking()
    assert shown.grid.isVisible()
    qtbot.waitUntil(lambda: shown.sentence.isVisible())
    assert not shown.grid.isVisible()


def test_a_report_that_cannot_be_read_is_told_in_its_place(view, data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path)
    (tmp_path / "report.db").unlink()
    data.show(event)
    qtbot.waitUntil(lambda: "Cannot read the data's report" in view.sentence.text())
    assert view.sentence.isVisible()
    assert view.sentence.property("role") == "error"


def test_choosing_a_class_filters_the_images(shown, data, qtbot) -> None:
    assert shown.chart.table.currentIndex().row() == 0
    qtbot.keyClick(shown.chart.table, Qt.Key.Key_Down)
    assert shown._whose.whole_text == "2 · 40 images"
    assert data.images.rowCount() == 40
    qtbot.waitUntil(lambda: has_thumbnails(shown, data))
    assert data.images.image(0).shown == "animals/2/0000.jpg"


def test_the_switch_shows_sizes_and_shapes_and_a_bar_filters_the_images(shown, data, qtbot) -> None:
    chart, shapes = shown.chart, shown.chart.bins[Measure.SHAPE]
    assert not shapes.isVisible()
    data.choose_class(1)
    # From button to button with the arrows, as in any group; they go by the focus, which only an active window has.
    shown.activateWindow()
    qtbot.waitUntil(shown.isActiveWindow)
    chart.button(0).setFocus()
    qtbot.keyClick(chart.button(0), Qt.Key.Key_Right)
    qtbot.keyClick(chart.button(1), Qt.Key.Key_Right)
    assert shapes.isVisible()
    qtbot.waitUntil(lambda: data.bins[Measure.SHAPE].rowCount() == 3 and shapes.currentIndex().row() == 0)
    qtbot.keyClick(shapes, Qt.Key.Key_Down)
    assert shown._whose.whole_text == "10 · 1 : 1 · 75 images"
    assert data.images.rowCount() == 75
    qtbot.waitUntil(lambda: has_thumbnails(shown, data))
    assert shapes.currentIndex().row() == 1
    # What is not in sight filters nothing.
    chart.button(0).click()
    assert shown._whose.whole_text == "10 · 300 images"
    assert chart.table.currentIndex().row() == 2


def test_nothing_is_counted_while_nobody_sees_it(view, data, tmp_path, qtbot) -> None:
    view.chart.button(1).click()
    view.hide()
    data.show(make_event(tmp_path))
    assert data._bin_backlog._wishes.is_open is False
    view.show()
    qtbot.waitUntil(lambda: data.bins[Measure.SIZE].rowCount() > 0)


def test_a_long_name_is_cut_in_its_middle_and_never_pushes_its_bar_away(view, data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path)
    names = ["Black-footed albatross (juvenile)", "Black-footed albatross (adult plumage)", "새끼 고양이"]
    data.show(event.model_copy(update={"summary": event.summary.model_copy(update={"class_names": names})}))
    table = view.chart.table
    qtbot.waitUntil(lambda: table.columnWidth(NAME) > 100)
    assert table.textElideMode() is Qt.TextElideMode.ElideMiddle
    assert table.columnWidth(BAR) >= 40
    assert data.classes.index(2, NAME).data(Qt.ItemDataRole.ToolTipRole).startswith(names[1])
    narrow = table.columnWidth(NAME)
    view.resize(1900, 460)
    qtbot.waitUntil(lambda: table.columnWidth(NAME) > narrow)


def test_all_images_together_do_not_look_like_a_class(shown, data) -> None:
    table = shown.chart.table
    picture = table.viewport().grab().toImage()
    train = QColor(theme.LIGHT.train)

    def bar(row: int) -> tuple[int, int]:
        """Return the height of a row's bar, and the width of its train images, in pixels."""
        cell = table.visualRect(data.classes.index(row, BAR))
        left = cell.left() + theme.SPACE + 1
        height = sum(picture.pixelColor(left, y) == train for y in range(cell.top(), cell.bottom() + 1))
        middle = cell.center().y() + 1
        width = sum(picture.pixelColor(x, middle) == train for x in range(cell.left(), cell.right() + 1))
        return height, width

    (all_height, all_width), (largest_height, largest_width) = bar(0), bar(2)
    assert 0 < all_height < largest_height / 2
    assert all_width == pytest.approx(largest_width, abs=2)
    below_all = table.visualRect(data.classes.index(0, NAME)).bottom()
    assert picture.pixelColor(5, below_all) == QColor(theme.LIGHT.line)


def test_sorting_the_classes_keeps_the_chosen_one(shown, data) -> None:
    data.choose_class(2)
    shown.chart.table.sortByColumn(COUNT, Qt.SortOrder.DescendingOrder)
    assert [data.classes.index(row, NAME).data() for row in range(4)] == ["All classes", "10", "cat", "2"]
    assert shown.chart.table.currentIndex().row() == 2
    assert data.class_idx == 2


def test_the_legend_names_only_splits_that_have_images(shown, data, tmp_path, qtbot) -> None:
    def names() -> list[str]:
        return [label.text() for _, label in shown.chart.legend._keys.values() if label.isVisible()]

    qtbot.waitUntil(lambda: names() == ["train", "validation"])
    event = make_event(tmp_path)
    update = {"counts": {"train": [1, 1, 1], "test": [1, 0, 1]}, "num_images": {"train": 3, "test": 2}}
    data.show(event.model_copy(update={"summary": event.summary.model_copy(update=update)}))
    qtbot.waitUntil(lambda: names() == ["train", "test"])


def test_only_what_is_in_sight_and_a_screenful_more_is_read(shown, data) -> None:
    assert len(shown.grid.visible_rows()) < PAGE_ROWS // 2
    assert data.images.image(PAGE_ROWS) is None


def test_scrolling_to_the_end_reads_the_end(shown, data, qtbot) -> None:
    bar = shown.grid.verticalScrollBar()
    bar.setValue(bar.maximum())
    qtbot.waitUntil(lambda: data.images.image(599) is not None)
    assert shown.grid.visible_rows().stop == 600
    assert shown.grid.viewport().rect().contains(shown.grid.visualRect(data.images.index(599)))
    qtbot.waitUntil(lambda: has_thumbnails(shown, data))
    # The page in between was only passed by.
    assert data.images.image(PAGE_ROWS) is None


def test_a_hidden_tab_reads_nothing(view, data, tmp_path, qtbot) -> None:
    view.hide()
    data.show(make_event(tmp_path))
    asked = []
    view.grid._ask_timer.timeout.connect(lambda: asked.append(True))
    qtbot.waitUntil(lambda: bool(asked))
    assert data.images._backlog._wishes.is_open is False
    view.show()
    qtbot.waitUntil(lambda: has_thumbnails(view, data))


def test_a_tile_is_found_where_it_is_drawn(shown, data) -> None:
    grid = shown.grid
    grid.verticalScrollBar().setValue(330)
    for row in grid.visible_rows():
        index = data.images.index(row)
        assert grid.indexAt(grid.visualRect(index).center()) == index
    right_of_all = QPoint(grid.viewport().width() - 1, grid.visualRect(index).center().y())
    assert grid.indexAt(right_of_all).row() in {-1, index.row()}
    assert not grid.indexAt(grid.visualRect(index).bottomRight() + QPoint(2, 0)).isValid()


def test_the_first_images_in_sight_stay_there_when_the_tab_grows(shown) -> None:
    bar = shown.grid.verticalScrollBar()
    bar.setValue(bar.maximum() // 2)
    first = shown.grid.visible_rows().start
    shown.resize(1256, 176)
    assert first in shown.grid.visible_rows()
    shown.resize(900, 460)
    assert first in shown.grid.visible_rows()


def test_keys_lead_from_tile_to_tile(view, data, tmp_path, qtbot) -> None:
    # A number that fills no last line, with however many columns.
    data.show(make_event(tmp_path, num_per_class=(37, 0, 0)))
    grid, num_columns = view.grid, view.grid._num_columns
    last_line = 37 // num_columns * num_columns
    for start, key, expected in (
        (0, Qt.Key.Key_Right, 1),
        (0, Qt.Key.Key_Left, 0),
        (0, Qt.Key.Key_Down, num_columns),
        (num_columns + 1, Qt.Key.Key_Up, 1),
        (1, Qt.Key.Key_Up, 1),
        (0, Qt.Key.Key_End, 36),
        (36, Qt.Key.Key_Home, 0),
        (last_line, Qt.Key.Key_Down, last_line),
        (last_line - 1, Qt.Key.Key_Down, 36),
        (0, Qt.Key.Key_PageDown, grid.viewport().height() // grid._pitch * num_columns),
    ):
        grid.setCurrentIndex(data.images.index(start))
        qtbot.keyClick(grid, key)
        assert grid.currentIndex().row() == expected, (start, key)
        assert grid.viewport().rect().contains(grid.visualRect(grid.currentIndex()))


def test_a_click_opens_the_picture_and_arrows_go_on_and_escape_closes(shown, data, qtbot) -> None:
    place = shown.grid.visualRect(data.images.index(1)).center()
    qtbot.mouseClick(shown.grid.viewport(), Qt.MouseButton.LeftButton, pos=place)
    dialog = shown.dialog
    assert dialog.row == 1
    assert dialog.sentence.text().startswith("2 · train · 25 × 20 px · ")
    assert dialog.panes[0].name.whole_text == "animals/2/0001.jpg"
    qtbot.waitUntil(lambda: dialog.panes[0].canvas.pixmap is not None)
    assert dialog.panes[0].canvas.pixmap.size().toTuple() == (25, 20)
    assert not dialog.panes[1].isVisible()
    qtbot.keyClick(dialog, Qt.Key.Key_Right)
    assert (dialog.row, shown.grid.currentIndex().row()) == (2, 2)
    qtbot.keyClick(dialog, Qt.Key.Key_Left)
    qtbot.keyClick(dialog, Qt.Key.Key_Left)
    qtbot.keyClick(dialog, Qt.Key.Key_Left)
    assert dialog.row == 0
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert shown.dialog is None


def test_the_dialog_reads_on_where_the_list_was_not_read_yet(shown, data, qtbot) -> None:
    shown.grid.opened.emit(data.images.index(0))
    assert data.images.image(599) is None
    shown.dialog.show_next(1000)
    assert shown.dialog.row == 599
    qtbot.waitUntil(lambda: shown.dialog.panes[0].name.whole_text == "animals/cat/0259.jpg")


def test_another_class_closes_the_picture(shown, data, qtbot) -> None:
    shown.grid.opened.emit(data.images.index(5))
    data.choose_class(1)
    assert shown.dialog is None


def test_enter_on_an_issue_opens_its_pair_side_by_side(shown, qtbot) -> None:
    shown.issues.table.setFocus()
    shown.issues.table.selectRow(0)
    qtbot.keyClick(shown.issues.table, Qt.Key.Key_Return)
    dialog = shown.dialog
    assert [pane.name.whole_text for pane in dialog.panes] == ["train/a.jpg", "val/b.jpg"]
    assert all(pane.isVisible() for pane in dialog.panes)
    qtbot.waitUntil(lambda: all(pane.canvas.pixmap is not None for pane in dialog.panes))
    qtbot.keyClick(dialog, Qt.Key.Key_Down)
    assert shown.issues.table.currentIndex().row() == 1
    assert not dialog.panes[1].isVisible()
    qtbot.waitUntil(lambda: dialog.panes[0].canvas.pixmap is not None)
    assert dialog.panes[0].canvas.pixmap.isNull()


@pytest.mark.parametrize("by", ["click", "key"])
def test_a_row_that_stands_for_many_lists_them_and_opens_no_picture(view, data, tmp_path, qtbot, by: str) -> None:
    many = [ReportedIssue(IssueKind.SKIPPED, "", f"{number:03}.txt", "Not used.") for number in range(100)]
    data.show(make_event(tmp_path, issues=[*make_issues(tmp_path), *many]))
    # A leak, two unreadable files, three of the hundred, their row, a duplicate.
    qtbot.waitUntil(lambda: data.issues.rowCount() == 8)
    view.issues.opened.emit(data.issues.index(5, FILE))
    # The arrows lead over it, and a sentence says what it is.
    view.dialog.show_next(1)
    assert view.dialog.sentence.text() == "Skipped: Not used. 97 more of these. A click on their row lists them."
    view.dialog.close()
    table, folded = view.issues.table, data.issues.index(6, FILE)
    table.scrollTo(folded)
    if by == "click":
        qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualRect(folded).center())
    else:
        table.selectRow(6)
        qtbot.keyClick(table, Qt.Key.Key_Return)
    assert data.issues.rowCount() == 104
    assert view.dialog is None
    assert data.issues.index(6, FILE).data() == "003.txt"
    # It stays where it is, with the rest below it.
    assert table.currentIndex().row() == 6
    assert table.viewport().rect().contains(table.visualRect(data.issues.index(6, FILE)).center())


def test_a_chip_and_a_text_filter_the_issues(shown, data, qtbot) -> None:
    chip = shown.issues.chips.chip(IssueKind.UNREADABLE)
    assert chip.text() == "Unreadable  2"
    assert not shown.issues.chips.chip(IssueKind.CONFLICT).isVisible()
    qtbot.mouseClick(chip, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: data.issues.rowCount() == 2)
    qtbot.keyClicks(shown.issues.filter_box, "broken")
    qtbot.waitUntil(lambda: data.issues.rowCount() == 1)
    assert data.issues.index(0, FILE).data() == "train/broken.jpg"
    shown.issues.filter_box.clear()
    qtbot.waitUntil(lambda: data.issues.rowCount() == 2)
    qtbot.mouseClick(chip, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: data.issues.rowCount() == 4)


def test_what_is_wrong_has_most_of_the_room_and_a_second_line_in_a_narrow_window(shown, qtbot) -> None:
    table = shown.issues.table
    reason = "Not used: it is damaged or incomplete (image file is truncated (12 bytes not processed))."

    def lines() -> int:
        return table.rowHeight(0) // table.fontMetrics().lineSpacing()

    assert table.columnWidth(WHAT) > 1.5 * table.columnWidth(FILE)
    assert table.columnWidth(KIND) > table.fontMetrics().horizontalAdvance("Unreadable")
    assert lines() == 2
    assert table.wordWrap()
    assert table.fontMetrics().horizontalAdvance(reason) < 2 * table.columnWidth(WHAT)
    shown.resize(2600, 460)
    qtbot.waitUntil(lambda: lines() == 1)
    # Low as it is at first, more rows are worth more.
    shown.resize(1256, 180)
    qtbot.waitUntil(lambda: table.columnWidth(WHAT) < 480)
    assert lines() == 1


def test_the_filter_is_empty_for_other_data(shown, data, tmp_path, qtbot) -> None:
    qtbot.keyClicks(shown.issues.filter_box, "broken")
    qtbot.waitUntil(lambda: data.issues.rowCount() == 1)
    data.show(make_event(tmp_path / "other", issues=make_issues(tmp_path / "other")))
    assert shown.issues.filter_box.text() == ""
    qtbot.waitUntil(lambda: data.issues.rowCount() == 4)


def test_data_without_issues_say_so(view, data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path))
    assert view.issues.table.empty_text == "Nothing is wrong with any file."
    assert not view.issues.filter_box.isVisible()
    assert not view.issues.save_button.isVisible()
    assert not view.issues.chips.isVisible()


def test_saving_says_where_or_why_not(shown, tmp_path, qtbot) -> None:
    shown.issues.save(tmp_path / "issues.csv")
    qtbot.waitUntil(lambda: shown.issues.message.text() == f"Saved as {tmp_path / 'issues.csv'}.")
    with (tmp_path / "issues.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 5
    shown.issues.save(tmp_path)
    qtbot.waitUntil(lambda: shown.issues.message.text().startswith(f"Cannot write {tmp_path}: "))
    assert shown.issues.message.property("role") == "error"


# Of each popup, that it can neither come to the front nor take the keyboard.
@pytest.mark.qt_log_ignore("This plugin does not support")
def test_advice_takes_one_line_where_the_tab_is_low_and_a_click_shows_all(shown, data, tmp_path, qtbot) -> None:
    advice, sentences = shown.issues.advice, [f"Class {number} has few images." for number in range(4)]
    long_sentences = [sentence * 30 for sentence in sentences]
    summary = data.summary.model_copy(update={"advice": sentences})
    data.show(DataChecked(path=str(tmp_path), summary=summary, report_path=str(data.report_path)))
    qtbot.waitUntil(advice.whole.isVisible)
    assert advice.whole.text() == "\n".join(sentences)
    assert not advice.more_button.isVisible()
    shown.resize(1256, 160)
    qtbot.waitUntil(lambda: advice.first.isVisible() and not advice.whole.isVisible())
    assert advice.first.whole_text == sentences[0]
    assert advice.more_button.text() == "Advice (4)"
    advice.more_button.setFocus()
    qtbot.keyClick(advice.more_button, Qt.Key.Key_Space)
    popup = advice._popup
    qtbot.waitUntil(popup.isVisible)
    assert popup.words.text() == "\n\n".join(sentences)
    qtbot.keyClick(popup, Qt.Key.Key_Escape)
    assert not popup.isVisible()
    # However long it is, none of it is cut off.
    advice.show_sentences(long_sentences)
    advice.more_button.click()
    qtbot.waitUntil(popup.isVisible)
    assert popup.words.height() >= popup.words.heightForWidth(popup.words.width())
    popup.hide()


def test_the_tab_fits_where_the_window_is_smallest(shown, qtbot) -> None:
    shown.resize(920, 150)
    assert shown.width() == 920
    assert shown.height() <= 160
    table = shown.chart.table
    assert sum(table.columnWidth(column) for column in range(3)) <= table.viewport().width()


def test_thumbnails_are_drawn_in_both_themes(shown, data, themed, qtbot) -> None:
    for scheme, colors in (("light", theme.LIGHT), ("dark", theme.DARK)):
        theme.apply(themed, scheme)
        rect = shown.grid.visualRect(data.images.index(0))
        picture = shown.grid.viewport().grab().toImage()
        ratio = picture.devicePixelRatio()
        pixel = QColor(picture.pixel(rect.center() * ratio))
        assert pixel.red() > 200
        assert pixel.blue() < 60
        corner = QColor(picture.pixel((rect.topLeft() + QPoint(3, 6)) * ratio))
        assert corner == QColor(colors.background)
        mark = QColor(picture.pixel((QPoint(rect.center().x(), rect.bottom() - 4)) * ratio))
        assert mark == QColor(colors.validation)


def test_a_picture_is_read_as_large_as_it_is_drawn(view, data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path)
    make_jpeg(tmp_path / "0.jpg", (800, 400))
    data.show(event)
    qtbot.waitUntil(lambda: has_thumbnails(view, data))
    room = view.grid.visualRect(data.images.index(0)).height() - 10
    pixmap = view.grid.loader.pixmap(str(tmp_path / "0.jpg"))
    assert pixmap.width() == round(room * view.devicePixelRatioF())
    assert pixmap.height() * 2 == pixmap.width()


def test_a_file_that_cannot_be_shown_has_its_suffix_on_its_tile(view, data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path)
    (tmp_path / "0.jpg").write_text("hello")
    data.show(event)
    qtbot.waitUntil(lambda: (read := view.grid.loader.pixmap(str(tmp_path / "0.jpg"))) is not None and read.isNull())
    tile = view.grid.viewport().grab(view.grid.visualRect(data.images.index(0))).toImage()
    middle = [QColor(tile.pixel(x, y)) for x in range(tile.width()) for y in range(20, tile.height() - 20)]
    dim, ground = QColor(theme.LIGHT.dim), QColor(theme.LIGHT.background)
    assert ground in middle
    assert min(abs(color.lightness() - dim.lightness()) for color in middle) < 20


def test_a_file_is_read_again_after_another_check(shown, data, tmp_path, qtbot) -> None:
    event = make_event(tmp_path)
    make_jpeg(tmp_path / "0.jpg", (24, 20), "blue")
    data.show(event)
    qtbot.waitUntil(lambda: has_thumbnails(shown, data))
    image = shown.grid.loader.pixmap(str(tmp_path / "0.jpg")).toImage()
    assert QColor(image.pixel(10, 10)).blue() > 200


def test_a_class_without_any_image_is_an_empty_grid(view, data, tmp_path, qtbot) -> None:
    data.show(make_event(tmp_path, num_per_class=(0, 3, 3)))
    data.choose_class(0)
    assert view._whose.whole_text == "2 · 0 images"
    assert list(view.grid.visible_rows()) == []
    qtbot.keyClick(view.grid, Qt.Key.Key_Down)
    assert view.grid.currentIndex() == QModelIndex()


def test_a_summary_alone_of_nothing_is_shown(view, data, tmp_path) -> None:
    event = make_event(tmp_path, num_per_class=(0, 0, 0))
    empty = DataSummary(layout="class_folders", class_names=["2", "10", "cat"], counts={"train": [0, 0, 0]})
    data.show(event.model_copy(update={"summary": empty}))
    assert view._whose.whole_text == "All classes · 0 images"
    assert view.chart.grab().width() > 0


def test_what_the_model_sees_of_an_image_stands_below_its_picture(shown, data, tmp_path, qtbot) -> None:
    wanted: list[str] = []
    shown.views_wanted.connect(wanted.append)
    place = shown.grid.visualRect(data.images.index(0)).center()
    qtbot.mouseClick(shown.grid.viewport(), Qt.MouseButton.LeftButton, pos=place)
    dialog = shown.dialog
    assert len(wanted) == 1
    assert dialog.views.isHidden()
    views = [
        ImageView(file=make_view(tmp_path, 0, "#ff0000"), epoch=4),
        ImageView(file=make_view(tmp_path, 1, "#00ff00"), epoch=5, num_times=3, mixed_with="cat", mixed_share=0.273),
        ImageView(file="", epoch=6, num_times=0),
    ]
    data.show_views("/another/image.png", views)
    assert dialog.views.isHidden()
    data.show_views(wanted[0], views)
    tiles = dialog.view_tiles
    qtbot.waitUntil(lambda: all(tile.canvas.pixmap is not None for tile in tiles[:2]))
    assert dialog.views_title.text() == "As the model sees it in epochs 4 to 6"
    assert [tile.isVisible() for tile in tiles] == [True] * 3 + [False] * 3
    assert [tile.canvas.pixmap.toImage().pixelColor(5, 5).name() for tile in tiles[:2]] == ["#ff0000", "#00ff00"]
    assert tiles[2].canvas.sentence == "Not drawn in this epoch."
    assert [tile.epoch.whole_text for tile in tiles[:3]] == ["epoch 4", "epoch 5 · 3 ×", "epoch 6"]
    assert [tile.mix.whole_text for tile in tiles[:3]] == ["", "+ 27.3 % cat", ""]
    dialog.show_next(1)
    assert len(wanted) == 2
    assert tiles[0].canvas.pixmap is None
    data.show_views(wanted[1], [ImageView(file=make_view(tmp_path, 2, "#0000ff"), epoch=None)])
    assert dialog.views_title.text() == "As the model sees it, in every epoch"
    assert [tile.isVisible() for tile in tiles] == [True] + [False] * 5


def test_where_nobody_can_tell_what_the_model_sees_a_sentence_says_why(shown, data, tmp_path, qtbot) -> None:
    place = shown.grid.visualRect(data.images.index(0)).center()
    qtbot.mouseClick(shown.grid.viewport(), Qt.MouseButton.LeftButton, pos=place)
    dialog, path = shown.dialog, str(tmp_path / "0.jpg")
    data.refuse_views("/another/image.png", "Of another one.")
    assert dialog.views.isHidden()
    data.refuse_views(path, "No worker is running.")
    assert dialog.views_title.text() == "No worker is running."
    assert dialog.views_title.isVisible()
    assert not dialog.view_tiles[0].isVisible()
    data.show_views(path, [ImageView(file=make_view(tmp_path, 0, "#ff0000"), epoch=1)])
    assert dialog.views_title.text() == "As the model sees it in epoch 1"
    assert dialog.view_tiles[0].isVisible()
    data.refuse_views(path, "No worker is running.")
    dialog.show_next(1)
    assert dialog.views_title.text() == ""


def make_view(folder, number: int, color: str) -> str:
    image = QImage(24, 24, QImage.Format.Format_RGB32)
    image.fill(QColor(color))
    image.save(str(folder / f"view_{number}.png"))
    return str(folder / f"view_{number}.png")
