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

    """

    def __init__(self, config: TrainingConfig) -> None:
        self.patience = config.patience
        self.num_epochs = 0
        self._is_loss = config.stop_metric == "loss"
        self._min_change = config.min_change
        # The loss, or the accuracy with its sign turned, so that less is better.
        self._cost_to_beat = math.inf

    @property
    def is_over(self) -> bool:
        """Whether the run is to end."""
        return self.patience is not None and self.num_epochs >= self.patience

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Take the validation metrics of an epoch. One that is NaN is not better."""
        cost = metrics[VALIDATION_LOSS] if self._is_loss else -metrics[VALIDATION_ACCURACY]
        if cost < self._cost_to_beat - self._min_change:
            self._cost_to_beat, self.num_epochs = cost, 0
        else:
            self.num_epochs += 1

    def sentence(self) -> str:
        """Say why the run ends."""
        what = "validation loss has not fallen" if self._is_loss else "validation accuracy has not risen"
        by = f" by {self._min_change:g}" if self._min_change else ""
        epochs = "1 epoch" if self.num_epochs == 1 else f"{self.num_epochs:,} epochs"
        return f"Stopped early: the {what}{by} for {epochs}."

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: plain values."""
        return {"num_epochs": self.num_epochs, "cost_to_beat": self._cost_to_beat}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.num_epochs, self._cost_to_beat = state["num_epochs"], state["cost_to_beat"]
