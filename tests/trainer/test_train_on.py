"""A run that is over gets more epochs, and goes on as if it had had them from the start."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from tests.trainer.recorded_runs import record_run
from trainer.checkpoints import CheckpointStore
from trainer.config import OptimizerConfig, RunConfig
from trainer.messages.base import Event
from trainer.messages.changes import TrainingChanged
from trainer.preparation import Preparation, PreparedRun
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder


def with_epochs(config: RunConfig, epochs: int, **changes: object) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs, **changes})})


def open_run(run_dir: Path, num_epochs: int | None) -> PreparedRun:
    here = psutil.Process()
    worker = WorkerAddress("nowhere", b"", here.pid, here.create_time())
    made = Preparation(worker, lambda _: None, lambda *_: None, lambda: None)
    return made.open(run_dir, None, is_to_start=True, num_epochs=num_epochs)


def train_on(run_dir: Path, num_epochs: int) -> tuple[PreparedRun, list[Event], list[float]]:
    """Train to so many epochs. Returns the run, what its opening told, and the rates of its steps."""
    prepared = open_run(run_dir, num_epochs)
    rates: list[float] = []
    try:
        prepared.trainer.fit(lambda: rates.append(prepared.trainer.rates.applied))
    finally:
        prepared.trainer.close()
        prepared.log.close()
        prepared.folder.remove_worker(prepared.folder.worker() or WorkerAddress("", b"", 0, 0))
    # Before the first update, none was applied.
    return prepared, prepared.events, rates[1:]


def last_weights(run_dir: Path) -> dict[str, torch.Tensor]:
    with RunFolder(run_dir, read_only=True) as folder:
        content = CheckpointStore(folder, read_only=True).load(folder.checkpoints.find("last"))
    return content["model_state_dict"]


def test_a_run_that_trains_on_ends_as_the_run_that_had_the_epochs_from_the_start(
    small_config: RunConfig, tmp_path: Path
) -> None:
    whole = record_run(with_epochs(small_config, 2), tmp_path / "whole")
    run_dir = record_run(with_epochs(small_config, 1), tmp_path / "extended")
    prepared, events, _ = train_on(run_dir, 2)
    assert prepared.info.present.epochs == 2
    (changed,) = (event for event in events if isinstance(event, TrainingChanged))
    assert (changed.epochs, changed.before_epochs, changed.applied_step) == (2, 1, 4)
    prepared.folder.close()
    ours, theirs = last_weights(run_dir), last_weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_schedule_spans_the_new_length(small_config: RunConfig, tmp_path: Path) -> None:
    cosine = with_epochs(small_config, 1).model_copy(update={"optimizer": OptimizerConfig(schedule="cosine")})
    run_dir = record_run(cosine, tmp_path / "runs")
    prepared, _, rates = train_on(run_dir, 3)
    prepared.folder.close()
    # At its end the rate was nearly 0; a third of the way along a cosine it is three quarters of the largest.
    assert max(rates) == pytest.approx(0.75 * cosine.optimizer.rate, rel=1e-6)


def test_a_run_that_its_patience_ended_has_its_patience_anew(small_config: RunConfig, tmp_path: Path) -> None:
    config = with_epochs(small_config, 9, patience=1, min_change=1000, restore_best=False)
    run_dir = record_run(config, tmp_path / "runs")
    with RunFolder(run_dir) as folder:
        assert folder.checkpoints.find("last").epoch == 2
    prepared = open_run(run_dir, 4)
    try:
        assert (prepared.trainer.epoch, prepared.trainer.num_epochs) == (2, 4)
    finally:
        prepared.trainer.close()
        prepared.log.close()
        prepared.folder.close()


def test_a_length_that_is_behind_the_run_is_refused_and_leaves_it_as_it_was(
    small_config: RunConfig, tmp_path: Path
) -> None:
    run_dir = record_run(with_epochs(small_config, 1), tmp_path / "runs")
    with pytest.raises(ValueError, match=r"has 1 epochs behind it, and 1 in all: there is nothing to resume"):
        open_run(run_dir, 1)
    with RunFolder(run_dir, read_only=True) as folder:
        assert folder.worker() is None
        assert folder.num_epochs() == 1
