"""``python -m trainer.errand``: does one thing in a process of its own beside whatever trains, and ends.

It reads a command as a line of JSON from standard input, and writes the events as lines to standard output. When
standard input ends, nobody waits for it any more: it ends, and what is half written is taken away.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from trainer.frames import as_json
from trainer.messages.comparison import CompareCheckpoints
from trainer.messages.errands import AnyErrand, AnyErrandEvent, errand_from_json
from trainer.messages.events import CommandRejected, PreparationProgressed
from trainer.messages.export import ExportCheckpoint
from trainer.messages.replay import VerifyResume
from trainer.messages.what_if import TryChange

if TYPE_CHECKING:
    from trainer.preparation import Preparation

CANCELLED = 130
"""The exit code of one that was ended."""


def main() -> int:
    """Do what standard input asks for. Returns 0 where it is done, 2 where it is refused."""
    # As an exception, so that what is half written is taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CANCELLED))
    if hasattr(os, "nice"):
        # What trains beside it goes first.
        os.nice(5)
    events = _take_standard_output()
    command = errand_from_json(sys.stdin.readline())
    threading.Thread(target=_watch_standard_input, name="standard-input", daemon=True).start()

    def say(event: AnyErrandEvent) -> None:
        events.write(as_json(event) + "\n")
        events.flush()

    def report(what: str, done: int, total: int, unit: str) -> None:
        say(PreparationProgressed(what=what, done=done, total=total, unit=unit))

    report("Loading PyTorch", 0, 0, "")
    try:
        say(_do(command, report))
    except ValueError as error:
        say(CommandRejected(command=command.kind, reason=str(error), command_id=command.command_id))
        return 2
    return 0


def _do(command: AnyErrand, report: Callable[[str, int, int, str], None]) -> AnyErrandEvent:
    """Do it. Returns what came of it; raises a ValueError with the reason where it cannot be done."""
    # Each imports torch, after the first word was said.
    match command:
        case CompareCheckpoints():
            from trainer.comparison import compare

            return compare(command, report)
        case ExportCheckpoint():
            from trainer.export.checkpoint_export import export

            return export(command, report)
        case VerifyResume():
            from trainer.replay import verify

            return verify(_preparation(report), command, report)
        case TryChange():
            from trainer.what_if import try_change

            return try_change(_preparation(report), command, report)


def _preparation(report: Callable[[str, int, int, str], None]) -> Preparation:
    """Return what loads a run for a trial. It is ended by a signal, and need not look for that."""
    from trainer.preparation import Preparation

    return Preparation(None, lambda _: None, report, lambda: None)


def _take_standard_output() -> TextIO:
    """Return standard output for the events alone: what libraries print goes to standard error from now on."""
    sys.stdout.flush()
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return events


def _watch_standard_input() -> None:
    """End this process when the one that waits for it has gone, or gives it up."""
    # Not through sys.stdin: its lock would be held as the interpreter ends.
    os.read(sys.stdin.fileno(), 1)
    _thread.interrupt_main(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
