"""Images of several classes, or none: what a scan counts, splits and warns of, its report, and a run's batches."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.test_data_scan import save
from trainer.config import ConfigError, DataConfig, RunConfig, TrainingConfig
from trainer.data.images import DataError
from trainer.data.kept_split import read_split, write_split
from trainer.data.loader import ImageData
from trainer.data.preview import write_views
from trainer.data.scan import ScannedData, scan
from trainer.data.transforms import Preprocessing
from trainer.data_report import DataReport, ImageChoice, IssueKind, Measure

LABELS = ("sky;sea", "sea", "sky", "", "sky;sea;person", "sea;person", "", "sky", "sea;sky", "person")


def table(root: Path, *rows: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    return root / "labels.csv"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a table of twenty pictures, two of each of LABELS."""
    rows = ["path,label"]
    for number in range(20):
        save(tmp_path / "photos" / f"{number}.png", number)
        rows.append(f"{number}.png,{LABELS[number % len(LABELS)]}")
    return table(tmp_path / "photos", *rows)


def scanned(path: Path, **data: Any) -> ScannedData:
    config = DataConfig(path=str(path), **data)
    return scan(config, 7, path.parent.parent / "cache", lambda *_: None, lambda: None)


def names(found: ScannedData) -> dict[str, set[str]]:
    return {Path(path).stem: {found.class_names[idx] for idx in class_idxs} for path, class_idxs in found.samples}


def test_each_class_of_an_image_is_counted_and_each_image_once(photos: Path) -> None:
    found = scanned(photos)
    assert found.class_names == ["person", "sea", "sky"]
    assert names(found) == {str(number): set(LABELS[number % 10].split(";")) - {""} for number in range(20)}
    summary = found.summary
    assert summary.is_multi_label
    assert {name: summary.class_counts[name] for name in found.class_names} == {"person": 6, "sea": 10, "sky": 10}
    assert sum(summary.num_images.values()) == 20
    assert summary.num_images == dict(Counter(found.splits))
    assert all(min(counts) > 0 for counts in summary.counts.values()), "each class is in both splits"
    assert "4 images have no class: the run learns that none of the classes is to be seen there." in summary.advice


def test_a_class_that_only_validation_has_is_named(photos: Path) -> None:
    lines = photos.read_text().splitlines()
    rows = [f"{lines[0]},split"]
    rows += [
        f"{line}{';moon' * (number < 4)},{'val' if number < 6 else 'train'}" for number, line in enumerate(lines[1:])
    ]
    found = scanned(table(photos.parent, *rows))
    assert "moon: no train images, so nothing can be learned about it." in found.summary.advice
    assert found.summary.num_images == {"train": 14, "validation": 6}


def test_a_class_of_the_header_that_no_image_has_is_left_out_and_named(photos: Path) -> None:
    found = scanned(table(photos.parent, "path,sun,sky,sea", *(f"{n}.png,0,{n % 2},{n % 3 % 2}" for n in range(20))))
    assert found.class_names == ["sea", "sky"]
    assert "sun: no readable image, so the run does without." in found.summary.advice


def test_columns_with_one_class_for_each_image_are_no_several_labels(photos: Path) -> None:
    found = scanned(table(photos.parent, "path,sky,sea", *(f"{n}.png,{n % 2},{1 - n % 2}" for n in range(20))))
    assert not found.summary.is_multi_label
    assert set(names(found)["1"]) == {"sky"}


def test_the_same_picture_with_other_labels_is_a_conflict(photos: Path) -> None:
    (photos.parent / "copy.png").write_bytes((photos.parent / "0.png").read_bytes())
    (photos.parent / "same.png").write_bytes((photos.parent / "1.png").read_bytes())
    found = scanned(table(photos.parent, photos.read_text(), "copy.png,sky", "same.png,sea"))
    with closing(DataReport(found.report_path)) as report:
        issues = {issue.shown.rsplit("/", 1)[1]: issue for issue in report.issues()}
    assert issues["copy.png"].kind is IssueKind.CONFLICT
    assert issues["copy.png"].sentence == "In sea + sky and in sky: the same file."
    assert issues["same.png"].kind is IssueKind.DUPLICATE
    assert "1 file is there twice, with different classes: one of the two is wrong." in found.summary.advice


def test_classes_that_differ_by_case_or_spaces_only_are_pointed_out_with_their_counts(tmp_path: Path) -> None:
    labels = ["Sky"] * 12 + ["sky"] * 3 + ["open sea"] * 5 + ["Open  sea"] * 4 + ["skies"] * 4
    for number in range(len(labels)):
        save(tmp_path / "views" / f"{number}.png", number)
    path = table(tmp_path / "views", "path,label", *(f"{number}.png,{label}" for number, label in enumerate(labels)))
    said = (
        '"Open sea" (4 images) and "open sea" (5 images); "Sky" (12 images) and "sky" (3 images) differ by case or '
        "spaces only. If they are one class, give it one name in the data."
    )
    assert said in scanned(path).summary.advice
    path.write_text(path.read_text().replace("Sky", "sky").replace("Open  sea", "open sea"))
    assert not any("differ by case" in sentence for sentence in scanned(path).summary.advice)


def test_class_folders_that_differ_by_a_space_are_pointed_out(tmp_path: Path) -> None:
    for number, name in enumerate(("sky", "sky ", "sea") * 3):
        save(tmp_path / "views" / name / f"{number}.png", number)
    (sentence,) = [text for text in scanned(tmp_path / "views").summary.advice if "differ by case" in text]
    assert sentence.startswith('"sky" (3 images) and "sky " (3 images) differ by case or spaces only.')


def test_labels_that_look_like_several_put_together_are_pointed_out(tmp_path: Path) -> None:
    tags = [f"{weather} {ground}{more}" for weather in "ABC" for ground in "xyz" for more in ("", " primary")]
    for number in range(36):
        save(tmp_path / "planet" / f"{number}.png", number)
    path = table(tmp_path / "planet", "path,tags", *(f"{number}.png,{tags[number // 2]}" for number in range(36)))
    found = scanned(path)
    assert (
        'The 18 classes are 7 put together, as in "A x primary": if an image may have several, choose a space as what '
        "separates its classes, and the task multi_label."
    ) in found.summary.advice
    cut = scanned(path, label_separator="space")
    assert cut.class_names == ["A", "B", "C", "primary", "x", "y", "z"]
    assert not any("put together" in sentence for sentence in cut.summary.advice)


def test_the_report_gives_an_image_under_each_of_its_classes(photos: Path) -> None:
    found = scanned(photos)
    with closing(DataReport(found.report_path)) as report:
        assert report.summary == found.summary
        for class_idx in range(3):
            listed = report.images(ImageChoice(class_idx))
            assert [image.path for image in listed] == [path for path, idxs in found.samples if class_idx in idxs]
            assert [image.path for image in report.images(ImageChoice(class_idx), offset=2, limit=3)] == [
                image.path for image in listed[2:5]
            ]
            for bins in report.bins(class_idx).values():
                assert sum(each.num_images for each in bins) == len(listed)
            (fullest, *_) = sorted(report.bins(class_idx)[Measure.SIZE], key=lambda each: -each.num_images)
            assert len(report.images(ImageChoice(class_idx, fullest))) == fullest.num_images
        assert [image.class_idxs for image in report.images()] == [class_idxs for _, class_idxs in found.samples]
        samples = [sample for of_split in report.samples().values() for sample in of_split]
        assert sorted(samples) == sorted(found.samples)


def test_a_report_of_thaw_0_1_is_still_read(photos: Path) -> None:
    found = scanned(table(photos.parent, "path,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(20))))
    with closing(sqlite3.connect(found.report_path)) as database, database:
        database.execute("ALTER TABLE images ADD COLUMN class_idx INTEGER")
        database.execute("UPDATE images SET class_idx = (SELECT class_idx FROM image_classes WHERE image_id = id)")
        database.execute("DROP TABLE image_classes")
        database.execute("CREATE INDEX images_by_class ON images (class_idx, id)")
        database.execute("PRAGMA user_version = 1")
    with closing(DataReport(found.report_path)) as report:
        assert [(image.path, image.class_idxs) for image in report.images()] == found.samples
        assert {image.class_idxs for image in report.images(ImageChoice(1))} == {(1,)}


def data_of(found: ScannedData, num_workers: int = 0, **fields: Any) -> ImageData:
    return ImageData(
        DataConfig(path=str(found.root), augmentation="light", task="multi_label", **fields),
        TrainingConfig(batch_size=6, num_loader_workers=num_workers, seed=3),
        Preprocessing(16, 20),
        found,
    )


def test_targets_are_1_for_each_class_of_an_image_and_0_for_the_others(photos: Path) -> None:
    found = scanned(photos)
    data = data_of(found)
    batches = list(data.validation_batches())
    listed = zip(found.samples, found.splits, strict=True)
    expected = [[float(idx in idxs) for idx in range(3)] for (_, idxs), split in listed if split == "validation"]
    assert torch.cat([y for _, y in batches]).tolist() == expected
    assert batches[0][1].dtype == torch.float32
    assert data.class_counts == found.summary.counts["train"]
    data.close()


@pytest.mark.slow
def test_images_and_targets_are_the_same_with_loader_processes(photos: Path) -> None:
    found = scanned(photos)
    seen = []
    for num_workers in (0, 2):
        data = data_of(found, num_workers)
        seen.append([(x.sum().item(), y.tolist()) for x, y in data.train_batches(1)])
        data.close()
    assert seen[0] == seen[1]


def test_other_labels_are_other_data(photos: Path) -> None:
    before = data_of(scanned(photos)).fingerprint
    photos.write_text(photos.read_text().replace("1.png,sea\n", "1.png,sea;sky\n", 1))
    assert data_of(scanned(photos)).fingerprint != before


def test_a_run_keeps_its_split_of_several_labels(photos: Path, tmp_path: Path) -> None:
    found = scanned(photos)
    write_split(tmp_path, found)
    assert read_split(tmp_path) == dict(zip((Path(path).name for path, _ in found.samples), found.splits, strict=True))
    rows = (tmp_path / "split.csv").read_text().splitlines()
    assert any(row.startswith("0.png,sea; sky,") for row in rows)


@pytest.mark.parametrize("task", ["multi_label", "multi_class"])
def test_the_views_name_all_classes_of_the_image_that_is_mixed_in(photos: Path, tmp_path: Path, task: str) -> None:
    found = scanned(photos)
    data = DataConfig(path=str(photos), mixing="mixup", task=task)  # type: ignore[arg-type]
    config = RunConfig(data=data, training=TrainingConfig(batch_size=6, epochs=4))
    listed = zip(found.samples, found.splits, strict=True)
    paths = [path for (path, _), split in listed if split == "train"]
    views = [
        view
        for path in paths
        for view in write_views(found.report_path, config, Preprocessing(16, 20), path, tmp_path / "views", 4)
    ]
    sets = {", ".join(sorted(set(label.split(";")) - {""})) for label in LABELS}
    shown = {view.mixed_with for view in views if view.mixed_share}
    assert {"", "sea, sky", "person, sea, sky"} <= shown <= sets
    drawn = config.model_copy(update={"data": data.model_copy(update={"balance": "sampler"})})
    with pytest.raises(ConfigError, match="several classes"):
        write_views(found.report_path, drawn, Preprocessing(16, 20), paths[0], tmp_path / "views", 4)


def test_one_class_alone_is_refused(photos: Path) -> None:
    lines = ["path,label", *(f"{number}.png,{'sea;sea' * (number % 2)}" for number in range(20))]
    with pytest.raises(DataError, match='has only one class, "sea"'):
        scanned(table(photos.parent, *lines))


def test_classes_in_validation_alone_leave_nothing_to_learn(tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for number in range(6):
        save(tmp_path / "photos" / f"{number}.png", number)
        rows.append(f"{number}.png,{'' if number < 3 else 'sea;sky'},{'train' if number < 3 else 'val'}")
    with pytest.raises(DataError, match="No train image has a class, so there is nothing to learn"):
        scanned(table(tmp_path / "photos", *rows))
