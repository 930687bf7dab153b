"""Early stopping: when a run has trained long enough without getting better, counted on validation."""

from __future__ import annotations

import math
from typing import Any

from trainer.config import TrainingConfig
from trainer.metrics import VALIDATION_ACCURACY, VALIDATION_LOSS


class EarlyStopping:
    """Counts the epochs since validation was better than before by ``min_change``.

    Attributes:
        patience: Epochs without a better one after which the run ends; None: it never does. It may change as it runs.
        num_epochs: Epochs since the last better one.
        best_name: The checkpoint of the best epoch so far, "" before there is one.

    """

    def __init__(self, config: TrainingConfig) -> None:
        self.patience = config.patience
        self.num_epochs = 0
        self.best_name = ""
        self._is_loss = config.stop_metric == "loss"
        self._min_change = config.min_change
        # Costs: the loss, or the accuracy with its sign turned, so that less is better.
        self._best_cost = self._cost_to_beat = math.inf
        self._is_best = False

    @property
    def is_over(self) -> bool:
        """Whether the run is to end."""
        return self.patience is not None and self.num_epochs >= self.patience

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Take the validation metrics of an epoch. One that is NaN is not better."""
        cost = metrics[VALIDATION_LOSS] if self._is_loss else -metrics[VALIDATION_ACCURACY]
        self._is_best = cost < self._best_cost
        if self._is_best:
            self._best_cost = cost
        if cost < self._cost_to_beat - self._min_change or (math.isinf(self._cost_to_beat) and self._is_best):
            self._cost_to_beat, self.num_epochs = cost, 0
        else:
            self.num_epochs += 1

    def name_epoch(self, checkpoint: str) -> None:
        """Say which checkpoint the epoch that has just ended gets."""
        if self._is_best:
            self.best_name = checkpoint

    def sentence(self) -> str:
        """Say why the run ends."""
        what = "validation loss has not fallen" if self._is_loss else "validation accuracy has not risen"
        by = f" by {self._min_change:g}" if self._min_change else ""
        epochs = "1 epoch" if self.num_epochs == 1 else f"{self.num_epochs:,} epochs"
        return f"Stopped early: the {what}{by} for {epochs}."

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: plain values."""
        return {
            "num_epochs": self.num_epochs,
            "best_name": self.best_name,
            "best_cost": self._best_cost,
            "cost_to_beat": self._cost_to_beat,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.num_epochs, self.best_name = state["num_epochs"], state["best_name"]
        self._best_cost, self._cost_to_beat = state["best_cost"], state["cost_to_beat"]
        self._is_best = False
