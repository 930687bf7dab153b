"""Setting images aside for validation."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence


def split(labels: Sequence[int], validation_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split sample indexes by class, so that every class with two images or more is in both parts.

    Args:
        labels: The class index of each sample.
        validation_fraction: Share of each class that goes to validation, 0 to 1.
        seed: The same seed gives the same split; each class is drawn by itself, so that another class changes nothing.

    Returns:
        Sample indexes of the training part and of the validation part, each in ascending order.

    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for sample_idx, label in enumerate(labels):
        by_class[label].append(sample_idx)
    train: list[int] = []
    validation: list[int] = []
    for label, members in by_class.items():
        num_validation = min(max(round(len(members) * validation_fraction), 1), len(members) - 1)
        random.Random(f"{seed} {label}").shuffle(members)
        validation += members[:num_validation]
        train += members[num_validation:]
    return sorted(train), sorted(validation)
