"""A real worker process, driven as a client drives it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from trainer.client import ClientEvent, WorkerClient, WorkerLost
from trainer.config import RunConfig
from trainer.messages.base import Command
from trainer.messages.commands import PrepareRun, ShutDown
from trainer.messages.events import CommandRejected, RunPrepared, StateChanged
from trainer.messages.states import RunState

E = TypeVar("E")
PATIENCE_S = 90.0


class Driver:
    """Sends commands to a worker and waits for events, keeping all that came."""

    def __init__(self, client: WorkerClient) -> None:
        self.client = client
        self.seen: list[ClientEvent] = []

    def send(self, command: Command) -> str:
        return self.client.send(command)

    def wait(self, kind: type[E], where: Callable[[E], bool] = lambda _: True, after: int = 0) -> E:
        """Return the first event of a kind, from the ``after``-th on, for which ``where`` holds."""
        deadline = time.monotonic() + PATIENCE_S
        position = after
        while time.monotonic() < deadline:
            while position < len(self.seen):
                event = self.seen[position]
                position += 1
                if isinstance(event, kind) and where(event):
                    return event
            try:
                event = self.client.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            self.seen.append(event)
            if isinstance(event, WorkerLost) and not (isinstance(kind, type) and issubclass(WorkerLost, kind)):
                pytest.fail(f"the worker is gone: {event.sentence}\n{event.log_tail}")
        pytest.fail(f"no {kind} came; seen: {[type(e).__name__ for e in self.seen]}")

    def ask(self, command: Command, kind: type[E]) -> E | CommandRejected:
        """Send a command and return the event of this kind, or the rejection, that answers it."""
        after = len(self.seen)
        command_id = self.send(command)
        answer = self.wait(
            (kind, CommandRejected),  # type: ignore[arg-type]
            lambda event: event.command_id == command_id,  # type: ignore[attr-defined]
            after,
        )
        return answer

    def wait_state(self, state: RunState, after: int = 0) -> StateChanged:
        return self.wait(StateChanged, lambda event: event.state is state, after)

    def prepare(self, config: RunConfig, runs_dir: Path, *, start: bool = True) -> Path:
        """Prepare a run and return its folder."""
        answer = self.ask(PrepareRun(config=config, runs_dir=str(runs_dir), start=start), RunPrepared)
        assert isinstance(answer, RunPrepared), answer
        return Path(answer.run.run_dir)

    def end(self) -> None:
        self.send(ShutDown())


@pytest.fixture
def start_worker() -> Iterator[Callable[[], Driver]]:
    """Start workers; each is ended with the test."""
    drivers: list[Driver] = []

    def start() -> Driver:
        drivers.append(Driver(WorkerClient.start()))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.client.kill()
        driver.client.close()


@pytest.fixture
def attach() -> Iterator[Callable[[Path], Driver]]:
    """Attach to a run's live worker."""
    drivers: list[Driver] = []

    def start(run_dir: Path) -> Driver:
        drivers.append(Driver(WorkerClient.attach(run_dir)))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.client.close()
