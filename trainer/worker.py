"""The worker process: takes commands between optimizer steps, sends events, and says why it ended if it must."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Listener
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from trainer.checkpoint_list import ListChange, change_list
from trainer.config_error import ConfigError
from trainer.messages.base import Event
from trainer.messages.changes import StateRestored
from trainer.messages.commands import (
    ALLOWED_COMMANDS,
    AnyCommand,
    CancelLookUp,
    ChangeTraining,
    CheckData,
    DeleteCheckpoints,
    EditCheckpoint,
    EstimateRun,
    FindRate,
    InspectModel,
    ListModels,
    OpenRun,
    PauseRun,
    PrepareRun,
    PreviewImage,
    PutCheckpointsBack,
    RestoreCheckpoint,
    Rewind,
    SaveCheckpoint,
    ShutDown,
    StartRun,
    StopRun,
    UnpauseRun,
)
from trainer.messages.events import (
    CommandRejected,
    LogWritten,
    PreparationProgressed,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.states import TRANSITIONS, RunState
from trainer.run_record import RunFolderError, WorkerAddress
from trainer.server import EventServer

if TYPE_CHECKING:
    from trainer.look_ups import LookUp
    from trainer.loop import Trainer
    from trainer.preparation import PreparedRun

POLL_INTERVAL_S = 0.5
ORPHANED_AFTER_S = 3.0
FIRST_CLIENT_WITHIN_S = 60.0
PREPARATION_INTERVAL_S = 0.1
MAX_SKIPPED_IN_LOG = 20
LOOK_UP_OVERTAKEN = "Stopped, because something else was asked for."
LOOK_UP_CANCELLED = "Stopped, as you asked. Start does it all the same."
NO_LOOK_UP = "Nothing is being looked up that could be stopped."

_LONG_LOOK_UPS = frozenset({"CheckData", "EstimateRun", "FindRate", "PreviewImage"})
_OVERTAKES = {
    "PrepareRun": _LONG_LOOK_UPS,
    "OpenRun": _LONG_LOOK_UPS,
    "CheckData": _LONG_LOOK_UPS,
    "EstimateRun": frozenset({"EstimateRun"}),
    "FindRate": frozenset({"FindRate"}),
    "StartRun": frozenset({"FindRate"}),
    "UnpauseRun": frozenset({"FindRate"}),
    "StopRun": frozenset({"FindRate"}),
    "PreviewImage": frozenset({"PreviewImage"}),
}
"""Which look-ups, under way or waiting, are of no interest any more when a command comes."""

_WORDS = {
    "InspectModel": "Looking at a model",
    "ListModels": "Listing the models",
    "CheckData": "Checking data",
    "EstimateRun": "Estimating a run",
    "FindRate": "Finding a rate",
    "PreviewImage": "Previewing an image",
    "CancelLookUp": "Stopping a look-up",
    "PrepareRun": "Beginning a run",
    "OpenRun": "Opening a run",
    "StartRun": "Starting",
    "PauseRun": "Pausing",
    "UnpauseRun": "Going on",
    "StopRun": "Stopping",
    "FreezeLayers": "Freezing",
    "SetRate": "Changing the rate",
    "SetRateMultiplier": "Multiplying the rate",
    "SetPlan": "Changing the plan",
    "SetBatchNorm": "Changing what statistics do",
    "ChangeTraining": "Changing the epochs, the patience or the parts of a batch",
    "Rewind": "Rewinding",
    "UnfreezeLayers": "Unfreezing",
    "SaveCheckpoint": "Saving a checkpoint",
    "RestoreCheckpoint": "Restoring a checkpoint",
    "EditCheckpoint": "Changing a checkpoint's pin, label or note",
    "DeleteCheckpoints": "Deleting checkpoints",
    "PutCheckpointsBack": "Putting checkpoints back",
    "ShutDown": "Ending the worker",
}


class _WarningHandler(logging.Handler):
    """Tells the user what a part of ours can only warn of: no room to keep images, or for loader processes."""

    def __init__(self, publish: Callable[[Event], None]) -> None:
        super().__init__(logging.WARNING)
        self._publish = publish

    def emit(self, record: logging.LogRecord) -> None:
        self._publish(LogWritten(level="warning", text=record.getMessage()))


class Worker:
    """One worker process: its state, its one run, and the commands that wait for the next step boundary."""

    def __init__(self, listener: Listener, address: str, key: bytes) -> None:
        self.state = RunState.STARTING
        self._commands: queue.SimpleQueue[tuple[AnyCommand, int]] = queue.SimpleQueue()
        self._address = address
        self._key = key
        self._prepared: PreparedRun | None = None
        self._put_aside: deque[tuple[AnyCommand, int]] = deque()
        self._is_ending = False
        self._looking_up = ""
        self._is_cancelled = False
        self._told_divergence: tuple[int, int] | None = None
        self._preparation_reported_at = 0.0
        # What must be free on the disk for a paused run to go on by itself; 0: it does not.
        self._needed_bytes = 0
        # Last: from here on, clients' threads put commands in.
        self._server = EventServer(listener, self.take)

    def take(self, command: AnyCommand) -> None:
        """Take a command, to be applied at the next step boundary. Called from the clients' threads."""
        step = self._prepared.trainer.told_step if self._prepared is not None else 0
        self._commands.put((command, step))

    def load_libraries(self) -> None:
        """Import torch and begin to answer clients."""
        import torch

        from trainer.optim import list_devices
        from trainer.preparation import Preparation

        logging.getLogger("trainer").addHandler(_WarningHandler(self._server.publish))
        process = psutil.Process()
        self._preparation = Preparation(
            WorkerAddress(self._address, self._key, process.pid, process.create_time()),
            self._server.publish,
            self._report_preparation,
            self._check_cancelled,
        )
        self._server.begin(
            WorkerAttached(
                state=self.state, pid=os.getpid(), torch_version=str(torch.__version__), devices=list_devices()
            )
        )
        self._enter(RunState.IDLE)

    def serve(self) -> None:
        """Handle commands until there is no more to do: told to end, or left by every client with no run going."""
        seconds_alone = ORPHANED_AFTER_S - FIRST_CLIENT_WITHIN_S
        while not self._is_ending:
            try:
                self._handle(*self._next_command(POLL_INTERVAL_S))
            except queue.Empty:
                is_needed = self._server.num_clients or self.state is RunState.PAUSED
                seconds_alone = 0.0 if is_needed else seconds_alone + POLL_INTERVAL_S
                self._is_ending = seconds_alone >= ORPHANED_AFTER_S
                self._go_on_if_there_is_room()
            if self.state is RunState.RUNNING:
                self._fit()
        if self.state is RunState.READY:
            self._enter(RunState.STOPPED, "The run was left before it was started.")
        self._close()

    # -- commands ---------------------------------------------------------------------------------------------

    def _handle(self, command: AnyCommand, requested_step: int) -> None:
        if self.state not in ALLOWED_COMMANDS[command.kind]:
            self._reject(command, _not_allowed(command.kind, self.state))
            return
        try:
            self._apply(command, requested_step)
        except ValueError as error:
            self._refuse(command, error)

    def _apply(self, command: AnyCommand, requested_step: int) -> None:
        command_id = command.command_id
        match command:
            case ListModels() | InspectModel() | CheckData() | EstimateRun() | FindRate() | PreviewImage():
                self._look_up(command)
            case CancelLookUp():
                self._reject(command, NO_LOOK_UP)
            case PrepareRun() | OpenRun():
                self._prepare(command)
            case StartRun() | UnpauseRun():
                self._enter(RunState.RUNNING, command_id=command_id)
            case PauseRun():
                self._loaded.report(force=True)
                self._enter(RunState.PAUSED, command_id=command_id)
            case StopRun():
                self._stop(save=command.save, command_id=command_id)
            case SaveCheckpoint():
                self._loaded.begin_save(reason="user", command_id=command_id)
            case RestoreCheckpoint():
                what = f"the weights of {command.name}" if command.weights_only else command.name
                restored = self._loaded.restore(command.name, weights_only=command.weights_only, command_id=command_id)
                self._go_back(restored, f"Restored {what}.", command_id)
                # After it is told: a checkpoint is of a piece of the curve that is known.
                self._save_or_tell(self._loaded.save_if_due)
            case Rewind(is_undo=True):
                undone = self._loaded.restoring.undo_rewind(command_id=command_id)
                self._go_back(undone, "The run is where it was before it went back.", command_id)
            case Rewind():
                rewound = self._loaded.restoring.rewind(command.change, command.step, command_id=command_id)
                self._go_back(rewound, "Rewound.", command_id)
            case EditCheckpoint() | DeleteCheckpoints() | PutCheckpointsBack():
                self._server.publish(self._list_changed(command))
            case ChangeTraining() if self.state in {RunState.FINISHED, RunState.STOPPED}:
                self._train_on(self._loaded.changes.make(command, requested_step), command_id)
            case ShutDown():
                self._is_ending = True
                if self.state in {RunState.RUNNING, RunState.PAUSED}:
                    self._stop(save=True, command_id=command_id)
            case _:
                for event in self._loaded.changes.make(command, requested_step):
                    self._server.publish(event)

    def _list_changed(self, command: ListChange) -> Event:
        assert self._prepared is not None, "a state that allows this command has a run"
        folder = self._prepared.folder
        leaves_files = isinstance(command, DeleteCheckpoints) and command.leaves_files
        return change_list(folder, command, _leave if leaves_files else Path.unlink, keeps_resume_point=True)

    def _go_back(self, events: Sequence[Event], sentence: str, command_id: str) -> None:
        """Tell that the run has an earlier state, from which one that was over can go on."""
        for event in events:
            self._server.publish(event)
        if self.state in {RunState.FINISHED, RunState.STOPPED}:
            self._enter(RunState.READY, f"{sentence} Start goes on from there.", command_id)

    def _train_on(self, events: list[Event], command_id: str) -> None:
        """Tell that a run which was over has another length, with which it may go on."""
        if self._loaded.epoch < self._loaded.num_epochs:
            self._loaded.renew_patience()
            self._go_back(events, f"The run has {self._loaded.num_epochs:,} epochs now.", command_id)
            return
        for event in events:
            self._server.publish(event)

    def _stop(self, *, save: bool, command_id: str) -> None:
        if self.state is RunState.READY:
            self._enter(RunState.STOPPED, command_id=command_id)
            return
        self._enter(RunState.STOPPING)
        try:
            if save:
                self._loaded.save(reason="stop", command_id=command_id)
            else:
                self._save_or_tell(self._loaded.settle)
        except ValueError as error:
            self._is_ending = False
            self._enter(RunState.PAUSED, f"Not stopped, because it could not be saved. {error}")
            raise
        self._enter(RunState.STOPPED, command_id=command_id)

    def _save_or_tell(self, save: Callable[[], None]) -> None:
        """Save, and say what of the run could not be written, if anything; one that goes on tries it again."""
        try:
            save()
        except ValueError as error:
            self._server.publish(LogWritten(level="error", text=str(error)))

    def _look_up(self, command: LookUp) -> None:
        from trainer.look_ups import answer
        from trainer.preparation import PreparationCancelled

        self._looking_up, self._is_cancelled = command.kind, False
        try:
            self._server.publish(answer(command, self._preparation, self._prepared))
        except PreparationCancelled:
            reason = LOOK_UP_CANCELLED if self._is_cancelled else LOOK_UP_OVERTAKEN
            self._reject(command, reason, is_cancelled=self._is_cancelled)
        except ValueError:
            raise
        except Exception as error:
            # Whatever it was, a look-up must not end the worker.
            traceback.print_exc()
            raise ValueError(f"{_WORDS[command.kind]} failed: {type(error).__name__}: {error}.") from error
        finally:
            self._looking_up = ""

    # -- preparing a run --------------------------------------------------------------------------------------

    def _prepare(self, command: PrepareRun | OpenRun) -> None:
        from trainer.preparation import PreparationCancelled

        self._enter(RunState.PREPARING, command_id=command.command_id)
        try:
            if isinstance(command, PrepareRun):
                prepared = self._preparation.begin(command.config, Path(command.runs_dir))
            else:
                run_dir, epochs = Path(command.run_dir), command.epochs
                prepared = self._preparation.open(
                    run_dir,
                    command.checkpoint,
                    is_to_start=command.start,
                    anyway=command.anyway,
                    num_epochs=epochs,
                )
        except PreparationCancelled as stopped:
            self._enter(RunState.IDLE, _with_notes("The preparation was stopped.", stopped))
            return
        except ValueError:
            self._enter(RunState.IDLE)
            raise
        except Exception as error:
            traceback.print_exc()
            self._enter(RunState.IDLE)
            raise ValueError(
                f"Cannot prepare the run: {type(error).__name__}: {error}. The worker's log has the details."
            ) from error
        self._take(prepared, command.command_id)
        self._save_or_tell(prepared.trainer.save_if_due)
        self._save_or_tell(prepared.trainer.settle)
        self._enter(RunState.READY)
        if command.start:
            self._enter(RunState.RUNNING, command_id=command.command_id)

    def _take(self, prepared: PreparedRun, command_id: str) -> None:
        trainer = prepared.trainer
        self._prepared = prepared
        _print_to(prepared.folder.log_path)
        self._server.keep_in(prepared.folder, prepared.log.write)
        self._server.publish(
            RunPrepared(
                run=prepared.info,
                step=trainer.step,
                epoch=trainer.epoch,
                segment=trainer.segment,
                parent=trainer.restoring.parent,
                command_id=command_id,
            )
        )
        skipped = trainer.data.skipped
        lines = [f"Skipped {path}: {reason}" for path, reason in skipped[:MAX_SKIPPED_IN_LOG]]
        if len(skipped) > MAX_SKIPPED_IN_LOG:
            num_more = len(skipped) - MAX_SKIPPED_IN_LOG
            lines.append(f"Skipped {num_more} more files. `thaw check` and the Data tab list them all.")
        if prepared.info.data_summary is not None:
            lines = [*prepared.info.data_summary.advice, *lines]
        notes = [LogWritten(level="warning", text=line) for line in lines]
        if trainer.data.num_kept:
            num_images = trainer.data.num_train + trainer.data.num_validation + trainer.data.num_test
            kept = (
                f"{trainer.data.num_kept:,} of {num_images:,}, {trainer.data.store_bytes / 1e6:,.1f} of the "
                f"{trainer.data.store_budget_bytes / 1e6:,.1f} MB that those of all runs may take"
            )
            notes.append(LogWritten(level="info", text=f"Decoded images are kept for later epochs: {kept}."))
        for event in (*prepared.events, *notes):
            is_answer = isinstance(event, StateRestored)
            self._server.publish(event.model_copy(update={"command_id": command_id}) if is_answer else event)

    def _report_preparation(self, what: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if done < total and now - self._preparation_reported_at < PREPARATION_INTERVAL_S:
            return
        self._preparation_reported_at = now
        self._server.publish(PreparationProgressed(what=what, done=done, total=total, unit=unit))

    def _check_cancelled(self) -> None:
        """Look for commands while a preparation or a look-up goes on, which have no step boundaries.

        Nothing begins in here: what is not refused at once waits until the work has ended.
        """
        from trainer.preparation import PreparationCancelled

        while not self._commands.empty():
            command, requested_step = self._commands.get()
            if isinstance(command, ShutDown):
                # In mid-run it saves first, which is done at the step boundary.
                self._put_aside.appendleft((command, requested_step))
                raise PreparationCancelled
            if isinstance(command, CancelLookUp) and self.state in ALLOWED_COMMANDS[command.kind]:
                self._is_cancelled = True
                raise PreparationCancelled
            if self.state is RunState.PREPARING:
                if isinstance(command, StopRun):
                    raise PreparationCancelled
                self._handle(command, requested_step)
                continue
            overtaken = _OVERTAKES.get(command.kind, frozenset())
            for waiting in [entry for entry in self._put_aside if entry[0].kind in overtaken]:
                self._put_aside.remove(waiting)
                self._reject(waiting[0], LOOK_UP_OVERTAKEN)
            self._put_aside.append((command, requested_step))
            if self._looking_up in overtaken:
                raise PreparationCancelled

    def _next_command(self, timeout_s: float) -> tuple[AnyCommand, int]:
        return self._put_aside.popleft() if self._put_aside else self._commands.get(timeout=timeout_s)

    # -- running ----------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        import torch

        from trainer.checkpoints import CheckpointError, DiskFullError
        from trainer.loop import RunStopped

        trainer = self._loaded
        try:
            sentence = trainer.fit(self._between_steps)
        except RunStopped:
            return
        except DiskFullError as error:
            needed = f"{error.needed_bytes / 1e6:,.0f} MB"
            self._enter(RunState.PAUSED, f"{error} The run goes on by itself when {needed} are free, or on Unpause.")
            self._needed_bytes = error.needed_bytes
        except (CheckpointError, RunFolderError) as error:
            # A locked database, say: nothing of the run is lost, so it waits until that is mended.
            self._enter(RunState.PAUSED, str(error))
        except ValueError as error:
            self._fail(str(error))
        except torch.OutOfMemoryError:
            self._fail(
                f"The device {trainer.device} ran out of memory at step {trainer.step}. "
                "Begin a new run with a smaller batch or smaller images."
            )
        except Exception as error:  # noqa: BLE001 (whatever it was, the window must hear of it)
            self._fail(failure_sentence(error, trainer.step))
        else:
            trainer.report(force=True)
            self._enter(RunState.FINISHED, sentence)

    def _go_on_if_there_is_room(self) -> None:
        if (
            self._needed_bytes
            and self._prepared
            and shutil.disk_usage(self._prepared.folder.path).free >= self._needed_bytes
        ):
            self._enter(RunState.RUNNING, "The disk has room again.")

    def _between_steps(self) -> None:
        from trainer.loop import RunStopped

        while self.state is RunState.PAUSED or self._put_aside or not self._commands.empty():
            with contextlib.suppress(queue.Empty):
                self._handle(*self._next_command(POLL_INTERVAL_S))
        if self.state is not RunState.RUNNING:
            raise RunStopped
        step = self._loaded.non_finite_step
        if step is not None and self._told_divergence != (self._loaded.segment, step):
            self._told_divergence = (self._loaded.segment, step)
            self._enter(
                RunState.PAUSED,
                f"The loss or its gradient was NaN or infinite at step {step:,}; that update was left out. Go on "
                "without it, lower the rate first, or restore a checkpoint.",
                offered_rate=self._loaded.rates.rate / 2,
            )
            self._between_steps()
        if self._loaded.lacks_memory:
            self._loaded.lacks_memory = False
            self._pause_for_memory()
            self._between_steps()

    def _pause_for_memory(self) -> None:
        run = self._loaded
        at_once = -(-run.config.training.batch_size // run.batch_parts)
        sentence = (
            f"The device {run.device} has no memory for step {run.step + 1:,} with {at_once} images at a time; "
            "nothing was changed. "
        )
        parts = min(run.batch_parts * 2, run.most_parts)
        if parts == run.batch_parts:
            sentence += "Freeze more layers, or stop and begin anew with smaller images."
            self._enter(RunState.PAUSED, sentence)
            return
        sentence += f"Batches in {parts} parts make the updates of whole ones with less of it"
        has_statistics = any(layer.has_statistics for layer in run.layers)
        sentence += ", though BatchNorm sees fewer images at once." if has_statistics else "."
        self._enter(RunState.PAUSED, sentence, offered_parts=parts)

    # -- saying what happened ---------------------------------------------------------------------------------

    def _enter(
        self,
        state: RunState,
        sentence: str = "",
        command_id: str = "",
        offered_rate: float | None = None,
        offered_parts: int | None = None,
    ) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} does not lead to {state}"
        self.state, self._needed_bytes = state, 0
        self._server.publish(
            StateChanged(
                state=state,
                sentence=sentence,
                offered_rate=offered_rate,
                offered_parts=offered_parts,
                command_id=command_id,
            )
        )

    def _refuse(self, command: AnyCommand, error: ValueError) -> None:
        rejected = CommandRejected(
            command=command.kind,
            reason=_with_notes(str(error), error),
            changes=getattr(error, "changes", []),
            command_id=command.command_id,
        )
        if isinstance(error, ConfigError):
            sentences = error.sentences if len(error.sentences) > 1 else {}
            at_fault = {"field": error.field, "sentences": sentences, "choices": error.choices}
            rejected = rejected.model_copy(update=at_fault)
        self._server.publish(rejected)

    def _reject(self, command: AnyCommand, reason: str, *, is_cancelled: bool = False) -> None:
        self._server.publish(
            CommandRejected(
                command=command.kind, reason=reason, is_cancelled=is_cancelled, command_id=command.command_id
            )
        )

    def _fail(self, sentence: str) -> None:
        traceback.print_exc()
        self._server.publish(LogWritten(level="error", text=sentence))
        self._enter(RunState.FAILED, sentence)

    @property
    def _loaded(self) -> Trainer:
        assert self._prepared is not None, "a state that allows this command has a run"
        return self._prepared.trainer

    def _close(self) -> None:
        if self._prepared is not None:
            self._prepared.trainer.close()
        self._server.finish()
        if self._prepared is not None:
            self._prepared.log.close()
            self._prepared.folder.remove_worker(self._preparation.worker)
            self._prepared.folder.close()


def main() -> int:
    """Serve one client's commands, and then others', as the line on standard input says. Returns the exit code."""
    hello = json.loads(sys.stdin.readline())
    address, key = hello["address"], bytes.fromhex(hello["key"])
    # Before torch is imported, which takes seconds: a client can connect and send already.
    listener = Listener(address, authkey=key)
    worker = Worker(listener, address, key)
    signal.signal(signal.SIGTERM, lambda *_: worker.take(ShutDown()))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker.load_libraries()
    worker.serve()
    listener.close()
    shutil.rmtree(hello["folder"], ignore_errors=True)
    return 0


def _leave(_: Path) -> None:
    """Leave a file to the client, which moves it to the trash."""


def _print_to(path: Path) -> None:
    """Send what this process and its libraries print to a file from now on."""
    with path.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def failure_sentence(error: Exception, step: int) -> str:
    """Say what an error in a step, which has no sentence of its own, means for the run."""
    if "does not have a deterministic implementation" in str(error):
        operator = str(error).partition(" ")[0]
        return (
            f"The model's operator {operator} cannot give the same to the bit each time on this device. Begin a new "
            "run with training.deterministic = false."
        )
    return f"Training failed at step {step}: {type(error).__name__}: {error}. The log has the details."


def _not_allowed(kind: str, state: RunState) -> str:
    *most, last = sorted(ALLOWED_COMMANDS[kind])
    allowed = f"{', '.join(most)} or {last}" if most else last
    return f"{_WORDS[kind]} is not possible while the run is {state}. Try again when it is {allowed}."


def _with_notes(sentence: str, error: BaseException) -> str:
    return " ".join([sentence, *getattr(error, "__notes__", [])])
