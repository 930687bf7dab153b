"""WhatIfViewModel: a change that is tried from a checkpoint, from what is asked to what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PySide6.QtCore import QObject, Signal

from app.errands import Errand
from app.viewmodels.checkpoint_columns import difference_text, value_text
from app.viewmodels.layer_rates import MAX_MULTIPLIER, LayerRates
from app.viewmodels.layer_rows import LayerRows
from app.viewmodels.long_work import LongWork
from app.viewmodels.quantities import (
    MISSING,
    count_text,
    duration_text,
    measure_text,
    milliseconds_text,
    number_text,
    rate_text,
    read_number,
    signed_text,
)
from trainer.config import ModelConfig, OptimizerConfig, RunConfig
from trainer.messages.commands import FreezeLayers, SetBatchNorm, SetRate, SetRateMultiplier, UnfreezeLayers
from trainer.messages.events import PreparationProgressed
from trainer.messages.run_info import CheckpointInfo, RunInfo
from trainer.messages.what_if import MAX_STEPS, ChangeTried, TriedChange, TryChange
from trainer.run_list import branch_config

Kind = Literal["unfreeze", "freeze", "rate", "multiplier", "adapting", "still"]
"""What is tried; the last two are that statistics go on in frozen layers, or are frozen with them."""
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_LAYERS = frozenset(KINDS) - {"rate"}
WITH_NUMBER: frozenset[Kind] = frozenset({"rate", "multiplier"})
_OFFERED_STEPS = 50
_OFFERED_MULTIPLIER = 0.1
_MAX_RATE = 10.0
_LOSS, _ACCURACY = "Loss/validation", "Accuracy/validation"


@dataclass(frozen=True)
class ComparedRow:
    """A measurement of both branches, in words."""

    name: str
    unchanged: str
    changed: str
    difference: str


class WhatIfViewModel(QObject):
    """Holds what is asked of one checkpoint, how far it is, and what came of it."""

    changed = Signal()
    """There is something else to show."""
    left = Signal()
    """The run is not on display any more, and its checkpoint with it."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.errand = Errand(self)
        self.errand.progressed.connect(self._progress)
        self.errand.done.connect(self._take)
        self.errand.failed.connect(self._refuse)
        self.errand.cancelled.connect(lambda: self._end(""))
        self.work = LongWork()
        self.checkpoint: CheckpointInfo | None = None
        self.layers: list[str] = []
        self.kind: Kind = "unfreeze"
        self.num_steps = _OFFERED_STEPS
        self.rate = ""
        self.multiplier = number_text(_OFFERED_MULTIPLIER, 1)
        self.tried: ChangeTried | None = None
        self.sentence = ""
        self.is_refused = False
        self.wrong: dict[str, str] = {}
        """What is wrong with a field, by its name: "layers", "rate", "multiplier" or "steps"."""
        self._rows = LayerRows(None)
        self._run: RunInfo | None = None
        self._changes: list[TriedChange] = []
        self._step_ms: float | None = None

    def open(self, run: RunInfo, info: CheckpointInfo, rows: LayerRows, step_ms: float | None) -> None:
        """Begin with a checkpoint of a run, whose model has these rows, and whose steps take so long."""
        self.errand.close()
        self._run, self.checkpoint, self._rows, self._step_ms = run, info, rows, step_ms
        self.layers = [row.fqn for row in rows.in_order() if row.fqn and row.atoms]
        self.kind = "unfreeze" if info.frozen else "freeze"
        self.num_steps = min(_OFFERED_STEPS, run.steps_per_epoch)
        self.rate = rate_text(run.present.rate)
        self.tried, self.wrong = None, {}
        self._end("")

    def leave(self) -> None:
        """End what goes on: its run is not on display any more."""
        self.errand.close()
        self.work.end()
        self.checkpoint = None
        self.left.emit()

    # -- what is asked ----------------------------------------------------------------------------------------

    def start(self, kind: Kind, layers: str, number: str, steps: str) -> None:
        """Try a change, or say beside a field what is wrong with it; ``number`` is the rate or the multiplier."""
        assert self._run is not None
        assert self.checkpoint is not None
        self.kind, self.wrong = kind, {}
        change = self._change(kind, layers, number)
        num_steps = read_number(steps)
        if num_steps is None or not num_steps.is_integer() or not 1 <= num_steps <= MAX_STEPS:
            self.wrong["steps"] = self.tr("A whole number from 1 to {}.").format(count_text(MAX_STEPS))
        if self.wrong or change is None or num_steps is None:
            self.changed.emit()
            return
        self.num_steps, self._changes, self.tried = int(num_steps), [change], None
        self._end("")
        self.errand.start(
            TryChange(
                run_dir=self._run.run_dir,
                checkpoint=self.checkpoint.name,
                changes=self._changes,
                num_steps=self.num_steps,
            )
        )
        self.changed.emit()

    def forget_wrong(self, field: str) -> None:
        """Say no more what is wrong with a field that is written anew."""
        self.wrong.pop(field, None)

    def _change(self, kind: Kind, layers: str, number: str) -> TriedChange | None:
        names = self._names(layers) if kind in OF_LAYERS else []
        value = self._value(kind, number) if kind in WITH_NUMBER else 1.0
        if self.wrong:
            return None
        match kind:
            case "rate":
                return SetRate(rate=value)
            case "multiplier":
                return self._multiplier_change(names, value)
            case "adapting" | "still":
                return self._batchnorm_change(names, is_adapting=kind == "adapting")
        return self._freeze_change(kind, names)

    def _value(self, kind: Kind, text: str) -> float:
        value, most = read_number(text), _MAX_RATE if kind == "rate" else MAX_MULTIPLIER
        if value is not None and 0 < value <= most:
            return value
        self.wrong[kind] = self.tr("A number above 0, up to {}.").format(rate_text(float(most)))
        return 0.0

    def _names(self, text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if not self._rows.atoms_of([name])]
        if not names:
            self.wrong["layers"] = self.tr("Name a layer, or several with commas between them.")
        elif unknown:
            self.wrong["layers"] = self.tr("The model has no layer {}. Choose one from the list.").format(unknown[0])
        return names

    def _freeze_change(self, kind: Kind, names: list[str]) -> TriedChange | None:
        assert self.checkpoint is not None
        atoms, frozen = self._rows.atoms_of(names), self._rows.atoms_of_set(self.checkpoint.frozen)
        if kind == "unfreeze" and atoms.isdisjoint(frozen):
            self.wrong["layers"] = self.tr("That is trainable at this checkpoint already.")
        elif kind == "freeze" and atoms <= frozen:
            self.wrong["layers"] = self.tr("That is frozen at this checkpoint already.")
        elif kind == "freeze" and atoms | frozen >= set(self._rows.atoms):
            self.wrong["layers"] = self.tr("Nothing would be left to train.")
        if self.wrong:
            return None
        return UnfreezeLayers(layers=names) if kind == "unfreeze" else FreezeLayers(layers=names)

    def _multiplier_change(self, names: list[str], multiplier: float) -> TriedChange | None:
        assert self.checkpoint is not None
        atoms, rates = self._rows.atoms_of(names), LayerRates(self._rows)
        rates.take(self.checkpoint.multipliers or {})
        whole = self._rows.whole_units(atoms)
        part = next((atom for atom in sorted(atoms) if self._rows.unit_of[atom] not in whole), None)
        if part is not None:
            text = self.tr("{part} is only a part of the layer {layer}. Name the whole layer.")
            self.wrong["layers"] = text.format(part=part, layer=self._rows.unit_of[part])
        elif atoms <= self._frozen_for_good():
            self.wrong["layers"] = self.tr("That is frozen at this checkpoint: no rate moves it.")
        elif self.checkpoint.multipliers is not None and rates.are_all(whole, multiplier):
            text = self.tr("Its rate is multiplied by {} at this checkpoint already.")
            self.wrong["multiplier"] = text.format(rate_text(multiplier))
        return None if self.wrong else SetRateMultiplier(layers=names, multiplier=multiplier)

    def _batchnorm_change(self, names: list[str], *, is_adapting: bool) -> TriedChange | None:
        assert self.checkpoint is not None
        units = self._rows.units_of(names) & self._rows.with_statistics
        adapting, has_plan = self.checkpoint.adapting, self._has_plan()
        frozen = self._rows.whole_units(self._rows.atoms_of_set(self.checkpoint.frozen))
        if not units:
            text = self.tr("There are no running statistics in that. Name a BatchNorm, or a layer above one.")
            self.wrong["layers"] = text
        elif units.isdisjoint(frozen) and not has_plan:
            self.wrong["layers"] = self.tr("That is trainable at this checkpoint: its statistics go on in any case.")
        elif adapting is not None and is_adapting and units <= set(adapting):
            self.wrong["layers"] = self.tr("Its statistics go on at this checkpoint already.")
        elif adapting is not None and not is_adapting and units.isdisjoint(adapting):
            self.wrong["layers"] = self.tr("Its statistics are frozen with it at this checkpoint already.")
        return None if self.wrong else SetBatchNorm(layers=names, is_adapting=is_adapting)

    def _frozen_for_good(self) -> set[str]:
        """Return what is frozen at the checkpoint, where nothing will unfreeze it within the steps."""
        assert self.checkpoint is not None
        return set() if self._has_plan() else self._rows.atoms_of_set(self.checkpoint.frozen)

    def _has_plan(self) -> bool:
        assert self._run is not None
        return bool(self._run.present.begun or self._run.present.plan)

    # -- what comes back --------------------------------------------------------------------------------------

    def _progress(self, event: PreparationProgressed) -> None:
        self.work.take(event)
        self.changed.emit()

    def _take(self, tried: ChangeTried) -> None:
        self.tried, self._step_ms = tried, tried.unchanged.step_ms or None
        self._end(self._verdict(tried))

    def _refuse(self, sentence: str) -> None:
        self._end(sentence, is_refused=True)

    def _end(self, sentence: str, *, is_refused: bool = False) -> None:
        self.work.end()
        self.sentence, self.is_refused = sentence, is_refused
        self.changed.emit()

    # -- in words ---------------------------------------------------------------------------------------------

    @property
    def is_going(self) -> bool:
        """Whether the branches are being trained."""
        return self.errand.is_going

    def forecast(self, steps: str) -> str:
        """Say what the steps take, as far as that is known: "about 0:12 in all"."""
        number = read_number(steps)
        if number is None or number < 1:
            return ""
        if self._step_ms is None:
            return self.tr("2 × {} steps").format(count_text(int(number)))
        return self.tr("about {} of training").format(duration_text(2 * number * self._step_ms / 1000))

    def rows(self) -> list[ComparedRow]:
        """Return what both branches gave; with dashes, before they did."""
        loss = self._compared(self.tr("Validation loss"), _LOSS)
        accuracy = self._compared(self.tr("Validation accuracy"), _ACCURACY)
        names = self.tr("Time per step"), self.tr("Trainable parameters")
        if (tried := self.tried) is None:
            return [loss, accuracy, *(ComparedRow(name, MISSING, MISSING, "") for name in names)]
        before, after = tried.unchanged, tried.changed
        ratio = f"× {measure_text(after.step_ms / before.step_ms)}" if before.step_ms and after.step_ms else ""
        times = [milliseconds_text(each.step_ms) if each.step_ms else MISSING for each in (before, after)]
        more = after.num_trainable - before.num_trainable
        counts = [count_text(each.num_trainable) for each in (before, after)]
        return [
            loss,
            accuracy,
            ComparedRow(names[0], times[0], times[1], ratio),
            ComparedRow(names[1], counts[0], counts[1], signed_text(count_text(abs(more)), more)),
        ]

    def _compared(self, name: str, tag: str) -> ComparedRow:
        branches = [] if self.tried is None else [self.tried.unchanged, self.tried.changed]
        before, after = [each.validation.get(tag) for each in branches] or [None, None]
        gap = "" if before is None or after is None else difference_text(tag, after - before)
        return ComparedRow(name, value_text(tag, before), value_text(tag, after), gap)

    @property
    def difference_text(self) -> str:
        """Return by how much the validation losses differ, "" where there is nothing to compare."""
        return self.rows()[0].difference

    def _verdict(self, tried: ChangeTried) -> str:
        before, after = tried.validation_losses
        if before is None or after is None:
            said = self.tr("With {}: there is nothing to compare, as a branch has ended before.").format(tried.sentence)
        else:
            template = (
                self.tr("After {} steps with {}, the validation loss is the same.")
                if before == after
                else self.tr("After {} steps with {}, the validation loss is {} lower.")
                if after < before
                else self.tr("After {} steps with {}, the validation loss is {} higher.")
            )
            much = number_text(abs(after - before), 4)
            said = template.format(count_text(tried.num_steps), tried.sentence, much)
            said += " " + self.tr("That is one measurement, with one seed.")
        return "\n".join([said, *tried.notes])

    def branched(self) -> RunConfig | None:
        """Return the configuration of a run that branches here with the change; None before it was tried."""
        if self._run is None or self.checkpoint is None or self.tried is None:
            return None
        config = branch_config(self._run.config, Path(self._run.run_dir), self.checkpoint)
        section: str
        values: Mapping[str, object]
        for change in self._changes:
            match change:
                case FreezeLayers() | UnfreezeLayers():
                    section, values = "model", {"frozen": self._frozen_after(change)}
                case SetBatchNorm():
                    section, values = "model", self._adapting_after(change, config.model)
                case SetRate():
                    section, values = "optimizer", {"rate": change.rate}
                case SetRateMultiplier():
                    section, values = "optimizer", {"multipliers": self._multipliers_after(change, config.optimizer)}
            section_after = getattr(config, section).model_copy(update=values)
            config = config.model_copy(update={section: section_after})
        return config

    def _frozen_after(self, change: FreezeLayers | UnfreezeLayers) -> list[str]:
        assert self.checkpoint is not None
        atoms, frozen = self._rows.atoms_of(change.layers), self._rows.atoms_of_set(self.checkpoint.frozen)
        return self._rows.names_of(frozen | atoms if isinstance(change, FreezeLayers) else frozen - atoms)

    def _adapting_after(self, change: SetBatchNorm, model: ModelConfig) -> dict[str, Any]:
        with_statistics = self._rows.with_statistics
        # Of an earlier Thaw it is not known of the checkpoint, and is as the run began.
        before = with_statistics if model.batchnorm == "adapting" else self._rows.units_of(model.adapting)
        units = self._rows.units_of(change.layers) & with_statistics
        after = before | units if change.is_adapting else before - units
        return {"batchnorm": "frozen", "adapting": self._rows.names_of_units(after, with_statistics)}

    def _multipliers_after(self, change: SetRateMultiplier, optimizer: OptimizerConfig) -> dict[str, float]:
        rates = LayerRates(self._rows)
        for name, multiplier in optimizer.multipliers.items():
            rates.multiply(self._rows.units_of([name]), multiplier)
        rates.multiply(self._rows.units_of(change.layers), change.multiplier)
        return rates.by_name()
