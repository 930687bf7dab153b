"""RunOffers: what the run says that asks for a choice, with the buttons that make it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QObject

from app.run_display import RunDisplay
from app.session import TrainingSession
from app.viewmodels.quantities import count_text, rate_text
from app.views.notice import Notice
from trainer.messages.events import ChangeAdvised, StateChanged
from trainer.messages.states import RunState


class RunOffers(QObject):
    """Tells in the notice what happened to the run, and what can be done; nothing is done unless the user says so."""

    def __init__(self, session: TrainingSession, display: RunDisplay, notice: Notice, parent: QObject) -> None:
        super().__init__(parent)
        self._session, self._display, self._notice = session, display, notice
        self._restored, self._has_undo = "", False
        display.told.connect(self._tell)
        display.informed.connect(lambda sentence: notice.tell(sentence, is_trouble=False))
        display.restored.connect(self._tell_restored)
        display.changes.changed.connect(self._follow_undo)
        display.rate_offered.connect(self._offer_rate)
        display.parts_offered.connect(self._offer_parts)
        display.changes_found.connect(self._offer_resume)
        display.advised.connect(self._offer_change)
        for signal in (session.freeze_changed, session.checkpoint_restored, session.run_left):
            signal.connect(notice.take_back_advice)
        session.state_changed.connect(self._take_back_advice)
        display.settled.connect(notice.settle)

    def resume(self) -> None:
        """Go on with a run that has stopped, and take back what was told of that."""
        if self._session.can_resume:
            self._notice.settle()
            self._session.resume()

    def _tell(self, sentence: str, can_resume: bool) -> None:
        self._notice.tell(sentence, actions=[(self.tr("Resume"), self.resume)] if can_resume else [])

    def _tell_restored(self, sentence: str) -> None:
        """Say what was restored, with an Undo as long as the state before that is kept."""
        self._restored, self._has_undo = sentence, self._display.changes.undoes_restore
        actions = [(self.tr("Undo"), self._display.changes.undo)] if self._has_undo else []
        self._notice.tell(sentence, actions=actions, is_trouble=False)

    def _follow_undo(self) -> None:
        is_shown = bool(self._restored) and self._notice.text == self._restored
        if is_shown and self._display.changes.undoes_restore != self._has_undo:
            self._tell_restored(self._restored)

    def _offer_resume(self, sentence: str) -> None:
        """Offer to resume all the same a run of which something has changed since."""
        resume = partial(self._send, self._session.resume_anyway)
        self._notice.tell(sentence, actions=[(self.tr("Resume anyway"), resume)])

    def _offer_change(self, event: ChangeAdvised) -> None:
        """Offer the freeze or unfreeze that the worker proposes."""
        names = ", ".join(event.layers)
        if event.is_freeze:
            words, change = self.tr("Freeze {}").format(names), self._display.change_sender.freeze
        else:
            words, change = self.tr("Unfreeze {}").format(names), self._display.change_sender.unfreeze
        self._notice.advise(event.sentence, [(words, partial(change, event.layers))])

    def _take_back_advice(self, event: StateChanged) -> None:
        """Offer no change any more of what does not learn."""
        if event.state not in {RunState.RUNNING, RunState.PAUSED}:
            self._notice.take_back_advice()

    def _offer_rate(self, sentence: str, rate: float) -> None:
        """Offer what can be done where a loss was not finite; with each of these the run goes on."""
        session = self._session
        set_rate = partial(session.set_rate, rate)
        actions: list[tuple[str, Callable[[], None]]] = [
            (self.tr("Set the rate to {}").format(rate_text(rate)), partial(self._go_on, set_rate)),
            (self.tr("Go on without it"), self._go_on),
        ]
        if self._display.checkpoints.present.infos:
            restore = partial(session.restore, "last")
            actions.append((self.tr("Restore the last checkpoint"), partial(self._go_on, restore)))
        self._notice.tell(sentence, actions=actions)

    def _offer_parts(self, sentence: str, parts: int) -> None:
        """Offer batches in smaller parts where there was no memory for them; with that, or without, the run goes on."""
        halve = partial(self._session.change_training, batch_parts=parts)
        actions: list[tuple[str, Callable[[], None]]] = [
            (self.tr("Train in {} parts").format(count_text(parts)), partial(self._go_on, halve)),
            (self.tr("Try again"), self._go_on),
        ]
        self._notice.tell(sentence, actions=actions)

    def _go_on(self, *commands: Callable[[], object]) -> None:
        self._send(*commands, self._session.unpause)

    def _send(self, *commands: Callable[[], object]) -> None:
        for send in commands:
            send()
