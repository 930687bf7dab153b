"""The learning rate over a run, beside torch's own schedulers, and through what a person does meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from trainer.config import OptimizerConfig
from trainer.rates import RateSchedule

NUM_EPOCHS, STEPS_PER_EPOCH = 8, 5
TOTAL_STEPS = NUM_EPOCHS * STEPS_PER_EPOCH


def make_optimizer() -> torch.optim.Optimizer:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    return torch.optim.SGD([{"params": [p], "name": name} for p, name in zip(parameters, "ab", strict=True)], lr=0.1)


def make_rates(**fields: Any) -> RateSchedule:
    config = OptimizerConfig(rate=0.1, **fields)
    return RateSchedule(config, make_optimizer(), TOTAL_STEPS, STEPS_PER_EPOCH)


def rates_of(rates: RateSchedule, steps: range) -> list[list[float]]:
    """Return the rates of each group at each step."""
    applied = []
    for step in steps:
        rates.set_rates(step)
        applied.append([group["lr"] for group in rates._optimizer.param_groups])
    return applied


@pytest.mark.parametrize(
    ("fields", "stock"),
    [
        ({"schedule": "constant"}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        ({"schedule": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL_STEPS)),
        (
            {"schedule": "step", "decay_epochs": 3, "decay_factor": 0.5},
            lambda o: lr_scheduler.StepLR(o, 3 * STEPS_PER_EPOCH, 0.5),
        ),
        ({"schedule": "one_cycle"}, lambda o: lr_scheduler.OneCycleLR(o, 0.1, TOTAL_STEPS)),
        (
            {"schedule": "cosine", "warmup_epochs": 1.2},
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.LinearLR(o, 1 / 6, 1.0, 5), lr_scheduler.CosineAnnealingLR(o, TOTAL_STEPS - 6)],
                [6],
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step\\(\\)` before")
@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # SequentialLR's own
def test_each_schedule_is_torchs(
    fields: dict[str, Any], stock: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]
) -> None:
    optimizer = make_optimizer()
    scheduler = stock(optimizer)
    expected = []
    for _ in range(TOTAL_STEPS - 1):
        expected.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step()
    rates = make_rates(**fields)
    for ours, theirs in zip(rates_of(rates, range(TOTAL_STEPS - 1)), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_plateau_lowers_the_rate_as_torch_does() -> None:
    losses = [1.0, 0.9, 0.95, 0.9, 0.91, 0.89999, 0.5, 0.6, 0.6, 0.6, 0.6, float("nan"), 0.6]
    optimizer = make_optimizer()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    rates = make_rates(schedule="plateau", decay_factor=0.5, decay_epochs=2)
    lowered = []
    for loss in losses:
        scheduler.step(loss)
        lowered.append(rates.end_epoch(loss))
        assert rates_of(rates, range(1))[0] == pytest.approx([group["lr"] for group in optimizer.param_groups])
    assert sum(lowered) == 3


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle", "plateau"])
def test_a_restored_schedule_goes_on_as_if_nothing_had_been(schedule: str) -> None:
    def course(rates: RateSchedule, steps: range) -> list[list[float]]:
        applied = []
        for step in steps:
            if step == 11:
                rates.multiply(["b"], 0.25)
                rates.ramp(["a"], step)
            if step % STEPS_PER_EPOCH == 0:
                rates.end_epoch(1.0)
            applied += rates_of(rates, range(step, step + 1))
        return applied

    fields = {"schedule": schedule, "decay_epochs": 1, "ramp_steps": 6, "warmup_epochs": 0.5}
    straight = make_rates(**fields)
    before = course(straight, range(14))
    state = json.loads(json.dumps(straight.state_dict()))
    expected = course(straight, range(14, TOTAL_STEPS))
    resumed = make_rates(**fields)
    resumed.load_state_dict(state)
    assert course(resumed, range(14, TOTAL_STEPS)) == expected
    assert before != expected[: len(before)]


def test_an_unfrozen_layers_rate_rises_over_the_ramp_and_the_others_stay() -> None:
    rates = make_rates(ramp_steps=4)
    rates.ramp(["b"], 10)
    assert rates_of(rates, range(10, 16)) == [
        pytest.approx([0.1, 0.1 * share]) for share in (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
    ]
    assert make_rates(ramp_steps=0).state_dict()["unfrozen_at"] == {}


def test_a_multiplier_and_a_new_rate_hold_from_the_next_step_on() -> None:
    rates = make_rates()
    rates.multiply(["a"], 0.1)
    assert rates_of(rates, range(1)) == [pytest.approx([0.01, 0.1])]
    rates.rate = 0.5
    assert rates_of(rates, range(1, 2)) == [pytest.approx([0.05, 0.5])]
    assert rates.applied == 0.5
    rates.multiply(["a"], 1.0)
    assert rates_of(rates, range(2, 3)) == [pytest.approx([0.5, 0.5])]


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_spans_another_length_from_the_next_step_on(schedule: str) -> None:
    changed, meant = make_rates(schedule=schedule), make_rates(schedule=schedule)
    meant.total_steps = 2 * TOTAL_STEPS
    rates_of(changed, range(7))
    changed.total_steps = 2 * TOTAL_STEPS
    assert rates_of(changed, range(7, 2 * TOTAL_STEPS)) == rates_of(meant, range(7, 2 * TOTAL_STEPS))
    assert rates_of(changed, range(30, 31)) != rates_of(make_rates(schedule=schedule), range(30, 31))


def test_a_frozen_layers_group_follows_the_schedule_and_is_right_when_it_is_unfrozen() -> None:
    """Stock schedulers keep a group that was added in mid-run off their course."""
    rates = make_rates(schedule="cosine", ramp_steps=0)
    a, b = rates_of(rates, range(20, 21))[0]
    assert a == b == pytest.approx(0.05)
