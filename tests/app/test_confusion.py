"""Which classes are taken for which: the figures, what the window reads of a run, and what the tab shows of it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAccessible, QColor, QImage

from app import theme
from app.confusion import MAX_PAIRS, ConfusedPair, read_off
from app.viewmodels.confusion import ConfusionViewModel
from app.viewmodels.confusion_items import COUNT, NAME, PRECISION, RECALL, SHARE, TRUE
from app.views.confusion import ConfusionView
from tests.app.conftest import checkpoint
from tests.app.test_session import write_run
from tests.app.test_theme import contrast
from trainer.messages.run_info import ConfusionMatrix
from trainer.runs import RunFolder

# The offscreen platform says so of every window whose least size changes.
pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints")
DIGITS = [[18, 2, 0], [1, 29, 0], [5, 4, 41]]
"""Of three classes: 20, 30 and 50 images."""


def matrix(counts: list[list[int]], step: int = 45, split: str = "validation") -> ConfusionMatrix:
    names = ["zero", "one", "two"] if len(counts) == 3 else [f"class {idx}" for idx in range(len(counts))]
    name = f"checkpoint_tiny_{step // 45:03}.pt"
    return ConfusionMatrix(split=split, checkpoint=name, step=step, class_names=names, counts=counts)


@pytest.fixture
def run_dir(tmp_path: Path, run_info) -> Path:
    return write_run(tmp_path / "runs", run_info)


@pytest.fixture
def shown(qtbot, themed, run_dir: Path) -> ConfusionView:
    """Return the tab with the matrix of three classes."""
    keep(run_dir, matrix(DIGITS))
    return show(qtbot, run_dir)


def keep(run_dir: Path, confusion: ConfusionMatrix, accuracy: float = 0.95) -> None:
    with RunFolder(run_dir) as folder:
        folder.checkpoints.add(checkpoint(confusion.step // 45, 0.4, accuracy), confusion)


def show(qtbot, run_dir: Path) -> ConfusionView:
    view = ConfusionView(ConfusionViewModel())
    view._confusion.setParent(view)
    qtbot.addWidget(view)
    view.resize(1200, 300)
    view.show()
    view._confusion.follow(run_dir)
    qtbot.waitUntil(lambda: view._confusion.confusion is not None)
    return view


def column_texts(model, column: int) -> list[str]:
    return [model.index(row, column).data() for row in range(model.rowCount())]


# -- figures ----------------------------------------------------------------------------------------------------


def test_recall_precision_and_f1_are_those_of_their_definitions() -> None:
    confusion = read_off(matrix(DIGITS))
    assert confusion.recall == pytest.approx([18 / 20, 29 / 30, 41 / 50])
    assert confusion.precision == pytest.approx([18 / 24, 29 / 35, 41 / 41])
    harmonic = [2 * r * p / (r + p) for r, p in zip(confusion.recall, confusion.precision, strict=True)]
    assert confusion.f1 == pytest.approx(harmonic)
    assert confusion.accuracy == pytest.approx(88 / 100)


def test_a_class_without_images_has_no_recall_and_one_that_nothing_was_taken_for_no_precision() -> None:
    confusion = read_off(matrix([[3, 0, 1], [0, 0, 0], [2, 0, 4]]))
    assert math.isnan(confusion.recall[1])
    assert math.isnan(confusion.precision[1])
    assert np.isfinite(confusion.recall[[0, 2]]).all()


def test_of_the_pairs_the_most_frequent_come_first_and_the_rare_ones_are_only_counted() -> None:
    assert read_off(matrix(DIGITS)).pairs == [
        ConfusedPair(2, 0, 5),
        ConfusedPair(2, 1, 4),
        ConfusedPair(0, 1, 2),
        ConfusedPair(1, 0, 1),
    ]
    counts = np.ones((60, 60), np.int64)
    counts[7, 3] = 9
    many = read_off(matrix(counts.tolist()))
    assert many.pairs[0] == ConfusedPair(7, 3, 9)
    assert (len(many.pairs), many.num_pairs) == (MAX_PAIRS, 60 * 59)


# -- what is read -----------------------------------------------------------------------------------------------


def test_nothing_is_read_while_nobody_looks(qtbot, run_dir: Path) -> None:
    keep(run_dir, matrix(DIGITS))
    confusion = ConfusionViewModel()
    confusion.follow(run_dir)
    assert confusion._last_query is None
    confusion.want(is_wanted=True)
    qtbot.waitUntil(lambda: confusion.confusion is not None)


@pytest.mark.window
def test_the_best_the_latest_and_the_test_split_can_be_chosen(qtbot, shown: ConfusionView, run_dir: Path) -> None:
    keep(run_dir, matrix([[1, 19, 0], [0, 30, 0], [0, 0, 50]], step=90), accuracy=0.9)
    confusion = shown._confusion
    qtbot.mouseClick(shown.button("latest"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: confusion.confusion.step == 90)
    assert confusion.title() == "81.0 % of 100 validation images right · step 90 · checkpoint_tiny_002.pt"
    qtbot.mouseClick(shown.button("test"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "no confusion matrix of a test split" in shown.sentence.text())
    assert shown.sentence.isVisible()
    assert not shown._export_button.isEnabled()
    with RunFolder(run_dir) as folder:
        folder.checkpoints.keep_test_confusion(matrix(DIGITS, split="test"))
    # As the run's last state makes it.
    confusion.follow(run_dir)
    qtbot.waitUntil(lambda: confusion.confusion is not None)
    assert confusion.title().startswith("88.0 % of 100 test images right")
    qtbot.mouseClick(shown.button("best"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: confusion.confusion.split == "validation" and confusion.confusion.step == 45)


@pytest.mark.window
def test_the_next_epoch_leaves_the_chosen_cell_where_it_is(qtbot, shown: ConfusionView, run_dir: Path) -> None:
    shown._confusion.choose_cell(2, 0)
    keep(run_dir, matrix([[20, 0, 0], [0, 30, 0], [9, 0, 41]], step=90), accuracy=0.99)
    shown._confusion.follow(run_dir)
    qtbot.waitUntil(lambda: shown._confusion.confusion.step == 90)
    assert (shown.map.currentIndex().row(), shown.map.currentIndex().column()) == (2, 0)
    assert shown._cell_text.whole_text == "two taken for zero: 9 of 50 (18.0 %)"
    assert shown.pairs.currentIndex().row() == 0


@pytest.mark.window
def test_another_run_leaves_nothing_of_the_last_one(qtbot, shown: ConfusionView) -> None:
    shown._confusion.follow(None)
    assert shown._confusion.matrix.rowCount() == shown.pairs.model().rowCount() == 0
    assert "after the first epoch's validation" in shown.sentence.text()


# -- what is shown ----------------------------------------------------------------------------------------------


@pytest.mark.window
def test_a_cell_is_read_out_as_a_sentence(qtbot, shown: ConfusionView) -> None:
    table = QAccessible.queryAccessibleInterface(shown.map)
    cells = [table.child(idx).text(QAccessible.Text.Name) for idx in range(table.childCount())]
    # With a cell for each heading, and one for the corner.
    assert len(cells) == 4 * 4
    assert "two taken for zero: 5 of 50 (10.0 %)" in cells
    index = shown.map.model().index(2, 0)
    assert index.data(Qt.ItemDataRole.ToolTipRole) == "two taken for zero: 5 of 50 (10.0 %)"


@pytest.mark.window
def test_the_keys_walk_over_the_cells_and_the_lists_follow(qtbot, shown: ConfusionView) -> None:
    shown.map.setFocus()
    shown._confusion.choose_cell(0, 0)
    assert shown.classes.currentIndex().data() == "zero"
    # Wherever the pointer rests.
    shown.map.cell_pointed.emit(shown.map.model().index(2, 2))
    assert shown._cell_text.whole_text.startswith("two ")
    qtbot.keyClick(shown.map, Qt.Key.Key_Right)
    assert shown._confusion.cell == (0, 1)
    assert shown._cell_text.whole_text == "zero taken for one: 2 of 20 (10.0 %)"
    assert shown.pairs.currentIndex().data() == "zero"
    assert not shown.classes.selectionModel().hasSelection()


@pytest.mark.window
def test_a_row_of_a_list_points_at_its_cell(qtbot, shown: ConfusionView) -> None:
    shown.pairs.selectRow(0)
    assert shown._confusion.cell == (2, 0)
    assert (shown.map.currentIndex().row(), shown.map.currentIndex().column()) == (2, 0)
    shown.classes.selectRow(1)
    assert shown._confusion.cell == (1, 1)


@pytest.mark.window
def test_the_lists_are_sorted_by_their_numbers_and_what_has_none_comes_last(qtbot, themed, run_dir: Path) -> None:
    keep(run_dir, matrix([[2, 8, 0], [1, 99, 0], [0, 0, 0]]))
    view = show(qtbot, run_dir)
    assert column_texts(view.pairs.model(), COUNT) == ["8", "1"]
    view.pairs.sortByColumn(SHARE, Qt.SortOrder.AscendingOrder)
    assert column_texts(view.pairs.model(), TRUE) == ["one", "zero"]
    assert column_texts(view.pairs.model(), SHARE) == ["1.0 %", "80.0 %"]
    for order in (Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder):
        view.classes.sortByColumn(RECALL, order)
        assert column_texts(view.classes.model(), RECALL)[-1] == "–"
    view.classes.sortByColumn(NAME, Qt.SortOrder.DescendingOrder)
    assert column_texts(view.classes.model(), NAME) == ["two", "one", "zero"]
    assert column_texts(view.classes.model(), PRECISION)[0] == "–"


@pytest.mark.window
def test_what_was_right_and_what_was_not_have_colours_of_their_own(qtbot, shown: ConfusionView) -> None:
    picture = shown.map.viewport().grab().toImage()
    right, wrong, nothing = (color_in(shown, picture, *cell) for cell in ((1, 1), (2, 0), (0, 2)))
    assert right.blue() > right.red()
    assert wrong.red() > wrong.blue()
    assert nothing == QColor(theme.LIGHT.background)


def color_in(view: ConfusionView, picture: QImage, row: int, column: int) -> QColor:
    place = view.map.visualRect(view.map.model().index(row, column)).topLeft() + QPoint(3, 3)
    return picture.pixelColor(place * picture.devicePixelRatio())


@pytest.mark.window
@pytest.mark.parametrize("num_classes", [2, 24, 200, 1000])
def test_every_number_of_classes_is_shown_and_can_be_enlarged_to_its_numbers(
    qtbot, themed, run_dir: Path, num_classes: int
) -> None:
    counts = np.eye(num_classes, dtype=np.int64) * 40
    counts[1, 0] = 10
    keep(run_dir, matrix(counts.tolist()))
    view = show(qtbot, run_dir)
    assert view.map.has_numbers == (num_classes <= 24)
    view.pairs.selectRow(0)
    for _ in range(20):
        qtbot.keyClick(view.map, Qt.Key.Key_Plus)
    assert view.map.has_numbers
    picture = view.map.viewport().grab().toImage()
    wrong = color_in(view, picture, 1, 0)
    assert wrong.red() > wrong.blue()
    names = view.map.verticalHeader()
    assert names.isVisible()
    assert names.sectionSize(0) == view.map.verticalHeader().defaultSectionSize() >= 16


@pytest.mark.window
def test_a_matrix_is_saved_as_csv_and_a_folder_that_takes_none_gives_a_sentence(
    qtbot, shown: ConfusionView, tmp_path: Path
) -> None:
    shown.export(tmp_path / "matrix.csv", shown._confusion.matrix_rows)
    qtbot.waitUntil(lambda: shown._message.whole_text.startswith("Exported to"))
    with (tmp_path / "matrix.csv").open(encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == ["class, taken for", "zero", "one", "two"]
    assert rows == [[name, *map(str, row)] for name, row in zip(["zero", "one", "two"], DIGITS, strict=True)]
    shown.export(tmp_path / "absent" / "classes.csv", shown._confusion.class_rows)
    qtbot.waitUntil(lambda: "Cannot write" in shown._message.whole_text)


@pytest.mark.parametrize("colors", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_a_number_reads_on_every_heat(colors: theme.Palette) -> None:
    for is_right in (True, False):
        for ground in theme.heat_scale(colors, is_right=is_right):
            assert contrast(theme.text_on(ground).name(), ground.name()) >= 4.5
