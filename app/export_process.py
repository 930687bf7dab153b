"""An export in a process of its own: it loads torch, which the app does not, and no training waits for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from app.worker_talk import RunFailedError
from trainer.client import finding_ours
from trainer.frames import as_json
from trainer.messages.events import PreparationProgressed
from trainer.messages.export import ExportCheckpoint, ExportEvent, export_event_from_json

CANCEL_TIMEOUT_S = 10.0


class ExportProcess:
    """Exports a checkpoint. Use as a context manager: leaving it ends what still goes on, and nothing is left of that.

    ``events`` blocks: where nothing may wait, it belongs to a thread, and ``cancel`` may come from another one.
    """

    def __init__(self, command: ExportCheckpoint) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trainer.export"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **finding_ours(os.environ)},
            # Ctrl+C is for the one who waits, who then ends this one in order.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._process.stdin is not None
        # Gone already: the end of its events says so.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(as_json(command).encode() + b"\n")

    def __enter__(self) -> ExportProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def events(self) -> Iterator[ExportEvent]:
        """Yield what it says; the last event is CheckpointExported, or CommandRejected with the reason.

        Raises:
            RunFailedError: It ended without either.

        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = export_event_from_json(line)
            yield event
            if not isinstance(event, PreparationProgressed):
                return
        code = self._process.wait()
        self._errors.seek(0)
        last_line = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        words = f" Its last words: {last_line}" if last_line else ""
        raise RunFailedError(f"The export {how}; nothing was written.{words}")

    def cancel(self) -> None:
        """End it, if it has not ended; what is half written is taken away."""
        self._process.terminate()
        try:
            self._process.wait(CANCEL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
