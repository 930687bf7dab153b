"""A run on images of several classes: it learns them, keeps what it measured, and goes on to the bit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.conftest import make_label_table
from tests.trainer.test_loop import Make, make_trainer, weights, with_data, with_optimizer, with_training
from trainer.config import RunConfig
from trainer.messages.events import CheckpointSaved, LogWritten, MetricsLogged
from trainer.run_record import best_checkpoint
from trainer.runs import RunFolderError

__all__ = ["make_trainer"]


@pytest.fixture
def labels_config(small_config: RunConfig, tmp_path: Path) -> RunConfig:
    """Return a run on 48 images of three bars each, there or not."""
    path = make_label_table(tmp_path / "bars")
    return with_data(small_config, path=str(path), task="multi_label", augmentation="none")


def test_several_labels_are_learned(make_trainer: Make, labels_config: RunConfig) -> None:
    learning = labels_config.model_copy(update={"model": labels_config.model.model_copy(update={"frozen": []})})
    trainer, events = make_trainer(with_training(with_optimizer(learning, rate=5e-3), epochs=16))
    trainer.fit(lambda: None)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    first, late = saved[0].metrics, [info.metrics for info in saved[-4:]]
    assert first.keys() == {f"{name}/validation" for name in ("Loss", "Accuracy", "F1", "AUROC", "Mean AP")}
    assert min(metrics["Loss/validation"] for metrics in late) < first["Loss/validation"] / 2
    assert max(metrics["F1/validation"] for metrics in late) > 0.9 > 0.6 > first["F1/validation"]
    assert max(metrics["AUROC/validation"] for metrics in late) > 0.95
    assert max(metrics["Mean AP/validation"] for metrics in late) > 0.95
    training = [
        event.series["Loss/train"]
        for event in events
        if isinstance(event, MetricsLogged) and "Loss/train" in event.series
    ]
    losses = [value for series in training for value in series.values]
    assert sum(losses[-10:]) < sum(losses[:10]) / 2
    best = best_checkpoint(saved, "accuracy")
    assert best is not None
    assert best.accuracy == max(info.metrics["Accuracy/validation"] for info in saved)
    assert trainer._store.load(saved[-1])["metrics"] == saved[-1].metrics
    with pytest.raises(RunFolderError, match="may have several classes, so that none is taken for another"):
        trainer._folder.checkpoints.confusion("latest")


@pytest.mark.parametrize(
    ("data", "training"),
    [
        ({}, {}),
        ({"mixing": "mixup", "augmentation": "standard", "balance": "class_weights"}, {"label_smoothing": 0.1}),
        ({"mixing": "cutmix"}, {"accumulate_batches": 2}),
    ],
)
def test_a_run_on_several_labels_that_is_resumed_in_mid_epoch_ends_where_the_straight_one_ends(
    make_trainer: Make, labels_config: RunConfig, data: dict[str, str], training: dict[str, object]
) -> None:
    config = with_training(with_data(labels_config, **data), epochs=2, **training)
    straight, _ = make_trainer(config)
    names: list[str] = []

    def save_once() -> None:
        if straight.step == 2 and not names:
            names.append(straight.save(reason="user").name)

    straight.fit(save_once)
    resumed, events = make_trainer(config)
    resumed.go_on(straight._folder, straight._folder.checkpoints.find(names[0]))
    assert resumed.step == 2
    resumed.fit(lambda: None)
    ours, theirs = weights(resumed), weights(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    assert saved[-1].metrics == straight._folder.checkpoints.find("last").metrics


def test_a_test_split_of_several_labels_is_evaluated(make_trainer: Make, labels_config: RunConfig) -> None:
    table = Path(labels_config.data.path)
    header, *rows = table.read_text().splitlines()
    split = ["train"] * 32 + ["val"] * 8 + ["test"] * 8
    table.write_text("\n".join([f"{header},split", *(f"{row},{name}" for row, name in zip(rows, split, strict=True))]))
    trainer, events = make_trainer(with_training(labels_config, epochs=1))
    trainer.fit(lambda: None)
    line = [event.text for event in events if isinstance(event, LogWritten)][-1]
    assert re.fullmatch(
        r"Test split \(8 images\), .*: loss [\d.]+, accuracy [\d.]+, F1 .*, AUROC .*, mean AP [\d.]+\.", line
    )
