"""The real window around a real worker: clicks, a kill, a second client, and no moment in which the window hangs."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PySide6.QtCore import QLocale, QSettings, Qt, QTimer
from PySide6.QtWidgets import QApplication

from app import theme
from app.cli import DEMO_CONFIG_PATH
from app.main_window import MainWindow
from app.session import TrainingSession
from app.settings import Settings
from app.viewmodels.image_items import SplitRole
from app.views.data import DataView
from tests.integration.conftest import Driver
from trainer.checkpoints import CheckpointStore
from trainer.config import VIEWS, RunConfig, load_config
from trainer.messages.changes import LayersFrozen, RateChanged
from trainer.messages.commands import PauseRun, SetRate, StopRun
from trainer.messages.events import StateChanged
from trainer.messages.states import RunState
from trainer.runs import RunFolder

pytestmark = pytest.mark.window
PATIENCE_MS = 90_000
BLOCK_LIMIT_S = 0.050


@pytest.fixture
def open_window(qtbot, qapp: QApplication, tmp_path: Path) -> Iterator[Callable[[], MainWindow]]:
    """Open whole windows, each with a session and a warm worker of its own."""
    QLocale.setDefault(QLocale(QLocale.Language.English, QLocale.Country.UnitedStates))
    theme.apply(qapp, "light")
    opened: list[MainWindow] = []

    def make() -> MainWindow:
        settings = Settings(QSettings(str(tmp_path / f"{len(opened)}.ini"), QSettings.Format.IniFormat))
        window = MainWindow(TrainingSession(tmp_path / "runs"), settings)
        window.load_views()
        window.resize(1280, 800)
        window.show()
        opened.append(window)
        return window

    yield make
    for window in opened:
        client = window.session._client
        window._is_closing = True
        window.close()
        if client is not None:
            client.kill()
        window.deleteLater()
    qapp.setStyleSheet("")
    QLocale.setDefault(QLocale.system())


def long(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": 500})})


def begin(qtbot, window: MainWindow, config: RunConfig) -> None:
    window.show_config(config, start=True)
    wait_state(qtbot, window, RunState.RUNNING)
    qtbot.waitUntil(lambda: window.display.history.at("Loss/train", 1e9) is not None, timeout=PATIENCE_MS)


def wait_state(qtbot, window: MainWindow, state: RunState) -> None:
    qtbot.waitUntil(lambda: window.session.state is state, timeout=PATIENCE_MS)


def train_steps(window: MainWindow) -> list[int]:
    pieces = window.display.history.all_points()
    return next(list(p.steps) for p in pieces if p.tag == "Loss/train" and not p.is_abandoned)


def row_of(window: MainWindow, name: str):
    tree = window.tree_view
    (index,) = tree.filter.match(
        tree.filter.index(0, 0), Qt.ItemDataRole.DisplayRole, name, 1,
        Qt.MatchFlag.MatchExactly | Qt.MatchFlag.MatchRecursive,
    )  # fmt: skip
    return index


def check_of(window: MainWindow, name: str) -> Qt.CheckState:
    return Qt.CheckState(row_of(window, name).data(Qt.ItemDataRole.CheckStateRole))


def test_a_tick_in_the_tree_freezes_for_real_and_is_drawn_and_logged(
    qtbot, open_window: Callable[[], MainWindow], small_config: RunConfig
) -> None:
    window = open_window()
    begin(qtbot, window, long(small_config))
    assert check_of(window, "stage4") is Qt.CheckState.Checked
    tree = window.tree_view.tree
    tree.setCurrentIndex(row_of(window, "stage4"))
    tree.setFocus()
    qtbot.keyClick(tree, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: check_of(window, "stage4") is Qt.CheckState.Unchecked, timeout=PATIENCE_MS)
    with RunFolder(window.session.run_dir, read_only=True) as folder:
        (event,) = folder.read().freeze_events
    assert event.sentence == "stage4 unfrozen"
    assert 0 <= event.applied_step - event.requested_step <= 1
    (marker,) = window.display.history.markers
    assert marker.applied_step == event.applied_step
    log = window.display.log
    rows = [
        [str(log.index(row, column).data()) for column in range(log.columnCount())] for row in range(log.rowCount())
    ]
    assert any("stage4 unfrozen" in " ".join(row) and str(event.applied_step) in row for row in rows)


def test_a_killed_worker_is_told_within_two_seconds_and_resume_goes_on(
    qtbot, open_window: Callable[[], MainWindow], small_config: RunConfig
) -> None:
    window = open_window()
    begin(qtbot, window, long(small_config))
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() > 0, timeout=PATIENCE_MS)
    killed_at = time.monotonic()
    os.kill(window.session._client.pid, signal.SIGKILL)
    # An advice may be shown until then.
    qtbot.waitUntil(lambda: window.notice.isVisible() and "killed" in window.notice.text, timeout=PATIENCE_MS)
    assert time.monotonic() - killed_at < 2
    run_dir = window.session.run_dir
    with RunFolder(run_dir, read_only=True) as folder:
        saved = folder.checkpoints.resume_point()
    qtbot.mouseClick(window.notice._buttons[0], Qt.MouseButton.LeftButton)
    wait_state(qtbot, window, RunState.RUNNING)
    assert window.session.run_dir == run_dir
    qtbot.waitUntil(lambda: window.display.history.at("Loss/train", 1e9)[0] > saved.step, timeout=PATIENCE_MS)
    steps = train_steps(window)
    assert list(steps) == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_a_branch_with_another_configuration_begins_from_its_checkpoint_and_keeps_its_lineage(
    qtbot, open_window: Callable[[], MainWindow], small_config: RunConfig
) -> None:
    window = open_window()
    begin(qtbot, window, small_config)
    wait_state(qtbot, window, RunState.FINISHED)
    parent, checkpoints = window.session.run_dir, window.display.checkpoints
    first = checkpoints.present.infos[0]
    window.checkpoints_view._table.select_keys([checkpoints.present.key(first.name)])
    window.checkpoints_view._branch.trigger()
    qtbot.waitUntil(lambda: window.form.branch_line.isVisible(), timeout=PATIENCE_MS)
    form = window.display.run_config
    for name, text in (("optimizer.rate", "0.05"), ("optimizer.name", "SGD"), ("training.epochs", "1")):
        form.set_text(name, text)
    qtbot.waitUntil(window.form._start.isEnabled, timeout=PATIENCE_MS)
    qtbot.mouseClick(window.form._start, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.session.run_dir not in {None, parent}, timeout=PATIENCE_MS)
    wait_state(qtbot, window, RunState.FINISHED)
    with RunFolder(window.session.run_dir, read_only=True) as folder:
        config, (saved,) = folder.config(), folder.checkpoints.listed()
    assert config.branch is not None
    assert (Path(config.branch.run), config.branch.checkpoint) == (parent, first.name)
    assert (config.optimizer.rate, config.optimizer.name, config.training.epochs) == (0.05, "SGD", 1)
    assert saved.epoch == 1
    with RunFolder(parent, read_only=True) as folder:
        before = CheckpointStore(folder, read_only=True).load(first)["model_state_dict"]
    with RunFolder(window.session.run_dir, read_only=True) as folder:
        began = CheckpointStore(folder, read_only=True).read_base()
    assert all(torch.equal(began[name], value) for name, value in before.items())
    window.display.list_runs()
    qtbot.waitUntil(lambda: window.display.runs.rowCount() == 2, timeout=PATIENCE_MS)
    row = window.display.runs.row_of(window.session.run_dir)
    origin = window.display.runs.index(row, 0).data(Qt.ItemDataRole.ToolTipRole)
    assert origin.startswith("Branched from small-shufflenet_v2_x0_5, epoch 1\n")


@pytest.mark.slow
def test_a_restore_from_the_table_puts_the_live_run_back(
    qtbot, open_window: Callable[[], MainWindow], small_config: RunConfig
) -> None:
    window = open_window()
    begin(qtbot, window, long(small_config))
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() > 2, timeout=PATIENCE_MS)
    with RunFolder(window.session.run_dir, read_only=True) as folder:
        first = folder.checkpoints.listed()[0]
    window.session.restore(first.name)
    with qtbot.waitSignal(window.session.checkpoint_restored, timeout=PATIENCE_MS) as restored:
        pass
    assert restored.args[0].step == first.step
    window.session.stop()
    wait_state(qtbot, window, RunState.STOPPED)
    # And into the stopped run, which then is ready to go on.
    window.session.restore(first.name)
    wait_state(qtbot, window, RunState.READY)


@pytest.mark.slow
def test_closed_in_the_background_and_opened_again_the_curve_has_no_gap(
    qtbot, open_window: Callable[[], MainWindow], small_config: RunConfig
) -> None:
    window = open_window()
    begin(qtbot, window, long(small_config))
    run_dir = window.session.run_dir
    window._close_now()
    again = open_window()
    again.session.open_run(run_dir)
    wait_state(qtbot, again, RunState.RUNNING)
    reached = again.display.history.at("Loss/train", 1e9)
    qtbot.waitUntil(
        lambda: (
            again.display.history.at("Loss/train", 1e9) is not None
            and again.display.history.at("Loss/train", 1e9)[0] > (reached[0] if reached else 0) + 20
        ),
        timeout=PATIENCE_MS,
    )
    steps = train_steps(again)
    assert list(steps) == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_a_shell_and_the_window_steer_the_same_run(
    qtbot, open_window: Callable[[], MainWindow], small_config: RunConfig, attach: Callable[[Path], Driver]
) -> None:
    window = open_window()
    begin(qtbot, window, long(small_config))
    shell = attach(window.session.run_dir)
    shell.send(PauseRun())
    wait_state(qtbot, window, RunState.PAUSED)
    window.session.freeze(["head.0"])  # no such layer: refused with a sentence, and nothing else happens
    with qtbot.waitSignal(window.session.command_rejected, timeout=PATIENCE_MS) as refused:
        pass
    assert "head.0" in refused.args[0].reason
    window.session.unfreeze(["conv5"])
    window.session.freeze(["conv5"])
    assert shell.wait(LayersFrozen).sentence == "conv5 frozen"
    # What the shell changes, the window can undo.
    shell.send(SetRate(rate=0.5))
    qtbot.waitUntil(lambda: window.display.changes.undo_text == "rate 0.5", timeout=PATIENCE_MS)
    window.display.changes.undo()
    rate = small_config.optimizer.rate
    assert shell.wait(RateChanged, lambda event: event.before == 0.5).rate == rate
    qtbot.waitUntil(lambda: window.display.changes.undo_text.endswith("conv5 frozen"), timeout=PATIENCE_MS)
    shell.send(StopRun())
    wait_state(qtbot, window, RunState.STOPPED)
    shell.wait(StateChanged, lambda event: event.state is RunState.STOPPED)


# Only the offscreen platform says so, of every dialog.
@pytest.mark.qt_log_ignore("This plugin does not support propagateSizeHints")
@pytest.mark.slow
def test_data_are_checked_before_a_run_and_shown_as_the_model_will_see_them(
    qtbot, open_window: Callable[[], MainWindow], small_config: RunConfig
) -> None:
    folder = Path(small_config.data.path)
    (folder / "class_0" / "broken.png").write_bytes(b"no image")
    window = open_window()
    window.tabs.setCurrentWidget(window.data_view)
    window.show_config(small_config, start=False)
    display, view = window.display, window.data_view
    qtbot.waitUntil(lambda: display.data.summary is not None, timeout=PATIENCE_MS)
    assert display.run_config.note("data.path") == "3 classes · 27 train · 9 validation · 1 file skipped"
    qtbot.waitUntil(lambda: display.data.issues.rowCount() == 1, timeout=PATIENCE_MS)
    qtbot.waitUntil(lambda: display.run_config.need.text.startswith("About "), timeout=PATIENCE_MS)
    train = next(row for row in range(36) if display.data.images.index(row).data(SplitRole) == "train")
    place = view.grid.visualRect(display.data.images.index(train)).center()
    qtbot.mouseClick(view.grid.viewport(), Qt.MouseButton.LeftButton, pos=place)
    # As a run with what is frozen in the form will see it.
    wait_views(qtbot, view, num_epochs=3, num_views=VIEWS["light"])
    view.dialog.close()
    # And a run of it begins, with the same report; what its model sees is told while it trains.
    begin(qtbot, window, long(small_config))
    assert display.data.summary.counts == {"train": [9, 9, 9], "validation": [3, 3, 3]}
    qtbot.waitUntil(lambda: display.data.images.index(train).data(SplitRole) == "train", timeout=PATIENCE_MS)
    qtbot.mouseClick(view.grid.viewport(), Qt.MouseButton.LeftButton, pos=place)
    wait_views(qtbot, view, num_epochs=6, num_views=VIEWS["light"])
    view.dialog.close()
    # And when it was stopped and opened again, by a worker that has no run.
    run_dir = window.session.run_dir
    window.session.stop()
    wait_state(qtbot, window, RunState.STOPPED)
    window.session.new_run()
    window.session.open_run(run_dir)
    wait_state(qtbot, window, RunState.STOPPED)
    qtbot.waitUntil(lambda: display.data.images.index(train).data(SplitRole) == "train", timeout=PATIENCE_MS)
    qtbot.mouseClick(view.grid.viewport(), Qt.MouseButton.LeftButton, pos=place)
    wait_views(qtbot, view, num_epochs=6, num_views=VIEWS["light"])
    assert view.dialog.views_title.text() == "As the model sees it in epochs 1 to 6"
    view.dialog.close()


def wait_views(qtbot, view: DataView, num_epochs: int, num_views: int) -> None:
    """Wait until the open dialog shows what the model sees, so many views in turn."""
    tiles = view.dialog.view_tiles[:num_epochs]
    qtbot.waitUntil(lambda: all(tile.canvas.pixmap is not None for tile in tiles), timeout=PATIENCE_MS)
    assert len({bytes(tile.canvas.pixmap.toImage().constBits()) for tile in tiles}) == num_views
    assert [tile.isVisible() for tile in view.dialog.view_tiles] == [True] * num_epochs + [False] * (6 - num_epochs)


class Watchdog:
    """Finds the longest turn of the GUI thread's event loop, and the longest time for which it waited in one.

    A timer ticks in the GUI thread; what lies between two ticks is one turn. Where Linux tells how long the thread
    stood ready without getting a processor, that is taken off both: it is the machine's doing, not ours. A turn takes
    as long as its work does on this machine; without the processor's time, what is left of it is waiting: for a file,
    a socket, a lock.
    """

    INTERVAL_MS = 2

    def __init__(self) -> None:
        self.longest_s = self.longest_wait_s = 0.0
        self.seen = ""
        """Where the GUI thread was in its longest turn, innermost first, if that took nearly the limit."""
        self.num_ticks = 0
        self._schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._looked = ""
        self._last, self._ticked_at = self._now(), time.monotonic()
        self._thread = threading.get_ident()
        self._is_over = threading.Event()
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(self.INTERVAL_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _now(self) -> tuple[float, float]:
        """Return the time without that spent in the queue for a processor, and what this thread has had of one."""
        queued_ns = int(self._schedstat.read_text().split()[1]) if self._schedstat.exists() else 0
        return time.monotonic() - queued_ns / 1e9, time.thread_time()

    def stop(self) -> None:
        """Look no longer."""
        self._timer.stop()
        self._is_over.set()

    def _look(self) -> None:
        looked_at = 0.0
        while not self._is_over.wait(0.01):
            began_at = self._ticked_at
            # Once in a turn, in its midst, and without the lines of source: to read these would hold up this thread.
            if began_at != looked_at and time.monotonic() - began_at > 0.8 * BLOCK_LIMIT_S:
                looked_at = began_at
                frames = traceback.walk_stack(sys._current_frames()[self._thread])
                places = [f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in frames]
                self._looked = "\n".join(places[:12])

    def skip(self) -> None:
        """Leave out what the test itself has just done in this thread."""
        self._last = self._now()

    def _tick(self) -> None:
        now, worked = self._now()
        turn_s = now - self._last[0] - self.INTERVAL_MS / 1000
        self.longest_wait_s = max(self.longest_wait_s, turn_s - (worked - self._last[1]))
        if turn_s > self.longest_s:
            self.longest_s, self.seen = turn_s, self._looked
        self.num_ticks += 1
        self._looked = ""
        self._last, self._ticked_at = (now, worked), time.monotonic()


def test_the_watchdog_tells_waiting_from_work(qtbot) -> None:
    watchdog = Watchdog()
    QTimer.singleShot(20, lambda: threading.Event().wait(0.1))
    qtbot.waitUntil(lambda: watchdog.longest_s > 0.09)
    assert watchdog.longest_wait_s > 0.09
    assert "threading.py" in watchdog.seen
    assert f"{__file__}:" in watchdog.seen
    watchdog.stop()
    watchdog = Watchdog()

    def work() -> None:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass

    QTimer.singleShot(20, work)
    qtbot.waitUntil(lambda: watchdog.longest_s > 0.09)
    watchdog.stop()
    assert watchdog.longest_wait_s < BLOCK_LIMIT_S


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_window_is_never_blocked_for_longer_than_50_ms_in_a_whole_demo(
    qtbot, open_window: Callable[[], MainWindow]
) -> None:
    window = open_window()
    watchdog = play_demo(qtbot, window)
    # tests.benchmarks.bench_window reads it.
    figures = (watchdog.longest_s * 1000, watchdog.longest_wait_s * 1000, paint_ms(window))
    print("\nlongest turn {:.0f} ms, wait {:.0f} ms, paint {:.1f} ms".format(*figures))  # noqa: T201
    assert watchdog.longest_s < BLOCK_LIMIT_S, (figures, watchdog.seen)


def paint_ms(window: MainWindow) -> float:
    """Return the median time of the processor, in ms, that a paint of the whole window takes."""
    taken = []
    for _ in range(15):
        began = time.thread_time()
        window.repaint()
        taken.append(time.thread_time() - began)
    return statistics.median(taken) * 1000


def play_demo(qtbot, window: MainWindow) -> Watchdog:
    """Run the demo, with ticks, tabs, a save and a restore, under a watchdog."""
    qtbot.waitUntil(lambda: window.session.state is RunState.IDLE, timeout=PATIENCE_MS)
    QApplication.processEvents()
    watchdog = Watchdog()
    window.show_config(load_config(DEMO_CONFIG_PATH), start=True)
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() > 2, timeout=PATIENCE_MS)
    tree = window.tree_view.tree
    for name in ("stage3", "backbone", "backbone", "stage3"):
        tree.setCurrentIndex(row_of(window, name))
        before = check_of(window, name)
        watchdog.skip()
        qtbot.keyClick(tree, Qt.Key.Key_Space)
        qtbot.waitUntil(lambda name=name, before=before: check_of(window, name) is not before, timeout=PATIENCE_MS)
    for tab in (1, 2, 3, 4, 0):
        window.tabs.setCurrentIndex(tab)
        qtbot.waitUntil(lambda ticks=watchdog.num_ticks: watchdog.num_ticks > ticks + 50)
    window.session.save_checkpoint()
    with qtbot.waitSignal(window.session.checkpoint_restored, timeout=PATIENCE_MS):
        window.session.restore(window.checkpoints_view.selected_name)
    qtbot.waitUntil(lambda: window.session.state is RunState.FINISHED, timeout=180_000)
    assert watchdog.num_ticks > 1000
    watchdog.stop()
    return watchdog
