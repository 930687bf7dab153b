"""What is read from disk beside a run's record: every question gets an answer, also when reading breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import folder_reader
from app.folder_reader import CheckpointFindings, FolderReader
from tests.app.conftest import checkpoint
from tests.app.test_session import write_run
from trainer.runs import RunFolder


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


def test_checkpoints_are_examined_for_damage_and_for_the_way_to_where_the_run_is(
    qtbot, qapp, tmp_path: Path, run_info
) -> None:
    run_dir = write_run(tmp_path, run_info)
    with RunFolder(run_dir) as folder:
        folder.checkpoints.add(checkpoint(2, 0.4, 0.9))
        listed = folder.checkpoints.listed()
        folder.begin_segment(listed[0].step, listed[0].name, 2.0)
        (folder.checkpoints_dir / listed[0].name).write_bytes(b"x" * listed[0].size_bytes)
    reader = FolderReader()
    with qtbot.waitSignal(reader.checkpoints_examined) as answered:
        reader.examine(run_dir, listed)
    first, second = (info.name for info in listed)
    assert answered.args[0] == CheckpointFindings({first: "", second: "file is missing"}, {second}, first)


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
    assert answered.args[0] in (None, CheckpointFindings())
    assert told == []
