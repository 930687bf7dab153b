"""How a command of ``thaw`` has an errand done. Its progress goes to standard error: the result can be piped on."""

from __future__ import annotations

from typing import TypeVar

from rich.console import Console

from app.errand_process import ErrandProcess
from app.terminal import TerminalView
from trainer.messages.errands import AnyErrand, AnyErrandEvent

Outcome = TypeVar("Outcome", bound=AnyErrandEvent)


def do_errand(command: AnyErrand, outcome: type[Outcome]) -> Outcome:
    """Return what came of it, an event of the type that answers this command.

    Raises:
        CommandRefusedError: It cannot be done; the sentence says why.
        RunFailedError: Its process ended without a word of that.

    """
    with ErrandProcess(command) as process, TerminalView(Console(stderr=True)) as view:
        done = process.wait(view.show)
    assert isinstance(done, outcome)
    return done
