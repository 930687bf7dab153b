"""What is done once a window is on the screen."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import pytest
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QApplication, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from app import theme
from app.first_paint import FirstPaint
from app.main_window import MainWindow
from app.session import TrainingSession
from app.settings import Settings
from app.window import begin
from tests.app.conftest import ScriptedClient
from trainer.client import WorkerLost
from trainer.messages.states import RunState


class Painted(QWidget):
    """Notes its paints in a list."""

    def __init__(self, log: list[str], name: str) -> None:
        super().__init__()
        self._log, self._name = log, name

    def paintEvent(self, event: QPaintEvent) -> None:
        self._log.append(self._name)
        super().paintEvent(event)


@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_it_is_done_once_and_after_the_window_and_all_in_it_are_painted(qtbot: QtBot) -> None:
    log: list[str] = []
    window, inside = Painted(log, "window"), Painted(log, "inside")
    QVBoxLayout(window).addWidget(inside)
    window.resize(200, 200)
    qtbot.addWidget(window)
    FirstPaint(window, lambda: log.append("done"))
    window.show()
    qtbot.waitUntil(lambda: "done" in log)
    assert log == ["window", "inside", "done"]
    window.repaint()
    QApplication.processEvents()
    assert log.count("done") == 1


def test_it_is_done_too_where_the_window_is_not_painted(qtbot: QtBot) -> None:
    log: list[str] = []
    window = QWidget()
    qtbot.addWidget(window)
    FirstPaint(window, lambda: log.append("done"))
    qtbot.waitUntil(lambda: log == ["done"])
    with qtbot.waitExposed(window):
        window.show()
    QApplication.processEvents()
    assert log == ["done"]


def test_it_is_not_done_any_more_where_the_window_was_closed_before(qtbot: QtBot) -> None:
    log: list[str] = []
    window = Painted(log, "window")
    qtbot.addWidget(window)
    first_paint = FirstPaint(window, lambda: log.append("done"))
    with qtbot.waitSignal(first_paint.destroyed):
        window.show()
        window.repaint()
        first_paint.stop()
    window.show()
    QApplication.processEvents()
    assert "window" in log
    assert "done" not in log


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_window_that_gets_its_style_sheet_when_it_is_built_looks_as_one_that_was_built_with_it(
    qtbot: QtBot, themed: QApplication, session: TrainingSession, settings: Settings, scheme: theme.Scheme
) -> None:
    pictures = []
    for is_late in (False, True):
        themed.setStyleSheet("")
        colors = theme.apply_colors(themed, scheme)
        if not is_late:
            theme.apply_sheet(themed, colors)
        window = MainWindow(session, settings)
        qtbot.addWidget(window)
        if is_late:
            theme.apply_sheet(themed, colors)
        window.resize(1280, 800)
        with qtbot.waitExposed(window):
            window.show()
        QApplication.processEvents()
        pictures.append(window.grab().toImage())
        window.hide()
    assert pictures[0] == pictures[1]


@pytest.fixture
def window(qtbot: QtBot, themed: QApplication, session: TrainingSession, settings: Settings) -> MainWindow:
    made = MainWindow(session, settings)
    qtbot.addWidget(made)
    return made


def test_what_happens_before_all_is_loaded_is_told(
    qtbot: QtBot, window: MainWindow, clients: list[ScriptedClient]
) -> None:
    clients[0].say(WorkerLost(was_expected=False, sentence="The worker failed with exit code 1."))
    qtbot.waitUntil(lambda: window.session.state is RunState.FAILED)
    window.load_views()
    assert "exit code 1" in window.notice.text


def test_a_tab_that_is_chosen_before_it_is_loaded_is_filled_as_one_that_is_chosen_later(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(window.display, "list_runs", lambda *_: asked.append(True))
    with qtbot.waitExposed(window):
        window.show()
    titles = [window.tabs.tabText(tab) for tab in range(window.tabs.count())]
    window.tabs.setCurrentIndex(titles.index("Runs"))
    window.load_views()
    QApplication.processEvents()
    assert window.tabs.currentWidget() is window.runs_view
    assert [window.tabs.tabText(tab) for tab in range(window.tabs.count())] == titles
    assert asked


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_collected_again_once_all_is_loaded(
    window: MainWindow, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def fail() -> None:
        raise RuntimeError

    if fails:
        monkeypatch.setattr(window, "load_views", fail)
    gc.disable()
    try:
        with pytest.raises(RuntimeError) if fails else nullcontext():
            begin(window, None, None, start=False)
        assert gc.isenabled()
    finally:
        gc.enable()
