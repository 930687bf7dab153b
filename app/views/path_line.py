"""PathLine: a field for a path, which is known by its last part."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRect, Qt
from PySide6.QtGui import QHelpEvent, QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QLineEdit, QStyle, QStyleOptionFrame, QToolTip

_ELLIPSIS = "…"
# What QLineEdit itself leaves free at either side of its text.
_TEXT_MARGIN = 2


class PathLine(QLineEdit):
    """Shows a path that is too long without the middle of its folders, or of its last part, until it has the focus."""

    def shown_text(self) -> str:
        """Return what of the text is to be seen while it is not edited."""
        text, room, metrics = self.text(), self._text_rect().width(), self.fontMetrics()
        if metrics.horizontalAdvance(text) <= room:
            return text
        place = max(text.rfind("/", 0, -1), text.rfind("\\", 0, -1), 0)
        folders, last = text[:place], text[place:]
        room_of_folders = room - metrics.horizontalAdvance(last)
        if room_of_folders < metrics.horizontalAdvance(_ELLIPSIS):
            return metrics.elidedText(last.lstrip("/\\"), Qt.TextElideMode.ElideMiddle, room)
        return metrics.elidedText(folders, Qt.TextElideMode.ElideMiddle, room_of_folders) + last

    def event(self, event: QEvent) -> bool:
        """Say all of the text in a tooltip, where it is not to be seen and there is nothing else to say."""
        if isinstance(event, QHelpEvent) and not self.toolTip() and self.shown_text() != self.text():
            QToolTip.showText(event.globalPos(), self.text(), self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the field as ever, or, at rest, with the middle left out."""
        shown = self.shown_text()
        if self.hasFocus() or shown == self.text():
            super().paintEvent(event)
            return
        option = QStyleOptionFrame()
        self.initStyleOption(option)
        painter = QPainter(self)
        self.style().drawPrimitive(QStyle.PrimitiveElement.PE_PanelLineEdit, option, painter, self)
        painter.setPen(self.palette().color(QPalette.ColorRole.Text))
        painter.drawText(self._text_rect(), int(self.alignment()) | int(Qt.AlignmentFlag.AlignVCenter), shown)
        painter.end()

    def _text_rect(self) -> QRect:
        option = QStyleOptionFrame()
        self.initStyleOption(option)
        room: QRect = self.style().subElementRect(QStyle.SubElement.SE_LineEditContents, option, self)
        return room.marginsRemoved(self.textMargins()).adjusted(_TEXT_MARGIN, 0, -_TEXT_MARGIN, 0)
