"""TensorBoard starts for a run's folder, says where, and ends with the window."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from PySide6.QtCore import QProcess

from app import tensorboard
from app.tensorboard import TensorBoardServer


def test_one_that_cannot_start_is_told_in_a_sentence(qtbot, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tensorboard.sys, "executable", str(tmp_path / "no-such-python"))
    server = TensorBoardServer()
    with qtbot.waitSignal(server.failed) as failed:
        server.open(tmp_path)
    assert failed.args[0].startswith("TensorBoard did not start:")
    assert not server.is_running


@pytest.mark.slow
def test_a_real_one_serves_the_run_on_this_machine_alone(qtbot, tmp_path: Path, monkeypatch) -> None:
    # A file of the current folder is not taken for the module of its name.
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')")
    monkeypatch.chdir(tmp_path)
    server = TensorBoardServer()
    with qtbot.waitSignal(server.ready, timeout=90_000) as ready:
        server.open(tmp_path)
    url = ready.args[0]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=20) as page:
        assert page.status == 200
    process = server._process
    with qtbot.waitSignal(process.finished):
        server.stop()


def test_closing_leaves_no_process_behind(qtbot, tmp_path: Path) -> None:
    # A QProcess that goes while its program runs says so on the terminal, and that fails this test.
    server = TensorBoardServer()
    server.open(tmp_path)
    process = server._process
    qtbot.waitUntil(lambda: process.processId() > 0)
    server.close()
    assert process.state() is QProcess.ProcessState.NotRunning
    assert not server.is_running
