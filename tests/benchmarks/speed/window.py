"""The window, started as a person starts it: when it is painted first, and the memory that it holds.

``python -m tests.benchmarks.speed.window KIND WHAT REPORT`` is one such process: "bare" is a window of Qt's own with a
label, "idle" Thaw's until its worker is ready, "demo" Thaw's while it shows the demo's first hundreds of steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

# Also what the thaw command imports before it knows that a window is wanted. First, as there: what comes after Qt takes
# more memory.
from app.cli import main as thaw  # isort: skip
import psutil
from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QLabel

from app import first_paint as app_first_paint
from app.first_paint import FirstPaint

Kind = Literal["bare", "idle", "demo"]
What = Literal["paint", "memory"]
NUM_DEMO_STEPS = 300
_LOOK_INTERVAL_MS = 100
_PATIENCE_S = 300.0


def painted_s(kind: Kind, scratch: Path) -> float:
    """Start a window in a process of its own. Returns the seconds to its first paint.

    Raises:
        RuntimeError: It failed; says what it printed last.

    """
    started_at = time.time()
    return _start(kind, "paint", scratch) - started_at


def held_bytes(kind: Kind, scratch: Path) -> int:
    """Start a window in a process of its own. Returns the bytes that it holds once it is there.

    Raises:
        RuntimeError: As above.

    """
    return int(_start(kind, "memory", scratch))


def _start(kind: Kind, what: What, scratch: Path) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        environment = dict(os.environ)
        environment |= {f"XDG_{name}_HOME": f"{folder}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
        environment |= {"THAW_RUNS": f"{folder}/runs"}
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "tests.benchmarks.speed.window", kind, what, str(report)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
        if done.returncode:
            raise RuntimeError(f"The window failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
        return float(report.read_text())


def main() -> None:
    """Be the process."""
    kind, what, report = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    app = QApplication(sys.argv[:1])
    painted_at, has_painted = 0.0, False
    timer = QTimer()
    timer.setInterval(_LOOK_INTERVAL_MS)

    def look() -> None:
        if painted_at if what == "paint" else _is_there(kind):
            timer.stop()
            me = psutil.Process()
            report.write_text(repr(painted_at if what == "paint" else me.memory_info().rss))
            for each in me.children(recursive=True):
                each.kill()
            # Nobody is there to answer what a window asks before it closes.
            os._exit(0)

    class NotedPaint(FirstPaint):
        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            nonlocal has_painted
            has_painted |= event.type() == QEvent.Type.Paint
            return super().eventFilter(watched, event)

        def _do(self) -> None:
            nonlocal painted_at
            if not has_painted:
                raise RuntimeError("The window was not painted within a second of being shown.")
            painted_at = time.time()
            super()._do()

    timer.timeout.connect(look)
    timer.start()
    if kind == "bare":
        window = QLabel("Thaw")
        window.resize(1280, 800)
        NotedPaint(window, lambda: None)
        window.show()
        app.exec()
        return
    # Before the window's module takes it. A filter of the whole application's events would take time and memory that no
    # user has.
    app_first_paint.FirstPaint = NotedPaint  # type: ignore[misc]
    thaw(["demo"] if kind == "demo" else [])


def _is_there(kind: str) -> bool:
    if kind == "bare":
        # Qt paints what becomes exposed at once.
        return any(window.isExposed() for window in QGuiApplication.topLevelWindows())
    from app.main_window import MainWindow
    from trainer.messages.states import RunState

    window = next((each for each in QApplication.topLevelWidgets() if isinstance(each, MainWindow)), None)
    if window is None:
        return False
    if kind == "idle":
        return window.session.state is RunState.IDLE and not window.display.layer_tree.is_empty
    last = window.display.history.at("Loss/train", 1e9)
    return last is not None and last[0] >= NUM_DEMO_STEPS


if __name__ == "__main__":
    main()
