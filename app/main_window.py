"""MainWindow, the composition root: builds view models and views, and connects them with the session. No logic."""

from __future__ import annotations

from pathlib import Path

import psutil
from PySide6.QtCore import Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QCloseEvent, QDesktopServices, QKeyEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import QApplication, QFileDialog, QFrame, QSplitter, QTabWidget, QVBoxLayout, QWidget

from app import theme
from app.folder_reader import FolderReader
from app.session import TrainingSession
from app.settings import Settings
from app.tensorboard import TensorBoardServer
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.log import LogItemModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.run_config import RunConfigViewModel
from app.viewmodels.run_list import RunListItemModel
from app.viewmodels.run_status import FolderSize, RunStatusViewModel
from app.views.checkpoints import CheckpointsView
from app.views.leave_dialog import LeaveDialog
from app.views.log import LogView
from app.views.notice import Notice
from app.views.run_form import RunForm
from app.views.run_list import RunListView
from app.views.status_bar import StatusBar
from app.views.toolbar import Toolbar
from trainer.client import RunOpened, WorkerLost
from trainer.config import ModelConfig, RunConfig
from trainer.messages import (
    CheckpointRestored,
    CheckpointSaved,
    CommandRejected,
    LayersFrozen,
    LayersUnfrozen,
    ModelInspected,
    RunInfo,
    RunPrepared,
    RunState,
    StateChanged,
    WorkerAttached,
)
from trainer.runs import RunRecord

# The folder and the memory are looked at this often: they change slowly, and a look costs a walk over the folder.
_MEASURE_INTERVAL_MS = 3000


class MainWindow(QWidget):
    """One window: tools above, the model's tree, the curves and the run form, the tables, and the status below."""

    closed = Signal()
    """The window is about to go: everything it had to ask was answered."""

    def __init__(self, session: TrainingSession, settings: Settings) -> None:
        super().__init__()
        self.session = session
        self._settings = settings
        self._reader = FolderReader(self)
        self._tensorboard = TensorBoardServer(self)
        self._process = psutil.Process()
        self._is_closing = False

        self.status = RunStatusViewModel(self)
        self.history = MetricHistory(self)
        self.layer_tree = LayerTreeViewModel(self)
        self.checkpoints = CheckpointItemModel(self)
        self.runs = RunListItemModel(self)
        self.log = LogItemModel(self)
        self.run_config = RunConfigViewModel(settings.form_values, self)

        self._build()
        self._connect_session()
        self._connect_views()
        self._measure_timer = QTimer(self)
        self._measure_timer.setInterval(_MEASURE_INTERVAL_MS)
        self._measure_timer.timeout.connect(self._measure)
        self._measure_timer.start()
        self._show_state()

    def load_views(self) -> None:
        """Load the views that take long to import; the window is on screen by now."""
        from app.views.layer_tree import LayerTreeView
        from app.views.metrics import MetricsView

        self.tree_view = LayerTreeView(self.layer_tree)
        self.metrics_view = MetricsView(self.history)
        self._fill(self._tree_panel, self.tree_view)
        self._fill(self._metrics_panel, self.metrics_view)

    def show_config(self, config: RunConfig, *, start: bool) -> None:
        """Fill the form with a configuration, and begin the run if ``start``."""
        self.run_config.show_config(config)
        if start:
            self._start()
        else:
            self._inspect_model()
            self._check_data(config.data.path)

    def follow_system_scheme(self) -> None:
        """Change with the desktop between light and dark, if that was chosen."""
        if self._settings.scheme == "system":
            self._apply_scheme("system")

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.setWindowTitle(self.tr("Thaw"))
        self.toolbar = Toolbar(self.status, self._settings.scheme)
        self.notice = Notice()
        self.form = RunForm(self.run_config)
        self.checkpoints_view = CheckpointsView(self.checkpoints)
        self.runs_view = RunListView(self.runs, self.session.runs_dir)
        self.log_view = LogView(self.log)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.tabBar().setDrawBase(False)
        self.tabs.addTab(self.checkpoints_view, self.tr("Checkpoints"))
        self.tabs.addTab(self.runs_view, self.tr("Runs"))
        self.tabs.addTab(self.log_view, self.tr("Log"))
        self._tree_panel, self._metrics_panel = _panel(), _panel()
        self._tree_panel.setMinimumWidth(280)
        self._metrics_panel.setMinimumWidth(360)
        form_panel, tabs_panel = _panel(self.form), _panel(self.tabs)
        form_panel.setMinimumWidth(272)

        self._columns = _splitter(Qt.Orientation.Horizontal, self._tree_panel, self._metrics_panel, form_panel)
        self._columns.setStretchFactor(1, 1)
        self._columns.setSizes([372, 640, 296])
        self._rows = _splitter(Qt.Orientation.Vertical, self._columns, tabs_panel)
        self._rows.setStretchFactor(0, 1)
        self._rows.setSizes([550, 216])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(theme.PANEL_PADDING, theme.SPACE * 2, theme.PANEL_PADDING, theme.SPACE)
        layout.setSpacing(theme.SPACE * 2)
        layout.addWidget(self.toolbar)
        layout.addWidget(self.notice)
        layout.addWidget(self._rows, 1)
        layout.addWidget(StatusBar(self.status))

        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setFocus()
        self.setMinimumSize(960, 620)
        self.resize(1360, 860)
        self.restoreGeometry(self._settings.layout("window"))
        self._columns.restoreState(self._settings.layout("columns"))
        self._rows.restoreState(self._settings.layout("rows"))

    @staticmethod
    def _fill(panel: QFrame, view: QWidget) -> None:
        layout = panel.layout()
        assert layout is not None
        layout.addWidget(view)

    # -- connections ------------------------------------------------------------------------------------------

    def _connect_session(self) -> None:
        session = self.session
        session.worker_attached.connect(self._on_worker_attached)
        session.state_changed.connect(self._on_state_changed)
        session.run_left.connect(self._on_run_left)
        session.run_opened.connect(self._on_run_opened)
        session.run_prepared.connect(self._on_run_prepared)
        session.worker_lost.connect(self._on_worker_lost)
        session.command_rejected.connect(self._on_command_rejected)
        session.checkpoint_saved.connect(self._on_checkpoint_saved)
        session.checkpoint_restored.connect(self._on_checkpoint_restored)
        session.model_inspected.connect(self._on_model_inspected)
        session.models_listed.connect(lambda event: self.run_config.offer_models(event.models))
        session.data_checked.connect(self.run_config.show_data)
        session.preparation_progressed.connect(self.status.prepare_progress)
        session.metrics_logged.connect(self.history.add)
        session.progress_reported.connect(self.status.progress)
        session.progress_reported.connect(lambda event: self.layer_tree.set_step_ms(event.step_ms))
        session.freeze_changed.connect(self.layer_tree.settle)
        session.freeze_changed.connect(self.history.add_marker)
        session.freeze_verified.connect(self.layer_tree.verify)
        session.open_failed.connect(self.notice.tell)
        for signal in (
            session.freeze_changed,
            session.freeze_verified,
            session.log_written,
            session.state_changed,
            session.checkpoint_saved,
            session.checkpoint_restored,
            session.command_rejected,
            session.worker_lost,
        ):
            signal.connect(self.log.add)

    def _connect_views(self) -> None:
        session, toolbar = self.session, self.toolbar
        toolbar.new_run_requested.connect(self._new_run)
        toolbar.open_run_requested.connect(self._choose_run)
        toolbar.start_requested.connect(self._start)
        toolbar.pause_requested.connect(session.pause)
        toolbar.unpause_requested.connect(session.unpause)
        toolbar.resume_requested.connect(self._resume)
        toolbar.stop_requested.connect(session.stop)
        toolbar.save_requested.connect(session.save_checkpoint)
        toolbar.tensorboard_requested.connect(self._open_tensorboard)
        toolbar.scheme_chosen.connect(self._choose_scheme)
        self.notice.action_requested.connect(self._resume)
        self.form.start_requested.connect(self._start)
        self.form.data_chosen.connect(self._check_data)
        self.form.model_chosen.connect(self._inspect_model)
        self.layer_tree.freeze_requested.connect(self._freeze)
        self.layer_tree.unfreeze_requested.connect(self._unfreeze)
        self.layer_tree.frozen_layers_changed.connect(self._keep_frozen)
        self.checkpoints_view.restore_requested.connect(session.restore)
        self.checkpoints_view.resume_requested.connect(session.resume)
        self.runs_view.open_requested.connect(self._open_run)
        self.runs_view.refresh_requested.connect(lambda: self._reader.list_runs(session.runs_dir))
        self._reader.runs_listed.connect(self.runs.show_runs)
        self._reader.folder_measured.connect(self._show_measures)
        self._reader.checkpoints_examined.connect(self.checkpoints.show_problems)
        self._tensorboard.ready.connect(lambda url: QDesktopServices.openUrl(QUrl(url)))
        self._tensorboard.failed.connect(self.notice.tell)
        for keys, slot in (
            ("Ctrl+.", toolbar.press_stop),
            ("Ctrl+S", toolbar.press_save),
            ("Ctrl+N", self._new_run),
            ("Ctrl+O", self._choose_run),
        ):
            QShortcut(QKeySequence(keys), self).activated.connect(slot)

    # -- what the session tells -------------------------------------------------------------------------------

    def _on_worker_attached(self, event: WorkerAttached) -> None:
        self.run_config.offer_devices(event.devices)
        if event.run is not None:
            self.status.attach(event.run, event.step, event.epoch)
        elif self.session.run_dir is None:
            self.session.list_models()
            self._inspect_model()
            self._check_data(self.run_config.text("data.path"))

    def _on_state_changed(self, event: StateChanged) -> None:
        self.status.change_state(event)
        if event.state in {RunState.PAUSED, RunState.FAILED} and event.sentence:
            self.notice.tell(event.sentence)
        elif event.state is RunState.RUNNING:
            self.notice.hide()
        self._show_state()
        if self._is_closing and not self.session.is_live:
            self.close()

    def _on_run_left(self) -> None:
        self.status.leave_run()
        self.history.clear()
        self.checkpoints.reset([])
        self.log.reset([])
        self.run_config.leave_run()
        self.layer_tree.drop_pending()
        self.layer_tree.set_step_ms(None)
        self._tensorboard.stop()
        self.notice.hide()

    def _on_run_opened(self, event: RunOpened) -> None:
        record = event.record
        self.status.open_run(event)
        self.history.open_run(record)
        self.checkpoints.reset(record.checkpoints)
        self.log.reset(record.log)
        if record.info is not None:
            self._show_run(record.info)
            self._replay_freezes(record)
        else:
            self.run_config.show_config(record.config)
        self._measure()
        if record.was_interrupted:
            self.notice.tell(
                self.tr("{} was interrupted. What it saved is safe.").format(record.config.title),
                action=self.tr("Resume"),
            )

    def _replay_freezes(self, record: RunRecord) -> None:
        # What happened before the present segment was undone by the restore or the resume that began it.
        for event in record.log:
            if isinstance(event, LayersFrozen | LayersUnfrozen) and event.segment == record.segment:
                self.layer_tree.settle(event)
            elif isinstance(event, CheckpointRestored) and event.segment == record.segment:
                self.layer_tree.restore(event)

    def _on_run_prepared(self, event: RunPrepared) -> None:
        self.status.prepare(event)
        self.history.restore(event.step, event.segment)
        self._show_run(event.run)
        self._settings.form_values = event.run.config.model_dump()
        self._measure()

    def _show_run(self, run: RunInfo) -> None:
        self.run_config.show_run(run)
        self.layer_tree.set_summary(run.summary)
        self.history.set_epochs(run.steps_per_epoch, run.total_steps)
        self._show_state()

    def _on_worker_lost(self, event: WorkerLost) -> None:
        self.status.lose_worker(event)
        self.layer_tree.drop_pending()
        if not event.was_expected:
            action = self.tr("Resume") if self.session.can_resume else ""
            last_line = event.log_tail.strip().rpartition("\n")[2] if not action else ""
            self.notice.tell(f"{event.sentence} {last_line}".strip(), action=action)
        self._show_state()
        if self._is_closing:
            self.close()

    def _on_command_rejected(self, event: CommandRejected) -> None:
        self.layer_tree.reject(event.command_id, event.reason)
        is_beside_field = self.run_config.reject(event)
        if not is_beside_field and event.command not in {"FreezeLayers", "UnfreezeLayers"}:
            self.notice.tell(event.reason)

    def _on_checkpoint_saved(self, event: CheckpointSaved) -> None:
        self.checkpoints.add(event.checkpoint)
        self.status.save_checkpoint(event)

    def _on_checkpoint_restored(self, event: CheckpointRestored) -> None:
        self.status.restore_checkpoint(event)
        self.history.restore(event.step, event.segment)
        self.layer_tree.restore(event)

    def _on_model_inspected(self, event: ModelInspected) -> None:
        if self.session.run_dir is None:
            self.layer_tree.set_summary(event.summary)

    def _show_state(self) -> None:
        session = self.session
        is_new = session.run_dir is None and session.state in {RunState.STARTING, RunState.IDLE, RunState.FAILED}
        self.toolbar.allow(
            commands=session.is_live, resume=session.can_resume and session.state is not RunState.FINISHED
        )
        self.form.set_editable(is_new)
        self.layer_tree.is_live = session.is_live
        self.checkpoints_view.allow(
            restore=session.can_resume or session.allows("RestoreCheckpoint"),
            resume=session.can_resume,
            checkpoints_dir=None if session.run_dir is None else session.run_dir / "checkpoints",
        )
        title = self.status.title
        self.setWindowTitle(self.tr("{} – Thaw").format(title) if title else self.tr("Thaw"))

    # -- what the user asks for -------------------------------------------------------------------------------

    def _start(self) -> None:
        if self.session.allows("StartRun"):
            self.session.start_run()
            return
        config = self.run_config.config()
        if config is not None:
            self.session.prepare_run(config)

    def _resume(self) -> None:
        if self.session.can_resume:
            self.notice.hide()
            self.session.resume()

    def _new_run(self) -> None:
        title = self.status.title if self.session.is_live else ""
        self.session.new_run()
        if title:
            self.notice.tell(
                self.tr("{} goes on in the background. Open it under Runs.").format(title), is_trouble=False
            )
        self.form.focus_first()

    def _choose_run(self) -> None:
        dialog = QFileDialog(self, self.tr("Open a run"), str(self.session.runs_dir))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(lambda path: self._open_run(Path(path)))
        dialog.open()

    def _open_run(self, path: Path) -> None:
        if path != self.session.run_dir:
            self.session.open_run(path)

    def _check_data(self, path: str) -> None:
        if path.strip():
            self.run_config.show_checking()
            self.session.check_data(path.strip())

    def _inspect_model(self) -> None:
        name = self.run_config.text("model.name").strip()
        if name and not self.run_config.error("model.name"):
            # The tree needs no weights, so none are downloaded for a look at it.
            self.session.inspect_model(ModelConfig(name=name, weights="random", frozen=self.run_config.frozen))

    def _freeze(self, layers: list[str]) -> None:
        self.layer_tree.mark_pending(self.session.freeze(layers), layers)

    def _keep_frozen(self) -> None:
        self.run_config.frozen = self.layer_tree.frozen_layers

    def _unfreeze(self, layers: list[str]) -> None:
        self.layer_tree.mark_pending(self.session.unfreeze(layers), layers)

    def _open_tensorboard(self) -> None:
        if self.session.run_dir is not None:
            self._tensorboard.open(self.session.run_dir / "tensorboard")

    def _choose_scheme(self, scheme: theme.Scheme) -> None:
        self._settings.scheme = scheme
        self._apply_scheme(scheme)

    def _apply_scheme(self, scheme: theme.Scheme) -> None:
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        theme.apply(app, scheme)

    # -- measures ---------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        run_dir = self.session.run_dir
        if run_dir is None:
            self._show_measures(None)
            return
        self._reader.measure(run_dir)
        self._reader.examine(run_dir, self.checkpoints.checkpoints())

    def _show_measures(self, size: FolderSize | None) -> None:
        self.status.measure(size, self._process.memory_info().rss)

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
            dialog = LeaveDialog(self.status.title, self)
            dialog.stop_chosen.connect(self._stop_and_close)
            dialog.background_chosen.connect(self._close_now)
            dialog.open()
            return
        self._settings.keep_layout("window", self.saveGeometry())
        self._settings.keep_layout("columns", self._columns.saveState())
        self._settings.keep_layout("rows", self._rows.saveState())
        if self.session.run_dir is None:
            self._settings.form_values = self.run_config.values()
        self._measure_timer.stop()
        self._tensorboard.stop()
        self.session.detach()
        self.closed.emit()
        event.accept()

    def _stop_and_close(self) -> None:
        self._is_closing = True
        self.session.stop(save=True)
        self.notice.tell(self.tr("Saving a checkpoint; the window closes when it is written."), is_trouble=False)

    def _close_now(self) -> None:
        self._is_closing = True
        self.close()


def _panel(*views: QWidget) -> QFrame:
    panel = QFrame()
    panel.setProperty("role", "panel")
    layout = QVBoxLayout(panel)
    padding = theme.PANEL_PADDING
    layout.setContentsMargins(padding, padding, padding, padding)
    for view in views:
        layout.addWidget(view)
    return panel


def _splitter(orientation: Qt.Orientation, *panels: QWidget) -> QSplitter:
    splitter = QSplitter(orientation)
    splitter.setHandleWidth(theme.PANEL_GAP)
    splitter.setChildrenCollapsible(False)
    for panel in panels:
        splitter.addWidget(panel)
    return splitter
