"""The moment at which a window is on the screen, after which there is time for what takes long."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtWidgets import QWidget

_PAINTED_WITHIN_MS = 1000
"""A window that its desktop shows minimized, or elsewhere, is painted much later, and has its work all the same."""


class FirstPaint(QObject):
    """Calls a function once, when a window and all in it are painted for the first time, or after a second.

    A timer of 0 ms would come before the paint, and what it calls would hold that up.
    """

    def __init__(self, window: QWidget, act: Callable[[], None]) -> None:
        super().__init__(window)
        self._act = act
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._do)
        self._timer.start(_PAINTED_WITHIN_MS)
        window.installEventFilter(self)

    def stop(self) -> None:
        """Call it no more: the window is closed."""
        self._timer.stop()
        self.deleteLater()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Look at the window's events until then."""
        if event.type() == QEvent.Type.Paint:
            watched.removeEventFilter(self)
            # What is in the window is painted in the same turn.
            self._timer.start(0)
        return False

    def _do(self) -> None:
        self.stop()
        self._act()
