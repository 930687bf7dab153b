"""ChangeHistory: what people have changed of the live run, to be undone and done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from PySide6.QtCore import QObject, QTimer, Signal

from app.viewmodels.quantities import count_text, rate_text
from trainer.messages.base import Command
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    StateRestored,
)
from trainer.messages.commands import (
    FreezeLayers,
    Rewind,
    SetBatchNorm,
    SetRate,
    SetRateMultiplier,
    UnfreezeLayers,
)
from trainer.messages.events import AnyEvent

_UNDOABLE = (FreezeLayers, UnfreezeLayers, SetRate, SetRateMultiplier, SetBatchNorm)
_CHANGES = LayersFrozen | LayersUnfrozen | RateChanged | RateMultiplierChanged | BatchNormChanged


@dataclass(frozen=True)
class Change:
    """A change that the worker has made: its words, the commands that take it back, and the one that makes it again.

    ``number`` is the event's, which rises over the run's whole life; where it has none, that of the change before it.
    """

    text: str
    undo: Sequence[Command]
    redo: Command | None
    """None where undoing it is a rewind, which is undone itself."""
    number: int


@dataclass(eq=False)
class _Action:
    """What was asked for in one go, and is undone in one go: a preset may freeze some layers and unfreeze others."""

    changes: list[Change] = field(default_factory=list)
    undone_by: int | None = None
    """The number of the change that has undone it."""

    def was_in_force(self, before: int) -> bool:
        """Tell whether it is known to have been done, and not undone, just before the change of that number."""
        is_done = all(change.number < before for change in self.changes)
        return is_done and (self.undone_by is None or self.undone_by >= before)

    def follow(self, numbers: Sequence[int], *, is_undone: bool) -> None:
        """Take it that the changes of these numbers have undone it, or made it again."""
        self.undone_by = min(numbers) if is_undone else None
        if not is_undone:
            self.changes = [replace(change, number=max(numbers)) for change in self.changes]

    @property
    def number(self) -> int:
        return max(change.number for change in self.changes)

    @property
    def text(self) -> str:
        return ", ".join(change.text for change in self.changes)


class ChangeHistory(QObject):
    """Follows what was asked for, here or by another client, and what the worker says became of it.

    Nothing counts as done, undone or done again before the worker's event says so. What a plan or the advisor changes
    is nobody's change, and is not undone.
    """

    changed = Signal()
    """Something else can be undone or done again."""

    def __init__(self, send: Callable[[Command], str], parent: QObject | None = None) -> None:
        """Begin without any change; ``send`` sends a command and returns its id."""
        super().__init__(parent)
        self._send = send
        self._done: list[_Action] = []
        self._undone: list[_Action] = []
        self._kept: set[int] = set()
        """The changes to before which the run can go back, by their numbers."""
        self._undone_rewind_step: int | None = None
        self._restored = ""
        """Which checkpoint's state began the present piece of the curve, "" where something else did."""
        self._left: dict[int, tuple[list[_Action], list[_Action], str]] = {}
        """What could be undone and done again before the run went back, by the piece of the curve that this began."""
        self._asked: dict[str, _Action] = {}
        self._present: _Action | None = None
        self._moving: set[str] = set()
        self._moved_by: list[int] = []
        """The numbers of the changes that undo it, or make it again, as far as they have been made."""
        self._last_number = 0
        self._moved: _Action | None = None
        self._is_sending = self._is_refused = False

    # -- what the user does -----------------------------------------------------------------------------------

    def undo(self) -> None:
        """Ask for the last change to be taken back."""
        if self.can_undo and (action := self._last_done) is not None:
            self._move(action, [command for change in reversed(action.changes) for command in change.undo])
        elif self.can_undo:
            self._move(None, [Rewind(is_undo=True)])

    def redo(self) -> None:
        """Ask for the change that was undone last to be made again, or for a rewind to be undone."""
        if self.can_redo and self._undone:
            action = self._undone[-1]
            self._move(action, [change.redo for change in action.changes if change.redo is not None])
        elif self.can_redo:
            self._move(None, [Rewind(is_undo=True)])

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back, and none under way."""
        return bool(self.undo_text) and not self._moving

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to make again, and none under way."""
        return bool(self.redo_text) and not self._moving

    @property
    def undo_text(self) -> str:
        """Name what would be undone, "" for nothing."""
        if (action := self._last_done) is not None:
            return action.text
        if self._undone_rewind_step is None or not self._restored:
            return ""
        return self.tr("{} restored, back to step {}").format(self._restored, count_text(self._undone_rewind_step))

    @property
    def undoes_restore(self) -> bool:
        """Whether what would be undone is that a checkpoint was restored."""
        action = self._last_done
        is_restore = action is None or isinstance(action.changes[-1].undo[0], Rewind)
        return self.can_undo and is_restore

    @property
    def redo_text(self) -> str:
        """Name what would be made again, "" for nothing."""
        if self._undone:
            return self._undone[-1].text
        if self._undone_rewind_step is None or self._restored:
            return ""
        return self.tr("step {}, as before the run went back").format(count_text(self._undone_rewind_step))

    # -- what happens -----------------------------------------------------------------------------------------

    def note(self, command: Command) -> None:
        """Remember a command that the window has sent."""
        if self._is_sending or not isinstance(command, _UNDOABLE):
            return
        if self._present is None:
            self._present = _Action()
            # What is sent before the window takes the next click was asked for by one.
            QTimer.singleShot(0, self, self._end_action)
        self._asked[command.command_id] = self._present

    def take(self, event: AnyEvent) -> None:
        """Take what the worker says has changed."""
        if event.command_id in self._moving:
            self._settle(event.command_id, event)
            return
        # Of another client, nobody tells what it asked for in one go.
        self._note_done(self._asked.pop(event.command_id, _Action()), event)

    def offer_rewinds(self, changes: Sequence[int], undo_step: int | None) -> None:
        """Offer to go back to before these changes, and to where the run was before it went back (None: it cannot)."""
        if (set(changes), undo_step) != (self._kept, self._undone_rewind_step):
            self._kept, self._undone_rewind_step = set(changes), undo_step
            self.changed.emit()

    def refuse(self, command_id: str) -> None:
        """Take a refusal."""
        self._asked.pop(command_id, None)
        if command_id in self._moving:
            self._is_refused = True
            self._settle(command_id)

    def restore(self, event: StateRestored) -> None:
        """Take it that another state was put back: the changes that were in force in it, as far as they are known."""
        if isinstance(event, CheckpointRestored) and event.weights_only:
            self._note_done(_Action(), event)
            return
        before, left, number = (self._done, self._undone, self._restored), self._left, self._last_number
        self.clear()
        self._last_number = number
        if isinstance(event, RewindUndone):
            self._left = left
            self._done, self._undone, self._restored = left.pop(event.undone_segment, ([], [], ""))
        else:
            self._left = {**left, event.segment: before}
            if isinstance(event, RunRewound):
                known = [action for action in (*before[0], *before[1]) if action.was_in_force(event.change)]
                # Copies: what they were before comes back with the state that was left.
                self._done = [_Action(action.changes) for action in sorted(known, key=lambda each: each.number)]
            elif isinstance(event, CheckpointRestored):
                self._restored = self.tr("epoch {}").format(count_text(event.epoch))
        self.changed.emit()

    def open_run(self, log: Sequence[AnyEvent]) -> None:
        """Take what a run's folder says was changed and put back, as if it had been followed from its start."""
        self.clear()
        present = 0
        for event in log:
            if isinstance(event, StateRestored):
                self.restore(event)
            elif isinstance(event, _CHANGES):
                if event.segment > present:
                    # Nothing was put back: the run was begun anew.
                    self.clear()
                self.take(event)
            else:
                continue
            present = event.segment

    def clear(self) -> None:
        """Forget every change: another run is on display."""
        self._done, self._undone, self._asked, self._moving, self._present = [], [], {}, set(), None
        self._left, self._restored, self._last_number = {}, "", 0
        self.changed.emit()

    # -- inside -----------------------------------------------------------------------------------------------

    @property
    def _last_done(self) -> _Action | None:
        """Return what is undone next; weights that were restored only as long as the state before that is kept."""
        return next((action for action in reversed(self._done) if self._can_be_undone(action)), None)

    def _can_be_undone(self, action: _Action) -> bool:
        commands = [command for change in action.changes for command in change.undo]
        return all(command.change in self._kept for command in commands if isinstance(command, Rewind))

    def _note_done(self, action: _Action, event: AnyEvent) -> None:
        if (change := self._change_of(event)) is None:
            return
        if not action.changes:
            self._done.append(action)
            self._undone.clear()
        action.changes.append(change)
        self.changed.emit()

    def _change_of(self, event: AnyEvent) -> Change | None:
        number = self._number_of(event)
        match event:
            case LayersFrozen(layers=[_, *_] as units, source="user"):
                exactly = {"layers": units, "is_exact": True}
                return Change(event.sentence, [UnfreezeLayers(**exactly)], FreezeLayers(**exactly), number)
            case LayersUnfrozen(layers=[_, *_] as units, source="user"):
                exactly = {"layers": units, "is_exact": True}
                return Change(event.sentence, [FreezeLayers(**exactly)], UnfreezeLayers(**exactly), number)
            case RateChanged(rate=rate, before=before) if rate != before:
                text = self.tr("rate {}").format(rate_text(rate))
                return Change(text, [SetRate(rate=before)], SetRate(rate=rate), number)
            # Without what was before: of an earlier Thaw.
            case RateMultiplierChanged(
                layers=[_, *_] as units, before=[_, *_] as before, multiplier=multiplier, source="user"
            ):
                undo = [
                    SetRateMultiplier(
                        layers=[unit for unit, was in zip(units, before, strict=True) if was == value],
                        multiplier=value,
                        is_exact=True,
                    )
                    for value in dict.fromkeys(before)
                ]
                redo = SetRateMultiplier(layers=units, multiplier=multiplier, is_exact=True)
                return Change(event.sentence, undo, redo, number)
            case BatchNormChanged(layers=[_, *_] as units, is_adapting=is_adapting, source="user"):
                undo_it = SetBatchNorm(layers=units, is_adapting=not is_adapting)
                return Change(event.sentence, [undo_it], SetBatchNorm(layers=units, is_adapting=is_adapting), number)
            case CheckpointRestored(weights_only=True) if event.change:
                text = self.tr("weights restored, back to step {}").format(count_text(event.step))
                return Change(text, [Rewind(change=number)], None, number)
            case _:
                return None

    def _number_of(self, event: AnyEvent) -> int:
        """Return the number of a change. One that has none, or changed nothing, was made after the last that has."""
        number: int = getattr(event, "change", 0)
        self._last_number = max(self._last_number, number)
        return number or self._last_number

    def _move(self, action: _Action | None, commands: list[Command]) -> None:
        self._moved, self._moved_by, self._is_refused, self._is_sending = action, [], False, True
        self._moving = {self._send(command) for command in commands}
        self._is_sending = False
        self.changed.emit()

    def _settle(self, command_id: str, event: AnyEvent | None = None) -> None:
        self._moving.discard(command_id)
        if event is not None:
            self._moved_by.append(self._number_of(event))
        if not self._moving and not self._is_refused and self._moved is not None:
            is_undo = self._moved in self._done
            source, target = (self._done, self._undone) if is_undo else (self._undone, self._done)
            if self._moved in source:
                source.remove(self._moved)
                target.append(self._moved)
                self._moved.follow(self._moved_by, is_undone=is_undo)
        self.changed.emit()

    def _end_action(self) -> None:
        self._present = None
