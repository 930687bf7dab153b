"""What may change of a live run between two steps: what a person asks for, and what the run's plan has laid down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trainer.config import ConfigError, PlanPhase
from trainer.freezing import FreezeError
from trainer.live_run import LiveRun
from trainer.messages.base import Event
from trainer.messages.changes import (
    BatchNormChanged,
    FreezeChanged,
    LayersFrozen,
    LayersUnfrozen,
    PhaseBegan,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    TrainingChanged,
)
from trainer.messages.commands import (
    Change,
    ChangeTraining,
    FreezeLayers,
    SetBatchNorm,
    SetPlan,
    SetRate,
    SetRateMultiplier,
    UnfreezeLayers,
)
from trainer.messages.events import LogWritten
from trainer.optim import even_out_momentum
from trainer.schedules import by_rate, check_plan, frozen_after


class LiveChanges:
    """Changes a run here and now.

    Each change returns the events that say so, which nobody has been told yet. ``requested_step`` is the number of
    completed updates when it was asked for, None for now.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def make(self, command: Change, requested_step: int | None = None) -> list[Event]:
        """Make the change that a command asks for.

        Raises:
            ValueError: It cannot be made; the sentence says why.

        """
        asked: dict[str, Any] = {"requested_step": requested_step, "command_id": command.command_id}
        match command:
            case FreezeLayers():
                return [self.freeze(command.layers, is_exact=command.is_exact, **asked)]
            case UnfreezeLayers():
                return [self.unfreeze(command.layers, is_exact=command.is_exact, **asked)]
            case SetRate():
                return [self.set_rate(command.rate, **asked)]
            case SetRateMultiplier():
                layers, multiplier = command.layers, command.multiplier
                return [self.set_rate_multiplier(layers, multiplier, is_exact=command.is_exact, **asked)]
            case SetPlan():
                return [self.set_plan(command.phases, **asked)]
            case SetBatchNorm():
                return [self.set_batchnorm(command.layers, is_adapting=command.is_adapting, **asked)]
            case ChangeTraining():
                return self.change_training(command.epochs, command.patience, command.batch_parts, **asked)

    def freeze(
        self,
        layers: Sequence[str],
        *,
        but: Sequence[str] = (),
        is_exact: bool = False,
        requested_step: int | None = None,
        source: str = "user",
        command_id: str = "",
    ) -> LayersFrozen:
        """Freeze layers, ``but`` some of them.

        Raises:
            FreezeError: A name is no layer, or nothing would be left to train.

        """
        run, freeze_set = self._run, self._run.freeze_set
        changed = freeze_set.learning(layers, but=but, is_exact=is_exact)
        frozen = freeze_set.check(freeze_set.frozen_atoms.union(changed))
        sentence = f"{freeze_set.describe(changed)} frozen"
        with run.restoring.changing(sentence, source, is_change=bool(changed)) as number:
            freeze_set.set_frozen(frozen)
            run.plan.is_overridden |= number > 0 and source == "user"
            run.frozen_since.update(dict.fromkeys(changed, run.step))
        return LayersFrozen(
            layers=freeze_set.names_of(changed),
            sentence=sentence,
            change=number,
            source=source,
            **self._freezing(),
            **self._when(requested_step, command_id),
        )

    def unfreeze(
        self,
        layers: Sequence[str],
        *,
        is_exact: bool = False,
        requested_step: int | None = None,
        source: str = "user",
        command_id: str = "",
    ) -> LayersUnfrozen:
        """Unfreeze layers.

        Raises:
            FreezeError: A name is no layer.

        """
        run, freeze_set = self._run, self._run.freeze_set
        changed = freeze_set.frozen_among(layers, is_exact=is_exact)
        sentence = f"{freeze_set.describe(changed)} unfrozen"
        with run.restoring.changing(sentence, source, is_change=bool(changed)) as number:
            freeze_set.set_frozen(freeze_set.frozen_atoms.difference(changed))
            run.plan.is_overridden |= number > 0 and source == "user"
            frozen_since = {atom: run.frozen_since.pop(atom) for atom in changed}
            for parameter in freeze_set.parameters(filter(self._drops_state(frozen_since), changed)):
                run.optimizer.state.pop(parameter, None)
            even_out_momentum(run.optimizer)
            if run.step:
                # Adam's first steps after a pause are too long; before the first step there was no pause. A rate is of
                # a layer, so that a bias that learned all the while starts over with the weight beside it.
                run.rates.ramp(freeze_set.units_of(changed), run.step)
        return LayersUnfrozen(
            layers=freeze_set.names_of(changed),
            sentence=sentence,
            change=number,
            source=source,
            **self._freezing(),
            **self._when(requested_step, command_id),
        )

    def set_rate(self, rate: float, *, requested_step: int | None = None, command_id: str = "") -> RateChanged:
        """Change the run's rate."""
        before = self._run.rates.rate
        with self._run.restoring.changing(f"rate {rate:g}", "user", is_change=rate != before) as number:
            self._run.rates.rate = rate
        return RateChanged(rate=rate, before=before, change=number, **self._when(requested_step, command_id))

    def set_rate_multiplier(
        self,
        layers: Sequence[str],
        multiplier: float,
        *,
        is_exact: bool = False,
        requested_step: int | None = None,
        source: str = "user",
        command_id: str = "",
    ) -> RateMultiplierChanged:
        """Multiply the rate of layers.

        Raises:
            FreezeError: A name is no layer, or a part of one.

        """
        run = self._run
        before = run.rates.multipliers
        named = run.freeze_set.resolve_units(layers, is_exact=is_exact)
        changed = [unit for unit in named if before.get(unit, 1.0) != multiplier]
        sentence = f"{run.freeze_set.describe(changed)} at rate × {multiplier:g}"
        with run.restoring.changing(sentence, source, is_change=bool(changed)) as number:
            run.rates.multiply(changed, multiplier)
        return RateMultiplierChanged(
            layers=changed,
            before=[before.get(unit, 1.0) for unit in changed],
            change=number,
            multiplier=multiplier,
            sentence=sentence,
            multipliers=run.rates.multipliers,
            source=source,
            **self._when(requested_step, command_id),
        )

    def set_batchnorm(
        self, layers: Sequence[str], *, is_adapting: bool, requested_step: int | None = None, command_id: str = ""
    ) -> BatchNormChanged:
        """Let statistics go on in frozen layers, or not.

        Raises:
            FreezeError: A name is no layer, or none of them has running statistics.

        """
        freeze_set = self._run.freeze_set
        changed = freeze_set.set_adapting(layers, is_adapting=is_adapting)
        policy = "adapt when frozen" if is_adapting else "freeze with the layer"
        return BatchNormChanged(
            layers=changed,
            is_adapting=is_adapting,
            sentence=f"statistics of {freeze_set.describe_statistics(changed)} {policy}",
            adapting=sorted(freeze_set.adapting),
            source="user",
            **self._when(requested_step, command_id),
        )

    def set_plan(
        self, phases: Sequence[PlanPhase], *, requested_step: int | None = None, command_id: str = ""
    ) -> PlanChanged:
        """Have other phases follow those that have begun.

        Raises:
            ConfigError: A phase cannot work with this model, or with what is frozen now.

        """
        run = self._run
        check_plan(phases, run.freeze_set, run.num_epochs, run.steps_per_epoch, run.step)
        run.plan.replace_rest(phases)
        when = self._when(requested_step, command_id)
        return PlanChanged(plan=run.plan.phases, num_begun=run.plan.num_begun, **when)

    def change_training(
        self,
        epochs: int | None,
        patience: int | None,
        batch_parts: int | None = None,
        *,
        requested_step: int | None = None,
        command_id: str = "",
    ) -> list[Event]:
        """Change how long the run is, or in how many parts a batch goes through the model.

        None leaves a value as it is, a patience of 0 ends nothing early.

        Raises:
            ConfigError: The run is longer than that already, or a batch has too few images for so many parts.

        """
        run = self._run
        before = run.in_force
        if batch_parts is not None and batch_parts > run.most_parts:
            raise ConfigError(
                f"A batch of {run.config.training.batch_size} goes through the model in {run.most_parts} parts at "
                "most, each of two images: BatchNorm cannot take a single one.",
                "training.batch_size",
            )
        if epochs is not None and epochs != before.epochs and epochs <= run.epoch:
            raise ConfigError(
                f"Epochs cannot be {epochs}: the run is in epoch {run.epoch + 1} already. Choose {run.epoch + 1} or "
                "more, or stop the run.",
                "training.epochs",
            )
        run.set_length(
            before.epochs if epochs is None else epochs, before.patience if patience is None else patience or None
        )
        run.batch_parts = before.batch_parts if batch_parts is None else batch_parts
        changed = TrainingChanged(
            epochs=run.num_epochs,
            before_epochs=before.epochs,
            patience=run.early_stopping.patience,
            before_patience=before.patience,
            batch_parts=run.batch_parts,
            before_batch_parts=before.batch_parts,
            total_steps=run.total_steps,
            **self._when(requested_step, command_id),
        )
        to_come = run.plan.phases[run.plan.num_begun :]
        never = [phase for phase in to_come if phase.never_comes(run.num_epochs, run.steps_per_epoch)]
        texts = [f"The plan's phase at {phase.start} never comes: the run now ends before it." for phase in never]
        if run.batch_parts > before.batch_parts and run.freeze_set.adapting_buffers:
            at_once = run.config.training.batch_size // run.batch_parts
            texts.append(
                f"BatchNorm now takes its statistics from {at_once} images at a time: layers that learn may train less "
                "steadily. Frozen ones are as before."
            )
        return [changed, *(LogWritten(level="warning", text=text) for text in texts)]

    def follow_plan(self) -> list[Event]:
        """Make the plan's changes whose time has come, once: what a person then changes stays as it is."""
        run = self._run
        events: list[Event] = []
        while run.has_epochs_left and (phase := run.plan.due(run.epoch, run.step)):
            run.plan.begin_next()
            num_begun = run.plan.num_begun
            events.append(PhaseBegan(plan=run.plan.phases, num_begun=num_begun, step=run.step, segment=run.segment))
            try:
                run.freeze_set.check(frozen_after(phase, run.freeze_set, run.freeze_set.frozen_atoms))
                # What is to train comes first: at no moment is everything frozen.
                changes: tuple[FreezeChanged | RateMultiplierChanged, ...] = (
                    self.unfreeze(phase.unfreeze, source="plan"),
                    self.freeze(phase.freeze, but=phase.unfreeze, source="plan"),
                    *(self.set_rate_multiplier(layers, rate, source="plan") for layers, rate in by_rate(phase.rates)),
                )
                events += (change for change in changes if change.layers)
            except FreezeError as error:
                text = f"The plan's change at {phase.start} was left out. {error}"
                events.append(LogWritten(level="warning", text=text))
        return events

    def _when(self, requested_step: int | None, command_id: str) -> dict[str, Any]:
        """Return what the event of any change has."""
        step = self._run.step
        return {
            "requested_step": step if requested_step is None else requested_step,
            "applied_step": step,
            "segment": self._run.segment,
            "command_id": command_id,
        }

    def _freezing(self) -> dict[str, Any]:
        """Return what a freeze and an unfreeze say alike, after which the run's pace is another one."""
        self._run.reporter.forget()
        freeze_set = self._run.freeze_set
        return {"frozen": sorted(freeze_set.frozen), "num_trainable": freeze_set.num_trainable}

    def _drops_state(self, frozen_since: dict[str, int]) -> Callable[[str], bool]:
        """Tell of which atoms the optimizer's state is too old to be kept: it would make the first steps too long."""
        run = self._run
        choice = run.config.optimizer.state_on_unfreeze
        return lambda atom: (
            choice == "drop" or (choice == "auto" and run.step - frozen_since[atom] >= run.steps_per_epoch)
        )
