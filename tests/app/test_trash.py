"""Files that go to the system's trash and come back from it, replacing nothing."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from app.trash import clear_left_over, take_out
from trainer.checkpoints import CheckpointStore
from trainer.config import RunConfig
from trainer.runs import RunFolder


@pytest.fixture
def trashed(tmp_path: Path) -> Path:
    path = tmp_path / "files" / "a.pt"
    path.parent.mkdir()
    path.write_bytes(b"deleted")
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return where the file was."""
    path = tmp_path / "run" / "a.pt"
    path.parent.mkdir()
    return path


@pytest.fixture
def other_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the trash's folder be on a disk of its own: no file of it is linked or renamed to elsewhere."""
    hardlink_to, rename = Path.hardlink_to, Path.replace

    def refuse_crossing(file: Path) -> None:
        if file.is_relative_to(tmp_path / "files"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def link_on_its_disk(path: Path, file: Path) -> None:
        refuse_crossing(file)
        hardlink_to(path, file)

    def rename_on_its_disk(file: Path, path: Path) -> None:
        refuse_crossing(file)
        rename(file, path)

    monkeypatch.setattr(Path, "hardlink_to", link_on_its_disk)
    monkeypatch.setattr(Path, "replace", rename_on_its_disk)


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk be one that has no links, as FAT."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


@pytest.fixture(params=["links", "no_links", "other_disk"])
def disk(request: pytest.FixtureRequest) -> None:
    """Take a file out on each kind of disk."""
    if request.param != "links":
        request.getfixturevalue(request.param)


@pytest.mark.usefixtures("disk")
def test_a_file_is_taken_out_to_its_place(trashed: Path, place: Path) -> None:
    take_out(trashed, place)
    assert place.read_bytes() == b"deleted"
    assert not trashed.exists()
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.usefixtures("disk")
def test_a_file_that_has_the_place_is_never_replaced(trashed: Path, place: Path) -> None:
    place.write_bytes(b"newer")
    with pytest.raises(FileExistsError, match="another file has its place"):
        take_out(trashed, place)
    assert place.read_bytes() == b"newer"
    assert trashed.read_bytes() == b"deleted"
    assert list(place.parent.iterdir()) == [place]


# Without links a file is renamed, which takes it out of the trash as well.
@pytest.mark.parametrize("disk", ["links", "other_disk"], indirect=True)
@pytest.mark.usefixtures("disk")
def test_a_file_that_cannot_leave_the_trash_is_back_all_the_same(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def keep_trashed(path: Path, *, missing_ok: bool = False) -> None:
        if path == trashed:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", keep_trashed)
    take_out(trashed, place)
    assert place.read_bytes() == trashed.read_bytes() == b"deleted"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.usefixtures("no_links")
def test_a_place_that_was_held_for_a_rename_is_free_again_where_that_fails(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        take_out(trashed, place)
    assert list(place.parent.iterdir()) == []
    assert trashed.read_bytes() == b"deleted"


@pytest.mark.usefixtures("other_disk")
def test_a_file_that_takes_the_place_while_another_is_copied_there_is_not_replaced(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_copying(monkeypatch, lambda: place.write_bytes(b"newer"))
    with pytest.raises(FileExistsError, match="another file has its place"):
        take_out(trashed, place)
    assert place.read_bytes() == b"newer"
    assert trashed.read_bytes() == b"deleted"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.usefixtures("other_disk")
def test_of_two_that_two_windows_put_back_to_one_place_one_stays_in_the_trash(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = trashed.with_name("other.pt")
    other.write_bytes(b"another")
    is_first = iter([True, False])
    after_copying(monkeypatch, lambda: take_out(other, place) if next(is_first) else None)
    with pytest.raises(FileExistsError, match="another file has its place"):
        take_out(trashed, place)
    assert place.read_bytes() == b"another"
    assert not other.exists()
    assert trashed.read_bytes() == b"deleted"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.usefixtures("other_disk")
def test_a_copy_takes_its_place_whole_though_a_worker_begins_meanwhile(
    trashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder.create(tmp_path / "runs", RunConfig(name="tiny")) as folder:
        after_copying(monkeypatch, lambda: CheckpointStore(folder))
        place = folder.checkpoints_dir / "a.pt"
        take_out(trashed, place)
        assert place.read_bytes() == b"deleted"
        assert not trashed.exists()


@pytest.mark.usefixtures("other_disk")
def test_a_copy_leaves_the_trash_only_when_it_and_its_name_outlive_a_power_failure(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, hardlink_to, unlink = os.fsync, Path.hardlink_to, Path.unlink

    def note_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder flushed" if is_folder else "file flushed")
        fsync(descriptor)

    def note_link(path: Path, file: Path) -> None:
        hardlink_to(path, file)
        done.append("named")

    def note_unlink(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path == trashed:
            done.append("gone from the trash")

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "hardlink_to", note_link)
    monkeypatch.setattr(Path, "unlink", note_unlink)
    take_out(trashed, place)
    assert done == ["file flushed", "named", "folder flushed", "gone from the trash"]


@pytest.mark.usefixtures("other_disk")
def test_a_copy_that_fails_half_way_leaves_the_file_in_the_trash_and_its_place_free(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, file: BinaryIO) -> None:
        file.write(b"del")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        take_out(trashed, place)
    assert list(place.parent.iterdir()) == []
    assert trashed.read_bytes() == b"deleted"


@pytest.mark.usefixtures("other_disk")
def test_a_copy_that_a_kill_cut_off_goes_a_day_later(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    after_copying(monkeypatch, die)
    with pytest.raises(Killed):
        take_out(trashed, place)
    (left_over,) = place.parent.iterdir()
    clear_left_over(place.parent)
    assert left_over.exists(), "another window may be at work on it"
    os.utime(left_over, (time.time() - 90_000,) * 2)
    place.write_bytes(b"newer")
    os.utime(place, (0, 0))
    clear_left_over(place.parent)
    assert list(place.parent.iterdir()) == [place]


def after_copying(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something be done once a copy's bytes are written, before it takes its place."""
    copyfileobj = shutil.copyfileobj

    def copy_and_act(source: BinaryIO, file: BinaryIO) -> None:
        copyfileobj(source, file)
        act()

    monkeypatch.setattr(shutil, "copyfileobj", copy_and_act)
