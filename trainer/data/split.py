"""Setting images aside for validation."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np


def assign_splits(
    labels: Sequence[Sequence[int]],
    given: Sequence[str],
    groups: Sequence[object],
    validation_fraction: float,
    seed: int,
) -> list[str]:
    """Return "train", "validation" or "test" for each sample.

    What the data's author decided is kept, even where it tears a group apart: that is for a report to say. What has no
    split goes with its group where that has one. Where there is a validation split, the rest trains. Where there is
    none, some of what trains is set aside, by class, in whole groups: greedily, much as scikit-learn's
    StratifiedGroupKFold does, but in random order, so that copies are no likelier to validate than others.

    Samples of several classes are stratified as iterative stratification does (Sechidis, Tsoumakas and Vlahavas 2011,
    "On the Stratification of Multi-Label Data"): what has a rare class comes first, and a sample is set aside while
    all of its classes miss some. Those without any class are stratified as if that were a class.

    No class loses its last training images, and every class with two groups gets validation images, as far as
    groups that hold several classes allow it. Where every class is one single group, nothing is set aside.

    Args:
        labels: The class indexes of each sample: one, several, or none.
        given: The split that the data itself names for each sample: "train", "validation", "test" or "" (none).
        groups: What each sample belongs to (a patient, a place, copies of one photo); equal values stay together.
        validation_fraction: Share of each class that goes to validation, 0 to 1.
        seed: The same seed gives the same split; each class is drawn by itself, so that another class changes nothing
            where no group holds several classes.

    """
    assert len(labels) == len(given) == len(groups)
    named: dict[object, set[str]] = defaultdict(set)
    for split, group in zip(given, groups, strict=True):
        if split:
            named[group].add(split)
    # What has no split goes with its group: a copy of a validation image must not train.
    splits = [split or _split_of(named.get(group, ())) for split, group in zip(given, groups, strict=True)]
    if "validation" in splits:
        return splits
    free = [sample_idx for sample_idx, split in enumerate(splits) if split == "train"]
    made = _make_groups([labels[sample_idx] for sample_idx in free], [groups[sample_idx] for sample_idx in free], seed)
    chosen = _set_aside(made, validation_fraction)
    for sample_idx, group in zip(free, made.of_samples, strict=True):
        if group in chosen:
            splits[sample_idx] = "validation"
    return splits


def _split_of(named: Collection[str]) -> str:
    return next((split for split in ("train", "validation", "test") if split in named), "train")


_NO_CLASS = (-1,)


@dataclass(frozen=True)
class _Groups:
    """Samples that stay together. There may be a million groups: each is a number, and no object of its own.

    Attributes:
        of_samples: The group of each sample.
        classes: The classes of all samples of each group, one after another.
        drawn: All groups, in random order.

    """

    of_samples: Sequence[int]
    classes: Sequence[tuple[int, ...]]
    drawn: Sequence[int]


def _make_groups(labels: Sequence[Sequence[int]], groups: Sequence[object], seed: int) -> _Groups:
    classes = [tuple(of_sample) or _NO_CLASS for of_sample in labels]
    by_class: dict[int, list[int]] = defaultdict(list)
    for sample_idx, of_sample in enumerate(classes):
        for label in of_sample:
            by_class[label].append(sample_idx)
    places = np.empty(len(classes), dtype=np.int64)
    # Of several classes, a sample's place is that in the rarest.
    for label, members in sorted(by_class.items(), key=lambda item: -len(item[1])):
        random.Random(f"{seed} {label}").shuffle(members)
        places[members] = np.arange(len(members))
    numbers: dict[object, int] = {}
    of_samples = [numbers.setdefault(group, len(numbers)) for group in groups]
    _, firsts = np.unique(np.array(of_samples), return_index=True)
    of_groups = [classes[sample_idx] for sample_idx in firsts.tolist()]
    others: dict[int, list[int]] = defaultdict(list)
    for sample_idx in np.setdiff1d(np.arange(len(classes)), firsts, assume_unique=True).tolist():
        others[of_samples[sample_idx]] += classes[sample_idx]
    for group, of_others in others.items():
        of_groups[group] = (*of_groups[group], *of_others)
    # One member stands for its group: the first place of them all would draw large groups more often.
    drawn = np.lexsort((firsts, places[firsts])).tolist()
    return _Groups(of_samples, of_groups, drawn)


def _set_aside(groups: _Groups, validation_fraction: float) -> Collection[int]:
    """Choose the groups that become validation images."""
    choice = _Choice(groups.classes, validation_fraction)
    # In random order: large groups first would fill validation with copies and bursts.
    choice.fill(groups.drawn)
    # All that is left is too large for one of its classes: take it where that comes nearer to what is wanted.
    for group in groups.drawn if choice.misses_some else ():
        if group not in choice.chosen and choice.added_distance(group) < 0:
            choice.add(group)
    without = choice.labels.difference(*(groups.classes[group] for group in choice.chosen))
    by_class: dict[int, list[int]] = defaultdict(list)
    for group in groups.drawn if without else ():
        for label in dict.fromkeys(groups.classes[group]):
            if label in without:
                by_class[label].append(group)
    for candidates in by_class.values():
        if choice.chosen.isdisjoint(candidates):
            spare = [group for group in candidates if choice.is_spare(group)]
            if spare:
                choice.add(min(spare, key=choice.added_distance))
    return choice.chosen


class _Choice:
    """Groups chosen for validation, and how many images each class still misses there (below 0: has too many)."""

    def __init__(self, classes: Sequence[tuple[int, ...]], validation_fraction: float) -> None:
        self.chosen: set[int] = set()
        self._classes = classes
        # Most groups are single images, and many of these have the same classes.
        num_groups = Counter(classes)
        self._counts = {of_group: Counter(of_group) for of_group in num_groups}
        self._totals: Counter[int] = Counter()
        self._num_train_groups: Counter[int] = Counter()
        for of_group, num in num_groups.items():
            for label, count in self._counts[of_group].items():
                self._totals[label] += num * count
                self._num_train_groups[label] += num
        self._missing = {
            label: min(max(round(total * validation_fraction), 1), total - 1) for label, total in self._totals.items()
        }

    @property
    def labels(self) -> set[int]:
        """Return the classes that there are."""
        return set(self._totals)

    @property
    def misses_some(self) -> bool:
        """Whether a class misses images yet. Where none does, no group takes any nearer to its share."""
        return any(missing > 0 for missing in self._missing.values())

    def is_spare(self, group: int) -> bool:
        """Say whether each of the group's classes has another group to train on."""
        return all(self._num_train_groups[label] > 1 for label in self._counts_of(group))

    def fill(self, drawn: Sequence[int]) -> None:
        """Choose in this order what fits into what its classes still miss (which is never all of a class)."""
        num_missing = sum(self._missing.values())
        for group in drawn:
            if not num_missing:
                break
            counts = self._counts_of(group)
            if all(count <= self._missing[label] for label, count in counts.items()):
                self.add(group)
                num_missing -= counts.total()

    def added_distance(self, group: int) -> float:
        """Return how much farther from their wanted shares the group would take its classes, summed; below 0: nearer.

        A group that is not spare is infinitely far.
        """
        if not self.is_spare(group):
            return float("inf")
        return sum(
            (abs(self._missing[label] - count) - abs(self._missing[label])) / self._totals[label]
            for label, count in self._counts_of(group).items()
        )

    def add(self, group: int) -> None:
        """Choose a group."""
        self.chosen.add(group)
        for label, count in self._counts_of(group).items():
            self._missing[label] -= count
            self._num_train_groups[label] -= 1

    def _counts_of(self, group: int) -> Counter[int]:
        return self._counts[self._classes[group]]
