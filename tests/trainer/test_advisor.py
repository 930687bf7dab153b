"""Advice: what the numbers must say for it, and that nothing is done unless the user says so."""

from __future__ import annotations

import math

import pytest

from tests.trainer.test_loop import Make, make_trainer, with_optimizer, with_training
from trainer.advisor import Advice, EpochLosses, Stage, advise
from trainer.config import PlanPhase, RunConfig
from trainer.messages.changes import LayersUnfrozen
from trainer.messages.events import ChangeAdvised

__all__ = ["make_trainer"]


def stages_of(*frozen: bool) -> list[Stage]:
    names = [f"stage{number}" for number in range(1, len(frozen) + 1)]
    return [
        Stage([name], [] if is_frozen else [name], [f"{name}.conv"])
        for name, is_frozen in zip(names, frozen, strict=True)
    ]


def losses(*pairs: tuple[float, float]) -> list[EpochLosses]:
    return [EpochLosses(*pair) for pair in pairs]


STUCK = losses((0.9, 0.95), (0.5, 0.52), (0.5, 0.519), (0.49, 0.52), (0.5, 0.518))
OVERFITTING = losses((0.9, 0.95), (0.6, 0.7), (0.4, 0.65), (0.25, 0.7), (0.1, 0.8))
FALLING = losses((0.9, 0.95), (0.8, 0.85), (0.7, 0.75), (0.6, 0.65), (0.5, 0.55))


def test_where_both_losses_stand_still_and_are_alike_the_next_stage_is_to_be_unfrozen() -> None:
    advice = advise(STUCK, stages_of(True, True, False), {})
    assert advice == Advice(
        ["stage2"],
        is_freeze=False,
        sentence="What learns is used up: validation loss 0.518, 1.04 times training's, and its best fell by 0.4% in 3 "
        "epochs. Unfreeze stage2?",
    )


def test_where_validation_rises_and_training_falls_the_first_stage_that_learns_is_to_be_frozen() -> None:
    advice = advise(OVERFITTING, stages_of(True, False, False), {})
    assert advice is not None
    assert (advice.layers, advice.is_freeze) == (["stage2"], True)
    assert "8.00 times training's, 23% above its best" in advice.sentence


def test_a_stage_that_hardly_moves_is_to_be_frozen_if_none_before_it_learns() -> None:
    ratios = {"stage1.conv": 1e-3, "stage2.conv": 2e-8}
    assert advise(FALLING, stages_of(False, False), ratios) is None
    advice = advise(FALLING, stages_of(True, False), ratios)
    assert advice is not None
    assert (advice.layers, advice.is_freeze) == (["stage2"], True)
    assert "2e-08 of their length" in advice.sentence


@pytest.mark.parametrize(
    ("history", "frozen"),
    [
        (FALLING, (True, False)),  # learning still
        (STUCK, (False, False)),  # nothing is left to unfreeze
        (STUCK[:3], (True, False)),  # too early to tell
        (OVERFITTING, (True, True)),  # nothing but the head learns
        ([*STUCK, EpochLosses(0.5, math.nan)], (True, False)),
    ],
)
def test_nothing_is_advised_without_a_reason(history: list[EpochLosses], frozen: tuple[bool, ...]) -> None:
    assert advise(history, stages_of(*frozen), {}) is None


def still(config: RunConfig, **training: object) -> RunConfig:
    """A run that cannot learn: its losses stay where they are."""
    return with_training(with_optimizer(config, rate=1e-12), epochs=6, **training)


def advised(events: list[object]) -> list[ChangeAdvised]:
    return [event for event in events if isinstance(event, ChangeAdvised)]


def test_a_run_that_stands_still_is_advised_once_and_changes_nothing(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(still(small_config))
    trainer.fit(lambda: None)
    (advice,) = advised(events)
    assert (advice.layers, advice.is_freeze) == (["stage4", "conv5"], False)
    assert trainer.freeze_set.describe(trainer.freeze_set.frozen) == "backbone"


def test_a_freeze_is_advised_only_of_what_learns_of_a_stage(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(small_config)
    trainer.changes.unfreeze(["stage4", "conv5"])
    trainer.changes.freeze(["conv5"])
    overfitting = [(epoch.train, epoch.validation) for epoch in OVERFITTING]
    for train, validation in overfitting[:-1]:
        trainer.reporter.advice.take_losses([train])
        trainer.reporter.advice.end_epoch(validation)
    train, validation = overfitting[-1]
    trainer.reporter.advice.take_losses([train])
    trainer._advise(validation)
    (advice,) = advised(events)
    assert (advice.layers, advice.is_freeze) == (["stage4"], True)
    assert advice.sentence.endswith("Freeze stage4?")


def test_a_run_that_is_to_act_on_advice_does_so_and_says_who_did(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(still(small_config, advisor="act"))
    trainer.fit(lambda: None)
    assert advised(events) == []
    (change,) = [event for event in events if isinstance(event, LayersUnfrozen)]
    assert (change.sentence, change.source) == ("stage4, conv5 unfrozen", "advisor")


@pytest.mark.parametrize("silent", ["off", "plan"])
def test_nothing_is_advised_where_that_is_off_or_while_a_plan_goes_on(
    make_trainer: Make, small_config: RunConfig, silent: str
) -> None:
    config = still(small_config, advisor="off" if silent == "off" else "tell")
    if silent == "plan":
        config = config.model_copy(update={"plan": [PlanPhase(epoch=5, unfreeze=["conv5"])]})
    trainer, events = make_trainer(config)
    trainer.fit(lambda: None)
    assert advised(events) == []
