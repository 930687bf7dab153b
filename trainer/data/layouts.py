"""Layouts: finding where in a folder the data set begins, and how it says which image is of which class."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.config import ConfigError, DataConfig
from trainer.data.images import DataError, displayed
from trainer.data.listing import IMAGE_SUFFIXES, Entry, Shown, counted, entries, folder_names
from trainer.data.table import SPLIT_WORDS, check_columns
from trainer.data_path import PACKED_SUFFIXES, TABLE_SUFFIXES, emptiness

MIN_NAMED_SHARE = 0.9
"""Share of a folder's files that must be named like "cat.12.jpg" before the names are taken for classes."""

_SPLIT_FOLDER = re.compile(
    r"(?:data|images|imgs)?(?P<word>{})(?:data|set|dataset|images|imgs|split)*".format("|".join(SPLIT_WORDS))
)
_NUMBERED_NAME = re.compile(r"(?P<label>.*\S)(?:[._-]\d+|\s*\(\d+\))")


@dataclass(frozen=True)
class Level:
    """A folder that may hold the data set: the chosen one, or one that is the only folder within it, and so on."""

    folder: Path
    folders: list[Path]
    others: list[Entry]

    @property
    def splits(self) -> dict[Path, str]:
        """Return the folders named after splits, if one is for training and one is not."""
        named = {folder: split_of(folder.name) for folder in self.folders}
        found = {folder: split for folder, split in named.items() if split}
        return found if "train" in found.values() and len(set(found.values())) > 1 else {}

    @property
    def tables(self) -> list[Path]:
        """Return the files that are tables by their names."""
        return [
            entry.path for entry in self.others if entry.kind == "file" and entry.path.suffix.lower() in TABLE_SUFFIXES
        ]

    @property
    def archives(self) -> list[Path]:
        """Return the files that are archives by their names, where there is nothing else that could hold images."""
        if self.folders or self.has_images:
            return []
        names = [entry.path for entry in self.others if entry.kind == "file"]
        return [path for path in names if path.name.lower().endswith(PACKED_SUFFIXES)]

    @property
    def has_images(self) -> bool:
        """Whether there are files that are images by their names."""
        return any(entry.kind == "file" and entry.path.suffix.lower() in IMAGE_SUFFIXES for entry in self.others)

    @property
    def linked_folders(self) -> list[Path]:
        """Return the links to folders, which are not followed, where there are no images beside them."""
        if self.has_images:
            return []
        links = [entry.path for entry in self.others if entry.kind == "link"]
        return [link for link in links if os.path.isdir(link)]  # noqa: PTH112 (pathlib's raises where it may not look)

    @property
    def named_share(self) -> float:
        """Return which share of the files has a class in its name, 0 where that is no two classes."""
        labels = [label for entry in self.others if (label := label_of(entry.path))]
        return len(labels) / len(self.others) if len(set(labels)) > 1 else 0.0


@dataclass(frozen=True)
class LaidOut:
    """A level and the layout that it has, with the table where that is "table"."""

    layout: str
    level: Level
    table: Path | None


def find_layout(data: DataConfig, shown: Shown, check_cancelled: Callable[[], None]) -> LaidOut:
    """Look from a folder down, through folders that are the only one, for the first level with a layout that is wanted.

    Args:
        data: The layout that is wanted ("auto": the first that fits), and a table's columns.
        shown: The folder, and its name.
        check_cancelled: Called for each level; raises to end the search.

    Raises:
        DataError: No level has it; says what there is instead, and what to do.

    """
    return _Search(data, shown, check_cancelled).run()


def label_of(path: Path) -> str:
    """Return the class in an image's name ("cat.12.jpg", "cat_12", "cat-12", "cat (12)"), "" if there is none."""
    match = _NUMBERED_NAME.fullmatch(path.stem) if path.suffix.lower() in IMAGE_SUFFIXES else None
    return unicodedata.normalize("NFC", match["label"]) if match else ""


def split_of(name: str) -> str:
    """Return the split that a folder is named after ("val", "Training_set", "test-images"), "" if there is none."""
    match = _SPLIT_FOLDER.fullmatch(re.sub(r"[\W_]+", "", name.casefold()))
    return SPLIT_WORDS[match["word"]] if match else ""


def one_class(named: str, label: str) -> str:
    """Return the sentence for class folders of a single class."""
    return f'{named} has only one class, "{label}". Add a subfolder of images for at least one more.'


class _Search:
    def __init__(self, data: DataConfig, shown: Shown, check_cancelled: Callable[[], None]) -> None:
        self._wanted = data.layout
        self._data = data
        self._shown = shown
        self._check_cancelled = check_cancelled
        self._table_errors: list[ConfigError] = []

    def run(self) -> LaidOut:
        levels = []
        for level in self._levels():
            levels.append(level)
            table = self._table_of(level)
            if layout := self._layout_of(level, table):
                return LaidOut(layout, level, table)
        raise self._refusal(levels)

    def _levels(self) -> Iterator[Level]:
        folder = self._shown.root
        while True:
            self._check_cancelled()
            level = self._level(folder)
            yield level
            if len(level.folders) != 1:
                return
            folder = level.folders[0]

    def _level(self, folder: Path) -> Level:
        found = entries(folder, self._shown)
        folders = [entry.path for entry in found if entry.kind == "folder"]
        return Level(folder, folders, [entry for entry in found if entry.kind != "folder"])

    def _table_of(self, level: Level) -> Path | None:
        """Return the level's table of images. Why there is none is kept: other layouts come first."""
        usable = []
        for table in level.tables:
            try:
                check_columns(table, self._shown, self._data)
            except ConfigError as error:
                self._table_errors.append(error)
            else:
                usable.append(table)
        if len(usable) > 1:
            self._table_errors.append(
                DataError(
                    f"{self._shown(level.folder)} has {len(usable)} tables of images, {displayed(usable[0].name)} and "
                    f"{displayed(usable[1].name)} for example. Choose one of them instead of the folder."
                )
            )
        return usable[0] if len(usable) == 1 else None

    def _layout_of(self, level: Level, table: Path | None) -> str:
        """Return the layout that a level has, "" if none (or not the one that the user named)."""
        is_auto = self._wanted == "auto"
        is_split = any(split == "train" and self._has_folders(folder) for folder, split in level.splits.items())
        has_only_splits = len(level.splits) == len(level.folders)
        named_share = 0.0 if level.folders else level.named_share
        fitting = {
            "split_folders": is_split,
            "splits_in_classes": self._do_classes_hold_splits(level),
            "class_folders": len(level.folders) > 1 and not (is_auto and has_only_splits),
            "table": table is not None,
            "file_names": named_share >= MIN_NAMED_SHARE or (named_share > 0 and not is_auto),
        }
        wanted = list(fitting) if is_auto else [self._wanted]
        return next((layout for layout in wanted if fitting[layout]), "")

    def _has_folders(self, folder: Path) -> bool:
        return any(entry.kind == "folder" for entry in entries(folder, self._shown))

    def _do_classes_hold_splits(self, level: Level) -> bool:
        """Say whether class folders have a train folder beside another split's in them: all of them if nobody said so.

        One without a train folder, or without another, is a class that is in one split alone.
        """
        of_classes = []
        for folder in level.folders:
            splits = {split for name in folder_names(folder) if (split := split_of(name))}
            if not splits and self._wanted == "auto":
                return False
            of_classes.append(splits)
        return len(of_classes) > 1 and any("train" in splits and len(splits) > 1 for splits in of_classes)

    def _refusal(self, levels: list[Level]) -> ConfigError:
        """Say why no level has the layout that is looked for."""
        named = self._shown(levels[0].folder)
        layout = self._wanted
        # Before what is wrong with a table: one beside the packed images often is no table of them.
        if levels[-1].archives and layout != "table":
            return DataError(self._packed(levels[-1]))
        if layout in {"class_folders", "split_folders", "splits_in_classes"} and (sentence := self._linked(levels)):
            return DataError(sentence)
        if layout == "split_folders":
            return DataError(
                f"{named} has no train folder of class subfolders beside one for validation or test. Choose another "
                "layout, or sort the images so.",
                "data.layout",
            )
        if layout == "splits_in_classes":
            return DataError(
                f"{named} has no two class folders with a train folder beside one for validation or test in them. "
                "Choose another layout, or sort the images so.",
                "data.layout",
            )
        if layout == "file_names":
            return DataError(
                f"{named} has no files of two classes that are named like cat_12.jpg. Choose another layout.",
                "data.layout",
            )
        if self._table_errors and layout in {"auto", "table"}:
            return self._table_errors[0]
        if layout == "table":
            return DataError(f"{named} has no table (.csv, .tsv) at its top. Choose another layout.", "data.layout")
        if sentence := self._linked(levels):
            return DataError(sentence)
        return DataError(self._no_classes(levels), "data.path" if layout == "auto" else "data.layout")

    def _no_classes(self, levels: list[Level]) -> str:
        top, last = levels[0], levels[-1]
        if sentence := emptiness(last.folder, self._shown(last.folder)):
            return sentence
        if last.splits:
            train = next(folder for folder, split in last.splits.items() if split == "train")
            parts = " and ".join(displayed(folder.name) for folder in last.splits)
            return (
                f"{self._shown(last.folder)} is split into {parts}, but {self._shown(train)} has no class subfolders. "
                "Sort the images of each into one subfolder for each class."
            )
        if len(levels) > 1:
            return one_class(self._shown(levels[-2].folder), displayed(last.folder.name))
        return (
            f"{self._shown(top.folder)} has {counted(len(top.others), 'file')} directly in it, but no class "
            "subfolders. Sort the images into one subfolder for each class, or name them like cat_12.jpg."
        )

    def _linked(self, levels: list[Level]) -> str:
        """Return the sentence for links where class folders are wanted, "" if there are none."""
        trains = [folder for folder, split in levels[-1].splits.items() if split == "train"]
        lacking = [*map(self._level, trains), *(level for level in levels if len(level.folders) < 2)]
        level = next((level for level in lacking if level.linked_folders), None)
        if level is None:
            return ""
        links = level.linked_folders
        name = displayed(links[0].name)
        # Often they are all of one folder, which could have been chosen as well.
        parents = {link.resolve().parent for link in links}
        where = f", {displayed(parents.pop())}" if len(parents) == 1 else ""
        if len(links) == 1:
            return (
                f"{self._shown(level.folder)} has a link to a folder, {name}: links are not followed. Put the folder "
                f"itself in its place, or choose the folder that it is in{where}."
            )
        return (
            f"{self._shown(level.folder)} has {len(links)} links to folders, {name} and {displayed(links[1].name)} for "
            "example: links are not followed. Put the folders themselves in their place, or choose the folder that "
            f"they are in{where}."
        )

    def _packed(self, level: Level) -> str:
        named, names = self._shown(level.folder), [displayed(path.name) for path in level.archives]
        if len(names) == 1:
            return f"{named} holds no images but another archive, {names[0]}. Unpack that first, and choose its folder."
        return (
            f"{named} holds no images but {len(names)} archives, {names[0]} and {names[1]} for example. Unpack them "
            "first, each into a folder of its own, and choose the folder of these."
        )
