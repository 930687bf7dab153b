"""What is wrong with a data set, file by file, and what its user should look at before the first step."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from trainer.data.duplicates import Pair
from trainer.data.file_facts import EMPTY
from trainer.data.images import NOT_AN_IMAGE, displayed
from trainer.data.layouts import split_of
from trainer.data.listing import IMAGE_SUFFIXES, PACKED
from trainer.data.sources import SourceFile
from trainer.data_report import IssueKind, ReportedImage, ReportedIssue
from trainer.messages.data_info import DataSummary

FEW_IMAGES = 10
"""Training images below which a class is named: fewer teach a new head little."""
IMBALANCE = 3.0
"""From this many times the images of the smallest class on, balancing is offered."""
MIN_SIDE = 8
"""Pixels of the short side below which an image is named: it is used, but there is hardly anything to be seen."""
_MAX_NAMED = 5
_DEPTHS = {"class_folders": 1, "split_folders": 2, "splits_in_classes": 2}
"""Of the folder of a class's images below the folder of the data, by layout; in the others, no folder makes a class."""


def find_issues(
    images: Sequence[ReportedImage],
    class_names: Sequence[str],
    pairs: Sequence[Pair],
    groups: Sequence[str],
    are_splits_given: bool,
    unreadable: Sequence[tuple[SourceFile, str]],
    skipped: Sequence[tuple[str, str]],
) -> list[ReportedIssue]:
    """List everything that is wrong with a file or a pair of files.

    Args:
        images: The readable images, with their splits.
        class_names: Names of their classes.
        pairs: Positions in ``images`` of the same, or nearly the same, picture.
        groups: The group of each image, "" for none.
        are_splits_given: Whether the data's author made the splits. Where Thaw did, nearly the same pictures are in
            two splits only if those of the data are so many and so alike that nothing else was left to do.
        unreadable: Files that no run will read, and why.
        skipped: (shown path, reason) of what was not looked at.

    """
    issues = [
        _pair_issue(images[pair.first_idx], images[pair.second_idx], pair, class_names, are_splits_given)
        for pair in pairs
    ]
    issues += _torn_groups(images, groups)
    issues += [
        ReportedIssue(
            IssueKind.TINY, image.path, image.shown, f"Only {image.width:,} × {image.height:,} pixels, but used."
        )
        for image in images
        if min(image.width, image.height) < MIN_SIDE
    ]
    issues += [
        ReportedIssue(_kind_of(file, reason), file.path, file.shown, f"Not used: {reason}.")
        for file, reason in unreadable
    ]
    issues += [ReportedIssue(IssueKind.SKIPPED, "", shown, f"Not used: {reason}.") for shown, reason in skipped]
    return issues


def advice(summary: DataSummary, left_out: Sequence[str], num_of_none: int) -> list[str]:
    """Say in sentences what to look at before a run, the gravest first.

    Args:
        summary: The figures.
        left_out: Classes without an image.
        num_of_none: Number of images without a class.

    """
    found = []
    num_leaks = summary.issue_counts.get(IssueKind.LEAK, 0)
    if num_leaks:
        found.append(
            f"{num_leaks:,} {'picture or group is' if num_leaks == 1 else 'pictures or groups are'} in two splits: "
            "validation will look better than it is. Take them out of one."
        )
    num_conflicts = summary.issue_counts.get(IssueKind.CONFLICT, 0)
    if num_conflicts:
        found.append(
            f"{num_conflicts:,} {'file is' if num_conflicts == 1 else 'files are'} there twice, with different "
            "classes: one of the two is wrong."
        )
    found += _parts_advice(summary)
    found += _alike_advice(summary)
    if num_of_none:
        found.append(
            f"{num_of_none:,} {'image has' if num_of_none == 1 else 'images have'} no class: the run learns that none "
            "of the classes is to be seen there."
        )
    if left_out:
        found.append(f"{_named(left_out)}: no readable image, so the run does without.")
    train, names = summary.counts["train"], summary.class_names
    validation = summary.counts["validation"]
    never_trained = [name for name, count in zip(names, train, strict=True) if not count]
    if never_trained:
        found.append(f"{_named(never_trained)}: no train images, so nothing can be learned about it.")
    never_validated = [name for name, count in zip(names, validation, strict=True) if not count]
    if never_validated:
        found.append(f"{_named(never_validated)}: no validation images, so nobody will know how well it is learned.")
    few = [name for name, count in zip(names, train, strict=True) if 0 < count < FEW_IMAGES]
    if few:
        found.append(f"{_named(few)}: fewer than {FEW_IMAGES} train images.")
    present = [count for count in train if count]
    if present and max(present) >= IMBALANCE * min(present):
        largest, smallest = names[train.index(max(present))], names[train.index(min(present))]
        found.append(
            f"{largest} has {max(present) / min(present):.0f} times the train images of {smallest}: consider balancing "
            "the classes."
        )
    return found


def _parts_advice(summary: DataSummary) -> list[str]:
    """Say that classes look like several put together, as "clear primary water" is in 449 of 17 words."""
    names = summary.class_names
    if summary.layout != "table" or summary.is_multi_label:
        return []
    for separator, called in ((",", "a comma"), (" ", "a space")):
        parts = {part.strip() for name in names for part in name.split(separator)}
        if 2 * len(parts) <= len(names):
            example = max(names, key=lambda name: name.count(separator))
            return [
                f'The {len(names):,} classes are {len(parts):,} put together, as in "{example}": if an image may have '
                f"several, choose {called} as what separates its classes, and the task multi_label."
            ]
    return []


def _alike_advice(summary: DataSummary) -> list[str]:
    """Name the classes that differ by case or spaces only: "Sky" in one row is "sky " in the next."""
    alike: dict[str, list[str]] = {}
    for name in summary.class_names:
        alike.setdefault(unicodedata.normalize("NFC", " ".join(name.split())).casefold(), []).append(name)
    counts = summary.class_counts
    groups = [
        " and ".join(f'"{name}" ({counts[name]:,} {"image" if counts[name] == 1 else "images"})' for name in names)
        for names in alike.values()
        if len(names) > 1
    ]
    if not groups:
        return []
    if len(groups) > _MAX_NAMED:
        groups[_MAX_NAMED:] = [f"{len(groups) - _MAX_NAMED:,} more such"]
    return [f"{'; '.join(groups)} differ by case or spaces only. If they are one class, give it one name in the data."]


def folder_advice(
    layout: str, root: Path, class_names: Sequence[str], files: Sequence[SourceFile], *, is_layout_chosen: bool
) -> list[str]:
    """Say in sentences which folders were perhaps not meant as classes, though a run would take them for such.

    Args:
        layout: The layout that was found.
        root: The folder that has the classes or the splits in it.
        class_names: Names of the classes.
        files: The readable images.
        is_layout_chosen: Whether the user said that this is the layout: then a class may be called "test".

    """
    if layout not in _DEPTHS:
        return []
    found = []
    split_like = [] if is_layout_chosen else [name for name in class_names if split_of(name)]
    if split_like:
        one = len(split_like) == 1
        found.append(
            f"The {'class' if one else 'classes'} {_named(split_like)} {'is' if one else 'are'} named like a split: if "
            "that is meant, put a train folder beside a validation folder, each with one subfolder for each class."
        )
    below = _folders_of_images(_DEPTHS[layout], root, class_names, files)
    # One folder within a class folder only wraps its images.
    nested = [name for name, folders in below.items() if "" not in folders and len(folders) > 1]
    if nested:
        inner = list(dict.fromkeys(folder for name in nested for folder in below[name]))
        instead = f"the classes, choose {'one of those folders' if len(nested) > 1 else 'that folder'} as the data"
        if layout == "class_folders" and all(map(split_of, inner)):
            instead = 'splits, choose the layout "splits in classes"'
        found.append(f"{_named(nested)}: all images are in subfolders ({_named(inner)}). If these are {instead}.")
    return found


def _folders_of_images(
    depth: int, root: Path, class_names: Sequence[str], files: Sequence[SourceFile]
) -> dict[str, dict[str, None]]:
    """Return for each class the folders right below its own that have images below them, "" for that folder itself."""
    below: dict[str, dict[str, None]] = {name: {} for name in class_names}
    start = len(str(root)) + 1
    for file in files:
        parts = file.path[start:].split(os.sep, depth + 1)
        below[class_names[file.class_idxs[0]]][displayed(parts[depth]) if len(parts) > depth + 1 else ""] = None
    return below


def _kind_of(file: SourceFile, reason: str) -> IssueKind:
    """Tell a file that is something else from a picture that is spoilt: of that, at least the name is an image's."""
    is_image_by_name = Path(file.path).suffix.lower() in IMAGE_SUFFIXES
    is_something_else = reason in {NOT_AN_IMAGE, PACKED, EMPTY} and not is_image_by_name
    return IssueKind.NOT_AN_IMAGE if is_something_else else IssueKind.UNREADABLE


def _pair_issue(
    first: ReportedImage, second: ReportedImage, pair: Pair, class_names: Sequence[str], are_splits_given: bool
) -> ReportedIssue:  # fmt: skip
    # Where it is comes first: in a narrow column, the end of a sentence is cut.
    what = "the same file" if pair.is_same_file else "nearly the same picture"
    if first.split != second.split:
        is_leak = pair.is_same_file or are_splits_given
        kind = IssueKind.LEAK if is_leak else IssueKind.NEAR_DUPLICATE
        where = f"In {first.split} and in {second.split}"
    elif pair.is_same_file and first.class_idxs != second.class_idxs:
        kind = IssueKind.CONFLICT
        one, other = (
            " + ".join(class_names[idx] for idx in image.class_idxs) or "no class" for image in (first, second)
        )
        where = f"In {one} and in {other}"
    else:
        kind = IssueKind.DUPLICATE if pair.is_same_file else IssueKind.NEAR_DUPLICATE
        where = f"Twice in {first.split}"
    return ReportedIssue(kind, second.path, second.shown, f"{where}: {what}.", first.path, first.shown)


def _torn_groups(images: Sequence[ReportedImage], groups: Sequence[str]) -> list[ReportedIssue]:
    firsts: dict[str, ReportedImage] = {}
    torn: dict[tuple[str, str], ReportedIssue] = {}
    for image, group in zip(images, groups, strict=True):
        first = firsts.setdefault(group, image)
        if group and image.split != first.split:
            sentence = f"In {first.split} and in {image.split}: its group {group}."
            issue = ReportedIssue(IssueKind.LEAK, image.path, image.shown, sentence, first.path, first.shown)
            torn.setdefault((group, image.split), issue)
    return list(torn.values())


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' if "," in name else name for name in names[:_MAX_NAMED])
    return f"{shown} and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else shown
