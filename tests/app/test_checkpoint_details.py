"""What is told of the selected checkpoint, and where there is room for it."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication

from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.views.checkpoints import CheckpointsView
from tests.app.conftest import checkpoint
from trainer.messages.changes import LayersUnfrozen
from trainer.messages.events import MetricsLogged
from trainer.messages.model_info import LayerInfo
from trainer.messages.run_info import Series


@pytest.fixture
def details(qapp, summary) -> CheckpointDetails:
    """Return the details in a run whose freeze set is conv1 and stage2.0 now, and whose rate is 0.001."""
    tree, history = LayerTreeViewModel(), MetricHistory()
    tree.set_summary(summary)
    history.add(MetricsLogged(segment=0, series={"Learning rate": Series(steps=[90], values=[0.001])}))
    made = CheckpointDetails(CheckpointItemModel(), tree, history)
    # The owners, which nothing else keeps.
    made.kept_for_test = (tree, history)
    return made


def test_all_metrics_and_why_it_is_kept_are_told(qtbot, details: CheckpointDetails) -> None:
    assert details.details is None
    metrics = {"Loss/validation": 0.25, "Accuracy/validation": 0.5, "F1/validation": 0.75}
    details._checkpoints.reset([checkpoint(2, 0.25, 0.5, metrics=metrics, label="figure 3", note="before the warm-up")])
    with qtbot.waitSignal(details.changed):
        details._checkpoints.note_selected(["checkpoint_tiny_002.pt"])
    told = details.details
    assert told.title == "Epoch 2 · step 90"
    assert told.metrics == [("Loss", "0.2500"), ("Accuracy", "50.0 %"), ("F1", "0.750")]
    assert told.kept == "figure 3, best, last, saved after the epoch"
    assert (told.note, told.name) == ("before the warm-up", "checkpoint_tiny_002.pt")
    details._checkpoints.note_selected([])
    assert details.details is None


def test_what_the_run_has_otherwise_now_is_told(qtbot, details: CheckpointDetails) -> None:
    then = checkpoint(1, 0.5, 0.8, frozen=["conv1", "stage2.0"], rate=0.004)
    details._checkpoints.reset([then, checkpoint(2, 0.5, 0.8, frozen=["conv1"], rate=0.001)])
    details._checkpoints.note_selected(["checkpoint_tiny_001.pt"])
    assert details.details.frozen == ["backbone"]
    assert details.details.differences == ["Rate 0.004 then, 0.001 now"]
    details._checkpoints.note_selected(["checkpoint_tiny_002.pt"])
    assert details.details.frozen == ["conv1"]
    assert details.details.differences == ["stage2: trainable then, frozen now"]
    event = LayersUnfrozen(
        layers=["stage2.0"], sentence="stage2 unfrozen", frozen=["conv1"], num_trainable=110, requested_step=91,
        applied_step=91, source="user", segment=0,
    )  # fmt: skip
    with qtbot.waitSignal(details.changed):
        details._layer_tree.settle(event)
    assert details.details.differences == ["the same rate and freeze set"]
    details._checkpoints.note_selected(["checkpoint_tiny_001.pt"])
    assert details.details.differences[0] == "stage2: frozen then, trainable now"


def test_what_is_frozen_is_indented_below_what_holds_it(details: CheckpointDetails, summary) -> None:
    more = [LayerInfo(fqn=f"stage2.{number}", type="Conv2d", num_params=10, is_unit=True) for number in (1, 2)]
    layers = [*summary.layers[:4], *more, *summary.layers[4:]]
    details._layer_tree.set_summary(summary.model_copy(update={"layers": layers}))
    details._checkpoints.reset([checkpoint(1, 0.5, 0.8, frozen=["conv1", "stage2.0", "stage2.2"])])
    details._checkpoints.note_selected(["checkpoint_tiny_001.pt"])
    assert details.details.frozen == ["conv1", "stage2", "    0", "    2"]
    details._checkpoints.reset([checkpoint(1, 0.5, 0.8, frozen=[])])
    assert details.details.frozen == ["nothing"]


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_the_pane_is_shown_where_there_is_room_or_where_it_was_chosen(
    qtbot, themed, details: CheckpointDetails
) -> None:
    checkpoints = details._checkpoints
    view = CheckpointsView(checkpoints, details)
    qtbot.addWidget(view)
    view.resize(1230, 200)
    view.show()
    checkpoints.reset([checkpoint(1, 0.5, 0.8, sha256="ab" * 32)])
    pane = view._details
    assert not pane.isVisible()
    view.resize(1870, 200)
    qtbot.waitUntil(pane.isVisible)
    assert pane._title.text() == "Epoch 1 · step 45"
    qtbot.mouseClick(pane._sha256, Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text() == "ab" * 32
    view.activateWindow()
    view._table.setFocus()
    qtbot.waitUntil(view._table.hasFocus)
    qtbot.keyClick(view._table, Qt.Key.Key_D)
    assert not pane.isVisible()
    assert checkpoints.columns == {"details": False}
    view._show_details.trigger()
    view.resize(1230, 200)
    assert pane.isVisible()
    checkpoints.forget_columns()
    assert not pane.isVisible()
