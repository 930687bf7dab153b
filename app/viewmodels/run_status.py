"""RunStatusViewModel: where the run stands, as the tool row and the status bar say it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.viewmodels.compute_words import compute_text, measured_text
from app.viewmodels.long_work import LongWork
from app.viewmodels.quantities import ago_text, count_text, duration_text, number_text, part_text, size_text
from trainer.client import RunOpened, WorkerLost
from trainer.messages.changes import StateRestored, TrainingChanged
from trainer.messages.events import (
    CheckpointSaved,
    PreparationProgressed,
    ProgressReported,
    RewindsKept,
    RunPrepared,
    StateChanged,
)
from trainer.messages.run_info import RunInfo
from trainer.messages.states import RunState


@dataclass(frozen=True)
class FolderSize:
    """What a run's folder takes of its disk, and what that disk has free."""

    folder_bytes: int
    free_bytes: int


class RunStatusViewModel(QObject):
    """Follows the events of one run and puts its state into words."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = RunState.STARTING
        self.was_interrupted = False
        self.sentence = ""
        self.window_bytes = 0
        self.folder_size: FolderSize | None = None
        self._clear()

    def _clear(self) -> None:
        self.title = ""
        self.run: RunInfo | None = None
        self.was_interrupted = False
        self.sentence = ""
        self.folder_size = None
        self._progress: ProgressReported | None = None
        self._preparation, self._errand = LongWork(), LongWork()
        self._epoch, self._num_epochs, self._step, self._total_steps = 0, 0, 0, 0
        self._saved_at: float | None = None
        self._rewinds: RewindsKept | None = None

    # -- what happened ----------------------------------------------------------------------------------------

    def leave_run(self) -> None:
        """Forget the run."""
        self._clear()
        self.changed.emit()

    def open_run(self, event: RunOpened) -> None:
        """Take over a run read from its folder."""
        record = event.record
        self._clear()
        self.title = f"{record.config.title} · {record.config.model.name}"
        self.was_interrupted = record.was_interrupted
        self._num_epochs = record.config.training.epochs
        self._step, self._epoch = record.step, record.epoch
        if record.info is not None:
            self._take_run(record.info)
        if record.checkpoints:
            self._saved_at = record.checkpoints[-1].saved_at
        self.changed.emit()

    def prepare(self, event: RunPrepared) -> None:
        """Take over a run that the worker has loaded."""
        if self.run is not None and self.run.run_dir != event.run.run_dir:
            self._clear()
        self._take_run(event.run)
        self._progress = None
        self.was_interrupted = False
        self._step, self._epoch = event.step, event.epoch
        self.changed.emit()

    def attach(self, run: RunInfo, step: int, epoch: int) -> None:
        """Take over a run that an attached worker has in hand."""
        self._take_run(run)
        self._step, self._epoch = step, epoch
        self.changed.emit()

    def change_state(self, event: StateChanged) -> None:
        """Follow the state."""
        self.state, self.sentence = event.state, event.sentence
        if event.state is not RunState.PREPARING:
            self._preparation.end()
        self.changed.emit()

    def progress(self, event: ProgressReported) -> None:
        """Follow the run's progress."""
        self._progress = event
        self._epoch, self._num_epochs = event.epoch, event.num_epochs
        self._step, self._total_steps = event.step, event.total_steps
        self.changed.emit()

    def change_training(self, event: TrainingChanged) -> None:
        """Take over another length of the run."""
        self._num_epochs, self._total_steps = event.epochs, event.total_steps
        if self._progress is not None:
            self._progress = self._progress.model_copy(update={"patience": event.patience, "seconds_left": None})
        self.changed.emit()

    def prepare_progress(self, event: PreparationProgressed) -> None:
        """Follow long work before the run."""
        self._preparation.take(event)
        self.changed.emit()

    def follow_errand(self, event: PreparationProgressed) -> None:
        """Follow what takes long in a process of its own, whatever the run does."""
        self._errand.take(event)
        self.changed.emit()

    def finish_errand(self) -> None:
        """Say no more how far an errand is."""
        self._errand.end()
        self.changed.emit()

    @property
    def can_cancel(self) -> bool:
        """Return whether something goes on before or beside the run that can be ended."""
        return self._long_work is not None

    def finish_look_up(self) -> None:
        """Say no more how far a look-up is: it has been answered."""
        if self.state is not RunState.PREPARING and self._preparation.is_going:
            self._preparation.end()
            self.changed.emit()

    def save_checkpoint(self, event: CheckpointSaved) -> None:
        """Remember when the last checkpoint was saved."""
        self._saved_at = event.checkpoint.saved_at
        self.changed.emit()

    def keep_rewinds(self, event: RewindsKept) -> None:
        """Take what the worker keeps to go back to, in memory and in files."""
        self._rewinds = event
        self.changed.emit()

    def restore_checkpoint(self, event: StateRestored) -> None:
        """Go back to where the checkpoint was, or to a state that was kept."""
        self._step, self._epoch, self._progress = event.step, event.epoch, None
        self.changed.emit()

    def lose_worker(self, event: WorkerLost) -> None:
        """Remember that the run was cut off, and how."""
        if not event.was_expected:
            self.was_interrupted = self.run is not None and self.state.is_live
            self.sentence = event.sentence
            self._preparation.end()
        self.changed.emit()

    def measure(self, folder_size: FolderSize | None, window_bytes: int) -> None:
        """Take new figures of the run's folder and the window's memory."""
        self.folder_size, self.window_bytes = folder_size, window_bytes
        self.changed.emit()

    def _take_run(self, run: RunInfo) -> None:
        self.run = run
        self.title = f"{run.config.title} · {run.config.model.name}"
        self._num_epochs, self._total_steps = run.present.epochs, run.total_steps

    # -- in words ---------------------------------------------------------------------------------------------

    @property
    def has_run(self) -> bool:
        """Return whether there is a run to speak of."""
        return bool(self.title)

    @property
    def epoch(self) -> int:
        """Return how many epochs are completed."""
        return self._epoch

    @property
    def _shows_interruption(self) -> bool:
        # A resume that is refused leaves the run as it was: cut off. While it is prepared, the worker's state counts.
        return self.was_interrupted and self.state not in {RunState.STARTING, RunState.IDLE, RunState.PREPARING}

    @property
    def _has_ended(self) -> bool:
        return self._shows_interruption or self.state in {RunState.FINISHED, RunState.STOPPED, RunState.FAILED}

    @property
    def state_text(self) -> str:
        """Say the state in a word."""
        if self._shows_interruption:
            return self.tr("Interrupted")
        return {
            RunState.STARTING: self.tr("Starting"),
            RunState.IDLE: self.tr("Ready for a run"),
            RunState.PREPARING: self.tr("Preparing"),
            RunState.READY: self.tr("Ready"),
            RunState.RUNNING: self.tr("Running"),
            RunState.PAUSED: self.tr("Paused"),
            RunState.STOPPING: self.tr("Stopping"),
            RunState.FINISHED: self.tr("Finished"),
            RunState.STOPPED: self.tr("Stopped"),
            RunState.FAILED: self.tr("Failed"),
        }[self.state]

    @property
    def state_tone(self) -> str:
        """Return the chip's tone: "" (accent), "warm", "dim" or "danger"."""
        if self._shows_interruption or self.state is RunState.FAILED:
            return "danger"
        if self.state in {RunState.PAUSED, RunState.STOPPING}:
            return "warm"
        return "dim" if self.state in {RunState.STARTING, RunState.IDLE, RunState.STOPPED} else ""

    @property
    def progress_text(self) -> str:
        """Say where the run is: "Epoch 4 of 6 · step 184 of 270 · 0:42 left"."""
        if (long_work := self._long_work) is not None:
            return long_work.text
        if not self._num_epochs or not self.has_run:
            return ""
        if self._has_ended:
            text, epoch = self.tr("{} of {} epochs"), self._epoch
        else:
            text, epoch = self.tr("Epoch {} of {}"), min(self._epoch + 1, self._num_epochs)
        parts = [text.format(count_text(epoch), count_text(self._num_epochs))]
        if self._total_steps:
            parts.append(self.tr("step {} of {}").format(count_text(self._step), count_text(self._total_steps)))
        if self._progress is not None and self.state is RunState.RUNNING:
            if self._progress.phase == "validation":
                parts.append(self.tr("validating"))
            elif self._progress.seconds_left is not None:
                parts.append(self.tr("{} left").format(duration_text(self._progress.seconds_left)))
        return " · ".join(parts)

    @property
    def longest_progress_text(self) -> str:
        """Return the longest that ``progress_text`` is likely to be while the run trains; "" without one."""
        if not self._num_epochs or not self._total_steps:
            return ""
        most, last = count_text(self._num_epochs), count_text(self._total_steps)
        parts = [self.tr("Epoch {} of {}").format(most, most), self.tr("step {} of {}").format(last, last)]
        return " · ".join(
            [*parts, max(self.tr("validating"), self.tr("{} left").format(duration_text(35_999)), key=len)]
        )

    @property
    def progress_fraction(self) -> float:
        """Return how much of the run (or of what is told instead of it) is done, 0 to 1."""
        if (long_work := self._long_work) is not None:
            return long_work.fraction
        return min(1.0, self._step / self._total_steps) if self._total_steps else 0.0

    @property
    def _long_work(self) -> LongWork | None:
        """Return what is told instead of the run: what takes long before it, or else beside it."""
        return next((each for each in (self._preparation, self._errand) if each.is_going), None)

    @property
    def machine_text(self) -> str:
        """Say what the run runs on: "cpu · 2 threads · bf16, channels last"."""
        if self.run is None:
            return ""
        num_threads = self.run.num_threads
        threads = self.tr("1 thread") if num_threads == 1 else self.tr("{} threads").format(count_text(num_threads))
        return " · ".join((self.run.device, threads, compute_text(self.run.computed_in)))

    @property
    def machine_tip(self) -> str:
        """Say what the form was chosen by, and how often the model was compiled; "" where there is nothing to say."""
        if self.run is None:
            return ""
        lines = [measured_text(self.run)]
        if self._progress is not None and self._progress.num_compiled:
            lines.append(self.tr("Compiled graphs: {}").format(count_text(self._progress.num_compiled)))
            if self._progress.is_compile_limit_reached:
                lines.append(self.tr("No more are compiled: what is new is computed without"))
        return "\n".join(filter(None, lines))

    @property
    def speed_text(self) -> str:
        """Say how fast it goes: "812 images/s"; "" while it does not run."""
        if self._progress is None or self.state is not RunState.RUNNING or self._progress.samples_per_s <= 0:
            return ""
        rate = self._progress.samples_per_s
        return self.tr("{} images/s").format(number_text(rate, 0 if rate >= 10 else 1))

    @property
    def patience_text(self) -> str:
        """Say how much of the patience is used up: "early stop 3 / 5"; "" without one."""
        if self._progress is None or self._progress.patience is None or not self.state.is_live:
            return ""
        num_epochs = min(self._progress.num_epochs_no_better, self._progress.patience)
        return self.tr("early stop {} / {}").format(count_text(num_epochs), count_text(self._progress.patience))

    @property
    def memory_text(self) -> str:
        """Say what the two processes hold: "worker 0.9 GB · window 142 MB"."""
        parts = []
        if self._progress is not None and self.state.is_live and self._progress.worker_bytes:
            parts.append(self.tr("worker {}").format(size_text(self._progress.worker_bytes)))
            if self._rewinds is not None and (self._rewinds.num_bytes or self._rewinds.disk_bytes):
                parts.append(self._rewinds_text(self._rewinds))
        if self.window_bytes:
            parts.append(self.tr("window {}").format(size_text(self.window_bytes)))
        return " · ".join(parts)

    @property
    def memory_tip(self) -> str:
        """Say what the states before changes may take; "" where there are none."""
        kept = self._rewinds
        if kept is None or not (kept.num_bytes or kept.disk_bytes) or not self.state.is_live:
            return ""
        in_memory = part_text(kept.num_bytes, kept.budget_bytes)
        on_disk = part_text(kept.disk_bytes, kept.disk_budget_bytes)
        return self.tr("Rewinds are the states before changes: {} in memory, {} on disk").format(in_memory, on_disk)

    def _rewinds_text(self, kept: RewindsKept) -> str:
        in_memory, on_disk = size_text(kept.num_bytes), size_text(kept.disk_bytes)
        if not kept.disk_bytes:
            return self.tr("rewinds {}").format(in_memory)
        if not kept.num_bytes:
            return self.tr("rewinds {} on disk").format(on_disk)
        return self.tr("rewinds {}, {} on disk").format(in_memory, on_disk)

    @property
    def disk_text(self) -> str:
        """Say what the run's folder takes: "run folder 4.1 MB of 80 GB free"."""
        if self.folder_size is None:
            return ""
        return self.tr("run folder {} of {} free").format(
            size_text(self.folder_size.folder_bytes), size_text(self.folder_size.free_bytes)
        )

    def saved_text(self) -> str:
        """Say when the last checkpoint was saved: "saved 2 s ago"; call again as time goes by."""
        if self._saved_at is None:
            return ""
        return self.tr("saved {}").format(ago_text(time.time() - self._saved_at))

    @property
    def folder(self) -> Path | None:
        """Return the run's folder, None before there is one."""
        return Path(self.run.run_dir) if self.run is not None else None
