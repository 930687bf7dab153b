"""RateSearchViewModel: the search for a learning rate, from the question to the rate that is taken over."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.viewmodels.quantities import count_text
from trainer.messages.events import CommandRejected, PreparationProgressed, RateFound
from trainer.messages.run_info import RateCurve


class RateSearchViewModel(QObject):
    """Holds what was asked, how far the worker is, and the curve that it found."""

    changed = Signal()
    """There is another curve, or something else to say."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.curve: RateCurve | None = None
        self.sentence = ""
        self.is_refused = False
        self._command_id = ""

    @property
    def is_searching(self) -> bool:
        """Whether the worker has yet to answer."""
        return bool(self._command_id)

    def begin(self, command_id: str) -> None:
        """Wait for the answer to a command."""
        self._command_id, self.curve = command_id, None
        self._say(self.tr("Trying rates …"))

    def progress(self, event: PreparationProgressed) -> None:
        """Say how far the worker is with it, or with what comes before it."""
        if not self.is_searching:
            return
        text = self.tr("{} …").format(event.what)
        if event.total and event.unit == "steps":
            text = self.tr("Trying rates: step {} of {}").format(count_text(event.done), count_text(event.total))
        self._say(text)

    def find(self, event: RateFound) -> None:
        """Take the curve."""
        if event.command_id != self._command_id:
            return
        self._command_id, self.curve = "", event.curve
        if event.curve.suggestion is None:
            self._say(self.tr("The loss fell at none of these rates. Check the data, or unfreeze more layers."))
        else:
            self._say(
                self.tr("The smoothed loss fell most steeply at the marked rate (Smith 2015, arXiv 1506.01186). ")
                + self.tr("The run is as it was before.")
            )

    def refuse(self, event: CommandRejected) -> None:
        """Take a refusal."""
        if event.command_id == self._command_id:
            self._command_id = ""
            self._say(event.reason, is_refused=not event.is_cancelled)

    def leave(self) -> None:
        """Wait no more: nobody looks, or nobody is left to answer."""
        self._command_id = ""
        self._say("")

    def _say(self, sentence: str, *, is_refused: bool = False) -> None:
        self.sentence, self.is_refused = sentence, is_refused
        self.changed.emit()
