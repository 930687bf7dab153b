"""The rate finder: where the loss falls most steeply, and that nothing of the trial is left."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from tests.trainer.test_loop import Make, make_trainer, with_data, with_training
from tests.trainer.test_rewinds import acting, digest
from trainer.checkpoints import read_rng
from trainer.config import RunConfig
from trainer.loop import Trainer
from trainer.messages.events import CheckpointSaved, MetricsLogged
from trainer.messages.run_info import RateCurve
from trainer.rate_finder import HIGHEST_RATE, LOWEST_RATE, find_rate, steepest

__all__ = ["make_trainer"]


NUM_TRIED = 24


def find(trainer: Trainer) -> RateCurve:
    return find_rate(trainer, lambda *_: None, lambda: None, NUM_TRIED)


def test_the_suggestion_is_where_the_loss_falls_most_steeply() -> None:
    rates = [10 ** (number / 10 - 6) for number in range(70)]
    losses = [2.0 - 1.5 / (1 + math.exp(-(number - 40) / 3)) for number in range(70)]
    assert steepest(rates, losses) == pytest.approx(rates[40])
    assert steepest(rates, [2.0 + number for number in range(70)]) is None
    assert steepest(rates[:11], losses[:11]) is None
    # The steepest part of a flat curve is noise.
    assert steepest(rates, [2.0 - 0.001 * number for number in range(70)]) is None
    # What falls back after it has jumped up is no learning.
    assert steepest([*rates, 20.0, 30.0, 40.0], [*losses, 9.0, 9.0, 4.0]) == pytest.approx(rates[40])


def test_rates_rise_evenly_until_the_loss_runs_away(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(with_training(small_config, batch_size=27))
    curve = find(trainer)
    assert curve.rates[0] == pytest.approx(LOWEST_RATE)
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) <= NUM_TRIED
    factor = (HIGHEST_RATE / LOWEST_RATE) ** (1 / (NUM_TRIED - 1))
    assert all(after == pytest.approx(before * factor) for before, after in pairwise(curve.rates))
    assert curve.suggestion == steepest(curve.rates, curve.smoothed)


def test_a_run_that_waits_in_mid_validation_can_be_searched_and_validates_again(
    make_trainer: Make, small_config: RunConfig
) -> None:
    config = with_training(small_config, epochs=1)
    straight, straight_events = make_trainer(config)
    straight.fit(lambda: None)
    trainer, events = make_trainer(config)
    found: list[RateCurve] = []

    def look() -> None:
        if trainer._phase == "validation" and not found:
            found.append(find_rate(trainer, lambda *_: None, lambda: None, num_steps=3))
            assert not trainer.module.training

    trainer.fit(look)
    assert len(found[0].rates) == 3
    assert digest(trainer) == digest(straight)
    ours, theirs = ([e.checkpoint.loss for e in told if isinstance(e, CheckpointSaved)]
                    for told in (events, straight_events))  # fmt: skip
    assert ours == theirs


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_run_in_mid_epoch_is_as_it_was_and_ends_as_the_run_that_was_not_asked(
    make_trainer: Make, small_config: RunConfig, is_cancelled: bool
) -> None:
    config = with_training(with_data(small_config, mixing="mixup"), epochs=2)
    straight, straight_events = make_trainer(config)
    straight.fit(lambda: None)

    trainer, events = make_trainer(config)
    num_checks: list[int] = []

    def cancel() -> None:
        num_checks.append(1)
        if is_cancelled and len(num_checks) == 5:
            raise KeyError

    def look() -> None:
        before, rng = digest(trainer), read_rng(trainer.device)
        frozen, rates = set(trainer.freeze_set.frozen), trainer.rates.state_dict()
        try:
            find_rate(trainer, lambda *_: None, cancel, num_steps=7)
        except KeyError:
            assert is_cancelled
        assert digest(trainer) == before
        assert torch.equal(read_rng(trainer.device)["torch"], rng["torch"])
        assert read_rng(trainer.device)["python"] == rng["python"]
        assert (trainer.step, trainer.epoch, trainer.batch, trainer.segment) == (5, 1, 1, 0)
        assert (trainer.freeze_set.frozen, trainer.rates.state_dict()) == (frozen, rates)
        assert trainer.freeze_set.find_drifted() == []

    trainer.fit(acting(trainer, (5, look)))
    assert digest(trainer) == digest(straight)

    def losses(told: list[object]) -> list[float]:
        logged = [event.series["Loss/train"] for event in told
                  if isinstance(event, MetricsLogged) and "Loss/train" in event.series]  # fmt: skip
        return [value for series in logged for value in series.values]

    assert losses(events) == losses(straight_events)
