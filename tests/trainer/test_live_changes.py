"""What a person changes of a run as it trains: its length and its patience, and that these survive a resume."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.trainer.test_loop import Make, make_trainer, with_optimizer, with_plan, with_training
from trainer.config import ConfigError, PlanPhase, RunConfig
from trainer.loop import RunStopped, Trainer
from trainer.messages.changes import PhaseBegan, PlanChanged, RateChanged, TrainingChanged
from trainer.messages.events import CheckpointSaved, LogWritten, ProgressReported, RunPrepared
from trainer.messages.run_info import InForce, RunInfo
from trainer.schedules import Plan

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
    phases = PlanPhase(epoch=2, unfreeze=["conv5"]), PlanPhase(plateau=1, unfreeze=["stage4"])
    trainer, _ = make_trainer(with_plan(small_config, *phases))
    _, *warnings = trainer.changes.change_training(2, None)
    assert all(isinstance(warning, LogWritten) for warning in warnings)
    assert [warning.text for warning in warnings] == [
        "The plan's phase at epoch 2 never comes: the run now ends before it.",
        "The plan's phase at a plateau of 1 epochs never comes: the run now ends before it.",
    ]
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
    # The rate belongs to the checkpoint, the length and the plan to the run.
    restored, *_ = second.restore(early.name)
    assert restored.rate == small_config.optimizer.rate
    assert second.in_force == InForce(rate=small_config.optimizer.rate, epochs=7, patience=2, plan=phases)
    folder.add_event(restored)
    assert folder.run_info().present == second.in_force


def test_a_change_of_an_earlier_preparation_does_not_count_twice(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder
    folder.add_event(RunPrepared(run=info_of(trainer), step=0, epoch=0))
    folder.add_event(RateChanged(rate=0.5, before=0.1, requested_step=1, applied_step=1, segment=0))
    folder.add_event(RunPrepared(run=info_of(trainer), step=0, epoch=0))
    assert folder.run_info().present.rate == small_config.optimizer.rate


AT_1, AT_2, AT_3 = (PlanPhase(epoch=epoch, unfreeze=[f"stage{5 - epoch}"]) for epoch in (1, 2, 3))
LATER, OTHER = PlanPhase(epoch=4, unfreeze=["conv5"]), PlanPhase(step=10, unfreeze=["conv1"])


def planned(config: RunConfig) -> RunConfig:
    return with_training(with_plan(config, AT_1, AT_2, AT_3), epochs=6)


def stop_at(trainer: Trainer, step: int, acts: dict[int, Callable[[], object]]) -> None:
    """Train to a step, with what happens before others, and have the run's folder keep what a worker would tell."""

    def between_steps() -> None:
        while act := acts.pop(trainer.step, None):
            act()
        if trainer.step == step:
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(between_steps)


def test_a_plan_that_was_changed_is_the_runs_after_a_kill(make_trainer: Make, small_config: RunConfig) -> None:
    first, events = make_trainer(planned(small_config))
    folder = first._folder
    folder.add_event(RunPrepared(run=info_of(first), step=0, epoch=0))

    def change() -> None:
        events.append(first.changes.set_plan([LATER]))

    # Killed after the second phase began, with the checkpoint of the epoch before it.
    stop_at(first, 10, {9: change})
    for event in events:
        if isinstance(event, PhaseBegan | PlanChanged):
            folder.add_event(event)
    assert first.plan.phases == [AT_1, AT_2, LATER]
    point = folder.checkpoints.find("1")
    first.close()
    second, told = make_trainer(planned(small_config))
    restored, *others = second.go_on(folder, point)
    began = next(event for event in others if isinstance(event, PhaseBegan))
    assert (restored.plan, restored.num_phases_begun) == ([AT_1, AT_2, LATER], 0)
    assert began.num_begun == 1
    assert second.in_force.plan == [AT_2, LATER]
    for event in (restored, began):
        folder.add_event(event)
    assert folder.run_info().present == second.in_force
    stop_at(second, 17, {})
    begun = [event.plan[event.num_begun - 1] for event in told if isinstance(event, PhaseBegan)]
    assert begun == [AT_2, LATER]
    # With no checkpoint to go on from, it begins anew with the plan that it has.
    third, _ = make_trainer(planned(small_config))
    third.go_on(folder, None)
    assert (third.plan.phases, third.plan.num_begun, third.step) == ([AT_1, AT_2, LATER], 0, 0)


def test_a_plan_that_was_changed_follows_what_had_begun_at_an_earlier_checkpoint(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(planned(small_config))
    saved: list[str] = []

    def save() -> None:
        saved.append(trainer.save(reason="user").name)

    def change() -> None:
        trainer.changes.set_plan([LATER])

    stop_at(trainer, 13, {6: save, 9: change})
    assert trainer.plan.phases == [AT_1, AT_2, LATER]
    restored, *_ = trainer.restore(saved[0])
    # Begun stays begun, the second is to begin again, the third was given up.
    assert (restored.plan, restored.num_phases_begun) == ([AT_1, AT_2, LATER], 1)
    events.clear()
    stop_at(trainer, 17, {})
    assert [event.step for event in events if isinstance(event, PhaseBegan)] == [8, 16]


def test_a_plan_that_was_changed_stays_when_the_run_is_rewound(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(planned(small_config))
    stop_at(
        trainer,
        11,
        {6: lambda: trainer.changes.freeze(["stage4"]), 9: lambda: trainer.changes.set_plan([OTHER, LATER])},
    )
    assert (trainer.plan.phases, trainer.plan.num_begun) == ([AT_1, AT_2, OTHER, LATER], 3)
    rewound, *_ = trainer.restoring.rewind(None, 6)
    assert (rewound.step, rewound.num_phases_begun) == (6, 1)
    assert rewound.plan == [AT_1, AT_2, OTHER, LATER]


def test_of_phases_that_are_equal_one_that_has_begun_takes_one_away() -> None:
    again, between = PlanPhase(plateau=1, unfreeze=["conv5"]), PlanPhase(plateau=1, freeze=["conv5"])
    plan = Plan([again, between, again])
    plan.begin_next()
    plan.go_on_with([again, between, again, LATER])
    assert (plan.phases, plan.num_begun) == ([again, between, again, LATER], 1)


def test_a_phase_that_waits_for_a_plateau_goes_on_waiting_unless_another_is_next() -> None:
    waiting, other = PlanPhase(plateau=2, unfreeze=["conv5"]), PlanPhase(plateau=2, unfreeze=["stage4"])
    plan = Plan([waiting])
    for _ in range(2):
        plan.end_epoch(1.0, 0.5)
    plan.go_on_with([waiting, LATER])
    plan.end_epoch(1.0, 0.5)
    assert plan.due(3, 12) == waiting
    plan.go_on_with([other])
    assert plan.due(3, 12) is None
