"""What is done once a window is on the screen."""

from __future__ import annotations

import gc

import pytest
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QApplication, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from app import theme
from app.first_paint import FirstPaint
from app.main_window import MainWindow
from app.session import TrainingSession
from app.settings import Settings


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


def test_a_window_that_gets_its_style_sheet_when_it_is_built_looks_as_one_that_was_built_with_it(
    qtbot: QtBot, themed: QApplication, session: TrainingSession, settings: Settings
) -> None:
    pictures = []
    for is_late in (False, True):
        themed.setStyleSheet("")
        colors = theme.apply_colors(themed, "light")
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
        pictures.append([view.grab().toImage() for view in (window.toolbar, window.form, window.tabs)])
        window.hide()
    assert pictures[0] == pictures[1]


def test_garbage_is_collected_again_once_all_is_loaded(
    qtbot: QtBot, themed: QApplication, session: TrainingSession, settings: Settings
) -> None:
    gc.disable()
    window = MainWindow(session, settings)
    qtbot.addWidget(window)
    window.load_views()
    assert gc.isenabled()
