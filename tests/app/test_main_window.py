"""The whole window, driven as a user drives it, around a worker that says what the test tells it to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMessageBox

from app import theme
from app.main_window import MainWindow
from app.views.leave_dialog import LeaveDialog
from tests.app.conftest import ScriptedClient, checkpoint
from tests.app.test_session import write_run
from trainer.client import WorkerLost
from trainer.config import DataConfig, ModelConfig, RunConfig
from trainer.messages import (
    CheckpointSaved,
    CommandRejected,
    LayersUnfrozen,
    MetricsLogged,
    ModelInspected,
    ProgressReported,
    RunState,
    Series,
    StateChanged,
)

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


def test_a_fresh_window_asks_for_the_models_and_the_tree(qtbot, window: MainWindow, clients, summary) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: clients[0].kinds() == ["ListModels", "InspectModel"])
    clients[0].say(ModelInspected(summary=summary, time=1.0))
    qtbot.waitUntil(lambda: not window.display.layer_tree.is_empty)
    assert window.form._start.isEnabled()
    assert not window.toolbar._stop.isEnabled()


def test_start_sends_the_form_with_the_layers_ticked_in_the_tree(qtbot, window, clients, summary, tmp_path) -> None:
    clients[0].serve()
    window.show_config(
        RunConfig(data=DataConfig(path=str(tmp_path)), model=ModelConfig(name="tiny", frozen=["conv1"])), start=False
    )
    clients[0].say(ModelInspected(summary=summary.model_copy(update={"frozen": ["conv1"]}), time=1.0))
    qtbot.waitUntil(lambda: not window.display.layer_tree.is_empty)
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "PrepareRun" in clients[0].kinds())
    prepared = clients[0].sent[-1]
    assert prepared.config.model.frozen == ["conv1"]
    assert prepared.start


def test_start_with_a_bad_field_sends_nothing_and_says_why(qtbot, window: MainWindow, clients) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE)
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    assert "PrepareRun" not in clients[0].kinds()
    assert window.form._hints["data.path"].text() == "Choose a folder of class folders, or a zip of one."


def test_buttons_follow_the_state(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    toolbar = window.toolbar
    assert toolbar._primary.text() == "Pause"
    assert toolbar._stop.isEnabled()
    assert not window.form._editors["optimizer.rate"].isEnabled()
    qtbot.mouseClick(toolbar._primary, Qt.MouseButton.LeftButton)
    running.say(StateChanged(state=RunState.PAUSED, time=4.0))
    qtbot.waitUntil(lambda: toolbar._primary.text() == "Unpause")
    qtbot.mouseClick(toolbar._primary, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(toolbar._save, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(toolbar._stop, Qt.MouseButton.LeftButton)
    assert running.kinds() == ["PauseRun", "UnpauseRun", "SaveCheckpoint", "StopRun"]


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
    assert window.windowTitle() == "digits · tiny – Thaw"


def test_a_freeze_asked_in_the_tree_is_pending_until_it_is_refused(qtbot, window, running: ScriptedClient) -> None:
    window.display.layer_tree.unfreeze_requested.emit(["stage2"])
    assert running.kinds() == ["UnfreezeLayers"]
    running.say(
        CommandRejected(command="UnfreezeLayers", reason="No.", command_id=running.sent[0].command_id, time=4.0)
    )
    qtbot.waitUntil(lambda: window.display.layer_tree.message == "No.")
    assert window.notice.text == ""


def test_a_killed_worker_is_told_with_resume(qtbot, window: MainWindow, running: ScriptedClient, clients) -> None:
    running.say(CheckpointSaved(checkpoint=checkpoint(1, 0.5, 0.9), time=6.0), WorkerLost(False, "It was killed."))
    qtbot.waitUntil(lambda: window.notice.text == "It was killed.")
    assert window.toolbar._primary.text() == "Resume"
    qtbot.mouseClick(window.notice._action, Qt.MouseButton.LeftButton)
    clients[1].serve()
    qtbot.waitUntil(lambda: "OpenRun" in clients[1].kinds())
    assert window.notice.text == ""


def test_a_paused_run_that_has_something_to_say_says_it(qtbot, window: MainWindow, running: ScriptedClient) -> None:
    running.say(StateChanged(state=RunState.PAUSED, sentence="The loss became NaN at step 9.", time=4.0))
    qtbot.waitUntil(lambda: window.notice.text == "The loss became NaN at step 9.")


def test_a_run_from_disk_is_shown_whole(qtbot, window: MainWindow, tmp_path, run_info) -> None:
    run_dir = write_run(tmp_path / "runs", run_info)
    window.session.open_run(run_dir)
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 1)
    assert window.display.status.state_text == "Interrupted"
    assert not window.display.history.is_empty
    assert window.checkpoints_view._resume.isEnabled() is not None
    # The row has no file: it is shown as damaged, and refused.
    qtbot.waitUntil(lambda: window.display.checkpoints.problem_of("checkpoint_tiny_001.pt") == "file is missing")
    assert not window.checkpoints_view._restore.isEnabled()


def test_new_run_puts_everything_away_and_keeps_the_values(qtbot, window, running: ScriptedClient, clients) -> None:
    running.say(MetricsLogged(segment=0, series={"Loss/train": Series(steps=[1], values=[2.0])}))
    qtbot.waitUntil(lambda: not window.display.history.is_empty)
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    assert window.display.history.is_empty
    assert window.display.checkpoints.rowCount() == 0
    assert window.display.run_config.text("training.epochs") == "6"
    assert "goes on in the background" in window.notice.text
    assert running.is_closed
    clients[1].serve()
    qtbot.waitUntil(lambda: window.form._start.isVisible())


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
