"""Where the keyboard's focus goes when what has it cannot keep it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget


def give_up_focus(widget: QWidget, heir: QWidget | None = None) -> None:
    """Give the focus of what is about to be disabled or hidden to ``heir``, or to the window, where Space pauses.

    Qt hands it to whatever comes next, and the next key would press a button that nobody chose.
    """
    window = widget.window()
    focused = window.focusWidget()
    if focused is not None and (focused is widget or widget.isAncestorOf(focused)):
        (heir if heir is not None and heir.isEnabled() else window).setFocus(Qt.FocusReason.OtherFocusReason)
