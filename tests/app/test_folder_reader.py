"""What is read from disk beside a run's record: every question gets an answer, also when reading breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import folder_reader
from app.folder_reader import FolderReader
from tests.app.test_session import write_run


def test_a_defect_in_reading_is_told_once_and_the_list_is_read_again(
    qtbot, qapp, tmp_path: Path, run_info, monkeypatch, capsys
) -> None:
    def break_down(_: Path) -> None:
        raise KeyError("state")

    write_run(tmp_path, run_info)
    reader = FolderReader()
    told: list[str] = []
    reader.failed.connect(told.append)
    with monkeypatch.context() as broken:
        broken.setattr(folder_reader, "list_runs", break_down)
        for _ in range(2):
            reader.list_runs(tmp_path)
            qtbot.waitUntil(lambda: not reader._asked)
    assert told == ["Cannot list the runs: KeyError: 'state'. Please report this defect of Thaw."]
    assert "break_down" in capsys.readouterr().err
    with qtbot.waitSignal(reader.runs_listed) as listed:
        reader.list_runs(tmp_path)
    assert [run.title for run in listed.args[0]] == ["digits"]


@pytest.mark.parametrize("question", ["measure", "examine"])
def test_a_folder_that_went_away_is_no_trouble(qtbot, qapp, tmp_path: Path, question: str) -> None:
    reader = FolderReader()
    told: list[str] = []
    reader.failed.connect(told.append)
    gone = tmp_path / "gone"
    if question == "measure":
        with qtbot.waitSignal(reader.folder_measured) as answered:
            reader.measure(gone)
    else:
        with qtbot.waitSignal(reader.checkpoints_examined) as answered:
            reader.examine(gone, [])
    assert not answered.args[0]
    assert told == []
