"""TrainingSession: the window's one link to a worker. Drains its events on a timer, one signal for each kind."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal, SignalInstance

from app.run_opener import CannotOpen, RunOpener
from trainer.client import ClientEvent, RunOpened, WorkerClient, WorkerLost
from trainer.config import DataConfig, ModelConfig, PlanPhase, RunConfig
from trainer.messages import changes, commands, events
from trainer.messages.base import Command
from trainer.messages.events import StateChanged
from trainer.messages.run_info import RunInfo
from trainer.messages.states import RunState

DRAIN_INTERVAL_MS = 50
# A tick that finds a backlog leaves the rest to the next one, so that the window never waits for it.
_DRAIN_BUDGET_S = 0.005


class TrainingSession(QObject):
    """Owns a worker and the run on display. Commands go out at once; what happened comes back as signals.

    Every signal carries the event of its name (``trainer.messages.events``), except those that say otherwise. All come
    from the GUI thread. ``state_changed`` also comes when a run's folder is shown or a worker is lost, then with
    ``time`` 0.
    """

    model_inspected = Signal(object)
    models_listed = Signal(object)
    data_checked = Signal(object)
    run_estimated = Signal(object)
    rate_found = Signal(object)
    image_previewed = Signal(object)
    preparation_progressed = Signal(object)
    run_prepared = Signal(object)
    metrics_logged = Signal(object)
    progress_reported = Signal(object)
    layer_stats_reported = Signal(object)
    freeze_changed = Signal(object)  # LayersFrozen or LayersUnfrozen
    rate_changed = Signal(object)
    rate_multiplier_changed = Signal(object)
    change_advised = Signal(object)
    phase_began = Signal(object)
    plan_changed = Signal(object)
    batchnorm_changed = Signal(object)
    training_changed = Signal(object)
    freeze_verified = Signal(object)
    features_cached = Signal(object)
    checkpoint_saved = Signal(object)
    checkpoint_edited = Signal(object)
    checkpoints_deleted = Signal(object)
    checkpoints_put_back = Signal(object)
    checkpoint_restored = Signal(object)  # any StateRestored
    rewinds_kept = Signal(object)
    state_changed = Signal(object)
    command_rejected = Signal(object)
    log_written = Signal(object)
    command_sent = Signal(object)  # the command, which the worker has not answered yet
    worker_attached = Signal(object)
    run_opened = Signal(object)  # trainer.client.RunOpened
    worker_lost = Signal(object)  # trainer.client.WorkerLost
    run_left = Signal()  # what was on display is put away, for another run or a new one
    open_failed = Signal(str)  # the sentence that says why a run's folder could not be opened

    def __init__(
        self,
        runs_dir: Path,
        parent: QObject | None = None,
        *,
        start_worker: Callable[[], WorkerClient] = WorkerClient.start,
    ) -> None:
        super().__init__(parent)
        self.runs_dir = runs_dir
        self.run: RunInfo | None = None
        self.run_dir: Path | None = None
        self.was_interrupted = False
        self._start_worker = start_worker
        self._client: WorkerClient | None = None
        self._worker_state = RunState.STARTING
        self._shown_state: RunState | None = None
        self._has_served = False
        self._waiting: list[Command] = []
        self._sent_ids: set[str] = set()
        self._begin_id = ""
        self._asked: commands.OpenRun | None = None
        self._resume_id = ""
        # How the run on display ended, while a worker is to go on with it and has neither loaded nor refused it.
        self._state_before_load: RunState | None = None
        self._opener = RunOpener()
        self._backlog: deque[ClientEvent] = deque()
        self._resume_when_read = False
        self._signals = self._signals_by_kind()
        self._timer = QTimer(self)
        self._timer.setInterval(DRAIN_INTERVAL_MS)
        self._timer.timeout.connect(self._drain)
        self._timer.start()
        self._use_fresh_worker()

    # -- what is on display -----------------------------------------------------------------------------------

    @property
    def state(self) -> RunState:
        """Return the state of the run on display; without one, the worker's."""
        return self._worker_state if self._shown_state is None else self._shown_state

    @property
    def is_live(self) -> bool:
        """Return whether a worker holds the run on display and it can still change."""
        return self._client is not None and self._shown_state is None and self._worker_state.is_live

    @property
    def is_beginning(self) -> bool:
        """Return whether a run was asked for that the worker has neither prepared nor refused yet."""
        return self._client is not None and bool(self._begin_id)

    def starts_after(self, command_id: str) -> bool:
        """Return whether the run on display starts by itself once a command has restored a checkpoint of it."""
        if self._worker_state is RunState.PREPARING:
            return self._asked is not None and self._asked.start
        return command_id == self._resume_id

    @property
    def holds_run(self) -> bool:
        """Return whether a worker has the run on display, which alone may write into its folder then."""
        return self._client is not None and self._shown_state is None and self.run_dir is not None

    @property
    def can_resume(self) -> bool:
        """Return whether the run on display can go on from a checkpoint."""
        return self.run_dir is not None and self.state in {RunState.STOPPED, RunState.FAILED, RunState.FINISHED}

    def allows(self, kind: str) -> bool:
        """Return whether the worker takes a command of this kind now."""
        return self._client is not None and self._shown_state is None and commands.is_allowed(kind, self._worker_state)

    def can_ask(self, kind: str) -> bool:
        """Return whether a worker will answer a command of this kind, whatever run is on display."""
        is_starting = self._worker_state is RunState.STARTING
        return self._client is not None and (is_starting or commands.is_allowed(kind, self._worker_state))

    @property
    def has_worker(self) -> bool:
        """Return whether there is a worker, with a run or without."""
        return self._client is not None

    def has_sent(self, command_id: str) -> bool:
        """Return whether a command is this session's own, and not one of another window or a shell."""
        return command_id in self._sent_ids

    def is_waiting(self, command_id: str) -> bool:
        """Return whether a command has yet to be sent, because the worker is still starting."""
        return any(command.command_id == command_id for command in self._waiting)

    # -- commands ---------------------------------------------------------------------------------------------

    def inspect_model(self, model: ModelConfig, num_classes: int, image_size: int | None = None) -> str:
        """Ask for a model's tree, for images of a side in pixels (None: the weights' own). Returns the command's id."""
        return self._send(commands.InspectModel(model=model, num_classes=num_classes, image_size=image_size))

    def list_models(self) -> str:
        """Ask for the models on offer. Returns the command's id."""
        return self._send(commands.ListModels())

    def check_data(self, data: DataConfig, seed: int) -> str:
        """Ask for a scan of a data set, split as a run with this seed would. Returns the command's id."""
        return self._send(commands.CheckData(data=data, seed=seed))

    def estimate_run(self, config: RunConfig) -> str:
        """Ask what a run would need. Returns the command's id."""
        return self._send(commands.EstimateRun(config=config, runs_dir=str(self.runs_dir)))

    def preview_image(self, config: RunConfig, report_path: Path, path: str, num_fixed: int) -> str:
        """Ask what a run's model sees of an image; the report is of the run's data. Returns the command's id.

        ``num_fixed`` is the number of views that come in turn, 0 where each epoch has a new one.
        """
        return self._send(
            commands.PreviewImage(config=config, report_path=str(report_path), path=path, num_fixed=num_fixed)
        )

    def cancel(self) -> str:
        """End what the worker does before a run: a preparation, or a look-up. Returns the command's id."""
        return self._send(commands.StopRun() if self.state is RunState.PREPARING else commands.CancelLookUp())

    def prepare_run(self, config: RunConfig, *, start: bool = True) -> str:
        """Make a new run and begin it, in a fresh worker if this one has had a run. Returns the command's id."""
        if self._shown_state is not None or self._worker_state not in {RunState.STARTING, RunState.IDLE}:
            self.new_run()
        self._begin_id = self._send(commands.PrepareRun(config=config, runs_dir=str(self.runs_dir), start=start))
        return self._begin_id

    def new_run(self) -> None:
        """Put the run on display away (a live one goes on in the background) and wait for a new configuration."""
        self._opener.cancel()
        self._put_away()
        self._make_worker_ready()
        self._show_state(self._worker_state)

    def open_run(self, path: Path, *, resume: bool = False) -> None:
        """Show a run: attach to its worker if one serves it, else read its folder, and go on with it if ``resume``."""
        self._resume_when_read = resume
        self._opener.open(path)

    def resume(self, checkpoint: str | None = None, *, start: bool = True) -> str:
        """Go on with the stopped run on display from a checkpoint (None: where it was). Returns the command's id."""
        assert self.run_dir is not None
        if checkpoint is None and start and self.allows("StartRun"):
            # The worker has it in memory just as it was stopped.
            return self.start_run()
        if self.allows("RestoreCheckpoint"):
            command_id = self._send(commands.RestoreCheckpoint(name=checkpoint or "last"))
            self._resume_id = command_id if start else ""
            return command_id
        return self._load(commands.OpenRun(run_dir=str(self.run_dir), checkpoint=checkpoint, start=start))

    def train_on(self, num_epochs: int) -> str:
        """Go on with the run on display, which is over, to so many epochs in all. Returns the command's id."""
        if self.allows("ChangeTraining"):
            self._resume_id = self.change_training(epochs=num_epochs)
            return self._resume_id
        return self._load(commands.OpenRun(run_dir=str(self.run_dir), epochs=num_epochs))

    def _load(self, command: commands.OpenRun) -> str:
        """Have a worker load the run on display. Returns the command's id, "" where there is no worker."""
        state = self.state if self._state_before_load is None else self._state_before_load
        self._make_worker_ready()
        self._shown_state, self._state_before_load = None, state
        self._asked = command
        if self._client is None:
            # That no worker could be started has been told.
            self._end_load()
            return ""
        self._begin_id = self._send(command)
        self._show_state(self._worker_state)
        return self._begin_id

    def _end_load(self, sentence: str = "") -> None:
        """Take it that going on with the run on display came to nothing: it stays as it was."""
        self._begin_id = ""
        if self._state_before_load is not None:
            self._shown_state, self._state_before_load = self._state_before_load, None
            self._show_state(self._shown_state, sentence)

    def resume_anyway(self) -> str:
        """Go on as was asked last, though something has changed since. Returns the command's id."""
        assert self._asked is not None
        return self._load(self._asked.model_copy(update={"anyway": True}))

    def restore(self, name: str) -> str:
        """Put a checkpoint into the live run, or load it into a stopped one, ready to go on. Returns the id."""
        return self._send(commands.RestoreCheckpoint(name=name)) if self.is_live else self.resume(name, start=False)

    def restore_weights(self, name: str) -> str:
        """Put a checkpoint's weights into the run where it stands. Returns the command's id."""
        return self._send(commands.RestoreCheckpoint(name=name, weights_only=True))

    def start_run(self) -> str:
        """Begin the prepared run. Returns the command's id."""
        return self._send(commands.StartRun())

    def pause(self) -> str:
        """Stop between two steps. Returns the command's id."""
        return self._send(commands.PauseRun())

    def unpause(self) -> str:
        """Go on after a pause. Returns the command's id."""
        return self._send(commands.UnpauseRun())

    def stop(self, *, save: bool = True) -> str:
        """End the run at the next step boundary. Returns the command's id."""
        return self._send(commands.StopRun(save=save))

    def freeze(self, layers: list[str]) -> str:
        """Freeze layers at the next step boundary. Returns the command's id."""
        return self._send(commands.FreezeLayers(layers=layers))

    def unfreeze(self, layers: list[str]) -> str:
        """Unfreeze layers at the next step boundary. Returns the command's id."""
        return self._send(commands.UnfreezeLayers(layers=layers))

    def set_rate_multiplier(self, layers: list[str], multiplier: float) -> str:
        """Multiply the rate of layers from the next step boundary on. Returns the command's id."""
        return self._send(commands.SetRateMultiplier(layers=layers, multiplier=multiplier))

    def set_plan(self, phases: list[PlanPhase]) -> str:
        """Have these phases follow those that have begun. Returns the command's id."""
        return self._send(commands.SetPlan(phases=phases))

    def set_batchnorm(self, layers: list[str], *, is_adapting: bool) -> str:
        """Let statistics go on in frozen layers, or not, from the next step boundary on. Returns the command's id."""
        return self._send(commands.SetBatchNorm(layers=layers, is_adapting=is_adapting))

    def save_checkpoint(self) -> str:
        """Save a checkpoint at the next step boundary. Returns the command's id."""
        return self._send(commands.SaveCheckpoint())

    def detach(self) -> None:
        """Leave the worker alone for good: a live run goes on, an idle worker ends."""
        self._timer.stop()
        self._opener.cancel()
        self._close_worker()

    def find_rate(self, config: RunConfig | None) -> str:
        """Have rising rates tried on a run that is to be, or (None) on the one that waits. Returns the command's id."""
        return self._send(commands.FindRate(config=config, runs_dir=str(self.runs_dir)))

    def rewind(self, change: int) -> str:
        """Go back to the state just before a change, by its number. Returns the command's id."""
        return self._send(commands.Rewind(change=change))

    def send(self, command: Command) -> str:
        """Send a command that was made elsewhere. Returns its id."""
        return self._send(command)

    def _send(self, command: Command) -> str:
        command = command.model_copy(update={"command_id": uuid.uuid4().hex})
        self._sent_ids.add(command.command_id)
        self.command_sent.emit(command)
        if self._client is None:
            self._use_fresh_worker()
        if self._client is None or self._worker_state is RunState.STARTING:
            # The worker takes commands only once it has said what state it is in.
            self._waiting.append(command)
        else:
            self._client.send(command)
        return command.command_id

    # -- the worker -------------------------------------------------------------------------------------------

    def _make_worker_ready(self) -> None:
        if self._client is None or self._worker_state not in {RunState.STARTING, RunState.IDLE}:
            self._use_fresh_worker()

    def _use_fresh_worker(self) -> None:
        self._close_worker()
        self._worker_state = RunState.STARTING
        self._has_served = False
        try:
            self._client = self._start_worker()
        except OSError as error:
            sentence = self.tr("Cannot start a worker: {}. Free some memory and press New run.").format(
                error.strerror or error
            )
            self.worker_lost.emit(WorkerLost(False, sentence))

    def _close_worker(self) -> None:
        client, self._client = self._client, None
        self._waiting.clear()
        # What it still had to say is of no interest now.
        self._backlog.clear()
        self._begin_id = self._resume_id = ""
        self._state_before_load = None
        if client is None:
            return
        if not self._worker_state.is_live and self._worker_state is not RunState.STARTING:
            client.send(commands.ShutDown())
        client.close()

    def _put_away(self) -> None:
        self.run, self.run_dir, self.was_interrupted = None, None, False
        self._shown_state = None
        self.run_left.emit()

    def _show_state(self, state: RunState, sentence: str = "") -> None:
        self.state_changed.emit(StateChanged(state=state, sentence=sentence))

    # -- a run that was opened --------------------------------------------------------------------------------

    def _take_opened(self) -> None:
        match self._opener.take():
            case None:
                pass
            case CannotOpen(sentence):
                self.open_failed.emit(sentence)
            case WorkerClient() as client:
                self._close_worker()
                self._put_away()
                self._client, self._worker_state, self._has_served = client, RunState.STARTING, True
            case RunOpened() as opened:
                self._make_worker_ready()
                self._put_away()
                self._on_run_opened(opened)
                if self._resume_when_read and self.can_resume:
                    self.resume()

    def set_rate(self, rate: float) -> str:
        """Change the run's learning rate at the next step boundary. Returns the command's id."""
        return self._send(commands.SetRate(rate=rate))

    def change_training(
        self, *, epochs: int | None = None, patience: int | None = None, batch_parts: int | None = None
    ) -> str:
        """Change how long the run is, or in how many parts its batches go through the model. Returns the command's id.

        A patience of 0 ends nothing early.
        """
        return self._send(commands.ChangeTraining(epochs=epochs, patience=patience, batch_parts=batch_parts))

    # -- events -----------------------------------------------------------------------------------------------

    def _signals_by_kind(self) -> dict[type[object], SignalInstance]:
        return {
            events.ModelInspected: self.model_inspected,
            events.ModelsListed: self.models_listed,
            events.DataChecked: self.data_checked,
            events.RunEstimated: self.run_estimated,
            events.RateFound: self.rate_found,
            events.ImagePreviewed: self.image_previewed,
            events.PreparationProgressed: self.preparation_progressed,
            events.RunPrepared: self.run_prepared,
            events.MetricsLogged: self.metrics_logged,
            events.ProgressReported: self.progress_reported,
            events.LayerStatsReported: self.layer_stats_reported,
            changes.LayersFrozen: self.freeze_changed,
            changes.LayersUnfrozen: self.freeze_changed,
            changes.RateChanged: self.rate_changed,
            changes.RateMultiplierChanged: self.rate_multiplier_changed,
            events.ChangeAdvised: self.change_advised,
            changes.PhaseBegan: self.phase_began,
            changes.PlanChanged: self.plan_changed,
            changes.BatchNormChanged: self.batchnorm_changed,
            changes.TrainingChanged: self.training_changed,
            events.FreezeVerified: self.freeze_verified,
            events.FeaturesCached: self.features_cached,
            events.CheckpointSaved: self.checkpoint_saved,
            events.CheckpointEdited: self.checkpoint_edited,
            events.CheckpointsDeleted: self.checkpoints_deleted,
            events.CheckpointsPutBack: self.checkpoints_put_back,
            changes.CheckpointRestored: self.checkpoint_restored,
            changes.RunRewound: self.checkpoint_restored,
            changes.RewindUndone: self.checkpoint_restored,
            events.RewindsKept: self.rewinds_kept,
            events.StateChanged: self.state_changed,
            events.CommandRejected: self.command_rejected,
            events.LogWritten: self.log_written,
        }

    def _drain(self) -> None:
        self._take_opened()
        deadline = time.monotonic() + _DRAIN_BUDGET_S
        while self._client is not None and time.monotonic() < deadline:
            if not self._backlog:
                self._backlog.extend(self._client.drain())
            if not self._backlog:
                return
            self._on_event(self._backlog.popleft())

    def _on_event(self, event: ClientEvent) -> None:
        match event:
            case WorkerLost():
                self._on_worker_lost(event)
            case RunOpened():
                self._on_run_opened(event)
            case events.WorkerAttached():
                self._on_worker_attached(event)
            case StateChanged():
                self._on_state_changed(event)
            case events.RunPrepared():
                self.run, self.run_dir, self.was_interrupted = event.run, Path(event.run.run_dir), False
                self._begin_id, self._state_before_load = "", None
                self.run_prepared.emit(event)
            case events.CommandRejected():
                self._on_command_rejected(event)
            case _:
                self._signals[type(event)].emit(event)

    def _on_worker_attached(self, event: events.WorkerAttached) -> None:
        self._has_served = True
        if event.run is not None:
            self.run, self.run_dir = event.run, Path(event.run.run_dir)
        self.worker_attached.emit(event)
        self._enter(event.state)
        if self._shown_state is None and event.paused is not None:
            # A time of 0: the log has read it from the run's folder.
            self.state_changed.emit(event.paused.model_copy(update={"time": 0.0}))
        elif self._shown_state is None:
            self._show_state(event.state)

    def _on_state_changed(self, event: StateChanged) -> None:
        was_preparing = self._worker_state is RunState.PREPARING
        self._enter(event.state)
        if was_preparing and event.state is RunState.IDLE:
            self._end_load(event.sentence)
        if self._shown_state is None:
            self.state_changed.emit(event)
        if event.state is RunState.READY and self._resume_id:
            # Another command's: what was to be gone on from did not come.
            is_to_start, self._resume_id = event.command_id == self._resume_id, ""
            if is_to_start:
                self.start_run()

    def _enter(self, state: RunState) -> None:
        self._worker_state = state
        if state is RunState.STARTING or self._client is None:
            return
        waiting, self._waiting = self._waiting, []
        # A run comes last: once it is being prepared, the worker looks nothing up.
        for command in sorted(waiting, key=lambda command: isinstance(command, commands.PrepareRun | commands.OpenRun)):
            self._client.send(command)

    def _on_command_rejected(self, event: events.CommandRejected) -> None:
        if event.command_id == self._resume_id:
            self._resume_id = ""
        if event.command_id == self._begin_id and self._worker_state is RunState.IDLE:
            # Refused before it was begun with, where no other state tells that.
            self._end_load()
        elif event.command_id == self._begin_id:
            self._begin_id = ""
        self.command_rejected.emit(event)

    def _on_run_opened(self, event: RunOpened) -> None:
        record = event.record
        self.run, self.run_dir = record.info, record.path
        self.was_interrupted = record.was_interrupted
        self._shown_state = None if event.is_live else record.state
        self.run_opened.emit(event)
        if not event.is_live:
            self._show_state(record.state, record.sentence)

    def _on_worker_lost(self, event: WorkerLost) -> None:
        is_loading = self._state_before_load is not None
        had_run = self.run_dir is not None and self._shown_state is None and not is_loading
        is_cut_off = had_run and self._worker_state.is_live
        if had_run and not is_cut_off and not event.was_expected:
            # An attached worker's exit code is not ours to read; after the run's end, its going is no surprise.
            event = WorkerLost(True, "")
        ended_as = RunState.STOPPED if is_cut_off else self._worker_state
        has_served = self._has_served
        self._client = None
        self._waiting.clear()
        self._begin_id = self._resume_id = ""
        self._worker_state = RunState.FAILED
        if had_run:
            self.was_interrupted = is_cut_off
            self._shown_state = ended_as
        elif is_loading:
            self._shown_state, self._state_before_load = self._state_before_load, None
        self.worker_lost.emit(event)
        self._show_state(self.state, event.sentence)
        if has_served:
            # Warm again, so that Resume is at hand. One that never served would fail in the same way.
            QTimer.singleShot(0, self, self._warm_up)

    def _warm_up(self) -> None:
        if self._client is None and self._timer.isActive():
            self._use_fresh_worker()
            self._show_state(self.state)
