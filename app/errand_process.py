"""An errand in a process of its own: it loads torch, which the app does not, and no training waits for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from app.worker_talk import CommandRefusedError, RunFailedError
from trainer.client import finding_ours
from trainer.frames import as_json
from trainer.memory import DETERMINISTIC_CUBLAS, KEEP_FREED_MEMORY
from trainer.messages.errands import AnyErrand, AnyErrandEvent, errand_event_from_json
from trainer.messages.events import CommandRejected, PreparationProgressed

CANCEL_TIMEOUT_S = 10.0


class ErrandProcess:
    """Does what a command asks. Use as a context manager: leaving it ends what still goes on, and nothing is left.

    ``events`` and ``wait`` block: where nothing may wait, they belong to a thread (``app.errands`` has one), and
    ``cancel`` may come from another one. It ends as well when this process does.
    """

    def __init__(self, command: AnyErrand) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trainer.errand"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # As a worker has it: what it makes again is to be the same.
            env={**KEEP_FREED_MEMORY, **DETERMINISTIC_CUBLAS, **os.environ, **finding_ours(os.environ)},
            # Ctrl+C is for the one who waits, who then ends this one in order.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._process.stdin is not None
        # Gone already: the end of its events says so.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(as_json(command).encode() + b"\n")
            self._process.stdin.flush()

    def __enter__(self) -> ErrandProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def wait(self, on_progress: Callable[[PreparationProgressed], None]) -> AnyErrandEvent:
        """Return what came of it.

        Raises:
            CommandRefusedError: It cannot be done; the sentence says why.
            RunFailedError: It ended without a word of that.

        """
        for event in self.events():
            if isinstance(event, PreparationProgressed):
                on_progress(event)
            elif isinstance(event, CommandRejected):
                raise CommandRefusedError(event.reason, event.by_field)
            else:
                return event
        raise AssertionError("events end with what came of it, or raise")

    def events(self) -> Iterator[AnyErrandEvent]:
        """Yield what it says; the last event is what came of it, or CommandRejected with the reason.

        Raises:
            RunFailedError: It ended without either.

        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = errand_event_from_json(line)
            yield event
            if not isinstance(event, PreparationProgressed):
                return
        code = self._process.wait()
        self._errors.seek(0)
        last_line = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        words = f" Its last words: {last_line}" if last_line else ""
        raise RunFailedError(f"The process that did this {how}; nothing came of it.{words}")

    def end(self) -> None:
        """Let it end, without waiting for that; what is half written is taken away."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def cancel(self) -> None:
        """End it, if it has not ended; what is half written is taken away."""
        self.end()
        try:
            self._process.wait(CANCEL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
