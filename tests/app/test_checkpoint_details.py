"""What is told of the selected checkpoint, and where there is room for it."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication

from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_run import CheckpointKey
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.run_config import RunConfigViewModel
from app.views.checkpoints import CheckpointsView
from tests.app.conftest import checkpoint
from trainer.config import ModelConfig, OptimizerConfig, PlanPhase, RunConfig, TrainingConfig
from trainer.messages.changes import LayersUnfrozen
from trainer.messages.events import CheckpointSaved, MetricsLogged, RunPrepared
from trainer.messages.model_info import LayerInfo
from trainer.messages.run_info import ConfusionMatrix, Series
from trainer.run_record import RunCheckpoints
from trainer.runs import RunFolder


@pytest.fixture
def details(qapp, summary) -> CheckpointDetails:
    """Return the details in a run whose freeze set is conv1 and stage2.0 now, and whose rate is 0.001."""
    tree, history, form = LayerTreeViewModel(), MetricHistory(), RunConfigViewModel()
    tree.set_summary(summary)
    history.add(MetricsLogged(segment=0, series={"Learning rate": Series(steps=[90], values=[0.001])}))
    made = CheckpointDetails(CheckpointItemModel(), tree, history, form)
    # The owners, which nothing else keeps.
    made.kept_for_test = (tree, history, form)
    return made


def test_all_metrics_and_why_it_is_kept_are_told(qtbot, details: CheckpointDetails) -> None:
    assert details.details is None
    metrics = {"Loss/validation": 0.25, "Accuracy/validation": 0.5, "F1/validation": 0.75}
    details._checkpoints.reset([checkpoint(2, 0.25, 0.5, metrics=metrics, label="figure 3", note="before the warm-up")])
    with qtbot.waitSignal(details.changed):
        details._checkpoints.note_selected([details._checkpoints.present.key("checkpoint_tiny_002.pt")])
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
    details._checkpoints.note_selected([details._checkpoints.present.key("checkpoint_tiny_001.pt")])
    assert details.details.frozen == ["backbone"]
    assert details.details.differences == ["Rate 0.004 then, 0.001 now"]
    details._checkpoints.note_selected([details._checkpoints.present.key("checkpoint_tiny_002.pt")])
    assert details.details.frozen == ["conv1"]
    assert details.details.differences == ["stage2: trainable then, frozen now"]
    event = LayersUnfrozen(
        layers=["stage2.0"], sentence="stage2 unfrozen", frozen=["conv1"], num_trainable=110, requested_step=91,
        applied_step=91, source="user", segment=0,
    )  # fmt: skip
    with qtbot.waitSignal(details.changed):
        details._layer_tree.settle(event)
    assert details.details.differences == ["the same rate and freeze set"]
    details._checkpoints.note_selected([details._checkpoints.present.key("checkpoint_tiny_001.pt")])
    assert details.details.differences[0] == "stage2: frozen then, trainable now"


def test_other_multipliers_and_statistics_than_now_are_told(details: CheckpointDetails, summary) -> None:
    layers = [each.model_copy(update={"has_statistics": each.fqn in {"conv1", "stage2.0"}}) for each in summary.layers]
    now = {"layers": layers, "multipliers": {"fc": 2.0}, "adapting": ["conv1"]}
    details._layer_tree.set_summary(summary.model_copy(update=now))
    then = checkpoint(1, 0.5, 0.8, frozen=["conv1", "stage2.0"], rate=0.001)
    same = then.model_copy(update={"multipliers": {"fc": 2.0}, "adapting": ["conv1"]})
    other = then.model_copy(update={"multipliers": {"stage2.0": 0.1}, "adapting": ["stage2.0"]})
    for info, told in (
        (then, ["the same rate and freeze set"]),
        (same, ["the same rate and freeze set"]),
        (
            other,
            [
                "head: rate × 1 then, × 2 now",
                "stage2: rate × 0.1 then, × 1 now",
                "stage2: statistics adapted then, freeze now",
                "conv1: statistics froze then, adapt now",
            ],
        ),
    ):
        details._checkpoints.reset([info])
        details._checkpoints.note_selected([details._checkpoints.present.key(info.name)])
        assert details.details.differences == told


def test_another_length_patience_and_plan_than_now_are_told(
    qtbot, details: CheckpointDetails, run_info, tmp_path
) -> None:
    phase = PlanPhase(epoch=2, unfreeze=["stage2"])
    present = run_info.present.model_copy(update={"plan": [phase]})
    run_info = run_info.model_copy(update={"in_force": present})
    later = PlanPhase(epoch=4, freeze=["stage2"])
    now = {"epochs": present.epochs + 5, "patience": 3, "begun": [phase], "plan": [later]}
    details._run_config.show_in_force(present.model_copy(update=now))
    with RunFolder.create(tmp_path, RunConfig()) as folder:
        folder.add_event(RunPrepared(run=run_info, step=0, epoch=0, segment=0))
        info = checkpoint(1, 0.5, 0.8, frozen=["conv1", "stage2.0"], rate=0.001)
        folder.checkpoints.add(info)
        folder.add_event(CheckpointSaved(checkpoint=info))
        details._checkpoints.reset([info], folder.path, folder.config())
        details._checkpoints.note_selected([details._checkpoints.present.key(info.name)])
        told = [
            f"Epochs {present.epochs} then, {present.epochs + 5} now",
            "Patience – then, 3 now",
            "Plan (2: +stage2) then, (2: +stage2; 4: -stage2) now",
        ]
        qtbot.waitUntil(lambda: details.details.differences == told)
        # That a phase began since then makes no other plan of it.
        details._run_config.show_in_force(present.model_copy(update={"begun": [phase], "plan": []}))
        assert details.details.differences == ["the same rate and freeze set"]


def test_what_is_frozen_is_indented_below_what_holds_it(details: CheckpointDetails, summary) -> None:
    more = [LayerInfo(fqn=f"stage2.{number}", type="Conv2d", num_params=10, is_unit=True) for number in (1, 2)]
    layers = [*summary.layers[:4], *more, *summary.layers[4:]]
    details._layer_tree.set_summary(summary.model_copy(update={"layers": layers}))
    details._checkpoints.reset([checkpoint(1, 0.5, 0.8, frozen=["conv1", "stage2.0", "stage2.2"])])
    details._checkpoints.note_selected([details._checkpoints.present.key("checkpoint_tiny_001.pt")])
    assert details.details.frozen == ["conv1", "stage2", "    0", "    2"]
    details._checkpoints.reset([checkpoint(1, 0.5, 0.8, frozen=[])])
    assert details.details.frozen == ["nothing"]


@pytest.fixture
def view(qtbot, themed, details: CheckpointDetails) -> CheckpointsView:
    shown = CheckpointsView(details._checkpoints, details)
    qtbot.addWidget(shown)
    shown.show()
    return shown


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_the_pane_is_shown_where_there_is_room_or_where_it_was_chosen(
    qtbot, view: CheckpointsView, details: CheckpointDetails
) -> None:
    checkpoints = details._checkpoints
    view.resize(1230, 200)
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


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_the_pane_shows_long_steps_whole_and_says_what_to_do_where_not_just_one_is_selected(
    qtbot, view: CheckpointsView, details: CheckpointDetails
) -> None:
    view.resize(1870, 160)
    details._checkpoints.reset(
        [checkpoint(1, 0.5, 0.8), checkpoint(2458, 0.5, 0.8, step=110_531, note="kept for the talk")]
    )
    pane = view._details
    qtbot.waitUntil(lambda: pane._title.text() == "Epoch 2,458 · step 110,531")
    qtbot.waitUntil(lambda: pane._title.width() >= pane._title.sizeHint().width())
    assert pane._note.isVisible()
    view._table.selectAll()
    assert pane._hint.text() == "2 checkpoints are selected. Compare tells how they differ."
    qtbot.waitUntil(lambda: not pane.verticalScrollBar().isVisible())
    view._table.clearSelection()
    assert pane._hint.text() == "Select a checkpoint to read about it."
    assert not pane.verticalScrollBar().isVisible()
    view._table.select_keys([details._checkpoints.present.key("checkpoint_tiny_001.pt")])
    assert not pane._hint.isVisible()
    assert not pane._note.isVisible()
    # Without a note, all of it is seen in the low panel.
    qtbot.waitUntil(lambda: not pane._sha256.visibleRegion().isEmpty())
    place = pane._sha256.mapTo(pane.viewport(), pane._sha256.rect().bottomRight())
    assert pane.viewport().rect().contains(place)


def test_what_another_run_was_set_to_otherwise_is_told(details: CheckpointDetails, tmp_path) -> None:
    here, there = RunConfig(), RunConfig(optimizer=OptimizerConfig(rate=0.5), training=TrainingConfig(epochs=77))
    other = RunCheckpoints(tmp_path / "other", there, checkpoints=[checkpoint(1, 0.5, 0.8)])
    details._checkpoints.reset([checkpoint(2, 0.5, 0.8)], tmp_path / "this", here)
    details._checkpoints.show_others([other])
    details._checkpoints.note_selected([CheckpointKey(other.path, "checkpoint_tiny_001.pt")])
    told = details.details.differences
    assert told[0] == "of another run: other"
    assert "Rate: 0.5 there, 0.001 here" in told
    assert "Epochs: 77 there, 10 here" in told
    assert len(told) == 3


def test_the_same_layers_by_other_names_are_no_difference_to_another_run(details: CheckpointDetails, tmp_path) -> None:
    """An earlier Thaw wrote each layer of a branch by itself."""
    spelled = RunConfig(model=ModelConfig(frozen=["stage2.0", "conv1"]))
    others = [RunCheckpoints(tmp_path / "other", spelled, checkpoints=[checkpoint(1, 0.5, 0.8)])]
    key = CheckpointKey(others[0].path, "checkpoint_tiny_001.pt")
    for frozen, told in ((["backbone"], []), (["conv1"], ["Frozen at start: backbone there, conv1 here"])):
        details._checkpoints.reset(
            [checkpoint(2, 0.5, 0.8)], tmp_path / "this", RunConfig(model=ModelConfig(frozen=frozen))
        )
        details._checkpoints.show_others(others)
        details._checkpoints.note_selected([key])
        assert details.details.differences == ["of another run: other", *told]
        details._checkpoints.show_others([])


def test_the_classes_that_were_recognized_worst_are_told_where_they_are_kept(qtbot, details, tmp_path) -> None:
    with RunFolder.create(tmp_path, RunConfig()) as folder:
        for epoch in (1, 2):
            info = checkpoint(epoch, 0.5, 0.8)
            matrix = ConfusionMatrix(
                split="validation", checkpoint=info.name, step=info.step, class_names=["cat", "dog", "none", "owl"],
                counts=[[3, 1, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0], [2, 0, 0, 2]],
            )  # fmt: skip
            folder.checkpoints.add(info, matrix)
        details._checkpoints.reset(folder.checkpoints.listed(), folder.path, folder.config())
        details._checkpoints.note_selected([details._checkpoints.present.key("checkpoint_tiny_002.pt")])
        assert details.details.classes == "…"
        qtbot.waitUntil(lambda: details.details.classes == "owl at 50.0 %, cat at 75.0 %, dog at 100.0 %")
