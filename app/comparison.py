"""What can be read off a comparison of checkpoints, for the window and the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from trainer.messages.comparison import CheckpointsCompared, ComparedLayer, ConfusionCounts, LayerDistance

_MAX_LISTED = 3


class MetricRow(NamedTuple):
    """A metric by its tag, with its value in each checkpoint; None where it was not measured."""

    tag: str
    values: list[float | None]

    def difference(self, column: int) -> float | None:
        """Return how much a checkpoint has more than the first; None where either has none."""
        first, other = self.values[0], self.values[column]
        return None if first is None or other is None or not column else other - first

    def is_better(self, column: int) -> bool | None:
        """Tell whether a checkpoint is better than the first; None where neither is."""
        difference = self.difference(column)
        if difference is None or not difference or math.isnan(difference):
            return None
        return (difference < 0) == self.tag.startswith("Loss/")

    def is_better_as_shown(self, column: int, text: Callable[[float | None], str]) -> bool | None:
        """Tell it only where the two values are also written differently, by ``text``: "1.000" is no better than it."""
        if text(self.values[0]) == text(self.values[column]):
            return None
        return self.is_better(column)


class CountChange(NamedTuple):
    """How many images of a class were taken for a class by the first checkpoint, and by another one."""

    true_idx: int
    taken_idx: int
    first: int
    other: int

    @property
    def is_better(self) -> bool:
        """Whether more are right, or fewer wrong."""
        return (self.other > self.first) == (self.true_idx == self.taken_idx)


def metric_rows(compared: CheckpointsCompared) -> list[MetricRow]:
    """Return the metrics of validation, in the order in which they are listed."""
    infos = [each.info for each in compared.checkpoints]
    # An earlier Thaw kept these two and no others.
    values = [{"Loss/validation": info.loss, "Accuracy/validation": info.accuracy, **info.metrics} for info in infos]
    tags = dict.fromkeys(tag for each in values for tag in each)
    return [MetricRow(tag, [each.get(tag) for each in values]) for tag in tags]


def metric_name(tag: str) -> str:
    """Return a metric's name without its split."""
    return tag.partition("/")[0]


def few(values: Sequence[Any]) -> list[Any]:
    """Cut a list short that nobody reads to its end, as that of all layers: what follows the first ones is counted."""
    if len(values) <= _MAX_LISTED + 1:
        return list(values)
    return [*values[:_MAX_LISTED], f"… ({len(values):,})"]


def layers_at(layers: list[ComparedLayer], depth: int | None) -> list[ComparedLayer]:
    """Return the layers that hold no others, or (``depth``) those so deep in the tree that hold them, each once."""
    names = [layer.fqn for layer in layers if layer.fqn]
    holding = {name.rpartition(".")[0] for name in names}
    found = []
    for layer in layers:
        level = layer.fqn.count(".") + 1
        is_last = layer.fqn not in holding
        if layer.fqn and (level == depth or (is_last and (depth is None or level < depth))):
            found.append(layer)
    return found


def by_distance(layers: list[ComparedLayer]) -> list[ComparedLayer]:
    """Put those first that have gone furthest, by their own norm; what is no number comes before all, none last."""
    return sorted(layers, key=lambda layer: max(map(_rank, layer.distances)), reverse=True)


def is_equal_in_all(layer: ComparedLayer) -> bool:
    """Tell whether all values of a layer are the same in all checkpoints."""
    compared = [each for each in layer.distances if each is not None and each.num_compared >= layer.num_values]
    return len(compared) == len(layer.distances) and all(each.is_equal for each in compared)


def count_changes(first: ConfusionCounts, other: ConfusionCounts, num_classes: int) -> list[CountChange]:
    """Return where two confusion matrices differ, the largest difference first."""
    before = dict(zip(first.cells, first.counts, strict=True))
    after = dict(zip(other.cells, other.counts, strict=True))
    changes = [
        CountChange(*divmod(cell, num_classes), before.get(cell, 0), after.get(cell, 0))
        for cell in dict.fromkeys([*before, *after])
        if before.get(cell, 0) != after.get(cell, 0)
    ]
    return sorted(changes, key=lambda change: (-abs(change.other - change.first), change))


def num_right(counts: ConfusionCounts, num_classes: int) -> tuple[int, int]:
    """Return how many images were taken for their own class, and how many there are."""
    right = sum(count for cell, count in zip(counts.cells, counts.counts, strict=True) if not cell % (num_classes + 1))
    return right, sum(counts.counts)


def _rank(distance: LayerDistance | None) -> float:
    if distance is None:
        return -1.0
    return math.inf if math.isnan(distance.relative) else distance.relative
