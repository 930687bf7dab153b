"""The task of several classes of an image: its loss and metrics against their definitions, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.trainer.test_task import CPU, area, evaluated, run_config, summary
from trainer.config import ConfigError, DataConfig
from trainer.data.mixing import BatchMixer
from trainer.task import MultiLabel, check_task, make_task


def outputs(num_images: int, num_classes: int, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Draw what a model that has learned something says of images: logits (B, C), and targets of 0 and 1 (B, C)."""
    generator = torch.Generator().manual_seed(num_images * num_classes)
    target = (torch.rand(num_images, num_classes, generator=generator) < share).float()
    return torch.randn(num_images, num_classes, generator=generator) + 2 * target - 1, target


def multi_label(num_classes: int, smoothing: float = 0.0, weights: Tensor | None = None) -> MultiLabel:
    return MultiLabel([str(idx) for idx in range(num_classes)], smoothing, weights)


def average_precision(is_positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the mean, over the positive images, of the share of positive ones among those that score as high."""
    return float(np.mean([is_positive[scores >= score].mean() for score in scores[is_positive]]))


def f1_of(is_positive: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    return 2 * float((is_positive & predicted).sum()) / float(is_positive.sum() + predicted.sum())


@pytest.mark.parametrize(("num_images", "num_classes", "share"), [(90, 3, 0.5), (2000, 14, 0.1), (700, 80, 0.05)])
def test_the_metrics_of_several_labels_are_what_their_definitions_say(
    num_images: int, num_classes: int, share: float
) -> None:
    logits, target = outputs(num_images, num_classes, share)
    evaluation = evaluated(multi_label(num_classes), logits, target)
    scores, is_positive = logits.double().numpy(), target.numpy() > 0
    predicted = scores > 0
    probability = 1 / (1 + np.exp(-scores))
    expected = {
        "Loss/validation": float(-np.log(np.where(is_positive, probability, 1 - probability)).mean()),
        "Accuracy/validation": float((predicted == is_positive).all(axis=1).mean()),
        "F1/validation": np.mean([f1_of(is_positive[:, idx], predicted[:, idx]) for idx in range(num_classes)]),
    }
    areas = [area(is_positive[:, idx], scores[:, idx]) for idx in range(num_classes)]
    precisions = [average_precision(is_positive[:, idx], scores[:, idx]) for idx in range(num_classes)]
    assert evaluation.values.pop("AUROC/validation") == pytest.approx(np.mean(areas), abs=2e-3)
    assert evaluation.values.pop("Mean AP/validation") == pytest.approx(np.mean(precisions), abs=1e-3)
    assert evaluation.values == pytest.approx(expected, abs=1e-4)
    assert evaluation.confusion is None


def test_a_label_that_no_image_has_does_not_count_and_a_false_alarm_does() -> None:
    logits, target = outputs(300, 4)
    logits[:, 3], target[:, 3] = -1.0, 0.0
    without = evaluated(multi_label(3), logits[:, :3], target[:, :3]).values
    with_it = evaluated(multi_label(4), logits, target).values
    for name in ("F1", "AUROC", "Mean AP"):
        assert with_it[f"{name}/validation"] == pytest.approx(without[f"{name}/validation"], abs=1e-3)
    logits[0, 3] = 1.0
    alarmed = evaluated(multi_label(4), logits, target).values
    assert alarmed["F1/validation"] == pytest.approx(without["F1/validation"] * 3 / 4, abs=1e-5)


def test_where_no_image_has_a_label_only_what_is_defined_is_reported() -> None:
    values = evaluated(multi_label(3), torch.full((8, 3), -1.0), torch.zeros(8, 3)).values
    assert values["Accuracy/validation"] == 1
    assert set(values) == {"Loss/validation", "Accuracy/validation"}


def test_an_image_is_right_if_each_of_its_labels_is_and_no_other() -> None:
    logits = torch.tensor([[2.0, -1.0, 3.0], [2.0, 1.0, 3.0], [2.0, -1.0, -1.0], [-1.0, -1.0, -1.0]])
    target = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert multi_label(3).are_right(logits, target).sum() == 2
    mixed = torch.tensor([[0.7, 0.3, 1.0]])
    assert multi_label(3).are_right(logits[:1], mixed).sum() == 1


def test_smoothing_spreads_a_label_over_yes_and_no() -> None:
    logits, target = outputs(60, 3)
    spread = torch.where(target > 0, 0.95, 0.05)
    expected = -(spread * logits.sigmoid().log() + (1 - spread) * (-logits).sigmoid().log()).mean()
    assert multi_label(3, smoothing=0.1).training_loss(logits, target).item() == pytest.approx(expected.item())
    assert multi_label(3, smoothing=0.1).loss(logits, target) == multi_label(3).loss(logits, target)


def test_class_weights_make_yes_and_no_of_every_label_weigh_the_same() -> None:
    target = torch.zeros(40, 4)
    target[:4, 0], target[:20, 1], target[:, 2] = 1, 1, 1
    counts = [int(count) for count in target.sum(dim=0)]
    task = make_task(run_config("multi_label", "class_weights"), list("abcd"), counts, 40, CPU)
    logits = torch.zeros(40, 4, requires_grad=True)
    task.training_loss(logits, target).backward()
    assert logits.grad is not None
    of_yes, of_no = ((logits.grad * mask).sum(dim=0) for mask in (target, 1 - target))
    assert torch.allclose(of_yes[:2], -of_no[:2])
    assert of_yes[2] < 0, "what all images have still is learned"
    assert of_no[3] > 0, "what none has, too"


def test_the_parts_of_a_batch_add_up_to_its_loss_whatever_the_classes_weigh() -> None:
    logits, target = outputs(30, 5)
    task = multi_label(5, 0.1, MultiLabel.balancing_weights([3, 1, 20, 9, 30], 30))
    parts = list(zip(logits.split(11), target.split(11), strict=True))
    whole = sum(task.training_loss(*part) * task.weight(part[1]) / task.weight(target) for part in parts)
    assert float(whole) == pytest.approx(task.training_loss(logits, target).item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_have_the_labels_of_both_by_their_shares(kind: str) -> None:
    target = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    before = target.clone()
    x = torch.arange(3.0).view(3, 1, 1, 1).expand(-1, 3, 16, 16).clone()
    mixed, shares = BatchMixer(kind, 3, seed=1)(x, target, 0, 3)  # type: ignore[arg-type]
    own = 1 - (mixed[1] - 1).abs().mean().item()
    expected = own * target + (1 - own) * target.roll(1, 0)
    assert 0 < own < 1
    assert torch.allclose(shares, expected, atol=1e-5)
    assert torch.equal(target, before)
    assert torch.isfinite(multi_label(3, smoothing=0.1).training_loss(torch.zeros(3, 3), shares))


@pytest.mark.parametrize(
    ("task", "balance", "is_multi_label", "field", "sentence"),
    [
        ("multi_label", "none", False, "data.task", "Every image has one class"),
        ("multi_class", "none", True, "data.task", "the task multi_class is for images of one"),
        ("binary", "none", True, "data.task", "the task binary is for images of one"),
        ("multi_label", "sampler", True, "data.balance", "one brings the others along"),
    ],
)
def test_what_does_not_go_with_the_labels_of_the_data_is_refused_beside_its_field(
    task: str, balance: str, is_multi_label: bool, field: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        check_task(DataConfig(task=task, balance=balance), summary(["a", "b"], is_multi_label=is_multi_label))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
