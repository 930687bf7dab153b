"""Early stopping: what counts as better, and a run that ends by it, at its best."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.trainer.test_loop import Make, make_trainer, weights, with_optimizer, with_training
from trainer.config import PlanPhase, RunConfig, TrainingConfig
from trainer.early_stopping import EarlyStopping
from trainer.loop import RunStopped, Trainer
from trainer.messages.changes import CheckpointRestored, PhaseBegan
from trainer.messages.events import CheckpointSaved, LogWritten, ProgressReported, StateChanged
from trainer.messages.states import RunState
from trainer.metrics import VALIDATION_ACCURACY, VALIDATION_LOSS, Evaluation
from trainer.run_record import best_checkpoint

__all__ = ["make_trainer"]


def counts(losses: list[float], **fields: object) -> list[int]:
    stopping = EarlyStopping(TrainingConfig.model_validate({"patience": 2, **fields}))
    counted = []
    for loss in losses:
        stopping.end_epoch({"Loss/validation": loss, "Accuracy/validation": -loss})
        counted.append(stopping.num_epochs)
    return counted


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_epochs_are_counted_since_the_last_better_one(metric: str) -> None:
    assert counts([1.0, 0.8, 0.9, 0.8, 0.7], stop_metric=metric) == [0, 0, 1, 2, 0]


def test_a_change_that_is_too_small_does_not_count_and_small_ones_add_up() -> None:
    assert counts([1.0, 0.95, 0.91, 0.89], min_change=0.1) == [0, 1, 2, 0]


def test_a_loss_that_is_not_a_number_is_never_better() -> None:
    assert counts([float("nan"), 1.0, float("nan"), 0.9]) == [1, 0, 1, 0]


# So large a rate makes every epoch worse than the first.
def worsening(config: RunConfig, **training: object) -> RunConfig:
    config = with_optimizer(config, name="SGD", rate=10.0, momentum=0.9, weight_decay=0.0, ramp_steps=0)
    return with_training(config, epochs=9, patience=2, **training)


def losses_of(events: list[object]) -> list[float]:
    return [event.checkpoint.loss for event in events if isinstance(event, CheckpointSaved)]


@pytest.mark.parametrize(("watched", "chosen"), [("loss", "auto"), ("accuracy", "auto"), ("accuracy", "f1")])
def test_what_is_restored_at_the_end_has_the_star(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, watched: str, chosen: str
) -> None:
    """The loss is lowest in the first epoch, the accuracy highest in the second, F1 in the third."""
    scores = iter([(0.5, 0.6, 0.6), (0.7, 0.9, 0.7), (0.6, 0.7, 0.8), (0.8, 0.8, 0.7)])
    metric = watched if chosen == "auto" else chosen
    validate = Trainer._validate

    def scored(trainer: Trainer, between_steps: Callable[[], None]) -> Evaluation | None:
        evaluation = validate(trainer, between_steps)
        tags = (VALIDATION_LOSS, VALIDATION_ACCURACY, "F1/validation")
        return replace(evaluation, values=dict(zip(tags, next(scores), strict=True)))

    monkeypatch.setattr(Trainer, "_validate", scored)
    config = with_training(small_config, epochs=9, patience=2, stop_metric=watched)
    rules = config.checkpoints.model_copy(update={"best_metric": chosen})
    trainer, events = make_trainer(config.model_copy(update={"checkpoints": rules}))
    sentence = trainer.fit(lambda: None)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    assert len(saved) == {"loss": 3, "accuracy": 4}[watched]
    best = saved[{"loss": 0, "accuracy": 1, "f1": 2}[metric]]
    assert f"Its best checkpoint by {'F1' if chosen == 'f1' else 'that'}, {best.name}, is restored." in sentence
    assert [e.name for e in events if isinstance(e, CheckpointRestored)] == [best.name]
    folder = trainer._folder
    assert folder.best_metric() == metric
    assert best_checkpoint(folder.checkpoints.listed(), metric) == folder.checkpoints.find("best") == best
    assert folder.checkpoints.confusion("best").checkpoint == best.name
    assert folder.listing().best_accuracy == best.accuracy


@pytest.mark.parametrize("restores", [True, False])
def test_a_run_that_gets_no_better_ends_at_its_best_checkpoint(
    make_trainer: Make, small_config: RunConfig, restores: bool
) -> None:
    trainer, events = make_trainer(worsening(small_config, restore_best=restores))
    sentence = trainer.fit(lambda: None)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    best = min(saved, key=lambda info: info.loss)
    assert len(saved) == best.epoch + 2 < 9
    assert sentence.startswith("Stopped early: the validation loss has not fallen for 2 epochs.")
    progress = [(e.num_epochs_no_better, e.patience) for e in events if isinstance(e, ProgressReported)]
    assert (1, 2) in progress
    kept = best if restores else saved[-1]
    assert (best.name in sentence) == restores
    assert [e.name for e in events if isinstance(e, CheckpointRestored)] == ([best.name] if restores else [])
    theirs = trainer._store.load(kept)["model_state_dict"]
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in weights(trainer).items())


def test_the_best_checkpoint_of_a_run_that_ended_early_is_put_back_as_it_is(
    make_trainer: Make, small_config: RunConfig
) -> None:
    # A phase after each epoch, that changes nothing.
    plan = [PlanPhase(epoch=epoch, rates={"head": 1.0}) for epoch in range(1, 9)]
    trainer, events = make_trainer(worsening(small_config).model_copy(update={"plan": plan}))
    trainer.fit(lambda: None)
    (restored,) = [event for event in events if isinstance(event, CheckpointRestored)]
    assert restored.num_phases_begun == restored.epoch - 1
    # The next phase would begin again, in a run that is over.
    assert not [event for event in events[events.index(restored) :] if isinstance(event, PhaseBegan)]


def test_a_run_that_ended_early_does_not_train_on_after_a_trial_in_its_test(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(worsening(small_config))
    tested: list[int] = []

    def test(_: object) -> bool:
        """Evaluate the test split, in whose midst a rate is looked for the first time."""
        tested.append(trainer.step)
        if len(tested) == 1:
            with trainer.trial():
                pass
            return False
        return True

    monkeypatch.setattr(trainer, "_test", test)
    sentence = trainer.fit(lambda: None)
    assert len(tested) == 2
    assert sentence.startswith("Stopped early: ")
    # The run's last state says it; a note of it as well would say it twice.
    assert not [event for event in events if isinstance(event, LogWritten) and "Stopped early" in event.text]
    assert len([event for event in events if isinstance(event, CheckpointRestored)]) == 1


def test_epochs_that_are_added_during_the_test_are_trained(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = make_trainer(with_training(small_config, epochs=1))
    tested: list[int] = []

    def test(_: object) -> bool:
        tested.append(trainer.epoch)
        if len(tested) == 1:
            trainer.changes.change_training(2, None)
        return True

    monkeypatch.setattr(trainer, "_test", test)
    trainer.fit(lambda: None)
    assert (trainer.epoch, tested) == (2, [1, 2])


def test_a_run_that_goes_on_from_its_test_and_ends_early_again_is_put_back_and_told_again(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(worsening(small_config))
    tested: list[int] = []

    def test(_: object) -> bool:
        tested.append(trainer.step)
        if len(tested) == 1:
            trainer.changes.change_training(None, trainer.early_stopping.patience + 1)
        return True

    monkeypatch.setattr(trainer, "_test", test)
    sentence = trainer.fit(lambda: None)
    assert len(tested) == 2
    assert sentence.startswith("Stopped early: ")
    assert f"for {trainer.early_stopping.patience} epochs" in sentence
    assert len([event for event in events if isinstance(event, CheckpointRestored)]) == 2
    assert tested[0] == tested[1], "both times the same best"


def test_a_resume_goes_on_counting(make_trainer: Make, small_config: RunConfig) -> None:
    straight, straight_events = make_trainer(worsening(small_config))
    straight.fit(lambda: None)

    first, _ = make_trainer(worsening(small_config))
    best_epoch = len(losses_of(straight_events)) - 2

    def leave() -> None:
        if first.epoch == best_epoch + 1 and first.batch == 2:
            raise RunStopped

    with pytest.raises(RunStopped):
        first.fit(leave)
    info = first.save(reason="stop")
    second, events = make_trainer(worsening(small_config))
    second.go_on(first._folder, info)
    assert second.early_stopping.state_dict() == first.early_stopping.state_dict()
    assert second.early_stopping.num_epochs == 1
    second.fit(lambda: None)
    assert losses_of(events) == losses_of(straight_events)[best_epoch + 1 :]


def test_a_run_that_ended_early_and_is_resumed_has_its_patience_anew(
    make_trainer: Make, small_config: RunConfig
) -> None:
    first, events = make_trainer(worsening(small_config, restore_best=False))
    first.fit(lambda: None)
    last = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)][-1]
    first._folder.add_event(StateChanged(state=RunState.FINISHED))
    second, _ = make_trainer(worsening(small_config, restore_best=False))
    second.go_on(first._folder, last)
    assert second.early_stopping.num_epochs == 0
    second.fit(lambda: None)
    assert second.epoch == min(last.epoch + 2, 9)


def test_a_run_that_ended_early_and_is_put_back_by_hand_goes_on(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(worsening(small_config, restore_best=False))
    trainer.fit(lambda: None)
    last = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)][-1]
    trainer.restore(last.name)
    trainer.fit(lambda: None)
    assert trainer.epoch == min(last.epoch + 2, 9)


def test_a_best_checkpoint_that_is_gone_is_told_and_the_run_ends(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(worsening(small_config))

    def remove() -> None:
        for event in events:
            if isinstance(event, CheckpointSaved):
                (trainer._folder.checkpoints_dir / event.checkpoint.name).unlink(missing_ok=True)

    sentence = trainer.fit(remove)
    assert "was not restored" in sentence
    assert "is missing" in sentence


def test_the_state_of_the_counting_survives_its_checkpoint() -> None:
    stopping = EarlyStopping(TrainingConfig(patience=3))
    for loss in (1.0, 1.1):
        stopping.end_epoch({"Loss/validation": loss, "Accuracy/validation": 0.0})
    other = EarlyStopping(TrainingConfig(patience=3))
    other.load_state_dict(copy.deepcopy(stopping.state_dict()))
    for loss in (1.2, 1.3):
        other.end_epoch({"Loss/validation": loss, "Accuracy/validation": 0.0})
    assert other.is_over
