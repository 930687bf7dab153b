"""RunDisplay: the view models of the run on display, and how they follow the session's events. No widgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
from PySide6.QtCore import QObject, QTimer, Signal

from app.change_sender import ChangeSender
from app.checkpoint_edits import CheckpointEdits, ListEvent
from app.errands import Errand
from app.event_sentences import rewound_sentence, undone_rewind_sentence
from app.folder_reader import CheckpointFindings, FolderReader
from app.form_look_ups import LOOK_UPS_OF_FORM, FormLookUps
from app.image_previews import ImagePreviews
from app.other_runs import OtherRuns
from app.plan_syntax import plan_text
from app.session import TrainingSession
from app.settings import Settings
from app.viewmodels.change_history import ChangeHistory
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.confusion import ConfusionViewModel
from app.viewmodels.data import DataViewModel
from app.viewmodels.export import ExportViewModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.log import LogItemModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.plan_timeline import PlanTimeline
from app.viewmodels.quantities import count_text
from app.viewmodels.rate_search import RateSearchViewModel
from app.viewmodels.replay_text import replay_text
from app.viewmodels.run_config import RunConfigViewModel
from app.viewmodels.run_list import RunListItemModel
from app.viewmodels.run_status import FolderSize, RunStatusViewModel
from app.viewmodels.what_if import WhatIfViewModel
from trainer.client import RunOpened, WorkerLost
from trainer.config import ConfigError, PlanPhase
from trainer.messages.base import Command
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PhaseBegan,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    StateRestored,
    TrainingChanged,
)
from trainer.messages.commands import OpenRun
from trainer.messages.events import (
    CheckpointEdited,
    CheckpointSaved,
    CheckpointsDeleted,
    CheckpointsPutBack,
    CommandRejected,
    DataChecked,
    FeaturesCached,
    FreezeVerified,
    RewindsKept,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.replay import ResumeVerified, VerifyResume
from trainer.messages.run_info import RunInfo
from trainer.messages.states import RunState
from trainer.plans import PlanName, make_plan
from trainer.run_record import RunRecord

# The folder and the memory are looked at this often: they change slowly, and a look costs a walk over the folder.
_MEASURE_INTERVAL_MS = 3000
_LOOK_UPS = LOOK_UPS_OF_FORM | {"FindRate", "PreviewImage"}


class RunDisplay(QObject):
    """Owns one view model for each part of the window, and keeps them at what the session says."""

    told = Signal(str, bool)
    """A sentence that the user should read, and whether Resume would help."""
    informed = Signal(str)
    """A sentence that the user should read, and that is no trouble."""
    restored = Signal(str)
    """The sentence that says which checkpoint was restored, as asked for here."""
    advised = Signal(object)
    """A freeze or unfreeze is proposed (ChangeAdvised)."""
    rate_offered = Signal(str, float)
    """The run was paused at a loss that was not finite: the sentence, and a lower rate that may help."""
    parts_offered = Signal(str, int)
    """The run was paused for want of memory: the sentence, and the parts of a batch that need less."""
    changes_found = Signal(str)
    """The run was not resumed, because something of it is another one by now: the sentence."""
    settled = Signal()
    """There is nothing more to tell: a run trains again, or is to, another one is shown, or a resume is verified."""

    def __init__(self, session: TrainingSession, settings: Settings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._settings = settings
        self._reader = FolderReader(self)
        self._process = psutil.Process()
        self.status = RunStatusViewModel(self)
        self.history = MetricHistory(self)
        self.timeline = PlanTimeline(self)
        self.layer_tree = LayerTreeViewModel(self)
        self.layer_tree.columns = settings.tree_columns
        self.checkpoints = CheckpointItemModel(self)
        self.checkpoints.columns = settings.checkpoint_columns
        self.others = OtherRuns(session, self._reader, self.checkpoints, self)
        self.others.told.connect(lambda sentence: self.told.emit(sentence, False))
        self.edits = CheckpointEdits(session, self.checkpoints, self)
        self.export = ExportViewModel(settings.export_folder, self)
        self.export.folder_used.connect(self._keep_export_folder)
        self.confusion = ConfusionViewModel(self)
        self.runs = RunListItemModel(self)
        self.log = LogItemModel(self)
        self.data = DataViewModel(self)
        self.run_config = RunConfigViewModel(settings.form_values, self)
        self.run_config.recent_data = settings.recent_data
        self.change_sender = ChangeSender(session, self.layer_tree, self.run_config)
        self.changes = ChangeHistory(self.change_sender.send, self)
        self.details = CheckpointDetails(self.checkpoints, self.layer_tree, self.history, self.run_config, self)
        self.rate_search = RateSearchViewModel(self)
        self.verification = Errand(self)
        self.what_if = WhatIfViewModel(self)
        self._previews = ImagePreviews(session, self.run_config, self.data, self.layer_tree, self)
        self._connect_run()
        self._connect_changes()
        self._connect_checkpoints()
        self._connect_look_ups()
        self._connect_tables()
        self._connect_choices()
        self._look_ups = FormLookUps(session, settings, self.run_config, self.data, self.layer_tree, self)
        self._look_ups.refused.connect(self.log.add)
        self._look_ups.told.connect(lambda sentence: self.told.emit(sentence, False))
        self._measure_timer = QTimer(self)
        self._measure_timer.setInterval(_MEASURE_INTERVAL_MS)
        self._measure_timer.timeout.connect(self._measure)
        self._measure_timer.start()

    # -- what the views ask for -------------------------------------------------------------------------------

    def check_data(self) -> None:
        """Have the form's data set looked through, for the form and the Data tab."""
        self._look_ups.check_data()

    def inspect_model(self) -> None:
        """Have the form's model built, for the tree."""
        self._look_ups.inspect_model()

    def preview_image(self, path: str) -> None:
        """Have it shown what the model of the run on display, or of the form's, sees of an image of the Data tab."""
        self._previews.want(path)

    def apply_plan(self, name: PlanName) -> None:
        """Write a plan that has a name out for the form's model: what is frozen at the start, rates, and phases."""
        summary, num_epochs = self.layer_tree.summary, self.run_config.num_epochs
        if summary is None or num_epochs is None or not self._look_ups.is_form_open:
            return
        try:
            plan = make_plan(name, summary.layers, num_epochs)
        except ConfigError as error:
            self.run_config.say_wrong("plan", str(error))
            return
        self.layer_tree.show_draft(summary, plan.frozen, plan.multipliers, self.run_config.adapting_layers)
        self._keep_frozen()
        self._keep_multipliers()
        self.run_config.set_text("plan", plan_text([phase.model_dump() for phase in plan.phases]))

    def find_rate(self) -> bool:
        """Have a rate looked for: of the form's run, or of the one that waits. Returns whether that was asked."""
        is_new = self._session.run_dir is None
        config = self.run_config.config() if is_new else None
        if is_new and config is None:
            return False
        self.rate_search.begin(self._session.find_rate(config))
        return True

    def verify_resume(self, checkpoint: str) -> None:
        """Have the steps after a checkpoint of the run on display made again beside it, and compared."""
        if (run_dir := self._session.run_dir) is not None:
            self.settled.emit()
            self.verification.start(VerifyResume(run_dir=str(run_dir), checkpoint=checkpoint))

    def ask_what_if(self, checkpoint: str) -> bool:
        """Begin to ask what a change would do from a checkpoint of the run on display. Returns whether there is one."""
        run = self._session.run
        info = self.checkpoints.checkpoint(self.checkpoints.present.key(checkpoint))
        if run is None or info is None:
            return False
        self.what_if.open(run, info, self.layer_tree.rows, self.layer_tree.step_ms)
        return True

    def cancel(self) -> None:
        """End what goes on beside or before a run: verifying a resume, a preparation, or a look-up."""
        if self.verification.is_going:
            self.verification.cancel()
        else:
            self._session.cancel()

    def close(self) -> None:
        """End what goes on beside the run, before the window goes."""
        self._end_trials()
        self.export.close()
        self.edits.close()

    def _end_trials(self) -> None:
        self.verification.close()
        self.what_if.leave()

    def list_runs(self) -> None:
        """Read the list of runs again."""
        self._reader.list_runs(self._session.runs_dir)

    def keep_form(self) -> None:
        """Remember the form's values for the next start."""
        if self._session.run_dir is None:
            self._keep_form(self.run_config.values())

    def _keep_form(self, values: dict[str, Any]) -> None:
        # A branch is meant for once: the next start begins no second one unasked.
        self._settings.form_values = {**values, "branch": None}

    # -- the session's events ---------------------------------------------------------------------------------

    def _connect_run(self) -> None:
        """Follow what becomes of the run, and how far it is."""
        session = self._session
        session.worker_attached.connect(self._on_worker_attached)
        session.state_changed.connect(self._on_state_changed)
        session.run_left.connect(self._on_run_left)
        session.run_opened.connect(self._on_run_opened)
        session.run_prepared.connect(self._on_run_prepared)
        session.worker_lost.connect(self._on_worker_lost)
        session.command_rejected.connect(self._on_command_rejected)
        session.command_sent.connect(self._on_command_sent)
        session.open_failed.connect(lambda sentence: self.told.emit(sentence, False))
        session.metrics_logged.connect(self.history.add)
        session.progress_reported.connect(self.status.progress)
        session.progress_reported.connect(self.layer_tree.follow)
        session.layer_stats_reported.connect(self.layer_tree.show_stats)
        session.freeze_verified.connect(self.layer_tree.verify)
        session.features_cached.connect(self.layer_tree.show_cached)

    def _connect_changes(self) -> None:
        """Follow what a person, a plan or the advisor changes of it."""
        session = self._session
        session.freeze_changed.connect(self.layer_tree.settle)
        session.freeze_changed.connect(self.timeline.note_change)
        session.batchnorm_changed.connect(self.layer_tree.settle_batchnorm)
        session.rate_multiplier_changed.connect(self.layer_tree.settle_multiplier)
        session.rate_changed.connect(self._on_rate_changed)
        session.training_changed.connect(self._on_training_changed)
        session.phase_began.connect(self.timeline.begin_phase)
        session.plan_changed.connect(self.timeline.change_plan)
        session.phase_began.connect(self._on_plan_changed)
        session.plan_changed.connect(self._on_plan_changed)
        session.change_advised.connect(self.advised)
        session.rewinds_kept.connect(self._on_rewinds_kept)
        session.command_sent.connect(self.changes.note)
        for signal in (session.freeze_changed, session.rate_changed, session.rate_multiplier_changed):
            signal.connect(self.history.add_marker)
            signal.connect(self.changes.take)
        session.batchnorm_changed.connect(self.changes.take)

    def _connect_checkpoints(self) -> None:
        """Follow what is saved, restored and changed in the list of checkpoints, and made again from one."""
        session, verification = self._session, self.verification
        session.checkpoint_saved.connect(self._on_checkpoint_saved)
        session.checkpoint_restored.connect(self._on_checkpoint_restored)
        for signal in (session.checkpoint_edited, session.checkpoints_deleted, session.checkpoints_put_back):
            signal.connect(self.edits.take)
        self.edits.changed.connect(self._on_list_changed)
        self.edits.returned.connect(self._select_returned)
        verification.progressed.connect(self.status.follow_errand)
        verification.done.connect(self._on_resume_verified)
        verification.failed.connect(lambda sentence: self.told.emit(sentence, False))
        for signal in (verification.done, verification.failed, verification.cancelled):
            signal.connect(self.status.finish_errand)

    def _connect_look_ups(self) -> None:
        """Follow what the worker is asked beside training, and what is read of folders."""
        session = self._session
        for signal in (
            session.model_inspected,
            session.data_checked,
            session.run_estimated,
            session.image_previewed,
            session.rate_found,
        ):
            signal.connect(self.status.finish_look_up)
        session.rate_found.connect(self.rate_search.find)
        session.preparation_progressed.connect(self.rate_search.progress)
        session.preparation_progressed.connect(self.status.prepare_progress)
        self._reader.runs_listed.connect(self.runs.show_runs)
        self._reader.folder_measured.connect(self._show_measures)
        self._reader.checkpoints_examined.connect(self._show_findings)
        self._reader.failed.connect(lambda sentence: self.told.emit(sentence, False))

    def _connect_tables(self) -> None:
        """Let the Confusion and the Log tab follow the run."""
        session = self._session
        # The test split is evaluated just before the run's last state.
        # Another patience may tell the best by another metric.
        for signal in (
            session.run_opened,
            session.run_prepared,
            session.checkpoint_saved,
            session.training_changed,
            session.state_changed,
        ):
            signal.connect(lambda _: self.confusion.follow(session.run_dir))
        session.run_left.connect(lambda: self.confusion.follow(None))
        for signal in (
            session.freeze_changed,
            session.rate_changed,
            session.rate_multiplier_changed,
            session.plan_changed,
            session.change_advised,
            session.batchnorm_changed,
            session.training_changed,
            session.freeze_verified,
            session.features_cached,
            session.log_written,
            session.state_changed,
            session.checkpoint_saved,
            session.checkpoint_restored,
            session.worker_lost,
        ):
            signal.connect(self.log.add)

    def _connect_choices(self) -> None:
        """Remember what is chosen in the views."""
        self.layer_tree.frozen_layers_changed.connect(self._keep_frozen)
        self.layer_tree.multipliers_changed.connect(self._keep_multipliers)
        self.layer_tree.adapting_layers_changed.connect(self._keep_adapting)
        self.run_config.batchnorm_chosen.connect(self._show_adapting)
        self.layer_tree.columns_changed.connect(self._keep_columns)
        self.checkpoints.columns_chosen.connect(self._keep_columns)

    def _on_worker_attached(self, event: WorkerAttached) -> None:
        self.run_config.offer_devices(event.devices)
        if event.run is not None:
            self.status.attach(event.run, event.step, event.epoch)
            self.run_config.show_in_force(event.run.present)
            if event.rewinds is not None:
                self._on_rewinds_kept(event.rewinds)
            if event.features is not None:
                self.layer_tree.show_cached(event.features)
        elif self._session.run_dir is None:
            self._look_ups.ask_all()

    def _on_state_changed(self, event: StateChanged) -> None:
        is_refused = self.status.state is RunState.PREPARING and event.state is RunState.IDLE
        self.status.change_state(event)
        self.timeline.set_over(event.state is RunState.FINISHED)
        self._follow_run()
        if event.offered_rate is not None:
            self.rate_offered.emit(event.sentence, event.offered_rate)
        elif event.offered_parts is not None:
            self.parts_offered.emit(event.sentence, event.offered_parts)
        elif event.state in {RunState.PAUSED, RunState.FAILED} and event.sentence:
            self.told.emit(event.sentence, False)
        elif event.state is RunState.FINISHED and event.sentence:
            self.informed.emit(event.sentence)
        elif event.state is RunState.RUNNING:
            self.settled.emit()
        elif is_refused:
            self._look_ups.ask_again()

    def _on_run_left(self) -> None:
        self.status.leave_run()
        self.edits.leave_run()
        self._end_trials()
        self.changes.clear()
        self.changes.offer_rewinds([], None)
        self.rate_search.leave()
        self.history.clear()
        self.timeline.clear()
        self.checkpoints.reset([])
        self.others.read()
        self.log.reset([])
        run = self.run_config.run
        self.run_config.leave_run()
        self.layer_tree.leave_run()
        if run is not None and run.config.plan and self.layer_tree.summary is not None:
            # The plan begins anew, from what it began with.
            form = self.run_config
            self.layer_tree.show_draft(self.layer_tree.summary, form.frozen, form.multipliers, form.adapting_layers)
        self._look_ups.forget_model()
        if not self.layer_tree.is_empty:
            self._keep_frozen()
            self._keep_multipliers()
            self._keep_adapting()
        # A worker that is idle already is kept, so nothing attaches that would ask for what the form needs.
        self._look_ups.ask_for_missing()
        self.settled.emit()

    def _on_run_opened(self, event: RunOpened) -> None:
        record = event.record
        self.status.open_run(event)
        self.history.open_run(record)
        self.timeline.open_run(record)
        self.checkpoints.keep_by(record.config.checkpoints)
        self.checkpoints.rank_by(record.best_metric)
        self.checkpoints.reset(record.checkpoints, record.path.absolute(), record.config)
        self.others.read()
        self.log.reset(record.log)
        self.edits.show_run()
        if record.info is not None:
            self._show_run(record.info)
            self._replay_changes(record)
        else:
            self.run_config.show_config(record.config)
            self.data.clear()
            self.layer_tree.set_summary(None)
        self._measure()
        if record.was_interrupted:
            self.told.emit(
                self.tr("{} was interrupted. What it saved is safe.").format(record.config.title),
                self._session.can_resume,
            )

    def _replay_changes(self, record: RunRecord) -> None:
        if record.layer_stats is not None and record.layer_stats.segment == record.segment:
            self.layer_tree.show_stats(record.layer_stats)
        # Where no worker has the run, its state, which is told next, forgets them again.
        self.changes.open_run(record.log)
        # What happened before the present segment was undone by the restore or the resume that began it.
        for event in record.log:
            if isinstance(event, LayersFrozen | LayersUnfrozen) and event.segment == record.segment:
                self.layer_tree.settle(event)
            elif isinstance(event, BatchNormChanged) and event.segment == record.segment:
                self.layer_tree.settle_batchnorm(event)
            elif isinstance(event, RateMultiplierChanged) and event.segment == record.segment:
                self.layer_tree.settle_multiplier(event)
            elif isinstance(event, StateRestored) and event.segment == record.segment:
                self.layer_tree.restore(event)
            elif isinstance(event, FreezeVerified):
                self.layer_tree.verify(event)
            elif isinstance(event, FeaturesCached):
                # Of any segment: it holds until another one is told, as far as the layers are frozen still.
                self.layer_tree.show_cached(event)

    def _on_run_prepared(self, event: RunPrepared) -> None:
        if self.checkpoints.present.config is None:
            # One that is resumed is on display already, maybe by another path to its folder.
            self.checkpoints.reset([], Path(event.run.run_dir), event.run.config)
            self.others.read()
            self.edits.show_run()
        self.status.prepare(event)
        self.history.restore(event.step, event.segment, event.parent)
        if not event.step:
            # Nothing of it has begun, also where a run that was killed begins anew.
            self.timeline.show_plan(event.run.config.model_copy(update={"plan": event.run.present.plan}))
        self._show_run(event.run)
        self._keep_form(event.run.config.model_dump())
        self._measure()

    def _show_run(self, run: RunInfo) -> None:
        self.run_config.show_run(run)
        self.checkpoints.keep_by(run.config.checkpoints)
        self.checkpoints.rank_by(run.best_metric)
        if run.data_summary is None:
            self.data.clear()
        else:
            path = run.config.data.path
            self.data.show(DataChecked(path=path, summary=run.data_summary, report_path=run.report_path))
        self.layer_tree.set_summary(run.summary)
        self._follow_run()
        self.history.set_epochs(run.steps_per_epoch, run.total_steps)
        self.timeline.set_length(run.present.epochs, run.steps_per_epoch)

    def _follow_run(self) -> None:
        self.layer_tree.is_live = self._session.is_live
        if not self._session.is_live:
            self.run_config.drop_changes()
            self.changes.clear()
        self.layer_tree.is_closed = self._session.run_dir is not None and not self._session.is_live

    def _on_worker_lost(self, event: WorkerLost) -> None:
        self.status.lose_worker(event)
        self.rate_search.leave()
        # Nobody can go back there before another worker has the run.
        self.changes.offer_rewinds([], None)
        self.history.set_rewinds([])
        if event.was_expected:
            return
        can_resume = self._session.can_resume
        # Without a run there is no worker.log to look into: its last line goes into the sentence.
        last_line = "" if can_resume else event.log_tail.strip().rpartition("\n")[2]
        self.told.emit(f"{event.sentence} {last_line}".strip(), can_resume)

    def _on_command_sent(self, command: Command) -> None:
        if isinstance(command, OpenRun):
            # What was told of how the run ended is answered by this.
            self.settled.emit()

    def _on_command_rejected(self, event: CommandRejected) -> None:
        if event.command in _LOOK_UPS:
            self.status.finish_look_up()
        if not self._session.has_sent(event.command_id):
            # Another window or shell was refused: told here, answered there.
            self.log.add(event)
            return
        if event.command == "FindRate":
            self.rate_search.refuse(event)
            return
        if event.command == "PreviewImage":
            self._previews.refuse(event)
            return
        if event.command in LOOK_UPS_OF_FORM:
            self._look_ups.refuse(event)
            return
        self.log.add(event)
        self.edits.refuse(event)
        if event.changes:
            self.changes_found.emit(event.reason)
            return
        self.changes.refuse(event.command_id)
        is_in_tree = self.layer_tree.reject(event.command_id, event.reason)
        # Beside a field only where it can be mended: a run on display keeps the values that it began with.
        is_about_form = self._look_ups.is_form_open or event.command in {"SetRate", "SetPlan", "ChangeTraining"}
        is_beside_field = is_about_form and self.run_config.reject(event)
        if not is_beside_field and not is_in_tree and event.command != "CancelLookUp":
            self.told.emit(event.reason, event.command == "OpenRun" and self._session.can_resume)

    def _on_resume_verified(self, event: ResumeVerified) -> None:
        text = replay_text(event.replay)
        if event.replay.difference is None:
            self.informed.emit(text)
        else:
            self.told.emit(text, False)

    def _on_rewinds_kept(self, event: RewindsKept) -> None:
        self.history.set_rewinds(event.changes)
        self.changes.offer_rewinds(event.changes, event.undo_step)
        self.status.keep_rewinds(event)

    def _on_rate_changed(self, event: RateChanged) -> None:
        self.run_config.change_in_force(event.command_id, rate=event.rate)

    def _on_plan_changed(self, event: PhaseBegan | PlanChanged) -> None:
        self._follow_plan(event.command_id, event.plan, event.num_begun)

    def _follow_plan(self, command_id: str, plan: list[PlanPhase], num_begun: int, **others: float) -> None:
        phases = {"plan": plan[num_begun:], "begun": plan[:num_begun]}
        self.run_config.change_in_force(command_id, **phases, **others)

    def _on_training_changed(self, event: TrainingChanged) -> None:
        if self.run_config.run is not None:
            self.checkpoints.rank_by(self.run_config.run.config.best_metric(event.patience))
        self.status.change_training(event)
        if event.batch_parts != event.before_batch_parts:
            self.layer_tree.forget_step_ms()
        self.history.set_epochs(self.history.steps_per_epoch, event.total_steps)
        self.timeline.set_length(event.epochs, self.history.steps_per_epoch)
        self.run_config.change_in_force(
            event.command_id, epochs=event.epochs, patience=event.patience, batch_parts=event.batch_parts
        )

    def _on_checkpoint_saved(self, event: CheckpointSaved) -> None:
        self.checkpoints.add(event.checkpoint)
        self.status.save_checkpoint(event)

    def _on_list_changed(self, event: ListEvent) -> None:
        match event:
            case CheckpointEdited():
                self.checkpoints.add(event.checkpoint)
            case CheckpointsDeleted():
                self.checkpoints.remove(event.names)
            case CheckpointsPutBack():
                self.checkpoints.put_back(event.checkpoints)
        # The best one may be another one now.
        self.confusion.follow(self._session.run_dir)
        self.log.add(event)

    def _select_returned(self, names: list[str]) -> None:
        self.checkpoints.selection_wanted.emit([self.checkpoints.present.key(name) for name in names])

    def _on_checkpoint_restored(self, event: StateRestored) -> None:
        self.status.restore_checkpoint(event)
        if self._session.run_dir is not None:
            self._examine(self._session.run_dir)
        self.timeline.restore(event)
        change = event.change if isinstance(event, RunRewound) else None
        self.history.restore(event.step, event.segment, event.parent, change)
        if isinstance(event, CheckpointRestored):
            self.history.add_marker(event)
        self.layer_tree.restore(event)
        self.changes.restore(event)
        if isinstance(event, CheckpointRestored):
            self._tell_restored(event)
        elif isinstance(event, RunRewound) and self._session.has_sent(event.command_id):
            self.informed.emit(f"{rewound_sentence(event)}.")
        elif isinstance(event, RewindUndone) and self._session.has_sent(event.command_id):
            self.informed.emit(f"{undone_rewind_sentence(event)}.")
        if event.rate is not None:
            self._follow_plan("", event.plan, event.num_phases_begun, rate=event.rate)

    def _tell_restored(self, event: CheckpointRestored) -> None:
        """Say what was restored, if it was asked for here."""
        session = self._session
        if not session.has_sent(event.command_id) or session.starts_after(event.command_id):
            return
        state, weights = session.state, event.weights_only
        if state is RunState.RUNNING and weights:
            text = self.tr("Restored the weights of {name}. The run goes on where it was, at step {step}.")
        elif state is RunState.RUNNING:
            text = self.tr("Restored epoch {epoch}, step {step}. The run goes on from there.")
        elif state is RunState.PAUSED and weights:
            text = self.tr("Restored the weights of {name}. Unpause goes on where the run was, at step {step}.")
        elif state is RunState.PAUSED:
            text = self.tr("Restored epoch {epoch}, step {step}. Unpause goes on from there.")
        else:
            text = self.tr("Restored epoch {epoch}, step {step}. Start goes on from there.")
        places = {"name": event.name, "epoch": count_text(event.epoch), "step": count_text(event.step)}
        self.restored.emit(text.format(**places))

    def _keep_frozen(self) -> None:
        self.run_config.frozen, self.run_config.left_out = self.layer_tree.frozen_layers, ""
        self._look_ups.estimate_soon()
        self._look_ups.ask_features_soon()

    def _keep_columns(self) -> None:
        self._settings.tree_columns = self.layer_tree.columns
        self._settings.checkpoint_columns = self.checkpoints.columns

    def _keep_export_folder(self, folder: str) -> None:
        self._settings.export_folder = folder

    def _keep_multipliers(self) -> None:
        self.run_config.multipliers, self.run_config.left_out = self.layer_tree.rates.by_name(), ""

    def _keep_adapting(self) -> None:
        if not self.layer_tree.are_adapting(self.run_config.adapting_layers):
            self.run_config.choose_adapting(self.layer_tree.adapting_layers)
            self._look_ups.estimate_soon()
            self._look_ups.ask_features_soon()

    def _show_adapting(self) -> None:
        if self._look_ups.is_form_open:
            self.layer_tree.show_adapting(self.run_config.adapting_layers)
            self._look_ups.ask_features_soon()

    # -- measures ---------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        run_dir = self._session.run_dir
        if run_dir is None:
            self._show_measures(None)
            return
        self._reader.measure(run_dir)
        self._examine(run_dir)

    def _examine(self, run_dir: Path) -> None:
        self._reader.examine(run_dir, list(self.checkpoints.present.infos))

    def _show_findings(self, findings: CheckpointFindings) -> None:
        self.checkpoints.show_problems(findings.problems)
        self.checkpoints.show_left_behind(findings.left_behind)
        self.checkpoints.show_resume_point(findings.resume_point)

    def _show_measures(self, size: FolderSize | None) -> None:
        self.status.measure(size, self._process.memory_info().rss)
