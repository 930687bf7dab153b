"""The Trainer by itself: the plan, the jump of a restore, the same data for any number of loader processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from trainer.checkpoints import CheckpointError
from trainer.config import ConfigError, PlanPhase, RunConfig
from trainer.data.loader import ImageData
from trainer.data.scan import scan
from trainer.loop import RunStopped, Trainer
from trainer.messages import (
    CheckpointSaved,
    Event,
    LayersFrozen,
    LayersUnfrozen,
    LogWritten,
    MetricsLogged,
)
from trainer.models import build_model
from trainer.runs import RunFolder

Make = Callable[[RunConfig], tuple[Trainer, list[Event]]]


@pytest.fixture
def make_trainer(tmp_path: Path) -> Iterator[Make]:
    """Make trainers with a run folder of their own, and the list that their events go to."""
    trainers: list[Trainer] = []

    def make(config: RunConfig) -> tuple[Trainer, list[Event]]:
        events: list[Event] = []
        scanned = scan(Path(config.data.path), tmp_path / "cache", lambda *_: None, lambda: None)
        loaded = build_model(
            config.model,
            len(scanned.class_names),
            config.training.seed,
            config.data.image_size,
            lambda *_: None,
            lambda: None,
        )
        data = ImageData(config.data, config.training, loaded.preprocessing, scanned)
        trainer = Trainer(config, loaded, data, torch.device("cpu"), events.append)
        trainer.begin(RunFolder.create(tmp_path / "runs", config))
        trainers.append(trainer)
        return trainer, events

    yield make
    for trainer in trainers:
        trainer.close()


def with_plan(config: RunConfig, *phases: PlanPhase) -> RunConfig:
    return config.model_copy(update={"plan": list(phases)})


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}


def test_the_plan_unfreezes_at_the_start_of_its_epoch(make_trainer: Make, small_config: RunConfig) -> None:
    plan = (PlanPhase(epoch=1, unfreeze=["conv5"]), PlanPhase(epoch=2, freeze=["conv5"]))
    trainer, events = make_trainer(with_plan(small_config, *plan))
    trainer.fit(lambda: None)
    changes = [event for event in events if isinstance(event, LayersFrozen | LayersUnfrozen)]
    assert [(e.sentence, e.applied_step, e.source) for e in changes] == [
        ("conv5 unfrozen", 4, "plan"),
        ("conv5 frozen", 8, "plan"),
    ]
    assert next(e.checkpoint.frozen_summary for e in events if isinstance(e, CheckpointSaved)) == "backbone"


def test_a_hand_made_change_at_the_plans_epoch_stays(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(with_plan(small_config, PlanPhase(epoch=1, unfreeze=["conv5"])))
    done: list[str] = []

    def meddle() -> None:
        if trainer.step == 6 and not done:
            (first, *_) = [e.checkpoint.name for e in events if isinstance(e, CheckpointSaved)]
            done.extend(type(event).__name__ for event in trainer.restore(first))
            trainer.freeze(["conv5"])

    trainer.fit(meddle)
    assert done == ["CheckpointRestored", "LayersUnfrozen"]
    assert trainer.freeze_set.describe(trainer.freeze_set.frozen) == "backbone"


def test_an_epoch_that_could_not_be_saved_is_saved_when_the_run_goes_on(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(small_config)

    def fail(*_: object) -> None:
        raise CheckpointError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(trainer._store, "save", fail)
        with pytest.raises(CheckpointError):
            trainer.fit(lambda: None)
    assert not [event for event in events if isinstance(event, CheckpointSaved)]
    trainer.fit(lambda: None)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    assert [(info.epoch, info.step) for info in saved] == [(1, 4), (2, 8), (3, 12)]
    assert all(info.accuracy is not None for info in saved)


def test_a_plan_that_would_freeze_all_that_is_left_in_mid_run_is_passed_over_with_a_warning(
    make_trainer: Make, small_config: RunConfig
) -> None:
    model = small_config.model.model_copy(update={"frozen": []})
    config = with_plan(small_config.model_copy(update={"model": model}), PlanPhase(epoch=1, freeze=["backbone"]))
    trainer, events = make_trainer(config)
    trainer.freeze(["head"])
    trainer.fit(lambda: None)
    (warning,) = [event for event in events if isinstance(event, LogWritten)]
    assert "nothing would be left to train" in warning.text


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (PlanPhase(epoch=1, unfreeze=["stage9"]), "stage9"),
        (PlanPhase(epoch=3, unfreeze=["conv5"]), "never comes"),
        (PlanPhase(epoch=1, freeze=["head"]), "nothing would be left to train"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_before_the_run(
    make_trainer: Make, small_config: RunConfig, phase: PlanPhase, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make_trainer(with_plan(small_config, phase))
    assert caught.value.field == "plan"


def test_a_restore_in_mid_epoch_goes_on_from_there_and_ends_where_the_straight_run_ends(
    make_trainer: Make, small_config: RunConfig
) -> None:
    """To the bit, with dropout-free head and augmentation, whatever happened between."""
    straight, _ = make_trainer(small_config)
    straight.fit(lambda: None)

    trainer, events = make_trainer(small_config)
    done: list[str] = []

    def meddle() -> None:
        if trainer.step == 5 and not done:
            done.append(trainer.save(reason="user").name)
        if trainer.step == 7 and len(done) == 1:
            trainer.unfreeze(["stage4"])
        if trainer.step == 10 and len(done) == 1:
            trainer.restore(done[0])
            done.append("restored")
            assert (trainer.step, trainer.epoch, trainer.batch) == (5, 1, 1)

    trainer.fit(meddle)
    assert done[1:] == ["restored"]
    ours, theirs = weights(trainer), weights(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {e.segment for e in events if isinstance(e, MetricsLogged)} == {0, 1}


def test_the_number_of_loader_processes_changes_nothing(make_trainer: Make, small_config: RunConfig) -> None:
    trained = []
    for num_workers in (0, 2):
        training = small_config.training.model_copy(update={"num_loader_workers": num_workers, "epochs": 1})
        trainer, _ = make_trainer(small_config.model_copy(update={"training": training}))
        trainer.fit(lambda: None)
        trained.append(weights(trainer))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_stop_leaves_the_fit_at_a_step_boundary(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)

    def stop() -> None:
        if trainer.step == 3:
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(stop)
    assert trainer.step == trainer.batch == 3


def test_a_loss_that_is_not_finite_is_noticed_with_its_step(make_trainer: Make, small_config: RunConfig) -> None:
    optimizer = small_config.optimizer.model_copy(update={"name": "SGD", "rate": 10.0, "momentum": 0.99})
    trainer, _ = make_trainer(small_config.model_copy(update={"optimizer": optimizer}))
    with torch.no_grad():
        trainer.module.fc.weight.fill_(float("inf"))
    trainer.fit(lambda: None)
    assert trainer.non_finite_step == 1
