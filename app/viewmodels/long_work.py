"""LongWork: how far something is that takes long, in words."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from app.viewmodels.quantities import count_text, duration_text, size_text
from trainer.messages.events import PreparationProgressed

_SECONDS_BEFORE_A_FORECAST = 2.0


class LongWork:
    """Follows what a worker or an errand says of one thing after another that takes long."""

    def __init__(self) -> None:
        self._latest: PreparationProgressed | None = None
        self._began: PreparationProgressed | None = None

    def take(self, event: PreparationProgressed) -> None:
        """Follow it."""
        if self._latest is None or event.what != self._latest.what:
            self._began = event
        self._latest = event

    def end(self) -> None:
        """Say no more of it."""
        self._latest = self._began = None

    @property
    def is_going(self) -> bool:
        """Return whether there is anything to say."""
        return self._latest is not None

    @property
    def fraction(self) -> float:
        """Return how much of it is done, 0 to 1."""
        latest = self._latest
        return latest.done / latest.total if latest is not None and latest.total else 0.0

    @property
    def text(self) -> str:
        """Say how far it is: "Checking images · 1,200 of 5,000 images · 0:12 left"; "" where it is over."""
        event = self._latest
        if event is None:
            return ""
        if not event.total:
            return event.what
        if event.unit == "bytes":
            text = _tr("{} · {} of {}").format(event.what, size_text(event.done), size_text(event.total))
        else:
            text = _tr("{} · {} of {} {}").format(
                event.what, count_text(event.done), count_text(event.total), event.unit
            )
        seconds_left = self._seconds_left(event)
        return text if seconds_left is None else f"{text} · {_tr('{} left').format(duration_text(seconds_left))}"

    def _seconds_left(self, event: PreparationProgressed) -> float | None:
        began = self._began
        if began is None or event.done <= began.done or event.time - began.time < _SECONDS_BEFORE_A_FORECAST:
            return None
        return (event.total - event.done) * (event.time - began.time) / (event.done - began.done)


def _tr(text: str) -> str:
    return QCoreApplication.translate("LongWork", text)
