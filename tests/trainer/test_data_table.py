"""Tables of images: columns, separators and encodings as people have them, and the reason for every row left out."""

from __future__ import annotations

import codecs
import csv
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from trainer.config import ConfigError, DataConfig
from trainer.data.images import DataError
from trainer.data.sources import Source, read_source
from trainer.messages.data_info import TableColumns


class CancelledError(Exception):
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with images/1.png to images/4.png; nothing opens them."""
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3, 4):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"x")
    return tmp_path


def table(folder: Path, *lines: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes("\n".join(lines).encode(encoding))
    return folder / name


def source(path: Path, **config: Any) -> Source:
    data = DataConfig(path=str(path), **config)
    return read_source(data, path.parent / "cache", lambda *_: None, lambda: None)


def sentence(path: Path, field: str = "data.path", **config: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        source(path, **config)
    assert caught.value.field == field
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert str(path) in text
    return text


def labels(of: Source) -> dict[str, str]:
    assert len({file.path for file in of.files}) == len(of.files)
    return {Path(file.path).name: "; ".join(of.class_names[idx] for idx in file.class_idxs) for file in of.files}


CATS_AND_DOGS = {"1.png": "cat", "2.png": "dog"}


# -- tables as people have them -------------------------------------------------------------------------------


def test_paths_are_taken_beside_the_table_and_files_come_in_natural_order(folder: Path) -> None:
    (folder / "images" / "10.png").write_bytes(b"x")
    read = source(table(folder, "path,label", "images/10.png,b", "images/2.png,a", f"{folder}/images/1.png,c10,"[:-1]))
    assert read.layout == "table"
    assert read.root == folder
    assert read.class_names == ["a", "b", "c10"]
    assert [file.shown for file in read.files] == [str(folder / "images" / f"{number}.png") for number in (1, 2, 10)]
    assert {(file.split, file.group) for file in read.files} == {("", "")}
    assert read.skipped == []


def test_a_table_that_the_user_chose_may_name_images_elsewhere(folder: Path) -> None:
    (folder / "tables").mkdir()
    chosen = table(folder / "tables", "path,label", "../images/1.png,cat", f"{folder / 'images' / '2.png'},dog")
    read = source(chosen)
    assert labels(read) == CATS_AND_DOGS
    assert [Path(file.path) for file in read.files] == [folder / "images" / "1.png", folder / "images" / "2.png"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv"])
def test_any_usual_separator_is_found(folder: Path, delimiter: str, name: str) -> None:
    lines = [delimiter.join(row) for row in (("path", "label"), ("images/1.png", "cat"), ("images/2.png", "dog"))]
    assert labels(source(table(folder, *lines, name=name))) == CATS_AND_DOGS


def test_separators_within_quoted_labels_do_not_mislead(folder: Path) -> None:
    lines = ["path,label", '"images/1.png","cat; small; grey"', '"images/2.png","dog, ""large"""', "images/3.png,a|b|c"]
    assert labels(source(table(folder, *lines), label_separator="none")) == {
        "1.png": "cat; small; grey",
        "2.png": 'dog, "large"',
        "3.png": "a|b|c",
    }


def test_one_column_of_semicolons_is_not_cut(folder: Path) -> None:
    lines = ["path;label", "images/1.png;a, b, c, d", "images/2.png;e, f, g, h"]
    assert labels(source(table(folder, *lines))) == {"1.png": "a, b, c, d", "2.png": "e, f, g, h"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_line_ends_of_every_system_are_understood(
    folder: Path, encoding: str, newline: str
) -> None:
    text = newline.join(["path,label", "images/1.png,고양이", "images/2.png,dog", ""])
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    assert (folder / "labels.csv").read_bytes().startswith(codecs.BOM_UTF8) == (encoding == "utf-8-sig")
    assert labels(source(folder / "labels.csv")) == {"1.png": "고양이", "2.png": "dog"}


@pytest.mark.parametrize(
    "header", ["Path,LABEL", "image path,class", " file-name ,Class Name", "img,y", "image_id,target"]
)
def test_columns_are_found_by_their_usual_names(folder: Path, header: str) -> None:
    path, label = header.split(",")
    read = source(table(folder, f"score,{label},{path}", "1,cat,images/1.png", "2,dog,images/2.png"))
    assert labels(read) == CATS_AND_DOGS


def test_an_image_id_that_is_no_file_name_is_no_path(folder: Path) -> None:
    assert "no column of image paths" in sentence(table(folder, "image_id,label", "ISIC_1,cat"), "data.path_column")


def test_columns_that_the_user_named_come_first(folder: Path) -> None:
    lines = ["path,label,photo,kind,part,patient", "x,y,images/1.png,cat,VAL,anna", "x,y,images/2.png,dog,train,"]
    read = source(
        table(folder, *lines), path_column="photo", label_column="Kind", split_column="part", group_column="patient"
    )
    assert labels(read) == CATS_AND_DOGS
    assert [(file.split, file.group) for file in read.files] == [("validation", "anna"), ("train", "")]
    assert read.columns == TableColumns(
        names=["path", "label", "photo", "kind", "part", "patient"],
        taken={"path_column": "photo", "label_column": "kind", "split_column": "part", "group_column": "patient"},
    )


def test_a_table_says_its_columns_so_that_each_can_be_chosen(folder: Path) -> None:
    header = 'path,"two\nlines",, Label '
    chosen = table(folder, header, "images/1.png,cat,,x", "images/2.png,dog,,y")
    read = source(chosen)
    assert read.columns == TableColumns(
        names=["path", "two lines", "Label"], taken={"path_column": "path", "label_column": "Label"}
    )
    assert labels(source(chosen, label_column="two lines")) == CATS_AND_DOGS


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"), ("Training", "train"), ("val", "validation"), ("VALID", "validation"),
        ("validation", "validation"), ("dev", "validation"), ("test", "test"), (" testing ", "test"), ("", ""),
    ],
)  # fmt: skip
def test_words_for_splits(folder: Path, word: str, split: str) -> None:
    read = source(table(folder, "path,label,split", f"images/1.png,cat,{word}", "images/2.png,dog,train"))
    assert [file.split for file in read.files] == [split, "train"]


def test_labels_are_one_line_and_one_spelling(folder: Path) -> None:
    lines = ["path,label", 'images/1.png,"red\n  fox"', "images/2.png, red fox ", "images/3.png,caf\u00e9"]
    read = source(table(folder, *lines, f"images/4.png,{unicodedata.normalize('NFD', 'café')}"))
    assert read.class_names == ["café", "red fox"]
    assert labels(read) == {"1.png": "red fox", "2.png": "red fox", "3.png": "café", "4.png": "café"}


@pytest.mark.skipif(sys.platform == "win32", reason="backslashes are its own separators")
def test_paths_from_other_systems_are_found(folder: Path) -> None:
    (folder / "images" / unicodedata.normalize("NFD", "é.png")).write_bytes(b"x")
    lines = ["path,label", "images\\1.png,cat", f"images/{unicodedata.normalize('NFC', 'é.png')},dog"]
    read = source(table(folder, *lines))
    assert len(read.files) == 2
    assert read.skipped == []


# -- rows that are left out -----------------------------------------------------------------------------------


def test_rows_that_cannot_be_used_are_skipped_with_their_number_and_the_others_stay(folder: Path) -> None:
    (folder / "images" / "folder.png").mkdir()
    chosen = table(
        folder,
        "path,label,note",
        "images/1.png,cat,",
        "",
        "images/gone.png,cat,",
        "images/3.png, ,",
        ",cat,",
        "images/3.png,cat,x,y,z,w",
        "images/3.png",
        'images/3.png,"\n",',
        "images/folder.png,cat,",
        "images/a\0b.png,cat,",
        ",,",
        "images/2.png,dog,",
    )
    before = chosen.read_bytes()
    read = source(chosen)
    assert labels(read) == CATS_AND_DOGS
    assert read.skipped == [
        (str(chosen), 'row 5 gives no class to "images/3.png"'),
        (str(chosen), "row 6 names no image"),
        (str(chosen), "row 7 has 3 columns too many"),
        (str(chosen), "row 8 has 2 columns too few"),
        (str(chosen), 'row 9 gives no class to "images/3.png"'),
        (str(folder / "images" / "gone.png"), "there is no such file (row 4 of labels.csv)"),
        (str(folder / "images" / "folder.png"), "it is a folder (row 10 of labels.csv)"),
        (str(folder / "images" / "a\0b.png"), "there is no such file (row 11 of labels.csv)"),
    ]
    assert chosen.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and FIFOs")
def test_pipes_and_links_are_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "loop.png").symlink_to(folder / "images" / "loop.png")
    lines = ["path,label", "images/1.png,cat", "images/2.png,dog", "images/pipe.png,cat", "images/loop.png,cat"]
    reasons = [reason for _, reason in source(table(folder, *lines)).skipped]
    assert reasons[0] == "it is a device, pipe or socket, not a file (row 4 of labels.csv)"
    assert "it cannot be looked at: Too many levels of symbolic links" in reasons[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_link_out_of_a_folder_that_came_with_its_table_is_not_followed(folder: Path) -> None:
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "1.png").write_bytes(b"x")
    (data / "images" / "2.png").symlink_to(data / "images" / "1.png")
    (data / "images" / "3.png").symlink_to(folder / "images" / "3.png")
    table(data, "path,label", "images/1.png,cat", "images/2.png,dog", "images/3.png,cat")
    read = source(data)
    assert labels(read) == CATS_AND_DOGS
    assert read.skipped == [
        (str(data / "images" / "3.png"), "it is a link that leaves the folder (row 4 of labels.csv)")
    ]


def test_a_file_in_two_rows_counts_once_and_a_contradiction_not_at_all(folder: Path) -> None:
    chosen = table(
        folder,
        "path,label,split,person",
        "images/1.png,cat,train,a",
        "images/2.png,dog,train,a",
        "./images/../images/1.png,cat,train,a",
        "images/3.png,cat,train,a",
        "images/3.png,dog,train,a",
        "images/3.png,fox,train,a",
        "images/4.png,cat,train,a",
        "images/4.png,cat,test,a",
    )
    read = source(chosen, group_column="person")
    assert labels(read) == CATS_AND_DOGS
    assert read.class_names == ["cat", "dog"]
    assert read.skipped == [
        (str(folder / "images" / "3.png"), 'rows 5 and 6 give it different classes, "cat" and "dog"'),
        (str(folder / "images" / "4.png"), 'rows 8 and 9 give it different splits, "train" and "test"'),
    ]


# -- tables that cannot be used -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "field", "words"),
    [
        (["path,kind", "1.png,cat"], "data.label_column",
         'no column of classes: its first row has "path", "kind". Name'),
        (["where,label", "1.png,cat"], "data.path_column",
         'no column of image paths: its first row has "where", "label"'),
        (["path,label,Label", "1.png,cat,dog"], "data.label_column", 'has two columns named "label". Rename one'),
        ([""], "data.path", "has no header. Name the columns"),
        (["", "path,label"], "data.path", "has no header. Name the columns"),
        (["path,label"], "data.path", "has no rows below its header. Add"),
        (["path,label", "gone.png,cat"], "data.path", "can be used: "),
        (["path,label", " , "], "data.path", "can be used: they are empty. Mend"),
        (["path,label", "images/1.png,cat"], "data.label_column", 'has only one class, "cat". Add rows'),
        (["path,label,split", "images/1.png,cat,train", "images/2.png,dog,fold 3"], "data.split_column",
         'has the split "fold 3" in row 3, which is none of train, validation and test. Mend'),
        (["path,label", 'images/1.png,"cat', "images/2.png,dog"], "data.path",
         "is not a readable table: unexpected end"),
        (["path,label", f"images/1.png,{'x' * 200_000}"], "data.path", "is not a readable table: field larger"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused(folder: Path, lines: list[str], field: str, words: str) -> None:
    assert words in sentence(table(folder, *lines), field)


@pytest.mark.parametrize(
    ("header", "chosen"), [("path,kind", ""), ("kind,label", ""), ("path,label", "kind"), ("path,kind", "kind")]
)
def test_a_refusal_of_columns_offers_those_that_there_are(folder: Path, header: str, chosen: str) -> None:
    with pytest.raises(DataError) as caught:
        source(table(folder, header, "images/1.png,cat", "images/2.png,cat"), label_column=chosen)
    assert caught.value.choices == header.split(",")


@pytest.mark.parametrize("column", ["path_column", "label_column", "split_column", "group_column"])
def test_a_column_that_the_user_named_must_be_there(folder: Path, column: str) -> None:
    lines = table(folder, "path,label", "images/1.png,cat", "images/2.png,dog")
    assert 'has no column "nowhere". It has "path", "label": choose' in sentence(
        lines, f"data.{column}", **{column: "nowhere"}
    )


@pytest.mark.parametrize("encoding", ["utf-16", "cp949"])
def test_another_encoding_is_named(folder: Path, encoding: str) -> None:
    chosen = table(folder, "path,label", "images/1.png,고양이", "images/2.png,개", encoding=encoding)
    assert "is not UTF-8 text. Save it as UTF-8" in sentence(chosen)


def test_a_text_file_with_another_ending_is_a_table_where_the_user_says_so(folder: Path) -> None:
    chosen = table(folder, "path label".replace(" ", "\t"), "images/1.png\tcat", "images/2.png\tdog", name="list.txt")
    assert "is neither a folder" in sentence(chosen)
    assert labels(source(chosen, layout="table")) == CATS_AND_DOGS


def test_a_long_table_tells_how_far_it_is_and_can_be_cancelled(folder: Path) -> None:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *(("images/1.png", "cat"),) * 2500, ("images/2.png", "dog")])
    data = DataConfig(path=str(folder / "labels.csv"))
    calls: list[tuple[str, int, int, str]] = []
    read_source(data, folder, lambda *call: calls.append(call), lambda: None)
    assert calls == [("Looking for the images of labels.csv", done, 2501, "rows") for done in (0, 1000, 2000)]

    def cancel() -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        read_source(data, folder, lambda *_: None, cancel)


def test_a_table_without_a_header_is_said_to_lack_both_columns(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        source(table(folder, "images/1.png,cat", "images/2.png,dog"))
    assert list(caught.value.sentences) == ["data.path_column", "data.label_column"]
    assert all('its first row has "images/1.png", "cat"' in text for text in caught.value.sentences.values())
    assert caught.value.choices == ["images/1.png", "cat"]
