"""MainWindow, the composition root: builds the views around their view models and connects them with the session."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from PySide6.QtCore import QMimeData, QSignalBlocker, QSize, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import (
    QCloseEvent,
    QContextMenuEvent,
    QDesktopServices,
    QDragEnterEvent,
    QDropEvent,
    QKeyEvent,
    QKeySequence,
    QShortcut,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.run_display import RunDisplay
from app.run_offers import RunOffers
from app.session import TrainingSession
from app.settings import Settings
from app.tensorboard import TensorBoardServer
from app.views.checkpoints import CheckpointsView
from app.views.leave_dialog import LeaveDialog
from app.views.notice import Notice
from app.views.panels import PanelSplitter, TablesSplitter, panel
from app.views.run_form import RunForm
from app.views.status_bar import StatusBar
from app.views.toolbar import Toolbar
from app.views.train_on_dialog import TrainOnDialog
from trainer.config import RunConfig
from trainer.messages.states import RunState

_CONFUSION_TAB, _DATA_TAB, _RUNS_TAB, _LOG_TAB = 1, 2, 3, 4
_SIZE = QSize(1360, 860)
_LARGEST_SHARE = 0.94
"""Of the screen."""


class MainWindow(QWidget):
    """One window: tools above, the model's tree, the curves and the run form, the tables, and the status below."""

    closed = Signal()
    """The window is about to go: everything it had to ask was answered."""

    def __init__(self, session: TrainingSession, settings: Settings) -> None:
        super().__init__()
        self.session = session
        self.display = RunDisplay(session, settings, self)
        self._settings = settings
        self._tensorboard = TensorBoardServer(self)
        self._is_closing = False
        self._left = ""
        self._room_timer = QTimer(self)
        self._room_timer.setSingleShot(True)
        self._room_timer.setInterval(0)
        self._room_timer.timeout.connect(self._make_room)
        self._build_views()
        self._lay_out()
        self._offers = RunOffers(session, self.display, self.notice, self)
        self._connect_session()
        self._connect_views()
        self._show_state()

    def load_views(self) -> None:
        """Load what the first look does without: imports take long, and the window is on the screen by now."""
        from app.checkpoint_actions import CheckpointActions
        from app.views.confusion import ConfusionView
        from app.views.data import DataView
        from app.views.layer_tree import LayerTreeView
        from app.views.log import LogView
        from app.views.metrics import MetricsView
        from app.views.plan_timeline import PlanTimelineView
        from app.views.run_list import RunListView

        display, session = self.display, self.session
        self.tree_view = LayerTreeView(display.layer_tree)
        self.metrics_view = MetricsView(display.history, display.checkpoints)
        self.timeline_view = PlanTimelineView(display.timeline)
        self.confusion_view = ConfusionView(display.confusion)
        self.data_view = DataView(display.data)
        self.runs_view = RunListView(display.runs, session.runs_dir)
        self.log_view = LogView(display.log)
        for place, view in (
            (self._tree_panel, self.tree_view),
            (self._metrics_panel, self.timeline_view),
            (self._metrics_panel, self.metrics_view),
        ):
            layout = place.layout()
            assert layout is not None
            layout.addWidget(view)
        self._actions = CheckpointActions(self.checkpoints_view, session, display, self.notice, self)
        self._connect_loaded()
        self._fill_tabs()
        # What there is by now stays: a garbage collection that walked all of it would take longer than a frame.
        gc.freeze()
        # A thread that reads a folder keeps the interpreter for this long before the window gets it: 5 ms by default.
        sys.setswitchinterval(0.001)

    def show_config(self, config: RunConfig, *, start: bool) -> None:
        """Fill the form with a configuration, and begin the run if ``start``."""
        self.display.run_config.show_config(config)
        if start:
            self._start()
        elif self.session.state is not RunState.STARTING:
            # A worker that is still starting is asked as soon as it serves.
            self.display.inspect_model()
            self.display.check_data()

    def follow_system_scheme(self) -> None:
        """Change with the desktop between light and dark, if that was chosen."""
        if self._settings.scheme == "system":
            _apply_scheme("system")

    # -- building ---------------------------------------------------------------------------------------------

    def _build_views(self) -> None:
        display = self.display
        self.toolbar = Toolbar(display.status, display.changes, self._settings.scheme)
        self.notice = Notice(self)
        self.form = RunForm(display.run_config)
        self.checkpoints_view = CheckpointsView(display.checkpoints, display.details)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.tabBar().setDrawBase(False)
        self.tabs.addTab(self.checkpoints_view, self.tr("Checkpoints"))
        # Beside the tabs there is room, which the low table would have to give.
        self._corner = QWidget()
        beside = QHBoxLayout(self._corner)
        beside.setContentsMargins(0, 0, 0, theme.SPACE * 2)
        beside.addWidget(self.checkpoints_view.filter_box)
        beside.addWidget(self.checkpoints_view.scope)
        self.tabs.setCornerWidget(self._corner, Qt.Corner.TopRightCorner)
        for tab, name in (
            (_CONFUSION_TAB, self.tr("Confusion")),
            (_DATA_TAB, self.tr("Data")),
            (_RUNS_TAB, self.tr("Runs")),
            (_LOG_TAB, self.tr("Log")),
        ):
            self.tabs.insertTab(tab, QWidget(), name)

    def _lay_out(self) -> None:
        self._tree_panel, self._metrics_panel = panel(280), panel(360)
        self._columns = PanelSplitter(
            Qt.Orientation.Horizontal, self._tree_panel, self._metrics_panel, panel(272, self.form)
        )
        self._columns.setStretchFactor(1, 1)
        self._columns.setSizes([400, 616, 292])
        self._rows = TablesSplitter(self._columns, panel(0, self.tabs))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(theme.PANEL_PADDING, theme.SPACE * 2, theme.PANEL_PADDING, theme.SPACE)
        layout.setSpacing(theme.SPACE * 2)
        layout.addWidget(self.toolbar)
        layout.addWidget(self._rows, 1)
        layout.addWidget(StatusBar(self.display.status))
        # The keys begin with the window itself, where Space pauses, and not on its first button.
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setFocus()
        self.setAcceptDrops(True)
        self.setMinimumSize(960, 620)
        # Its frame has to have room as well, which nobody knows before it is shown.
        self.resize(_SIZE.boundedTo(self.screen().availableSize() * _LARGEST_SHARE))
        self.restoreGeometry(self._settings.layout("window"))
        self._columns.restoreState(self._settings.layout("columns"))
        self._rows.restore_height(self._settings.layout("rows"))
        self.form.restore_state(self._settings.layout("form"))

    def _fill_tabs(self) -> None:
        """Put the views of the tabs but the first in their places."""
        shown = self.tabs.currentIndex()
        with QSignalBlocker(self.tabs):
            for tab, view in (
                (_CONFUSION_TAB, self.confusion_view),
                (_DATA_TAB, self.data_view),
                (_RUNS_TAB, self.runs_view),
                (_LOG_TAB, self.log_view),
            ):
                place = self.tabs.widget(tab)
                self.tabs.insertTab(tab, view, self.tabs.tabText(tab))
                self.tabs.removeTab(tab + 1)
                if place is not None:
                    place.deleteLater()
            self.tabs.setCurrentIndex(shown)

    # -- connections ------------------------------------------------------------------------------------------

    def _connect_session(self) -> None:
        session = self.session
        for signal in (session.state_changed, session.run_prepared, session.run_opened, session.worker_lost):
            signal.connect(self._show_state)
        session.state_changed.connect(self._close_when_stopped)
        session.worker_lost.connect(self._close_when_stopped)
        session.run_left.connect(self._tensorboard.stop)

    def _connect_views(self) -> None:
        session, toolbar, display = self.session, self.toolbar, self.display
        self.tabs.currentChanged.connect(self._on_tab_changed)
        self.tabs.currentChanged.connect(
            lambda _: self._corner.setVisible(self.tabs.currentWidget() is self.checkpoints_view)
        )
        toolbar.new_run_requested.connect(self._new_run)
        toolbar.open_run_requested.connect(self._choose_run)
        toolbar.start_requested.connect(self._start)
        toolbar.pause_requested.connect(session.pause)
        toolbar.unpause_requested.connect(session.unpause)
        toolbar.resume_requested.connect(self._offers.resume)
        toolbar.train_on_requested.connect(self._ask_train_on)
        toolbar.stop_requested.connect(session.stop)
        toolbar.cancel_requested.connect(display.cancel)
        toolbar.save_requested.connect(session.save_checkpoint)
        toolbar.tensorboard_requested.connect(self._open_tensorboard)
        toolbar.scheme_chosen.connect(self._choose_scheme)
        self.form.start_requested.connect(self._start)
        self.form.apply_requested.connect(display.change_sender.send_typed)
        self.form.rate_wanted.connect(self._find_rate)
        self.form.plan_chosen.connect(display.apply_plan)
        self.form.data_changed.connect(display.check_data)
        self.form.model_chosen.connect(display.inspect_model)
        display.layer_tree.freeze_requested.connect(display.change_sender.freeze)
        display.layer_tree.unfreeze_requested.connect(display.change_sender.unfreeze)
        display.layer_tree.multiply_requested.connect(display.change_sender.multiply)
        display.layer_tree.batchnorm_requested.connect(display.change_sender.set_batchnorm)
        display.checkpoints.selection_wanted.connect(lambda _: self.tabs.setCurrentWidget(self.checkpoints_view))
        self.checkpoints_view.open_requested.connect(self._open_run)
        self._tensorboard.ready.connect(self._show_tensorboard)
        self._tensorboard.failed.connect(self.notice.tell)
        for keys, slot in (
            ("Ctrl+.", toolbar.press_stop),
            ("Ctrl+S", toolbar.press_save),
            ("Ctrl+Z", self._undo),
            ("Ctrl+Shift+Z", display.changes.redo),
            ("Ctrl+N", self._new_run),
            ("Ctrl+O", self._choose_run),
            ("Ctrl+Q", self.close),
            ("Shift+F10", self._ask_menu),
        ):
            QShortcut(QKeySequence(keys), self).activated.connect(slot)

    def _connect_loaded(self) -> None:
        session, display = self.session, self.display
        self.metrics_view.restore_requested.connect(session.restore)
        self.metrics_view.rewind_requested.connect(session.rewind)
        self.data_view.views_wanted.connect(display.preview_image)
        self.data_view.check_wanted.connect(display.check_data)
        self.runs_view.refresh_requested.connect(lambda: self.notice.take_back(self._left))
        self.runs_view.open_requested.connect(self._open_run)
        self.runs_view.refresh_requested.connect(display.list_runs)
        self.runs_view.folder_wanted.connect(self._show_folder)
        for signal in (session.state_changed, session.run_prepared, session.worker_lost, session.run_left):
            signal.connect(self.runs_view.refresh_soon)
        self._actions.folder_wanted.connect(self._show_folder)
        self._actions.branch_wanted.connect(self._begin_branch)

    def _show_state(self) -> None:
        session = self.session
        # In a turn of its own: all that is on display is laid out and painted anew then.
        self._room_timer.start()
        is_over = session.can_resume and session.state is RunState.FINISHED
        self.toolbar.allow(commands=session.is_live, resume=session.can_resume and not is_over, train_on=is_over)
        is_new = session.run_dir is None and session.state is not RunState.PREPARING
        self.form.set_editable(is_new, is_live=session.is_live and session.allows("ChangeTraining"))
        self.form.allow_rate_search(session.can_ask("FindRate") if is_new else session.allows("FindRate"))
        self.checkpoints_view.allow(
            restore=session.can_resume or session.allows("RestoreCheckpoint"),
            resume=session.can_resume,
            weights=session.allows("RestoreCheckpoint") and session.state is not RunState.FINISHED,
        )
        # Qt itself adds the program's name where the desktop shows it, and the same to every dialog's.
        self.setWindowTitle(self.display.status.title or self.tr("Thaw"))

    def _undo(self) -> None:
        """Undo in the table what was deleted from it, and elsewhere what was changed of the run."""
        if self.display.edits.can_undo and self.checkpoints_view.isAncestorOf(self.focusWidget() or self):
            self._actions.put_back()
        else:
            self.display.changes.undo()

    def _on_tab_changed(self) -> None:
        # It is painted once, in the place that it gets.
        self._rows.setUpdatesEnabled(False)
        self._room_timer.start()

    def _make_room(self) -> None:
        """Raise the tables for pictures while there are no curves, and for a matrix; lower them again for curves."""
        shown, has_run = self.tabs.currentIndex(), self.session.run_dir is not None
        if shown == (_CONFUSION_TAB if has_run else _DATA_TAB):
            self._rows.raise_tables()
        elif has_run:
            self._rows.lower_tables()
        self._rows.setUpdatesEnabled(True)

    # -- what the user asks for -------------------------------------------------------------------------------

    def _start(self) -> None:
        if self.session.allows("StartRun"):
            self.session.start_run()
        elif not self.session.is_beginning and (config := self.display.run_config.config()) is not None:
            self.session.prepare_run(config)

    def _ask_train_on(self) -> None:
        dialog = TrainOnDialog(self.display.status.title, self.display.status.epoch, self)
        dialog.chosen.connect(self._train_on)
        dialog.open()

    def _train_on(self, num_epochs: int) -> None:
        if self.session.can_resume:
            self.notice.settle()
            self.session.train_on(num_epochs)

    def _ask_menu(self) -> None:
        """Open the menu of what has the focus: Qt does so for the Menu key alone, which not every keyboard has."""
        asked: QWidget = self.focusWidget() or self
        place = asked.rect().center()
        if isinstance(asked, QAbstractItemView):
            place, asked = asked.visualRect(asked.currentIndex()).center(), asked.viewport()
        reason = QContextMenuEvent.Reason.Keyboard
        QApplication.sendEvent(asked, QContextMenuEvent(reason, place, asked.mapToGlobal(place)))

    def _new_run(self) -> None:
        title = self.display.status.title if self.session.is_live else ""
        state = self.session.state
        self.session.new_run()
        if title:
            # True also when that run has ended in the meantime: nobody follows it here.
            left = {
                RunState.PAUSED: self.tr("You left {} paused."),
                RunState.READY: self.tr("You left {} ready to start."),
            }.get(state, self.tr("You left {} training in the background."))
            self._left = f"{left.format(title)} {self.tr('It is listed under Runs.')}"
            self.notice.tell(self._left, is_trouble=False)
        self.form.focus_first()

    def _begin_branch(self, config: RunConfig) -> None:
        self._new_run()
        self.show_config(config, start=False)

    def _choose_run(self) -> None:
        dialog = QFileDialog(self, self.tr("Open a run"), str(self.session.runs_dir))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(lambda path: self._open_run(Path(path)))
        dialog.open()

    def _open_run(self, path: Path) -> None:
        if path != self.session.run_dir:
            self.session.open_run(path)

    def _find_rate(self) -> None:
        if self.display.find_rate():
            # With pyqtgraph, for which the window does not wait as it starts.
            from app.views.rate_dialog import RateDialog

            dialog = RateDialog(self.display.rate_search, self)
            dialog.rate_chosen.connect(self.display.change_sender.use_rate)
            dialog.cancelled.connect(self.session.cancel)
            dialog.cancelled.connect(self.display.rate_search.leave)
            dialog.open()

    def _open_tensorboard(self) -> None:
        if self.session.run_dir is not None:
            self._tensorboard.open(self.session.run_dir / "tensorboard")

    def _show_tensorboard(self, url: str) -> None:
        if not QDesktopServices.openUrl(QUrl(url)):
            self.notice.tell(self.tr("No browser could be opened. TensorBoard is at {}").format(url), is_trouble=False)

    def _show_folder(self, folder: Path) -> None:
        if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder))):
            self.notice.tell(
                self.tr("No file manager could be opened. The folder is {}").format(folder), is_trouble=False
            )

    def _choose_scheme(self, scheme: theme.Scheme) -> None:
        self._settings.scheme = scheme
        _apply_scheme(scheme)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take a single file or folder: it will be the data of a new run."""
        if _dropped_path(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Make what was dropped the data; with a run on display, those of a new one."""
        path = _dropped_path(event.mimeData())
        event.acceptProposedAction()
        if self.session.run_dir is not None:
            self._new_run()
        self.display.run_config.set_text("data.path", path)
        self.display.check_data()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Pause or unpause with Space, where no field, row or button under the focus takes it."""
        if event.key() == Qt.Key.Key_Space and self.session.state in {RunState.RUNNING, RunState.PAUSED}:
            self.toolbar.press_primary()
        else:
            super().keyPressEvent(event)

    # -- closing ----------------------------------------------------------------------------------------------

    def closeEvent(self, event: QCloseEvent) -> None:
        """Ask what becomes of a live run; without one, keep the layout and go."""
        if self.session.is_live and not self._is_closing:
            event.ignore()
            dialog = LeaveDialog(self.display.status.title, self)
            dialog.stop_chosen.connect(self._stop_and_close)
            dialog.background_chosen.connect(self._close_now)
            dialog.open()
            return
        self._settings.keep_layout("window", self.saveGeometry())
        self._settings.keep_layout("columns", self._columns.saveState())
        if (rows := self._rows.save_height()) is not None:
            self._settings.keep_layout("rows", rows)
        self._settings.keep_layout("form", self.form.save_state())
        self.display.keep_form()
        self._tensorboard.close()
        # What is on its way to the trash gets there first.
        self.hide()
        self.display.close()
        self.session.detach()
        self.closed.emit()
        event.accept()

    def _stop_and_close(self) -> None:
        self._is_closing = True
        self.session.stop(save=True)
        self.notice.tell(self.tr("Saving a checkpoint; the window closes when it is written."), is_trouble=False)

    def _close_when_stopped(self) -> None:
        if self.session.state is RunState.PAUSED:
            # The stop could not save, so the run goes on, and closing asks again.
            self._is_closing = False
        if self._is_closing and not self.session.is_live:
            self.close()

    def _close_now(self) -> None:
        self._is_closing = True
        self.close()


def _dropped_path(mime: QMimeData) -> str:
    paths = [url.toLocalFile() for url in mime.urls() if url.isLocalFile()]
    return paths[0] if len(paths) == 1 else ""


def _apply_scheme(scheme: theme.Scheme) -> None:
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    theme.apply(app, scheme)
