"""A disk that is full while a run trains: it pauses with a sentence and goes on by itself when there is room."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch

from tests.trainer.test_loop import Make, make_trainer
from trainer.config import RunConfig
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.commands import StopRun
from trainer.messages.events import StateChanged
from trainer.messages.states import RunState
from trainer.worker import Worker

__all__ = ["make_trainer"]


def working(trainer: Trainer) -> tuple[Worker, list[Event]]:
    """Return a worker that has begun with a run, and what it says."""
    events: list[Event] = []
    nobody_comes = SimpleNamespace(accept=threading.Event().wait)
    worker = Worker(nobody_comes, "", b"")  # type: ignore[arg-type]
    worker._server = SimpleNamespace(publish=events.append, num_clients=1)
    worker._prepared = SimpleNamespace(trainer=trainer, folder=trainer._folder)
    worker.state = RunState.RUNNING
    return worker, events


def fill(patch: pytest.MonkeyPatch, free_bytes: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(torch, "save", fail)
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))


def test_a_run_on_a_full_disk_pauses_and_goes_on_by_itself_when_there_is_room(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(small_config)
    worker, events = working(trainer)
    with pytest.MonkeyPatch.context() as patch:
        fill(patch, 1000)
        worker._fit()
        assert worker.state is RunState.PAUSED
        (paused,) = [event for event in events if isinstance(event, StateChanged)]
        assert "No space left on device" in paused.sentence
        assert "goes on by itself when" in paused.sentence
        worker._go_on_if_there_is_room()
        assert worker.state is RunState.PAUSED
        # A little is not enough.
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=worker._needed_bytes - 1))
        worker._go_on_if_there_is_room()
        assert worker.state is RunState.PAUSED
    worker._go_on_if_there_is_room()
    assert worker.state is RunState.RUNNING
    worker._fit()
    assert worker.state is RunState.FINISHED
    assert [info.step for info in trainer._folder.checkpoints.listed()] == [4, 8, 12]


def test_a_failure_for_another_reason_than_room_waits_for_the_user(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    worker, events = working(trainer)
    with pytest.MonkeyPatch.context() as patch:
        # A quota, say.
        fill(patch, 10**12)
        worker._fit()
    assert worker.state is RunState.PAUSED
    (paused,) = [event for event in events if isinstance(event, StateChanged)]
    assert "by itself" not in paused.sentence
    worker._go_on_if_there_is_room()
    assert worker.state is RunState.PAUSED


def test_a_run_that_waits_for_room_can_be_stopped_without_saving_and_stays_stopped(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(small_config)
    worker, _ = working(trainer)
    with pytest.MonkeyPatch.context() as patch:
        fill(patch, 1000)
        worker._fit()
        worker._handle(StopRun(save=True), 0)
        assert worker.state is RunState.PAUSED
        worker._handle(StopRun(save=False), 0)
        assert worker.state is RunState.STOPPED
    worker._go_on_if_there_is_room()
    assert worker.state is RunState.STOPPED
