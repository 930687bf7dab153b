"""What the steps of training measure, until it is sent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.metrics import GRADIENT_NORM, TRAIN_ACCURACY, TRAIN_LOSS, StepMetrics
from trainer.task import MultiClass

TASK = MultiClass(["a", "b", "c"], 0.0, None)


def answers(num_images: int, num_right: int) -> tuple[Tensor, Tensor]:
    """Return outputs for images of the first class, of which some are right."""
    taken_for = torch.ones(num_images, dtype=torch.int64)
    taken_for[:num_right] = 0
    return torch.eye(3)[taken_for], torch.zeros(num_images, dtype=torch.int64)


def test_each_step_has_the_share_of_its_own_images_in_however_many_parts_they_came() -> None:
    metrics = StepMetrics(TASK.are_right)
    metrics.add(1, 0.5, [answers(8, 2)], 3.0)
    metrics.add(2, 0.25, [answers(4, 4), answers(4, 2), answers(2, 0)], 2.0)
    metrics.add(3, 0.125, [answers(3, 0)], 1.0)
    series = metrics.flush()
    assert series[TRAIN_ACCURACY].steps == [1, 2, 3]
    assert series[TRAIN_ACCURACY].values == pytest.approx([0.25, 0.6, 0.0])
    assert series[TRAIN_LOSS].values == [0.5, 0.25, 0.125]
    assert series[GRADIENT_NORM].values == [3.0, 2.0, 1.0]
    assert metrics.flush() == {}
    metrics.add(4, 0.5, [answers(5, 5)], 1.0)
    assert metrics.flush()[TRAIN_ACCURACY].values == [1.0]


def test_outputs_are_not_kept_for_longer_than_there_is_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def are_right(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(len(logits))
        return TASK.are_right(logits, target)

    monkeypatch.setattr("trainer.metrics._OUTPUTS_AT_ONCE", 60)
    metrics = StepMetrics(are_right)
    for step in range(1, 6):
        metrics.add(step, 0.5, [answers(10, step)], 1.0)
    assert seen == [20, 20]
    assert metrics.flush()[TRAIN_ACCURACY].values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert seen == [20, 20, 10]
