"""The whole window, driven as a user drives it, around a worker that says what the test tells it to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from PySide6.QtCore import QMimeData, QPointF, QSize, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QLabel, QMessageBox, QStyle, QStyleOptionFrame

from app import theme
from app.main_window import MainWindow
from app.run_display import RunDisplay
from app.viewmodels.layer_rows import BACKBONE_ID, HEAD_ID
from app.viewmodels.log import RESULT, WHAT
from app.viewmodels.what_if import KINDS
from app.views.comparison import ComparisonDialog
from app.views.leave_dialog import LeaveDialog
from app.views.rate_dialog import RateDialog
from app.views.train_on_dialog import TrainOnDialog
from app.views.what_if import WhatIfWindow
from tests.app.conftest import ScriptedClient, checked, checkpoint
from tests.app.test_run_form import entry, weight_set
from tests.app.test_session import write_run
from trainer.client import RunOpened, WorkerLost
from trainer.config import BranchConfig, DataConfig, ModelConfig, PlanPhase, RunConfig
from trainer.messages.changes import (
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PhaseBegan,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.commands import InspectModel, Rewind, SetPlan, SetRate, UnfreezeLayers
from trainer.messages.data_info import ImageView
from trainer.messages.events import (
    ChangeAdvised,
    CheckpointSaved,
    CommandRejected,
    FreezeVerified,
    ImagePreviewed,
    LogWritten,
    MetricsLogged,
    ModelInspected,
    ModelsListed,
    PreparationProgressed,
    ProgressReported,
    RateFound,
    RewindsKept,
    RunEstimated,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.model_info import ModelSummary
from trainer.messages.replay import Replay, ResumeVerified, StepDifference
from trainer.messages.run_info import ConfusionMatrix, RateCurve, RunEstimate, RunInfo, Series
from trainer.messages.states import RunState
from trainer.plans import PlanName
from trainer.run_list import list_runs
from trainer.runs import RunFolder

pytestmark = pytest.mark.window
Begin = Callable[[ScriptedClient], None]
# The offscreen platform says so of every window of a fixed size, as a message box is.
ASKS = pytest.mark.qt_log_ignore("propagateSizeHints")


@pytest.fixture
def window(qtbot, themed, session, settings) -> MainWindow:
    made = MainWindow(session, settings)
    made.load_views()
    made.resize(1280, 800)
    qtbot.addWidget(made, before_close_func=lambda w: setattr(w, "_is_closing", True))
    made.show()
    return made


@pytest.fixture
def running(qtbot, window: MainWindow, clients, begin_run: Begin) -> ScriptedClient:
    clients[0].serve()
    begin_run(clients[0])
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    clients[0].sent.clear()
    return clients[0]


def show_model(client: ScriptedClient, summary: ModelSummary) -> None:
    """Answer the last look at a model."""
    asked = [command for command in client.sent if isinstance(command, InspectModel)][-1]
    client.say(ModelInspected(summary=summary, command_id=asked.command_id, time=1.0))


def open_left_run(qtbot, window: MainWindow, clients: list[ScriptedClient], tmp_path: Path, run_info: RunInfo) -> None:
    """Open a run that its worker has left, so that it can be resumed."""
    clients[0].serve()
    window.session.open_run(write_run(tmp_path / "runs", run_info))
    qtbot.waitUntil(lambda: window.session.can_resume)


def test_the_tree_is_asked_for_again_with_the_number_of_classes_that_the_data_has(
    qtbot, window: MainWindow, clients, tmp_path
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: clients[0].kinds() == ["ListModels", "InspectModel"])
    window.display.run_config.set_text("data.path", str(tmp_path))
    window.display.check_data()
    clients[0].say(checked(str(tmp_path), {"a": 2, "b": 3, "c": 4}, command_id=clients[0].id_of_last("CheckData")))
    qtbot.waitUntil(lambda: clients[0].kinds().count("InspectModel") == 2)
    assert [command.num_classes for command in clients[0].sent if isinstance(command, InspectModel)] == [10, 3]


def test_a_fresh_window_asks_for_the_models_and_the_tree(qtbot, window: MainWindow, clients, summary) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: clients[0].kinds() == ["ListModels", "InspectModel"])
    show_model(clients[0], summary)
    qtbot.waitUntil(lambda: not window.display.layer_tree.is_empty)
    assert window.form._start.isEnabled()
    assert not window.toolbar._stop.isEnabled()


def test_a_run_that_waits_for_the_worker_begins_without_look_ups(qtbot, window, clients, summary, tmp_path) -> None:
    config = RunConfig(data=DataConfig(path=str(tmp_path)), model=ModelConfig(name="tiny"))
    window.show_config(config, start=True)
    clients[0].serve()
    qtbot.waitUntil(lambda: clients[0].kinds() == ["ListModels", "PrepareRun"])
    clients[0].say(ModelsListed(models=[entry("tiny")]), StateChanged(state=RunState.PREPARING, time=2.0))
    qtbot.waitUntil(lambda: window.session.state is RunState.PREPARING)
    assert [model.name for model in window.display.run_config.offer.models] == ["tiny"]
    assert clients[0].kinds() == ["ListModels", "PrepareRun"]
    # A run that comes to nothing brings no tree, and says nothing of the data.
    clients[0].say(StateChanged(state=RunState.IDLE, time=3.0))
    qtbot.waitUntil(lambda: clients[0].kinds()[2:] == ["ListModels", "InspectModel", "CheckData"])
    # Its weights may have been downloaded before.
    there = entry("tiny", weight_set("IMAGENET1K_V1", is_cached=True))
    clients[0].say(ModelsListed(models=[there], command_id=clients[0].id_of_last("ListModels")))
    qtbot.waitUntil(lambda: window.form._rows["model.weights"].note.whole_text.startswith("On this disk · "))
    show_model(clients[0], summary)
    qtbot.waitUntil(lambda: not window.display.layer_tree.is_empty)


def test_start_pressed_twice_before_the_worker_serves_starts_one_run(qtbot, window, clients, tmp_path) -> None:
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=True)
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    clients[0].serve()
    qtbot.waitUntil(lambda: clients[0].kinds() == ["ListModels", "PrepareRun"])


def test_a_check_that_a_start_overtook_is_no_error(qtbot, window: MainWindow, clients) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.display.run_config.set_text("data.path", "images")
    window.display.check_data()
    check = clients[0].sent[-1]
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    assert clients[0].kinds()[-2:] == ["CheckData", "PrepareRun"]
    rows = window.display.log.rowCount()
    with qtbot.waitSignal(window.session.command_rejected):
        clients[0].say(CommandRejected(command="CheckData", reason="Stopped.", command_id=check.command_id))
    assert window.form._rows["data.path"].note.text() == ""
    assert window.notice.text == ""
    assert window.display.log.rowCount() == rows


def test_only_the_last_check_of_the_data_is_heeded(qtbot, window: MainWindow, clients) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    for path in ("imag", "images"):
        window.display.run_config.set_text("data.path", path)
        window.display.check_data()
    first, last = clients[0].sent[-2:]
    with qtbot.waitSignal(window.session.command_rejected):
        clients[0].say(CommandRejected(command="CheckData", reason="Stopped.", command_id=first.command_id))
    assert window.form._rows["data.path"].note.text() == "Looking through the images …"
    with qtbot.waitSignal(window.session.command_rejected):
        clients[0].say(CommandRejected(command="CheckData", reason="No such folder.", command_id=last.command_id))
    assert window.form._rows["data.path"].note.text() == "No such folder."


@pytest.mark.parametrize(
    ("field", "is_beside"), [("plan", True), ("data.image_size", True), ("training.num_loader_workers", False)]
)
def test_a_refused_start_is_said_beside_its_field_or_in_the_notice(
    qtbot, window: MainWindow, clients, tmp_path, field: str, is_beside: bool
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=True)
    command_id = clients[0].sent[-1].command_id
    clients[0].say(
        StateChanged(state=RunState.PREPARING, time=2.0),
        StateChanged(state=RunState.IDLE, time=3.0),
        CommandRejected(command="PrepareRun", reason="It cannot be so.", field=field, command_id=command_id, time=3.0),
    )
    if is_beside:
        # In sight, wherever the form was scrolled to.
        qtbot.waitUntil(lambda: window.form._rows[field].note.text() == "It cannot be so.")
        qtbot.waitUntil(lambda: window.form._rows[field].note.visibleRegion().boundingRect().height() > 8)
        assert window.form._rows[field].note.whole_text == "It cannot be so."
        assert window.notice.text == ""
    else:
        qtbot.waitUntil(lambda: window.notice.text == "It cannot be so.")
    assert window.form._start.isEnabled()


def test_a_refusal_of_many_lines_is_in_sight_whole_in_a_low_window(
    qtbot, window: MainWindow, clients, tmp_path
) -> None:
    window.resize(1284, 721)
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=True)
    reason = "Cannot download the weights of resnet18 (no network). Connect to one, or choose a local file or random."
    rejected = CommandRejected(
        command="PrepareRun", reason=reason, field="model.weights", command_id=clients[0].sent[-1].command_id, time=3.0
    )
    clients[0].say(StateChanged(state=RunState.PREPARING), StateChanged(state=RunState.IDLE), rejected)
    note = window.form._rows["model.weights"].note
    qtbot.waitUntil(lambda: note.whole_text == reason)
    lines = note.heightForWidth(note.width())
    assert lines > 3 * note.fontMetrics().lineSpacing()
    qtbot.waitUntil(lambda: note.visibleRegion().boundingRect().height() >= lines)


def test_a_resume_of_a_run_that_has_changed_since_is_offered_all_the_same(
    qtbot, window: MainWindow, clients, tmp_path, run_info
) -> None:
    open_left_run(qtbot, window, clients, tmp_path, run_info)
    window.session.resume("checkpoint_tiny_001.pt", start=False)
    qtbot.waitUntil(lambda: "OpenRun" in clients[0].kinds())
    command_id = clients[0].id_of_last("OpenRun")
    assert not clients[0].sent[-1].anyway
    reason = "digits would not go on exactly as it was: 2 images added. Put back what it was, or resume anyway."
    clients[0].say(
        StateChanged(state=RunState.PREPARING, time=2.0),
        StateChanged(state=RunState.IDLE, time=3.0),
        CommandRejected(command="OpenRun", reason=reason, changes=["2 images added"], command_id=command_id, time=3.0),
    )
    qtbot.waitUntil(lambda: window.notice.text == reason)
    (anyway,) = window.notice._buttons
    assert anyway.text() == "Resume anyway"
    clients[0].sent.clear()
    qtbot.mouseClick(anyway, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: clients[0].kinds() == ["OpenRun"])
    (sent,) = clients[0].sent
    assert (sent.checkpoint, sent.start, sent.anyway) == ("checkpoint_tiny_001.pt", False, True)
    assert window.notice.text == ""


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (
            None,
            "a.pt resumes exactly: the 20 steps after step 1,040, made again, are equal to the bit. So are the weights",
        ),
        (
            StepDifference(step=1043, what="Loss/train", recorded=0.5, replayed=0.625, difference=0.125),
            "a.pt does not resume exactly: step 1,043 differs, number 3 of 20 that were made again. Loss/train was 0.5 "
            "and is 0.625. Likely cause: 1 image changed.",
        ),
    ],
)
def test_what_came_of_verifying_a_resume_is_told(qtbot, window: MainWindow, difference, said) -> None:
    replay = Replay(
        checkpoint="a.pt",
        first_step=1040,
        num_steps=20,
        later="b.pt",
        difference=difference,
        causes=["1 image changed"] if difference else [],
    )
    window.display.verification.done.emit(ResumeVerified(run_dir="runs/a", replay=replay))
    assert window.notice.text.startswith(said)


@pytest.mark.slow
def test_a_resume_is_verified_beside_its_run_and_what_is_in_the_way_is_told(
    qtbot, window: MainWindow, clients, tmp_path, run_info
) -> None:
    open_left_run(qtbot, window, clients, tmp_path, run_info)
    window.tabs.setCurrentWidget(window.checkpoints_view)
    window.checkpoints_view._verify.trigger()
    qtbot.waitUntil(lambda: window.display.status.progress_text == "Loading PyTorch", timeout=20_000)
    qtbot.waitUntil(window.toolbar._cancel.isVisible)
    # The run that is left has one checkpoint, and no step after it.
    qtbot.waitUntil(lambda: "has no steps to compare with" in window.notice.text, timeout=60_000)
    qtbot.waitUntil(lambda: not window.toolbar._cancel.isVisible())
    assert window.session.can_resume
    assert "OpenRun" not in clients[0].kinds()


@pytest.mark.slow
def test_a_change_is_tried_from_the_selected_checkpoint_in_a_window_beside_the_run(
    qtbot, window: MainWindow, clients, tmp_path, run_info
) -> None:
    open_left_run(qtbot, window, clients, tmp_path, run_info)
    window.tabs.setCurrentWidget(window.checkpoints_view)
    window.checkpoints_view._what_if.trigger()
    (asking,) = window.findChildren(WhatIfWindow)
    assert not asking.isModal()
    window.checkpoints_view._what_if.trigger()
    assert window.findChildren(WhatIfWindow) == [asking]
    asking.kind.setCurrentIndex(KINDS.index("rate"))
    asking.rate.setText("0.02")
    asking.run.click()
    qtbot.waitUntil(lambda: asking.sentence.text() == "Loading PyTorch", timeout=20_000)
    # The run that is left has no base.
    qtbot.waitUntil(lambda: asking.sentence.property("role") == "error", timeout=60_000)
    assert asking.sentence.text()
    assert window.notice.text == "" or "interrupted" in window.notice.text
    window.session.new_run()
    assert not asking.isVisible()


def test_a_replay_that_the_user_ends_needs_no_words(qtbot, window: MainWindow, running, run_info) -> None:
    told: list[str] = []
    window.display.told.connect(lambda sentence, _: told.append(sentence))
    window.display.verify_resume("a.pt")
    qtbot.waitUntil(lambda: window.toolbar._cancel.isVisible(), timeout=20_000)
    assert window.session.state is RunState.RUNNING
    window.toolbar._cancel.click()
    qtbot.waitUntil(lambda: not window.toolbar._cancel.isVisible())
    assert not window.display.verification.is_going
    assert told == []
    assert running.kinds() == []


def test_a_resume_without_its_data_is_told_over_the_curves_and_can_be_tried_again(
    qtbot, window: MainWindow, clients, tmp_path, run_info
) -> None:
    open_left_run(qtbot, window, clients, tmp_path, run_info)
    path = window.form._rows["data.path"].note
    note = path.whole_text
    qtbot.mouseClick(window.toolbar._primary, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "OpenRun" in clients[0].kinds())
    reason = "digits cannot go on without its data. Put the data back."
    qtbot.waitUntil(lambda: "OpenRun" in clients[0].kinds())
    command_id = clients[0].id_of_last("OpenRun")
    clients[0].say(
        StateChanged(state=RunState.PREPARING, time=2.0),
        StateChanged(state=RunState.IDLE, time=3.0),
        CommandRejected(command="OpenRun", reason=reason, field="data.path", command_id=command_id, time=3.0),
    )
    qtbot.waitUntil(lambda: window.notice.text == reason)
    # Nobody can change the path of a run that has begun, so that nothing is wrong with the field.
    assert path.whole_text == note
    assert not window.form._rows["data.path"].editor.property("invalid")
    clients[0].sent.clear()
    (again,) = window.notice._buttons
    assert again.text() == "Resume"
    qtbot.mouseClick(again, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: clients[0].kinds() == ["OpenRun"])
    assert window.notice.text == ""


def test_start_sends_the_form_with_the_layers_ticked_in_the_tree(qtbot, window, clients, summary, tmp_path) -> None:
    clients[0].serve()
    window.show_config(
        RunConfig(data=DataConfig(path=str(tmp_path)), model=ModelConfig(name="tiny", frozen=["conv1"])), start=False
    )
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    show_model(clients[0], summary.model_copy(update={"frozen": ["conv1"]}))
    qtbot.waitUntil(lambda: not window.display.layer_tree.is_empty)
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "PrepareRun" in clients[0].kinds())
    prepared = clients[0].sent[-1]
    assert prepared.config.model.frozen == ["conv1"]
    assert prepared.start


def with_statistics(summary: ModelSummary) -> ModelSummary:
    """Let both layers of the backbone keep running statistics."""
    layers = [
        layer.model_copy(update={"has_statistics": layer.fqn in {"conv1", "stage2.0"}}) for layer in summary.layers
    ]
    return summary.model_copy(update={"layers": layers})


def test_whose_statistics_adapt_is_chosen_in_the_tree_or_for_all_in_the_form(
    qtbot, window, clients, summary, tmp_path
) -> None:
    clients[0].serve()
    config = RunConfig(
        data=DataConfig(path=str(tmp_path)), model=ModelConfig(name="tiny", adapting=["stage?.0", "conv?"])
    )
    window.show_config(config, start=False)
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    show_model(clients[0], with_statistics(summary))
    tree, form = window.display.layer_tree, window.display.run_config
    qtbot.waitUntil(lambda: not tree.is_empty)
    assert tree.adapting_layers == ["backbone"]
    assert form.config() == config, "its own names, as long as nothing was chosen"
    (conv1,) = [row.id for row in tree.rows.in_order() if row.fqn == "conv1"]
    tree.set_adapting([conv1], False)
    assert form.config().model.adapting == ["stage2"]
    batchnorm = window.form._rows["model.batchnorm"].editor
    batchnorm.setCurrentIndex(batchnorm.findText("adapting"))
    assert tree.adapting_layers == ["backbone"]
    tree.set_adapting([conv1], False)
    assert (form.text("model.batchnorm"), batchnorm.currentText()) == ("frozen", "frozen")
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "PrepareRun" in clients[0].kinds())
    assert clients[0].sent[-1].config.model.adapting == ["stage2"]


def test_what_another_model_lacks_of_the_chosen_layers_stands_under_the_tree_until_the_next_choice(
    qtbot, window, clients, summary
) -> None:
    clients[0].serve()
    window.show_config(RunConfig(model=ModelConfig(name="tiny", frozen=["conv1", "stage2"])), start=False)
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    show_model(clients[0], summary)
    tree, message = window.display.layer_tree, window.tree_view.message
    qtbot.waitUntil(lambda: not tree.is_empty)
    assert message.isHidden()
    clients[0].sent.clear()
    window.display.run_config.set_text("model.name", "small")
    window.display.inspect_model()
    show_model(
        clients[0], summary.model_copy(update={"model": "small", "layers": [*summary.layers[:2], summary.layers[-1]]})
    )
    qtbot.waitUntil(lambda: message.isVisible())
    assert message.text() == "Not in small, so left out: stage2."
    assert message.property("role") == "note"
    assert tree.frozen_layers == ["backbone"]
    # The number of classes may become known meanwhile.
    window.display.inspect_model()
    with qtbot.waitSignal(window.session.model_inspected):
        show_model(clients[0], summary.model_copy(update={"num_params": 131}))
    assert message.isVisible()
    tree.unfreeze_rows([BACKBONE_ID])
    assert message.isHidden()
    tree.freeze_rows([BACKBONE_ID, HEAD_ID])
    assert (message.isVisible(), message.property("role")) == (True, "error")
    window.display.inspect_model()
    with qtbot.waitSignal(window.session.model_inspected):
        show_model(clients[0], summary)
    assert message.isHidden()


def test_a_new_run_lets_adapt_what_did_so_last_in_the_run_before(
    qtbot, window, clients, summary, tmp_path, run_info
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    run = run_info.model_copy(update={"summary": with_statistics(summary).model_copy(update={"adapting": ["conv1"]})})
    window.session.open_run(write_run(tmp_path / "runs", run))
    qtbot.waitUntil(lambda: window.session.run_dir is not None)
    assert window.display.layer_tree.adapting_layers == ["conv1"]
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    assert window.display.run_config.adapting == ["conv1"]


def test_start_with_a_bad_field_sends_nothing_and_says_why(qtbot, window: MainWindow, clients) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    assert "PrepareRun" not in clients[0].kinds()
    assert window.form._rows["data.path"].note.text() == "Choose a folder, an archive or a table of images."


def test_buttons_follow_the_state(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    toolbar = window.toolbar
    assert toolbar._primary.text() == "Pause"
    assert toolbar._stop.isEnabled()
    assert not window.form._rows["optimizer.weight_decay"].editor.isEnabled()
    qtbot.mouseClick(toolbar._primary, Qt.MouseButton.LeftButton)
    running.say(StateChanged(state=RunState.PAUSED, time=4.0))
    qtbot.waitUntil(lambda: toolbar._primary.text() == "Unpause")
    qtbot.mouseClick(toolbar._primary, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(toolbar._save, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(toolbar._stop, Qt.MouseButton.LeftButton)
    assert running.kinds() == ["PauseRun", "UnpauseRun", "SaveCheckpoint", "StopRun"]


@pytest.mark.parametrize("field", ["optimizer.name", "model.name", "training.epochs"])
def test_a_run_that_begins_takes_the_focus_from_the_form_and_frames_nothing_else(
    qtbot, window: MainWindow, clients, begin_run: Begin, field: str
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    window.form._rows[field].editor.setFocus()
    begin_run(clients[0])
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    assert window.focusWidget() is window
    # So that Space pauses.
    qtbot.keyClick(window, Qt.Key.Key_Space)
    assert clients[0].kinds()[-1] == "PauseRun"


def test_without_a_run_nothing_can_be_done_with_a_checkpoint(window: MainWindow) -> None:
    view = window.checkpoints_view
    assert not any(button.isEnabled() for button in (view._restore, view._resume, view._verify, view._copy, view._show))


def test_space_pauses_and_shortcuts_save_and_stop(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    window.setFocus()
    qtbot.keyClick(window, Qt.Key.Key_Space)
    qtbot.keyClick(window, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(window, Qt.Key.Key_Period, Qt.KeyboardModifier.ControlModifier)
    assert running.kinds() == ["PauseRun", "SaveCheckpoint", "StopRun"]


def test_events_reach_every_view(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    running.say(
        MetricsLogged(segment=0, series={"Loss/train": Series(steps=[1, 2], values=[2.0, 1.0])}),
        LayersUnfrozen(
            layers=["stage2.0"], sentence="stage2 unfrozen", frozen=["conv1"], num_trainable=110, requested_step=1,
            applied_step=2, source="user", segment=0, time=5.0,
        ),
        CheckpointSaved(checkpoint=checkpoint(1, 0.5, 0.9), time=6.0),
        ProgressReported(
            epoch=0, num_epochs=6, step=2, total_steps=270, samples_per_s=10, seconds_left=60, step_ms=14,
            worker_bytes=1,
        ),
    )  # fmt: skip
    qtbot.waitUntil(lambda: window.display.status.speed_text == "10 images/s")
    assert not window.display.history.is_empty
    assert window.display.layer_tree.num_trainable == 110
    assert window.display.checkpoints.rowCount() == 1
    assert "stage2 unfrozen" in [
        window.display.log.index(row, 1).data() for row in range(window.display.log.rowCount())
    ]
    assert window.windowTitle() == "digits · tiny"


def test_a_freeze_asked_in_the_tree_is_pending_until_it_is_refused(qtbot, window, running: ScriptedClient) -> None:
    window.display.layer_tree.unfreeze_requested.emit(["stage2"])
    assert running.kinds() == ["UnfreezeLayers"]
    running.say(
        CommandRejected(command="UnfreezeLayers", reason="No.", command_id=running.sent[0].command_id, time=4.0)
    )
    qtbot.waitUntil(lambda: window.display.layer_tree.message == "No.")
    assert window.notice.text == ""


def test_a_multiplier_typed_in_the_tree_is_asked_for_and_shown_when_it_is_applied(
    qtbot, window, running: ScriptedClient
) -> None:
    tree = window.display.layer_tree
    tree.multiply_rows([BACKBONE_ID], "0.1")
    (command,) = running.sent
    assert (command.kind, command.layers, command.multiplier) == ("SetRateMultiplier", ["backbone"], 0.1)
    assert tree.rates.is_pending(BACKBONE_ID)
    running.say(
        RateMultiplierChanged(
            layers=["conv1", "stage2.0"], multiplier=0.1, sentence="backbone at rate × 0.1", source="user", time=5.0,
            multipliers={"conv1": 0.1, "stage2.0": 0.1}, requested_step=7, applied_step=8, segment=0,
            command_id=command.command_id,
        )
    )  # fmt: skip
    qtbot.waitUntil(lambda: tree.rates.text(BACKBONE_ID) == "×0.1")
    assert not tree.rates.is_pending(BACKBONE_ID)
    assert window.display.history.markers[-1].sentence == "backbone at rate × 0.1"
    log = window.display.log
    assert [log.index(log.rowCount() - 1, column).data() for column in range(1, 4)] == [
        "backbone at rate × 0.1", "7", "8"
    ]  # fmt: skip


def test_the_columns_that_were_chosen_are_remembered(qtbot, window: MainWindow, session, settings) -> None:
    window.display.layer_tree.choose_column("type", True)
    window.display.layer_tree.choose_column("update", False)
    assert settings.tree_columns == {"type": True, "update": False}
    assert RunDisplay(session, settings).layer_tree.columns == settings.tree_columns


def test_multipliers_of_the_form_go_into_the_run(qtbot, window, summary, clients) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    clients[0].say(ModelInspected(summary=summary, command_id=clients[0].id_of_last("InspectModel")))
    qtbot.waitUntil(lambda: not window.display.layer_tree.is_empty)
    window.display.layer_tree.multiply_rows([HEAD_ID], "5")
    window.display.run_config.set_text("data.path", "digits")
    config = window.display.run_config.valid_config()
    assert config is not None
    assert config.optimizer.multipliers == {"head": 5.0}


def test_a_killed_worker_is_told_with_resume(qtbot, window: MainWindow, running: ScriptedClient, clients) -> None:
    running.say(CheckpointSaved(checkpoint=checkpoint(1, 0.5, 0.9), time=6.0), WorkerLost(False, "It was killed."))
    qtbot.waitUntil(lambda: window.notice.text == "It was killed.")
    assert window.toolbar._primary.text() == "Resume"
    qtbot.mouseClick(window.notice._buttons[0], Qt.MouseButton.LeftButton)
    clients[1].serve()
    qtbot.waitUntil(lambda: "OpenRun" in clients[1].kinds())
    assert window.notice.text == ""


@pytest.mark.slow
def test_compare_opens_a_window_of_its_own_for_the_selected_checkpoints(
    qtbot, window: MainWindow, running: ScriptedClient, run_info
) -> None:
    names = [f"checkpoint_tiny_00{epoch}.pt" for epoch in (1, 2)]
    saved = [checkpoint(epoch, 0.5, 0.9, name=name) for epoch, name in enumerate(names, start=1)]
    running.say(*(CheckpointSaved(checkpoint=info, time=6.0) for info in saved))
    view = window.checkpoints_view
    present = window.display.checkpoints.present
    qtbot.waitUntil(lambda: len(present.infos) == 2)
    view._table.select_keys([present.key(name) for name in names])
    view._compare.trigger()
    dialog = window.findChild(ComparisonDialog)
    assert dialog is not None
    assert dialog.isVisible()
    assert not dialog.isModal()
    qtbot.waitUntil(lambda: not dialog._comparison.is_going, timeout=60_000)
    # What is on display was told by the test alone, and is in no folder.
    assert dialog.sentence.text().startswith(f"{run_info.run_dir} is not a run of Thaw")


def test_a_branch_fills_the_form_from_its_checkpoint_and_begins_it_or_lets_go_of_it(
    qtbot, window: MainWindow, running: ScriptedClient, clients, run_info
) -> None:
    saved = checkpoint(2, 0.5, 0.9, name="checkpoint_tiny_002_0.5000_0.9000.pt", frozen=["conv1"])
    running.say(CheckpointSaved(checkpoint=saved, time=6.0), StateChanged(state=RunState.FINISHED, time=7.0))
    qtbot.waitUntil(lambda: window.session.state is RunState.FINISHED)
    window.checkpoints_view._branch.trigger()
    clients[1].serve()
    qtbot.waitUntil(lambda: "CheckData" in clients[1].kinds())
    assert window.session.run_dir is None
    assert window.form.branch_line.text == "From digits-tiny, epoch 2"
    assert window.form.branch_line.leave.isVisible()
    form = window.display.run_config
    config = form.valid_config()
    assert config.branch == BranchConfig(run=run_info.run_dir, checkpoint=saved.name)
    assert config.model.frozen == ["conv1"]
    assert config.data == run_info.config.data
    form.set_text("training.epochs", "2")
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: clients[1].kinds()[-1] == "PrepareRun")
    assert clients[1].sent[-1].config.branch == config.branch
    assert clients[1].sent[-1].config.training.epochs == 2
    qtbot.mouseClick(window.form.branch_line.leave, Qt.MouseButton.LeftButton)
    assert not window.form.branch_line.isVisible()
    assert form.valid_config().branch is None


def test_a_restore_is_told_to_whom_it_was_asked_of_and_its_changes_can_be_undone_when_it_is_taken_back(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    restored = {"epoch": 4, "frozen": ["conv1"], "num_trainable": 110, "step": 180, "rate": 0.001, "time": 5.0}
    running.say(rate_event("elsewhere", 0.01).model_copy(update={"applied_step": 200, "change": 7}))
    qtbot.waitUntil(lambda: window.display.changes.undo_text == "rate 0.01")
    running.say(CheckpointRestored(name="c.pt", segment=1, command_id="a-shell", **restored))
    qtbot.waitUntil(lambda: window.display.changes.undo_text == "")
    assert not window.notice.isVisible()
    running.say(RewindUndone(undone_segment=1, undone_step=180, segment=2, **restored))
    qtbot.waitUntil(lambda: window.display.changes.undo_text == "rate 0.01")
    command_id = window.session.restore("c.pt")
    running.say(CheckpointRestored(name="c.pt", segment=3, command_id=command_id, **restored))
    qtbot.waitUntil(window.notice.isVisible)
    assert window.notice.text == "Restored epoch 4, step 180. The run goes on from there."
    assert not window.notice._buttons, "nothing is known to be kept"
    running.say(kept := RewindsKept(changes=[7], num_bytes=1, budget_bytes=9, undo_step=200, time=5.0))
    qtbot.waitUntil(lambda: len(window.notice._buttons) == 1)
    running.say(kept.model_copy(update={"undo_step": None}))
    qtbot.waitUntil(lambda: not window.notice._buttons)
    running.say(kept)
    qtbot.waitUntil(lambda: len(window.notice._buttons) == 1)
    (undo,) = window.notice._buttons
    assert undo.text() == "Undo"
    undo.click()
    qtbot.waitUntil(lambda: "Rewind" in running.kinds())
    assert [command.is_undo for command in running.sent if isinstance(command, Rewind)] == [True]
    running.say(
        RewindUndone(undone_segment=3, undone_step=180, segment=4, command_id=running.id_of_last("Rewind"), **restored)
    )
    qtbot.waitUntil(lambda: window.notice.text.startswith("The run is where it was before it went back"))


def test_restored_weights_are_told_with_an_undo_that_goes_back_to_before_them(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    running.say(StateChanged(state=RunState.PAUSED, time=5.0))
    qtbot.waitUntil(lambda: window.session.state is RunState.PAUSED)
    command_id = window.session.restore_weights("c.pt")
    running.say(
        RewindsKept(changes=[8], num_bytes=1, budget_bytes=9, time=5.0),
        CheckpointRestored(
            name="c.pt", weights_only=True, change=8, epoch=4, frozen=["conv1"], num_trainable=110, step=1800,
            rate=0.001, segment=1, command_id=command_id, time=5.0,
        ),
    )  # fmt: skip
    qtbot.waitUntil(lambda: len(window.notice._buttons) == 1)
    assert window.notice.text == "Restored the weights of c.pt. Unpause goes on where the run was, at step 1,800."
    window.notice._buttons[0].click()
    qtbot.waitUntil(lambda: "Rewind" in running.kinds())
    assert [command.change for command in running.sent if isinstance(command, Rewind)] == [8]


def test_advice_does_not_take_the_place_of_an_undo(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    window.notice.tell("Moved to the trash.", actions=[("Undo", lambda: None)], is_trouble=False)
    window.notice.advise("stage4 could learn.", [("Unfreeze stage4", lambda: None)])
    assert window.notice.text == "Moved to the trash."
    window.notice.close_sentence()
    assert window.notice.text == "stage4 could learn."
    window.notice.advise("conv1 could be frozen.", [("Freeze conv1", lambda: None)])
    assert window.notice.text == "conv1 could be frozen."
    window.notice.take_back_advice()
    assert window.notice.text == ""


@pytest.mark.parametrize("is_to_start", [False, True])
def test_a_restore_into_a_run_that_no_worker_has_shows_its_progress_and_is_told(
    qtbot, window: MainWindow, clients, tmp_path, run_info, is_to_start: bool
) -> None:
    told: list[str] = []
    window.display.restored.connect(told.append)
    open_left_run(qtbot, window, clients, tmp_path, run_info)
    window.session.resume("c.pt", start=is_to_start)
    qtbot.waitUntil(lambda: "OpenRun" in clients[0].kinds())
    clients[0].say(
        StateChanged(state=RunState.PREPARING, time=2.0),
        PreparationProgressed(what="Looking through images", done=1, total=4, unit="images"),
    )
    qtbot.waitUntil(lambda: "Looking through images" in window.display.status.progress_text)
    command_id = clients[0].id_of_last("OpenRun")
    restored = {"epoch": 4, "frozen": ["conv1"], "num_trainable": 110, "step": 180, "segment": 1, "parent": 0}
    run = run_info.model_copy(update={"run_dir": str(window.session.run_dir)})
    clients[0].say(
        RunPrepared(run=run, step=180, epoch=4, segment=1, parent=0, command_id=command_id, time=3.0),
        CheckpointRestored(name="c.pt", command_id=command_id, time=3.0, **restored),
        StateChanged(state=RunState.READY, time=3.0),
    )
    qtbot.waitUntil(lambda: window.session.state is RunState.READY)
    assert told == ([] if is_to_start else ["Restored epoch 4, step 180. Start goes on from there."])
    assert window.notice.text == "".join(told)


@ASKS
def test_a_finished_run_trains_on_for_the_epochs_that_are_asked_for(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    restored = CheckpointRestored(name="c", step=270, epoch=6, frozen=[], num_trainable=10, segment=1, time=8.0)
    running.say(restored, StateChanged(state=RunState.FINISHED, time=9.0))
    qtbot.waitUntil(lambda: window.toolbar._primary.text() == "Train on…")
    qtbot.mouseClick(window.toolbar._primary, Qt.MouseButton.LeftButton)
    dialog = window.findChild(TrainOnDialog)
    assert dialog.note.text() == "11 epochs in all"
    dialog.field.setText("")
    assert not dialog.start.isEnabled()
    assert dialog.note.text() == "A number from 1 to 9,994"
    dialog.field.setText("3")
    assert dialog.note.text() == "9 epochs in all"
    qtbot.mouseClick(dialog.start, Qt.MouseButton.LeftButton)
    assert (running.sent[-1].kind, running.sent[-1].epochs) == ("ChangeTraining", 9)


def test_a_paused_run_that_has_something_to_say_says_it(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    running.say(StateChanged(state=RunState.PAUSED, sentence="The loss became NaN at step 9.", time=4.0))
    qtbot.waitUntil(lambda: window.notice.text == "The loss became NaN at step 9.")


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("Set the rate to 0.0005", ["SetRate", "UnpauseRun"]),
        ("Go on without it", ["UnpauseRun"]),
        ("Restore the last checkpoint", ["RestoreCheckpoint", "UnpauseRun"]),
    ],
)
def test_a_loss_that_is_not_finite_offers_what_can_be_done(
    qtbot, window: MainWindow, running: ScriptedClient, words: str, kinds: list[str]
) -> None:
    paused = StateChanged(state=RunState.PAUSED, sentence="NaN at step 9.", offered_rate=0.0005, time=4.0)
    running.say(CheckpointSaved(checkpoint=checkpoint(1, 0.5, 0.9), time=3.0), paused)
    qtbot.waitUntil(lambda: window.notice.text == "NaN at step 9.")
    button = next(button for button in window.notice._buttons if button.text() == words)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert running.kinds() == kinds
    assert running.sent[0].kind != "SetRate" or running.sent[0].rate == 0.0005
    assert window.notice.text == ""


def test_without_a_checkpoint_none_is_offered(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    running.say(StateChanged(state=RunState.PAUSED, sentence="NaN at step 9.", offered_rate=0.0005, time=4.0))
    qtbot.waitUntil(lambda: window.notice.text == "NaN at step 9.")
    assert [button.text() for button in window.notice._buttons] == ["Set the rate to 0.0005", "Go on without it"]
    running.say(StateChanged(state=RunState.PAUSED, sentence="No room on the disk.", time=5.0))
    qtbot.waitUntil(lambda: window.notice.text == "No room on the disk.")
    assert window.notice._buttons == []


@pytest.mark.parametrize(
    ("words", "kinds"), [("Train in 2 parts", ["ChangeTraining", "UnpauseRun"]), ("Try again", ["UnpauseRun"])]
)
def test_too_little_memory_offers_batches_in_parts(
    qtbot, window: MainWindow, running: ScriptedClient, words: str, kinds: list[str]
) -> None:
    running.say(StateChanged(state=RunState.PAUSED, sentence="No memory for step 1.", offered_parts=2, time=4.0))
    qtbot.waitUntil(lambda: window.notice.text == "No memory for step 1.")
    button = next(button for button in window.notice._buttons if button.text() == words)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert running.kinds() == kinds
    assert running.sent[0].kind != "ChangeTraining" or running.sent[0].batch_parts == 2
    assert window.notice.text == ""
    parted = length_event(running.sent[0].command_id, 3).model_copy(update={"batch_parts": 2})
    running.say(parted)
    qtbot.waitUntil(lambda: window.display.run_config.note("training.batch_size") == "in 2 parts, one after another")


def test_a_window_that_comes_later_is_told_why_the_run_is_paused_and_what_is_offered(
    qtbot, window: MainWindow, running: ScriptedClient, run_info
) -> None:
    paused = StateChanged(state=RunState.PAUSED, sentence="NaN at step 9.", offered_rate=0.0005, time=4.0)
    attached = WorkerAttached(
        state=RunState.PAUSED, pid=1, torch_version="2", devices=["cpu"], run=run_info, paused=paused, time=5.0
    )
    num_rows = window.display.log.rowCount()
    running.say(attached)
    qtbot.waitUntil(lambda: window.notice.text == "NaN at step 9.")
    assert [button.text() for button in window.notice._buttons] == ["Set the rate to 0.0005", "Go on without it"]
    assert window.display.log.rowCount() == num_rows, "the log has it from the run's folder"


def test_a_window_that_comes_later_can_undo_what_a_shell_has_changed(
    qtbot, window: MainWindow, clients, tmp_path, run_info
) -> None:
    run_dir = write_run(tmp_path / "runs", run_info)
    with RunFolder(run_dir) as folder:
        folder.add_event(rate_event("a shell's", 0.5, before=0.01))
        record = folder.read()
    clients[0].say(
        RunOpened(record, is_live=True),
        WorkerAttached(state=RunState.RUNNING, pid=1, torch_version="2", devices=["cpu"], run=run_info, time=5.0),
    )
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    assert window.toolbar._undo.toolTip() == "Undo: rate 0.5 (Ctrl+Z)"
    qtbot.mouseClick(window.toolbar._undo, Qt.MouseButton.LeftButton)
    assert (clients[0].sent[-1].kind, clients[0].sent[-1].rate) == ("SetRate", 0.01)
    # Of the same run without a worker, nothing can be undone.
    clients[0].say(RunOpened(record, is_live=False))
    qtbot.waitUntil(lambda: window.session.state is record.state)
    assert not window.toolbar._undo.isEnabled()


def test_a_window_that_comes_after_an_undone_rewind_can_undo_and_redo_what_the_first_one_can(
    qtbot, window: MainWindow, clients, tmp_path, run_info
) -> None:
    run_dir = write_run(tmp_path / "runs", run_info)
    restored = {"epoch": 0, "frozen": ["conv1"], "num_trainable": 110, "rate": 0.5, "time": 5.0}
    with RunFolder(run_dir) as folder:
        folder.add_event(rate_event("", 0.5, before=0.01).model_copy(update={"applied_step": 1, "change": 1}))
        folder.begin_segment(1, None, 2.0, 0)
        folder.add_event(RunRewound(change=1, sentence="rate 0.5", step=1, segment=1, parent=0, **restored))
        folder.add_metrics(1, {"Loss/train": Series(steps=[2, 3], values=[9.0, 9.0])})
        folder.begin_segment(2, None, 3.0, 0)
        undone = {"undone_segment": 1, "undone_step": 1}
        folder.add_event(RewindUndone(step=2, segment=2, parent=0, **undone, **restored))
        folder.add_metrics(2, {"Loss/train": Series(steps=[3], values=[0.5])})
        record = folder.read()
    rewinds = RewindsKept(changes=[1], num_bytes=1, budget_bytes=9, undo_step=3)
    running = {"state": RunState.RUNNING, "pid": 1, "torch_version": "2", "devices": ["cpu"], "run": run_info}
    clients[0].say(RunOpened(record, is_live=True), WorkerAttached(rewinds=rewinds, time=5.0, **running))
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    assert window.toolbar._undo.toolTip() == "Undo: rate 0.5 (Ctrl+Z)"
    assert window.toolbar._redo.toolTip() == "Redo: step 3, as before the run went back (Ctrl+Shift+Z)"
    history = window.display.history
    assert history.query("Loss/train", 0, 9).values.tolist() == [2.0, 1.0, 0.5]
    assert [(marker.is_abandoned, marker.can_rewind) for marker in history.markers] == [(False, True)]


def test_other_parts_of_a_batch_make_a_step_cost_what_nobody_has_measured_or_predicted(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    tree = window.display.layer_tree
    tree.set_step_ms(40.0)
    tree.predicted_ms = 50.0
    running.say(length_event("", 12))
    qtbot.waitUntil(lambda: window.form._rows["training.epochs"].editor.text() == "12")
    assert (tree.step_ms, tree.predicted_ms) == (40.0, 50.0)
    running.say(length_event("", 12).model_copy(update={"batch_parts": 2}))
    qtbot.waitUntil(lambda: tree.step_ms is None)
    assert tree.predicted_ms is None


def test_a_run_from_disk_is_shown_whole(qtbot, window: MainWindow, tmp_path, run_info) -> None:
    run_dir = write_run(tmp_path / "runs", run_info)
    window.session.open_run(run_dir)
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 1)
    assert window.display.status.state_text == "Interrupted"
    assert not window.display.history.is_empty
    assert window.checkpoints_view._resume.isEnabled() is not None
    # The row has no file: it is shown as damaged, and refused.
    qtbot.waitUntil(
        lambda: window.display.checkpoints.present.problems.get("checkpoint_tiny_001.pt") == "file is missing"
    )
    assert not window.checkpoints_view._restore.isEnabled()


def test_new_run_puts_everything_away_and_keeps_the_values(qtbot, window, running: ScriptedClient, clients) -> None:
    running.say(MetricsLogged(segment=0, series={"Loss/train": Series(steps=[1], values=[2.0])}))
    qtbot.waitUntil(lambda: not window.display.history.is_empty)
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    assert window.display.history.is_empty
    assert window.display.checkpoints.rowCount() == 0
    assert window.display.run_config.text("training.epochs") == "6"
    assert window.notice.text == "You left digits · tiny training in the background. It is listed under Runs."
    assert running.is_closed
    clients[1].serve()
    qtbot.waitUntil(lambda: window.form._start.isVisible())


def test_a_new_run_begins_with_the_layers_that_the_tree_shows(qtbot, window, clients, tmp_path, run_info) -> None:
    run_dir = write_run(tmp_path / "runs", run_info)
    with RunFolder(run_dir) as folder:
        folder.add_event(
            LayersUnfrozen(
                layers=["stage2.0"], sentence="stage2 unfrozen", frozen=["conv1"], num_trainable=110,
                requested_step=1, applied_step=2, source="user", segment=0, time=5.0,
            )
        )  # fmt: skip
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.session.open_run(run_dir)
    qtbot.waitUntil(lambda: window.session.run_dir == run_dir)
    clients[0].sent.clear()
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    # The worker was idle and is kept, so nothing else asks for the models.
    assert len(clients) == 1
    assert clients[0].kinds() == ["ListModels"]
    assert window.display.layer_tree.frozen_layers == ["conv1"]
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    assert clients[0].sent[-1].config.model.frozen == ["conv1"]


@ASKS
def test_closing_while_a_run_trains_asks_first(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    assert not window.close()
    dialog = window.findChild(LeaveDialog)
    assert isinstance(dialog, QMessageBox)
    qtbot.mouseClick(dialog.cancel, Qt.MouseButton.LeftButton)
    assert window.isVisible()
    assert running.kinds() == []


@ASKS
def test_stop_and_save_closes_when_the_run_has_stopped(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    window.close()
    qtbot.mouseClick(window.findChild(LeaveDialog).stop, Qt.MouseButton.LeftButton)
    assert running.kinds() == ["StopRun"]
    assert window.isVisible()
    with qtbot.waitSignal(window.closed):
        running.say(StateChanged(state=RunState.STOPPED, time=9.0))
    assert not window.isVisible()


@ASKS
def test_keeping_on_in_the_background_leaves_the_worker_alone(qtbot, window, running: ScriptedClient) -> None:
    window.close()
    with qtbot.waitSignal(window.closed):
        qtbot.mouseClick(window.findChild(LeaveDialog).background, Qt.MouseButton.LeftButton)
    assert running.is_closed
    assert running.kinds() == []


def test_the_theme_is_chosen_and_remembered(qtbot, window: MainWindow, settings) -> None:
    window.toolbar.scheme_chosen.emit("dark")
    assert theme.palette_of(window) is theme.DARK
    assert settings.scheme == "dark"


def test_the_form_is_remembered(qtbot, window: MainWindow, settings) -> None:
    window.display.run_config.set_text("training.epochs", "17")
    window.close()
    assert settings.form_values["training"]["epochs"] == "17"


def test_a_tick_on_a_stopped_run_is_refused_and_changes_nothing(qtbot, window, running: ScriptedClient) -> None:
    running.say(StateChanged(state=RunState.STOPPED, time=9.0))
    qtbot.waitUntil(lambda: window.session.state is RunState.STOPPED)
    tree = window.display.layer_tree
    frozen = tree.frozen_layers
    tree.toggle([HEAD_ID])
    assert tree.message == "The run is not training. Resume it to change what is frozen, or begin a new run."
    assert tree.frozen_layers == frozen == window.display.run_config.frozen
    assert running.kinds() == []
    running.say(StateChanged(state=RunState.READY, time=10.0))
    qtbot.waitUntil(lambda: window.session.state is RunState.READY)
    tree.unfreeze_rows([BACKBONE_ID])
    assert running.kinds() == ["UnfreezeLayers"]


def test_a_look_at_an_earlier_draft_does_not_change_a_new_run(
    qtbot, window, clients, summary, tmp_path, run_info
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    window.session.open_run(write_run(tmp_path / "runs", run_info))
    qtbot.waitUntil(lambda: window.session.run_dir is not None)
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    tree = window.display.layer_tree
    tree.unfreeze_rows([BACKBONE_ID])
    other = summary.model_copy(update={"layers": summary.layers[:2]})
    with qtbot.waitSignal(window.session.model_inspected):
        show_model(clients[0], other)
    assert tree.frozen_layers == window.display.run_config.frozen == []
    # One that was asked for since then brings its layers, and keeps the ticks.
    window.display.inspect_model()
    with qtbot.waitSignal(window.session.model_inspected):
        show_model(clients[0], summary)
    assert tree.frozen_layers == []
    assert tree.num_trainable == 130


def test_a_new_run_shows_nothing_of_the_run_before_it(qtbot, window, running: ScriptedClient) -> None:
    running.say(FreezeVerified(step=3, num_verified=2, drifted=[], time=4.0))
    qtbot.waitUntil(lambda: window.tree_view.drift_chip.isVisible())
    window.display.layer_tree.freeze_rows([HEAD_ID])
    assert window.tree_view.message.isVisible()
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    assert not window.tree_view.drift_chip.isVisible()
    assert not window.tree_view.message.isVisible()


def test_an_address_that_nothing_opens_is_told(qtbot, window, running: ScriptedClient, monkeypatch) -> None:
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _: False)
    window._tensorboard.ready.emit("http://127.0.0.1:6006/")
    assert window.notice.text == "No browser could be opened. TensorBoard is at http://127.0.0.1:6006/"
    window.checkpoints_view._show.trigger()
    assert window.notice.text.endswith(f"The folder is {window.session.run_dir / 'checkpoints'}")
    assert window.notice._text.textInteractionFlags() & Qt.TextInteractionFlag.TextSelectableByMouse


def test_start_goes_to_the_first_wrong_field(qtbot, window, clients, tmp_path) -> None:
    clients[0].serve()
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    for field in ("data.cache_gb", "training.seed"):
        window.display.run_config.set_text(field, "x")
    window.form._headings["more"].setChecked(False)
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    seed = window.form._rows["training.seed"].editor
    assert seed.hasFocus()
    qtbot.waitUntil(lambda: seed.visibleRegion().boundingRect().height() == seed.height())


def test_start_marks_every_wrong_field_with_what_the_check_found_and_goes_to_the_first(
    qtbot, window, clients, tmp_path
) -> None:
    clients[0].serve()
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    qtbot.waitUntil(lambda: "CheckData" in clients[0].kinds())
    command_id = clients[0].id_of_last("CheckData")
    empty = CommandRejected(command="CheckData", reason="It is empty.", field="data.path", command_id=command_id)
    clients[0].say(empty)
    form = window.form
    qtbot.waitUntil(lambda: form._rows["data.path"].note.whole_text == "It is empty.")
    wrong = {"optimizer.rate": "fast", "training.epochs": "0", "data.mean": "1", "data.cache_gb": "-1"}
    for field, text in wrong.items():
        window.display.run_config.set_text(field, text)
    for heading in form._headings.values():
        heading.setChecked(False)
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    qtbot.mouseClick(form._start, Qt.MouseButton.LeftButton)
    marked = [field for field, row in form._rows.items() if row.editor.property("invalid")]
    assert set(marked) == {"data.path", *wrong}
    assert all(form._rows[field].note.isVisible() and form._rows[field].note.whole_text for field in marked)
    assert form._rows["data.path"].editor.hasFocus()
    assert "PrepareRun" not in clients[0].kinds()


def test_a_large_window_shows_the_open_sections_without_scrolling(qtbot, window, clients, tmp_path) -> None:
    window.resize(1920, 1080)
    clients[0].serve()
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    qtbot.waitUntil(lambda: "CheckData" in clients[0].kinds())
    bar = window.form._scroll.verticalScrollBar()
    assert bar.maximum() == 0
    # A table has one section more.
    found = checked(str(tmp_path), {"a": 3, "b": 3}, layout="table", command_id=clients[0].sent[-1].command_id)
    clients[0].say(found)
    qtbot.waitUntil(lambda: window.form._headings["columns"].isVisible())
    more = window.form._headings["more"]
    qtbot.waitUntil(lambda: more.visibleRegion().boundingRect().height() == more.height())
    assert bar.maximum() == 0


def test_folded_sections_are_remembered(qtbot, themed, session, settings) -> None:
    first = MainWindow(session, settings)
    qtbot.addWidget(first)
    first.form._headings["training"].click()
    first.form._headings["images"].click()
    first.close()
    second = MainWindow(session, settings)
    qtbot.addWidget(second)
    opened = [name for name, heading in second.form._headings.items() if heading.isChecked()]
    assert opened == ["data", "model", "images"]


def test_an_error_goes_when_its_field_was_mended_on_the_disk(qtbot, window, clients, tmp_path) -> None:
    clients[0].serve()
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    qtbot.waitUntil(lambda: "CheckData" in clients[0].kinds())
    check = clients[0].sent[-1]
    clients[0].say(CommandRejected(command="CheckData", reason="It is empty.", command_id=check.command_id))
    editor = window.form._rows["data.path"].editor
    qtbot.waitUntil(lambda: editor.property("invalid"))
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    assert not editor.property("invalid")
    assert clients[0].kinds()[-1] == "PrepareRun"


def test_how_far_a_check_is_goes_with_its_answer(qtbot, window, clients, tmp_path) -> None:
    clients[0].serve()
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    status = window.display.status
    clients[0].say(PreparationProgressed(what="Checking images", done=3, total=3, unit="images"))
    qtbot.waitUntil(lambda: status.progress_text == "Checking images · 3 of 3 images")
    clients[0].say(checked(str(tmp_path), {"a": 3, "b": 3}, command_id=clients[0].id_of_last("CheckData")))
    qtbot.waitUntil(lambda: status.progress_text == "")


def test_a_refusal_of_another_client_is_a_row_of_the_log_and_no_notice(qtbot, window, running) -> None:
    rows = window.display.log.rowCount()
    running.say(CommandRejected(command="RestoreCheckpoint", reason="There is none.", command_id="a-shell", time=4.0))
    qtbot.waitUntil(lambda: window.display.log.rowCount() == rows + 1)
    assert window.notice.text == ""
    own = window.session.restore("none.pt")
    running.say(CommandRejected(command="RestoreCheckpoint", reason="There is none.", command_id=own, time=5.0))
    qtbot.waitUntil(lambda: window.notice.text == "There is none.")


def test_the_list_of_runs_follows_what_happens(qtbot, window, running: ScriptedClient, tmp_path, run_info) -> None:
    window.tabs.setCurrentWidget(window.runs_view)
    qtbot.waitUntil(lambda: not window.display._reader._asked)
    assert window.display.runs.rowCount() == 0
    write_run(tmp_path / "runs", run_info)
    running.say(StateChanged(state=RunState.STOPPED, time=9.0))
    qtbot.waitUntil(lambda: window.display.runs.rowCount() == 1)
    window.runs_view._table.selectRow(0)
    chosen = window.runs_view.selected_path
    write_run(tmp_path / "runs", run_info)
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.display.runs.rowCount() == 2)
    qtbot.waitUntil(lambda: window.runs_view.selected_path == chosen)


def test_the_data_tab_has_room_for_its_pictures_at_first_and_the_users_height_ever_after(
    qtbot, themed, session, settings
) -> None:
    def made() -> MainWindow:
        window = MainWindow(session, settings)
        window.load_views()
        window.resize(1280, 800)
        qtbot.addWidget(window)
        window.show()
        return window

    first = made()
    low = first.tabs.height()
    first.tabs.setCurrentWidget(first.log_view)
    assert first.tabs.height() == low
    first.tabs.setCurrentWidget(first.data_view)
    qtbot.waitUntil(lambda: first.tabs.height() > 300)
    high = first.tabs.height()
    # Not again: the tabs do not jump as one after the other is looked at.
    first.tabs.setCurrentWidget(first.log_view)
    assert first.tabs.height() == high
    first._rows.setSizes([600, 150])
    first._rows.splitterMoved.emit(600, 1)
    qtbot.waitUntil(lambda: first.tabs.height() < high)
    lowered = first.tabs.height()
    first.tabs.setCurrentWidget(first.data_view)
    assert first.tabs.height() == lowered
    first.close()
    second = made()
    second.tabs.setCurrentWidget(second.data_view)
    qtbot.waitUntil(lambda: second.tabs.height() == lowered)


def test_the_tables_are_low_again_when_a_run_has_curves_to_show(
    qtbot, window: MainWindow, clients, tmp_path, run_info
) -> None:
    clients[0].serve()
    low = window.tabs.height()
    window.tabs.setCurrentWidget(window.data_view)
    qtbot.waitUntil(lambda: window.tabs.height() > low)
    window.session.open_run(write_run(tmp_path / "runs", run_info))
    qtbot.waitUntil(lambda: window.tabs.height() == low)
    window.tabs.setCurrentWidget(window.log_view)
    window.tabs.setCurrentWidget(window.data_view)
    assert window.tabs.height() == low


def test_a_long_line_of_the_log_has_the_room_of_the_wide_column(qtbot, window, running: ScriptedClient) -> None:
    window.tabs.setCurrentWidget(window.log_view)
    text = "Skipped pets/cats/IMG_0042.jpg: it is damaged or incomplete (image file is truncated)."
    running.say(LogWritten(level="warning", text=text, time=4.0))
    table, log = window.log_view._table, window.display.log
    qtbot.waitUntil(lambda: log.index(log.rowCount() - 1, RESULT).data() == text)
    qtbot.waitUntil(lambda: table.columnWidth(RESULT) > table.fontMetrics().horizontalAdvance(text))
    assert table.columnWidth(WHAT) > 250
    assert log.index(log.rowCount() - 1, WHAT).data() == "Warning"


def test_the_log_opens_at_its_newest_row(qtbot, window, running: ScriptedClient) -> None:
    running.say(*[CheckpointSaved(checkpoint=checkpoint(n, 0.5, 0.9), time=6.0) for n in range(100)])
    qtbot.waitUntil(lambda: window.display.log.rowCount() > 100)
    window.tabs.setCurrentWidget(window.log_view)
    bar = window.log_view._table.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 0 and bar.value() == bar.maximum())


def test_a_small_window_shortens_words_and_keeps_the_buttons_in_place(qtbot, window, running: ScriptedClient) -> None:
    toolbar = window.toolbar
    window.resize(1500, 800)
    qtbot.waitUntil(lambda: toolbar._new.text() == "New run")
    window.resize(960, 620)
    qtbot.waitUntil(lambda: toolbar._new.text() == "")
    assert toolbar._new.toolTip() == "New run (Ctrl+N)"
    running.say(
        ProgressReported(
            epoch=3, num_epochs=6, step=184, total_steps=270, samples_per_s=10, seconds_left=60, step_ms=14,
            worker_bytes=1,
        )
    )  # fmt: skip
    qtbot.waitUntil(lambda: toolbar._progress_text.text().startswith("Epoch 4 of 6 · step 184"))
    widgets = [toolbar._title, toolbar._chip, toolbar._primary, toolbar._stop, toolbar._save, toolbar._theme]
    assert all(left.geometry().right() < right.geometry().left() for left, right in pairwise(widgets))
    place = toolbar._primary.geometry()
    running.say(StateChanged(state=RunState.PAUSED, time=9.0))
    qtbot.waitUntil(lambda: toolbar._primary.text() == "Unpause")
    assert toolbar._primary.geometry().width() == place.width()
    assert abs(toolbar._primary.geometry().left() - place.left()) <= 6
    tools = window.metrics_view
    running.say(MetricsLogged(segment=0, series={"Loss/train": Series(steps=[1], values=[2.0])}))
    qtbot.waitUntil(lambda: tools.export_button.isVisible())
    assert tools._smoothing_value.parentWidget().geometry().bottom() < tools.log_button.parentWidget().geometry().top()


def drop(window: MainWindow, *paths: Path) -> bool:
    """Drop files on the window as a desktop does. Returns whether it took them."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    place, button = QPointF(200, 200), Qt.MouseButton.LeftButton
    none = Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(place.toPoint(), Qt.DropAction.CopyAction, mime, button, none)
    enter.ignore()
    QApplication.sendEvent(window, enter)
    if enter.isAccepted():
        QApplication.sendEvent(window, QDropEvent(place, Qt.DropAction.CopyAction, mime, button, none))
    return enter.isAccepted()


def test_what_is_dropped_on_the_window_becomes_the_data(qtbot, window, clients, tmp_path) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    assert drop(window, tmp_path / "birds.csv")
    assert window.display.run_config.text("data.path") == str(tmp_path / "birds.csv")
    assert clients[0].kinds()[-1] == "CheckData"
    assert not drop(window, tmp_path / "one", tmp_path / "two")


def test_data_dropped_on_a_run_are_those_of_a_new_one(qtbot, window, running, tmp_path) -> None:
    assert drop(window, tmp_path)
    assert window.session.run_dir is None
    assert window.notice.text == "You left digits · tiny training in the background. It is listed under Runs."
    assert window.display.run_config.text("data.path") == str(tmp_path)


def test_an_answer_about_other_data_is_passed_over(qtbot, window, clients, tmp_path) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    ids = []
    for name in ("one", "two"):
        window.display.run_config.set_text("data.path", str(tmp_path / name))
        window.display.check_data()
        ids.append(clients[0].id_of_last("CheckData"))
    for name, command_id in zip(("one", "two"), ids, strict=True):
        clients[0].say(checked(str(tmp_path / name), {name: 3, "other": 3}, command_id=command_id))
    qtbot.waitUntil(lambda: window.display.data.summary is not None)
    assert window.display.data.summary.class_names == ["two", "other"]


def test_data_that_were_looked_through_are_offered_again(qtbot, window, clients, tmp_path) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    for name in ("a & b", "c", "a & b"):
        clients[0].say(checked(str(tmp_path / name), {"x": 2, "y": 2}))
    qtbot.waitUntil(lambda: window.display.run_config.recent_data == [str(tmp_path / "a & b"), str(tmp_path / "c")])
    menu = window.form._rows["data.path"].button.menu()
    menu.aboutToShow.emit()
    offered = [action for action in menu.actions() if str(tmp_path) in action.text()]
    assert [action.text() for action in offered] == [str(tmp_path / "a && b"), str(tmp_path / "c")]
    offered[1].trigger()
    assert window.display.run_config.text("data.path") == str(tmp_path / "c")


def estimate(**values: float) -> RunEstimate:
    needs = {
        "step_ms": 40.0, "seconds_per_epoch": 34.0, "num_epochs": 10, "memory_bytes": 900_000_000,
        "checkpoint_bytes": 1_700_000, "disk_bytes": 20_000_000, "free_bytes": 80_000_000_000,
        "kept_bytes": 3_400_000_000, "decoded_bytes": 3_400_000_000, "budget_bytes": 20_000_000_000,
    }  # fmt: skip
    return RunEstimate.model_validate({**needs, "device": "cpu", **values})


def test_what_a_run_will_need_stands_above_start(qtbot, window, clients, tmp_path) -> None:
    window.display._look_ups._estimate_timer.setInterval(0)
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    need = window.form._need
    resting = "What the run will need stands here once the data are checked."
    assert need.text() == resting
    clients[0].say(checked(str(tmp_path), {"a": 3, "b": 3}, command_id=clients[0].id_of_last("CheckData")))
    qtbot.waitUntil(lambda: clients[0].kinds()[-1] == "EstimateRun")
    assert need.text() == "Trying a few steps …"
    clients[0].say(RunEstimated(estimate=estimate(), command_id=clients[0].sent[-1].command_id))
    qtbot.waitUntil(lambda: need.text().startswith("About"))
    assert need.whole_text == (
        "About 0:34 an epoch, 5:40 in all · 900 MB of memory · 20.0 MB on disk, 80 GB free · 3.4 GB of images kept "
        "decoded, budget 20 GB"
    )
    assert need.property("role") == "note"
    window.display.run_config.need.show_estimate(estimate(kept_bytes=1_200_000_000, budget_bytes=1_200_000_000))
    assert need.whole_text.endswith("80 GB free · 1.2 of 3.4 GB of images kept decoded, budget 1.2 GB")
    # A wrong field leaves nothing to be said, and another batch size is tried again.
    window.display.run_config.set_text("training.batch_size", "0")
    assert need.text() == "What the run will need stands here once every field is right."
    window.display.run_config.set_text("training.batch_size", "64")
    assert need.text() == "What the run will need is tried out in a moment."
    qtbot.waitUntil(lambda: clients[0].kinds().count("EstimateRun") == 2)
    full = RunEstimated(estimate=estimate(free_bytes=1_000_000), command_id=clients[0].sent[-1].command_id)
    clients[0].say(full)
    qtbot.waitUntil(lambda: need.property("role") == "error")
    # Other data make it unknown.
    window.display.check_data()
    assert need.text() == resting


def test_a_trial_that_fails_says_so_beside_its_field(qtbot, window, clients, tmp_path) -> None:
    window.display._look_ups._estimate_timer.setInterval(0)
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    clients[0].say(checked(str(tmp_path), {"a": 3, "b": 3}, command_id=clients[0].id_of_last("CheckData")))
    qtbot.waitUntil(lambda: clients[0].kinds()[-1] == "EstimateRun")
    refused = CommandRejected(
        command="EstimateRun",
        reason="A trial step ran out of memory. Choose a smaller batch or smaller images.",
        field="training.batch_size",
        command_id=clients[0].sent[-1].command_id,
    )
    clients[0].say(refused)
    hint = window.form._rows["training.batch_size"].note
    qtbot.waitUntil(lambda: hint.text().startswith("A trial step ran out of memory."))
    assert window.form._need.text() == "What the run will need stands here once every field is right."


def test_a_trial_that_was_stopped_says_so_and_how_to_repeat_it(qtbot, window, clients, tmp_path) -> None:
    window.display._look_ups._estimate_timer.setInterval(0)
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    found = checked(str(tmp_path), {"a": 3, "b": 3}, command_id=clients[0].id_of_last("CheckData"))
    clients[0].say(found)
    qtbot.waitUntil(lambda: clients[0].kinds()[-1] == "EstimateRun")
    trial_id = clients[0].sent[-1].command_id
    clients[0].say(PreparationProgressed(what="Trying a few steps", done=1, total=3, unit="steps"))
    qtbot.waitUntil(window.toolbar._cancel.isVisible)
    qtbot.mouseClick(window.toolbar._cancel, Qt.MouseButton.LeftButton)
    stopped = "You stopped the trial of a few steps. Check again, in the folder's menu, repeats it."
    clients[0].say(CommandRejected(command="EstimateRun", reason="Stopped.", command_id=trial_id, is_cancelled=True))
    need = window.form._need
    qtbot.waitUntil(lambda: need.text() == stopped)
    assert need.property("role") == "note"
    assert window.notice.text == ""
    # A preparation that was stopped, too, leaves the data as known as they were.
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    clients[0].say(StateChanged(state=RunState.PREPARING, time=2.0))
    qtbot.waitUntil(lambda: window.session.state is RunState.PREPARING)
    window.display._look_ups._estimate_timer.setInterval(60_000)
    clients[0].say(StateChanged(state=RunState.IDLE, sentence="The preparation was stopped.", time=3.0))
    qtbot.waitUntil(lambda: need.text() == "What the run will need is tried out in a moment.")


def test_a_check_is_cancelled_beside_its_progress(qtbot, window, clients, tmp_path) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    cancel = window.toolbar._cancel
    assert cancel.isHidden()
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    check_id = clients[0].sent[-1].command_id
    clients[0].say(PreparationProgressed(what="Checking images", done=3, total=30, unit="images"))
    qtbot.waitUntil(cancel.isVisible)
    qtbot.mouseClick(cancel, Qt.MouseButton.LeftButton)
    assert clients[0].kinds()[-1] == "CancelLookUp"
    clients[0].say(CommandRejected(command="CheckData", reason="Stopped.", command_id=check_id, is_cancelled=True))
    qtbot.waitUntil(cancel.isHidden)
    # It was asked for, so that nothing is wrong: a note says how to go on, in the form and in the tab.
    assert not window.form._rows["data.path"].editor.property("invalid")
    assert window.form._rows["data.path"].note.whole_text == "Not checked. Check again from the folder's menu."
    assert window.form._rows["data.path"].note.property("role") == "note"
    assert window.data_view.sentence.text().startswith("You stopped the check")
    assert window.data_view.sentence.property("role") == "dim"
    menu = window.form._rows["data.path"].button.menu()
    menu.aboutToShow.emit()
    next(action for action in menu.actions() if action.text() == "Check again").trigger()
    assert clients[0].kinds()[-1] == "CheckData"
    assert window.form._rows["data.path"].note.whole_text == "Looking through the images …"
    # A preparation is ended by the same button.
    clients[0].say(StateChanged(state=RunState.PREPARING, time=2.0))
    clients[0].say(PreparationProgressed(what="Checking images", done=3, total=30, unit="images"))
    qtbot.waitUntil(cancel.isVisible)
    qtbot.mouseClick(cancel, Qt.MouseButton.LeftButton)
    assert clients[0].kinds()[-1] == "StopRun"


# -- what the model sees of an image --------------------------------------------------------------------------------


@pytest.fixture
def refusals(window: MainWindow) -> list[tuple[str, str]]:
    """Return the sentences that say why nobody can tell what the model sees, each after its image's path."""
    told: list[tuple[str, str]] = []
    window.display.data.views_refused.connect(lambda path, sentence: told.append((path, sentence)))
    return told


def answer_preview(client: ScriptedClient, path: str) -> None:
    views = [ImageView(file="1.png", epoch=1)]
    client.say(ImagePreviewed(path=path, views=views, command_id=client.id_of_last("PreviewImage")))


def test_a_running_worker_is_asked_for_one_picture_at_a_time_and_for_the_last_one_next(
    qtbot, window, running, run_info
) -> None:
    shown: list[str] = []
    window.display.data.views_shown.connect(lambda path, _: shown.append(path))
    for path in ("/1.png", "/2.png", "/3.png"):
        window.display.preview_image(path)
    assert [command.path for command in running.sent] == ["/1.png"]
    assert running.sent[0].config == run_info.config, "the run's, not the form's"
    answer_preview(running, "/1.png")
    qtbot.waitUntil(lambda: [command.path for command in running.sent] == ["/1.png", "/3.png"])
    # A picture that another window asked for is none of ours.
    running.say(ImagePreviewed(path="/other.png", views=[], command_id="of-another-window"))
    answer_preview(running, "/3.png")
    qtbot.waitUntil(lambda: "/3.png" in shown)
    assert shown == ["/1.png", "/3.png"]


def test_a_refused_preview_is_told_where_the_picture_is(qtbot, window, running, refusals) -> None:
    window.display.preview_image("/1.png")
    reason = "1.png is no image of these data any more. Check the data again."
    command_id = running.id_of_last("PreviewImage")
    running.say(CommandRejected(command="PreviewImage", reason=reason, command_id=command_id))
    qtbot.waitUntil(lambda: refusals == [("/1.png", reason)])
    assert window.notice.text == ""
    window.display.preview_image("/2.png")
    assert running.sent[-1].path == "/2.png"


def test_a_worker_that_dies_over_a_preview_leaves_a_sentence_where_the_picture_would_be(
    qtbot, window, clients, tmp_path, refusals
) -> None:
    # Asked of a worker that is still starting: that it is there at last is no reason to give up.
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    window.display.preview_image("/1.png")
    clients[0].serve()
    qtbot.waitUntil(lambda: "PreviewImage" in clients[0].kinds())
    assert refusals == []
    clients[0].say(WorkerLost(False, "It was killed."))
    gone = "The worker is gone that was to show what the model sees. Choose the image again."
    qtbot.waitUntil(lambda: refusals == [("/1.png", gone)])
    # The next one is not asked again for what may have ended the last one.
    qtbot.waitUntil(lambda: len(clients) == 2)
    clients[1].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    assert "PreviewImage" not in clients[1].kinds()
    window.display.preview_image("/1.png")
    assert clients[1].kinds()[-1] == "PreviewImage"


def test_a_preview_waits_while_a_run_is_prepared(qtbot, window, clients, begin_run: Begin, refusals) -> None:
    clients[0].serve()
    clients[0].say(StateChanged(state=RunState.PREPARING, time=2.0))
    qtbot.waitUntil(lambda: window.session.state is RunState.PREPARING)
    window.display.preview_image("/1.png")
    assert refusals == [("/1.png", "What the model sees is shown here as soon as the worker is free.")]
    begin_run(clients[0])
    qtbot.waitUntil(lambda: "PreviewImage" in clients[0].kinds())
    assert clients[0].kinds().count("PreviewImage") == 1


def test_a_run_that_no_worker_has_is_previewed_by_an_idle_one(
    qtbot, window, clients, session, run_info, refusals
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.display.run_config.set_text("training.epochs", "x")
    window.session.open_run(write_run(session.runs_dir, run_info))
    qtbot.waitUntil(lambda: window.session.state is RunState.STOPPED)
    window.display.preview_image("/1.png")
    assert clients[-1].sent[-1].config == run_info.config
    answer_preview(clients[-1], "/1.png")
    with qtbot.waitSignal(window.display.data.views_shown):
        pass
    assert refusals == []


def test_without_a_worker_or_a_whole_form_a_sentence_says_why_there_is_no_preview(
    qtbot, window, clients, tmp_path, refusals
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    window.display.preview_image("/1.png")
    assert refusals[-1][1] == "What the model sees depends on the form. Mend the field that is marked there first."
    window.display.run_config.set_text("data.path", str(tmp_path))
    window.display.preview_image("/\udcff.png")
    assert "its name is no text" in refusals[-1][1]
    # One that never served is not started again by itself.
    clients[0].say(WorkerLost(False, "It was killed."))
    window.session._has_served = False
    qtbot.waitUntil(lambda: not window.session.has_worker)
    window.display.preview_image("/1.png")
    assert refusals[-1][1] == "No worker is running that could show what the model sees. New run starts one."
    assert len(clients) == 1


def type_into(qtbot, window: MainWindow, field: str, text: str) -> None:
    editor = window.form._rows[field].editor
    editor.clear()
    qtbot.keyClicks(editor, text)


def length_event(command_id: str, epochs: int, patience: int | None = None) -> TrainingChanged:
    return TrainingChanged(
        epochs=epochs, before_epochs=6, patience=patience, before_patience=None, total_steps=45 * epochs,
        requested_step=5, applied_step=6, segment=0, command_id=command_id, time=4.0,
    )  # fmt: skip


def rate_event(command_id: str, rate: float, before: float = 0.001) -> RateChanged:
    return RateChanged(
        rate=rate, before=before, requested_step=5, applied_step=6, segment=0, command_id=command_id, time=4.0
    )


def test_of_a_live_run_rate_epochs_and_patience_can_be_changed_and_settle_on_the_event(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    form = window.form
    assert [field for field, row in form._rows.items() if row.editor.isEnabled()] == [
        "plan", "training.epochs", "optimizer.rate", "training.patience",
    ]  # fmt: skip
    assert (form._apply.isVisible(), form._apply.isEnabled()) == (True, False)
    type_into(qtbot, window, "optimizer.rate", "0.01")
    type_into(qtbot, window, "training.epochs", "9")
    assert form._apply.isEnabled()
    qtbot.keyClick(form._rows["training.epochs"].editor, Qt.Key.Key_Return)
    assert [(c.kind, getattr(c, "rate", None), getattr(c, "epochs", None)) for c in running.sent] == [
        ("SetRate", 0.01, None),
        ("ChangeTraining", None, 9),
    ]
    assert (form._apply.isEnabled(), form._apply.text()) == (False, "Waiting for the next step …")
    running.say(rate_event(running.sent[0].command_id, 0.01), length_event(running.sent[1].command_id, 9))
    qtbot.waitUntil(lambda: form._apply.text() == "Apply")
    assert not form._apply.isEnabled()
    assert window.display.status.progress_text.startswith("Epoch 1 of 9 · step 0 of 405")
    assert window.display.history.total_steps == 405
    rows = [window.display.log.index(row, 1).data() for row in range(window.display.log.rowCount())]
    assert rows[-2:] == ["Rate 0.01", "Epochs 9"]


def test_a_change_of_length_reaches_the_plans_strip_and_of_patience_the_star(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    display = window.display
    plan = [PlanPhase(epoch=4, unfreeze=["stage2"])]
    changed = PlanChanged(plan=plan, num_begun=0, requested_step=1, applied_step=1, segment=0, time=4.0)
    saved = [CheckpointSaved(checkpoint=checkpoint(1, 0.2, 0.7)), CheckpointSaved(checkpoint=checkpoint(2, 0.4, 0.9))]
    running.say(changed, *saved)
    qtbot.waitUntil(lambda: display.checkpoints.num_rows() == 2)
    assert [stage.is_never for stage in display.timeline.stages] == [False, False]
    assert [display.checkpoints.standing(row).is_best for row in range(2)] == [False, True]
    running.say(length_event("", 4, 3))
    qtbot.waitUntil(lambda: display.timeline.stages[1].is_never)
    assert [display.checkpoints.standing(row).is_best for row in range(2)] == [True, False]
    running.say(length_event("", 5, None))
    qtbot.waitUntil(lambda: not display.timeline.stages[1].is_never)
    assert [display.checkpoints.standing(row).is_best for row in range(2)] == [False, True]


def test_a_live_runs_plan_is_edited_and_settles_on_the_event(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    form = window.form
    type_into(qtbot, window, "plan", "2: +conv1; 4: +stage2 x0.5")
    qtbot.keyClick(form._rows["plan"].editor, Qt.Key.Key_Return)
    (command,) = running.sent
    assert isinstance(command, SetPlan)
    assert [(phase.epoch, phase.unfreeze, phase.rates) for phase in command.phases] == [
        (2, ["conv1"], {}), (4, ["stage2"], {"stage2": 0.5}),
    ]  # fmt: skip
    running.say(
        PlanChanged(
            plan=command.phases, num_begun=0, requested_step=1, applied_step=2, segment=0,
            command_id=command.command_id, time=4.0,
        )
    )  # fmt: skip
    qtbot.waitUntil(lambda: form._rows["plan"].editor.text() == "2: +conv1; 4: +stage2 ×0.5")
    assert not form._apply.isEnabled()
    assert [stage.when for stage in window.display.timeline.stages] == ["start", "epoch 2", "epoch 4"]
    assert window.timeline_view.isVisible()
    # What has begun is no longer to come.
    running.say(PhaseBegan(plan=command.phases, num_begun=1, step=90, segment=0, time=5.0))
    qtbot.waitUntil(lambda: form._rows["plan"].editor.text() == "4: +stage2 ×0.5")
    assert [stage.is_present for stage in window.display.timeline.stages] == [False, True, False]
    in_force = window.display.run_config.live.in_force
    assert (in_force.begun, in_force.plan) == (command.phases[:1], command.phases[1:])


def test_undo_after_a_change_was_sent_takes_back_the_change_and_not_the_typing(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    type_into(qtbot, window, "optimizer.rate", "0.01")
    qtbot.keyClick(window.form._rows["optimizer.rate"].editor, Qt.Key.Key_Return)
    running.say(rate_event(running.sent[-1].command_id, 0.01))
    qtbot.waitUntil(lambda: window.display.changes.can_undo)
    assert not window.form._rows["optimizer.rate"].editor.hasFocus()
    assert not window.form._rows["optimizer.rate"].editor.isUndoAvailable()
    qtbot.keyClick(window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert isinstance(running.sent[-1], SetRate)
    assert running.sent[-1].rate == 0.001


def test_a_new_run_after_one_with_a_plan_begins_as_that_one_began(
    qtbot, window: MainWindow, clients, run_info, tmp_path, summary
) -> None:
    plan = [PlanPhase(epoch=2, unfreeze=["stage2"])]
    info = run_info.model_copy(update={"config": run_info.config.model_copy(update={"plan": plan})})
    clients[0].serve()
    window.session.open_run(write_run(tmp_path / "runs", info))
    qtbot.waitUntil(lambda: window.display.run_config.run is not None)
    display = window.display
    began = PhaseBegan(plan=plan, num_begun=1, step=90, segment=0, time=3.0)
    unfrozen = LayersUnfrozen(
        layers=["stage2.0"], sentence="stage2 unfrozen", frozen=["conv1"], num_trainable=110, requested_step=90,
        applied_step=90, source="plan", segment=0, time=3.0,
    )  # fmt: skip
    display._on_plan_changed(began)
    display.layer_tree.settle(unfrozen)
    qtbot.waitUntil(lambda: window.form._rows["plan"].editor.text() == "")
    note = window.form._rows["plan"].note
    qtbot.waitUntil(lambda: note.whole_text == "All of it has begun: 2: +stage2")
    window._new_run()
    qtbot.waitUntil(lambda: display.run_config.run is None)
    assert window.form._rows["plan"].editor.text() == "2: +stage2"
    assert display.layer_tree.frozen_layers == ["backbone"]
    assert display.run_config.frozen == ["backbone"]


def test_advice_is_offered_and_done_by_its_button_only(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    sentence = "What learns is used up: validation loss 0.5. Unfreeze stage2?"
    running.say(ChangeAdvised(layers=["stage2"], is_freeze=False, sentence=sentence, step=90, segment=0, time=5.0))
    qtbot.waitUntil(lambda: window.notice.text == sentence)
    assert running.sent == []
    (button,) = window.notice._buttons
    assert button.text() == "Unfreeze stage2"
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    (command,) = running.sent
    assert isinstance(command, UnfreezeLayers)
    assert command.layers == ["stage2"]
    assert window.notice.text == ""
    rows = [window.display.log.index(row, 1).data() for row in range(window.display.log.rowCount())]
    assert rows[-1] == "Advice"


def test_the_live_form_keeps_its_height_under_advice_beside_a_matrix_in_a_small_window(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    form = window.form
    running.say(ChangeAdvised(layers=["stage2"], is_freeze=False, step=9, segment=0, sentence="Unfreeze it.", time=4.0))
    qtbot.waitUntil(lambda: window.notice.isVisible())
    window.tabs.setCurrentWidget(window.confusion_view)
    QApplication.processEvents()
    assert (window.width(), window.height()) == (1280, 800)
    assert form._scroll.height() >= 270
    title = form._apply.parentWidget().childAt(4, form._apply.geometry().center().y())
    assert isinstance(title, QLabel)
    assert title.text() == "Run"


def test_apply_comes_and_goes_without_moving_the_sections(qtbot, window: MainWindow, clients, begin_run: Begin) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    top = window.form._scroll.y()
    begin_run(clients[0])
    qtbot.waitUntil(lambda: window.form._apply.isVisible())
    QApplication.processEvents()
    assert window.form._scroll.y() == top


@pytest.mark.parametrize("is_live", [False, True])
def test_a_small_window_shows_a_models_name_whole_and_a_path_with_its_file(
    qtbot, window: MainWindow, clients, begin_run: Begin, is_live: bool
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    if is_live:
        begin_run(clients[0])
        qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    config = window.display.run_config
    weights = "/home/somebody/projects/fine-tuning/leaves.pt"
    config.set_text("model.name", "shufflenet_v2_x0_5")
    config.set_text("model.weights", weights)
    QApplication.processEvents()
    name, path = (window.form._rows[field].editor.lineEdit() for field in ("model.name", "model.weights"))
    option = QStyleOptionFrame()
    name.initStyleOption(option)
    room = name.style().subElementRect(QStyle.SubElement.SE_LineEditContents, option, name).width() - 4
    assert name.fontMetrics().horizontalAdvance(name.text()) <= room
    assert (path.text(), path.shown_text().endswith("/leaves.pt")) == (weights, True)
    assert "…" in path.shown_text()


@pytest.mark.parametrize("what", ["freeze", "stop"])
def test_advice_goes_when_what_learns_is_another_set_or_nothing_does(
    qtbot, window: MainWindow, running: ScriptedClient, what: str
) -> None:
    sentence = "Validation has not improved. Unfreeze stage2?"
    running.say(ChangeAdvised(layers=["stage2"], is_freeze=False, sentence=sentence, step=90, segment=0, time=5.0))
    qtbot.waitUntil(lambda: window.notice.text == sentence)
    frozen = LayersFrozen(
        layers=["conv1.0"],
        sentence="conv1 frozen",
        frozen=["conv1.0"],
        num_trainable=1,
        requested_step=91,
        applied_step=91,
        segment=0,
        source="user",
        time=6.0,
    )
    running.say(frozen if what == "freeze" else StateChanged(state=RunState.STOPPING, time=6.0))
    qtbot.waitUntil(lambda: window.notice.text == "")


def test_a_plan_that_is_chosen_is_written_into_the_tree_and_the_form(
    qtbot, window: MainWindow, clients, summary
) -> None:
    clients[0].serve()
    window.show_config(RunConfig(model=ModelConfig(name="tiny", frozen=[])), start=False)
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    show_model(clients[0], summary)
    qtbot.waitUntil(lambda: not window.display.layer_tree.is_empty)
    actions = {action.text(): action for action in window.form._rows["plan"].button.menu().actions()}
    assert list(actions) == [name.words for name in PlanName]
    actions["Gradual unfreezing"].trigger()
    editors = {field: row.editor for field, row in window.form._rows.items()}
    assert editors["plan"].text() == "3: +stage2; 6: +backbone"
    assert window.display.layer_tree.frozen_layers == ["backbone"]
    assert window.display.run_config.multipliers == {"stage2": 0.38, "conv1": 0.15}
    editors["training.epochs"].setText("2")
    window.display.run_config.set_text("training.epochs", "2")
    actions["Chain-thaw"].trigger()
    assert "needs at least 4 epochs" in window.form._rows["plan"].note.whole_text
    assert editors["plan"].text() == "3: +stage2; 6: +backbone"


def test_a_change_of_another_client_shows_but_what_is_being_typed_stays(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    type_into(qtbot, window, "training.epochs", "12")
    running.say(rate_event("elsewhere", 0.5), length_event("elsewhere", 7, 3))
    editors = {field: row.editor for field, row in window.form._rows.items()}
    qtbot.waitUntil(lambda: (editors["optimizer.rate"].text(), editors["training.patience"].text()) == ("0.5", "3"))
    assert editors["training.epochs"].text() == "12"
    assert window.display.run_config.live.wanted() == {"epochs": 12}
    running.say(StateChanged(state=RunState.STOPPING, time=5.0), StateChanged(state=RunState.STOPPED, time=5.0))
    qtbot.waitUntil(lambda: editors["training.epochs"].text() == "7")
    assert not editors["training.epochs"].isEnabled()


def test_a_refused_change_stands_beside_its_field(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    type_into(qtbot, window, "training.epochs", "1")
    qtbot.mouseClick(window.form._apply, Qt.MouseButton.LeftButton)
    reason = "Epochs cannot be 1: the run is in epoch 2 already."
    running.say(
        CommandRejected(
            command="ChangeTraining", reason=reason, field="training.epochs", command_id=running.sent[-1].command_id
        )
    )
    qtbot.waitUntil(lambda: window.form._rows["training.epochs"].note.text() == reason)
    assert window.notice.text == ""
    type_into(qtbot, window, "training.epochs", "six")
    assert not window.form._apply.isEnabled()


def test_undo_and_redo_name_what_they_do_and_go_by_the_keyboard(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    toolbar, tree = window.toolbar, window.display.layer_tree
    assert not toolbar._undo.isEnabled()
    tree.toggle([BACKBONE_ID])
    (asked,) = running.sent
    unfrozen = LayersUnfrozen(
        layers=["conv1", "stage2.0"], sentence="backbone unfrozen", frozen=[], num_trainable=130, requested_step=5,
        applied_step=6, source="user", segment=0, command_id=asked.command_id, time=4.0,
    )  # fmt: skip
    running.say(unfrozen)
    qtbot.waitUntil(toolbar._undo.isEnabled)
    assert toolbar._undo.toolTip() == "Undo: backbone unfrozen (Ctrl+Z)"
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    window.setFocus()
    qtbot.keyClick(window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    undo = running.sent[-1]
    assert (undo.kind, undo.layers, undo.is_exact) == ("FreezeLayers", ["conv1", "stage2.0"], True)
    assert tree.is_pending(BACKBONE_ID)
    assert not toolbar._undo.isEnabled()
    frozen = {**unfrozen.model_dump(exclude={"kind"}), "frozen": ["conv1", "stage2.0"], "num_trainable": 10}
    running.say(LayersFrozen(**{**frozen, "sentence": "backbone frozen", "command_id": undo.command_id}))
    qtbot.waitUntil(toolbar._redo.isEnabled)
    assert toolbar._redo.toolTip() == "Redo: backbone unfrozen (Ctrl+Shift+Z)"
    qtbot.mouseClick(toolbar._redo, Qt.MouseButton.LeftButton)
    assert running.kinds() == ["UnfreezeLayers", "FreezeLayers", "UnfreezeLayers"]
    running.say(StateChanged(state=RunState.STOPPING, time=5.0), StateChanged(state=RunState.STOPPED, time=5.0))
    qtbot.waitUntil(lambda: toolbar._undo.toolTip() == "Undo (Ctrl+Z): no change by hand to take back")


def test_a_marker_offers_the_state_before_it_as_long_as_that_is_kept(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    loss = window.metrics_view.loss
    losses = Series(steps=list(range(1, 21)), values=[2.0] * 20)
    running.say(
        MetricsLogged(segment=0, series={"Loss/train": losses}),
        RewindsKept(changes=[7], num_bytes=2_000_000, budget_bytes=1_000_000_000),
        rate_event("elsewhere", 0.01).model_copy(update={"applied_step": 12, "change": 7}),
    )
    qtbot.waitUntil(lambda: len(loss._marker_items) == 1 and loss._marker_items[0].x_px > 0)
    (item,) = loss._marker_items
    assert "Click it to go back to just before this." in item.toolTip()
    at_marker = loss.view_box.mapToScene(item.label_rect.center())
    assert loss.marker_menu(loss.view_box.mapToScene(QPointF(item.x_px + 200, 300))) is None
    menu = loss.marker_menu(at_marker)
    (action,) = menu.actions()
    assert action.text() == "Rewind to before: rate 0.01 · step 12"
    action.trigger()
    assert (running.sent[-1].kind, running.sent[-1].change) == ("Rewind", 7)
    running.say(
        RunRewound(
            change=7, sentence="rate 0.01", step=12, epoch=0, frozen=["conv1"], num_trainable=110, segment=1,
            rate=0.001, command_id=running.sent[-1].command_id, time=5.0,
        ),
        RewindsKept(changes=[], num_bytes=0, budget_bytes=1_000_000_000),
    )  # fmt: skip
    qtbot.waitUntil(lambda: [marker.is_abandoned for marker in window.display.history.markers] == [True])
    assert [len(piece.steps) for piece in window.display.history.all_points()] == [12, 8]
    assert window.display.run_config.text("optimizer.rate") == "0.001"
    qtbot.waitUntil(lambda: not loss._marker_items[0].marker.can_rewind)
    assert loss.marker_menu(at_marker) is None
    assert not window.toolbar._redo.isEnabled()


def test_redo_after_a_rewind_takes_the_run_back_to_where_it_was(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    redo, loss = window.toolbar._redo, window.metrics_view.loss
    losses = Series(steps=list(range(1, 21)), values=[2.0] * 20)
    restored = {"epoch": 0, "frozen": ["conv1"], "num_trainable": 110, "time": 5.0}
    kept = {"num_bytes": 2_000_000, "budget_bytes": 1_000_000_000}
    running.say(
        MetricsLogged(segment=0, series={"Loss/train": losses}),
        rate_event("elsewhere", 0.01).model_copy(update={"applied_step": 12, "change": 7}),
        RunRewound(change=7, sentence="rate 0.01", step=12, segment=1, rate=0.001, **restored),
        RewindsKept(changes=[], undo_step=20, **kept),
    )
    qtbot.waitUntil(redo.isEnabled)
    assert redo.toolTip() == "Redo: step 20, as before the run went back (Ctrl+Shift+Z)"
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    qtbot.keyClick(window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    command = running.sent[-1]
    assert (command.kind, command.is_undo) == ("Rewind", True)
    assert not redo.isEnabled()
    running.say(
        RewindUndone(
            undone_segment=1,
            undone_step=12,
            step=20,
            segment=2,
            parent=0,
            rate=0.01,
            command_id=command.command_id,
            **restored,
        ),
        RewindsKept(changes=[7], **kept),
    )
    qtbot.waitUntil(lambda: [item.marker.can_rewind for item in loss._marker_items] == [True])
    assert redo.toolTip() == "Redo (Ctrl+Shift+Z): nothing was undone"
    assert [len(piece.steps) for piece in window.display.history.all_points()] == [20]
    assert window.display.run_config.text("optimizer.rate") == "0.01"
    assert window.display.status.progress_text.startswith("Epoch 1 of ")


CURVE = RateCurve(rates=[1e-4, 1e-3, 1e-2], losses=[2.0, 1.0, 3.0], smoothed=[2.0, 1.5, 1.8], suggestion=0.00123)


def open_search(qtbot, window: MainWindow) -> RateDialog:
    qtbot.mouseClick(window.form._find, Qt.MouseButton.LeftButton)
    (dialog,) = window.findChildren(RateDialog)
    return dialog


@ASKS
def test_a_rate_is_looked_for_before_a_run_and_written_into_the_form(
    qtbot, window: MainWindow, clients, tmp_path
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    qtbot.mouseClick(window.form._find, Qt.MouseButton.LeftButton)
    # Without data there is nothing to try.
    assert "FindRate" not in clients[0].kinds()
    window.show_config(RunConfig(data=DataConfig(path=str(tmp_path))), start=False)
    dialog = open_search(qtbot, window)
    command = clients[0].sent[-1]
    assert (command.kind, command.config.data.path) == ("FindRate", str(tmp_path))
    clients[0].say(PreparationProgressed(what="Trying rates", done=5, total=100, unit="steps", time=1.0))
    qtbot.waitUntil(lambda: dialog.sentence.text() == "Trying rates: step 5 of 100")
    assert (dialog.use.isEnabled(), dialog.close_button.text()) == (False, "Cancel")
    clients[0].say(
        RateFound(curve=CURVE.model_copy(update={"suggestion": 1.0}), command_id="another's", time=2.0),
        RateFound(curve=CURVE, command_id=command.command_id, time=2.0),
    )
    qtbot.waitUntil(dialog.use.isEnabled)
    assert dialog.use.text() == "Use 0.0012"
    qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    assert window.form._rows["optimizer.rate"].editor.text() == "0.0012"
    assert "SetRate" not in clients[0].kinds()


@ASKS
def test_a_paused_run_gets_the_rate_that_was_found_at_once(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    assert not window.form._find.isEnabled()
    assert "Pause the run first" in window.form._find.toolTip()
    running.say(StateChanged(state=RunState.PAUSED, time=4.0))
    qtbot.waitUntil(window.form._find.isEnabled)
    dialog = open_search(qtbot, window)
    command = running.sent[-1]
    assert (command.kind, command.config) == ("FindRate", None)
    running.say(RateFound(curve=CURVE, command_id=command.command_id, time=5.0))
    qtbot.waitUntil(dialog.use.isEnabled)
    qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    assert (running.sent[-1].kind, running.sent[-1].rate) == ("SetRate", 0.0012)


@ASKS
def test_closing_the_search_ends_it_and_a_refusal_is_told_in_it(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    running.say(StateChanged(state=RunState.PAUSED, time=4.0))
    qtbot.waitUntil(window.form._find.isEnabled)
    dialog = open_search(qtbot, window)
    command_id = running.sent[-1].command_id
    running.say(CommandRejected(command="FindRate", reason="Out of memory.", command_id=command_id))
    qtbot.waitUntil(lambda: dialog.sentence.text() == "Out of memory.")
    assert window.notice.text == ""
    dialog.reject()
    assert running.kinds() == ["FindRate"]
    qtbot.waitUntil(lambda: not window.findChildren(RateDialog))
    open_search(qtbot, window).reject()
    assert running.kinds() == ["FindRate", "FindRate", "CancelLookUp"]


def test_the_tables_are_raised_for_the_confusion_matrix_and_lowered_again(qtbot, window: MainWindow, running) -> None:
    low = window._rows.sizes()
    window.tabs.setCurrentWidget(window.confusion_view)
    qtbot.waitUntil(lambda: window._rows.sizes()[1] > low[1])
    window.tabs.setCurrentWidget(window.checkpoints_view)
    qtbot.waitUntil(lambda: window._rows.sizes() == low)


def test_a_checkpoint_of_the_live_run_brings_its_confusion_matrix(
    qtbot, window: MainWindow, running, run_info, tmp_path
) -> None:
    counts = [[3, 1], [0, 4]]
    saved = checkpoint(2, 0.1, 0.95)
    matrix = ConfusionMatrix(split="validation", checkpoint=saved.name, step=45, class_names=["0", "1"], counts=counts)
    path = Path(run_info.run_dir)
    path.parent.mkdir(parents=True)
    write_run(tmp_path / "written", run_info).rename(path)
    with RunFolder(path) as folder:
        folder.checkpoints.add(saved, matrix)
    window.tabs.setCurrentWidget(window.confusion_view)
    running.say(CheckpointSaved(checkpoint=saved, command_id="", time=9.0))
    qtbot.waitUntil(lambda: window.display.confusion.confusion is not None)
    assert window.confusion_view.map.model().rowCount() == 2


def press(qtbot, window: MainWindow, key: Qt.Key) -> None:
    """Press a key where the focus is."""
    qtbot.keyClick(window.focusWidget() or window, key)


@pytest.mark.parametrize("button", ["_stop", "_save", "_primary"])
def test_a_button_that_goes_off_leaves_the_keys_to_what_steers_the_run(
    qtbot, window: MainWindow, running: ScriptedClient, button: str
) -> None:
    getattr(window.toolbar, button).setFocus()
    running.say(StateChanged(state=RunState.STOPPING, time=9.0))
    qtbot.waitUntil(lambda: not window.toolbar._stop.isEnabled())
    press(qtbot, window, Qt.Key.Key_Space)
    assert window.session.run_dir is not None
    running.say(StateChanged(state=RunState.STOPPED, time=9.0))
    qtbot.waitUntil(lambda: window.toolbar._primary.text() == "Resume")
    press(qtbot, window, Qt.Key.Key_Space)
    assert window.session.run_dir is not None
    assert running.kinds() == []


def test_undo_of_the_last_change_leaves_the_focus_on_pause(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    running.say(rate_event("elsewhere", 0.5))
    qtbot.waitUntil(lambda: window.toolbar._undo.isEnabled())
    window.toolbar._undo.setFocus()
    window.display.changes.clear()
    assert window.focusWidget() is window.toolbar._primary


def advice(layer: str = "stage2") -> ChangeAdvised:
    sentence = f"Validation has not improved. Unfreeze {layer}?"
    return ChangeAdvised(layers=[layer], is_freeze=False, sentence=sentence, step=90, segment=0, time=5.0)


@pytest.mark.parametrize("size", [(1280, 800), (960, 620)])
def test_a_notice_moves_nothing_and_hides_no_tool(
    qtbot, window: MainWindow, running: ScriptedClient, size: tuple[int, int]
) -> None:
    window.resize(*size)
    QApplication.processEvents()
    watched = [window.toolbar, window.form, window.tabs, window.metrics_view, window.tree_view]
    places = [widget.mapTo(window, widget.rect().topLeft()) for widget in watched]
    heights = [widget.height() for widget in watched]
    running.say(advice())
    qtbot.waitUntil(lambda: window.notice.isVisible())
    QApplication.processEvents()
    assert [widget.mapTo(window, widget.rect().topLeft()) for widget in watched] == places
    assert [widget.height() for widget in watched] == heights
    notice = window.notice.geometry()
    assert window.rect().contains(notice)
    for widget in (window.toolbar, window.form, window.tabs):
        assert not notice.intersects(widget.rect().translated(widget.mapTo(window, widget.rect().topLeft())))
    window.resize(size[0], size[1] + 100)
    assert window.notice.geometry().bottom() == notice.bottom() + 100


def test_an_error_stands_before_advice_and_leaves_it(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    running.say(advice())
    qtbot.waitUntil(lambda: "Unfreeze stage2?" in window.notice.text)
    window.display.told.emit("The disk is full.", False)
    assert window.notice.text == "The disk is full."
    running.say(advice("stage3"))
    qtbot.waitUntil(lambda: window.notice._advice.sentence.endswith("stage3?"))
    assert window.notice.text == "The disk is full."
    qtbot.mouseClick(window.notice._close, Qt.MouseButton.LeftButton)
    assert window.notice.text == "Validation has not improved. Unfreeze stage3?"
    # A pause takes nothing of it back, nor does going on.
    running.say(StateChanged(state=RunState.PAUSED, time=9.0), StateChanged(state=RunState.RUNNING, time=9.5))
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING and not window.session._client._events)
    assert window.notice.text == "Validation has not improved. Unfreeze stage3?"
    qtbot.mouseClick(window.notice._close, Qt.MouseButton.LeftButton)
    assert window.notice.text == ""
    assert not window.notice.isVisible()


def test_a_notice_that_goes_leaves_the_keys_to_the_window(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    running.say(advice())
    qtbot.waitUntil(lambda: window.notice.isVisible())
    window.notice._close.setFocus()
    qtbot.mouseClick(window.notice._close, Qt.MouseButton.LeftButton)
    assert window.focusWidget() is window
    press(qtbot, window, Qt.Key.Key_Space)
    assert running.kinds() == ["PauseRun"]


@pytest.mark.parametrize(("state", "words"), [(RunState.PAUSED, "paused"), (RunState.READY, "ready to start")])
def test_a_run_that_is_left_while_it_does_not_train_is_said_to_be_so_until_the_runs_are_looked_at(
    qtbot, window: MainWindow, running: ScriptedClient, state: RunState, words: str
) -> None:
    running.say(StateChanged(state=state, time=9.0))
    qtbot.waitUntil(lambda: window.session.state is state)
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    assert window.notice.text == f"You left digits · tiny {words}. It is listed under Runs."
    window.tabs.setCurrentWidget(window.runs_view)
    assert window.notice.text == ""


def refuse_plan(qtbot, window: MainWindow, running: ScriptedClient, text: str) -> None:
    """Type a plan for the live run, and have the worker refuse it."""
    type_into(qtbot, window, "plan", text)
    qtbot.keyClick(window.form._rows["plan"].editor, Qt.Key.Key_Return)
    refusal = CommandRejected(command="SetPlan", reason="No.", field="plan", command_id=running.sent[-1].command_id)
    running.say(refusal)
    qtbot.waitUntil(lambda: window.display.run_config.error("plan") == "No.")


def test_a_refused_plan_gives_way_to_the_plan_in_force_when_that_is_told_or_by_escape(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    editor, config = window.form._rows["plan"].editor, window.display.run_config
    refuse_plan(qtbot, window, running, "5: +stage2")
    phases = [PlanPhase(epoch=4, unfreeze=["stage2"])]
    running.say(PhaseBegan(plan=phases, num_begun=0, step=90, segment=0, time=5.0))
    qtbot.waitUntil(lambda: editor.text() == "4: +stage2")
    assert config.error("plan") == ""
    refuse_plan(qtbot, window, running, "5: +stage2")
    # Another figure of the run says nothing of the plan.
    running.say(rate_event("elsewhere", 0.5))
    qtbot.waitUntil(lambda: window.form._rows["optimizer.rate"].editor.text() == "0.5")
    assert (editor.text(), config.error("plan")) == ("5: +stage2", "No.")
    window.activateWindow()
    editor.setFocus()
    qtbot.waitUntil(editor.hasFocus)
    qtbot.keyClick(editor, Qt.Key.Key_Escape)
    assert config.error("plan") == ""
    qtbot.waitUntil(lambda: editor.text() == "4: +stage2")
    assert not window.form._apply.isEnabled()


def test_a_layer_that_the_model_has_not_is_found_in_a_plan_as_it_is_typed(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    type_into(qtbot, window, "plan", "3: -nosuch")
    assert window.display.run_config.error("plan") == "The model has no layer nosuch. Its tree lists the names."
    assert not window.display.run_config.note("plan")
    type_into(qtbot, window, "plan", "3: -conv1, =stage2.* x0.1")
    assert window.display.run_config.error("plan") == ""


def test_no_example_of_a_plan_stands_where_a_runs_plan_would(
    qtbot, window: MainWindow, clients, begin_run: Begin
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    editor = window.form._rows["plan"].editor
    assert editor.placeholderText() == "3: +backbone"
    begin_run(clients[0])
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    assert editor.placeholderText() == ""


def test_while_an_interrupted_run_is_resumed_nothing_says_interrupted_or_offers_to_resume(
    qtbot, window: MainWindow, running: ScriptedClient, clients
) -> None:
    running.say(WorkerLost(False, "The worker was killed.", ""))
    qtbot.waitUntil(lambda: window.display.status.state_text == "Interrupted" and len(clients) == 2)
    assert window.notice.text
    window.session.resume()
    assert window.notice.text == ""
    assert window.display.status.state_text == "Starting"


def test_an_old_error_goes_when_a_resume_is_verified(qtbot, window: MainWindow, running, monkeypatch) -> None:
    window.display.told.emit("Cannot export it.", False)
    monkeypatch.setattr(window.display.verification, "start", lambda command: None)
    window.display.verify_resume("last")
    assert window.notice.text == ""


@pytest.mark.qt_log_ignore("This plugin does not support")
def test_shift_f10_opens_the_menu_of_the_table_and_ctrl_q_closes(qtbot, window: MainWindow, clients) -> None:
    clients[0].serve()
    view = window.checkpoints_view
    window.display.checkpoints.add(checkpoint(1, 0.5, 0.9))
    window.activateWindow()
    view._table.setFocus()
    qtbot.waitUntil(view._table.hasFocus)
    qtbot.keyClick(view._table, Qt.Key.Key_F10, Qt.KeyboardModifier.ShiftModifier)
    assert view._menu.isVisible()
    view._menu.close()
    with qtbot.waitSignal(window.closed):
        qtbot.keyClick(view._table, Qt.Key.Key_Q, Qt.KeyboardModifier.ControlModifier)


@pytest.mark.parametrize(("screen", "expected"), [((1366, 768), (1284, 721)), ((1920, 1080), (1360, 860))])
def test_the_first_window_has_room_on_the_screen_with_its_frame(
    qtbot, themed, session, settings, monkeypatch, screen: tuple[int, int], expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(MainWindow, "screen", lambda _: SimpleNamespace(availableSize=lambda: QSize(*screen)))
    window = MainWindow(session, settings)
    qtbot.addWidget(window)
    assert window.size().toTuple() == pytest.approx(expected, abs=2)


def test_the_tools_stay_where_they_are_as_the_text_of_the_progress_grows(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    toolbar = window.toolbar
    for width in range(1000, 1360, 20):
        window.resize(width, 800)
        places = set()
        for step, seconds in ((1, None), (184, 35_000), (200, 5), (269, 3_000)):
            progress = ProgressReported(
                epoch=0, num_epochs=6, step=step, total_steps=270, samples_per_s=10, seconds_left=seconds, step_ms=14,
                worker_bytes=1,
            )  # fmt: skip
            window.display.status.progress(progress)
            toolbar._show_progress()
            QApplication.processEvents()
            places.add((toolbar._open.text(), toolbar._board.geometry().left()))
        assert len(places) == 1, width


def test_the_filter_stands_beside_the_tabs_with_room_for_words_and_escape_clears_it(qtbot, window: MainWindow) -> None:
    box = window.checkpoints_view.filter_box
    assert box.isVisible()
    assert window.tabs.rect().contains(box.geometry().translated(box.parentWidget().pos()))
    room = box.width() - box.fontMetrics().horizontalAdvance(box.placeholderText())
    assert room >= 24
    qtbot.keyClicks(box, "epoch best")
    assert window.checkpoints_view._table.empty_text.endswith("Escape clears it.")
    qtbot.keyClick(box, Qt.Key.Key_Escape)
    assert box.text() == ""
    window.tabs.setCurrentWidget(window.log_view)
    assert not box.isVisible()


def test_runs_made_elsewhere_come_into_the_list_while_it_is_looked_at_and_are_told_apart(
    qtbot, window: MainWindow, tmp_path, run_info
) -> None:
    view, runs = window.runs_view, window.display.runs
    assert not view._look_timer.isActive()
    view._look_timer.setInterval(50)
    window.tabs.setCurrentWidget(view)
    first = write_run(tmp_path / "runs", run_info)
    # A look may come while its folder is being made.
    qtbot.waitUntil(lambda: runs.rowCount() == 1 and runs.index(0, 0).data() == "digits")
    second = write_run(tmp_path / "runs", run_info)
    assert first != second
    in_list = re.compile(r"digits · \d\d:\d\d:\d\d")
    qtbot.waitUntil(lambda: runs.rowCount() == 2 and in_list.fullmatch(runs.index(0, 0).data()) is not None)
    assert in_list.fullmatch(runs.index(1, 0).data())
    window.tabs.setCurrentWidget(window.log_view)
    assert not view._look_timer.isActive()


def test_a_run_that_goes_on_changes_its_row_of_the_list_and_nothing_else(
    qtbot, window: MainWindow, tmp_path, run_info
) -> None:
    runs = window.display.runs
    write_run(tmp_path / "runs", run_info)
    listing = list_runs(tmp_path / "runs")[0]
    runs.show_runs([listing])
    with qtbot.assertNotEmitted(runs.modelReset), qtbot.waitSignal(runs.dataChanged):
        runs.show_runs([replace(listing, epoch=listing.epoch + 1)])
    with qtbot.assertNotEmitted(runs.dataChanged):
        runs.show_runs([replace(listing, epoch=listing.epoch + 1)])
