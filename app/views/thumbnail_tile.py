"""ThumbnailTile: paints one image of the grid: its picture, the mark of its split, or why there is no picture."""

from __future__ import annotations

from pathlib import PurePath

from PySide6.QtCore import QRect, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPixmap

from app import theme
from app.views.split_marks import paint_split

_MARK_HEIGHT = 3
_PADDING = 3


class ThumbnailTile:
    """Paints tiles in a theme, for a screen with so many device pixels a pixel."""

    def __init__(self, colors: theme.Palette, pixel_ratio: float) -> None:
        self._colors = colors
        self._pixel_ratio = pixel_ratio

    @staticmethod
    def picture_side(tile_side: int) -> int:
        """Return the side of the square that a picture has in a tile, so that it is read as large as it is drawn."""
        return tile_side - 2 * _PADDING - _MARK_HEIGHT - 1

    def paint(
        self, painter: QPainter, rect: QRect, pixmap: QPixmap | None, path: str, split: str, *, is_selected: bool
    ) -> None:
        """Paint a tile.

        Args:
            painter: Paints on the grid.
            rect: The tile's place.
            pixmap: The picture; null if the file cannot be shown, None if it was not read yet.
            path: The file, "" if the report's row was not read yet.
            split: The image's split, "" if the report's row was not read yet.
            is_selected: Whether it is the chosen one.

        """
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(self._colors.accent), 2) if is_selected else Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self._colors.selection if is_selected else self._colors.background))
        painter.drawRoundedRect(QRectF(rect).adjusted(1, 1, -1, -1), theme.SPACE, theme.SPACE)
        room = rect.adjusted(_PADDING, _PADDING, -_PADDING, -_PADDING - _MARK_HEIGHT - 1)
        if pixmap is not None and not pixmap.isNull():
            paint_fitted(painter, room, pixmap, self._pixel_ratio)
        elif pixmap is not None:
            self._paint_suffix(painter, room, path)
        if split:
            mark = QRectF(room.left(), room.bottom() + 2, room.width(), _MARK_HEIGHT)
            paint_split(painter, mark, split, self._colors)

    def _paint_suffix(self, painter: QPainter, room: QRect, path: str) -> None:
        painter.setFont(theme.text_font(theme.SIZE_SMALL, is_strong=True))
        painter.setPen(QColor(self._colors.dim))
        painter.drawText(room, int(Qt.AlignmentFlag.AlignCenter), PurePath(path).suffix[1:].upper() or "?")


def paint_fitted(painter: QPainter, room: QRect, pixmap: QPixmap, pixel_ratio: float) -> None:
    """Draw a picture in the middle of a place, as large as it fits. The pixels of a tiny one stay to be seen."""
    size = pixmap.size().toSizeF() / pixel_ratio
    scale = min(room.width() / size.width(), room.height() / size.height())
    scale = float(int(scale)) if scale >= 2 else min(scale, 1.0)
    place = QRectF(0, 0, size.width() * scale, size.height() * scale)
    place.moveCenter(QRectF(room).center())
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, scale < 1)
    painter.drawPixmap(place, pixmap, QRectF(pixmap.rect()))
