"""Errand: what a process of its own does for the window, which goes on meanwhile."""

from __future__ import annotations

import queue
import threading
import traceback

from PySide6.QtCore import QObject, QTimer, Signal

from app.errand_process import ErrandProcess
from app.worker_talk import CommandRefusedError, RunFailedError
from trainer.messages.errands import AnyErrand, AnyErrandEvent
from trainer.messages.events import PreparationProgressed

_DRAIN_INTERVAL_MS = 50


class Errand(QObject):
    """One errand at a time; another one takes its place. Its signals come from the GUI thread."""

    progressed = Signal(object)
    """PreparationProgressed: how far it is."""
    done = Signal(object)
    """What came of it: an event of ``trainer.messages.errands``."""
    failed = Signal(str)
    """The sentence that says why nothing came of it."""
    cancelled = Signal()
    """It was ended before its end, as asked."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._going: _Going | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_DRAIN_INTERVAL_MS)
        self._timer.timeout.connect(self._drain)

    @property
    def is_going(self) -> bool:
        """Whether one is under way."""
        return self._going is not None

    def start(self, command: AnyErrand) -> None:
        """Begin one; what went on is ended."""
        self.close()
        self._going = _Going(command)
        self._timer.start()

    def cancel(self) -> None:
        """End it: at once for who looks, while what is half written is taken away beside."""
        if self._going is not None:
            self.close()
            self.cancelled.emit()

    def close(self) -> None:
        """End it, before the window goes; nothing waits for that."""
        going, self._going = self._going, None
        self._timer.stop()
        if going is not None:
            going.end()

    def _drain(self) -> None:
        going = self._going
        while going is not None and self._going is going and not going.said.empty():
            said = going.said.get_nowait()
            if isinstance(said, PreparationProgressed):
                self.progressed.emit(said)
                continue
            self.close()
            if isinstance(said, str):
                self.failed.emit(said)
            else:
                self.done.emit(said)


class _Going:
    """One errand's process, and the thread that waits for it. ``said`` ends with the outcome, or (str) why not."""

    def __init__(self, command: AnyErrand) -> None:
        self.said: queue.SimpleQueue[AnyErrandEvent | str] = queue.SimpleQueue()
        self._command = command
        self._lock = threading.Lock()
        self._process: ErrandProcess | None = None
        self._is_ended = False
        # It ends with its process, and that with this one's: nothing to wait for as the program goes.
        threading.Thread(target=self._wait, name=f"errand-{command.kind}", daemon=True).start()

    def end(self) -> None:
        """Let the process end, as soon as there is one."""
        with self._lock:
            self._is_ended = True
            if self._process is not None:
                self._process.end()

    def _wait(self) -> None:
        try:
            with ErrandProcess(self._command) as process:
                with self._lock:
                    self._process = process
                    if self._is_ended:
                        process.end()
                self.said.put(process.wait(self.said.put))
        except (CommandRefusedError, RunFailedError) as error:
            self.said.put(str(error))
        except Exception as error:  # noqa: BLE001 (whatever it was, it must be told)
            traceback.print_exception(error)
            self.said.put(f"{type(error).__name__}: {error}. Please report this defect of Thaw.")
