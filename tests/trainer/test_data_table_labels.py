"""Several classes of an image in a table: cells with separators, columns of 0 and 1, and what is wrong with either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.config import DataConfig
from trainer.data.images import DataError
from trainer.data.sources import Source, read_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with 1.png to 6.png; nothing opens them."""
    for number in range(1, 7):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    return tmp_path


def source(folder: Path, *lines: str, **config: Any) -> Source:
    path = folder / "labels.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_source(DataConfig(path=str(path), **config), folder / "cache", lambda *_: None, lambda: None)


def labels(of: Source) -> dict[str, list[str]]:
    return {Path(file.path).stem: [of.class_names[idx] for idx in file.class_idxs] for file in of.files}


def sentence(folder: Path, field: str, *lines: str, **config: Any) -> str:
    with pytest.raises(DataError) as caught:
        source(folder, *lines, **config)
    assert caught.value.field == field
    text = str(caught.value)
    assert text.startswith(str(folder)) or str(folder) in text
    assert text.endswith(".")
    assert "\n" not in text
    return text


# -- one cell -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "|", " ; ", " | "])
def test_semicolons_and_bars_separate_the_classes_of_an_image(folder: Path, separator: str) -> None:
    lines = ["path,label", f"1.png,{separator.join(('sky', 'sea', 'New York'))}", "2.png,sea", "3.png,"]
    read = source(folder, *lines)
    assert read.class_names == ["New York", "sea", "sky"]
    assert labels(read) == {"1": ["New York", "sea", "sky"], "2": ["sea"], "3": []}
    assert read.skipped == []
    assert read.columns is not None
    assert read.columns.taken["label_separator"] == separator.strip()


def test_the_findings_of_chest_x_rays_are_read_as_they_are_published(folder: Path) -> None:
    """Wang et al. 2017, ChestX-ray14: "Image Index" and "Finding Labels", with bars."""
    lines = ["Image Index,Finding Labels,Follow-up #", "1.png,Cardiomegaly|Emphysema,1", "2.png,No Finding,0"]
    assert labels(source(folder, *lines)) == {"1": ["Cardiomegaly", "Emphysema"], "2": ["No Finding"]}


def test_spaces_separate_classes_where_the_user_says_so(folder: Path) -> None:
    """The Planet contest's "tags": "clear primary water"."""
    lines = ["image_name,tags", "1.png,clear primary water", "2.png,haze primary"]
    assert labels(source(folder, *lines, label_separator="space"))["1"] == ["clear", "primary", "water"]
    assert labels(source(folder, *lines))["1"] == ["clear primary water"]


def test_commas_separate_classes_where_the_user_says_so(folder: Path) -> None:
    lines = ["path,label", '1.png,"tench, Tinca tinca"', "2.png,hen"]
    assert labels(source(folder, *lines, label_separator=","))["1"] == ["tench", "Tinca tinca"]
    assert labels(source(folder, *lines))["1"] == ["tench, Tinca tinca"]


def test_a_class_that_stands_twice_in_a_cell_counts_once(folder: Path) -> None:
    assert labels(source(folder, "path,label", "1.png,sea;sky;sea", "2.png,sky;"))["1"] == ["sea", "sky"]


def test_without_a_separator_an_empty_cell_is_no_image_of_no_class(folder: Path) -> None:
    lines = ["path,label", "1.png,sea", "2.png,sky", "3.png,"]
    read = source(folder, *lines)
    assert [reason for _, reason in read.skipped] == ['row 4 gives no class to "3.png"']
    assert labels(source(folder, *lines, label_separator=";"))["3"] == []


def test_a_cell_of_separators_alone_is_skipped_with_its_row(folder: Path) -> None:
    read = source(folder, "path,label", "1.png,sea;sky", "2.png,; ;", "3.png,sky")
    assert set(labels(read)) == {"1", "3"}
    assert [reason for _, reason in read.skipped] == ['row 3 has only separators where its classes should be ("; ;")']


def test_two_possible_separators_are_asked_about(folder: Path) -> None:
    lines = ["path,label", "1.png,sea;sky", "2.png,sea|night"]
    assert sentence(folder, "data.label_separator", *lines) == (
        f'Either ";" or "|" may separate the classes in {folder}/labels.csv ("sea;sky", "sea|night"). Choose which of '
        "them does, or none."
    )
    assert labels(source(folder, *lines, label_separator="|"))["1"] == ["sea;sky"]


def test_one_class_or_none_is_refused(folder: Path) -> None:
    assert 'has only one class, "sea". Add rows of at least one more' in sentence(
        folder, "data.label_column", "path,label", "1.png,sea;sea", "2.png,"
    )
    assert "gives no image a class. Add rows of at least two" in sentence(
        folder, "data.label_column", "path,label", "1.png,", "2.png,", label_separator=";", label_column="label"
    )


def test_an_image_with_two_different_sets_of_classes_is_skipped_and_the_order_is_no_difference(folder: Path) -> None:
    lines = ["path,label", "1.png,sea;sky", "1.png,sky;sea", "2.png,sea;sky", "2.png,sea", "3.png,sky"]
    read = source(folder, *lines)
    assert labels(read) == {"1": ["sea", "sky"], "3": ["sky"]}
    assert [reason for _, reason in read.skipped] == ['rows 4 and 5 give it different classes, "sea; sky" and "sea"']


# -- a column for each class ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False")])
def test_columns_of_0_and_1_are_classes(folder: Path, yes: str, no: str) -> None:
    lines = [",image,split,sky,sea,person", f"0,1.png,train,{yes},{yes},{no}", f"1,2.png,train,{no},{no},{no}"]
    read = source(folder, *lines)
    assert read.class_names == ["person", "sea", "sky"]
    assert labels(read) == {"1": ["sea", "sky"], "2": []}
    assert read.columns is not None
    assert read.columns.taken["label_column"] == "sky, sea, person"


def test_the_user_may_name_the_columns_of_classes(folder: Path) -> None:
    lines = ["image,fold,sky,sea", "1.png,0,1,1", "2.png,1,0,1", "3.png,2,1,0", "4.png,3,2,0"]
    read = source(folder, *lines, label_column="Sky, sea")
    assert labels(read) == {"1": ["sea", "sky"], "2": ["sea"], "3": ["sky"]}
    assert [reason for _, reason in read.skipped] == ['row 5 has "2" in the column "sky", which should be 0 or 1']


def test_a_column_that_only_looks_like_a_class_is_asked_about(folder: Path) -> None:
    lines = ["image,fold,sky,sea", "1.png,0,1,1", "2.png,1,0,1", "3.png,2,1,0"]
    text = sentence(folder, "data.label_column", *lines)
    assert 'row 4 has "2" in the column "fold", which should be 0 or 1' in text
    assert 'Choose which of them are classes, with commas between them: "fold, sky, sea"' in text


def test_a_single_column_of_0_and_1_is_no_class_by_itself(folder: Path) -> None:
    lines = ["image,malignant", "1.png,0", "2.png,1"]
    assert "has no column of classes" in sentence(folder, "data.label_column", *lines)
    assert labels(source(folder, *lines, label_column="malignant")) == {"1": ["0"], "2": ["1"]}


def test_two_columns_of_one_name_are_refused(folder: Path) -> None:
    assert 'two columns named "sky"' in sentence(folder, "data.label_column", "image,sky,sky", "1.png,0,1")


def test_a_missing_column_among_several_is_named_with_those_that_there_are(folder: Path) -> None:
    with pytest.raises(DataError, match='no column "sun"') as caught:
        source(folder, "image,sky,sea", "1.png,0,1", label_column="sky, sun")
    assert caught.value.choices == ["image", "sky", "sea"]
