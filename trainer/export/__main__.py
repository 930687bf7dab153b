"""``python -m trainer.export``: exports one checkpoint, in a process of its own beside whatever trains.

It reads an ExportCheckpoint as a line of JSON from standard input, and writes the events as lines to standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TextIO

from trainer.frames import as_json
from trainer.messages.events import CommandRejected, PreparationProgressed
from trainer.messages.export import ExportCheckpoint, ExportEvent


def main() -> int:
    """Do what standard input asks for. Returns 0 where it is done, 2 where it is refused."""
    # Ended by whoever waits for it: as an exception, so that what is half written is taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    if hasattr(os, "nice"):
        # What trains beside it goes first.
        os.nice(5)
    events = _take_standard_output()
    command = ExportCheckpoint.model_validate_json(sys.stdin.readline())

    def say(event: ExportEvent) -> None:
        events.write(as_json(event) + "\n")
        events.flush()

    say(PreparationProgressed(what="Loading PyTorch", done=0, total=0, unit=""))
    from trainer.export.checkpoint_export import export

    try:
        exported = export(
            command,
            lambda what, done, total, unit: say(PreparationProgressed(what=what, done=done, total=total, unit=unit)),
        )
    except ValueError as error:
        say(CommandRejected(command=command.kind, reason=str(error), command_id=command.command_id))
        return 2
    say(exported)
    return 0


def _take_standard_output() -> TextIO:
    """Return standard output for the events alone: what libraries print goes to standard error from now on."""
    sys.stdout.flush()
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return events


if __name__ == "__main__":
    sys.exit(main())
