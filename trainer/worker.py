"""The worker process: takes commands between optimizer steps, sends events, and says why it ended if it must."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from multiprocessing.connection import Listener
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import psutil

from trainer.config import ConfigError, ModelConfig, RunConfig
from trainer.messages import (
    ALLOWED_COMMANDS,
    TRANSITIONS,
    AnyCommand,
    CheckData,
    CheckpointRestored,
    CommandRejected,
    DataChecked,
    FreezeLayers,
    InspectModel,
    ListModels,
    LogWritten,
    ModelInspected,
    ModelsListed,
    ModelSummary,
    OpenRun,
    PauseRun,
    PreparationProgressed,
    PrepareRun,
    RestoreCheckpoint,
    RunInfo,
    RunPrepared,
    RunState,
    SaveCheckpoint,
    ShutDown,
    StartRun,
    StateChanged,
    StopRun,
    UnfreezeLayers,
    UnpauseRun,
    WorkerAttached,
)
from trainer.runs import RunFolder, WorkerAddress, check_writable
from trainer.server import EventServer

if TYPE_CHECKING:
    from trainer.data.scan import ScannedData
    from trainer.logs import TensorBoardLog
    from trainer.loop import Trainer

POLL_INTERVAL_S = 0.5
ORPHANED_AFTER_S = 3.0
FIRST_CLIENT_WITHIN_S = 60.0
PREPARATION_INTERVAL_S = 0.1


class PreparationCancelled(Exception):  # noqa: N818 (a request, not an error)
    """Raised inside the preparation when the user stops it."""


class Worker:
    """One worker process: its state, its one run, and the commands that wait for the next step boundary."""

    def __init__(
        self, server: EventServer, commands: queue.SimpleQueue[tuple[AnyCommand, int]], address: str, key: bytes
    ) -> None:
        self.state = RunState.STARTING
        self._server = server
        self._commands = commands
        self._address = address
        self._key = key
        self._trainer: Trainer | None = None
        self._folder: RunFolder | None = None
        self._log: TensorBoardLog | None = None
        self._is_ending = False
        self._is_divergence_told = False
        self._preparation_reported_at = 0.0

    def load_libraries(self) -> None:
        """Import torch and begin to answer clients."""
        import torch

        from trainer.optim import list_devices

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
                self._handle(*self._commands.get(timeout=POLL_INTERVAL_S))
            except queue.Empty:
                is_needed = self._server.num_clients or self.state is RunState.PAUSED
                seconds_alone = 0.0 if is_needed else seconds_alone + POLL_INTERVAL_S
                self._is_ending = seconds_alone >= ORPHANED_AFTER_S
            if self.state is RunState.RUNNING:
                self._fit()
        if self.state is RunState.READY:
            self._enter(RunState.STOPPED, "The run was left before it was started.")
        self._close()

    def requested_step(self) -> int:
        """Return the step at which a command that arrives now is asked for. Called from the clients' threads."""
        return self._trainer.step if self._trainer is not None else 0

    # -- commands ---------------------------------------------------------------------------------------------

    def _handle(self, command: AnyCommand, requested_step: int) -> None:
        if self.state not in ALLOWED_COMMANDS[command.kind]:
            self._reject(command, _not_allowed(command.kind, self.state))
            return
        try:
            self._apply(command, requested_step)
        except ValueError as error:
            self._reject(command, str(error), getattr(error, "field", ""))

    def _apply(self, command: AnyCommand, requested_step: int) -> None:
        command_id = command.command_id
        match command:
            case ListModels() | InspectModel() | CheckData():
                self._look_up(command)
            case PrepareRun() | OpenRun():
                self._prepare(command)
            case StartRun() | UnpauseRun():
                self._enter(RunState.RUNNING, command_id=command_id)
            case PauseRun():
                self._loaded.report(force=True)
                self._enter(RunState.PAUSED, command_id=command_id)
            case StopRun():
                self._stop(save=command.save, command_id=command_id)
            case FreezeLayers():
                self._loaded.freeze(command.layers, requested_step=requested_step, command_id=command_id)
            case UnfreezeLayers():
                self._loaded.unfreeze(command.layers, requested_step=requested_step, command_id=command_id)
            case SaveCheckpoint():
                self._loaded.save(reason="user", command_id=command_id)
            case RestoreCheckpoint():
                self._server.publish(self._loaded.restore(command.name, command_id=command_id))
                if self.state in {RunState.FINISHED, RunState.STOPPED}:
                    self._enter(RunState.READY, f"Restored {command.name}. Start goes on from there.")
            case ShutDown():
                self._is_ending = True
                if self.state in {RunState.RUNNING, RunState.PAUSED}:
                    self._stop(save=True, command_id=command_id)

    def _stop(self, *, save: bool, command_id: str) -> None:
        if self.state is RunState.READY:
            self._enter(RunState.STOPPED, command_id=command_id)
            return
        self._enter(RunState.STOPPING)
        try:
            if save:
                self._loaded.save(reason="stop", command_id=command_id)
        except ValueError as error:
            self._is_ending = False
            self._enter(RunState.PAUSED, f"Not stopped, because it could not be saved. {error}")
            raise
        self._enter(RunState.STOPPED, command_id=command_id)

    def _look_up(self, command: ListModels | InspectModel | CheckData) -> None:
        from trainer import models

        if isinstance(command, ListModels):
            self._server.publish(ModelsListed(models=models.list_models(), command_id=command.command_id))
        elif isinstance(command, InspectModel):
            summary = summarize(command.model)
            self._server.publish(ModelInspected(summary=summary, command_id=command.command_id))
        else:
            scanned = self._scan(command.path)
            counts = Counter(class_idx for _, class_idx in scanned.samples)
            class_counts = {name: counts[class_idx] for class_idx, name in enumerate(scanned.class_names)}
            self._server.publish(
                DataChecked(
                    path=command.path,
                    class_counts=class_counts,
                    skipped=scanned.skipped,
                    command_id=command.command_id,
                )
            )

    # -- preparing a run --------------------------------------------------------------------------------------

    def _prepare(self, command: PrepareRun | OpenRun) -> None:
        self._enter(RunState.PREPARING, command_id=command.command_id)
        try:
            run, restored = self._prepare_new(command) if isinstance(command, PrepareRun) else self._open(command)
        except PreparationCancelled:
            self._enter(RunState.IDLE, "The preparation was stopped.")
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
        trainer = self._loaded
        self._server.publish(
            RunPrepared(
                run=run, step=trainer.step, epoch=trainer.epoch, segment=trainer.segment, command_id=command.command_id
            )
        )
        if restored is not None:
            self._server.publish(restored)
        for path, reason in trainer.data.skipped:
            self._server.publish(LogWritten(level="warning", text=f"Skipped {path}: {reason}"))
        self._enter(RunState.READY)
        if command.start:
            self._enter(RunState.RUNNING, command_id=command.command_id)

    def _prepare_new(self, command: PrepareRun) -> tuple[RunInfo, None]:
        check_writable(Path(command.runs_dir))
        trainer = self._load(command.config, command.config.model)
        folder = RunFolder.create(Path(command.runs_dir), command.config)
        trainer.begin(folder)
        return self._begin_run(folder, trainer), None

    def _open(self, command: OpenRun) -> tuple[RunInfo, CheckpointRestored | None]:
        folder = RunFolder(Path(command.run_dir))
        try:
            if folder.worker() is not None:
                raise ValueError(f"{folder.path.name} has a worker already. Open the run to attach to it.")
            config = folder.config()
            info = folder.checkpoint(command.checkpoint) if command.checkpoint else folder.resume_point()
            if command.start and info is not None and info.epoch >= config.training.epochs:
                raise ValueError(
                    f"{folder.path.name} has finished all its {config.training.epochs} epochs: there is nothing to "
                    "resume. Restore an earlier checkpoint, or begin a new run."
                )
            # The run's own files hold every weight, so none are downloaded or read from elsewhere.
            trainer = self._load(config, config.model.model_copy(update={"weights": "random"}))
            restored = trainer.go_on(folder, info)
        except BaseException:
            folder.close()
            raise
        return self._begin_run(folder, trainer), restored

    def _load(self, config: RunConfig, model: ModelConfig) -> Trainer:
        import torch

        from trainer.data.loader import load_data
        from trainer.loop import Trainer
        from trainer.models import build_model
        from trainer.optim import choose_device

        device = choose_device(config.training.device)
        if config.training.num_threads:
            torch.set_num_threads(config.training.num_threads)
        scanned = self._scan(config.data.path)
        loaded = build_model(
            model,
            len(scanned.class_names),
            config.training.seed,
            config.data.image_size,
            self._report_preparation,
            self._check_cancelled,
        )
        data = load_data(config.data, config.training, loaded.preprocessing, scanned)
        self._check_cancelled()
        return Trainer(config, loaded, data, device, self._server.publish)

    def _scan(self, path: str) -> ScannedData:
        from trainer.data.scan import scan

        if not path:
            raise ConfigError("No data is chosen. Choose a folder of class folders, or a zip of one.", "data.path")
        cache_dir = platformdirs.user_cache_path("thaw") / "data"
        return scan(Path(path), cache_dir, self._report_preparation, self._check_cancelled)

    def _begin_run(self, folder: RunFolder, trainer: Trainer) -> RunInfo:
        import torch

        from trainer.logs import TensorBoardLog

        _print_to(folder.log_path)
        self._trainer, self._folder = trainer, folder
        self._log = TensorBoardLog(folder.tensorboard_dir, trainer.step)
        self._server.keep_in(folder, self._log.write)
        process = psutil.Process()
        folder.write_worker(WorkerAddress(self._address, self._key, process.pid, process.create_time()))
        data = trainer.data
        return RunInfo(
            run_dir=str(folder.path.resolve()),
            config=trainer.config,
            summary=trainer.summary(),
            class_names=list(data.class_names),
            num_train=data.num_train,
            num_validation=data.num_validation,
            num_skipped=len(data.skipped),
            steps_per_epoch=data.steps_per_epoch,
            total_steps=trainer.total_steps,
            device=str(trainer.device),
            precision=trainer.precision,
            num_threads=torch.get_num_threads(),
            image_size=data.preprocessing.image_size,
        )

    def _report_preparation(self, what: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if done < total and now - self._preparation_reported_at < PREPARATION_INTERVAL_S:
            return
        self._preparation_reported_at = now
        self._server.publish(PreparationProgressed(what=what, done=done, total=total, unit=unit))

    def _check_cancelled(self) -> None:
        """Look for a stop while the preparation, which has no step boundaries, goes on."""
        while not self._commands.empty():
            command, requested_step = self._commands.get()
            if isinstance(command, StopRun | ShutDown):
                self._is_ending = isinstance(command, ShutDown)
                raise PreparationCancelled
            self._handle(command, requested_step)

    # -- running ----------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        import torch

        from trainer.checkpoints import CheckpointError
        from trainer.loop import RunStopped

        trainer = self._loaded
        try:
            trainer.fit(self._between_steps)
        except RunStopped:
            return
        except CheckpointError as error:
            self._enter(RunState.PAUSED, str(error))
        except ValueError as error:
            self._fail(str(error))
        except torch.OutOfMemoryError:
            self._fail(
                f"The device {trainer.device} ran out of memory at step {trainer.step}. "
                "Begin a new run with a smaller batch or smaller images."
            )
        except Exception as error:  # noqa: BLE001 (whatever it was, the window must hear of it)
            self._fail(
                f"Training failed at step {trainer.step}: {type(error).__name__}: {error}. The log has the details."
            )
        else:
            trainer.report(force=True)
            self._enter(RunState.FINISHED)

    def _between_steps(self) -> None:
        from trainer.loop import RunStopped

        while self.state is RunState.PAUSED or not self._commands.empty():
            with contextlib.suppress(queue.Empty):
                self._handle(*self._commands.get(timeout=1.0))
        if self.state is not RunState.RUNNING:
            raise RunStopped
        step = self._loaded.non_finite_step
        if step is not None and not self._is_divergence_told:
            self._is_divergence_told = True
            self._enter(
                RunState.PAUSED,
                f"The loss became NaN or infinite at step {step}. Restore an earlier checkpoint, "
                "or begin a new run with a lower rate.",
            )
            self._between_steps()

    # -- saying what happened ---------------------------------------------------------------------------------

    def _enter(self, state: RunState, sentence: str = "", command_id: str = "") -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} does not lead to {state}"
        self.state = state
        self._server.publish(StateChanged(state=state, sentence=sentence, command_id=command_id))

    def _reject(self, command: AnyCommand, reason: str, field: str = "") -> None:
        self._server.publish(
            CommandRejected(command=command.kind, reason=reason, field=field, command_id=command.command_id)
        )

    def _fail(self, sentence: str) -> None:
        traceback.print_exc()
        self._server.publish(LogWritten(level="error", text=sentence))
        self._enter(RunState.FAILED, sentence)

    @property
    def _loaded(self) -> Trainer:
        assert self._trainer is not None, "a state that allows this command has a run"
        return self._trainer

    def _close(self) -> None:
        if self._trainer is not None:
            self._trainer.close()
        self._server.finish()
        if self._log is not None:
            self._log.close()
        if self._folder is not None:
            self._folder.remove_worker()
            self._folder.close()


def summarize(model: ModelConfig) -> ModelSummary:
    """Describe a model that is not loaded, with the layers that its configuration freezes.

    Raises:
        ValueError: There is no such model, or no such layer.

    """
    from trainer.freezing import FreezeSet
    from trainer.models import inspect, layer_tree

    module, head = inspect(model)
    freeze_set = FreezeSet(module, head)
    units = freeze_set.resolve(model.frozen)
    num_frozen = sum(p.numel() for name, p in module.named_parameters() if name.rpartition(".")[0] in units)
    return ModelSummary(
        model=model.name,
        layers=layer_tree(module, head),
        frozen=sorted(units),
        num_params=freeze_set.num_params,
        num_trainable=freeze_set.num_params - num_frozen,
    )


def main() -> int:
    """Serve one client's commands, and then others', as the line on standard input says. Returns the exit code."""
    hello = json.loads(sys.stdin.readline())
    address, key = hello["address"], bytes.fromhex(hello["key"])
    commands: queue.SimpleQueue[tuple[AnyCommand, int]] = queue.SimpleQueue()
    # Before torch is imported, which takes seconds: a client can connect and send already.
    listener = Listener(address, authkey=key)
    server = EventServer(listener, lambda command: commands.put((command, worker.requested_step())))
    worker = Worker(server, commands, address, key)
    signal.signal(signal.SIGTERM, lambda *_: commands.put((ShutDown(), worker.requested_step())))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker.load_libraries()
    worker.serve()
    listener.close()
    shutil.rmtree(hello["folder"], ignore_errors=True)
    return 0


def _print_to(path: Path) -> None:
    """Send what this process and its libraries print to a file from now on."""
    with path.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def _not_allowed(kind: str, state: RunState) -> str:
    allowed = ", ".join(sorted(ALLOWED_COMMANDS[kind]))
    return f"{kind} is not possible while the run is {state}; it is while it is: {allowed}."


if __name__ == "__main__":
    sys.exit(main())
