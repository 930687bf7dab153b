"""Files that go to the system's trash and come back from it, replacing nothing."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from app.trash import take_out
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
    is_linked, is_renamed = Path.hardlink_to, Path.replace

    def crosses(file: Path) -> bool:
        return file.is_relative_to(tmp_path / "files")

    def link(path: Path, file: Path) -> None:
        if crosses(file):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        is_linked(path, file)

    def rename(file: Path, path: Path) -> None:
        if crosses(file):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        is_renamed(file, path)

    monkeypatch.setattr(Path, "hardlink_to", link)
    monkeypatch.setattr(Path, "replace", rename)


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk be one that has no links, as FAT."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


@pytest.fixture(params=["links", "no_links", "other_disk"])
def disk(request: pytest.FixtureRequest) -> str:
    """Take a file out on each kind of disk."""
    if request.param != "links":
        request.getfixturevalue(request.param)
    return request.param


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


@pytest.mark.usefixtures("other_disk")
def test_a_file_that_takes_the_place_while_another_is_copied_there_is_not_replaced(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copy2

    def copy_slowly(file: Path, target: Path) -> None:
        copy(file, target)
        place.write_bytes(b"newer")

    monkeypatch.setattr(shutil, "copy2", copy_slowly)
    with pytest.raises(FileExistsError, match="another file has its place"):
        take_out(trashed, place)
    assert place.read_bytes() == b"newer"
    assert trashed.read_bytes() == b"deleted"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.usefixtures("other_disk")
def test_a_copy_takes_its_place_whole_though_a_worker_begins_meanwhile(
    trashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copy2
    with RunFolder.create(tmp_path / "runs", RunConfig(name="tiny")) as folder:

        def copy_slowly(file: Path, target: Path) -> None:
            copy(file, target)
            CheckpointStore(folder)

        monkeypatch.setattr(shutil, "copy2", copy_slowly)
        place = folder.checkpoints_dir / "a.pt"
        take_out(trashed, place)
        assert place.read_bytes() == b"deleted"
        assert not trashed.exists()


@pytest.mark.usefixtures("other_disk")
def test_a_copy_that_fails_half_way_leaves_the_file_in_the_trash_and_its_place_free(
    trashed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path, target: Path) -> None:
        target.write_bytes(b"del")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(OSError, match="No space left"):
        take_out(trashed, place)
    assert list(place.parent.iterdir()) == []
    assert trashed.read_bytes() == b"deleted"
