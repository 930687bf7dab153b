"""What run.db lists of a run's checkpoints, which is read anew only when somebody else has written it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import RunConfig
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder


def checkpoint(epoch: int, **more: object) -> CheckpointInfo:
    values: dict[str, object] = {
        "name": f"checkpoint_{epoch}.pt", "epoch": epoch, "step": 10 * epoch, "loss": 0.5, "accuracy": 0.5,
        "frozen": [], "frozen_summary": "nothing", "size_bytes": 1, "sha256": "", "saved_at": float(epoch),
        "reason": "epoch", "segment": 0, **more,
    }  # fmt: skip
    return CheckpointInfo.model_validate(values)


def epochs(folder: RunFolder) -> list[int]:
    return [info.epoch for info in folder.checkpoints.listed()]


def test_the_list_follows_what_is_saved_deleted_changed_and_put_back(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, RunConfig()) as folder:
        rows = folder.checkpoints
        for epoch in (1, 2, 3):
            rows.add(checkpoint(epoch))
        rows.begin_deleting(["checkpoint_2.pt"])
        assert epochs(folder) == [1, 3]
        rows.change(checkpoint(2, note="gone"))
        assert epochs(folder) == [1, 3]
        rows.add(checkpoint(2))
        rows.change(checkpoint(3, note="kept"))
        rows.add(checkpoint(1, step=11))
        listed = rows.listed()
        listed.clear()
        with RunFolder(folder.path, read_only=True) as other:
            assert other.checkpoints.listed() == rows.listed()
        assert [(info.step, info.note) for info in rows.listed()] == [(11, ""), (20, ""), (30, "kept")]


def test_what_another_process_writes_is_listed(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, RunConfig()) as folder, RunFolder(folder.path, read_only=True) as window:
        assert epochs(window) == []
        folder.checkpoints.add(checkpoint(1))
        assert epochs(window) == [1]
        with RunFolder(folder.path) as other:
            other.checkpoints.add(checkpoint(2))
        folder.checkpoints.add(checkpoint(3))
        assert epochs(folder) == epochs(window) == [1, 2, 3]


def test_a_row_that_could_not_be_written_is_not_listed(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, RunConfig()) as folder:
        folder.checkpoints.add(checkpoint(1))
        with RunFolder(folder.path, read_only=True) as window:
            assert epochs(window) == [1]
            for write in (
                lambda: window.checkpoints.add(checkpoint(2)),
                lambda: window.checkpoints.begin_deleting(["checkpoint_1.pt"]),
            ):
                with pytest.raises(RunFolderError, match="Cannot write"):
                    write()
                assert epochs(window) == [1]
