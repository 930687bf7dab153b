"""Steer a run that is under way from a shell, or look at it: one command, one answer."""

from __future__ import annotations

import time
from pathlib import Path

from app.figures import shown_path
from app.worker_talk import CommandRefusedError, RunFailedError, lost_sentence, next_event, wait_until_attached
from trainer.client import RunOpened, WorkerClient, WorkerLost
from trainer.messages.base import Command
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.commands import StartRun, UnpauseRun, is_allowed
from trainer.messages.events import (
    AnyEvent,
    CheckpointEdited,
    CheckpointSaved,
    CommandRejected,
    ProgressReported,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.states import RunState
from trainer.run_record import RunRecord


def steer(run_dir: Path, command: Command, timeout_s: float) -> tuple[AnyEvent, RunState]:
    """Give a live run one command.

    An ``UnpauseRun`` starts a run that is stopped, or that a restore left ready, where it stands.

    Returns the event that says that it took hold, and the state in which the command found the run.

    Raises:
        RunFolderError: No worker serves the run.
        CommandRefusedError: The worker refused, with its reason.
        RunFailedError: The worker was lost or did not answer in time, or the run failed.

    """
    client = WorkerClient.attach(run_dir)
    deadline = time.monotonic() + timeout_s
    try:
        attached = wait_until_attached(client, run_dir, deadline, lambda _: None)
        if isinstance(command, UnpauseRun) and is_allowed("StartRun", attached.state):
            command = StartRun()
        event = _wait_for_answer(client, run_dir, command, deadline)
        if event is None:
            raise RunFailedError(
                f"{run_dir.name} has not answered within {timeout_s:g} s. It may still apply the command: "
                f"`thaw status {shown_path(run_dir)}` tells."
            )
        return event, attached.state
    finally:
        client.close()


def look(run_dir: Path, timeout_s: float) -> tuple[RunRecord, ProgressReported | None]:
    """Return a live run's record, and what its worker reports next: None in a pause, when it reports nothing.

    Raises:
        RunFolderError: No worker serves the run.
        RunFailedError: The worker did not answer in time.

    """
    client = WorkerClient.attach(run_dir)
    deadline = time.monotonic() + timeout_s
    record: RunRecord | None = None
    try:
        while time.monotonic() < deadline:
            event = next_event(client)
            if isinstance(event, WorkerLost):
                break
            if isinstance(event, RunOpened):
                record = event.record
            elif record is not None and isinstance(event, ProgressReported):
                return record, event
            elif record is not None and isinstance(event, WorkerAttached) and event.state is not RunState.RUNNING:
                return record, None
    finally:
        client.close()
    if record is None:
        raise RunFailedError(f"The worker of {run_dir.name} does not answer. Its worker.log may say why.")
    return record, None


def _wait_for_answer(client: WorkerClient, run_dir: Path, command: Command, deadline: float) -> AnyEvent | None:
    command_id = client.send(command)
    while time.monotonic() < deadline:
        event = next_event(client)
        if isinstance(event, WorkerLost):
            raise RunFailedError(lost_sentence(event, run_dir))
        if isinstance(event, CommandRejected) and event.command_id == command_id:
            raise CommandRefusedError(event.reason)
        if isinstance(event, StateChanged) and event.state is RunState.FAILED:
            raise RunFailedError(event.sentence or f"{run_dir.name} failed. Its worker.log says why.")
        if event is not None and not isinstance(event, RunOpened) and _answers(event, command, command_id):
            return event
    return None


def _answers(event: AnyEvent, command: Command, command_id: str) -> bool:
    wanted_states = _WANTED_STATES.get(type(command).__name__)
    if wanted_states is None:
        return event.command_id == command_id and isinstance(event, _ANSWERS)
    # A stop also saves a checkpoint on its way: only the state tells that it is done.
    return isinstance(event, StateChanged) and event.state in wanted_states


_WANTED_STATES = {
    "PauseRun": frozenset({RunState.PAUSED}),
    "StartRun": frozenset({RunState.RUNNING}),
    "UnpauseRun": frozenset({RunState.RUNNING}),
    "StopRun": frozenset({RunState.STOPPED, RunState.FINISHED}),
}
_ANSWERS = (
    LayersFrozen,
    LayersUnfrozen,
    RateChanged,
    RateMultiplierChanged,
    PlanChanged,
    BatchNormChanged,
    TrainingChanged,
    CheckpointSaved,
    CheckpointEdited,
    CheckpointRestored,
    RunRewound,
    RewindUndone,
)
