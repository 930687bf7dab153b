"""What every talk of a shell with a worker needs: its next event, its end, and the errors that the user reads."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from app.figures import shown_path
from trainer.client import ClientEvent, WorkerClient, WorkerLost
from trainer.messages.commands import ShutDown
from trainer.messages.events import WorkerAttached

UNNAMED_FIELDS = frozenset(
    {
        "data.layout",
        "data.path_column",
        "data.label_column",
        "data.label_separator",
        "data.split_column",
        "data.group_column",
    }
)
"""Fields about which the worker's sentences speak without their names: the form shows these beside the field."""

SHUT_DOWN_TIMEOUT_S = 30.0
_POLL_S = 0.1


class CommandRefusedError(ValueError):
    """The worker refused a command; the text is its reason, for the user, and ``sentences`` has it by config field."""

    def __init__(self, message: str, sentences: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.sentences = dict(sentences or {})


class RunFailedError(Exception):
    """The run or its worker failed; the text says how, for the user."""


def next_event(client: WorkerClient) -> ClientEvent | None:
    """Return what a worker says next, None if it says nothing for a moment."""
    try:
        return client.events.get(timeout=_POLL_S)
    except queue.Empty:
        return None


def wait_until_attached(
    client: WorkerClient, run_dir: Path, deadline: float, show: Callable[[ClientEvent], None]
) -> WorkerAttached:
    """Show what a run's worker says until it has said in which state it is, and return that.

    Raises:
        RunFailedError: The worker was lost, or does not answer.

    """
    while time.monotonic() < deadline:
        event = next_event(client)
        if isinstance(event, WorkerLost):
            raise RunFailedError(lost_sentence(event, run_dir))
        if event is not None:
            show(event)
        if isinstance(event, WorkerAttached):
            return event
    raise RunFailedError(
        f"The worker of {run_dir.name} does not answer; nothing was sent. "
        f"Try again, or look with `thaw status {shown_path(run_dir)}`."
    )


def end_worker(client: WorkerClient, timeout_s: float = SHUT_DOWN_TIMEOUT_S) -> None:
    """End a worker that this process started: ask it to shut down, and kill it if it has not within ``timeout_s``."""
    client.send(ShutDown())
    deadline = time.monotonic() + timeout_s
    while _is_running(client.pid) and time.monotonic() < deadline:
        next_event(client)
    if _is_running(client.pid):
        client.kill()
    client.close()


def with_fields(sentences: Mapping[str, str], owner: str) -> str:
    """Return a refusal, a line for each field of a configuration; named where its sentence alone cannot tell."""
    return "\n".join(
        f"{sentence} The field is {field} in {owner}." if field in UNNAMED_FIELDS else sentence
        for field, sentence in sentences.items()
    )


def lost_sentence(lost: WorkerLost, run_dir: Path | None) -> str:
    """Say that a worker ended, and where more can be read of it; ``run_dir`` is None before there is a run."""
    sentence = lost.sentence or "The worker has ended."
    if run_dir is not None:
        path = shown_path(run_dir)
        return f"{sentence} The log is {path}/worker.log; `thaw resume {path}` goes on with the run."
    last_line = lost.log_tail.strip().rpartition("\n")[2]
    return f"{sentence} Its last words: {last_line}" if last_line else sentence


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
