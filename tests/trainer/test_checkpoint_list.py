"""Pins, labels, notes and deletions of a run's checkpoints, in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from trainer.checkpoint_list import change_list_of_ended, delete_checkpoints, put_checkpoints_back
from trainer.checkpoints import CheckpointStore
from trainer.config import RunConfig
from trainer.messages.commands import DeleteCheckpoints, EditCheckpoint
from trainer.messages.events import CheckpointEdited
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import RunFolderError, WorkerAddress
from trainer.runs import RunFolder


@pytest.fixture
def folder(tmp_path: Path, small_config: RunConfig) -> RunFolder:
    """Return a run of three checkpoints, whose files are there."""
    made = RunFolder.create(tmp_path / "runs", small_config)
    made.begin_segment(0, None, 0.0)
    for step in (4, 8, 12):
        name = f"c{step}.pt"
        (made.checkpoints_dir / name).write_bytes(b"x" * step)
        made.checkpoints.add(
            CheckpointInfo(
                name=name, epoch=step // 4, step=step, loss=0.5, accuracy=0.9, frozen=[], frozen_summary="nothing",
                size_bytes=step, sha256="", saved_at=float(step), reason="epoch", segment=0,
            )
        )  # fmt: skip
    yield made
    made.close()


def listed(folder: RunFolder) -> list[str]:
    return [info.name for info in folder.checkpoints.listed()]


def files(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.checkpoints_dir.iterdir())


def test_what_is_not_named_in_an_edit_stays_as_it_is(folder: RunFolder) -> None:
    change_list_of_ended(folder.path, EditCheckpoint(name="c8.pt", is_pinned=True, label="best yet"))
    change_list_of_ended(folder.path, EditCheckpoint(name="c8.pt", note="before the warm-up"))
    info = folder.checkpoints.find("c8.pt")
    assert (info.is_pinned, info.label, info.note) == (True, "best yet", "before the warm-up")
    assert listed(folder) == ["c4.pt", "c8.pt", "c12.pt"]
    told = [event for event in folder.read().log if isinstance(event, CheckpointEdited)]
    assert [event.checkpoint.note for event in told] == ["", "before the warm-up"]
    with pytest.raises(RunFolderError, match=r"no checkpoint gone\.pt any more"):
        change_list_of_ended(folder.path, EditCheckpoint(name="gone.pt", label="x"))


def test_what_has_no_file_as_it_was_written_can_be_unpinned_and_not_pinned(folder: RunFolder) -> None:
    change_list_of_ended(folder.path, EditCheckpoint(name="c4.pt", is_pinned=True))
    (folder.checkpoints_dir / "c4.pt").unlink()
    (folder.checkpoints_dir / "c8.pt").write_bytes(b"short")
    change_list_of_ended(folder.path, EditCheckpoint(name="c4.pt", is_pinned=False, label="gone"))
    for name, problem in (("c4.pt", "file is missing"), ("c8.pt", "file was altered")):
        with pytest.raises(RunFolderError, match=f"{name} cannot be pinned: its {problem}"):
            change_list_of_ended(folder.path, EditCheckpoint(name=name, is_pinned=True))
    assert not any(info.is_pinned for info in folder.checkpoints.listed())


def test_a_deletion_takes_rows_and_files_and_says_what_that_frees(folder: RunFolder) -> None:
    event = delete_checkpoints(folder, ["c4.pt", "c12.pt"])
    assert (event.names, event.freed_bytes, event.problem) == (["c4.pt", "c12.pt"], 16, "")
    assert listed(folder) == ["c8.pt"]
    assert files(folder) == ["c8.pt"]


def test_of_a_selection_those_stay_that_are_pinned_or_needed_and_the_event_says_why(folder: RunFolder) -> None:
    change_list_of_ended(folder.path, EditCheckpoint(name="c8.pt", is_pinned=True))
    event = delete_checkpoints(folder, ["c4.pt", "c8.pt", "c12.pt"], keeps_resume_point=True)
    assert (event.names, event.freed_bytes) == (["c4.pt"], 4)
    assert event.kept == ("c12.pt stays: the run would go on from it after a crash. c8.pt stays: it is pinned.")
    assert listed(folder) == ["c8.pt", "c12.pt"]
    assert files(folder) == ["c12.pt", "c8.pt"]
    with pytest.raises(RunFolderError, match=r"c8\.pt stays: it is pinned\. Unpin"):
        delete_checkpoints(folder, ["c8.pt"])
    assert delete_checkpoints(folder, ["c8.pt", "c12.pt"]).names == ["c12.pt"], "no worker needs it"


def test_a_kill_in_a_deletion_leaves_no_row_without_a_file(folder: RunFolder) -> None:
    class Killed(BaseException):
        pass

    def die(_: Path) -> None:
        raise Killed

    with pytest.raises(Killed):
        delete_checkpoints(folder, ["c4.pt", "c8.pt"], die)
    assert listed(folder) == ["c12.pt"]
    assert set(listed(folder)) <= set(files(folder))
    CheckpointStore(folder)
    assert files(folder) == listed(folder), "the next worker ends what was begun"


def test_what_cannot_be_deleted_is_listed_again(folder: RunFolder) -> None:
    def refuse_one(path: Path) -> None:
        if path.name == "c4.pt":
            raise PermissionError(13, "Permission denied")
        path.unlink()

    event = delete_checkpoints(folder, ["c4.pt", "c8.pt"], refuse_one)
    assert event.names == ["c8.pt"]
    assert "Permission denied" in event.problem
    assert listed(folder) == ["c4.pt", "c12.pt"]


def test_a_file_that_is_left_to_the_trash_is_never_deleted_by_a_worker(folder: RunFolder) -> None:
    delete_checkpoints(folder, ["c4.pt"], lambda _: None)
    assert folder.checkpoints.half_deleted() == []
    CheckpointStore(folder)
    assert (folder.checkpoints_dir / "c4.pt").exists()


def test_a_file_that_is_left_to_the_trash_is_neither_listed_again_nor_written_over(folder: RunFolder) -> None:
    delete_checkpoints(folder, ["c4.pt"], lambda _: None)
    store = CheckpointStore(folder)
    assert listed(folder) == ["c8.pt", "c12.pt"]
    assert store.hold_name("c4.pt") == "c4_2.pt"


def test_a_file_that_is_gone_already_is_no_trouble(folder: RunFolder) -> None:
    (folder.checkpoints_dir / "c4.pt").unlink()
    assert delete_checkpoints(folder, ["c4.pt"]).names == ["c4.pt"]


def test_a_deleted_checkpoint_is_listed_again_only_with_its_own_file(folder: RunFolder) -> None:
    info = folder.checkpoints.find("c4.pt")
    delete_checkpoints(folder, ["c4.pt"])
    with pytest.raises(RunFolderError, match="file is missing"):
        put_checkpoints_back(folder, [info])
    (folder.checkpoints_dir / "c4.pt").write_bytes(b"xxxx")
    put_checkpoints_back(folder, [info])
    CheckpointStore(folder)
    assert listed(folder) == ["c4.pt", "c8.pt", "c12.pt"]
    assert len(files(folder)) == 3
    with pytest.raises(RunFolderError, match="a newer one has its name"):
        put_checkpoints_back(folder, [info])


def test_of_several_that_come_back_each_is_listed_whose_file_is_there(folder: RunFolder) -> None:
    infos = [folder.checkpoints.find(name) for name in ("c4.pt", "c8.pt", "c12.pt")]
    delete_checkpoints(folder, [info.name for info in infos])
    (folder.checkpoints_dir / "c4.pt").write_bytes(b"another")
    (folder.checkpoints_dir / "c12.pt").write_bytes(b"x" * 12)
    event = put_checkpoints_back(folder, infos)
    assert event.checkpoints == [infos[2]]
    assert event.problem.startswith("Cannot list again: c4.pt (file was altered), c8.pt (file is missing). Look for ")
    assert str(folder.checkpoints_dir) in event.problem
    assert listed(folder) == ["c12.pt"]


def test_a_run_with_a_worker_is_changed_by_nobody_else(folder: RunFolder) -> None:
    folder.claim(WorkerAddress("/tmp/x", b"key", os.getpid(), psutil.Process().create_time()))
    with pytest.raises(RunFolderError, match="has a worker by now"):
        change_list_of_ended(folder.path, DeleteCheckpoints(names=["c4.pt"]))
    assert len(files(folder)) == 3
