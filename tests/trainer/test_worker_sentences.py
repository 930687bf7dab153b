"""What a worker says of a preparation that came to nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.trainer.test_preparation import leave, preparation
from trainer.checkpoints import CheckpointError
from trainer.config import ConfigError, RunConfig
from trainer.config_error import Faults
from trainer.data.images import DataError
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.changes import CheckpointRestored
from trainer.messages.commands import PrepareRun, RestoreCheckpoint
from trainer.messages.events import CommandRejected, LogWritten, StateChanged
from trainer.messages.states import RunState
from trainer.preparation import PreparationCancelled
from trainer.run_record import RunFolderError
from trainer.weights import ModelError
from trainer.worker import Worker

KEPT = "What came of resnet18 is kept: the next download goes on from there."


def make_worker() -> tuple[Worker, list[Event]]:
    """Return a worker that waits for a run, and the list that its events go to."""
    events: list[Event] = []
    nobody_comes = SimpleNamespace(accept=threading.Event().wait)
    worker = Worker(nobody_comes, "", b"")  # type: ignore[arg-type]
    worker._server = SimpleNamespace(publish=events.append, num_clients=1, keep_in=lambda *_: None)
    worker.state = RunState.IDLE
    return worker, events


def events_of(error: Exception, tmp_path: Path) -> list[Event]:
    """Return what a worker says whose preparation ends with an error."""
    worker, events = make_worker()

    def begin(*_: object) -> None:
        raise error

    worker._preparation = SimpleNamespace(begin=begin)
    worker._handle(PrepareRun(config=RunConfig(), runs_dir=str(tmp_path)), 0)
    assert worker.state is RunState.IDLE
    return events


def test_a_refusal_says_what_is_wrong_with_each_field(tmp_path: Path) -> None:
    faults = Faults()
    for error in (
        ModelError("No such model.", "model.name"),
        DataError("No such column.", "data.label_column", ["species"]),
        RunFolderError("Cannot write."),
    ):
        with faults.noting():
            raise error
    with pytest.raises(ConfigError) as caught:
        faults.tell()
    refused = events_of(caught.value, tmp_path)[-1]
    assert isinstance(refused, CommandRejected)
    assert refused.reason == "No such model.\nNo such column.\nCannot write."
    assert refused.field == "model.name"
    assert refused.choices == ["species"]
    said = {"model.name": "No such model.", "data.label_column": "No such column.", "": "Cannot write."}
    assert refused.by_field == said
    # It goes through run.db and the socket.
    assert CommandRejected.model_validate_json(refused.model_dump_json()).by_field == said


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
    error.add_note(KEPT)
    events = events_of(error, tmp_path)
    assert [
        getattr(event, "sentence", "") or getattr(event, "reason", "") for event in events if isinstance(event, kind)
    ][-1] == sentence


def test_what_cannot_be_saved_of_a_run_that_is_prepared_or_restored_is_told_and_refuses_neither(
    small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CheckpointError("Cannot save it: Permission denied.")

    worker, events = make_worker()
    worker._preparation = preparation()
    monkeypatch.setattr("trainer.worker._print_to", lambda _: None)
    monkeypatch.setattr(Trainer, "save_if_due", fail)
    worker._handle(PrepareRun(config=small_config, runs_dir=str(tmp_path), start=False), 0)
    assert worker.state is RunState.READY
    saved = worker._loaded.save(reason="user")
    prepared, events[:] = list(events), []
    worker._handle(RestoreCheckpoint(name=saved.name), 0)
    assert worker._prepared is not None
    leave(worker._prepared, worker._preparation.worker)
    assert [event for event in events if isinstance(event, CheckpointRestored)]
    for told in (prepared, events):
        assert not [event for event in told if isinstance(event, CommandRejected)]
        errors = [event.text for event in told if isinstance(event, LogWritten) and event.level == "error"]
        assert errors == ["Cannot save it: Permission denied."]
