"""Scanning a data set before a run: its classes and splits, its images, and the files no run will read, and why."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainer.config import DataConfig
from trainer.data.archive import Progress
from trainer.data.doctor import advice, find_issues, folder_advice
from trainer.data.duplicates import Pair, find_pairs
from trainer.data.examination import FileFacts, examine
from trainer.data.images import NOT_AN_IMAGE, DataError
from trainer.data.listing import reason_against_format
from trainer.data.sources import Source, SourceFile, read_source
from trainer.data.split import assign_splits
from trainer.data_report import ReportedImage, ReportedIssue, write_report
from trainer.messages.data_info import SPLITS, DataSummary

__all__ = ["DataError", "Progress", "ScannedData", "scan"]

MAX_BURST = 20
"""Nearly the same pictures are kept in one split up to this many. More of them are no burst of one scene: then the
pictures of this data are alike by nature, and binding them would leave nothing to validate on."""

MAX_ASPECT = 50
"""Sides of an image beyond which it is no picture: 2 × 10,000 pixels, fitted by the short side, take 4 GB."""

REPORTS_KEPT_S = 180 * 24 * 3600.0
"""A report that nobody asked for in this time is deleted; a check writes it again."""

_OF_TABLES = ("path_column", "label_column", "label_separator", "split_column", "group_column")


@dataclass(frozen=True)
class ScannedData:
    """What a scan found. The order of classes and samples is natural ("2" before "10") on every file system.

    Attributes:
        root: The folder below which the images lie.
        class_names: Names of the classes that have a readable image.
        samples: (absolute path, class indexes) of every readable image.
        splits: "train", "validation" or "test" of each sample.
        sides: (width, height) of each sample as a person sees it, in pixels.
        sizes: The size of each sample's file, in bytes.
        hashes: SHA-256 of each sample's file, as it was when the file was last seen to be another one.
        skipped: (path, reason) of every file that is not used. They stay where they are, untouched.
        summary: The figures of the report.
        report_path: The file that holds every image and issue (``trainer.data_report``).

    """

    root: Path
    class_names: list[str]
    samples: list[tuple[str, tuple[int, ...]]]
    skipped: list[tuple[str, str]]
    splits: list[str]
    sides: list[tuple[int, int]]
    summary: DataSummary
    report_path: Path = Path()
    sizes: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)


def scan(
    data: DataConfig,
    seed: int,
    cache_dir: Path,
    on_progress: Progress,
    check_cancelled: Callable[[], None],
    kept_split: Mapping[str, str] | None = None,
) -> ScannedData:
    """Read every image of a data set, split it, look for what is wrong with it, and write its report.

    Args:
        data: Where the data are and how they are laid out and split.
        seed: The run's seed, which the split follows.
        cache_dir: Where archives are unpacked, what was found is remembered, and the report goes.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called several times a second; raises to end the scan.
        kept_split: The split that a run began with, by each image's ``place_in`` the data. An image that it does not
            know trains. None splits anew.

    Raises:
        DataError: There is nothing that can be trained on; says what to do.

    """
    source = read_source(data, cache_dir, on_progress, check_cancelled)
    facts = examine([file.path for file in source.files], cache_dir / "examined.db", on_progress, check_cancelled)
    reasons = [_reason_against(file.path, fact) for file, fact in zip(source.files, facts, strict=True)]
    unreadable = [(file, reason) for file, reason in zip(source.files, reasons, strict=True) if reason]
    used = [idx for idx, reason in enumerate(reasons) if not reason]
    files, facts = [source.files[idx] for idx in used], [facts[idx] for idx in used]
    class_names, files = _without_empty_classes(source, files, unreadable)
    check_cancelled()
    pairs = find_pairs(facts)
    splits = assign_splits(
        [file.class_idxs for file in files],
        [file.split for file in files] if kept_split is None else _kept(kept_split, source.root, files),
        _units(files, pairs),
        data.validation_fraction,
        seed,
    )
    _check_splits(splits)
    images = [
        ReportedImage(file.path, file.shown, file.class_idxs, split, fact.width, fact.height, fact.size_bytes)
        for file, split, fact in zip(files, splits, facts, strict=True)
    ]
    if not any(image.class_idxs for image in images if image.split == "train"):
        raise DataError("No train image has a class, so there is nothing to learn. Give the train images theirs.")
    groups, are_splits_given = [file.group for file in files], any(file.split for file in files)
    issues = find_issues(images, class_names, pairs, groups, are_splits_given, unreadable, source.skipped)
    skipped = [*source.skipped, *((file.shown, reason) for file, reason in unreadable)]
    summary = _summary(source, class_names, images, issues, len(skipped))
    about_folders = folder_advice(
        source.layout, source.root, class_names, files, is_layout_chosen=data.layout != "auto"
    )
    # What is no class spoils all the other figures.
    summary = summary.model_copy(update={"advice": [*about_folders, *summary.advice]})
    return ScannedData(
        root=source.root,
        class_names=class_names,
        samples=[(image.path, image.class_idxs) for image in images],
        skipped=skipped,
        splits=splits,
        sides=[(image.width, image.height) for image in images],
        sizes=[image.size_bytes for image in images],
        hashes=[fact.content_hash for fact in facts],
        summary=summary,
        report_path=_kept_report(cache_dir / "reports", summary, images, issues),
    )


def _summary(
    source: Source,
    class_names: list[str],
    images: Sequence[ReportedImage],
    issues: Sequence[ReportedIssue],
    num_skipped: int,
) -> DataSummary:
    summary = DataSummary(
        layout=source.layout,
        class_names=class_names,
        counts=_counts(images, len(class_names)),
        num_images=_num_images(images),
        is_multi_label=any(len(image.class_idxs) != 1 for image in images),
        num_skipped=num_skipped,
        issue_counts=dict(Counter(issue.kind.value for issue in issues)),
        image_sides=_sides(images),
        aspects=_aspects(images),
        num_bytes=sum(image.size_bytes for image in images),
        columns=source.columns,
    )
    left_out = [name for name in source.class_names if name not in set(class_names)]
    num_of_none = sum(not image.class_idxs for image in images)
    return summary.model_copy(update={"advice": advice(summary, left_out, num_of_none)})


def place_in(root: Path, path: str) -> str:
    """Return an image's path within a data set, the same on every system; a table's image elsewhere keeps its own.

    Both are normalized, as those of a Path are.
    """
    folder = f"{root}{os.sep}"
    if path.startswith(folder):
        # As below, which takes 15 s of a million images.
        return path.removeprefix(folder).replace(os.sep, "/")
    file = Path(path)
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()


def _kept(kept_split: Mapping[str, str], root: Path, files: Sequence[SourceFile]) -> list[str]:
    places = [place_in(root, file.path) for file in files]
    if not kept_split.keys() & set(places):
        raise DataError(
            "None of the images that the run began with is in its data any more. Put them back as they were, or begin "
            "a new run."
        )
    return [kept_split.get(place, "train") for place in places]


def _reason_against(path: str, fact: FileFacts) -> str:
    if fact.reason:
        return (fact.reason == NOT_AN_IMAGE and reason_against_format(Path(path))) or fact.reason
    long, short = max(fact.width, fact.height), min(fact.width, fact.height)
    if long <= MAX_ASPECT * short:
        return ""
    return f"its sides are {fact.width} × {fact.height} pixels, more than {MAX_ASPECT} to 1"


def _without_empty_classes(
    source: Source, files: list[SourceFile], unreadable: list[tuple[SourceFile, str]]
) -> tuple[list[str], list[SourceFile]]:
    """Leave out the classes of which nothing can be read, and number the others anew."""
    used = sorted({class_idx for file in files for class_idx in file.class_idxs})
    if 2 <= len(used) == len(source.class_names):
        return source.class_names, files
    class_names = [source.class_names[idx] for idx in used]
    if len(class_names) < 2:
        empty = [(file.shown, reason) for file, reason in unreadable if not set(used).issuperset(file.class_idxs)]
        first = next(iter((*empty, *source.skipped)), None)
        why = f" ({first[0]}: {first[1]})" if first else ""
        found = f'only one class with readable images, "{class_names[0]}"' if class_names else "no readable image"
        raise DataError(f"The data have {found}{why}. Add images of at least two classes.")
    new_idx = {old: new for new, old in enumerate(used)}
    return class_names, [replace(file, class_idxs=tuple(new_idx[idx] for idx in file.class_idxs)) for file in files]


def _units(files: Sequence[SourceFile], pairs: Sequence[Pair]) -> list[int]:
    """Give one number to what must not straddle two splits: a table's group, copies of a file, a burst of a scene."""
    by_group: dict[str, int] = {}
    same: list[tuple[int, int]] = [(pair.first_idx, pair.second_idx) for pair in pairs if pair.is_same_file]
    for idx, file in enumerate(files):
        if file.group:
            same.append((by_group.setdefault(file.group, idx), idx))
    near = [(pair.first_idx, pair.second_idx) for pair in pairs if not pair.is_same_file]
    bursts = _joined(len(files), near)
    sizes = Counter(bursts)
    return _joined(len(files), [*same, *((a, b) for a, b in near if sizes[bursts[a]] <= MAX_BURST)])


def _joined(size: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each position the lowest one that it is linked with, directly or not (union-find)."""
    parents = list(range(size))

    def root_of(idx: int) -> int:
        while parents[idx] != idx:
            parents[idx] = parents[parents[idx]]
            idx = parents[idx]
        return idx

    for first, second in links:
        low, high = sorted((root_of(first), root_of(second)))
        parents[high] = low
    return [root_of(idx) for idx in range(size)]


def _check_splits(splits: Sequence[str]) -> None:
    if "train" not in splits:
        raise DataError("Every image belongs to validation or test, so there is nothing to train on. Add train images.")
    if "validation" not in splits:
        raise DataError(
            "No image could be set aside for validation: every class has a single image, or a single group of alike "
            "ones. Add images to a class."
        )


def _counts(images: Sequence[ReportedImage], num_classes: int) -> dict[str, list[int]]:
    counted = Counter((image.split, class_idx) for image in images for class_idx in image.class_idxs)
    return {split: [counted[split, idx] for idx in range(num_classes)] for split in _num_images(images)}


def _num_images(images: Sequence[ReportedImage]) -> dict[str, int]:
    counted = Counter(image.split for image in images)
    return {split: counted[split] for split in SPLITS if counted[split]}


def _sides(images: Sequence[ReportedImage]) -> list[tuple[int, int]]:
    by_area = sorted(((image.width, image.height) for image in images), key=lambda side: side[0] * side[1])
    return [by_area[0], by_area[len(by_area) // 2], by_area[-1]]


def _aspects(images: Sequence[ReportedImage]) -> list[float]:
    aspects = sorted(image.width / image.height for image in images)
    return [round(aspects[idx], 2) for idx in (0, len(aspects) // 2, -1)]


def _kept_report(
    folder: Path, summary: DataSummary, images: Sequence[ReportedImage], issues: Sequence[ReportedIssue]
) -> Path:
    """Write a report under a name made of what it says, so that none that a run refers to is ever written over."""
    says = json.dumps([summary.model_dump_json(), images, issues])
    path = folder / f"{hashlib.blake2b(says.encode(), digest_size=16).hexdigest()}.db"
    if path.exists():
        os.utime(path)
        return path
    write_report(path, summary, images, issues)
    for old in folder.glob("*.db"):
        if time.time() - old.stat().st_mtime > REPORTS_KEPT_S:
            old.unlink(missing_ok=True)
    return path


def scan_key(data: DataConfig, seed: int) -> str:
    """Name what decides which images there are and how they are split; what only training looks at does not."""
    said = data.model_dump_json(include={"path", "layout", "validation_fraction", *_OF_TABLES})
    return hashlib.sha256(f"{said} {seed}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
