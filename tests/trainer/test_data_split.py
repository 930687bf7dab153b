"""Which images are set aside for validation: by class, in whole groups, and never against the data's own split."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.split import assign_splits

FRACTIONS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**31 - 1)
LABELS = st.lists(st.integers(0, 4), max_size=60)
GROUPED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=60)
"""(class, group) of samples, where a group may hold several classes."""


def split_before_groups(labels: Sequence[int], validation_fraction: float, seed: int) -> set[int]:
    """Return the validation indexes as Thaw 0.1 chose them: runs of then must find the same split when resumed."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for sample_idx, label in enumerate(labels):
        by_class[label].append(sample_idx)
    validation: list[int] = []
    for label, members in by_class.items():
        num_validation = min(max(round(len(members) * validation_fraction), 1), len(members) - 1)
        random.Random(f"{seed} {label}").shuffle(members)
        validation += members[:num_validation]
    return set(validation)


def validation_of(
    labels: Sequence[int], groups: Sequence[object] | None = None, fraction: float = 0.2, seed: int = 7
) -> set[int]:
    groups = range(len(labels)) if groups is None else groups
    splits = assign_splits([(label,) for label in labels], [""] * len(labels), groups, fraction, seed)
    assert set(splits) <= {"train", "validation"}
    return {sample_idx for sample_idx, split in enumerate(splits) if split == "validation"}


def sized(*sizes: int) -> list[int]:
    """Return the group of each sample, for groups of these sizes."""
    return [group for group, size in enumerate(sizes) for _ in range(size)]


def validation_sizes(*sizes: int, fraction: float = 0.2) -> list[int]:
    """Return the sizes of the groups of one class that are set aside."""
    groups = sized(*sizes)
    return sorted(
        Counter(groups[index] for index in validation_of([0] * len(groups), groups, fraction)).values(), reverse=True
    )


# -- without groups -------------------------------------------------------------------------------------------


@given(LABELS, FRACTIONS, SEEDS)
def test_without_groups_the_split_is_the_one_of_earlier_runs(labels: list[int], fraction: float, seed: int) -> None:
    assert validation_of(labels, None, fraction, seed) == split_before_groups(labels, fraction, seed)


def test_groups_and_several_classes_are_split_as_ever() -> None:
    """A run that began with a seed is to be compared with one that begins now."""
    numbers = random.Random(0)
    labels = [tuple(sorted(numbers.sample(range(7), numbers.choice((0, 1, 1, 1, 2, 3))))) for _ in range(500)]
    groups = [numbers.randrange(220) for _ in labels]
    named = ["test" if numbers.random() < 0.02 else "" for _ in labels]
    splits = assign_splits(labels, named, groups, 0.2, 7)
    assert Counter(splits) == {"train": 376, "validation": 99, "test": 25}
    assert hashlib.sha256(" ".join(splits).encode()).hexdigest()[:16] == "0d48b81054f29cbf"


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_every_class_with_two_images_is_in_both(fraction: float) -> None:
    labels = [0] * 2 + [1] * 50 + [2] * 7 + [3]
    validation = validation_of(labels, None, fraction)
    assert {labels[index] for index in validation} == {0, 1, 2}
    assert {labels[index] for index in range(len(labels)) if index not in validation} == {0, 1, 2, 3}


def test_the_split_follows_the_seed_and_leaves_other_classes_alone() -> None:
    labels = [0] * 40 + [1] * 40
    validation = validation_of(labels, None, 0.25, seed=5)
    assert len(validation) == 20
    assert validation_of(labels, None, 0.25, seed=6) != validation
    assert validation <= validation_of([*labels, 2, 2], None, 0.25, seed=5)


# -- a split that the data brings -----------------------------------------------------------------------------


def test_a_given_validation_split_is_kept_and_what_has_no_split_trains() -> None:
    own = ["train", "validation", "", "test", ""]
    assert assign_splits([(0,)] * 5, own, range(5), 0.5, 1) == ["train", "validation", "train", "test", "train"]


def test_validation_is_set_aside_from_what_trains_or_has_no_split_and_never_from_the_test() -> None:
    labels = [(0,), (1,)] * 20
    own = ["test"] * 10 + [""] * 10 + ["train"] * 20
    splits = assign_splits(labels, own, range(40), 0.2, 3)
    assert splits[:10] == ["test"] * 10
    validation = [index for index, split in enumerate(splits) if split == "validation"]
    assert Counter(labels[index] for index in validation) == {(0,): 3, (1,): 3}
    assert splits == assign_splits(labels, ["test"] * 10 + ["train"] * 30, range(40), 0.2, 3)


def test_a_group_that_the_author_tore_apart_stays_so() -> None:
    own = ["train", "validation", "test", "train"]
    assert assign_splits([(0,), (0,), (0,), (1,)], own, ["a", "a", "a", "b"], 0.5, 1) == own
    splits = assign_splits([(0,)] * 4, ["test", "", "", ""], ["a", "a", "b", "c"], 0.3, 1)
    assert splits[0] == "test"
    assert splits.count("validation") == 1


# -- groups ---------------------------------------------------------------------------------------------------


@given(GROUPED, FRACTIONS, SEEDS)
@settings(max_examples=200)
def test_groups_move_as_a_whole_and_every_class_keeps_something_to_train_on(
    samples: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    validation = validation_of(labels, groups, fraction, seed)
    train = set(range(len(labels))) - validation
    assert not {groups[index] for index in validation} & {groups[index] for index in train}
    assert {labels[index] for index in train} == set(labels)


@given(GROUPED, FRACTIONS, SEEDS)
@settings(max_examples=200)
def test_every_class_with_two_groups_of_its_own_is_in_both(
    samples: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    labels = [label for label, _ in samples]
    validation = validation_of(labels, samples, fraction, seed)
    num_groups = Counter(label for label, _ in set(samples))
    assert {labels[index] for index in validation} == {label for label, number in num_groups.items() if number > 1}


def test_drawn_groups_that_come_near_to_the_fraction_are_set_aside() -> None:
    assert validation_sizes(50, 30, 20) == [20]
    assert validation_sizes(50, 30) == [30], "2 too few rather than 12 too many or none"
    assert validation_sizes(55, 45) == [45], "far too many, but the class must be in both"
    assert validation_sizes(60, 8, 7, 5) == [8, 7], "1 too few rather than 4 too many"
    assert validation_sizes(60, 12, 7) == [12, 7], "3 too many rather than 4 too few"
    assert validation_sizes(60, 12, 7, 6) == [7, 6], "drawn first, and 12 would be farther from 17 than they are"
    assert validation_sizes(100) == []


def test_a_class_in_small_groups_gets_its_share_whatever_the_others_are_like() -> None:
    generator = random.Random(0)
    labels, groups = [], []
    for label, num_groups in enumerate((200, 40, 15)):
        for group in range(num_groups):
            size = generator.randint(1, 5)
            labels += [label] * size
            groups += [(label, group)] * size
    validation = validation_of(labels, groups)
    shares = Counter(labels[index] for index in validation)
    for label, total in Counter(labels).items():
        assert abs(shares[label] / total - 0.2) < 0.02


def test_groups_of_several_classes_bring_each_class_near_its_fraction() -> None:
    generator = random.Random(1)
    labels, groups = [], []
    for group in range(300):
        for _ in range(generator.randint(1, 8)):
            labels.append(generator.choice([0, 0, 0, 0, 1, 1, 2]))
            groups.append(group)
    validation = validation_of(labels, groups, 0.25)
    shares = Counter(labels[index] for index in validation)
    for label, total in Counter(labels).items():
        assert abs(shares[label] / total - 0.25) < 0.03


def test_a_small_class_counts_as_much_as_a_large_one() -> None:
    labels = [0] * (74 + 18 + 8) + [1] * (2 + 2 + 16)
    groups = ["most"] * 74 + ["some"] * 18 + ["mixed"] * 10 + ["few"] * 2 + ["rest"] * 16
    validation = validation_of(labels, groups)
    # 26 % and 20 %, rather than 18 % and 10 %.
    assert {groups[index] for index in validation} == {"some", "mixed", "few"}


def test_a_group_with_a_classs_only_images_trains() -> None:
    labels = [0, 0, 0, 1, 1, 0, 0, 0]
    groups = ["mixed"] * 5 + ["a", "b", "c"]
    assert not {3, 4} & validation_of(labels, groups, 0.9)


def test_which_group_is_drawn_follows_the_seed_and_not_the_groups_names() -> None:
    labels, groups = [0] * 40, sized(*[4] * 10)
    chosen = {frozenset(validation_of(labels, groups, 0.2, seed)) for seed in range(20)}
    assert len(chosen) > 5
    renamed = [f"patient {9 - group}" for group in groups]
    assert validation_of(labels, renamed, 0.2, 3) == validation_of(labels, groups, 0.2, 3)


def test_what_has_no_split_goes_with_its_group() -> None:
    given = ["train", "validation", "test", "", "", "", ""]
    groups = ["a", "b", "c", "a", "b", "c", "d"]
    assert assign_splits([(0,), (1,), (0,), (1,), (0,), (1,), (0,)], given, groups, 0.2, 7) == [
        "train", "validation", "test", "train", "validation", "test", "train",
    ]  # fmt: skip


# -- several classes a sample ---------------------------------------------------------------------------------

LABEL_SETS = st.lists(st.sets(st.integers(0, 4), max_size=3).map(sorted).map(tuple), max_size=60)


def validation_of_sets(classes: Sequence[tuple[int, ...]], fraction: float = 0.2, seed: int = 7) -> set[int]:
    splits = assign_splits(classes, [""] * len(classes), range(len(classes)), fraction, seed)
    return {sample_idx for sample_idx, split in enumerate(splits) if split == "validation"}


@given(LABEL_SETS, FRACTIONS, SEEDS)
@settings(max_examples=200)
def test_no_class_of_several_loses_its_last_training_image(
    classes: list[tuple[int, ...]], fraction: float, seed: int
) -> None:
    validation = validation_of_sets(classes, fraction, seed)
    train = [classes[index] for index in range(len(classes)) if index not in validation]
    assert {label for labels in train for label in labels} == {label for labels in classes for label in labels}
    assert validation == validation_of_sets(classes, fraction, seed)


def long_tailed(num_samples: int, seed: int) -> list[tuple[int, ...]]:
    """Draw labels as photographs have them: 20 classes, from half of the images down to one in 100, some with none."""
    generator = random.Random(seed)
    return [
        tuple(label for label in range(20) if generator.random() < 0.5 * 0.02 ** (label / 19))
        for _ in range(num_samples)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_rare_and_frequent_classes_of_the_same_images_all_get_their_share(seed: int) -> None:
    classes = long_tailed(2000, seed)
    validation = validation_of_sets(classes, seed=seed)
    assert abs(len(validation) / len(classes) - 0.2) < 0.01
    for label in range(20):
        total = sum(label in labels for labels in classes)
        share = sum(label in classes[index] for index in validation) / total
        assert abs(share - 0.2) < max(0.01, 1.5 / total), f"class {label}: {share:.3f} of {total}"
    of_none = [index for index, labels in enumerate(classes) if not labels]
    assert abs(len(validation.intersection(of_none)) / len(of_none) - 0.2) < 0.02
