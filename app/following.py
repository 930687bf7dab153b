"""Follow a run from a shell to its end: one that begins in a worker of its own, or one that goes on in another's."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from app.figures import shown_path
from app.worker_talk import (
    CommandRefusedError,
    end_worker,
    lost_sentence,
    next_event,
    wait_until_attached,
    with_fields,
)
from trainer.client import ClientEvent, WorkerClient, WorkerLost
from trainer.messages.base import Command
from trainer.messages.changes import CheckpointRestored, TrainingChanged
from trainer.messages.commands import (
    ChangeTraining,
    OpenRun,
    PrepareRun,
    RestoreCheckpoint,
    ShutDown,
    StartRun,
    StopRun,
    is_allowed,
)
from trainer.messages.events import CommandRejected, RunPrepared, StateChanged, WorkerAttached
from trainer.messages.states import RunState

ATTACH_TIMEOUT_S = 10.0
_ENDED = frozenset({RunState.FINISHED, RunState.STOPPED, RunState.FAILED})


@dataclass(frozen=True)
class Ending:
    """How a run ended that this process followed. ``run_dir`` is None if it never got a folder.

    ``has_changed``: it did not go on, because something of it is another one by now; it can be told to all the same.
    """

    exit_code: int
    sentence: str
    run_dir: Path | None
    has_changed: bool = False

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal ended it: Ctrl+C, or a request to terminate."""
        return self.exit_code > 128


def follow(
    client: WorkerClient,
    command: PrepareRun | OpenRun,
    show: Callable[[ClientEvent], None],
    tell: Callable[[str], None],
) -> Ending:
    """Give ``command`` to a new worker, show every event until the run ends, and end the worker.

    The first Ctrl+C (or SIGTERM) asks the worker to stop and save, and ``tell`` gets a sentence that says so; the
    second kills it.
    """
    try:
        return _watch(client, _Follower(client, command, tell), show)
    finally:
        # Also when the view broke (a closed pipe): the worker must not train on without anyone knowing.
        end_worker(client)


def go_on(
    run_dir: Path,
    checkpoint: str | None,
    epochs: int | None,
    show: Callable[[ClientEvent], None],
    tell: Callable[[str], None],
) -> Ending:
    """Start a stopped run in the worker that still has it, and show every event until the run ends.

    It goes on where it stands, or from ``checkpoint``; to the end of ``epochs`` in all, if given. Ctrl+C does
    what it does in ``follow``. The worker is another's, a window's say, and is left to it at the end.

    Raises:
        RunFolderError: No worker serves the run.
        CommandRefusedError: The run is not one that waits for a start.
        RunFailedError: The worker was lost, or does not answer.

    """
    client = WorkerClient.attach(run_dir)
    try:
        attached = wait_until_attached(client, run_dir, time.monotonic() + ATTACH_TIMEOUT_S, show)
        first: list[Command] = [] if checkpoint is None else [RestoreCheckpoint(name=checkpoint)]
        if epochs is not None:
            first.append(ChangeTraining(epochs=epochs))
        _check_waits_for_start(run_dir, attached.state, may_have_ended=bool(first))
        follower = _GuestFollower(client, run_dir, attached.state, tell)
        follower.begin(first)
        return _watch(client, follower, show)
    finally:
        client.close()


class _Follower:
    """What is known of the run that is followed, and how it ended."""

    def __init__(self, client: WorkerClient, command: PrepareRun | OpenRun, tell: Callable[[str], None]) -> None:
        self.ending: Ending | None = None
        self._tell = tell
        self._client = client
        self._command = command
        self._command_id = ""
        self._state = RunState.STARTING
        self._run_dir = Path(command.run_dir) if isinstance(command, OpenRun) else None
        self._num_heeded = 0
        self._signal = 0

    def take(self, event: ClientEvent) -> None:
        if isinstance(event, WorkerLost):
            self._end(1, lost_sentence(event, self._run_dir))
        elif isinstance(event, CommandRejected) and event.command_id == self._command_id:
            self._end(2, with_fields(event.by_field, "the run's configuration"), has_changed=bool(event.changes))
        elif isinstance(event, RunPrepared):
            self._run_dir = Path(event.run.run_dir)
        elif isinstance(event, StateChanged | WorkerAttached):
            self._state = event.state
            sentence = event.sentence if isinstance(event, StateChanged) else ""
            if self._state in _ENDED:
                self._end(1 if self._state is RunState.FAILED else 0, sentence)
            elif self._state is RunState.IDLE and self._num_heeded:
                self._end(0, "")
            elif self._state is RunState.IDLE and not self._command_id:
                self._command_id = self._client.send(self._command)

    def heed(self, num_interrupts: int, signal_number: int) -> None:
        """Act on Ctrl+C: the first one stops and saves, the second one kills."""
        if num_interrupts == self._num_heeded:
            return
        self._num_heeded = num_interrupts
        self._signal = signal_number
        if num_interrupts > 1 or self._state is RunState.STARTING:
            self._client.kill()
        elif self._can_stop():
            self._client.send(StopRun())
            self._tell("Stopping after this step, then saving. Ctrl+C again ends it at once.")
        else:
            self._client.send(ShutDown())

    def _can_stop(self) -> bool:
        return is_allowed("StopRun", self._state)

    def _end(self, exit_code: int, sentence: str, *, has_changed: bool = False) -> None:
        # A run that finished or failed before the stop took hold has its own ending.
        if self._num_heeded and self._state not in {RunState.FINISHED, RunState.FAILED}:
            exit_code = 128 + self._signal
            sentence = self._interrupted_sentence()
        self.ending = Ending(exit_code, sentence, self._run_dir, has_changed)

    def _interrupted_sentence(self) -> str:
        if self._run_dir is None:
            return "Ended before the run began."
        how = "Stopped and saved" if self._state is RunState.STOPPED else "Killed; what was saved before is safe"
        return f"{how}. Go on with `thaw resume {shown_path(self._run_dir)}`."


class _GuestFollower(_Follower):
    """Follows a run that goes on in a worker which another process started."""

    def __init__(self, client: WorkerClient, run_dir: Path, state: RunState, tell: Callable[[str], None]) -> None:
        super().__init__(client, OpenRun(run_dir=str(run_dir)), tell)
        self._state = state
        self._to_send: list[Command] = []

    def begin(self, first: Sequence[Command]) -> None:
        """Start the run, after these commands; each is sent once the one before it is done."""
        self._to_send = [*first, StartRun()]
        self._send_next()

    def take(self, event: ClientEvent) -> None:
        is_answer = isinstance(event, CheckpointRestored | TrainingChanged) and event.command_id == self._command_id
        if is_answer and not self._num_heeded:
            self._send_next()
        super().take(event)

    def _send_next(self) -> None:
        self._command_id = self._client.send(self._to_send.pop(0))

    def _can_stop(self) -> bool:
        # Also before the start has taken hold: the stop comes after it.
        return True


def _watch(client: WorkerClient, follower: _Follower, show: Callable[[ClientEvent], None]) -> Ending:
    with _counting_interrupts() as interrupts:
        while follower.ending is None:
            follower.heed(len(interrupts), interrupts[-1] if interrupts else 0)
            event = next_event(client)
            if event is not None:
                show(event)
                follower.take(event)
    return follower.ending


def _check_waits_for_start(run_dir: Path, state: RunState, *, may_have_ended: bool) -> None:
    if is_allowed("StartRun", state) or (may_have_ended and state is RunState.FINISHED):
        return
    path = shown_path(run_dir)
    way = {
        RunState.PAUSED: f"`thaw unpause {path}` goes on with it.",
        RunState.FAILED: "Close the window that shows it, and resume it then.",
    }.get(state, f"See `thaw status {path}`.")
    raise CommandRefusedError(f"{run_dir.name} is in the hands of a living worker already, and is {state}. {way}")


@contextmanager
def _counting_interrupts() -> Iterator[list[int]]:
    received: list[int] = []

    def count(number: int, _: FrameType | None) -> None:
        received.append(number)

    earlier = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
