"""Talk to a worker from a shell: follow a run to its end, ask one question, or steer a run that is under way."""

from __future__ import annotations

import queue
import shlex
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from trainer.client import ClientEvent, RunOpened, WorkerClient, WorkerLost
from trainer.messages.base import Command
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.commands import (
    CheckData,
    EstimateRun,
    FindRate,
    InspectModel,
    ListModels,
    OpenRun,
    PrepareRun,
    RestoreCheckpoint,
    ShutDown,
    StartRun,
    StopRun,
    UnpauseRun,
    is_allowed,
)
from trainer.messages.events import (
    AnyEvent,
    CheckpointSaved,
    CommandRejected,
    DataChecked,
    ModelInspected,
    ModelsListed,
    ProgressReported,
    RateFound,
    RunEstimated,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.states import RunState
from trainer.run_record import RunRecord

Question = ListModels | InspectModel | CheckData | EstimateRun | FindRate
"""What a worker answers before it has a run."""

Answer = ModelsListed | ModelInspected | DataChecked | RunEstimated | RateFound | CommandRejected

UNNAMED_FIELDS = frozenset(
    {"data.layout", "data.path_column", "data.label_column", "data.split_column", "data.group_column"}
)
"""Fields about which the worker's sentences speak without their names: the form shows these beside the field."""

ATTACH_TIMEOUT_S = 10.0
SHUT_DOWN_TIMEOUT_S = 30.0
_POLL_S = 0.1
_ENDED = frozenset({RunState.FINISHED, RunState.STOPPED, RunState.FAILED})


class CommandRefusedError(ValueError):
    """The worker refused a command; the text is its reason, for the user. ``field`` is the config field at fault."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class RunFailedError(Exception):
    """The run or its worker failed; the text says how, for the user."""


@dataclass(frozen=True)
class Ending:
    """How a run ended that this process followed. ``run_dir`` is None if it never got a folder."""

    exit_code: int
    sentence: str
    run_dir: Path | None

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
    run_dir: Path, checkpoint: str | None, show: Callable[[ClientEvent], None], tell: Callable[[str], None]
) -> Ending:
    """Start a stopped run in the worker that still has it, and show every event until the run ends.

    It goes on where it stands, or from ``checkpoint``. Ctrl+C does what it does in ``follow``. The worker is another's,
    a window's say, and is left to it at the end.

    Raises:
        RunFolderError: No worker serves the run.
        CommandRefusedError: The run is not one that waits for a start.
        RunFailedError: The worker was lost, or does not answer.

    """
    client = WorkerClient.attach(run_dir)
    try:
        attached = _wait_until_attached(client, run_dir, time.monotonic() + ATTACH_TIMEOUT_S, show)
        _check_waits_for_start(run_dir, attached.state, checkpoint)
        follower = _GuestFollower(client, run_dir, attached.state, tell)
        follower.begin(checkpoint)
        return _watch(client, follower, show)
    finally:
        client.close()


def ask(client: WorkerClient, questions: Sequence[Question], show: Callable[[ClientEvent], None]) -> list[Answer]:
    """Give questions to a new worker, one after the other, show its progress, return the answers, and end the worker.

    A refusal is an answer, too, and the last one: what comes after it is not asked any more.

    Raises:
        RunFailedError: The worker was lost.

    """
    waiting = deque(questions)
    answers: list[Answer] = []
    command_id = None
    timeout_s = 0.0
    try:
        while len(answers) < len(questions):
            event = _next_event(client, _POLL_S)
            if event is None:
                continue
            show(event)
            if isinstance(event, WorkerLost):
                raise RunFailedError(_lost_sentence(event, None))
            is_free = command_id is None and _is_idle(event)
            if isinstance(event, Answer) and event.command_id == command_id:
                answers.append(event)
                is_free = True
                if isinstance(event, CommandRejected):
                    break
            if waiting and is_free:
                command_id = client.send(waiting.popleft())
        timeout_s = SHUT_DOWN_TIMEOUT_S
        return answers
    finally:
        # Without an answer (Ctrl+C in a long scan) there is nothing to wait for.
        end_worker(client, timeout_s)


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
        attached = _wait_until_attached(client, run_dir, deadline, lambda _: None)
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
            event = _next_event(client, _POLL_S)
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


def end_worker(client: WorkerClient, timeout_s: float = SHUT_DOWN_TIMEOUT_S) -> None:
    """End a worker that this process started: ask it to shut down, and kill it if it has not within ``timeout_s``."""
    client.send(ShutDown())
    deadline = time.monotonic() + timeout_s
    while _is_running(client.pid) and time.monotonic() < deadline:
        _next_event(client, _POLL_S)
    if _is_running(client.pid):
        client.kill()
    client.close()


def with_field(reason: str, field: str, owner: str) -> str:
    """Add to a refusal which field of a configuration it is about, where its sentence alone cannot tell."""
    return f"{reason} The field is {field} in {owner}." if field in UNNAMED_FIELDS else reason


def shown_path(path: Path) -> str:
    """Return a path as a user would type it in this folder."""
    try:
        path = path.resolve().relative_to(Path.cwd())
    except ValueError:
        path = path.resolve()
    return shlex.quote(str(path))


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
            self._end(1, _lost_sentence(event, self._run_dir))
        elif isinstance(event, CommandRejected) and event.command_id == self._command_id:
            self._end(2, with_field(event.reason, event.field, "the run's configuration"))
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

    def _end(self, exit_code: int, sentence: str) -> None:
        # A run that finished or failed before the stop took hold has its own ending.
        if self._num_heeded and self._state not in {RunState.FINISHED, RunState.FAILED}:
            exit_code = 128 + self._signal
            sentence = self._interrupted_sentence()
        self.ending = Ending(exit_code, sentence, self._run_dir)

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

    def begin(self, checkpoint: str | None) -> None:
        """Start the run; from a checkpoint, once that is restored."""
        self._command_id = self._client.send(StartRun() if checkpoint is None else RestoreCheckpoint(name=checkpoint))

    def take(self, event: ClientEvent) -> None:
        if isinstance(event, CheckpointRestored) and event.command_id == self._command_id and not self._num_heeded:
            self._command_id = self._client.send(StartRun())
        super().take(event)

    def _can_stop(self) -> bool:
        # Also before the start has taken hold: the stop comes after it.
        return True


def _watch(client: WorkerClient, follower: _Follower, show: Callable[[ClientEvent], None]) -> Ending:
    with _counting_interrupts() as interrupts:
        while follower.ending is None:
            follower.heed(len(interrupts), interrupts[-1] if interrupts else 0)
            event = _next_event(client, _POLL_S)
            if event is not None:
                show(event)
                follower.take(event)
    return follower.ending


def _check_waits_for_start(run_dir: Path, state: RunState, checkpoint: str | None) -> None:
    if is_allowed("StartRun", state) or (checkpoint is not None and state is RunState.FINISHED):
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


def _next_event(client: WorkerClient, timeout_s: float) -> ClientEvent | None:
    try:
        return client.events.get(timeout=timeout_s)
    except queue.Empty:
        return None


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_idle(event: ClientEvent) -> bool:
    return isinstance(event, StateChanged | WorkerAttached) and event.state is RunState.IDLE


def _wait_until_attached(
    client: WorkerClient, run_dir: Path, deadline: float, show: Callable[[ClientEvent], None]
) -> WorkerAttached:
    while time.monotonic() < deadline:
        event = _next_event(client, _POLL_S)
        if isinstance(event, WorkerLost):
            raise RunFailedError(_lost_sentence(event, run_dir))
        if event is not None:
            show(event)
        if isinstance(event, WorkerAttached):
            return event
    raise RunFailedError(
        f"The worker of {run_dir.name} does not answer; nothing was sent. "
        f"Try again, or look with `thaw status {shown_path(run_dir)}`."
    )


def _wait_for_answer(client: WorkerClient, run_dir: Path, command: Command, deadline: float) -> AnyEvent | None:
    command_id = client.send(command)
    while time.monotonic() < deadline:
        event = _next_event(client, _POLL_S)
        if isinstance(event, WorkerLost):
            raise RunFailedError(_lost_sentence(event, run_dir))
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
    CheckpointRestored,
    RunRewound,
)


def _lost_sentence(lost: WorkerLost, run_dir: Path | None) -> str:
    sentence = lost.sentence or "The worker has ended."
    if run_dir is not None:
        path = shown_path(run_dir)
        return f"{sentence} The log is {path}/worker.log; `thaw resume {path}` goes on with the run."
    last_line = lost.log_tail.strip().rpartition("\n")[2]
    return f"{sentence} Its last words: {last_line}" if last_line else sentence
