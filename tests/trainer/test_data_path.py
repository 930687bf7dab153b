"""What a data set's path leads to: told without torch, and in a sentence where it leads nowhere."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import pytest

from trainer.config import ConfigError, DataConfig
from trainer.data_path import is_archive, load_run, look_at


def sentence(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        look_at(DataConfig(path=str(path)))
    assert caught.value.field == "data.path"
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_a_folder_an_archive_and_a_table_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder.zip" / "cat").mkdir(parents=True)
    (tmp_path / "photos").write_bytes(gzip.compress(bytes(257) + b"ustar\x00" + bytes(249)))
    (tmp_path / "damaged.tar.xz").write_bytes(b"no tar")
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "labels.dat").write_text("path,label\n")
    assert look_at(DataConfig(path=str(tmp_path / "folder.zip"))) == (tmp_path / "folder.zip", "folder")
    assert look_at(DataConfig(path=str(tmp_path / "damaged.tar.xz"))) == (tmp_path / "damaged.tar.xz", "archive")
    assert look_at(DataConfig(path=str(tmp_path / "labels.csv"))) == (tmp_path / "labels.csv", "table")
    assert look_at(DataConfig(path=str(tmp_path / "labels.dat"), layout="table"))[1] == "table"
    assert "is neither a folder nor" in sentence(tmp_path / "labels.dat")


def test_bad_fields_of_a_run_and_a_path_to_no_data_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[data]\npath = "gone"\ntask = "both"\n[training]\nepochs = 0\n')
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert list(caught.value.sentences) == ["data.task", "training.epochs", "data.path"]
    assert str(caught.value).splitlines()[2] == f"There is no file or folder {tmp_path / 'gone'}. Check the path."
    path.write_text("data = 3\n[training]\nepochs = 0\n")
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert list(caught.value.sentences) == ["data", "training.epochs"]
    path.write_text('[data]\npath = "labels.csv"\n')
    with pytest.raises(ConfigError, match="There is no file or folder"):
        load_run(path)
    (tmp_path / "labels.csv").touch()
    assert load_run(path).data.path == str(tmp_path / "labels.csv")


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    for name, content in {
        "a.txt": b"hello",
        "b.gz": gzip.compress(b"no tar" * 1000),
        "c": b"",
        "d": bytes(4096),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not is_archive(tmp_path / name)


def test_no_path_is_a_sentence() -> None:
    assert sentence("") == "No data is chosen. Choose a folder, an archive or a table of images."


def test_a_folder_without_anything_to_look_at_says_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    assert sentence(folder) == f"{folder} is empty. Put one subfolder of images in it for each class."
    (folder / ".DS_Store").write_bytes(b"x")
    assert sentence(folder) == (
        f"{folder} holds only hidden files, like .DS_Store, which are passed over. Put one subfolder of images in it "
        "for each class."
    )


@pytest.mark.skipif(sys.platform != "linux", reason="names are text here")
def test_a_hidden_name_that_is_no_text_is_shown_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b".\xff")).touch()
    assert "holds only hidden files, like .\ufffd, which" in sentence(tmp_path)


def test_what_the_user_may_not_read_is_a_sentence(tmp_path: Path) -> None:
    folder, table = tmp_path / "photos", tmp_path / "labels.csv"
    folder.mkdir(mode=0)
    table.touch(mode=0)
    if os.access(folder, os.R_OK):
        pytest.skip("this user may open every folder")
    assert sentence(folder) == f"Cannot read the folder {folder}: Permission denied. Check its permissions."
    assert sentence(table) == f"Cannot read {table}: Permission denied. Check its permissions."
    assert "Check the path and its permissions" in sentence(folder / "train")


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not hold for root, as tests in a container often are: the refusal is made here.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "photos.zip").touch()
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    archive = tmp_path / "photos.zip"
    assert sentence(archive) == f"Cannot read {archive}: Permission denied. Check its permissions."
    assert sentence(tmp_path) == f"Cannot read the folder {tmp_path}: Permission denied. Check its permissions."
