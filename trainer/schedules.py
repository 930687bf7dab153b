"""Freeze plans: the same commands that a person gives, issued when a phase's time has come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from trainer.config import ConfigError, PlanPhase
from trainer.freezing import FreezeError, FreezeSet, self_and_ancestors


class Plan:
    """The phases of a run, and how many of them have begun. A phase waits for those before it.

    Attributes:
        phases: All of them, in order.
        num_begun: How many have begun.
        is_overridden: A person has changed what the present one set up.

    """

    def __init__(self, phases: Sequence[PlanPhase]) -> None:
        self.phases = list(phases)
        self.num_begun = 0
        self.is_overridden = False
        self._best: float | None = None
        self._num_epochs_no_better = 0

    def due(self, epoch: int, step: int) -> PlanPhase | None:
        """Return the next phase, if its time has come when so many epochs and steps are complete."""
        if self.num_begun == len(self.phases):
            return None
        phase = self.phases[self.num_begun]
        if phase.epoch is not None:
            is_due = epoch >= phase.epoch
        elif phase.step is not None:
            is_due = step >= phase.step
        else:
            is_due = self._num_epochs_no_better >= (phase.plateau or 0)
        return phase if is_due else None

    def begin_next(self) -> None:
        """Take note that the next phase has begun."""
        self.num_begun += 1
        self.is_overridden = False
        self._begin_waiting()

    def end_epoch(self, loss: float, accuracy: float) -> None:
        """Take what validation gave at the end of an epoch: a phase may wait for it to get no better."""
        if self.num_begun == len(self.phases) or self.phases[self.num_begun].plateau is None:
            return
        value = accuracy if self.phases[self.num_begun].metric == "accuracy" else -loss
        if self._best is None or value > self._best or math.isnan(self._best):
            self._best, self._num_epochs_no_better = value, 0
        else:
            self._num_epochs_no_better += 1

    def go_on_with(self, phases: Sequence[PlanPhase]) -> None:
        """Have those of some phases follow that are not among the phases that have begun."""
        rest = list(phases)
        for begun in self.phases[: self.num_begun]:
            if begun in rest:
                # Not all that are equal: a plan may make the same change twice.
                rest.remove(begun)
        self.replace_rest(rest)

    def replace_rest(self, phases: Sequence[PlanPhase]) -> None:
        """Have other phases follow those that have begun."""
        is_next_another = [*phases[:1]] != self.phases[self.num_begun : self.num_begun + 1]
        self.phases = [*self.phases[: self.num_begun], *phases]
        if is_next_another:
            self._begin_waiting()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: plain numbers, texts and dicts of them."""
        return {
            "phases": [phase.model_dump() for phase in self.phases],
            "num_begun": self.num_begun,
            "is_overridden": self.is_overridden,
            "best": self._best,
            "num_epochs_no_better": self._num_epochs_no_better,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.phases = [PlanPhase.model_validate(phase) for phase in state["phases"]]
        self.num_begun = state["num_begun"]
        # An earlier Thaw did not keep it.
        self.is_overridden = state.get("is_overridden", False)
        self._best = state["best"]
        self._num_epochs_no_better = state["num_epochs_no_better"]

    def _begin_waiting(self) -> None:
        self._best = None
        self._num_epochs_no_better = 0


def frozen_after(phase: PlanPhase, freeze_set: FreezeSet, frozen: set[str]) -> set[str]:
    """Return which atoms are frozen after a phase began: a layer that it names both ways learns.

    Raises:
        FreezeError: It names a layer that the model has not.

    """
    return frozen.union(freeze_set.resolve(phase.freeze)).difference(freeze_set.resolve(phase.unfreeze))


def check_plan(
    phases: Sequence[PlanPhase], freeze_set: FreezeSet, num_epochs: int, steps_per_epoch: int, step: int = 0
) -> None:
    """Check the phases that are still to come after ``step`` updates against a model and the length of a run.

    Raises:
        ConfigError: A phase names a layer that the model has not, freezes all that is left, starts in the past or when
            the run is over, or stands behind a later one.

    """
    check_layers(phases, freeze_set, freeze_set.frozen_atoms)
    for phase in phases:
        start = phase.start_step(steps_per_epoch)
        if start is not None and start < step:
            raise ConfigError(
                f"The plan's phase at {phase.start} is in the past: the run is at step {step}, in epoch "
                f"{step // steps_per_epoch + 1}. Choose a later start.",
                "plan",
            )
        if phase.never_comes(num_epochs, steps_per_epoch):
            raise ConfigError(
                f"The plan's phase at {phase.start} never comes: the run has {num_epochs} epochs. "
                "Choose an earlier start, or more epochs.",
                "plan",
            )
    # Of a plateau, nobody can say when it comes.
    timed = [phase for phase in phases if phase.plateau is None]
    for earlier, later in pairwise(timed):
        if (earlier.start_step(steps_per_epoch) or 0) > (later.start_step(steps_per_epoch) or 0):
            raise ConfigError(
                f"The plan's phase at {later.start} stands behind the one at {earlier.start}. "
                "Write the phases in the order in which they come.",
                "plan",
            )


def check_layers(phases: Sequence[PlanPhase], freeze_set: FreezeSet, frozen: set[str]) -> None:
    """Check the layers of phases against a model, of which some atoms are ``frozen`` before.

    Raises:
        ConfigError: A phase names a layer that the model has not, or freezes all that is left.

    """
    for phase in phases:
        try:
            for layers, _ in by_rate(phase.rates):
                freeze_set.resolve_units(layers)
            frozen = frozen_after(phase, freeze_set, frozen)
            freeze_set.check(frozen)
        except FreezeError as error:
            raise ConfigError(f"The plan's phase at {phase.start}: {error}", "plan") from error


def multiplied_units(multipliers: Mapping[str, float], freeze_set: FreezeSet) -> list[tuple[list[str], float]]:
    """Return the units whose rate is multiplied from the start, with the number.

    Raises:
        ConfigError: The model has not such a layer, or only a part of one is named.

    """
    found = []
    for layers, multiplier in by_rate(multipliers):
        try:
            found.append((freeze_set.resolve_units(layers), multiplier))
        except FreezeError as error:
            raise ConfigError(f"The rate multiplier {multiplier:g}: {error}", "optimizer.multipliers") from error
    return found


def multipliers_by_name(multipliers: Mapping[str, float], freeze_set: FreezeSet) -> dict[str, float]:
    """Return multipliers of units as a configuration names them, where a name stands for all that is below it."""
    return {
        unit: multipliers.get(unit, 1.0)
        for unit in freeze_set.units
        if any(above in multipliers for above in self_and_ancestors(unit) if above or not unit)
    }


def by_rate(rates: Mapping[str, float]) -> list[tuple[list[str], float]]:
    """Return layers with what their rate is multiplied by, those together that follow each other with one number.

    Only all the parameters that a layer owns, named together, name the layer.
    """
    return [(list(layers), rate) for rate, layers in groupby(rates, key=rates.__getitem__)]
