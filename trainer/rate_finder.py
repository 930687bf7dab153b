"""The rate finder: some steps at rising rates show how fast a run can learn; all of it is undone afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from trainer.config import OptimizerConfig
from trainer.data.archive import Progress
from trainer.loop import Trainer
from trainer.messages.run_info import RateCurve
from trainer.rates import RateSchedule

NUM_STEPS = 100
LOWEST_RATE, HIGHEST_RATE = 1e-6, 10.0
SMOOTHING = 0.9
"""Weight of the past in the smoothed loss, which begins without a bias, as Adam's averages do."""
_DIVERGED_AT = 4.0
"""The smoothed loss, as a multiple of its lowest, at which there is nothing more to learn from higher rates."""
LEAST_FALL = 0.05
"""Share by which the smoothed loss must fall for a rate to be suggested."""
_NUM_FIRST = 10
"""Steps that are not judged: the smoothed loss has too short a past there."""


def find_rate(
    trainer: Trainer, on_progress: Progress, check_cancelled: Callable[[], None], num_steps: int = NUM_STEPS
) -> RateCurve:
    """Train some steps at rates that rise from step to step (Smith 2015, arXiv 1506.01186), and undo them to the bit.

    Args:
        trainer: A run that waits; it is as it was when this returns or raises.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called between steps; raises to end the trial.
        num_steps: Steps from the lowest rate to the highest.

    Returns:
        The loss at each rate, measured and smoothed, and the rate at which the smoothed loss fell most steeply.

    """
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    # A run that was paused while it validated stands where gradients are off.
    with trainer.trial(), torch.enable_grad():
        sweep = _RateSweep(trainer.config.optimizer, trainer.optimizer, trainer.step, num_steps)
        sweep.take_multipliers(trainer.rates)
        trainer.rates = sweep
        trainer.freeze_set.set_mode(training=True)
        batches = trainer.features.train_batches(trainer.epoch, trainer.batch)
        average = 0.0
        for number in range(num_steps):
            check_cancelled()
            on_progress("Trying rates", number, num_steps, "steps")
            taken = trainer.take_batches(batches)
            if not taken:
                trainer.epoch, trainer.batch = trainer.epoch + 1, 0
                batches = trainer.features.train_batches(trainer.epoch)
                taken = trainer.take_batches(batches)
            loss = trainer.train_step(taken)
            if not math.isfinite(loss):
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            rates.append(sweep.applied)
            losses.append(loss)
            smoothed.append(average / (1 - SMOOTHING ** (number + 1)))
            if number > _NUM_FIRST and smoothed[-1] > _DIVERGED_AT * min(smoothed):
                break
    return RateCurve(rates=rates, losses=losses, smoothed=smoothed, suggestion=steepest(rates, smoothed))


def steepest(rates: list[float], smoothed: list[float]) -> float | None:
    """Return the rate at which the smoothed loss falls most steeply over the logarithm of the rate.

    None where it falls by less than ``LEAST_FALL`` in all: the steepest part of a flat curve is noise.
    """
    if len(smoothed) < _NUM_FIRST + 2:
        return None
    # Beyond its lowest the loss jumps up, and falls back from there: that is no learning.
    end = max(smoothed.index(min(smoothed)) + 1, _NUM_FIRST + 2)
    judged = torch.tensor(smoothed[_NUM_FIRST:end], dtype=torch.float64)
    # The logarithms of the rates are evenly spaced.
    (slope,) = torch.gradient(judged)
    lowest = int(slope.argmin())
    has_fallen = min(smoothed) < smoothed[_NUM_FIRST] * (1 - LEAST_FALL)
    return rates[_NUM_FIRST + lowest] if has_fallen and slope[lowest] < 0 else None


class _RateSweep(RateSchedule):
    """Rates from LOWEST_RATE to HIGHEST_RATE, each higher than the last one by the same factor."""

    def __init__(
        self, config: OptimizerConfig, optimizer: torch.optim.Optimizer, first_step: int, num_steps: int
    ) -> None:
        super().__init__(config, optimizer, num_steps, num_steps)
        self.rate = LOWEST_RATE
        self._first_step = first_step

    def take_multipliers(self, other: RateSchedule) -> None:
        """Multiply as another schedule does; no layer's rate is on its ramp."""
        self.load_state_dict({**other.state_dict(), "rate": LOWEST_RATE, "unfrozen_at": {}})

    def factor(self, step: int) -> float:
        """Return what the lowest rate is multiplied by."""
        return float((HIGHEST_RATE / LOWEST_RATE) ** ((step - self._first_step) / (self.total_steps - 1)))
