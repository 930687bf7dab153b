"""WhatIfWindow: what is to be tried from a checkpoint, and both branches in one plot."""

from __future__ import annotations

import math
from functools import partial

import pyqtgraph as pg
from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QCloseEvent, QIntValidator, QKeyEvent
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.quantities import count_text
from app.viewmodels.what_if import KINDS, OF_LAYERS, Kind, WhatIfViewModel
from app.views.choice_field import ChoiceField
from app.views.field_note import FieldNote
from app.views.panels import panel
from trainer.messages.what_if import MAX_STEPS

_WIDTH, _HEIGHT = 720, 620
_LEAST_WIDTH, _LEAST_HEIGHT = 640, 500
_KIND_WIDTH, _NUMBER_WIDTH, _STEPS_WIDTH = 190, 72, 96
_WIDE_PEN_UP_TO = 2000
"""Points: a pen of two pixels is slow for more (see PITFALLS)."""
_POINT_SIZE = 9
_ROOM = 1.18
_LEGEND_HEIGHT, _LEAST_PLOT_HEIGHT = 42, 100
"""In pixels, above all points: no curve runs through the legend."""
_AXIS_WIDTH = 56
"""In pixels: it stays as the numbers come."""
_PARTS = 1000


class WhatIfWindow(QWidget):
    """Beside the main window, and not in its way. Closing it ends what it waits for."""

    branch_requested = Signal(object)
    """A run of this configuration (RunConfig) is to be begun in the form."""

    def __init__(self, what_if: WhatIfViewModel, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._what_if = what_if
        self._build()
        self._paint()
        self.setMinimumSize(_LEAST_WIDTH, _LEAST_HEIGHT)
        self.resize(_WIDTH, _HEIGHT)
        what_if.changed.connect(self._show)
        what_if.left.connect(self.close)
        self.show_checkpoint()

    def show_checkpoint(self) -> None:
        """Begin with the fields of the checkpoint that is asked about."""
        what_if = self._what_if
        if what_if.checkpoint is None:
            return
        info = what_if.checkpoint
        self.setWindowTitle(
            self.tr("What if … · epoch {}, step {}").format(count_text(info.epoch), count_text(info.step))
        )
        self.layers.offer(what_if.layers)
        self.layers.setEditText("")
        self.rate.setText(what_if.rate)
        self.multiplier.setText(what_if.multiplier)
        self.steps.setText(str(what_if.num_steps))
        self.kind.setCurrentIndex(KINDS.index(what_if.kind))
        self._choose_kind()
        self._show()
        self.layers.setFocus()

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[theme.PANEL_PADDING] * 4)
        layout.setSpacing(theme.SPACE * 2)
        layout.addLayout(self._fields())
        layout.addWidget(panel(0, self._plot(), self._results()), 1)
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.sentence.setWordWrap(True)
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignTop)
        # Its place is kept, so that the curves do not jump as it comes.
        self.sentence.setMinimumHeight(2 * self.sentence.fontMetrics().lineSpacing())
        self.progress = QProgressBar()
        self.progress.setRange(0, _PARTS)
        self.progress.setTextVisible(False)
        self.progress.setAccessibleName(self.tr("Progress of the trial"))
        policy = self.progress.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.progress.setSizePolicy(policy)
        layout.addWidget(self.sentence)
        layout.addWidget(self.progress)
        layout.addLayout(self._buttons())

    def _fields(self) -> QGridLayout:
        self.kind = ChoiceField([], is_free=False)
        words: dict[Kind, str] = {
            "unfreeze": self.tr("Unfreeze"),
            "freeze": self.tr("Freeze"),
            "rate": self.tr("Set the rate"),
            "multiplier": self.tr("Multiply the rate of"),
            "adapting": self.tr("Let statistics adapt in"),
            "still": self.tr("Freeze statistics with"),
        }
        for kind in KINDS:
            self.kind.addItem(words[kind])
        self.kind.setFixedWidth(_KIND_WIDTH)
        self.kind.setAccessibleName(self.tr("What is changed"))
        self.layers = ChoiceField([], is_free=True)
        self.layers.setAccessibleName(self.tr("Layers"))
        line = self.layers.lineEdit()
        assert line is not None
        line.setPlaceholderText(self.tr("A layer, or several with commas between them"))
        self.rate = QLineEdit()
        self.rate.setAccessibleName(self.tr("Rate"))
        self.multiplier = QLineEdit()
        self.multiplier.setFixedWidth(_NUMBER_WIDTH)
        self.multiplier.setAccessibleName(self.tr("Multiplier of the rate"))
        self._by = QLabel(self.tr("by"))
        self._by.setProperty("role", "field")
        self.steps = QLineEdit()
        self.steps.setValidator(QIntValidator(1, MAX_STEPS, self))
        self.steps.setFixedWidth(_STEPS_WIDTH)
        self.steps.setAccessibleName(self.tr("Steps of each branch"))
        self._value = QStackedWidget()
        self._value.addWidget(self.layers)
        self._value.addWidget(self.rate)
        self._value.setMaximumHeight(self.layers.sizeHint().height())
        self.value_note, self.steps_note = FieldNote(1), FieldNote(1)
        steps = QLabel(self.tr("Steps"))
        steps.setProperty("role", "field")
        self.kind.currentIndexChanged.connect(self._choose_kind)
        for field, name in (
            (line, "layers"), (self.rate, "rate"), (self.multiplier, "multiplier"), (self.steps, "steps"),
        ):  # fmt: skip
            field.textChanged.connect(partial(self._forget_wrong, name))
        grid = QGridLayout()
        grid.setHorizontalSpacing(theme.SPACE * 2)
        grid.setVerticalSpacing(theme.SPACE)
        grid.setColumnStretch(1, 1)
        for column, widget in enumerate((self.kind, self._value, self._by, self.multiplier, steps, self.steps)):
            grid.addWidget(widget, 0, column)
        grid.addWidget(self.value_note, 1, 0, 1, 4)
        grid.addWidget(self.steps_note, 1, 4, 1, 2)
        return grid

    def _plot(self) -> pg.PlotWidget:
        self.plot = pg.PlotWidget()
        self.plot.setAccessibleName(self.tr("Loss of both branches by step"))
        item = self.plot.getPlotItem()
        item.setMenuEnabled(False)
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        # Room for the upper half of the uppermost number and the right half of the last one.
        item.setContentsMargins(0, 6, 8, 0)
        font = theme.text_font(theme.SIZE_SMALL)
        for side, title in (("bottom", self.tr("step")), ("left", self.tr("loss"))):
            axis = item.getAxis(side)
            axis.enableAutoSIPrefix(False)
            axis.setTickFont(font)
            axis.setLabel(title)
            axis.label.setFont(font)
        item.getAxis("left").setWidth(_AXIS_WIDTH)
        self._unchanged, self._changed = item.plot(antialias=True), item.plot(antialias=True)
        self._start = pg.ScatterPlotItem(symbol="s", size=_POINT_SIZE - 1)
        self._end_unchanged = pg.ScatterPlotItem(symbol="o", size=_POINT_SIZE)
        self._end_changed = pg.ScatterPlotItem(symbol="d", size=_POINT_SIZE + 3)
        self._gap = pg.TextItem(anchor=(-0.15, 0.5))
        self._gap.setFont(font)
        self._hint = pg.TextItem(self.tr("The loss of both branches is drawn here."), anchor=(0.5, 0.5))
        self._hint.setFont(theme.text_font(theme.SIZE_TEXT))
        for each in (self._start, self._end_unchanged, self._end_changed, self._gap, self._hint):
            item.addItem(each)
        item.getViewBox().sigResized.connect(self._fit_losses)
        self._legend = item.addLegend(offset=(-8, 1), colCount=5, labelTextSize=f"{theme.SIZE_SMALL}px")
        for shown, name in (
            (self._start, self.tr("checkpoint")),
            (self._unchanged, self.tr("as it is")),
            (self._end_unchanged, self.tr("validation")),
            (self._changed, self.tr("changed")),
            (self._end_changed, self.tr("validation")),
        ):
            self._legend.addItem(shown, name)
        return self.plot

    def _results(self) -> QWidget:
        results = QWidget()
        self._table = QGridLayout(results)
        self._table.setContentsMargins(0, 0, 0, 0)
        self._table.setHorizontalSpacing(theme.PANEL_PADDING)
        self._table.setVerticalSpacing(theme.SPACE)
        self._table.setColumnStretch(0, 1)
        self._cells: list[list[QLabel]] = []
        headings = ("", self.tr("as it is"), self.tr("changed"), self.tr("difference"))
        for row in range(5):
            cells = [QLabel(text if not row else "") for text in headings]
            for column, cell in enumerate(cells):
                cell.setTextFormat(Qt.TextFormat.PlainText)
                cell.setProperty("role", "dim" if not row or not column else "")
                side = Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft
                self._table.addWidget(cell, row, column, side)
                # So that the columns stand still as the figures come.
                self._table.setColumnMinimumWidth(column, 96 if column else 0)
            self._cells.append(cells)
        return results

    def _buttons(self) -> QHBoxLayout:
        self.branch = QPushButton(self.tr("Branch with this change"))
        self.branch.setToolTip(self.tr("A new run that begins from this checkpoint, with the change"))
        self.branch.clicked.connect(self._ask_branch)
        self.close_button = QPushButton(self.tr("Close"))
        self.close_button.clicked.connect(self.close)
        self.run = QPushButton()
        self.run.clicked.connect(self._act)
        buttons = QHBoxLayout()
        buttons.setSpacing(theme.SPACE * 2)
        buttons.addWidget(self.branch)
        buttons.addStretch(1)
        buttons.addWidget(self.close_button)
        buttons.addWidget(self.run)
        return buttons

    # -- showing ----------------------------------------------------------------------------------------------

    def _show(self) -> None:
        what_if = self._what_if
        is_going = what_if.is_going
        for field in (self.kind, self.layers, self.rate, self.multiplier, self.steps):
            field.setEnabled(not is_going)
        self.run.setText(self.tr("Cancel") if is_going else self.tr("Run"))
        theme.set_property(self.run, "kind", "" if is_going else "primary")
        self.branch.setEnabled(what_if.tried is not None)
        self.progress.setVisible(is_going)
        # It moves by itself as long as it is not known how much there is.
        self.progress.setRange(0, _PARTS if what_if.work.fraction else 0)
        self.progress.setValue(round(what_if.work.fraction * _PARTS))
        self.sentence.setText((what_if.work.text or self.tr("Starting …")) if is_going else what_if.sentence)
        theme.set_property(self.sentence, "role", "error" if what_if.is_refused else "")
        for cells, row in zip(self._cells[1:], what_if.rows(), strict=True):
            for cell, text in zip(cells, (row.name, row.unchanged, row.changed, row.difference), strict=True):
                cell.setText(text)
        self._show_notes()
        self._show_curves()

    def _show_notes(self) -> None:
        wrong, kind = self._what_if.wrong, self._kind
        of_layers, of_number = wrong.get("layers", "") if kind in OF_LAYERS else "", wrong.get(kind, "")
        self.value_note.show_text(of_layers or of_number, is_error=bool(of_layers or of_number))
        of_steps = wrong.get("steps", "")
        self.steps_note.show_text(of_steps or self._what_if.forecast(self.steps.text()), is_error=bool(of_steps))
        fields = (self.layers, of_layers), (self.rate, of_number), (self.multiplier, of_number), (self.steps, of_steps)
        for field, text in fields:
            theme.set_property(field, "invalid", bool(text))

    def _show_curves(self) -> None:
        tried = self._what_if.tried
        for curve, end, branch in (
            (self._unchanged, self._end_unchanged, tried and tried.unchanged),
            (self._changed, self._end_changed, tried and tried.changed),
        ):
            curve.setData(branch.steps if branch else [], branch.losses if branch else [])
            loss = branch.validation.get("Loss/validation") if branch else None
            end.setData([branch.steps[-1]] if branch and loss is not None else [], [] if loss is None else [loss])
        start = tried.start.get("Loss/validation") if tried else None
        self._start.setData([tried.first_step] if tried and start is not None else [], [] if start is None else [start])
        text = self._what_if.difference_text
        self._gap.setVisible(bool(text))
        if tried is not None and text:
            before, after = tried.validation_losses
            assert before is not None
            assert after is not None
            self._gap.setText(text)
            self._gap.setPos(tried.first_step + tried.num_steps, (before + after) / 2)
        if (info := self._what_if.checkpoint) is not None:
            # With room for the difference beside the last points.
            num_steps = self._what_if.num_steps * _ROOM
            self.plot.setXRange(info.step, info.step + num_steps, padding=0.02)
            self._hint.setPos(info.step + num_steps / 2, 0.5)
        self._fit_losses()
        self._set_pens()

    def _fit_losses(self) -> None:
        """Make room for all points, and for the legend above them; without points, for the words that say so."""
        shown = (self._unchanged, self._changed, self._start, self._end_unchanged, self._end_changed)
        losses = [float(loss) for each in shown for loss in _values(each) if math.isfinite(loss)]
        low, high = min(losses, default=0.0), max(losses, default=1.0)
        height = max(self.plot.getViewBox().height(), _LEAST_PLOT_HEIGHT)
        room = (high - low or abs(high) or 1.0) * _LEGEND_HEIGHT / (height - 1.25 * _LEGEND_HEIGHT)
        self.plot.setYRange(low - room / 4, high + room, padding=0)
        self.plot.getPlotItem().getAxis("left").setStyle(showValues=bool(losses))
        self._legend.setVisible(bool(losses))
        self._hint.setVisible(not losses and not self._what_if.is_going)

    def _paint(self) -> None:
        colors = theme.palette_of(self)
        self.plot.setBackground(colors.panel)
        for side in ("bottom", "left"):
            axis = self.plot.getPlotItem().getAxis(side)
            # In this order: the lines' pen colours the title, too.
            axis.setPen(colors.line)
            axis.setTextPen(colors.dim)
        self._set_pens()
        ring = pg.mkPen(colors.panel, width=1)
        for points, color in (
            (self._start, colors.dim),
            (self._end_unchanged, colors.train),
            (self._end_changed, colors.trainable),
        ):
            points.setBrush(color)
            points.setPen(ring)
        self._gap.setColor(colors.text)
        self._hint.setColor(colors.dim)
        for _, label in self._legend.items:
            label.setText(label.text, color=colors.dim)

    def _set_pens(self) -> None:
        colors, tried = theme.palette_of(self), self._what_if.tried
        width = 2 if tried is None or tried.num_steps <= _WIDE_PEN_UP_TO else 1
        self._unchanged.setPen(pg.mkPen(colors.train, width=width))
        self._changed.setPen(pg.mkPen(colors.trainable, width=width, style=Qt.PenStyle.DashLine))

    # -- what the user does -----------------------------------------------------------------------------------

    def _forget_wrong(self, field: str, _: str) -> None:
        self._what_if.forget_wrong(field)
        self._show_notes()

    @property
    def _kind(self) -> Kind:
        return KINDS[self.kind.currentIndex()]

    def _choose_kind(self) -> None:
        self._value.setCurrentWidget(self.layers if self._kind in OF_LAYERS else self.rate)
        for widget in (self._by, self.multiplier):
            widget.setVisible(self._kind == "multiplier")
        self._show_notes()

    def _act(self) -> None:
        if self._what_if.is_going:
            self._what_if.errand.cancel()
            return
        number = self.rate if self._kind == "rate" else self.multiplier
        self._what_if.start(self._kind, self.layers.currentText(), number.text(), self.steps.text())

    def _ask_branch(self) -> None:
        if (config := self._what_if.branched()) is not None:
            self.branch_requested.emit(config)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Run with Enter, and close with Escape, as a dialog does."""
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and not self._what_if.is_going:
            self._act()
        elif event.key() == Qt.Key.Key_Escape:
            self.close()
        else:
            super().keyPressEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_legend"):
            self._paint()

    def closeEvent(self, event: QCloseEvent) -> None:
        """End what goes on."""
        self._what_if.changed.disconnect(self._show)
        self._what_if.left.disconnect(self.close)
        self._what_if.errand.close()
        self._what_if.work.end()
        super().closeEvent(event)


def _values(shown: pg.PlotDataItem | pg.ScatterPlotItem) -> list[float]:
    values = shown.getData()[1]
    # Without points, a curve has none, and not no values.
    return [] if values is None else list(values)
