"""Sources: which files of which class and split, in every layout, and the sentence where there are none."""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from trainer.config import ConfigError, DataConfig
from trainer.data.images import DataError
from trainer.data.sources import Source, read_source


class CancelledError(Exception):
    pass


def source(path: Path, cache_dir: Path | None = None, **config: Any) -> Source:
    data = DataConfig(path=str(path), **config)
    return read_source(data, cache_dir or path.parent / "cache", lambda *_: None, lambda: None)


def sentence(path: Path, field: str = "data.path", **config: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        source(path, **config)
    assert caught.value.field == field
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no file is opened: " + os.fsencode(file.name))


def found(of: Source) -> list[tuple[str, str, str]]:
    """Return (class, split, path below the root) of every file."""
    return [
        (of.class_names[file.class_idxs[0]], file.split, Path(file.path).relative_to(of.root).as_posix())
        for file in of.files
    ]


def reasons(of: Source) -> dict[str, str]:
    assert len({shown for shown, _ in of.skipped}) == len(of.skipped)
    return {Path(shown).name: reason for shown, reason in of.skipped}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for name in ("cat", "dog"):
        put(*(root / name / f"{number}.png" for number in (1, 2, 10)))
    return root


# -- class folders --------------------------------------------------------------------------------------------


def test_classes_and_files_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "B", "a", "1"):
        put(*(tmp_path / "data" / name / f"{number}.png" for number in (10, 2)))
    read = source(tmp_path / "data")
    assert read.layout == "class_folders"
    assert read.class_names == ["1", "9", "10", "a", "B"]
    assert [Path(file.path).name for file in read.files] == ["2.png", "10.png"] * 5
    assert [file.class_idxs[0] for file in read.files] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert all(Path(file.path).is_absolute() for file in read.files)
    assert {(file.split, file.group) for file in read.files} == {("", "")}
    assert read.files[0].shown == str(tmp_path / "data" / "1" / "2.png")


def test_names_with_thousands_of_digits_are_sorted_too(tmp_path: Path) -> None:
    rows = [f"{number}.png,{'9' * 5000}{number}" for number in (10, 2)]
    put(tmp_path / "2.png", tmp_path / "10.png")
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert [name[-2:] for name in source(tmp_path / "labels.csv").class_names] == ["92", "10"]


def test_subfolders_of_a_class_are_read(pets: Path) -> None:
    put(pets / "cat" / "young" / "kitten.png")
    assert ("cat", "", "cat/young/kitten.png") in found(source(pets))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_wrapping_folder_is_looked_through(pets: Path, depth: int) -> None:
    wrapped = pets.parent / "wrapped"
    inner = wrapped.joinpath(*["in"] * depth)
    inner.parent.mkdir(parents=True)
    pets.rename(inner)
    (wrapped / "readme.txt").write_text("beside the wrapper")
    read = source(wrapped)
    assert read.class_names == ["cat", "dog"]
    assert read.root == inner


def test_files_in_no_class_are_skipped_and_everything_stays_as_it_was(pets: Path) -> None:
    (pets / "notes.txt").write_text("x")
    (pets / "labels.csv").write_text("path,label")
    before = {file: file.read_bytes() for file in pets.rglob("*") if file.is_file()}
    read = source(pets)
    assert reasons(read) == dict.fromkeys(("labels.csv", "notes.txt"), "it is in no class subfolder")
    assert len(read.files) == 6
    assert {file: file.read_bytes() for file in pets.rglob("*") if file.is_file()} == before


def test_a_class_without_files_is_still_listed(pets: Path) -> None:
    (pets / "fox").mkdir()
    read = source(pets)
    assert read.class_names == ["cat", "dog", "fox"]
    assert len(read.files) == 6


def test_hidden_files_and_those_of_operating_systems_are_passed_over_in_silence(pets: Path) -> None:
    put(pets / ".DS_Store", pets / "desktop.ini", pets / "cat" / "._1.png", pets / "cat" / "Thumbs.db")
    put(pets / "__MACOSX" / "1.png", pets / ".cache" / "1.png")
    read = source(pets)
    assert read.class_names == ["cat", "dog"]
    assert len(read.files) == 6
    assert read.skipped == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and FIFOs")
def test_links_out_of_the_folder_and_special_files_are_never_opened(pets: Path) -> None:
    put(pets.parent / "outside.png")
    (pets / "cat" / "outside.png").symlink_to(pets.parent / "outside.png")
    (pets / "cat" / "inside.png").symlink_to(pets / "dog" / "1.png")
    (pets / "cat" / "loop").symlink_to(pets)
    (pets / "cat" / "itself.png").symlink_to(pets / "cat" / "itself.png")
    (pets / "cat" / "gone.png").symlink_to(pets / "nothing.png")
    (pets / "fox").symlink_to(pets.parent)
    os.mkfifo(pets / "dog" / "pipe.png")
    (pets / "dog" / "to_pipe.png").symlink_to(pets / "dog" / "pipe.png")
    read = source(pets)
    assert reasons(read) == {
        "outside.png": "it is a link that leaves the folder",
        "loop": "it is a link to a folder, or to something else that is no file: links are not followed",
        "itself.png": "it is a link that leads nowhere",
        "gone.png": "it is a link that leads nowhere",
        "fox": "it is a link that leaves the folder",
        "pipe.png": "it is a device, pipe or socket, not a file",
        "to_pipe.png": "it is a link to a folder, or to something else that is no file: links are not followed",
    }
    assert read.class_names == ["cat", "dog"]
    assert len(read.files) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no UTF-8")
def test_file_names_that_are_no_text_are_still_shown_as_text(pets: Path) -> None:
    put(pets / "cat" / os.fsdecode(b"caf\xe9.png"))
    (pets / "dog").rename(pets / os.fsdecode(b"d\xf6g"))
    read = source(pets)
    assert read.class_names == ["cat", "d\ufffdg"]
    (odd,) = (file for file in read.files if "caf" in file.shown)
    assert Path(odd.shown).name == "caf\ufffd.png"
    assert Path(odd.path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk that keeps both spellings of a name")
def test_a_class_spelled_with_both_encodings_of_an_accent_is_one_class(pets: Path) -> None:
    put(pets / unicodedata.normalize("NFC", "café") / "1.png", pets / unicodedata.normalize("NFD", "café") / "2.png")
    read = source(pets)
    assert read.class_names == ["café", "cat", "dog"]
    assert sorted(Path(file.path).name for file in read.files if file.class_idxs == (0,)) == ["1.png", "2.png"]


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not hold for root, as tests in a container often are: the refusal is made here.
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_class_folder_that_cannot_be_read_is_skipped_and_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(pets / "dog", monkeypatch)
    read = source(pets)
    assert read.skipped == [(str(pets / "dog"), "it is a folder that cannot be read (Permission denied)")]
    assert read.class_names == ["cat", "dog"]
    assert len(read.files) == 3


def test_a_split_that_cannot_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    put(*(data / split / name / "1.png" for split in ("train", "val") for name in ("cat", "dog")))
    refuse(data / "val", monkeypatch)
    assert sentence(data) == f"Cannot read the folder {data / 'val'}: Permission denied. Check its permissions."


def test_a_deeper_folder_that_cannot_be_read_is_skipped(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(pets / "cat" / "young" / "1.png")
    refuse(pets / "cat" / "young", monkeypatch)
    read = source(pets)
    assert read.skipped == [(str(pets / "cat" / "young"), "it is a folder that cannot be read (Permission denied)")]
    assert len(read.files) == 6


def test_listing_can_be_cancelled_and_tells_how_far_it_is(pets: Path) -> None:
    calls: list[tuple[str, int, int, str]] = []
    read_source(DataConfig(path=str(pets)), pets.parent, lambda *call: calls.append(call), lambda: None)
    assert calls[-1] == ("Listing files", 2, 2, "folders")

    def cancel() -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        read_source(DataConfig(path=str(pets)), pets.parent, lambda *_: None, cancel)


# -- split folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "val"), {"train", "validation"}),
        (("Training", "VALID"), {"train", "validation"}),
        (("train", "validation", "test"), {"train", "validation", "test"}),
        (("train", "Testing"), {"train", "test"}),
        (("Training_set", "Validation_set", "test-data"), {"train", "validation", "test"}),
        (("train images", "valImages"), {"train", "validation"}),
        (("trainset", "images_val", "TEST"), {"train", "validation", "test"}),
    ],
)
def test_train_and_validation_folders_give_the_split(tmp_path: Path, names: tuple[str, ...], splits: set[str]) -> None:
    for name in names:
        put(tmp_path / "data" / name / "dog" / "1.png", tmp_path / "data" / name / "cat" / "1.png")
    read = source(tmp_path / "data")
    assert read.layout == "split_folders"
    assert read.root == tmp_path / "data"
    assert read.class_names == ["cat", "dog"]
    assert {file.split for file in read.files} == splits
    assert len(read.files) == 2 * len(names)


def test_a_class_of_one_split_alone_is_listed_and_strays_are_skipped(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(data / "train" / "cat" / "1.png", data / "train" / "dog" / "1.png", data / "val" / "cat" / "2.png")
    put(
        data / "val" / "fox" / "1.png",
        data / "val" / "stray.png",
        data / "readme.txt",
        data / "masks" / "cat" / "1.png",
    )
    read = source(data)
    assert found(read) == [
        ("cat", "train", "train/cat/1.png"),
        ("dog", "train", "train/dog/1.png"),
        ("cat", "validation", "val/cat/2.png"),
        ("fox", "validation", "val/fox/1.png"),
    ]
    assert reasons(read) == {
        "readme.txt": "it is in no class subfolder",
        "stray.png": "it is in no class subfolder",
        "masks": "it is a folder of no split",
    }


def test_split_folders_without_class_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(data / "train" / "1.png", data / "test" / "1.png")
    text = sentence(data)
    assert f"{data} is split into test and train, but {data / 'train'} has no class subfolders. Sort" in text
    assert source(data, layout="class_folders").class_names == ["test", "train"]


@pytest.mark.parametrize("name", ["strain", "trainer", "set", "images", "val_2", "devices", "test_tubes"])
def test_a_folder_with_more_than_a_split_in_its_name_is_a_class(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    put(data / "train" / "cat" / "1.png", data / name / "dog" / "1.png")
    assert source(data).class_names == sorted([name, "train"])


def test_split_folders_within_class_folders_give_the_split(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(*(data / name / split / "1.png" for name in ("dog", "cat") for split in ("train", "val")))
    # A class of one split alone, and a folder that only wraps.
    put(data / "fox" / "Training_set" / "deep" / "2.png", data / "cat" / "val" / "2.png")
    put(data / "cat" / "masks" / "1.png", data / "cat" / "stray.png", data / "readme.txt")
    for chosen in (data, tmp_path):
        read = source(chosen)
        assert (read.layout, read.root) == ("splits_in_classes", data)
        assert found(read) == [
            ("cat", "train", "cat/train/1.png"),
            ("cat", "validation", "cat/val/1.png"),
            ("cat", "validation", "cat/val/2.png"),
            ("dog", "train", "dog/train/1.png"),
            ("dog", "validation", "dog/val/1.png"),
            ("fox", "train", "fox/Training_set/deep/2.png"),
        ]
        assert reasons(read) == {
            "readme.txt": "it is in no class subfolder",
            "stray.png": "it is in no split's subfolder",
            "masks": "it is a folder of no split",
        }


def test_classes_of_which_some_hold_no_splits_are_class_folders_unless_the_layout_is_chosen(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(*(data / name / split / "1.png" for name in ("dog", "cat") for split in ("train", "val")))
    put(data / "fox" / "1.png")
    assert source(data).layout == "class_folders"
    read = source(data, layout="splits_in_classes")
    assert read.class_names == ["cat", "dog", "fox"]
    assert {file.split for file in read.files} == {"train", "validation"}
    assert reasons(read) == {"1.png": "it is in no split's subfolder"}
    # Theirs is the choice the other way round, too.
    (data / "fox" / "1.png").rename(data / "fox" / "2.png")
    assert {file.split for file in source(data, layout="class_folders").files} == {""}


def test_classes_within_classes_are_not_taken_for_splits(tmp_path: Path) -> None:
    put(*(tmp_path / "data" / group / name / "1.png" for group in ("rail", "road") for name in ("train", "bus")))
    assert source(tmp_path / "data").layout == "class_folders"


def test_a_class_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(data / "train" / "1.png", data / "plane" / "1.png", data / "val" / "1.png")
    assert source(data).class_names == ["plane", "train", "val"]


# -- names ----------------------------------------------------------------------------------------------------


def test_files_named_after_their_class_and_a_number_are_understood(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    names = ("cat.10.jpg", "cat.2.jpg", "new_york_3.PNG", "dog-7.webp", "new york (12).jpg", "red fox(1).jpg")
    put(*(flat / name for name in names))
    read = source(flat)
    assert read.layout == "file_names"
    assert read.root == flat
    assert found(read) == [
        ("cat", "", "cat.2.jpg"),
        ("cat", "", "cat.10.jpg"),
        ("dog", "", "dog-7.webp"),
        ("new york", "", "new york (12).jpg"),
        ("new_york", "", "new_york_3.PNG"),
        ("red fox", "", "red fox(1).jpg"),
    ]


def test_a_few_files_with_other_names_are_skipped(tmp_path: Path) -> None:
    flat = tmp_path / "wrapper" / "flat"
    put(*(flat / f"{name}_{number}.jpg" for name in ("cat", "dog") for number in range(9)))
    put(flat / "readme_1.txt", flat / "cover.jpg")
    read = source(tmp_path / "wrapper")
    assert read.root == flat
    assert len(read.files) == 18
    assert reasons(read) == dict.fromkeys(("readme_1.txt", "cover.jpg"), 'its name is not like "cat_12.jpg"')
    put(flat / "back.jpg")
    assert 'has only one class, "flat"' in sentence(tmp_path / "wrapper")
    assert "has 21 files directly in it, but no class subfolders. Sort" in sentence(flat)
    assert len(source(flat, layout="file_names").files) == 18


def test_names_are_not_taken_for_classes_beside_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "mixed" / "cat_1.jpg", tmp_path / "mixed" / "dog_1.jpg", tmp_path / "mixed" / "more" / "a.jpg")
    assert 'has only one class, "more"' in sentence(tmp_path / "mixed")


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs")
def test_a_pipe_that_is_named_like_an_image_is_not_opened(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    put(flat / "cat_1.jpg", flat / "dog_1.jpg")
    os.mkfifo(flat / "dog_2.jpg")
    assert reasons(source(flat)) == {"dog_2.jpg": "it is a device, pipe or socket, not a file"}


# -- tables in folders ----------------------------------------------------------------------------------------


def test_a_table_beside_a_folder_of_images_gives_the_classes(tmp_path: Path) -> None:
    data = tmp_path / "wrapper" / "data"
    put(*(data / "images" / f"{number}.png" for number in (10, 9)))
    (data / "labels.csv").write_text("path,label\nimages/10.png,cat\nimages/9.png,dog\n../../secret.png,cat\n")
    put(tmp_path / "secret.png")
    read = source(tmp_path / "wrapper")
    assert read.layout == "table"
    assert read.root == data
    assert found(read) == [("dog", "", "images/9.png"), ("cat", "", "images/10.png")]
    assert read.skipped == [(str(Path("../../secret.png")), "it lies outside of the folder (row 4 of labels.csv)")]


def test_class_folders_come_before_a_table_and_names_before_a_useless_one(pets: Path, tmp_path: Path) -> None:
    (pets / "labels.csv").write_text("path,label\ncat/1.png,dog\ndog/1.png,cat\n")
    assert source(pets).layout == "class_folders"
    assert source(pets, layout="table").class_names == ["cat", "dog"]
    put(tmp_path / "flat" / "cat_1.jpg", *(tmp_path / "flat" / f"dog_{number}.jpg" for number in range(9)))
    (tmp_path / "flat" / "sample.csv").write_text("id,score\n1,2\n")
    assert source(tmp_path / "flat").layout == "file_names"


def test_a_table_that_cannot_be_used_is_named_where_nothing_else_fits(tmp_path: Path) -> None:
    put(tmp_path / "data" / "images" / "1.png")
    (tmp_path / "data" / "labels.csv").write_text("path,kind\nimages/1.png,cat\n")
    assert 'labels.csv has no column of classes: its first row has "path", "kind"' in sentence(
        tmp_path / "data", "data.label_column"
    )
    assert sentence(tmp_path / "data", "data.label_column", layout="table") == sentence(
        tmp_path / "data", "data.label_column"
    )


def test_two_tables_are_not_chosen_between(tmp_path: Path) -> None:
    for name in ("a.csv", "b.tsv"):
        put(tmp_path / "data" / "1.png")
        (tmp_path / "data" / name).write_text("path,label\n1.png,cat\n")
    assert "has 2 tables of images, a.csv and b.tsv for example. Choose" in sentence(tmp_path / "data")


# -- archives -------------------------------------------------------------------------------------------------


def zip_of(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return target


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar", "pets.tar.gz", "pets.tgz", "pets.tar.bz2", "pets.tar.xz"])
@pytest.mark.parametrize("prefix", ["", "pets/"])
def test_an_archive_is_read_and_its_files_are_named_inside_it(
    pets: Path, tmp_path: Path, name: str, prefix: str
) -> None:
    (pets / "stray.txt").write_text("x")
    archive = tmp_path / name
    if name.endswith(".zip"):
        zip_of(pets, archive, prefix)
    else:
        with tarfile.open(archive, f"w:{name.rpartition('.')[2].replace('tgz', 'gz').replace('tar', '')}") as tar:
            tar.add(pets, prefix or ".")
    read = source(archive)
    assert read.layout == "class_folders"
    assert read.class_names == ["cat", "dog"]
    assert read.root == (tmp_path / "cache" / hashlib.sha256(archive.read_bytes()).hexdigest() / prefix)
    assert read.skipped == [(str(archive / prefix / "stray.txt"), "it is in no class subfolder")]
    assert read.files[0].shown == str(archive / prefix / "cat" / "1.png")
    assert Path(read.files[0].path).read_bytes() == (pets / "cat" / "1.png").read_bytes()


def test_an_archive_inside_an_archive_stays_packed(pets: Path, tmp_path: Path) -> None:
    inner = zip_of(pets, tmp_path / "inner.zip")
    (pets / "dog" / "zzz.zip").write_bytes(inner.read_bytes())
    with tarfile.open(tmp_path / "outer.tar", "w") as tar:
        tar.add(pets, "pets")
    read = source(tmp_path / "outer.tar")
    assert read.class_names == ["cat", "dog"]
    assert [Path(file.path).name for file in read.files if file.class_idxs == (1,)] == [
        "1.png",
        "2.png",
        "10.png",
        "zzz.zip",
    ]


def test_an_archive_of_nothing_but_archives_names_them(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    zip_of(pets, tmp_path / "inside" / "train.zip")
    (tmp_path / "inside" / "sample.csv").write_text("id,label\n1,cat\n")
    outer = zip_of(tmp_path / "inside", tmp_path / "outer.zip")
    assert sentence(outer) == (
        f"{outer} holds no images but another archive, train.zip. Unpack that first, and choose its folder."
    )
    (tmp_path / "inside" / "test.7z").write_bytes(b"x")
    wrapped = zip_of(tmp_path / "inside", tmp_path / "wrapped.zip", "kaggle/")
    assert sentence(wrapped) == (
        f"{wrapped / 'kaggle'} holds no images but 2 archives, test.7z and train.zip for example. Unpack them first, "
        "each into a folder of its own, and choose the folder of these."
    )
    assert sentence(tmp_path / "inside").startswith(f"{tmp_path / 'inside'} holds no images but 2 archives")
    assert "has no column of image paths" in sentence(tmp_path / "inside", "data.path_column", layout="table")
    put(tmp_path / "inside" / "cat_1.jpg", tmp_path / "inside" / "dog_1.jpg")
    assert source(tmp_path / "inside", layout="file_names").class_names == ["cat", "dog"]


def test_a_table_in_an_archive_must_not_name_files_outside_of_it(tmp_path: Path) -> None:
    put(tmp_path / "data" / "images" / "1.png", tmp_path / "data" / "images" / "2.png", tmp_path / "secret.png")
    lines = ["path,label", "images/1.png,cat", "images/2.png,dog", "../../secret.png,cat", f"{tmp_path}/secret.png,cat"]
    (tmp_path / "data" / "labels.csv").write_text("\n".join(lines))
    read = source(zip_of(tmp_path / "data", tmp_path / "data.zip"))
    assert [file.shown for file in read.files] == [
        str(tmp_path / "data.zip" / "images" / f"{number}.png") for number in (1, 2)
    ]
    assert [reason for _, reason in read.skipped] == [
        f"it lies outside of the folder (row {number} of labels.csv)" for number in (4, 5)
    ]


def test_an_empty_archive_is_an_empty_data_set(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "none.zip", "w").close()
    assert sentence(tmp_path / "none.zip").startswith(f"{tmp_path / 'none.zip'} is empty. Put one")
    tarfile.open(tmp_path / "none.tar", "w").close()
    assert sentence(tmp_path / "none.tar").startswith(f"{tmp_path / 'none.tar'} is empty. Put one")


def test_the_demo_data_are_listed(tmp_path: Path) -> None:
    read = source(Path(__file__).parents[2] / "assets" / "digits.zip", tmp_path)
    assert read.class_names == list("0123456789")
    assert len(read.files) == 1797
    assert read.skipped == []


# -- what cannot be read --------------------------------------------------------------------------------------


def test_no_such_path(tmp_path: Path) -> None:
    assert sentence(tmp_path / "nowhere") == f"There is no file or folder {tmp_path / 'nowhere'}. Check the path."
    assert "Check the path" in sentence(Path("~nosuchuser/data"))
    assert "Check the path" in sentence(tmp_path / "a\0b")


def test_a_file_that_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert sentence(tmp_path / "notes.txt").startswith(
        f"{tmp_path / 'notes.txt'} is neither a folder nor a zip, a tar or a table (.csv, .tsv). Choose"
    )


def test_a_spreadsheet_is_not_unpacked(pets: Path, tmp_path: Path) -> None:
    assert "is a spreadsheet's own file. Save it as CSV" in sentence(zip_of(pets, tmp_path / "labels.xlsx"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and FIFOs")
def test_a_pipe_or_a_link_to_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is neither a folder nor" in sentence(tmp_path / "pipe.csv")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert sentence(tmp_path / "loop").startswith(f"Cannot look at {tmp_path / 'loop'}: Too many levels")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert sentence(tmp_path / "empty").startswith(f"{tmp_path / 'empty'} is empty. Put one subfolder")


def test_an_empty_or_hidden_folder_within_a_folder_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    assert sentence(tmp_path / "outer").startswith(f"{inner} is empty. Put one subfolder")
    put(inner / "Thumbs.db")
    assert sentence(tmp_path / "outer").startswith(f"{inner} holds only hidden files, like Thumbs.db, which")


def test_images_without_class_subfolders(tmp_path: Path) -> None:
    put(tmp_path / "flat" / "a.png", tmp_path / "flat" / "b.png")
    assert "has 2 files directly in it, but no class subfolders. Sort" in sentence(tmp_path / "flat")


def test_class_folders_that_are_links_are_named_and_what_to_do_about_them(tmp_path: Path) -> None:
    real, data = tmp_path / "real", tmp_path / "data"
    put(real / "cat" / "1.png", real / "dog" / "1.png", tmp_path / "fox" / "1.png")
    data.mkdir()
    for name in ("cat", "dog"):
        (data / name).symlink_to(real / name)
    what = f"{data} has 2 links to folders, cat and dog for example: links are not followed. Put the folders themselves"
    for layout in ("auto", "class_folders", "split_folders", "splits_in_classes"):
        assert sentence(data, layout=layout) == (
            f"{what} in their place, or choose the folder that they are in, {real}."
        )
    (data / "fox").symlink_to(tmp_path / "fox")
    assert sentence(data).endswith(" or choose the folder that they are in.")
    (data / "dog").unlink()
    (data / "fox").unlink()
    put(data / "dog" / "1.png")
    assert sentence(data) == (
        f"{data} has a link to a folder, cat: links are not followed. Put the folder itself in its place, or choose "
        f"the folder that it is in, {real}."
    )
    put(data / "1.png")
    assert "has only one class" in sentence(data)


def test_class_folders_of_a_split_that_are_links_are_named(tmp_path: Path) -> None:
    real, data = tmp_path / "real", tmp_path / "data"
    for split in ("train", "val"):
        (data / split).mkdir(parents=True)
        for name in ("cat", "dog"):
            put(real / split / name / "1.png")
            (data / split / name).symlink_to(real / split / name)
    text = sentence(data)
    assert text.startswith(f"{data / 'train'} has 2 links to folders, cat and dog for example: links are not followed.")
    assert text.endswith(f"or choose the folder that they are in, {real / 'train'}.")


def test_a_single_class(tmp_path: Path) -> None:
    put(tmp_path / "one" / "cat" / "a.png")
    assert 'has only one class, "cat". Add' in sentence(tmp_path / "one")
    put(tmp_path / "two" / "train" / "cat" / "1.png", tmp_path / "two" / "val" / "cat" / "1.png")
    assert 'has only one class, "cat". Add' in sentence(tmp_path / "two")


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("split_folders", "has no train folder of class subfolders beside one for validation or test. Choose"),
        (
            "splits_in_classes",
            "has no two class folders with a train folder beside one for validation or test in them.",
        ),
        ("table", "has no table (.csv, .tsv) at its top. Choose"),
        ("file_names", "has no files of two classes that are named like cat_12.jpg. Choose"),
    ],
)
def test_a_layout_that_the_data_have_not_is_refused(pets: Path, layout: str, words: str) -> None:
    assert f"{pets} {words}" in sentence(pets, "data.layout", layout=layout)


def test_class_folders_are_refused_where_there_are_only_files(tmp_path: Path) -> None:
    put(tmp_path / "flat" / "cat_1.jpg", tmp_path / "flat" / "dog_1.jpg")
    assert "but no class subfolders" in sentence(tmp_path / "flat", "data.layout", layout="class_folders")
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert 'is a table: its layout cannot be "class_folders". Choose' in sentence(
        tmp_path / "labels.csv", "data.layout", layout="class_folders"
    )
