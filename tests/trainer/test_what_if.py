"""Two branches from one checkpoint: equal to the bit where nothing is changed, and the first as the run itself was."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer.test_replay import LAST_STEP, SAVED_AT, bytes_of, saved_name, train
from trainer import what_if
from trainer.config import PlanPhase, RunConfig
from trainer.loop import Trainer
from trainer.messages.commands import FreezeLayers, SetBatchNorm, SetRate, SetRateMultiplier, UnfreezeLayers
from trainer.messages.what_if import ChangeTried, TriedChange, TryChange
from trainer.preparation import Preparation
from trainer.runs import RunFolder

pytestmark = pytest.mark.slow


def try_change(run_dir: Path, num_steps: int, *changes: TriedChange, checkpoint: str | None = None) -> ChangeTried:
    errand = Preparation(None, lambda _: None, lambda *_: None, lambda: None)
    name = checkpoint or saved_name(run_dir)
    command = TryChange(run_dir=str(run_dir), checkpoint=name, changes=changes, num_steps=num_steps)
    return what_if.try_change(errand, command, lambda *_: None)


@pytest.fixture
def config(small_config: RunConfig) -> RunConfig:
    """Return a run of three epochs of four steps, with all that could make two branches differ."""
    model = small_config.model.model_copy(update={"head_dropout": 0.5, "frozen": ["backbone"]})
    data = small_config.data.model_copy(update={"augmentation": "standard", "mixing": "cutmix"})
    optimizer = small_config.optimizer.model_copy(update={"schedule": "plateau"})
    plan = [PlanPhase(step=7, unfreeze=["conv5"])]
    return small_config.model_copy(update={"model": model, "data": data, "optimizer": optimizer, "plan": plan})


def recorded(run_dir: Path, tag: str) -> dict[int, float]:
    with closing(sqlite3.connect(run_dir / "run.db")) as db:
        return dict(db.execute("SELECT step, value FROM metrics WHERE tag = ? ORDER BY step", (tag,)))


def test_without_a_change_both_branches_are_to_the_bit_what_the_run_did(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    before = bytes_of(run_dir)
    # Over the end of an epoch, to the end of the next one.
    tried = try_change(run_dir, LAST_STEP - SAVED_AT)
    assert bytes_of(run_dir) == before
    same = {"step_ms": 0.0}
    assert tried.unchanged.model_copy(update=same) == tried.changed.model_copy(update=same)
    losses = recorded(run_dir, "Loss/train")
    assert tried.unchanged.steps == list(range(SAVED_AT + 1, LAST_STEP + 1))
    assert tried.unchanged.losses == [losses[step] for step in tried.unchanged.steps]
    assert tried.unchanged.validation["Loss/validation"] == recorded(run_dir, "Loss/validation")[LAST_STEP]
    assert tried.start != tried.unchanged.validation
    assert (tried.first_step, tried.num_steps, tried.notes) == (SAVED_AT, LAST_STEP - SAVED_AT, [])
    assert min(tried.unchanged.step_ms, tried.changed.step_ms) > 0


def test_a_branch_of_cached_features_is_what_the_run_did_and_has_nothing_to_note(
    small_config: RunConfig, tmp_path: Path
) -> None:
    data = small_config.data.model_copy(update={"augmentation": "light", "views": 2})
    run_dir = train(small_config.model_copy(update={"data": data}), tmp_path / "runs")
    tried = try_change(run_dir, LAST_STEP - SAVED_AT, SetRate(rate=0.01))
    losses = recorded(run_dir, "Loss/train")
    assert tried.unchanged.losses == [losses[step] for step in tried.unchanged.steps]
    # The rate of the first step's update shows in the second one's loss.
    assert tried.changed.losses[0] == tried.unchanged.losses[0]
    assert tried.changed.losses[1:] != tried.unchanged.losses[1:]
    assert tried.notes == []


def test_a_change_is_made_in_the_second_branch_alone(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    as_it_is = try_change(run_dir, 4)
    tried = try_change(run_dir, 4, UnfreezeLayers(layers=["stage4"]))
    assert tried.sentence.startswith("stage4")
    assert tried.sentence.endswith("unfrozen")
    assert tried.unchanged.losses == as_it_is.unchanged.losses
    assert tried.unchanged.validation == as_it_is.unchanged.validation
    # The first loss is of the weights before a step: that of the same batch and the same weights.
    assert len(tried.changed.losses) == 4
    assert tried.changed.losses[-1] != tried.unchanged.losses[-1]
    assert tried.changed.validation != tried.unchanged.validation
    # The plan has unfrozen conv5 in both.
    assert tried.unchanged.num_trainable == as_it_is.unchanged.num_trainable
    assert tried.changed.num_trainable > tried.unchanged.num_trainable


def test_every_change_that_a_run_knows_can_be_tried_and_several_together(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    tried = try_change(
        run_dir,
        2,
        UnfreezeLayers(layers=["stage4"]),
        FreezeLayers(layers=["stage4.3"]),
        SetRate(rate=0.01),
        SetRateMultiplier(layers=["fc"], multiplier=0.5),
        SetBatchNorm(layers=["conv1"], is_adapting=True),
    )
    said = tried.sentence.split("; ")
    assert len(said) == 5
    assert said[2] == "rate 0.01, 0.001 before"
    assert tried.changed.losses != tried.unchanged.losses


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (FreezeLayers(layers=["conv1"]), "Nothing would change: at this checkpoint it is so already."),
        (SetRate(rate=1e-3), "Nothing would change"),
        (UnfreezeLayers(layers=["layer9"]), "layer9"),
        (FreezeLayers(layers=["head"]), "nothing would be left to train"),
    ],
)
def test_a_change_that_cannot_be_tried_is_refused_before_the_first_step(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: TriedChange, reason: str
) -> None:
    run_dir = train(config, tmp_path / "runs")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(Trainer, "train_step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(ValueError, match=reason):
        try_change(run_dir, 4, change)
    assert not list((tmp_path / "scratch").iterdir())


def test_from_the_last_checkpoint_of_a_run_that_is_over_both_train_on(config: RunConfig, tmp_path: Path) -> None:
    training = config.training.model_copy(update={"patience": 1})
    run_dir = train(config.model_copy(update={"training": training}), tmp_path / "runs")
    with RunFolder(run_dir, read_only=True) as folder:
        last = folder.checkpoints.find("last")
    tried = try_change(run_dir, 9, SetRate(rate=0.01), checkpoint=last.name)
    assert tried.unchanged.steps == tried.changed.steps == list(range(last.step + 1, last.step + 10))
    assert any("both branches train on to" in note for note in tried.notes)


def test_a_branch_ends_where_its_loss_is_not_finite(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    step, forward = Trainer.train_step, []

    def overflow(trainer: Trainer, batches):  # type: ignore[no-untyped-def]
        if trainer.rates.rate == 10.0 and trainer.step == SAVED_AT + 2:
            forward.append(trainer.step)
            batches = [
                replace(batch, inputs=lambda batch=batch: tuple(each * torch.inf for each in batch.inputs()))
                for batch in batches
            ]
        return step(trainer, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", overflow)
        tried = try_change(run_dir, 6, SetRate(rate=10.0))
    assert forward == [SAVED_AT + 2]
    assert len(tried.unchanged.steps) == 6
    assert tried.changed.steps == [SAVED_AT + 1, SAVED_AT + 2]
    assert tried.changed.validation == {}
    assert tried.notes == [
        f"With the change, the loss or its gradient was NaN or infinite at step {SAVED_AT + 3}: that branch ends there."
    ]
