"""Paths as text. Imports nothing heavy: the processes that decode images start with it."""

from __future__ import annotations

import os
from os import PathLike


def displayed(path: str | PathLike[str]) -> str:
    """Return a path as text that any file and message can hold: bytes that are no UTF-8 become replacement marks."""
    return os.fsencode(path).decode("utf-8", "replace")
