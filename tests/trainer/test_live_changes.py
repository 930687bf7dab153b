"""What a person changes of a run as it trains: its length and its patience, and that these survive a resume."""

from __future__ import annotations

import pytest

from tests.trainer.test_loop import Make, make_trainer, with_optimizer, with_plan
from trainer.config import ConfigError, PlanPhase, RunConfig
from trainer.loop import Trainer
from trainer.messages.changes import RateChanged, TrainingChanged
from trainer.messages.events import CheckpointSaved, LogWritten, ProgressReported, RunPrepared
from trainer.messages.run_info import InForce, RunInfo

__all__ = ["make_trainer"]


def info_of(trainer: Trainer) -> RunInfo:
    return RunInfo(
        run_dir=str(trainer._folder.path),
        config=trainer.config,
        summary=trainer.summary(),
        class_names=trainer.data.class_names,
        num_train=trainer.data.num_train,
        num_validation=trainer.data.num_validation,
        num_skipped=0,
        steps_per_epoch=trainer.steps_per_epoch,
        total_steps=trainer.total_steps,
        device="cpu",
        precision="fp32",
        num_threads=1,
        image_size=32,
        in_force=trainer.in_force,
    )


def at_step(trainer: Trainer, step: int, act: object) -> object:
    """Return what calls ``act`` once, at the boundary before a step."""
    done: list[object] = []

    def between_steps() -> None:
        if trainer.step == step and not done:
            done.append(act())

    return between_steps


@pytest.mark.parametrize(("epochs", "num_saved"), [(2, 2), (5, 5)])
def test_a_run_gets_shorter_or_longer_as_it_trains(
    make_trainer: Make, small_config: RunConfig, epochs: int, num_saved: int
) -> None:
    trainer, events = make_trainer(with_optimizer(small_config, schedule="cosine"))
    changed: list[object] = []
    trainer.fit(at_step(trainer, 5, lambda: changed.extend(trainer.changes.change_training(epochs, None))))
    (event,) = changed
    assert isinstance(event, TrainingChanged)
    assert (event.epochs, event.before_epochs, event.applied_step) == (epochs, 3, 5)
    assert event.total_steps == trainer.total_steps == trainer.rates.total_steps == 4 * epochs
    assert len([e for e in events if isinstance(e, CheckpointSaved)]) == num_saved
    last = [e for e in events if isinstance(e, ProgressReported)][-1]
    assert (last.num_epochs, last.total_steps, last.step) == (epochs, 4 * epochs, 4 * epochs)
    assert trainer.rates.factor(trainer.step) == pytest.approx(0.0, abs=1e-9)


def test_a_run_cannot_end_before_the_epoch_that_it_is_in(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    trainer.epoch = 1
    with pytest.raises(ConfigError, match=r"the run is in epoch 2 already\. Choose 2 or more") as caught:
        trainer.changes.change_training(1, None)
    assert caught.value.field == "training.epochs"
    assert trainer.num_epochs == 3
    trainer.changes.change_training(2, 4)
    assert trainer.in_force == InForce(rate=small_config.optimizer.rate, epochs=2, patience=4)
    trainer.changes.change_training(None, 0)
    assert trainer.in_force.patience is None


def test_phases_of_the_plan_that_a_shorter_run_never_reaches_are_told(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(with_plan(small_config, PlanPhase(epoch=2, unfreeze=["conv5"])))
    _, warning = trainer.changes.change_training(2, None)
    assert isinstance(warning, LogWritten)
    assert warning.text == "The plan's phase at epoch 2 never comes: the run now ends before it."
    trainer.fit(lambda: None)
    assert (trainer.epoch, trainer.plan.num_begun) == (2, 0)
    assert trainer.freeze_set.describe(trainer.freeze_set.frozen) == "backbone"


def test_what_is_in_force_survives_a_resume_and_a_restore(make_trainer: Make, small_config: RunConfig) -> None:
    first, _ = make_trainer(small_config)
    folder = first._folder
    folder.add_event(RunPrepared(run=info_of(first), step=0, epoch=0))
    early = first.save(reason="user")
    phases = [PlanPhase(epoch=3, unfreeze=["conv5"])]
    for event in (*first.changes.change_training(7, 2), first.changes.set_rate(0.02), first.changes.set_plan(phases)):
        folder.add_event(event)
    late = first.save(reason="user")
    run = folder.run_info()
    assert run.present == InForce(rate=0.02, epochs=7, patience=2, plan=phases) == first.in_force
    assert (run.total_steps, folder.num_epochs(), folder.listing().num_epochs) == (28, 7, 7)
    assert run.config == small_config

    second, _ = make_trainer(small_config)
    second.go_on(folder, late)
    assert second.in_force == first.in_force
    # The rate and the plan belong to the checkpoint, the length to the run.
    (restored,) = second.restore(early.name)
    assert restored.rate == small_config.optimizer.rate
    assert second.in_force == InForce(rate=small_config.optimizer.rate, epochs=7, patience=2)
    folder.add_event(restored)
    assert folder.run_info().present == second.in_force


def test_a_change_of_an_earlier_preparation_does_not_count_twice(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder
    folder.add_event(RunPrepared(run=info_of(trainer), step=0, epoch=0))
    folder.add_event(RateChanged(rate=0.5, before=0.1, requested_step=1, applied_step=1, segment=0))
    folder.add_event(RunPrepared(run=info_of(trainer), step=0, epoch=0))
    assert folder.run_info().present.rate == small_config.optimizer.rate
