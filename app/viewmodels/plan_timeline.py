"""PlanTimeline: the phases of the run's plan in order, the present one, and whether it was changed by hand."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from app.plan_syntax import changes_text, start_text
from app.viewmodels.plan_text import change_sentence, start_sentence
from trainer.config import PlanPhase, RunConfig
from trainer.messages.changes import (
    FreezeChanged,
    PhaseBegan,
    PlanChanged,
    RunRewound,
    StateRestored,
)
from trainer.messages.states import RunState
from trainer.run_record import RunRecord


@dataclass(frozen=True)
class Stage:
    """One phase as it is shown; the first stands for the run's start.

    ``when`` and ``what`` are short, ``sentence`` says all of it. ``is_by_hand``: a person changed what it set up.
    ``is_never``: the run ends before it.
    """

    when: str
    what: str
    sentence: str
    is_past: bool
    is_present: bool
    is_by_hand: bool
    is_never: bool


class PlanTimeline(QObject):
    """Follows a run through its plan."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._frozen_at_start: list[str] = []
        self._phases: list[PlanPhase] = []
        self._num_begun = 0
        self._is_by_hand = False
        self._segment = 0
        self._length: tuple[int, int] | None = None
        """Epochs of the run, and the updates in each; None while they are not known."""
        self._is_over = False

    # -- what comes in ----------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Show no plan."""
        self.show_plan(RunConfig())

    def show_plan(self, config: RunConfig) -> None:
        """Show a run's plan from its beginning."""
        self._frozen_at_start, self._phases = list(config.model.frozen), list(config.plan)
        self._num_begun, self._is_by_hand, self._segment, self._is_over = 0, False, 0, False
        self.changed.emit()

    def open_run(self, record: RunRecord) -> None:
        """Show a run's plan as far as its folder says that it has come."""
        self.show_plan(record.config)
        for event in record.log:
            if isinstance(event, PhaseBegan):
                self.begin_phase(event)
            elif isinstance(event, PlanChanged):
                self.change_plan(event)
            elif isinstance(event, StateRestored):
                self.restore(event)
            elif isinstance(event, FreezeChanged):
                self.note_change(event)
        self.set_over(record.state is RunState.FINISHED)

    def set_length(self, num_epochs: int, steps_per_epoch: int) -> None:
        """Say how long the run is: phases behind its end are shown as never coming."""
        if (num_epochs, steps_per_epoch) != self._length:
            self._length = num_epochs, steps_per_epoch
            self.changed.emit()

    def set_over(self, is_over: bool) -> None:
        """Say whether the run has come to its end: what its patience cut off never comes."""
        if is_over != self._is_over:
            self._is_over = is_over
            self.changed.emit()

    def begin_phase(self, event: PhaseBegan) -> None:
        """Take note that the next phase has begun."""
        if event.segment >= self._segment:
            self._num_begun, self._is_by_hand = event.num_begun, False
            self.changed.emit()

    def change_plan(self, event: PlanChanged) -> None:
        """Take the plan that the worker says is in force."""
        self._phases, self._num_begun = list(event.plan), event.num_begun
        self.changed.emit()

    def restore(self, event: StateRestored) -> None:
        """Go back to where the plan stood in a state that was put back."""
        self._segment = event.segment
        # Before a change of the plan's own: that is not made again.
        is_without_plans_own = isinstance(event, RunRewound) and event.source == "plan"
        self._is_by_hand = event.is_plan_overridden or is_without_plans_own
        if event.rate is not None:
            # Runs of an earlier Thaw tell neither.
            self._phases = list(event.plan)
        self._num_begun = event.num_phases_begun
        self.changed.emit()

    def note_change(self, event: FreezeChanged) -> None:
        """Take note of a freeze or an unfreeze: one by hand overrides the present phase."""
        if event.source == "user" and event.layers and not self._is_by_hand:
            self._is_by_hand = True
            self.changed.emit()

    # -- what is shown ----------------------------------------------------------------------------------------

    @property
    def stages(self) -> list[Stage]:
        """Return the run's start and its phases; nothing where there is no plan."""
        if not self._phases:
            return []
        frozen = ", ".join(self._frozen_at_start)
        what = self.tr("{} frozen").format(frozen) if frozen else self.tr("everything learns")
        texts = [(self.tr("start"), what, self.tr("From the start: {}.").format(what))]
        for phase in (phase.model_dump() for phase in self._phases):
            sentence = f"{start_sentence(phase)}: {change_sentence(phase)}."
            texts.append((start_text(phase), changes_text(phase), sentence))
        num_coming = 1 + self._num_coming
        notes = {self._num_begun: self.tr("Changed by hand since.")} if self._is_by_hand else {}
        notes |= dict.fromkeys(range(num_coming, len(texts)), self.tr("It never comes: the run ends before it."))
        return [
            Stage(
                when,
                what,
                f"{sentence} {notes[position]}" if position in notes else sentence,
                is_past=position < self._num_begun,
                is_present=position == self._num_begun,
                is_by_hand=self._is_by_hand and position == self._num_begun,
                is_never=position >= num_coming,
            )
            for position, (when, what, sentence) in enumerate(texts)
        ]

    @property
    def _num_coming(self) -> int:
        """Count the phases that have begun or are to come; one that never does keeps those behind it from coming."""
        if self._is_over:
            return self._num_begun
        if self._length is None:
            return len(self._phases)
        to_come = range(self._num_begun, len(self._phases))
        return next((idx for idx in to_come if self._phases[idx].never_comes(*self._length)), len(self._phases))
