"""IssueChips: one chip for each kind of issue with its count; a chosen one filters the table."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QAbstractButton, QWidget

from app import theme
from app.viewmodels.issue_items import kind_name
from app.viewmodels.quantities import count_text
from trainer.data_report import IssueKind

_HEIGHT = 20


class IssueChips(QWidget):
    """Chips in as many lines as they need. None chosen means every kind."""

    chosen = Signal()
    """Another kind, or none, was chosen."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._chips = {kind: _Chip(self) for kind in IssueKind}
        for kind, chip in self._chips.items():
            chip.clicked.connect(lambda is_on, kind=kind: self._choose(kind if is_on else None))

    @property
    def kind(self) -> IssueKind | None:
        """Return the chosen kind, None for every kind."""
        return next((kind for kind, chip in self._chips.items() if chip.isChecked()), None)

    def chip(self, kind: IssueKind) -> QAbstractButton:
        """Return a kind's chip."""
        return self._chips[kind]

    def show_counts(self, counts: dict[str, int], chosen: IssueKind | None) -> None:
        """Show the kinds that were found, and which of them is chosen."""
        for kind, chip in self._chips.items():
            num_issues = counts.get(kind.value, 0)
            chip.setText(f"{kind_name(kind)}  {count_text(num_issues)}")
            chip.setVisible(num_issues > 0)
            chip.setChecked(kind is chosen)
        self.setVisible(any(counts.values()))
        self._line_up()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Break the lines anew."""
        super().resizeEvent(event)
        self._line_up()

    def _choose(self, chosen: IssueKind | None) -> None:
        for kind, chip in self._chips.items():
            chip.setChecked(kind is chosen)
        self.chosen.emit()

    def _line_up(self) -> None:
        left = top = 0
        for chip in self._chips.values():
            if chip.isHidden():
                continue
            size = chip.sizeHint()
            if left and left + size.width() > self.width():
                left, top = 0, top + _HEIGHT + theme.SPACE
            chip.setGeometry(left, top, size.width(), _HEIGHT)
            left += size.width() + theme.SPACE
        self.setFixedHeight(top + _HEIGHT)


class _Chip(QAbstractButton):
    """A small round button that stays pressed, as the presets of the tree look."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def sizeHint(self) -> QSize:
        font = theme.text_font(theme.SIZE_SMALL, is_strong=True)
        self.setFont(font)
        return QSize(self.fontMetrics().horizontalAdvance(self.text()) + 5 * theme.SPACE, _HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        colors = theme.palette_of(self)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        is_framed = self.hasFocus() or self.underMouse()
        painter.setPen(
            QPen(QColor(colors.accent if self.hasFocus() else colors.dim), 1) if is_framed else Qt.PenStyle.NoPen
        )
        painter.setBrush(QColor(colors.accent if self.isChecked() else colors.selection))
        radius = _HEIGHT / 2
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), radius, radius)
        painter.setPen(QColor(colors.on_accent if self.isChecked() else colors.text))
        painter.setFont(theme.text_font(theme.SIZE_SMALL, is_strong=True))
        painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignCenter), self.text())
        painter.end()
