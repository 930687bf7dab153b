"""Comparing checkpoints: what is read off what was found, and the window that shows it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QColor, QGuiApplication, QImage
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QWidget

from app import theme
from app.comparison import by_distance, count_changes, layers_at, metric_rows, num_right
from app.viewmodels import compared_layers as columns
from app.viewmodels.checkpoint_columns import difference_text
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.comparison import ComparisonViewModel
from app.viewmodels.comparison_items import IsBetterRole
from app.viewmodels.frozen_layers import LayerState
from app.viewmodels.setting_words import setting_name, setting_text
from app.views.compared_rows import rows_text
from app.views.comparison import ComparisonDialog
from tests.app.conftest import checkpoint
from tests.app.test_checkpoint_table import make_view
from tests.app.test_session import write_run
from trainer.messages.comparison import (
    CheckpointsCompared,
    ComparedCheckpoint,
    ComparedConfusion,
    ComparedLayer,
    ConfusionCounts,
    LayerDistance,
    SettingDifference,
)
from trainer.messages.events import PreparationProgressed

# The offscreen platform says so of every window whose least size changes.
pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints")


def distance(relative: float, *, is_frozen: bool = False, num_compared: int = 10) -> LayerDistance:
    return LayerDistance(
        distance=2 * relative,
        relative=relative,
        cosine=1 - relative,
        num_compared=num_compared,
        is_equal=not relative,
        is_frozen=is_frozen,
    )


def layer(fqn: str, *relatives: float | None, is_frozen: bool = False) -> ComparedLayer:
    distances = [None if each is None else distance(each, is_frozen=is_frozen) for each in relatives]
    return ComparedLayer(
        fqn=fqn, type="Conv2d" if fqn else "Tiny", num_values=10, norm=2, is_frozen=is_frozen, distances=distances
    )


def found(**changes: object) -> CheckpointsCompared:
    """Return a comparison of three checkpoints: conv1 is frozen, and the third is of a model without stage2.1."""
    infos = [
        checkpoint(1, 0.5, 0.80, metrics={"Loss/validation": 0.5, "Accuracy/validation": 0.80, "F1/validation": 0.7}),
        checkpoint(2, 0.4, 0.85, metrics={"Loss/validation": 0.4, "Accuracy/validation": 0.85, "F1/validation": 0.7}),
        checkpoint(3, 0.6, 0.80),
    ]
    values: dict[str, object] = {
        "checkpoints": [
            ComparedCheckpoint(title=f"epoch {info.epoch}", run_dir="/runs/a", info=info) for info in infos
        ],
        "layers": [
            layer("", 0.2, 0.3),
            layer("conv1", 0.0, 0.0, is_frozen=True),
            layer("stage2", 0.1, 0.4),
            layer("stage2.0", 0.05, 0.4),
            layer("stage2.1", 0.15, None),
            layer("fc", 0.3, 0.1),
        ],
        "layers_problem": "",
        "settings": [SettingDifference(name="checkpoint.rate", values=[1e-3, 1e-3, 1e-4])],
        "confusion": ComparedConfusion(
            class_names=["cat", "dog"],
            matrices=[
                ConfusionCounts(cells=[0, 1, 3], counts=[8, 2, 10]),
                ConfusionCounts(cells=[0, 2, 3], counts=[10, 3, 7]),
                None,
            ],
            problems=["", "", "There are no images any more."],
        ),
        **changes,
    }
    return CheckpointsCompared.model_validate(values)


# -- figures ------------------------------------------------------------------------------------------------------


def test_a_lower_loss_and_a_higher_accuracy_are_better_and_equal_ones_are_neither() -> None:
    rows = {row.tag: row for row in metric_rows(found())}
    assert list(rows) == ["Loss/validation", "Accuracy/validation", "F1/validation"]
    loss, accuracy, f1 = rows.values()
    assert (loss.difference(0), loss.difference(1)) == (None, pytest.approx(-0.1))
    assert [loss.is_better(column) for column in range(3)] == [None, True, False]
    assert [accuracy.is_better(column) for column in range(3)] == [None, True, None]
    assert f1.values == [0.7, 0.7, None]
    assert [f1.is_better(column) for column in range(3)] == [None, None, None]


def test_layers_are_cut_at_a_depth_and_the_furthest_comes_first() -> None:
    layers = found().layers
    assert [each.fqn for each in layers_at(layers, None)] == ["conv1", "stage2.0", "stage2.1", "fc"]
    assert [each.fqn for each in layers_at(layers, 1)] == ["conv1", "stage2", "fc"]
    assert [each.fqn for each in by_distance(layers_at(layers, None))] == ["stage2.0", "fc", "stage2.1", "conv1"]
    broken = layer("broken", math.nan, 0.0)
    assert by_distance([*layers, broken])[0] is broken


def test_changes_of_a_confusion_matrix_are_better_where_more_is_right_or_less_is_wrong() -> None:
    first, other = found().confusion.matrices[:2]
    assert first is not None
    assert other is not None
    assert (num_right(first, 2), num_right(other, 2)) == ((18, 20), (17, 20))
    changes = count_changes(first, other, 2)
    assert [(*change, change.is_better) for change in changes] == [
        (1, 0, 0, 3, False),
        (1, 1, 10, 7, False),
        (0, 0, 8, 10, True),
        (0, 1, 2, 0, True),
    ]


# -- the window ---------------------------------------------------------------------------------------------------


@pytest.fixture
def host(qtbot, themed) -> QWidget:
    host = QWidget()
    qtbot.addWidget(host)
    return host


@pytest.fixture
def dialog(qtbot, host: QWidget) -> ComparisonDialog:
    """Return a window that waits for what is found."""
    dialog = ComparisonDialog(ComparisonViewModel(), host)
    dialog.show()
    return dialog


def take(qtbot, dialog: ComparisonDialog, compared: CheckpointsCompared) -> None:
    """Show what was found, and wait for the map."""
    dialog._comparison.take(compared)
    qtbot.waitUntil(lambda: dialog._comparison.matrix.difference is not None)


def texts(items, parent: QModelIndex | None = None) -> list[list[str]]:
    """Return the cells of the rows of an item model, or of those below one of them."""
    parent = parent or QModelIndex()
    return [
        [items.index(row, column, parent).data() for column in range(items.columnCount())]
        for row in range(items.rowCount(parent))
    ]


def test_metrics_say_the_difference_with_its_sign_and_whether_it_is_better(dialog: ComparisonDialog) -> None:
    dialog._comparison.take(found())
    metrics = dialog.metrics.model()
    headings = [metrics.headerData(column, Qt.Orientation.Horizontal) for column in range(metrics.columnCount())]
    assert headings == ["Validation", "epoch 1 (reference)", "epoch 2", "difference", "epoch 3", "difference"]
    assert texts(metrics) == [
        ["Loss", "0.5000", "0.4000", "▲ −0.1000 better", "0.6000", "▼ +0.1000 worse"],
        ["Accuracy", "80.0 %", "85.0 %", "▲ +5.0 points better", "80.0 %", "the same"],
        ["F1", "0.700", "0.700", "the same", "–", ""],
    ]


def test_frozen_layers_read_0_with_the_snowflake_and_bars_go_by_the_furthest(dialog: ComparisonDialog) -> None:
    dialog._comparison.take(found())
    layers = dialog._comparison.layers
    QAbstractItemModelTester(layers, QAbstractItemModelTester.FailureReportingMode.Fatal, dialog)
    assert texts(layers) == [
        ["conv1", "", "0", "1.0000", "10", "equal"],
        ["stage2", "", "10 %", "0.9000", "10", ""],
        ["fc", "", "30 %", "0.7000", "10", ""],
    ]
    conv1, stage2, fc = (layers.index(row, columns.MOVED).data(columns.CELL_ROLE) for row in range(3))
    assert (conv1.state, conv1.bar) == (LayerState.FROZEN, 0)
    assert (fc.state, fc.bar) == (LayerState.TRAINABLE, 1)
    assert stage2.bar == pytest.approx(1 / 3)
    assert layers.index(0, columns.STATE).data(Qt.ItemDataRole.AccessibleTextRole) == "frozen in both"
    assert texts(layers, layers.index(1, 0))[1][2] == "15 %"
    assert dialog._comparison.layers_title() == "epoch 2 against epoch 1: moved by 20 %, cosine 0.8000"


def test_another_checkpoint_is_chosen_and_the_layers_and_mistakes_are_its(qtbot, dialog: ComparisonDialog) -> None:
    take(qtbot, dialog, found())
    assert dialog.map.isVisible()
    assert [dialog.choice.itemText(number) for number in range(dialog.choice.count())] == ["epoch 2", "epoch 3"]
    dialog.choice.setFocus()
    qtbot.keyClick(dialog.choice, Qt.Key.Key_Down)
    layers = dialog._comparison.layers
    assert [row[2] for row in texts(layers)] == ["0", "40 %", "10 %"]
    assert texts(layers, layers.index(1, 0))[1] == ["1", "", "–", "–", "10", "no counterpart"]
    qtbot.waitUntil(lambda: not dialog.map.isVisible())
    assert dialog.no_confusion.text() == "There are no images any more."


def test_layers_are_sorted_by_their_distance_and_back_into_the_models_order(dialog: ComparisonDialog) -> None:
    dialog._comparison.take(found())
    tree = dialog.tree.model()
    dialog.tree.sortByColumn(columns.MOVED, Qt.SortOrder.DescendingOrder)
    assert [row[0] for row in texts(tree)] == ["fc", "stage2", "conv1"]
    dialog.tree.sortByColumn(columns.LAYER, Qt.SortOrder.AscendingOrder)
    assert [row[0] for row in texts(tree)] == ["conv1", "stage2", "fc"]


def test_the_map_is_blue_where_more_is_right_or_less_is_wrong(qtbot, dialog: ComparisonDialog) -> None:
    take(qtbot, dialog, found())
    matrix = dialog._comparison.matrix
    assert texts(matrix) == [["+2", "−2"], ["+3", "−3"]]
    assert matrix.cell_text(1, 0) == "dog taken for cat: 0 → 3 images (0.0 % → 30.0 %)"
    image = QImage(dialog.map.viewport().size(), QImage.Format.Format_RGB32)
    dialog.map.viewport().render(image)
    blue, orange = QColor(theme.LIGHT.accent), QColor(theme.LIGHT.validation)
    hues = []
    for row in range(2):
        for column in range(2):
            place = dialog.map.visualRect(matrix.index(row, column))
            hues.append(image.pixelColor(place.topLeft().x() + 3, place.topLeft().y() + 3).hue())
    assert [abs(hue - blue.hue()) < abs(hue - orange.hue()) for hue in hues] == [True, True, False, False]
    assert dialog._comparison.confusion_title() == "18 of 20 → 17 of 20 validation images right"


def test_what_cannot_be_compared_is_said_in_place_of_it(dialog: ComparisonDialog) -> None:
    first, *others = found().checkpoints
    broken = [first.model_copy(update={"not_finite": ["fc.weight"]})]
    broken += [each.model_copy(update={"unmatched": ["fc: only in the first"]}) for each in others]
    dialog._comparison.take(found(checkpoints=broken))
    assert dialog.warning.text().splitlines() == [
        "epoch 1 has weights that are NaN or infinite: fc.weight.",
        "Not compared: fc: only in the first.",
    ]
    other = ComparisonDialog(ComparisonViewModel(), dialog)
    other.show()
    other._comparison.take(found(layers=[], layers_problem="No layer is the same."))
    assert not other.tree.isVisible()
    assert other._comparison.layers_title() == "No layer is the same."


def test_compare_asks_for_the_selected_ones_with_the_oldest_first(qtbot, themed) -> None:
    checkpoints = CheckpointItemModel()
    checkpoints.reset([checkpoint(number, 0.5, 0.8) for number in (1, 2, 3)])
    view = make_view(checkpoints)
    qtbot.addWidget(view)
    view.allow(restore=True, resume=False, weights=True)
    first, third = (checkpoints.present.key(f"checkpoint_tiny_00{number}.pt") for number in (1, 3))
    view._table.select_keys([third])
    assert not view._compare.isEnabled()
    view._table.select_keys([third, first])
    assert view._compare.isEnabled()
    with qtbot.waitSignal(view.compare_requested) as asked:
        view._compare.trigger()
    assert asked.args == [[first, third]]


def test_a_small_difference_is_not_written_as_none() -> None:
    assert difference_text("AUROC/validation", 0.0004) == "+0.0004"
    assert difference_text("Loss/validation", -0.00002) == "−2e-05"
    assert difference_text("Accuracy/validation", -0.0001) == "−0.01 points"
    assert difference_text("Accuracy/validation", 0.0126) == "+1.3 points"
    assert difference_text("F1/validation", 0.0) == "0.000"


def test_long_settings_are_cut_short_and_whole_in_their_tooltip(dialog: ComparisonDialog) -> None:
    layers = [f"stage{number}" for number in range(9)]
    settings = [
        SettingDifference(name="model.frozen", values=[["backbone"], layers, []]),
        SettingDifference(name="branch.run", values=[None, "/runs/2026-11-22_020544_digits", None]),
    ]
    dialog._comparison.take(found(settings=settings))
    items = dialog.settings.model()
    assert texts(items) == [
        ["Frozen at start", "backbone", "stage0, stage1, stage2, … (9)", "–"],
        ["Branched from the run", "–", "2026-11-22_020544_digits", "–"],
    ]
    assert items.index(0, 2).data(Qt.ItemDataRole.ToolTipRole) == ", ".join(layers)
    assert items.index(1, 2).data(Qt.ItemDataRole.ToolTipRole) == "/runs/2026-11-22_020544_digits"


def test_the_name_of_a_checkpoint_has_room_above_its_metrics(dialog: ComparisonDialog) -> None:
    compared = found()
    titled = [
        each.model_copy(update={"title": f"020756, epoch {row}"}) for row, each in enumerate(compared.checkpoints)
    ]
    dialog._comparison.take(compared.model_copy(update={"checkpoints": titled}))
    header = dialog.metrics.horizontalHeader()
    for column in (1, 2, 4):
        assert header.sectionSize(column) >= header.sectionSizeHint(column)
    above_settings = dialog.settings.horizontalHeader()
    for column in (1, 2, 3):
        assert above_settings.sectionSize(column) >= above_settings.sectionSizeHint(column)
    longest = [each.model_copy(update={"title": "a" * 99}) for each in compared.checkpoints]
    dialog._comparison.take(compared.model_copy(update={"checkpoints": longest}))
    assert header.sectionSize(1) < header.sectionSizeHint(1)
    assert header.textElideMode() == Qt.TextElideMode.ElideMiddle
    tip = dialog.metrics.model().headerData(1, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
    assert tip == f"{'a' * 99} (reference)"


def test_values_that_read_the_same_are_neither_better_nor_worse(dialog: ComparisonDialog) -> None:
    values = (0.9998, 0.9998044, 0.9991)
    infos = [checkpoint(number, 0.5, 0.8, metrics={"AUROC/validation": each}) for number, each in enumerate(values)]
    checkpoints = [ComparedCheckpoint(title=f"epoch {each.epoch}", run_dir="/runs/a", info=each) for each in infos]
    dialog._comparison.take(found(checkpoints=checkpoints))
    metrics = dialog.metrics.model()
    assert texts(metrics)[2] == ["AUROC", "1.000", "1.000", "+4.4e-06", "0.999", "▼ −0.001 worse"]
    assert [metrics.index(2, column).data(IsBetterRole) for column in (3, 5)] == [None, False]


def test_all_metrics_of_several_checkpoints_have_room_where_the_screen_does(qtbot, dialog: ComparisonDialog) -> None:
    dialog._comparison.take(found())
    header = dialog.metrics.horizontalHeader()
    for column in (3, 5):
        assert header.sectionSize(column) >= dialog.metrics.sizeHintForColumn(column)
    screen = dialog.screen().availableGeometry()
    qtbot.waitUntil(lambda: dialog.metrics.viewport().width() >= min(header.length(), screen.width() // 2))
    assert dialog.width() <= screen.width()


def test_where_no_setting_differs_nothing_can_be_scrolled(qtbot, dialog: ComparisonDialog) -> None:
    dialog._comparison.take(found())
    dialog._comparison.take(found(settings=[]))
    assert not dialog.settings.horizontalScrollBar().isVisible()
    assert dialog.settings.horizontalScrollBarPolicy() == Qt.ScrollBarPolicy.ScrollBarAlwaysOff


def test_rows_are_copied_as_text_with_their_heading(qtbot, dialog: ComparisonDialog) -> None:
    dialog._comparison.take(found())
    dialog.metrics.selectRow(0)
    lines = rows_text(dialog.metrics).splitlines()
    assert [line.split("\t")[0] for line in lines] == ["Validation", "Loss"]
    dialog.activateWindow()
    qtbot.waitUntil(dialog.isActiveWindow)
    dialog.tree.setFocus()
    qtbot.keyClick(dialog.tree, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    lines = QGuiApplication.clipboard().text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["Layer", "conv1", "stage2", "    0", "    1", "fc"]


def test_while_it_goes_on_it_says_how_far_it_is(dialog: ComparisonDialog) -> None:
    dialog._comparison._progress(PreparationProgressed(what="Evaluating epoch 2", done=30, total=1500, unit="images"))
    assert dialog.sentence.text() == "Evaluating epoch 2 · 30 of 1,500 images"
    assert (dialog.progress.value(), dialog.progress.maximum()) == (30, 1500)


@pytest.mark.slow
def test_a_failure_is_a_sentence_and_cancel_ends_the_process(qtbot, dialog, tmp_path: Path, run_info) -> None:
    comparison = dialog._comparison
    comparison.begin([(tmp_path / "nowhere", "a.pt"), (tmp_path / "nowhere", "b.pt")])
    assert dialog.cancel.text() == "Cancel"
    qtbot.waitUntil(lambda: not comparison.is_going, timeout=60_000)
    assert "is not a run of Thaw" in dialog.sentence.text()
    assert dialog.sentence.property("role") == "error"
    assert dialog.cancel.text() == "Close"
    run_dir = write_run(tmp_path / "runs", run_info)
    comparison.begin([(run_dir, "a.pt"), (run_dir, "b.pt")])
    qtbot.mouseClick(dialog.cancel, Qt.MouseButton.LeftButton)
    assert not comparison.is_going
    assert dialog.sentence.text() == "Nothing was compared."
    comparison.begin([(run_dir, "a.pt"), (run_dir, "b.pt")])
    dialog.close()
    assert not comparison.is_going


def test_a_thousand_layers_and_a_thousand_classes_are_shown(qtbot, dialog: ComparisonDialog) -> None:
    generator = np.random.default_rng(1)
    counts = [
        ConfusionCounts(cells=sorted(cells.tolist()), counts=[1] * len(cells))
        for cells in (generator.choice(1_000_000, 50_000, replace=False) for _ in range(2))
    ]
    names = [f"class {number}" for number in range(1000)]
    stages = [layer(f"stage{number}", 0.1, 0.1) for number in range(100)]
    blocks = [layer(f"stage{number}.{block}", 0.1, 0.1) for number in range(100) for block in range(9)]
    large = found(
        layers=[layer("", 0.1, 0.1), *stages, *blocks],
        confusion=ComparedConfusion(class_names=names, matrices=[*counts, counts[0]], problems=[""] * 3),
    )
    take(qtbot, dialog, large)
    assert dialog._comparison.layers.rowCount() == 100
    assert dialog._comparison.matrix.difference.num_cells > 90_000
    image = QImage(dialog.map.viewport().size(), QImage.Format.Format_RGB32)
    dialog.map.viewport().render(image)
    dialog._comparison.choose(1)
    qtbot.waitUntil(lambda: dialog._comparison.matrix.difference is not None)
    assert dialog._comparison.matrix.difference.num_cells == 0
    assert dialog._comparison.confusion_title().endswith("validation images right, and no difference")


def test_settings_of_the_feature_cache_are_called_what_they_are_where_no_heading_stands_above_them(qapp) -> None:
    assert setting_name("training.feature_disk_gb") == "Features on disk, GB"
    assert (setting_name("training.feature_precision"), setting_text("training.feature_precision", "half")) == (
        "Features kept",
        "in 16 bits",
    )
    assert setting_name("data.views") == "Views"
