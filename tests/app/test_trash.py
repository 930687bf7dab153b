"""Files that go to the system's trash and come back from it, replacing nothing."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from app.trash import take_out


@pytest.fixture
def trashed(tmp_path: Path) -> Path:
    path = tmp_path / "files" / "a.pt"
    path.parent.mkdir()
    path.write_bytes(b"deleted")
    return path


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every link refused, as between two disks."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


def test_a_file_is_taken_out_to_its_place(trashed: Path, tmp_path: Path) -> None:
    take_out(trashed, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").read_bytes() == b"deleted"
    assert not trashed.exists()


@pytest.mark.usefixtures("no_links")
def test_a_file_is_taken_out_to_another_disk(trashed: Path, tmp_path: Path) -> None:
    take_out(trashed, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").read_bytes() == b"deleted"
    assert not trashed.exists()


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_has_the_place_is_never_replaced(
    request: pytest.FixtureRequest, trashed: Path, tmp_path: Path, *, has_links: bool
) -> None:
    if not has_links:
        request.getfixturevalue("no_links")
    (tmp_path / "a.pt").write_bytes(b"newer")
    with pytest.raises(FileExistsError, match="another file has its place"):
        take_out(trashed, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").read_bytes() == b"newer"
    assert trashed.read_bytes() == b"deleted"


@pytest.mark.usefixtures("no_links")
def test_a_copy_that_fails_half_way_leaves_the_file_in_the_trash_and_its_place_free(
    trashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path, target: Path) -> None:
        target.write_bytes(b"del")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "move", fail)
    with pytest.raises(OSError, match="No space left"):
        take_out(trashed, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()
    assert trashed.read_bytes() == b"deleted"
