"""What is typed to find checkpoints: words and numbers, in the table and in a terminal alike."""

from __future__ import annotations

import math

import pytest
from PySide6.QtCore import QLocale
from PySide6.QtTest import QAbstractItemModelTester

from app.checkpoint_filter import CheckpointFilter
from app.viewmodels.checkpoint_columns import EPOCH
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_order import CheckpointSortModel
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.quantities import read_number
from app.viewmodels.run_config import RunConfigViewModel
from app.views.checkpoints import CheckpointsView
from tests.app.conftest import checkpoint
from trainer.messages.run_info import CheckpointInfo

TAGS = ["Loss/validation", "Accuracy/validation", "Top-5 accuracy/validation", "F1/validation", "Mean AP/validation"]


def listed() -> list[CheckpointInfo]:
    return [
        checkpoint(1, 0.7, 0.5, rate=1e-3, metrics={"F1/validation": 0.25}),
        checkpoint(2, 0.5, 0.985, label="figure", metrics={"F1/validation": 0.75, "Mean AP/validation": 0.5}),
        checkpoint(3, 0.4, 0.99, frozen=["stage4.1"], frozen_summary="stage4.1", rate=1e-4),
        checkpoint(4, None, None, reason="user"),
        checkpoint(5, math.nan, 0.1),
    ]


@pytest.fixture
def shown(qapp) -> CheckpointSortModel:
    checkpoints = CheckpointItemModel()
    checkpoints.reset(listed())
    made = CheckpointSortModel(checkpoints)
    made.tester = QAbstractItemModelTester(made, QAbstractItemModelTester.FailureReportingMode.Fatal)
    # The owner, which nothing else keeps.
    made.kept_for_test = checkpoints
    return made


def epochs(shown: CheckpointSortModel) -> str:
    return " ".join(sorted(shown.index(row, EPOCH).data() for row in range(shown.rowCount())))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("accuracy>0.985", "3"),
        ("accuracy>=0.985", "2 3"),
        ("accuracy > 98.4%", "2 3"),
        ("Accuracy≥98,5%", "2 3"),
        ("loss<0.5", "3"),
        ("loss <= 0.5", "2 3"),
        ("epoch>=3", "3 4 5"),
        ("epoch=3", "3"),
        ("step<100", "1 2"),
        ("acc>0.4 loss<0.6", "2 3"),
        ("rate<0.001", "3"),
        ("f1>0.5", "2"),
        ("mean-ap>0", "2"),
        ("mean_AP>0", "2"),
        ("epoch<3 figure", "2"),
        ("stage4 loss<0.1", ""),
        ("loss<9", "1 2 3"),
        ("hand", "4"),
        ('"saved by hand"', "4"),
        ('epoch<3 "FIGURE"', "2"),
        ('"saved  by', "4"),
        ('"by saved"', ""),
        ('"', "1 2 3 4 5"),
        ("", "1 2 3 4 5"),
    ],
)
def test_words_and_numbers_must_all_hold_and_what_has_no_number_is_within_no_bounds(
    shown: CheckpointSortModel, text: str, found: str
) -> None:
    shown.set_filter(text)
    assert epochs(shown) == found
    assert shown.fault_text == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "lr<0.1",
            'There is no number called "lr". Compare epoch, step, loss, accuracy, rate, F1, mean-ap, '
            "as in accuracy>0.985.",
        ),
        (">3", 'There is no number called "".'),
        ("0.1<loss", 'There is no number called "0.1".'),
        ("loss<", "Write a number after loss<, as in accuracy>0.985 or epoch>=3."),
        ("best ac>high", "Write a number after accuracy>, as in"),
        ("loss>nan", "Write a number after loss>, as in"),
        ("accuracy>98.5", "A share goes from 0 to 1: write accuracy>0.985, or accuracy>98.5%."),
    ],
)
def test_what_cannot_be_compared_is_said_and_nothing_is_found(shown: CheckpointSortModel, text: str, said: str) -> None:
    shown.set_filter(text)
    assert shown.fault_text.startswith(said)
    assert epochs(shown) == ""
    shown.set_filter("figure")
    assert shown.fault_text == ""
    assert epochs(shown) == "2"


def test_a_number_goes_by_the_beginning_of_its_name_unless_several_begin_so(qapp) -> None:
    best = checkpoint(1, 0.5, 0.9, metrics={"Top-5 accuracy/validation": 0.99, "AUROC/validation": 0.75})
    for text, is_found in (
        ("top5>99%", False),
        ("top>=0.99", True),
        ("top-5-accuracy<0.5", False),
        ("auroc<0.8", True),
    ):
        wanted = CheckpointFilter(text, [*TAGS, "AUROC/validation"], read_number)
        assert wanted.fault is None
        assert wanted.has_numbers(best) is is_found, text
    assert CheckpointFilter("a>0", [*TAGS, "AUROC/validation"], read_number).fault.kind == "name"
    assert CheckpointFilter("a>0", TAGS, read_number).fault is None


def test_numbers_are_read_as_the_locale_writes_them(qapp) -> None:
    before = QLocale()
    QLocale.setDefault(QLocale("de_DE"))
    try:
        assert CheckpointFilter("loss<0,5", TAGS, read_number).has_numbers(checkpoint(1, 0.4, 0.9))
    finally:
        QLocale.setDefault(before)


def test_a_checkpoint_that_comes_is_shown_where_it_belongs_if_it_is_wanted(shown: CheckpointSortModel) -> None:
    checkpoints = shown.checkpoints
    shown.set_filter("loss<0.6 checkpoint")
    checkpoints.add(checkpoint(6, 0.9, 0.5))
    checkpoints.add(checkpoint(7, 0.1, 0.5))
    assert [shown.index(row, EPOCH).data() for row in range(shown.rowCount())] == ["7", "3", "2"]
    shown.set_filter("auroc>0.5")
    assert shown.fault_text
    checkpoints.add(checkpoint(8, 0.1, 0.5, metrics={"AUROC/validation": 0.75}))
    assert (shown.fault_text, epochs(shown)) == ("", "8")
    shown.set_filter("noted")
    assert epochs(shown) == ""
    checkpoints.add(checkpoint(8, 0.1, 0.5, note="Noted since"))
    assert epochs(shown) == "8"


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_the_box_teaches_what_it_takes_and_the_table_says_what_is_wrong(qtbot, themed) -> None:
    checkpoints = CheckpointItemModel()
    details = CheckpointDetails(checkpoints, LayerTreeViewModel(), MetricHistory(), RunConfigViewModel())
    view = CheckpointsView(checkpoints, details)
    qtbot.addWidget(view)
    checkpoints.reset(listed())
    box = view.filter_box
    assert "accuracy>0.985" in box.placeholderText()
    assert "All must hold." in box.toolTip()
    box.setText("loss>x")
    assert view._table.empty_text == box.toolTip() == "Write a number after loss>, as in accuracy>0.985 or epoch>=3."
    assert box.property("invalid") is True
    box.setText("loss>5")
    assert view._table.empty_text == "No checkpoint has all of that. Escape clears it."
    assert box.property("invalid") is False
    box.clear()
    assert view._table.empty_text.startswith("A checkpoint is saved after every epoch")
