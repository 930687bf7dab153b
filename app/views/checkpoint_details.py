"""The pane beside the checkpoints that shows all that is known of the selected one."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QShowEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.views.elided_label import ElidedLabel

DETAILS_WIDTH = 560
_METRICS_WIDTH, _FROZEN_WIDTH = 124, 100
_SHORT_SHA = 12


class CheckpointDetailsView(QScrollArea):
    """Three columns, so that a low panel shows most of it: metrics, what is frozen, why it is kept and its file.

    Its name stands above the first two. Where not just one is selected, a sentence is in the place of it all.
    """

    def __init__(self, details: CheckpointDetails, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._details = details
        self.setWidgetResizable(True)
        self.setFixedWidth(DETAILS_WIDTH)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(self.tr("Details of the checkpoint"))
        self._title = _label("heading")
        self._metrics = _Pairs(has_numbers=True)
        self._frozen = _label()
        self._kept, self._differences, self._classes, self._note = _label(), _label(), _label(), _label()
        self._name = ElidedLabel(Qt.TextElideMode.ElideMiddle, 24 * theme.SPACE)
        self._sha256 = QPushButton()
        self._sha256.setProperty("kind", "value")
        self._sha256.setToolTip(self.tr("Copy the SHA-256 of the file"))
        self._sha256.clicked.connect(self._copy_sha256)
        self._hint = _label("dim")
        self._hint.setWordWrap(True)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._page = self._lay_out()
        self._stack = QWidget()
        stacked = QVBoxLayout(self._stack)
        stacked.setContentsMargins(0, 0, 0, 0)
        stacked.addWidget(self._page)
        stacked.addWidget(self._hint)
        self.setWidget(self._stack)
        details.changed.connect(self._show_if_seen)

    def showEvent(self, event: QShowEvent) -> None:
        """Tell what came while nobody looked."""
        self._show()
        super().showEvent(event)

    def _lay_out(self) -> QWidget:
        page = QWidget()
        frozen_heading = _label("dim")
        frozen_heading.setText(self.tr("Frozen"))
        self._facts = _Pairs()
        self._facts.put(
            [
                (self.tr("Kept"), self._kept),
                (self.tr("Now"), self._differences),
                (self.tr("Worst recall"), self._classes),
                (self.tr("Note"), self._note),
                (self.tr("File"), self._name),
                (self.tr("SHA-256"), self._sha256),
            ]
        )
        metrics, frozen = _column(self._metrics), _column(frozen_heading, self._frozen)
        metrics.setFixedWidth(_METRICS_WIDTH)
        frozen.setFixedWidth(_FROZEN_WIDTH)
        layout = QGridLayout(page)
        layout.setContentsMargins(theme.SPACE, theme.SPACE, theme.SPACE * 2, theme.SPACE)
        layout.setHorizontalSpacing(2 * theme.PANEL_PADDING)
        layout.setVerticalSpacing(theme.SPACE)
        layout.setRowStretch(1, 1)
        layout.setColumnStretch(2, 1)
        layout.addWidget(self._title, 0, 0, 1, 2)
        layout.addWidget(metrics, 1, 0)
        layout.addWidget(frozen, 1, 1)
        layout.addWidget(_column(self._facts), 0, 2, 2, 1)
        return page

    def _show_if_seen(self) -> None:
        if self.isVisible():
            self._show()

    def _show(self) -> None:
        details = self._details.details
        self._page.setVisible(details is not None)
        self._hint.setVisible(details is None)
        self._hint.setText(self._details.hint)
        if details is None:
            return
        self._title.setText(details.title)
        values = [(heading, _label()) for heading, _ in details.metrics]
        for (_, value), (_, text) in zip(values, details.metrics, strict=True):
            value.setText(text)
        self._metrics.put(values)
        self._frozen.setText("\n".join(details.frozen))
        self._kept.setText(details.kept)
        self._differences.setText("\n".join(details.differences))
        self._classes.setText(details.classes)
        self._note.setText(details.note)
        self._facts.show_row(self._note, is_shown=bool(details.note))
        self._name.set_whole_text(details.name)
        self._sha256.setText(f"{details.sha256[:_SHORT_SHA]}…")

    def _copy_sha256(self) -> None:
        if (details := self._details.details) is not None:
            QGuiApplication.clipboard().setText(details.sha256)


class _Pairs(QWidget):
    """Names with their values, one pair a row."""

    def __init__(self, *, has_numbers: bool = False) -> None:
        super().__init__()
        self._has_numbers = has_numbers
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(theme.PANEL_PADDING)
        self._grid.setVerticalSpacing(theme.SPACE)
        self._grid.setColumnStretch(1, 1)

    def put(self, pairs: Sequence[tuple[str, QWidget]]) -> None:
        """Show these and no others."""
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        side = Qt.AlignmentFlag.AlignRight if self._has_numbers else Qt.AlignmentFlag(0)
        for row, (name, value) in enumerate(pairs):
            label = _label("dim")
            label.setText(name)
            self._grid.addWidget(label, row, 0, Qt.AlignmentFlag.AlignTop)
            is_button = isinstance(value, QPushButton)
            beside_name = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop
            self._grid.addWidget(value, row, 1, beside_name if is_button else side)

    def show_row(self, value: QWidget, *, is_shown: bool) -> None:
        """Show or hide a value with its name."""
        row = next(row for row in range(self._grid.rowCount()) if self._at(row, 1) is value)
        for column in range(2):
            self._at(row, column).setVisible(is_shown)

    def _at(self, row: int, column: int) -> QWidget:
        item = self._grid.itemAtPosition(row, column)
        widget = None if item is None else item.widget()
        assert widget is not None
        return widget


def _label(role: str = "") -> QLabel:
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
    label.setWordWrap(not role)
    if role:
        label.setProperty("role", role)
    return label


def _column(*widgets: QWidget) -> QWidget:
    column = QWidget()
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(theme.SPACE * 2)
    for widget in widgets:
        layout.addWidget(widget)
    layout.addStretch(1)
    return column
