"""The status bar: what the run runs on, how fast, what it holds of memory and disk, when it was last saved."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QHBoxLayout, QLabel, QWidget

from app import theme
from app.viewmodels.run_status import RunStatusViewModel
from app.views.elided_label import ElidedLabel

# Words at 2 Hz are all that a person reads.
_REFRESH_INTERVAL_MS = 500
_LEAST_WIDTH = 90


class StatusBar(QWidget):
    """One quiet line at the foot of the window."""

    def __init__(self, status: RunStatusViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._status = status
        self._labels = [self._label() for _ in range(3)]
        self._labels[2].setToolTip(self.tr("Epochs without a better validation, and how many of them end the run"))
        # In a narrow window its end gives way, and stands in the tip.
        self._memory = ElidedLabel(Qt.TextElideMode.ElideRight, _LEAST_WIDTH)
        self._memory.setProperty("role", "dim")
        self._disk, self._saved = self._label(), self._label()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE * 7)
        for label in (*self._labels, self._memory, self._disk):
            layout.addWidget(label)
        layout.addStretch(1)
        layout.addWidget(self._saved)
        self.setFixedHeight(theme.ROW_HEIGHT)
        self._timer = QTimer(self)
        self._timer.setInterval(_REFRESH_INTERVAL_MS)
        self._timer.timeout.connect(self._refresh)
        self._timer.start()
        self._refresh()

    def _label(self) -> QLabel:
        label = QLabel()
        label.setProperty("role", "dim")
        label.setTextFormat(Qt.TextFormat.PlainText)
        return label

    def _refresh(self) -> None:
        status = self._status
        texts = (status.machine_text, status.speed_text, status.patience_text, status.disk_text)
        for label, text in zip((*self._labels, self._disk), texts, strict=True):
            label.setVisible(bool(text))
            label.setText(text)
        self._labels[0].setToolTip(status.machine_tip)
        memory = status.memory_text
        self._memory.setVisible(bool(memory))
        self._memory.set_whole_text(memory)
        is_short = self._memory.text() != memory
        self._memory.setToolTip("\n".join(filter(None, (memory if is_short else "", status.memory_tip))))
        self._saved.setText(status.saved_text())
