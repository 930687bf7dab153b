"""TensorBoard starts for a run's folder, says where, and ends with the window."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

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
def test_a_real_one_serves_the_run_on_this_machine_alone(qtbot, tmp_path: Path) -> None:
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
