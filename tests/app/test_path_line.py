"""The field for a path: what of it is to be seen where it is longer than the field."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QEvent, QPoint
from PySide6.QtGui import QHelpEvent
from PySide6.QtWidgets import QApplication, QToolTip, QWidget

from app.views.path_line import PathLine

pytestmark = pytest.mark.window
PATH = "/home/somebody/a/long/way/to/it/letters_shufflenet.pt"


@pytest.fixture
def line(qtbot, themed) -> Iterator[PathLine]:
    window = QWidget()
    qtbot.addWidget(window)
    made = PathLine(window)
    made.setText(PATH)
    window.resize(400, 100)
    window.show()
    yield made
    window.close()


def test_the_middle_of_the_folders_goes_first_and_then_that_of_the_last_part(line: PathLine) -> None:
    line.resize(390, 28)
    assert line.shown_text() == PATH
    line.resize(220, 28)
    folders, _, last = line.shown_text().rpartition("/")
    assert last == "letters_shufflenet.pt"
    assert folders.startswith("/h")
    assert "…" in folders
    line.resize(100, 28)
    start, _, end = line.shown_text().partition("…")
    assert start
    assert "letters_shufflenet.pt".startswith(start)
    assert end.endswith(".pt")
    assert line.text() == PATH


@pytest.mark.parametrize("path", ["letters_and_numbers_shufflenet_v2_x0_5.pt", "C:\\data\\of\\somebody\\else\\a.zip"])
def test_what_has_no_folders_or_those_of_windows_is_shortened_likewise(line: PathLine, path: str) -> None:
    line.setText(path)
    line.resize(120, 28)
    start, dots, end = line.shown_text().partition("…")
    assert dots
    assert path.startswith(start)
    assert path.endswith(end)


def test_the_shortened_text_is_what_is_painted_until_the_field_has_the_focus(qtbot, line: PathLine) -> None:
    line.resize(160, 28)
    other = PathLine(line.parentWidget())
    other.setText(line.shown_text())
    other.setGeometry(line.geometry())
    other.show()
    line.clearFocus()
    QApplication.processEvents()
    # Within the frame: that of what lies under the pointer is another.
    within = line.rect().adjusted(4, 4, -4, -4)
    at_rest = line.grab(within).toImage()
    assert at_rest == other.grab(within).toImage()
    line.window().activateWindow()
    line.setFocus()
    qtbot.waitUntil(line.hasFocus)
    assert line.grab(within).toImage() != at_rest


@pytest.mark.qt_log_ignore("does not support raise")
def test_the_tooltip_says_all_of_a_shortened_path(line: PathLine) -> None:
    line.resize(160, 28)
    place = QPoint(5, 5)
    QApplication.sendEvent(line, QHelpEvent(QEvent.Type.ToolTip, place, line.mapToGlobal(place)))
    assert QToolTip.text() == PATH
    QToolTip.hideText()
