"""A save that fails, at whichever call, leaves what was there before as it was, and says so."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.trainer.test_loop import Make, make_trainer
from trainer import checkpoints
from trainer.checkpoint_list import delete_checkpoints, put_checkpoints_back
from trainer.checkpoints import (
    CheckpointError,
    CheckpointStore,
    DiskFullError,
    copy_to_cpu,
    read_file,
    read_rng,
    restore_rng,
    write_durably,
)
from trainer.config import RunConfig
from trainer.run_record import RunFolderError

__all__ = ["make_trainer"]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_full_disk_at_any_call_of_a_save_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.pt"
    write_durably(path, {"step": 1})

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = {"open": (Path, "open"), "write": (torch, "save"), "fsync": (os, "fsync"), "replace": (Path, "replace")}
    with monkeypatch.context() as patch:
        patch.setattr(*target[call], fail)
        with pytest.raises(CheckpointError, match=r"No space left on device\. Make room"):
            write_durably(path, {"step": 2})
    assert read_file(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_the_writers_own_report_of_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r": opened(Path("/dev/full") if "w" in mode else path, mode))
    with pytest.raises(CheckpointError, match=r"^Cannot save [^\n]*: No space left on device\. Make room [^\n]*$"):
        write_durably(tmp_path / "a.pt", {"weights": torch.zeros(1_000_000)})
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_and_a_pickled_model_are_refused_and_run_no_code(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_durably(path, {"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        read_file(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        read_file(path)


def test_the_generators_come_back_from_a_file(tmp_path: Path) -> None:
    device = torch.device("cpu")
    write_durably(tmp_path / "a.pt", read_rng(device))
    drawn = torch.rand(3), random.random()
    restore_rng(read_file(tmp_path / "a.pt"), device)
    again = torch.rand(3), random.random()
    assert torch.equal(drawn[0], again[0])
    assert drawn[1] == again[1]


def test_the_hash_is_that_of_the_file_under_its_name(tmp_path: Path) -> None:
    size, digest = write_durably(tmp_path / "a.pt", {"step": 1})
    assert (tmp_path / "a.pt").stat().st_size == size
    assert checkpoints.hash_file(tmp_path / "a.pt") == digest


def test_a_state_dict_is_saved_for_machines_without_this_ones_device() -> None:
    state = {"state": {0: {"step": torch.zeros((), device="meta")}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    with pytest.raises(NotImplementedError):
        copy_to_cpu(state)  # a meta tensor has no bytes to move: proof that every tensor in there is reached
    state["state"][0]["step"] = torch.ones(())
    assert copy_to_cpu(state) == state


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "row"])
def test_a_disk_that_is_full_at_any_write_of_a_save_pauses_with_a_sentence_and_what_was_listed_still_loads(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    trainer, _ = make_trainer(small_config)
    first = trainer.save(reason="user")
    folder = trainer._folder

    def fail(*_: object, **__: object) -> None:
        if call == "row":
            raise RunFolderError("Cannot write run.db: database or disk is full. Make room and try again.")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_open = Path.open

    def fail_in_folder(path: Path, *args: Any, **kwargs: Any) -> Any:
        return fail() if path.is_relative_to(folder.path) else real_open(path, *args, **kwargs)

    targets = {
        "open": (Path, "open"),
        "write": (torch, "save"),
        "fsync": (os, "fsync"),
        "replace": (Path, "replace"),
        "row": (folder.checkpoints, "add"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*targets[call], fail_in_folder if call == "open" else fail)
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(DiskFullError, match=r"(No space left|disk is full).* Make room") as caught:
            trainer.fit(lambda: trainer._writer.finish())
        assert caught.value.needed_bytes > 1000
        assert trainer.step == 4
    assert folder.checkpoints.listed() == [first]
    assert trainer._store.load(first)["step"] == 0
    point = folder.checkpoints.resume_point()
    assert point == first
    trainer.fit(lambda: None)
    assert [info.step for info in folder.checkpoints.listed()] == [0, 4, 8, 12]
    assert all(trainer._store.load(info)["step"] == info.step for info in folder.checkpoints.listed())
    assert not list(folder.checkpoints_dir.glob(".saving-*"))


def test_a_file_whose_row_could_not_be_written_is_written_over_by_none_and_listed_by_the_next_worker(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder

    def fail(*_: object) -> None:
        raise RunFolderError("Cannot write run.db: database is locked. Close what holds the file, and try again.")

    with monkeypatch.context() as patch:
        patch.setattr(folder.checkpoints, "add", fail)
        with pytest.raises(RunFolderError, match="is locked"):
            trainer.save(reason="user")
    (file,) = folder.checkpoints_dir.iterdir()
    later = trainer.save(reason="user")
    assert later.name != file.name
    assert folder.checkpoints.listed() == [later]
    store = CheckpointStore(folder)
    found, second = folder.checkpoints.listed()
    assert second == later
    assert found.name == file.name
    assert found.saved_at < later.saved_at
    assert (found.step, found.segment, found.reason) == (later.step, later.segment, later.reason)
    assert folder.checkpoints.problem_of(found) == ""
    assert store.load(found)["step"] == 0
    assert folder.checkpoints.half_saved() == []


def test_a_save_that_left_no_file_is_forgotten(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(CheckpointError, match="No space left"):
            trainer.save(reason="user")
    # Before a worker comes that looks for what was cut off: an older file may come back under its name until then.
    assert folder.checkpoints.half_saved() == folder.checkpoints.listed() == []
    assert list(folder.checkpoints_dir.iterdir()) == []


def test_a_checkpoint_that_comes_back_while_one_of_its_name_is_saved_finds_the_name_held(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder
    deleted = trainer.save(reason="user")
    path, trashed = folder.checkpoints_dir / deleted.name, tmp_path / deleted.name
    delete_checkpoints(folder, [deleted.name], lambda file: file.rename(trashed))
    is_begun, goes_on, save = threading.Event(), threading.Event(), torch.save

    def save_later(*args: Any) -> None:
        is_begun.set()
        assert goes_on.wait(30)
        save(*args)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_later)
        trainer.begin_save(reason="user")
        assert is_begun.wait(30)
        with pytest.raises(FileExistsError):
            path.hardlink_to(trashed)
        goes_on.set()
        trainer.settle()
    (saved,) = folder.checkpoints.listed()
    assert saved.name == deleted.name
    assert checkpoints.hash_file(trashed) == deleted.sha256
    trashed.rename(folder.checkpoints_dir / "another.pt")
    (back,) = put_checkpoints_back(folder, [deleted.model_copy(update={"name": "another.pt"})]).checkpoints
    assert [trainer._store.load(info)["step"] for info in (saved, back)] == [0, 0]


def test_a_name_that_was_held_by_a_worker_that_was_killed_is_free_again_and_nothing_else_goes(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder
    held = trainer._store.hold_name("c1.pt")
    listed, unlisted = trainer.save(reason="user"), folder.checkpoints_dir / "a_persons.pt"
    unlisted.write_bytes(b"x")
    os.truncate(folder.checkpoints_dir / listed.name, 0)
    CheckpointStore(folder, read_only=True)
    assert (folder.checkpoints_dir / held).exists(), "a worker may be writing it at this moment"
    store = CheckpointStore(folder)
    assert sorted(file.name for file in folder.checkpoints_dir.iterdir()) == sorted([listed.name, unlisted.name])
    with pytest.raises(CheckpointError, match="is damaged"):
        store.load(listed)
    assert store.hold_name("c1.pt") == "c1.pt"


def test_a_name_that_was_held_and_cannot_be_freed_is_no_checkpoint_and_keeps_no_run_from_opening(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = make_trainer(small_config)
    folder, store = trainer._folder, trainer._store
    good = trainer.save(reason="user")
    store.hold_name("held.pt")
    begun = store.hold_name("begun.pt")
    folder.checkpoints.begin_saving(good.model_copy(update={"name": begun}))
    unlink = Path.unlink

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        if path.parent == folder.checkpoints_dir:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, missing_ok=missing_ok)

    (folder.checkpoints_dir / ".saving-1-x.pt").touch()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        CheckpointStore(folder)
    assert folder.checkpoints.listed() == [good]
    assert folder.checkpoints.half_saved() == []
    assert folder.checkpoints.resume_point() == good


def test_a_file_that_a_window_puts_back_as_a_worker_frees_the_name_that_it_holds_is_not_lost(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer, _ = make_trainer(small_config)
    folder, is_empty = trainer._folder, checkpoints._is_empty
    place, trashed = folder.checkpoints_dir / "a.pt", tmp_path / "a.pt"
    trashed.write_bytes(b"deleted")
    # As on a disk without links: an empty file holds the place until the rename.
    place.touch()

    def look_and_let_the_window_rename(path: Path) -> bool:
        was_empty = is_empty(path)
        if trashed.exists():
            trashed.replace(place)
        return was_empty

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_is_empty", look_and_let_the_window_rename)
        CheckpointStore(folder)
    assert place.read_bytes() == b"deleted"
    for is_held_again in (False, True):
        # A kill between the two renames of that.
        place.replace(folder.checkpoints_dir / ".aside-a.pt")
        if is_held_again:
            place.touch()
        CheckpointStore(folder)
        assert [path.name for path in folder.checkpoints_dir.iterdir()] == ["a.pt"]
        assert place.read_bytes() == b"deleted"


def test_a_folder_that_is_gone_is_told_of_a_save_in_a_sentence(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder
    elsewhere = folder.path.rename(folder.path.with_name("elsewhere"))
    try:
        with pytest.raises(CheckpointError, match=r"^Cannot save .*: No such file or directory\. ") as caught:
            trainer._store.hold_name("a.pt")
    finally:
        elsewhere.rename(folder.path)
    assert not isinstance(caught.value, DiskFullError)


def test_a_disk_without_room_for_a_name_pauses_the_run_and_goes_on_with_the_same_state(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", fail)
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(DiskFullError, match=r"^Cannot save .*: No space left on device\. Make room"):
            trainer.fit(lambda: None)
    assert trainer.step == 4
    assert folder.checkpoints.listed() == []
    trainer.fit(lambda: None)
    assert [info.step for info in folder.checkpoints.listed()] == [4, 8, 12]


def test_a_disk_that_has_room_but_takes_no_more_files_is_not_waited_for(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = make_trainer(small_config)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # As where the inodes are used up: a run that waited for room in bytes would go on, and pause again, at each step.
    monkeypatch.setattr(Path, "touch", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    with pytest.raises(CheckpointError, match=r"^Cannot save .*: No space left on device\. Make room") as caught:
        trainer.fit(lambda: None)
    assert not isinstance(caught.value, DiskFullError)
