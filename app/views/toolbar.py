"""The one row of tools: the run's name and state, what can be done with it, and how far it is."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, QTimer, Signal, SignalInstance
from PySide6.QtGui import QActionGroup, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QProgressBar, QPushButton, QToolButton, QVBoxLayout, QWidget

from app import theme
from app.viewmodels.change_history import ChangeHistory
from app.viewmodels.run_status import RunStatusViewModel
from app.views.elided_label import ElidedLabel
from app.views.focus import give_up_focus
from trainer.messages.commands import is_allowed
from trainer.messages.states import RunState

# The words at the right end; the state itself changes at once.
_REFRESH_INTERVAL_MS = 500
_PROGRESS_PARTS = 1000
_LEAST_TITLE_WIDTH, _LEAST_PROGRESS_WIDTH = 64, 188


class Toolbar(QWidget):
    """Buttons enable from ``commands.ALLOWED_COMMANDS``; the primary one changes with the state."""

    new_run_requested = Signal()
    open_run_requested = Signal()
    start_requested = Signal()
    """Begin: a new run from the form, or the prepared one."""
    pause_requested = Signal()
    unpause_requested = Signal()
    resume_requested = Signal()
    train_on_requested = Signal()
    """The run is over, and is to have more epochs."""
    stop_requested = Signal()
    save_requested = Signal()
    tensorboard_requested = Signal()
    cancel_requested = Signal()
    scheme_chosen = Signal(str)
    """A theme: "system", "light" or "dark"."""

    def __init__(
        self,
        status: RunStatusViewModel,
        changes: ChangeHistory,
        scheme: theme.Scheme,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._status = status
        self._changes = changes
        self._can_command, self._can_resume, self._can_train_on = False, False, False
        # The widest that these words of this run have been: as they come and go, they must not move the buttons.
        self._progress_room = self._chip_room = 0
        self._is_other_run = True
        self._build(scheme)
        self._timer = QTimer(self)
        self._timer.setInterval(_REFRESH_INTERVAL_MS)
        self._timer.timeout.connect(self._show_progress)
        self._timer.start()
        status.changed.connect(self._show_state)
        changes.changed.connect(self._show_changes)
        self._restyle()
        self._show_state()
        self._show_changes()
        self._show_progress()

    def allow(self, *, commands: bool, resume: bool, train_on: bool) -> None:
        """Say whether the run on display has a worker, can go on from a checkpoint, and can with more epochs."""
        self._can_command, self._can_resume, self._can_train_on = commands, resume, train_on
        self._show_state()

    def press_primary(self) -> None:
        """Do what the primary button does now, if anything."""
        self._primary.click()

    def press_stop(self) -> None:
        """Stop the run, if there is one to stop."""
        self._stop.click()

    def press_save(self) -> None:
        """Save a checkpoint, if there is a run to save."""
        self._save.click()

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icons in the theme's colours, and measure the buttons in its style."""
        super().changeEvent(event)
        if event.type() in {QEvent.Type.PaletteChange, QEvent.Type.StyleChange} and hasattr(self, "_progress"):
            self._restyle()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Let words go where there is no room for them."""
        super().resizeEvent(event)
        self._make_room()

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self, scheme: theme.Scheme) -> None:
        self._title = ElidedLabel(Qt.TextElideMode.ElideMiddle, _LEAST_TITLE_WIDTH)
        self._title.setProperty("role", "title")
        self._chip = QLabel()
        self._chip.setProperty("role", "chip")
        self._chip.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._chip.setAccessibleName(self.tr("State"))

        self._new = self._button(self.tr("New run"), self.new_run_requested, "flat", self.tr("New run (Ctrl+N)"))
        self._open = self._button(self.tr("Open run…"), self.open_run_requested, "flat", self.tr("Open run (Ctrl+O)"))
        self._primary = QPushButton()
        self._primary.clicked.connect(self._act)
        self._stop = self._button(
            self.tr("Stop"), self.stop_requested, "", self.tr("Save a checkpoint and stop (Ctrl+.)")
        )
        self._save = self._button(self.tr("Save checkpoint"), self.save_requested, "", self.tr("Ctrl+S"))
        self._board = self._button(
            self.tr("TensorBoard"), self.tensorboard_requested, "flat", self.tr("TensorBoard: open this run in it")
        )
        self._undo = self._icon_button(self.tr("Undo"))
        self._undo.clicked.connect(self._changes.undo)
        self._redo = self._icon_button(self.tr("Redo"))
        self._redo.clicked.connect(self._changes.redo)
        self._words = {button: button.text() for button in (self._new, self._open, self._board)}

        self._progress_text = ElidedLabel(Qt.TextElideMode.ElideRight, _LEAST_PROGRESS_WIDTH)
        self._progress_text.setProperty("role", "dim")
        self._progress_text.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._progress = QProgressBar()
        self._progress.setRange(0, _PROGRESS_PARTS)
        self._progress.setTextVisible(False)
        self._progress.setAccessibleName(self.tr("Progress of the run"))
        self._cancel = QToolButton()
        self._cancel.setProperty("kind", "icon")
        self._cancel.setToolTip(self.tr("Cancel"))
        self._cancel.setAccessibleName(self.tr("Cancel"))
        self._cancel.clicked.connect(self.cancel_requested)
        self._cancel.hide()
        progress = QVBoxLayout()
        progress.setSpacing(theme.SPACE + 2)
        progress.addStretch(1)
        progress.addWidget(self._progress_text)
        progress.addWidget(self._progress)
        progress.addStretch(1)

        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE + 2)
        layout.addWidget(self._title)
        layout.addWidget(self._chip)
        layout.addSpacing(theme.SPACE * 3)
        for button in (self._primary, self._stop, self._save, self._undo, self._redo):
            layout.addWidget(button)
        layout.addSpacing(theme.SPACE)
        for button in self._words:
            layout.addWidget(button)
        layout.addWidget(self._theme_button(scheme))
        layout.addStretch(1)
        layout.addLayout(progress)
        layout.addWidget(self._cancel)

    def _button(self, text: str, signal: SignalInstance, kind: str, tooltip: str) -> QPushButton:
        button = QPushButton(text)
        button.setProperty("kind", kind)
        button.setAccessibleName(text)
        button.setToolTip(tooltip)
        button.clicked.connect(signal.emit)
        return button

    def _icon_button(self, words: str) -> QToolButton:
        button = QToolButton()
        button.setProperty("kind", "icon")
        button.setToolTip(words)
        button.setAccessibleName(words)
        return button

    def _theme_button(self, scheme: theme.Scheme) -> QToolButton:
        self._theme = QToolButton()
        self._theme.setProperty("kind", "icon")
        self._theme.setToolTip(self.tr("Theme"))
        self._theme.setAccessibleName(self.tr("Theme"))
        self._theme.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self._theme)
        group = QActionGroup(menu)
        names = (("system", self.tr("System")), ("light", self.tr("Light")), ("dark", self.tr("Dark")))
        for name, text in names:
            action = menu.addAction(text)
            action.setCheckable(True)
            action.setChecked(name == scheme)
            action.setData(name)
            group.addAction(action)
        group.triggered.connect(lambda action: self.scheme_chosen.emit(action.data()))
        self._theme.setMenu(menu)
        return self._theme

    # -- showing ----------------------------------------------------------------------------------------------

    def _restyle(self) -> None:
        colors = theme.palette_of(self)
        self._stop.setIcon(theme.icon("stop", colors.text))
        self._save.setIcon(theme.icon("save", colors.text))
        self._undo.setIcon(theme.icon("undo", colors.text))
        self._redo.setIcon(theme.icon("redo", colors.text))
        self._new.setIcon(theme.icon("plus", colors.text))
        self._open.setIcon(theme.icon("folder", colors.text))
        self._board.setIcon(theme.icon("chart", colors.text))
        self._theme.setIcon(theme.icon("contrast", colors.dim))
        self._cancel.setIcon(theme.icon("close", colors.dim))
        self._fix_widths()
        self._show_state()
        self._make_room()

    def _fix_widths(self) -> None:
        """Give the buttons one place for all states, so that a second click never hits another one."""
        text, kind = self._primary.text(), self._primary.property("kind")
        theme.set_property(self._primary, "kind", "primary")
        self._primary.setIcon(self._stop.icon())
        widths = []
        words = (self.tr("Start"), self.tr("Pause"), self.tr("Unpause"), self.tr("Resume"), self.tr("Train on…"))
        for word in words:
            self._primary.setText(word)
            widths.append(self._primary.sizeHint().width())
        self._primary.setFixedWidth(max(widths))
        self._primary.setText(text)
        theme.set_property(self._primary, "kind", kind)

    def _make_room(self, *, gives_back: bool = True) -> None:
        """Leave the rarer buttons their words where the row has room, else only icons: the plainest icon first.

        Words that were taken come back only with another size or another run: the buttons are not to move for a figure.
        """
        metrics = self._progress_text.fontMetrics()
        longest = metrics.horizontalAdvance(self._status.longest_progress_text)
        self._progress_room = max(self._progress_room, longest, self._progress_text.text_width())
        self._progress_text.hold_width(self._progress_room)
        words = sum(self._words_width(button) for button in self._words if not button.text())
        layout = self.layout()
        assert layout is not None
        needed = layout.sizeHint().width() + words
        for button, text in self._words.items():
            has_room = needed <= self.width() and (gives_back or bool(button.text()))
            button.setText(text if has_room else "")
            needed -= 0 if has_room else self._words_width(button)

    def _words_width(self, button: QPushButton) -> int:
        return button.fontMetrics().horizontalAdvance(self._words[button])

    def _show_state(self) -> None:
        status = self._status
        state = status.state
        if (title := status.title or self.tr("Thaw")) != self._title.whole_text:
            self._title.set_whole_text(title)
            self._progress_room = self._chip_room = 0
            self._is_other_run = True
            self._chip.clear()
        if status.state_text != self._chip.text():
            self._chip.setMinimumWidth(0)
            self._chip.setText(status.state_text)
            self._chip_room = max(self._chip_room, self._chip.sizeHint().width())
            self._chip.setMinimumWidth(self._chip_room)
        self._chip.setToolTip(status.sentence)
        theme.set_property(self._chip, "tone", status.state_tone)

        text, icon_name, kind, is_enabled, self._action = self._primary_action(state)
        self._primary.setText(text)
        theme.set_property(self._primary, "kind", kind)
        colors = theme.palette_of(self)
        color = colors.on_accent if kind == "primary" and is_enabled else colors.text
        self._primary.setIcon(theme.icon(icon_name, color))
        self._enable(self._primary, is_enabled)
        self._enable(self._stop, self._can_command and is_allowed("StopRun", state))
        self._enable(self._save, self._can_command and is_allowed("SaveCheckpoint", state))
        self._enable(self._board, status.has_run)

    def _enable(self, button: QWidget, is_enabled: bool) -> None:
        if not is_enabled:
            give_up_focus(button, None if button is self._primary else self._primary)
        button.setEnabled(is_enabled)

    def _show_changes(self) -> None:
        changes = self._changes
        undo, redo = changes.undo_text, changes.redo_text
        nothing_done = self.tr("Undo (Ctrl+Z): no change by hand to take back")
        nothing_undone = self.tr("Redo (Ctrl+Shift+Z): nothing was undone")
        for button, is_enabled, tip in (
            (self._undo, changes.can_undo, self.tr("Undo: {} (Ctrl+Z)").format(undo) if undo else nothing_done),
            (self._redo, changes.can_redo, self.tr("Redo: {} (Ctrl+Shift+Z)").format(redo) if redo else nothing_undone),
        ):
            self._enable(button, is_enabled)
            button.setToolTip(tip)
            button.setAccessibleDescription(tip)

    def _primary_action(self, state: RunState) -> tuple[str, str, str, bool, SignalInstance]:
        if self._can_resume:
            return self.tr("Resume"), "play", "primary", True, self.resume_requested
        if self._can_train_on:
            return self.tr("Train on…"), "play", "", True, self.train_on_requested
        if state is RunState.RUNNING:
            return self.tr("Pause"), "pause", "", self._can_command, self.pause_requested
        if state is RunState.PAUSED:
            return self.tr("Unpause"), "play", "primary", self._can_command, self.unpause_requested
        can_start = state is RunState.IDLE or (self._can_command and is_allowed("StartRun", state))
        kind = "primary" if state is RunState.READY else ""
        return self.tr("Start"), "play", kind, can_start, self.start_requested

    def _act(self) -> None:
        self._action.emit()

    def _show_progress(self) -> None:
        self._progress_text.set_whole_text(self._status.progress_text)
        self._progress.setVisible(bool(self._status.progress_text))
        if not self._status.can_cancel:
            give_up_focus(self._cancel, self._primary)
        self._cancel.setVisible(self._status.can_cancel)
        self._progress.setValue(round(self._status.progress_fraction * _PROGRESS_PARTS))
        self._make_room(gives_back=self._is_other_run)
        self._is_other_run = False
