"""How train, validation and test are told apart in bars and on thumbnails, and the legend that says so."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QLabel, QWidget

from app import theme
from app.viewmodels.field_words import split_text
from trainer.messages.data_info import SPLITS


def paint_split(painter: QPainter, rect: QRectF, split: str, colors: theme.Palette) -> None:
    """Fill a rectangle as a split: train and validation in their colours, test as a frame with a fainter fill."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if split != "test":
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colors.train if split == "train" else colors.validation))
        painter.drawRect(rect)
        return
    # No third hue: it differs in lightness and in shape, for whoever sees few colours.
    faint = QColor(colors.dim)
    faint.setAlphaF(0.35)
    painter.setPen(QPen(QColor(colors.dim), 1))
    painter.setBrush(faint)
    painter.drawRect(rect.adjusted(0.5, 0.5, -0.5, -0.5))


class SplitLegend(QWidget):
    """A sample and the name of each split that has images."""

    def __init__(self) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        self._keys: dict[str, tuple[QWidget, QLabel]] = {}
        for split in SPLITS:
            sample, name = _Sample(split), QLabel(split_text(split))
            name.setTextFormat(Qt.TextFormat.PlainText)
            name.setProperty("role", "dim")
            layout.addWidget(sample)
            layout.addWidget(name)
            layout.addSpacing(2 * theme.SPACE)
            self._keys[split] = (sample, name)
        layout.addStretch(1)

    def show_splits(self, splits: list[str]) -> None:
        """Explain these splits only."""
        for split, widgets in self._keys.items():
            for widget in widgets:
                widget.setVisible(split in splits)


class _Sample(QWidget):
    def __init__(self, split: str) -> None:
        super().__init__()
        self._split = split
        self.setFixedSize(12, 8)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        paint_split(painter, QRectF(self.rect()), self._split, theme.palette_of(self))
        painter.end()
