"""Tasks and the metrics of a split, against their definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from trainer.config import METRICS, CheckpointsConfig, ConfigError, DataConfig, RunConfig, TrainingConfig
from trainer.messages.data_info import DataSummary
from trainer.metrics import Evaluation, SplitMetrics
from trainer.task import Binary, MultiClass, Task, check_task, make_task
from trainer.validation_metrics import METRIC_TAGS, check_best_metric, reported_metrics

CPU = torch.device("cpu")


def confusion_of(target: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (target, predicted), 1)
    return counts


def f1_scores(target: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the harmonic mean of precision and recall of each class."""
    counts = confusion_of(target, predicted, num_classes)
    return 2 * counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1))


def area(is_positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of pairs of a positive and a negative image of which the positive one scores higher."""
    positive, negative = scores[is_positive], np.sort(scores[~is_positive])
    below = np.searchsorted(negative, positive, side="left")
    equal = np.searchsorted(negative, positive, side="right") - below
    return float((below + equal / 2).mean() / len(negative))


def outputs(num_images: int, num_classes: int, sureness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw what a model that has learned something says of images: logits (B, C) and class indexes (B,)."""
    generator = torch.Generator().manual_seed(num_images * num_classes)
    target = torch.arange(num_images) % num_classes
    logits = torch.randn(num_images, num_classes, generator=generator)
    logits[torch.arange(num_images), target] += 1.2
    return sureness * logits, target


def evaluated(task: Task, logits: torch.Tensor, target: torch.Tensor, batch_size: int = 32) -> Evaluation:
    metrics = SplitMetrics("validation", task, CPU)
    for start in range(0, len(target), batch_size):
        metrics.add(logits[start : start + batch_size], target[start : start + batch_size])
    return metrics.compute()


def multi_class(num_classes: int, smoothing: float = 0.0) -> MultiClass:
    return MultiClass([str(idx) for idx in range(num_classes)], smoothing, None)


@pytest.mark.parametrize(("num_images", "num_classes", "sureness"), [(90, 3, 1), (4000, 7, 6), (3000, 101, 0.3)])
def test_the_metrics_of_several_classes_are_what_their_definitions_say(
    num_images: int, num_classes: int, sureness: float
) -> None:
    logits, target = outputs(num_images, num_classes, sureness)
    evaluation = evaluated(multi_class(num_classes), logits, target)
    probabilities, classes = logits.double().softmax(1).numpy(), target.numpy()
    predicted, own = probabilities.argmax(1), probabilities[np.arange(num_images), classes]
    expected = {
        "Loss/validation": float(-np.log(own).mean()),
        "Accuracy/validation": float((predicted == classes).mean()),
        "F1/validation": float(f1_scores(classes, predicted, num_classes).mean()),
    }
    if num_classes > 5:
        expected["Top-5 accuracy/validation"] = float(((probabilities > own[:, None]).sum(axis=1) < 5).mean())
    auroc = np.mean([area(classes == idx, probabilities[:, idx]) for idx in range(num_classes)])
    assert evaluation.values.pop("AUROC/validation") == pytest.approx(auroc, abs=1e-3)
    assert evaluation.values == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(evaluation.confusion, confusion_of(classes, predicted, num_classes))


def test_the_metrics_do_not_depend_on_how_the_images_come_in_batches() -> None:
    logits, target = outputs(3000, 7)
    at_once = evaluated(multi_class(7), logits, target, batch_size=3000)
    for batch_size in (1000, 37):
        in_batches = evaluated(multi_class(7), logits, target, batch_size)
        assert in_batches.confusion == at_once.confusion
        assert in_batches.values == pytest.approx(at_once.values, abs=1e-5)


@pytest.mark.parametrize(("sureness", "offset"), [(0.001, 0.0), (0.1, 2.0), (20.0, -3.0)])
def test_the_area_is_right_of_outputs_that_hardly_differ_and_of_very_sure_ones(sureness: float, offset: float) -> None:
    logits, target = outputs(2000, 2, sureness)
    logits = logits[:, 1:] + offset
    auroc = area(target.numpy() == 1, logits[:, 0].double().numpy())
    values = evaluated(Binary(["no", "yes"], 0.0, None), logits, target).values
    assert values["AUROC/validation"] == pytest.approx(auroc, abs=3e-3)


def test_a_class_without_images_does_not_count_in_the_area() -> None:
    logits, target = outputs(300, 3)
    target = target % 2
    first_two = area(target.numpy() == 1, logits.double().softmax(1).numpy()[:, 1])
    values = evaluated(multi_class(3), logits, target).values
    zero = area(target.numpy() == 0, logits.double().softmax(1).numpy()[:, 0])
    assert values["AUROC/validation"] == pytest.approx((first_two + zero) / 2, abs=1e-3)


@pytest.mark.parametrize("task", [multi_class(3), Binary(["no", "yes"], 0.0, None)])
def test_where_all_images_are_of_one_class_there_is_no_area(task: Task) -> None:
    logits = torch.zeros(8, 1 if isinstance(task, Binary) else 3)
    values = evaluated(task, logits, torch.ones(8, dtype=torch.int64)).values
    assert "AUROC/validation" not in values
    assert "Accuracy/validation" in values


def test_outputs_that_are_not_numbers_are_counted_and_shown_as_such() -> None:
    logits, target = outputs(60, 3)
    logits[7] = float("nan")
    evaluation = evaluated(multi_class(3), logits, target)
    assert np.isnan(evaluation.values["Loss/validation"])
    assert np.sum(evaluation.confusion) == 60


def test_label_smoothing_is_in_the_training_loss_only() -> None:
    logits, target = outputs(60, 3)
    task = multi_class(3, smoothing=0.1)
    spread = 0.9 * torch.nn.functional.one_hot(target, 3) + 0.1 / 3
    assert task.training_loss(logits, target).item() == pytest.approx(cross_entropy(logits, spread).item(), rel=1e-5)
    assert task.loss(logits, target).item() == pytest.approx(cross_entropy(logits, target).item())


def test_one_logit_gives_the_metrics_of_two_classes() -> None:
    """The logit of the second class is the difference of two: all but F1 then are those of two outputs."""
    logits, target = outputs(500, 2)
    one = evaluated(Binary(["no", "yes"], 0.0, None), logits[:, 1:] - logits[:, :1], target)
    two = evaluated(multi_class(2), logits, target)
    assert one.confusion == two.confusion
    probabilities = logits.double().softmax(1).numpy()[:, 1]
    assert one.values.pop("F1/validation") == pytest.approx(
        f1_scores(target.numpy(), (probabilities > 0.5).astype(int), 2)[1]
    )
    assert one.values.pop("AUROC/validation") == pytest.approx(area(target.numpy() == 1, probabilities), abs=1e-3)
    assert one.values == pytest.approx({tag: two.values[tag] for tag in one.values}, abs=1e-5)


def test_the_loss_of_one_logit_is_that_of_two_outputs_also_of_mixed_images_and_smoothed_labels() -> None:
    logits, target = outputs(64, 2)
    shares = torch.rand(64, 1).expand(-1, 2) * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])
    one, two = Binary(["no", "yes"], 0.2, None), multi_class(2, smoothing=0.2)
    difference = logits[:, 1:] - logits[:, :1]
    for targets in (target, shares):
        expected = two.training_loss(logits, targets).item()
        assert one.training_loss(difference, targets).item() == pytest.approx(expected, rel=1e-5)
        assert one.are_right(difference, targets).equal(two.are_right(logits, targets))


def summary(class_names: list[str], *, is_multi_label: bool = False) -> DataSummary:
    counts = {split: [4] * len(class_names) for split in ("train", "validation")}
    return DataSummary(layout="table", class_names=class_names, counts=counts, is_multi_label=is_multi_label)


def run_config(task: str, balance: str = "none", smoothing: float = 0.0) -> RunConfig:
    return RunConfig(data=DataConfig(task=task, balance=balance), training=TrainingConfig(label_smoothing=smoothing))


def test_class_weights_make_both_classes_of_a_binary_task_weigh_the_same() -> None:
    task = make_task(run_config("binary", "class_weights"), ["no", "yes"], [30, 10], 40, CPU)
    logits = torch.zeros(40, 1, requires_grad=True)
    task.training_loss(logits, torch.tensor([0] * 30 + [1] * 10)).backward()
    assert logits.grad is not None
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-6)


def test_a_binary_task_with_a_class_that_has_no_training_images_trains_unweighted() -> None:
    task = make_task(run_config("binary", "class_weights"), ["no", "yes"], [30, 0], 30, CPU)
    assert torch.isfinite(task.training_loss(torch.zeros(4, 1), torch.tensor([0, 0, 1, 1])))


@pytest.mark.parametrize(
    ("task", "num_classes"), [("multi_class", 5), ("multi_class", 6), ("binary", 2), ("multi_label", 6)]
)
def test_the_best_may_be_told_by_just_what_a_task_reports(task: str, num_classes: int) -> None:
    names = [str(idx) for idx in range(num_classes)]
    config = run_config(task)
    made = make_task(config, names, [4] * num_classes, 4 * num_classes, CPU)
    logits, target = outputs(60, num_classes)
    if task == "multi_label":
        target = torch.nn.functional.one_hot(target, num_classes).float()
    tags = set(evaluated(made, logits[:, : made.num_outputs], target).values)
    assert {METRIC_TAGS[metric] for metric in reported_metrics(task, num_classes)} == tags
    for metric in METRICS:
        chosen = config.model_copy(update={"checkpoints": CheckpointsConfig(best_metric=metric)})
        if METRIC_TAGS[metric] in tags:
            check_best_metric(chosen, num_classes)
        else:
            with pytest.raises(ConfigError, match=f"does not report {metric}, so that.* or ") as caught:
                check_best_metric(chosen, num_classes)
            assert caught.value.field == "checkpoints.best_metric"


def test_a_binary_task_for_three_classes_is_refused_with_the_field() -> None:
    with pytest.raises(ConfigError, match=r"two classes apart, but the data have 3 \(a, b, c\)") as caught:
        check_task(DataConfig(task="binary"), summary(["a", "b", "c"]))
    assert caught.value.field == "data.task"
