"""Setting images aside for validation."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter


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
    for group in _set_aside(_make_groups(free, labels, groups, seed), validation_fraction):
        for sample_idx in group.members:
            splits[sample_idx] = "validation"
    return splits


def _split_of(named: Collection[str]) -> str:
    return next((split for split in ("train", "validation", "test") if split in named), "train")


_NO_CLASS = (-1,)


@dataclass(slots=True, eq=False)
class _Group:
    """Samples that stay together: their indexes, how many there are of each class, and a random place in the order.

    There may be a million: neither frozen, which takes thrice as long to make, nor with containers of their own where
    those of others are the same.
    """

    members: Sequence[int]
    counts: Mapping[int, int]
    place: tuple[int, int]


def _make_groups(
    free: Sequence[int], labels: Sequence[Sequence[int]], groups: Sequence[object], seed: int
) -> list[_Group]:
    classes = {sample_idx: labels[sample_idx] or _NO_CLASS for sample_idx in free}
    by_class: dict[int, list[int]] = defaultdict(list)
    by_group: dict[object, list[int]] = defaultdict(list)
    for sample_idx in free:
        for label in classes[sample_idx]:
            by_class[label].append(sample_idx)
        by_group[groups[sample_idx]].append(sample_idx)
    places: dict[int, tuple[int, int]] = {}
    # Of several classes, a sample's place is that in the rarest.
    for label, members in sorted(by_class.items(), key=lambda item: -len(item[1])):
        random.Random(f"{seed} {label}").shuffle(members)
        places.update((sample_idx, (place, sample_idx)) for place, sample_idx in enumerate(members))
    # Most groups are single images, and many of these have the same classes.
    counts_of: dict[tuple[int, ...], Mapping[int, int]] = {}
    found = []
    for members in by_group.values():
        of_all = tuple(label for sample_idx in members for label in classes[sample_idx])
        if of_all not in counts_of:
            counts_of[of_all] = Counter(of_all)
        # One member stands for its group: the first place of them all would draw large groups more often.
        found.append(_Group(members, counts_of[of_all], places[members[0]]))
    return found


def _set_aside(groups: Sequence[_Group], validation_fraction: float) -> list[_Group]:
    """Choose the groups that become validation images."""
    choice = _Choice(groups, validation_fraction)
    # In random order: large groups first would fill validation with copies and bursts.
    drawn = sorted(groups, key=attrgetter("place"))
    for group in drawn:
        if choice.has_room(group):
            choice.add(group)
    # All that is left is too large for one of its classes: take it where that comes nearer to what is wanted.
    for group in drawn if choice.misses_some else ():
        if group not in choice.chosen and choice.added_distance(group) < 0:
            choice.add(group)
    without = choice.labels - {label for group in choice.chosen for label in group.counts}
    by_class: dict[int, list[_Group]] = defaultdict(list)
    for group in drawn if without else ():
        for label in group.counts:
            if label in without:
                by_class[label].append(group)
    for candidates in by_class.values():
        if not any(group in choice.chosen for group in candidates):
            spare = [group for group in candidates if choice.is_spare(group)]
            if spare:
                choice.add(min(spare, key=choice.added_distance))
    return list(choice.chosen)


class _Choice:
    """Groups chosen for validation, and how many images each class still misses there (below 0: has too many)."""

    def __init__(self, groups: Sequence[_Group], validation_fraction: float) -> None:
        self.chosen: dict[_Group, None] = {}
        self._totals: Counter[int] = Counter()
        self._num_train_groups: Counter[int] = Counter()
        for group in groups:
            # Not by the Counters' own update, which takes four times as long for one class.
            for label, count in group.counts.items():
                self._totals[label] += count
                self._num_train_groups[label] += 1
        self._missing = Counter(
            {label: min(max(round(total * validation_fraction), 1), total - 1) for label, total in self._totals.items()}
        )

    @property
    def labels(self) -> set[int]:
        """Return the classes that there are."""
        return set(self._totals)

    @property
    def misses_some(self) -> bool:
        """Whether a class misses images yet. Where none does, no group takes any nearer to its share."""
        return any(missing > 0 for missing in self._missing.values())

    def is_spare(self, group: _Group) -> bool:
        """Say whether each of the group's classes has another group to train on."""
        return all(self._num_train_groups[label] > 1 for label in group.counts)

    def has_room(self, group: _Group) -> bool:
        """Say whether the group fits into what its classes still miss (which is never all of a class)."""
        return all(count <= self._missing[label] for label, count in group.counts.items())

    def added_distance(self, group: _Group) -> float:
        """Return how much farther from their wanted shares the group would take its classes, summed; below 0: nearer.

        A group that is not spare is infinitely far.
        """
        if not self.is_spare(group):
            return float("inf")
        return sum(
            (abs(self._missing[label] - count) - abs(self._missing[label])) / self._totals[label]
            for label, count in group.counts.items()
        )

    def add(self, group: _Group) -> None:
        """Choose a group."""
        self.chosen[group] = None
        self._missing.subtract(group.counts)
        self._num_train_groups.subtract(group.counts.keys())
