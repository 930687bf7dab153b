"""What is shown of an image, or of an issue's one or two files, when someone wants to see the picture."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt

PageRole = Qt.ItemDataRole.UserRole + 100
"""The row's PicturePage; None while the row was not read yet."""


@dataclass(frozen=True)
class Picture:
    """A file: where it lies, and the name that the user knows."""

    path: str
    name: str


@dataclass(frozen=True)
class PicturePage:
    """One picture, or the two of a pair, with a sentence about them."""

    sentence: str
    pictures: tuple[Picture, ...]
