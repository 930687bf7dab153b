"""The advisor: proposes the next freeze or unfreeze from what the curves and the layers' updates say, with the numbers.

Three rules, each of which a person would go by, in this order: a validation loss that rises while the training's falls
is overfitting, and fewer parameters should learn; a part that hardly moves need not learn; one that has stopped falling
while both losses are alike has used up what learns, and more should learn.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.messages.events import LayerStatsReported

NUM_EPOCHS_LOOKED_AT = 3
LEAST_FALL = 0.01
"""Share by which the best validation loss of the last epochs must be below the best before, to be falling still."""
LARGE_GAP = 1.5
SMALL_GAP = 1.25
"""Validation's loss divided by that of training: overfitting from the one on, nothing of the kind up to the other."""
LEAST_RISE = 0.05
LEAST_UPDATE_RATIO = 1e-6
"""Length of an update divided by that of the weights, below which a part hardly moves: some 1e-3 is usual."""


@dataclass(frozen=True)
class Advice:
    """What is proposed: to freeze or unfreeze these layers, and why, with the numbers."""

    layers: list[str]
    is_freeze: bool
    sentence: str


@dataclass(frozen=True)
class EpochLosses:
    """The mean loss of training over an epoch, and that of validation at its end."""

    train: float
    validation: float


@dataclass(frozen=True)
class Stage:
    """A stage of the backbone: the layers that name it, those of them of which anything learns, and its units."""

    layers: list[str]
    learning: list[str]
    units: list[str]

    def update_ratio(self, ratios: Mapping[str, float]) -> float | None:
        """Return the median over its units, None where too few were measured."""
        measured = [ratios[unit] for unit in self.units if unit in ratios]
        return statistics.median(measured) if measured else None


def advise(losses: Sequence[EpochLosses], stages: Sequence[Stage], update_ratios: Mapping[str, float]) -> Advice | None:
    """Propose the next change, None where nothing calls for one.

    Args:
        losses: Of the epochs since what learns was changed last, in order.
        stages: The backbone's, from the input to the output.
        update_ratios: Length of the last measured update divided by that of the weights, by unit that learns.

    """
    if len(losses) <= NUM_EPOCHS_LOOKED_AT or not all(math.isfinite(epoch.validation) for epoch in losses):
        return None
    last, before, recent = losses[-1], losses[:-NUM_EPOCHS_LOOKED_AT], losses[-NUM_EPOCHS_LOOKED_AT:]
    best = min(epoch.validation for epoch in losses)
    gap = last.validation / max(last.train, 1e-12)
    learning = [stage for stage in stages if stage.learning]
    frozen = [stage for stage in stages if not stage.learning]
    told = f"validation loss {last.validation:.3g}, {gap:.2f} times training's"
    if learning and gap >= LARGE_GAP and last.validation >= best * (1 + LEAST_RISE) and last.train < before[-1].train:
        layers = learning[0].learning
        rise = last.validation / best - 1
        return Advice(
            layers,
            is_freeze=True,
            sentence=f"The run overfits ({told}, {rise:.0%} above its best while training's falls). "
            f"Freeze {', '.join(layers)}?",
        )
    # Only the first that learns: frozen behind another one, it would save little.
    ratio = learning[0].update_ratio(update_ratios) if learning else None
    if ratio is not None and ratio < LEAST_UPDATE_RATIO:
        layers = learning[0].learning
        return Advice(
            layers,
            is_freeze=True,
            sentence=f"{', '.join(layers)} hardly moves "
            f"(an update changes its weights by {ratio:.1g} of their length). "
            "Frozen, it costs no gradients. Freeze it?",
        )
    fall = 1 - min(epoch.validation for epoch in recent) / min(epoch.validation for epoch in before)
    if frozen and fall < LEAST_FALL and gap <= SMALL_GAP:
        layers = frozen[-1].layers
        return Advice(
            layers,
            is_freeze=False,
            sentence=f"What learns is used up: {told}, and its best fell by {max(fall, 0):.1%} in "
            f"{NUM_EPOCHS_LOOKED_AT} epochs. Unfreeze {', '.join(layers)}?",
        )
    return None


class AdviceInput:
    """Gathers what advice is based on, since what learns was changed last. The same advice is given once."""

    def __init__(self) -> None:
        self._losses: list[EpochLosses] = []
        self._train_losses: list[float] = []
        self._update_ratios: dict[str, float] = {}
        self._is_given = False

    def take_losses(self, losses: Sequence[float]) -> None:
        """Take the losses of some training steps."""
        self._train_losses += losses

    def take_norms(self, stats: LayerStatsReported) -> None:
        """Take what an update did in each layer."""
        measured = zip(stats.layers, stats.update_norms, stats.weight_norms, strict=True)
        self._update_ratios.update({layer: update / weight for layer, update, weight in measured if weight})

    def end_epoch(self, validation_loss: float) -> None:
        """Take the validation loss at the end of an epoch."""
        if self._train_losses:
            self._losses.append(EpochLosses(statistics.fmean(self._train_losses), validation_loss))
            self._train_losses = []

    def advise(self, of_model: Sequence[Stage]) -> Advice | None:
        """Propose the next change, if one is called for and none was proposed yet."""
        advice = None if self._is_given else advise(self._losses, of_model, self._update_ratios)
        self._is_given |= advice is not None
        return advice
