"""The checkpoint table: order, tags, damage."""

from __future__ import annotations

import math
import time

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QCursor
from PySide6.QtTest import QAbstractItemModelTester, QTest
from PySide6.QtWidgets import QApplication, QMenu, QWidget

from app.viewmodels.checkpoint_columns import (
    ACCURACY,
    EPOCH,
    FROZEN,
    LOSS,
    NUM_COLUMNS,
    RATE,
    SAVED,
    SIZE,
    STAR,
    STEP,
    TAGS,
)
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_order import CheckpointSortModel
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.run_config import RunConfigViewModel
from app.views.checkpoint_dialogs import MarkDialog
from app.views.checkpoints import CheckpointsView
from tests.app.conftest import checkpoint
from trainer.config import CheckpointsConfig


@pytest.fixture
def table(qapp) -> CheckpointItemModel:
    made = CheckpointItemModel()
    made.tester = QAbstractItemModelTester(made, QAbstractItemModelTester.FailureReportingMode.Fatal)
    return made


def make_view(checkpoints: CheckpointItemModel) -> CheckpointsView:
    """Return the view without a model and curves."""
    details = CheckpointDetails(checkpoints, LayerTreeViewModel(), MetricHistory(), RunConfigViewModel())
    return CheckpointsView(checkpoints, details)


def shown_view(qtbot, width: int) -> tuple[CheckpointItemModel, CheckpointsView]:
    """Return a view on screen, and its checkpoints: none yet."""
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    qtbot.addWidget(view)
    view.resize(width, 300)
    view.show()
    return checkpoints, view


def column(model, number: int) -> list[str]:
    return [model.index(row, number).data() for row in range(model.rowCount())]


def test_numbers_are_written_for_people_and_exact_in_the_tooltip(table: CheckpointItemModel) -> None:
    table.add(checkpoint(1, 0.15512345, 0.9721))
    assert column(table, LOSS) == ["0.1551"]
    assert column(table, ACCURACY) == ["97.2 %"]
    assert column(table, SIZE) == ["840 kB"]
    assert table.index(0, LOSS).data(Qt.ItemDataRole.ToolTipRole) == "0.15512345"
    assert table.index(0, SIZE).data(Qt.ItemDataRole.ToolTipRole) == "840,000 bytes"


def test_the_best_has_the_star_and_the_newest_is_tagged_last(table: CheckpointItemModel) -> None:
    table.reset([checkpoint(1, 0.5, 0.8), checkpoint(2, 0.2, 0.97)])
    table.add(checkpoint(3, 0.3, 0.95))
    assert [table.standing(row).is_best for row in range(3)] == [False, True, False]
    assert column(table, TAGS) == ["", "best", "last"]


def test_the_star_says_by_which_metric_it_is_the_best(table: CheckpointItemModel, qtbot) -> None:
    table.reset([checkpoint(1, 0.2, 0.7), checkpoint(2, 0.4, 0.9)])
    tip, spoken = Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole
    assert column(table, TAGS) == ["", "best, last"]
    assert table.index(1, STAR).data(tip) == "The highest validation accuracy so far."
    assert table.index(1, STAR).data(spoken) == "best by accuracy"
    with qtbot.waitSignal(table.dataChanged):
        table.rank_by("loss")
    assert column(table, TAGS) == ["best", "last"]
    for cell in (STAR, TAGS):
        assert table.index(0, cell).data(tip) == "The lowest validation loss so far: the patience watches the loss."
    assert table.index(0, STAR).data(spoken) == "best by loss"
    assert table.index(1, STAR).data(tip) == "checkpoint_tiny_002.pt"
    table.add(checkpoint(3, 0.1, 0.1))
    assert column(table, TAGS) == ["", "", "best, last"]


def test_the_star_is_given_by_the_metric_that_was_chosen_and_says_so(table: CheckpointItemModel) -> None:
    areas = (0.9, 0.8, None)
    listed = [
        checkpoint(epoch, 0.1, 0.9, metrics={} if area is None else {"AUROC/validation": area})
        for epoch, area in enumerate(areas, start=1)
    ]
    table.keep_by(CheckpointsConfig(best_metric="auroc", keep_best=2))
    table.rank_by("auroc")
    table.reset(listed)
    assert column(table, TAGS) == ["best", "among the best 2", "last"]
    assert table.index(0, STAR).data(Qt.ItemDataRole.ToolTipRole) == "The highest validation AUROC so far."
    assert table.index(0, STAR).data(Qt.ItemDataRole.AccessibleTextRole) == "best by AUROC"
    table.add(checkpoint(4, 0.5, 0.5, metrics={"AUROC/validation": 0.95}))
    assert column(table, TAGS) == ["among the best 2", "", "", "best, last"]
    table.keep_by(CheckpointsConfig(best_metric="loss"))
    table.rank_by("loss")
    assert table.index(0, STAR).data(Qt.ItemDataRole.ToolTipRole) == "The lowest validation loss so far."


def test_a_loss_that_is_no_number_is_never_the_best_and_sorts_last(table: CheckpointItemModel) -> None:
    table.reset([checkpoint(1, math.nan, 0.99), checkpoint(2, 0.4, 0.9), checkpoint(3, None, None)])
    assert column(table, TAGS)[1] == "best"
    assert column(table, LOSS) == ["NaN", "0.4000", "–"]
    by_loss = CheckpointSortModel(table)
    by_loss.sort(LOSS, Qt.SortOrder.AscendingOrder)
    assert by_loss.index(0, EPOCH).data() == "2"


def test_what_has_no_value_comes_last_in_both_orders(table: CheckpointItemModel) -> None:
    table.reset([checkpoint(1, math.nan, 0.99), checkpoint(2, 0.4, 0.9), checkpoint(3, None, None)])
    table.add(checkpoint(4, 0.3, 0.5))
    ordered = CheckpointSortModel(table)
    for order, epochs in (
        (Qt.SortOrder.AscendingOrder, ["4", "2", "1", "3"]),
        (Qt.SortOrder.DescendingOrder, ["2", "4", "1", "3"]),
    ):
        ordered.sort(LOSS, order)
        assert column(ordered, EPOCH) == epochs
    table.add(checkpoint(5, 0.35, 0.5))
    table.add(checkpoint(6, None, None))
    assert column(ordered, EPOCH) == ["2", "5", "4", "1", "3", "6"]
    table.remove(["checkpoint_tiny_005.pt", "checkpoint_tiny_001.pt"])
    assert column(ordered, EPOCH) == ["2", "4", "3", "6"]


def test_each_metric_that_a_checkpoint_has_is_a_column(table: CheckpointItemModel) -> None:
    table.add(checkpoint(1, 0.5, 0.8, metrics={"Loss/validation": 0.5, "F1/validation": 0.75}))
    table.add(checkpoint(2, 0.4, 0.9, metrics={"F1/validation": 0.5, "Top-5 accuracy/validation": 0.98}, rate=0.001))
    assert table.headings()[NUM_COLUMNS:] == ("F1", "Top-5")
    assert column(table, NUM_COLUMNS) == ["0.750", "0.500"]
    assert column(table, NUM_COLUMNS + 1) == ["–", "98.0 %"]
    assert column(table, RATE) == ["–", "0.001"]
    by_f1 = CheckpointSortModel(table)
    by_f1.sort(NUM_COLUMNS, Qt.SortOrder.AscendingOrder)
    assert column(by_f1, EPOCH) == ["2", "1"]
    table.reset([checkpoint(1, 0.5, 0.8)])
    assert not table.has_values(NUM_COLUMNS), "the metric of another run"


def test_the_filter_finds_tags_labels_notes_and_what_is_frozen(table: CheckpointItemModel) -> None:
    first = checkpoint(1, 0.5, 0.8, label="Paper figure", note="before the warm-up", is_pinned=True)
    table.reset([first, checkpoint(2, 0.2, 0.97, frozen=["stage4.1"], frozen_summary="stage4.1")])
    shown = CheckpointSortModel(table)
    for text, epochs in (
        ("PAPER", ["1"]), ("warm pinned", ["1"]), ("best", ["2"]), ("stage4", ["2"]), ("_00", ["2", "1"]), ("no", []),
    ):  # fmt: skip
        shown.set_filter(text)
        assert column(shown, EPOCH) == epochs, text
    shown.set_filter("last")
    table.add(checkpoint(3, 0.3, 0.5))
    assert column(shown, EPOCH) == ["3"], "another one is the last now"


def test_columns_sort_by_number_not_by_text(table: CheckpointItemModel) -> None:
    table.reset([checkpoint(epoch, 1.0 / epoch, 0.5, size_bytes=10**epoch) for epoch in (2, 10, 1)])
    by_size = CheckpointSortModel(table)
    by_size.sort(SIZE, Qt.SortOrder.DescendingOrder)
    assert column(by_size, EPOCH) == ["10", "2", "1"]


def test_the_newest_comes_first_to_begin_with(table: CheckpointItemModel) -> None:
    table.reset([checkpoint(1, 0.5, 0.8), checkpoint(2, 0.2, 0.9)])
    assert column(CheckpointSortModel(table), EPOCH) == ["2", "1"]


def test_a_checkpoint_saved_again_replaces_its_row(table: CheckpointItemModel) -> None:
    table.add(checkpoint(1, 0.5, 0.8))
    table.add(checkpoint(1, 0.4, 0.9))
    assert column(table, LOSS) == ["0.4000"]


def test_deleted_checkpoints_leave_the_table_and_the_star_and_the_last_are_found_anew(
    table: CheckpointItemModel,
) -> None:
    table.reset([checkpoint(n, loss, 1 - loss) for n, loss in enumerate((0.5, 0.1, 0.3, 0.4), start=1)])
    names = [info.name for info in table.present.infos]
    table.remove([names[1], names[3], "never_listed.pt"])
    assert column(table, EPOCH) == ["1", "3"]
    assert [table.standing(row).is_best for row in range(2)] == [False, True]
    assert column(table, TAGS) == ["", "best, last"]


def test_the_tags_say_which_rules_keep_a_checkpoint(table: CheckpointItemModel) -> None:
    listed = [checkpoint(n, 1 / n, 0.1 * n) for n in range(1, 7)]
    listed[3:] = [info.model_copy(update={"frozen": [], "frozen_summary": "nothing"}) for info in listed[3:]]
    table.reset(listed)
    assert column(table, TAGS) == [""] * 5 + ["best, last"]
    table.keep_by(CheckpointsConfig(keep_last=2, keep_best=1, every_epochs=2))
    assert column(table, TAGS) == [
        "",
        "one in 2 epochs",
        "before a freeze change",
        "one in 2 epochs",
        "among the last 2",
        "best, last, one in 2 epochs",
    ]
    table.keep_by(CheckpointsConfig())
    assert column(table, TAGS) == [""] * 5 + ["best, last"]


@pytest.mark.parametrize("rules", [CheckpointsConfig(), CheckpointsConfig(keep_last=1, before_changes=False)])
def test_what_is_kept_to_go_on_from_says_so_until_another_one_is(
    table: CheckpointItemModel, rules: CheckpointsConfig
) -> None:
    table.keep_by(rules)
    table.reset([checkpoint(1, 0.5, 0.8), checkpoint(2, 0.2, 0.9), checkpoint(3, 0.3, 0.7)])
    table.show_resume_point("checkpoint_tiny_003.pt")
    assert column(table, TAGS) == ["", "best", "last"], "the last one says that it is"
    table.show_resume_point("checkpoint_tiny_001.pt")
    assert column(table, TAGS) == ["resume point", "best", "last"]
    table.add(checkpoint(4, None, None, reason="periodic"))
    assert column(table, TAGS)[0] == ""
    assert column(table, TAGS)[3] == "last, within an epoch, resume point"
    table.add(checkpoint(5, 0.4, 0.8))
    assert column(table, TAGS)[3:] == ["within an epoch", "last"]


def test_rows_whose_reason_changes_are_drawn_anew(table: CheckpointItemModel) -> None:
    table.reset([checkpoint(n, 0.5, 0.8) for n in range(1, 5)])
    drawn: set[int] = set()
    table.dataChanged.connect(lambda first, last: drawn.update(range(first.row(), last.row() + 1)))
    table.show_resume_point("checkpoint_tiny_002.pt")
    assert drawn == {1}
    table.show_resume_point("checkpoint_tiny_003.pt")
    assert drawn == {1, 2}
    drawn.clear()
    table.add(checkpoint(5, 0.6, 0.7))
    assert {2, 3} <= drawn
    assert not {0, 1} & drawn, "where nothing thins, thousands of rows stay as they are"


def test_under_a_disk_budget_alone_each_says_what_it_is_kept_for(table: CheckpointItemModel) -> None:
    listed = [checkpoint(n, 1 / n, 0.1 * n) for n in range(1, 6)]
    listed[0] = listed[0].model_copy(update={"is_pinned": True})
    listed[3:] = [info.model_copy(update={"frozen": [], "frozen_summary": "nothing"}) for info in listed[3:]]
    table.reset(listed)
    table.keep_by(CheckpointsConfig(disk_gb=1))
    assert column(table, TAGS) == [
        "pinned",
        "while there is room",
        "before a freeze change",
        "while there is room",
        "best, last",
    ]
    table.show_resume_point("checkpoint_tiny_002.pt")
    assert column(table, TAGS)[1] == "resume point"
    drawn: set[int] = set()
    table.dataChanged.connect(lambda first, last: drawn.update(range(first.row(), last.row() + 1)))
    table.add(checkpoint(6, 0.01, 0.9, frozen=[]))
    assert drawn >= set(range(6)), "any of them may be kept for another reason now"
    assert column(table, TAGS)[4:] == ["while there is room", "best, last"]
    table.add(checkpoint(7, None, None, reason="periodic"))
    table.add(checkpoint(8, None, None, reason="periodic"))
    table.rank_by("loss")
    assert column(table, TAGS)[5:] == [
        "best, last of an epoch",
        "within an epoch",
        "last, within an epoch, resume point",
    ]


def test_damage_is_shown_with_what_is_wrong(table: CheckpointItemModel) -> None:
    table.reset([checkpoint(1, 0.5, 0.8), checkpoint(2, 0.6, 0.7)])
    table.show_problems({"checkpoint_tiny_001.pt": "file is missing", "checkpoint_tiny_002.pt": ""})
    assert column(table, TAGS) == ["damaged: file is missing, best", "last"]
    assert table.standing(0).is_damaged
    assert not table.standing(1).is_damaged


def test_what_the_run_left_behind_is_said_among_the_tags_until_it_is_on_its_way_again(
    table: CheckpointItemModel,
) -> None:
    for epoch in (1, 2, 3):
        table.add(checkpoint(epoch, 0.5, 0.8))
    left = {f"checkpoint_tiny_00{epoch}.pt" for epoch in (2, 3)}
    table.show_left_behind(left)
    assert column(table, TAGS) == ["best", "left behind", "last, left behind"]
    assert [table.standing(row).is_left_behind for row in range(3)] == [False, True, True]
    shown = CheckpointSortModel(table)
    for text in ("left behind", '"left behind"', "“left behind” epoch>1"):
        shown.set_filter(text)
        assert column(shown, EPOCH) == ["3", "2"]
    table.show_left_behind(set())
    assert column(table, TAGS) == ["best", "", "last"]


def test_ages_are_told_anew(table: CheckpointItemModel, qtbot) -> None:
    table.add(checkpoint(1, 0.5, 0.8, saved_at=time.time() - 3700))
    assert column(table, SAVED) == ["61 min ago"]
    with qtbot.waitSignal(table.dataChanged):
        table.refresh_ages()


@pytest.mark.window
def test_only_a_whole_checkpoint_can_be_restored(qtbot, themed, tmp_path) -> None:
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    qtbot.addWidget(view)
    view.allow(restore=True, resume=True, weights=True)
    assert not view._restore.isEnabled()
    checkpoints.reset([checkpoint(1, 0.5, 0.8), checkpoint(2, 0.6, 0.7)])
    assert view.selected_name == "checkpoint_tiny_002.pt"
    assert view._restore.isEnabled()
    assert view._resume.isEnabled()
    with qtbot.waitSignal(view.restore_requested) as asked:
        view._restore.click()
    assert asked.args == ["checkpoint_tiny_002.pt"]
    checkpoints.show_problems({"checkpoint_tiny_002.pt": "file was altered"})
    assert not view._restore.isEnabled()


@pytest.mark.window
def test_the_weights_alone_are_asked_for_where_the_run_can_take_them(qtbot, themed, tmp_path) -> None:
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    qtbot.addWidget(view)
    checkpoints.reset([checkpoint(1, 0.5, 0.8)])
    action = view._restore_weights
    view.allow(restore=True, resume=False, weights=False)
    assert not action.isEnabled()
    view.allow(restore=True, resume=False, weights=True)
    with qtbot.waitSignal(view.weights_requested) as asked:
        action.trigger()
    assert asked.args == ["checkpoint_tiny_001.pt"]


@pytest.mark.window
def test_the_selection_follows_the_newest_until_the_user_chooses(qtbot, themed) -> None:
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    qtbot.addWidget(view)
    checkpoints.add(checkpoint(1, 0.5, 0.8))
    checkpoints.add(checkpoint(2, 0.6, 0.7))
    assert view.selected_name == "checkpoint_tiny_002.pt"
    view._table.clicked.emit(view._table.model().index(1, 0))
    view._table.selectRow(1)
    checkpoints.add(checkpoint(3, 0.6, 0.7))
    assert view.selected_name == "checkpoint_tiny_001.pt"


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_rows_that_a_run_adds_do_not_move_those_under_the_pointer(qtbot, themed) -> None:
    checkpoints, view = shown_view(qtbot, width=900)
    table = view._table
    checkpoints.reset([checkpoint(epoch, 0.5, 0.8) for epoch in range(1, 41)])
    QApplication.processEvents()

    def name_at(place: QPoint) -> str:
        return table.sorted.key_at(table.indexAt(place).row()).name

    place = table.visualRect(table.sorted.index(2, 1)).center()
    pointed = name_at(place)
    point_at(table.viewport(), place)
    qtbot.waitUntil(table.viewport().underMouse)
    for epoch in (41, 42):
        checkpoints.add(checkpoint(epoch, 0.5, 0.8))
        QApplication.processEvents()
        assert name_at(place) == pointed
    assert view.selected_name == "checkpoint_tiny_040.pt"
    point_at(view, view.rect().bottomRight() - QPoint(2, 2))
    qtbot.waitUntil(lambda: view.selected_name == "checkpoint_tiny_042.pt")
    assert table.verticalScrollBar().value() == 0
    # Nor where the row that was chosen would be out of sight on the way to the buttons.
    point_at(table.viewport(), place)
    qtbot.waitUntil(table.viewport().underMouse)
    for epoch in range(50, 80):
        checkpoints.add(checkpoint(epoch, 0.5, 0.8))
    QApplication.processEvents()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    chosen, offset = name_at(place), table.verticalScrollBar().value()
    point_at(view, view.rect().bottomRight() - QPoint(2, 2))
    qtbot.waitUntil(lambda: not table.viewport().underMouse())
    assert (view.selected_name, table.verticalScrollBar().value()) == (chosen, offset)
    # Where the user has scrolled, leaving does not scroll.
    point_at(table.viewport(), place)
    qtbot.waitUntil(table.viewport().underMouse)
    table.verticalScrollBar().setValue(300)
    pointed = name_at(place)
    checkpoints.add(checkpoint(43, 0.5, 0.8))
    QApplication.processEvents()
    assert name_at(place) == pointed
    offset = table.verticalScrollBar().value()
    view._has_chosen = True
    point_at(view, view.rect().bottomRight() - QPoint(2, 2))
    qtbot.waitUntil(lambda: not table.viewport().underMouse())
    assert table.verticalScrollBar().value() == offset


def point_at(widget: QWidget, place: QPoint) -> None:
    """Have the pointer be somewhere, and the widgets hear of it."""
    QCursor.setPos(widget.mapToGlobal(place))
    QTest.mouseMove(widget, place - QPoint(1, 0))
    QTest.mouseMove(widget, place)


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_what_is_frozen_has_the_room_that_the_tags_can_spare_until_a_width_is_chosen(qtbot, themed) -> None:
    checkpoints, view = shown_view(qtbot, width=1230)
    table = view._table
    checkpoints.reset([checkpoint(1, 0.5, 0.8)])
    QApplication.processEvents()
    narrow = table.columnWidth(FROZEN)
    long = "conv1, maxpool, stage2, stage3, stage4.0, stage4.1"
    checkpoints.add(checkpoint(2, 0.4, 0.8, frozen_summary=long))
    wide = table.columnWidth(FROZEN)
    assert wide > narrow
    assert table.fontMetrics().elidedText(long, Qt.TextElideMode.ElideMiddle, wide - 16) == long
    # Other numbers, and less that is frozen, leave the widths as they are.
    checkpoints.add(checkpoint(300, 123.4, 0.8))
    assert table.columnWidth(FROZEN) == wide
    checkpoints.add(checkpoint(301, 0.4, 0.8, frozen_summary=", ".join([long] * 5)))
    tags = table.fontMetrics().horizontalAdvance("best, last, saved at the stop")
    assert table.columnWidth(FROZEN) > wide
    assert table.columnWidth(TAGS) >= tags + 16
    table.horizontalHeader().resizeSection(FROZEN, 250)
    checkpoints.add(checkpoint(302, 0.4, 0.8))
    view.resize(1800, 300)
    QApplication.processEvents()
    assert table.columnWidth(FROZEN) == 250


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_metrics_have_columns_where_there_is_room_or_where_they_were_chosen(qtbot, themed) -> None:
    checkpoints, view = shown_view(qtbot, width=1230)
    table, f1, auroc = view._table, NUM_COLUMNS, NUM_COLUMNS + 1
    QApplication.processEvents()
    checkpoints.reset([checkpoint(1, 0.5, 0.8, metrics={"F1/validation": 0.7, "AUROC/validation": 0.9}, rate=0.001)])
    assert not table.isColumnHidden(f1)
    header = table.horizontalHeader()
    shown = [header.visualIndex(number) for number in (ACCURACY, f1, auroc, RATE, FROZEN)]
    assert shown == sorted(shown)
    view.resize(800, 300)
    QApplication.processEvents()
    assert [table.isColumnHidden(number) for number in (LOSS, f1, auroc, RATE)] == [False, True, True, True]
    menu = table.make_column_menu(view)
    actions = {action.text(): action for action in menu.actions()}
    actions["AUROC"].trigger()
    actions["Loss"].trigger()
    assert checkpoints.columns == {"AUROC": True, "loss": False}
    assert [table.isColumnHidden(number) for number in (LOSS, f1, auroc, RATE)] == [True, True, False, True]
    actions["By the room there is"].trigger()
    assert [table.isColumnHidden(number) for number in (LOSS, auroc)] == [False, True]
    menu.deleteLater()


@pytest.mark.window
def test_the_selection_survives_a_filter_and_a_removal(qtbot, themed) -> None:
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    qtbot.addWidget(view)
    checkpoints.reset([checkpoint(epoch, 0.5, 0.8) for epoch in (1, 2, 3, 4)])
    view._table.select_keys([checkpoints.present.key("checkpoint_tiny_002.pt")])
    view._table.clicked.emit(view._table.currentIndex())
    view.filter_box.setText("00")
    checkpoints.remove(["checkpoint_tiny_001.pt"])
    assert view.selected_name == "checkpoint_tiny_002.pt"
    checkpoints.remove(["checkpoint_tiny_002.pt"])
    assert view.selected_name == "checkpoint_tiny_004.pt"
    view.filter_box.setText("nothing has this")
    assert view.selected_name is None
    assert not view._restore.isEnabled()


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_keys_pin_mark_and_delete_what_is_selected(qtbot, themed) -> None:
    checkpoints, view = shown_view(qtbot, width=1230)
    first, second = (checkpoint(epoch, 0.5, 0.8, size_bytes=600_000) for epoch in (1, 2))
    checkpoints.reset([first, second])
    view.activateWindow()
    view._table.setFocus()
    qtbot.waitUntil(view._table.hasFocus)
    assert view._delete.text() == "Delete, 600 kB"
    view._table.clearSelection()
    assert (view._delete.text(), view._delete.isEnabled()) == ("Delete", False)
    view._table.selectRow(0)
    with qtbot.waitSignal(view.pin_requested) as pinned:
        qtbot.keyClick(view._table, Qt.Key.Key_P)
    assert pinned.args == [[second.name], True]
    checkpoints.add(second.model_copy(update={"is_pinned": True, "label": "figure 3", "note": "before the warm-up"}))
    assert column(view._table.sorted, TAGS) == ["figure 3, last, pinned", "best"]
    assert view._pin.text() == "Unpin"
    qtbot.keyClick(view._table, Qt.Key.Key_F2)
    dialog = view.findChild(MarkDialog)
    assert (dialog.label.text(), dialog.note.toPlainText()) == ("figure 3", "before the warm-up")
    dialog.note.setPlainText("after it")
    with qtbot.waitSignal(view.mark_requested) as marked:
        qtbot.keyClick(dialog.label, Qt.Key.Key_Return)
    assert marked.args == [second.name, "figure 3", "after it"]
    assert view._delete.text() == "Delete (it is pinned)"
    assert not view._delete.isEnabled()
    view._table.selectAll()
    assert view._delete.text() == "Delete 1 of 2 checkpoints, 600 kB; the pinned ones stay"
    with qtbot.waitSignal(view.delete_requested) as deleted:
        qtbot.keyClick(view._table, Qt.Key.Key_Delete)
    assert sorted(deleted.args[0]) == sorted([first.name, second.name]), "what stays is told by whoever deletes"
    checkpoints.add(second)
    assert view._delete.text() == "Delete 2 checkpoints, 1.2 MB"
    assert not view._mark.isEnabled()
    assert not view._restore.isEnabled()
    with qtbot.waitSignal(view.delete_requested) as deleted:
        qtbot.keyClick(view._table, Qt.Key.Key_Delete)
    assert sorted(deleted.args[0]) == [first.name, second.name]


@pytest.mark.window
@pytest.mark.qt_log_ignore("This plugin does not support")
def test_columns_without_room_are_counted_at_the_end_of_the_header_and_chosen_there(qtbot, themed) -> None:
    checkpoints, view = shown_view(qtbot, width=1130)
    table, button = view._table, view._table.columns_button
    checkpoints.reset([checkpoint(1, 0.5, 0.8)])
    QApplication.processEvents()
    assert not button.isVisible()
    checkpoints.add(checkpoint(2, 0.4, 0.8, rate=1e-3, metrics={"F1/validation": 0.9}))
    assert (button.isVisible(), button.text()) == (True, "+2")
    assert button.toolTip() == "Not shown: Rate, F1. Choose the columns."
    view.resize(660, 300)
    QApplication.processEvents()
    assert button.text() == "+5"
    assert table.isColumnHidden(STEP)
    assert not table.horizontalScrollBar().isVisible()
    assert button.geometry().right() == table.horizontalHeader().rect().right()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    menu = table.findChild(QMenu)
    next(action for action in menu.actions() if action.text() == "Step").trigger()
    assert not table.isColumnHidden(STEP)
    menu.close()


def test_the_first_click_on_a_heading_puts_the_best_or_the_newest_first(table: CheckpointItemModel) -> None:
    role, horizontal = Qt.ItemDataRole.InitialSortOrderRole, Qt.Orientation.Horizontal
    rows = CheckpointSortModel(table)
    assert rows.headerData(ACCURACY, horizontal, role) is Qt.SortOrder.DescendingOrder
    assert rows.headerData(SAVED, horizontal, role) is Qt.SortOrder.DescendingOrder
    assert rows.headerData(LOSS, horizontal, role) is Qt.SortOrder.AscendingOrder
