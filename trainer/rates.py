"""The learning rate of each layer at each step: a function of the step and of a few numbers that checkpoints keep.

Torch's own schedulers work each rate out of the last one, so that they lose their way where a rate is changed by hand,
and know one course for all layers. Here nothing is carried from step to step: a freeze, a restore or a live change of
a rate disturbs no schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from trainer.config import OptimizerConfig

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 250_000
"""Share of the steps on which the rate rises, and the first and the last rate: the defaults of torch's OneCycleLR."""

PLATEAU_THRESHOLD = 1e-4
"""A loss counts as lower from this share on, as in torch's ReduceLROnPlateau."""


class RateSchedule:
    """Sets the rate of each parameter group before an optimizer step.

    A group's rate is the run's rate × the schedule's factor at this step × the layer's multiplier × its ramp, which
    rises from 0 to 1 over ``ramp_steps`` after the layer was unfrozen: Adam's first steps after a pause are up to 4.6
    times too long.

    Attributes:
        total_steps: Optimizer updates in the whole run, which may be changed as it runs, too.
        rate: The run's rate, which may be changed as it runs.

    """

    def __init__(
        self, config: OptimizerConfig, optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int
    ) -> None:
        self.total_steps = total_steps
        self.rate = config.rate
        self._config = config
        self._optimizer = optimizer
        self._steps_per_epoch = steps_per_epoch
        self._multipliers: dict[str, float] = {}
        self._unfrozen_at: dict[str, int] = {}
        self._num_decays = 0
        self._lowest_loss = math.inf
        self._num_epochs_not_lower = 0
        self._applied: tuple[float, float] | None = None

    @property
    def applied(self) -> float:
        """Return the rate that the last update was made with, before multipliers and ramps."""
        return math.prod(self._applied or (self.rate, 1.0))

    def set_rates(self, step: int) -> None:
        """Set the rate of every group for the update that follows ``step`` completed ones."""
        base = (self.rate, self.factor(step))
        if base == self._applied and not self._unfrozen_at:
            return
        ramp_steps = self._config.ramp_steps
        self._unfrozen_at = {layer: since for layer, since in self._unfrozen_at.items() if step < since + ramp_steps}
        for group in self._optimizer.param_groups:
            rate = self.rate * base[1] * self._multipliers.get(group["name"], 1.0)
            since = self._unfrozen_at.get(group["name"])
            group["lr"] = rate if since is None else rate * (step - since + 1) / ramp_steps
        self._applied = base

    def factor(self, step: int) -> float:
        """Return what the schedule makes of the rate at a step, 0 to 1."""
        schedule = self._config.schedule
        if schedule == "one_cycle":
            return _one_cycle(step, self.total_steps)
        num_warmup = round(self._config.warmup_epochs * self._steps_per_epoch)
        if step < num_warmup:
            return (step + 1) / num_warmup
        if schedule == "cosine":
            num_steps = max(self.total_steps - num_warmup, 1)
            return 0.5 * (1 + math.cos(math.pi * min((step - num_warmup) / num_steps, 1)))
        if schedule == "step":
            num_decays = (step - num_warmup) // (self._config.decay_epochs * self._steps_per_epoch)
            return float(self._config.decay_factor**num_decays)
        return float(self._config.decay_factor**self._num_decays)

    def end_epoch(self, loss: float) -> bool:
        """Take the validation loss of an epoch. Returns whether the plateau schedule lowers the rate for it."""
        if self._config.schedule != "plateau":
            return False
        if loss < self._lowest_loss * (1 - PLATEAU_THRESHOLD):
            self._lowest_loss, self._num_epochs_not_lower = loss, 0
            return False
        self._num_epochs_not_lower += 1
        if self._num_epochs_not_lower <= self._config.decay_epochs:
            return False
        self._num_decays, self._num_epochs_not_lower = self._num_decays + 1, 0
        return True

    def ramp(self, layers: Iterable[str], step: int) -> None:
        """Let the rate of layers rise anew: they were unfrozen when ``step`` updates were complete."""
        if self._config.ramp_steps:
            self._unfrozen_at.update(dict.fromkeys(layers, step))

    @property
    def multipliers(self) -> dict[str, float]:
        """Return the layers whose rate is not the run's own, with what it is multiplied by."""
        return {layer: multiplier for layer, multiplier in self._multipliers.items() if multiplier != 1}

    def multiply(self, layers: Iterable[str], multiplier: float) -> None:
        """Set the multiplier of layers, by the names of their groups. 1 is the run's own rate."""
        self._multipliers.update(dict.fromkeys(layers, multiplier))
        self._applied = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: plain numbers and dicts of them."""
        return {
            "rate": self.rate,
            "multipliers": dict(self._multipliers),
            "unfrozen_at": dict(self._unfrozen_at),
            "num_decays": self._num_decays,
            "lowest_loss": self._lowest_loss,
            "num_epochs_not_lower": self._num_epochs_not_lower,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.rate = state["rate"]
        self._multipliers = dict(state["multipliers"])
        self._unfrozen_at = dict(state["unfrozen_at"])
        self._num_decays = state["num_decays"]
        self._lowest_loss = state["lowest_loss"]
        self._num_epochs_not_lower = state["num_epochs_not_lower"]
        self._applied = None


def _one_cycle(step: int, total_steps: int) -> float:
    """Rise as a half cosine, then fall likewise (Smith and Topin 2017, arXiv 1708.07120), as torch's OneCycleLR."""
    top = ONE_CYCLE_RISE * total_steps - 1
    if step <= top:
        return _half_cosine(ONE_CYCLE_START, 1.0, step / top)
    return _half_cosine(1.0, ONE_CYCLE_END, min((step - top) / max(total_steps - 1 - top, 1), 1))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
