"""What a worker says of a preparation that came to nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.config import RunConfig
from trainer.messages.base import Event
from trainer.messages.commands import PrepareRun
from trainer.messages.events import CommandRejected, StateChanged
from trainer.messages.states import RunState
from trainer.preparation import PreparationCancelled
from trainer.weights import ModelError
from trainer.worker import Worker

KEPT = "What came of resnet18 is kept: the next download goes on from there."


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (PreparationCancelled(), StateChanged, f"The preparation was stopped. {KEPT}"),
        (ModelError("Cannot download."), CommandRejected, f"Cannot download. {KEPT}"),
    ],
)
def test_the_sentence_says_that_a_download_is_kept(
    error: Exception, kind: type[Event], sentence: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    nobody_comes = SimpleNamespace(accept=threading.Event().wait)
    worker = Worker(nobody_comes, "", b"")  # type: ignore[arg-type]
    worker._server = SimpleNamespace(publish=events.append, num_clients=1)
    worker.state = RunState.IDLE

    def begin(*_: object) -> None:
        error.add_note(KEPT)
        raise error

    worker._preparation = SimpleNamespace(begin=begin)
    worker._handle(PrepareRun(config=RunConfig(), runs_dir=str(tmp_path)), 0)
    assert worker.state is RunState.IDLE
    assert [
        getattr(event, "sentence", "") or getattr(event, "reason", "") for event in events if isinstance(event, kind)
    ][-1] == sentence
