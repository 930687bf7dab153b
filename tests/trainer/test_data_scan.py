"""Scanning a data set: its splits, its issues and its report, and where nothing can be trained on, why."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from app.cli import DEMO_CONFIG_PATH
from trainer.config import DataConfig, load_config
from trainer.data.scan import MAX_BURST, DataError, ScannedData, place_in, scan
from trainer.data_report import DataReport, IssueKind, ReportedIssue
from trainer.messages.data_info import TableColumns


class CancelledError(Exception):
    pass


def scanned(path: Path, seed: int = 7, **fields: object) -> ScannedData:
    data = DataConfig(path=str(path), **fields)
    return scan(data, seed, path.parent / "cache", lambda *_: None, lambda: None)


def issues_of(found: ScannedData) -> list[ReportedIssue]:
    report = DataReport(found.report_path)
    issues = list(report.issues())
    report.close()
    return issues


def picture(number: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Draw a scene of its own for each number: shapes that a perceptual hash tells apart."""
    generator = random.Random(number)
    image = Image.new("RGB", size, tuple(generator.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = generator.randrange(size[0]), generator.randrange(size[1])
        color = tuple(generator.randrange(256) for _ in range(3))
        draw.rectangle((x, y, x + generator.randrange(8, 50), y + generator.randrange(8, 40)), fill=color)
    return image


def save(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for class_idx, name in enumerate(("cat", "dog")):
        for number in range(10):
            save(root / name / f"{number}.png", 100 * class_idx + number)
    return root


def splits_by_name(found: ScannedData) -> dict[str, str]:
    return {
        Path(path).relative_to(found.root).as_posix(): split
        for (path, _), split in zip(found.samples, found.splits, strict=True)
    }


def test_a_clean_data_set_has_no_issues_and_a_report_of_every_image(pets: Path) -> None:
    found = scanned(pets)
    assert found.class_names == ["cat", "dog"]
    assert found.summary.counts == {"train": [8, 8], "validation": [2, 2]}
    assert found.summary.layout == "class_folders"
    assert found.summary.image_sides == [(96, 72)] * 3
    assert found.summary.advice == ["cat, dog: fewer than 10 train images."]
    assert issues_of(found) == []
    report = DataReport(found.report_path)
    assert [(image.path, image.split) for image in report.images()] == [
        (path, split) for (path, _), split in zip(found.samples, found.splits, strict=True)
    ]
    assert report.summary == found.summary
    report.close()


def test_the_split_follows_the_seed(pets: Path) -> None:
    assert scanned(pets).splits == scanned(pets).splits
    assert scanned(pets).splits != scanned(pets, seed=8).splits


def test_files_that_are_no_images_are_skipped_with_a_reason_and_stay_as_they_are(pets: Path) -> None:
    (pets / "cat" / "notes.jpg").write_text("text named as an image")
    (pets / "cat" / "empty.jpg").write_bytes(b"")
    whole = (pets / "cat" / "1.png").read_bytes()
    (pets / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pets / "readme.txt").write_text("about pets")
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in pets.rglob("*") if path.is_file()}
    found = scanned(pets)
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    assert found.summary.num_skipped == 4
    reasons = {Path(shown).name: reason for shown, reason in found.skipped}
    assert reasons["notes.jpg"] == "it is not an image that can be read here"
    assert reasons["empty.jpg"] == "it is empty (0 bytes)"
    assert "damaged or incomplete" in reasons["cut.png"]
    assert reasons["readme.txt"] == "it is in no class subfolder"
    assert {issue.kind for issue in issues_of(found)} == {IssueKind.UNREADABLE, IssueKind.SKIPPED}
    assert all(issue.sentence.startswith("Not used: ") for issue in issues_of(found))


def test_a_file_that_is_something_else_is_told_from_a_damaged_picture(pets: Path) -> None:
    for name, content in (
        ("notes.txt", b"a cat"),
        ("empty.txt", b""),
        ("Makefile", b"all:"),
        ("renamed.jpg", b"a cat"),
        ("empty.png", b""),
        ("cut.txt", (pets / "cat" / "1.png").read_bytes()[:200]),
    ):
        (pets / "cat" / name).write_bytes(content)
    found = scanned(pets)
    assert found.summary.issue_counts == {"not_an_image": 3, "unreadable": 3}
    assert {Path(issue.shown).name: issue.kind.value for issue in issues_of(found)} == {
        "notes.txt": "not_an_image",
        "empty.txt": "not_an_image",
        "Makefile": "not_an_image",
        "renamed.jpg": "unreadable",
        "empty.png": "unreadable",
        "cut.txt": "unreadable",
    }
    assert found.summary.num_skipped == 6


@pytest.mark.parametrize("seed", range(5))
def test_copies_and_bursts_never_straddle_the_splits(pets: Path, seed: int) -> None:
    (pets / "dog" / "copy.png").write_bytes((pets / "dog" / "3.png").read_bytes())
    for quality in (60, 90):
        picture(4).save(pets / "cat" / f"burst_{quality}.jpg", quality=quality)
    found = scanned(pets, seed=seed, validation_fraction=0.4)
    splits = splits_by_name(found)
    assert splits["dog/copy.png"] == splits["dog/3.png"]
    assert splits["cat/burst_60.jpg"] == splits["cat/burst_90.jpg"] == splits["cat/4.png"]
    assert found.summary.issue_counts == {"duplicate": 1, "near_duplicate": 2}


def test_pictures_that_are_all_alike_are_still_split(tmp_path: Path) -> None:
    for name, number in (("good", 1), ("bad", 2)):
        for shift in range(MAX_BURST + 5):
            image = picture(number)
            image.putpixel((shift, 0), (shift, shift, shift))
            (tmp_path / "parts" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "parts" / name / f"{shift}.png")
    found = scanned(tmp_path / "parts")
    assert found.summary.counts == {"train": [20, 20], "validation": [5, 5]}
    # That is how these data are, and no leak that their author could mend.
    assert set(found.summary.issue_counts) == {"near_duplicate"}


def test_a_picture_in_two_given_splits_is_a_leak(pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for split_idx, split in enumerate(("train", "val")):
        for class_idx, name in enumerate(("cat", "dog")):
            for number in range(4):
                save(root / split / name / f"{number}.png", 1000 * split_idx + 100 * class_idx + number)
    copied = root / "val" / "cat" / "again.png"
    copied.write_bytes((root / "train" / "cat" / "2.png").read_bytes())
    found = scanned(root)
    assert found.summary.counts == {"train": [4, 4], "validation": [5, 4]}
    (issue,) = [issue for issue in issues_of(found) if issue.kind is IssueKind.LEAK]
    assert issue.sentence == "In train and in validation: the same file."
    assert {Path(issue.shown).name, Path(issue.other_shown).name} == {"again.png", "2.png"}
    assert found.summary.advice[0].startswith("1 picture or group is in two splits:")


def test_the_same_file_in_two_classes_is_a_conflict(pets: Path) -> None:
    (pets / "dog" / "cat.png").write_bytes((pets / "cat" / "0.png").read_bytes())
    found = scanned(pets)
    (issue,) = issues_of(found)
    assert issue.kind is IssueKind.CONFLICT
    assert issue.sentence == "In cat and in dog: the same file."


def test_a_class_of_which_nothing_can_be_read_is_left_out_and_named(pets: Path) -> None:
    (pets / "axolotl").mkdir()
    (pets / "axolotl" / "0.png").write_text("not an image")
    found = scanned(pets)
    assert found.class_names == ["cat", "dog"]
    assert sorted({class_idxs for _, class_idxs in found.samples}) == [(0,), (1,)]
    assert "axolotl: no readable image, so the run does without." in found.summary.advice


OTHER_FORMATS = ("AVIF", "HEIC", "ICO", "TGA")


def test_images_in_a_format_that_is_not_read_say_what_to_do(pets: Path, tmp_path: Path) -> None:
    icon = picture(1, (64, 64))
    for number, name in enumerate(OTHER_FORMATS):
        path = pets / "cat" / f"photo_{number}.{name.lower()}"
        if name in {"ICO", "TGA"}:
            icon.save(path)
        else:
            path.write_bytes(b"\0\0\0\x1cftyp" + name.lower().encode() + bytes(40))
    (pets / "dog" / "more.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (pets / "dog" / "empty.heic").touch()
    found = scanned(pets)
    said = {Path(issue.shown).name: issue.sentence for issue in issues_of(found)}
    kinds = {Path(issue.shown).name: issue.kind for issue in issues_of(found)}
    assert kinds.pop("more.zip") is IssueKind.NOT_AN_IMAGE
    assert set(kinds.values()) == {IssueKind.UNREADABLE}
    assert said == {
        **{
            f"photo_{number}.{name.lower()}": f"Not used: the format {name} is not read here: convert it to JPEG or "
            "PNG."
            for number, name in enumerate(OTHER_FORMATS)
        },
        "more.zip": "Not used: it is an archive, and stays packed: unpack it first.",
        "empty.heic": "Not used: it is empty (0 bytes).",
    }
    (tmp_path / "phone").mkdir()
    for number in range(2):
        for name in ("cat", "dog"):
            (tmp_path / "phone" / f"{name}_{number}.heic").write_bytes(b"\0\0\0\x1cftypheic" + bytes(40))
    with pytest.raises(
        DataError, match=r"no readable image \(.*cat_0\.heic: the format HEIC is not read here: convert"
    ):
        scanned(tmp_path / "phone")


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not hold for root, as tests in a container often are: the refusal is made here.
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("is_real", [True, False])
def test_a_locked_class_folder_is_an_issue_and_the_rest_is_used(
    pets: Path, monkeypatch: pytest.MonkeyPatch, is_real: bool
) -> None:
    for number in range(10):
        save(pets / "fox" / f"{number}.png", 200 + number)
    (pets / "a.txt").write_text("a stray")
    if is_real:
        (pets / "fox").chmod(0)
        if os.access(pets / "fox", os.R_OK):
            pytest.skip("this user may open every folder")
    else:
        refuse(pets / "fox", monkeypatch)
    found = scanned(pets)
    assert found.class_names == ["cat", "dog"]
    assert "fox: no readable image, so the run does without." in found.summary.advice
    (locked,) = (issue for issue in issues_of(found) if issue.shown == str(pets / "fox"))
    assert locked.kind is IssueKind.SKIPPED
    assert locked.sentence == "Not used: it is a folder that cannot be read (Permission denied)."
    for image in (pets / "dog").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r'"cat" \(.*fox: it is a folder that cannot be read \(Permission denied\)\)'):
        scanned(pets)
    (pets / "fox").chmod(0o755)


def test_a_class_that_is_named_like_a_split_is_advised_about_unless_the_layout_was_chosen(pets: Path) -> None:
    save(pets / "validation_set" / "1.png", 300)
    (first, *others) = scanned(pets).summary.advice
    assert first == (
        "The class validation_set is named like a split: if that is meant, put a train folder beside a validation "
        "folder, each with one subfolder for each class."
    )
    assert scanned(pets, layout="class_folders").summary.advice == others
    save(pets / "test" / "1.png", 301)
    assert scanned(pets).summary.advice[0].startswith("The classes test, validation_set are named like a split: ")


def test_data_sets_side_by_side_are_advised_about_and_subfolders_of_a_class_with_images_are_not(
    pets: Path, tmp_path: Path
) -> None:
    save(pets / "cat" / "wild" / "1.png", 300)
    save(pets / "cat" / "tame" / "1.png", 301)
    for number in range(4):
        save(pets / "fox" / "photos" / f"{number}.png", 310 + number)
    assert "subfolders" not in " ".join(scanned(pets).summary.advice)
    for number, name in enumerate(("flowers/rose", "flowers/tulip", "birds/gull", "birds/tern")):
        save(tmp_path / "several" / name / "1.png", 320 + 2 * number)
        save(tmp_path / "several" / name / "2.png", 321 + 2 * number)
    (tmp_path / "several" / "birds" / "about.txt").write_text("no image")
    assert scanned(tmp_path / "several").summary.advice[0] == (
        "birds, flowers: all images are in subfolders (gull, tern, rose, tulip). If these are the classes, choose one "
        "of those folders as the data."
    )
    for split in ("train", "val"):
        shutil.copytree(pets / "dog", tmp_path / "split" / split / "dog")
        shutil.copytree(tmp_path / "several" / "birds", tmp_path / "split" / split / "birds")
    (about_birds,) = [text for text in scanned(tmp_path / "split").summary.advice if "subfolders" in text]
    assert about_birds.startswith("birds: all images are in subfolders (gull, tern). ")
    assert about_birds.endswith(" choose that folder as the data.")


def test_splits_within_classes_are_kept_and_advised_about_where_another_class_has_none(
    pets: Path, tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        for number in range(10):
            image = pets / name / f"{number}.png"
            split = "train" if number < 7 else "val"
            (tmp_path / "sorted" / name / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, tmp_path / "sorted" / name / split)
    found = scanned(tmp_path / "sorted")
    assert found.summary.layout == "splits_in_classes"
    assert found.summary.counts == {"train": [7, 7], "validation": [3, 3]}
    assert {Path(path).parent.name for (path, _), split in zip(found.samples, found.splits, strict=True)
            if split == "validation"} == {"val"}  # fmt: skip
    assert not any("subfolders" in sentence for sentence in found.summary.advice)
    shutil.copytree(pets / "dog", tmp_path / "sorted" / "fox")
    assert scanned(tmp_path / "sorted").summary.advice[0] == (
        'cat, dog: all images are in subfolders (train, val). If these are splits, choose the layout "splits in '
        'classes".'
    )


def test_a_class_with_a_single_image_trains_and_is_named(pets: Path) -> None:
    save(pets / "emu" / "0.png", 900)
    found = scanned(pets)
    assert found.summary.counts == {"train": [8, 8, 1], "validation": [2, 2, 0]}
    assert any(sentence.startswith("emu: no validation images") for sentence in found.summary.advice)
    assert "cat has 8 times the train images of emu: consider balancing the classes." in found.summary.advice


def test_a_class_that_is_only_in_validation_is_named(tmp_path: Path) -> None:
    for split, names in (("train", ("cat", "dog")), ("val", ("cat", "dog", "emu"))):
        for class_idx, name in enumerate(names):
            for number in range(3):
                save(tmp_path / "zoo" / split / name / f"{number}.png", len(split) * 1000 + class_idx * 100 + number)
    found = scanned(tmp_path / "zoo")
    assert found.summary.counts == {"train": [3, 3, 0], "validation": [3, 3, 3]}
    assert "emu: no train images, so nothing can be learned about it." in found.summary.advice


def test_groups_of_a_table_stay_together(pets: Path) -> None:
    rows = ["path,label,patient"]
    rows += [f"{name}/{number}.png,{name},{name}-{number // 2}" for name in ("cat", "dog") for number in range(10)]
    (pets / "pets.csv").write_text("\n".join(rows))
    found = scanned(pets / "pets.csv", group_column="patient")
    taken = {"path_column": "path", "label_column": "label", "group_column": "patient"}
    assert found.summary.columns == TableColumns(names=["path", "label", "patient"], taken=taken)
    splits = splits_by_name(found)
    assert set(splits.values()) == {"train", "validation"}
    for name in ("cat", "dog"):
        for number in range(0, 10, 2):
            assert splits[f"{name}/{number}.png"] == splits[f"{name}/{number + 1}.png"]


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("nothing", "no readable image"),
        ("one class", 'only one class with readable images, "cat"'),
    ],
)
def test_where_nothing_is_left_to_train_on_a_sentence_says_why(pets: Path, keep: str, words: str) -> None:
    for path in pets.rglob("*.png"):
        if keep == "nothing" or path.parent.name == "dog":
            path.write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        scanned(pets)
    sentence = str(caught.value)
    assert words in sentence
    assert "0.png: it is not an image that can be read here" in sentence
    assert sentence.endswith(".")
    assert caught.value.field == "data.path"


def test_one_image_a_class_cannot_be_validated(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        save(tmp_path / "two" / name / "0.png", number)
    with pytest.raises(DataError, match="No image could be set aside for validation"):
        scanned(tmp_path / "two")


def test_odd_images_are_trained_on(pets: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(pets / "cat" / "dot.png")
    Image.new("CMYK", (40, 40)).save(pets / "cat" / "print.jpg")
    Image.new("I;16", (40, 40)).save(pets / "dog" / "deep.png")
    frames = [picture(number) for number in (700, 701)]
    frames[0].save(pets / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    found = scanned(pets)
    assert len(found.samples) == 24
    assert found.summary.num_skipped == 0
    assert found.summary.image_sides[0] == (1, 1)


def test_images_of_a_few_pixels_are_used_and_are_issues(pets: Path) -> None:
    for side in (1, 7, 8):
        Image.new("RGB", (side, 2 * side), (30 * side, 0, 0)).save(pets / "cat" / f"side_{side}.png")
    found = scanned(pets)
    assert len(found.samples) == 23
    assert found.summary.issue_counts == {"tiny": 2}
    assert [(issue.kind, Path(issue.path).name, issue.sentence) for issue in issues_of(found)] == [
        (IssueKind.TINY, "side_1.png", "Only 1 × 2 pixels, but used."),
        (IssueKind.TINY, "side_7.png", "Only 7 × 14 pixels, but used."),
    ]


def test_progress_is_told_and_cancelling_ends_the_scan(pets: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    data, cache = DataConfig(path=str(pets)), pets.parent / "cache"
    scan(data, 7, cache, lambda *call: told.append(call), lambda: None)
    assert told[-1] == ("Checking images", 20, 20, "images")

    def cancel() -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        scan(data, 7, cache, lambda *_: None, cancel)


def test_the_demo_data_are_clean_and_split_as_the_readme_was_measured(tmp_path: Path) -> None:
    config = load_config(DEMO_CONFIG_PATH)
    found = scan(config.data, config.training.seed, tmp_path, lambda *_: None, lambda: None)
    assert found.summary.issue_counts == {}
    assert found.summary.advice == []
    assert (found.splits.count("train"), found.splits.count("validation")) == (359, 1438)
    of_train = sorted(
        Path(path).name for (path, _), split in zip(found.samples, found.splits, strict=True) if split == "train"
    )
    assert hashlib.sha256("\n".join(of_train).encode()).hexdigest()[:16] == "886d59966f3240ac"


def test_a_sliver_is_no_picture(pets: Path) -> None:
    Image.new("RGB", (2, 400)).save(pets / "cat" / "sliver.png")
    found = scanned(pets)
    ((shown, reason),) = found.skipped
    assert Path(shown).name == "sliver.png"
    assert reason == "its sides are 2 × 400 pixels, more than 50 to 1"


def test_a_group_that_the_given_splits_tear_apart_is_a_leak(pets: Path) -> None:
    rows = ["path,label,split,patient"]
    rows += [
        f"{name}/{number}.png,{name},{'validation' if number > 6 else 'train'},{name}-{number // 2}"
        for name in ("cat", "dog")
        for number in range(10)
    ]
    (pets / "pets.csv").write_text("\n".join(rows))
    found = scanned(pets / "pets.csv", group_column="patient")
    assert [issue.sentence for issue in issues_of(found)] == [
        f"In train and in validation: its group {name}-3." for name in ("cat", "dog")
    ]


def test_copies_are_no_likelier_than_others_to_validate(tmp_path: Path) -> None:
    for class_idx, name in enumerate(("cat", "dog")):
        for number in range(30):
            save(tmp_path / "pets" / name / f"{number}.png", 100 * class_idx + number)
        for number in range(10):
            image = tmp_path / "pets" / name / f"{number}.png"
            (image.parent / f"copy_{number}.png").write_bytes(image.read_bytes())
    found = scanned(tmp_path / "pets")
    validated = [name for name, split in splits_by_name(found).items() if split == "validation"]
    assert len(validated) == 16
    assert 0 < len([name for name in validated if "copy" in name]) < 8


def test_a_kept_split_is_kept_and_other_data_are_refused(pets: Path) -> None:
    data, cache = DataConfig(path=str(pets)), pets.parent / "cache"
    kept = {name: split for name, split in splits_by_name(scanned(pets)).items() if name != "dog/3.png"}
    again = scan(data, 99, cache, lambda *_: None, lambda: None, kept)
    assert splits_by_name(again) == {**kept, "dog/3.png": "train"}
    with pytest.raises(DataError, match="None of the images that the run began with"):
        scan(data, 99, cache, lambda *_: None, lambda: None, {"other/1.png": "validation"})


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("data/cats/1.png", "cats/1.png"),
        ("data/1.png", "1.png"),
        ("data2/1.png", "<here>/data2/1.png"),
        ("data/../other/1.png", "../other/1.png"),
        ("elsewhere/1.png", "<here>/elsewhere/1.png"),
    ],
)
def test_an_image_is_known_by_its_path_within_its_data_and_one_elsewhere_by_its_whole_path(
    tmp_path: Path, path: str, place: str
) -> None:
    found = place_in(tmp_path / "data", str(tmp_path / path))
    assert found == place.replace("<here>", tmp_path.as_posix())
