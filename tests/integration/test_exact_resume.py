"""Runs whose workers are killed twice, in the midst of an epoch, end to the bit as one that was never killed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import make_images
from tests.integration.conftest import Driver
from trainer.client import WorkerLost
from trainer.config import PlanPhase, RunConfig
from trainer.messages.commands import OpenRun, SaveCheckpoint
from trainer.messages.events import CheckpointSaved, MetricsLogged, RunPrepared
from trainer.messages.states import RunState
from trainer.metrics import LEARNING_RATE, TRAIN_LOSS
from trainer.runs import RunFolder

Start = Callable[[], Driver]

NUM_EPOCHS = 3
FIRST_CHANGE, SECOND_CHANGE = 5, 58
"""Steps of the plan's changes; an epoch has 21 steps."""
# Dropout, augmentation and mixing draw from every generator that there is.
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"training": {"accumulate_batches": 2}},
    "bf16": {"training": {"precision": "bf16"}},
    "one_cycle": {"optimizer": {"schedule": "one_cycle", "rate": 0.01}},
    "plan": {
        "plan": [
            PlanPhase(step=FIRST_CHANGE, unfreeze=["features.12"], rates={"features.12": 0.5}),
            PlanPhase(step=SECOND_CHANGE, freeze=["classifier.0"]),
        ],
        "optimizer": {"name": "SGD"},
    },
}


@pytest.fixture
def config(tmp_path: Path, small_config: RunConfig) -> RunConfig:
    data = {"path": str(make_images(tmp_path / "many", num_per_class=36)), "augmentation": "strong", "mixing": "mixup"}
    model = {"name": "mobilenet_v3_small", "head_dropout": 0.2}
    return changed(small_config, {"data": data, "model": model, "training": {"batch_size": 4, "epochs": NUM_EPOCHS}})


def changed(config: RunConfig, sections: dict[str, Any]) -> RunConfig:
    """Return a configuration with other values in some fields of its sections."""
    return config.model_copy(
        update={
            name: values if name == "plan" else getattr(config, name).model_copy(update=values)
            for name, values in sections.items()
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_run_that_is_killed_twice_in_mid_epoch_ends_as_the_run_that_was_never_killed(
    start_worker: Start, config: RunConfig, tmp_path: Path, kind: str, num_workers: int
) -> None:
    """Weights, optimizer, schedule, generators, metrics and the loss of every step (so the order of its images)."""
    config = changed(changed(config, CHANGES[kind]), {"training": {"num_loader_workers": num_workers}})
    whole = start_worker()
    whole_dir = whole.prepare(config, tmp_path / "whole")
    drawn = random.Random(f"{kind} {num_workers}")
    steps_per_epoch = whole.wait(RunPrepared).run.steps_per_epoch
    first = start_worker()
    run_dir = first.prepare(config, tmp_path / "parts")
    saved_at = save_and_kill(first, drawn.randrange(2, steps_per_epoch - 4), steps_per_epoch)
    second = start_worker()
    resumed = second.ask(OpenRun(run_dir=str(run_dir)), RunPrepared)
    assert isinstance(resumed, RunPrepared)
    assert resumed.step == saved_at
    saved_again_at = save_and_kill(second, steps_per_epoch + drawn.randrange(2, steps_per_epoch - 4), steps_per_epoch)
    # Between two freezes, where there is a plan.
    assert FIRST_CHANGE < saved_again_at < SECOND_CHANGE
    third = start_worker()
    assert isinstance(third.ask(OpenRun(run_dir=str(run_dir)), RunPrepared), RunPrepared)
    third.wait_state(RunState.FINISHED)
    whole.wait_state(RunState.FINISHED)
    ours, theirs = (read_end(path) for path in (run_dir, whole_dir))
    assert_same(ours, theirs, "")


def save_and_kill(driver: Driver, step: int, steps_per_epoch: int) -> int:
    """Save a checkpoint in mid-epoch, at ``step`` or soon after it, and kill the worker some steps later.

    Returns the checkpoint's step.
    """
    driver.wait(MetricsLogged, lambda event: event.series.get(TRAIN_LOSS) is not None and last_step(event) >= step)
    saved = driver.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(saved, CheckpointSaved)
    while saved.checkpoint.step % steps_per_epoch == 0:
        # The end of an epoch is no mid-epoch.
        saved = driver.ask(SaveCheckpoint(), CheckpointSaved)
        assert isinstance(saved, CheckpointSaved)
    driver.wait(MetricsLogged, lambda event: TRAIN_LOSS in event.series and last_step(event) > saved.checkpoint.step)
    os.kill(driver.client.pid, signal.SIGKILL)
    driver.wait(WorkerLost)
    return saved.checkpoint.step


def last_step(event: MetricsLogged) -> int:
    return event.series[TRAIN_LOSS].steps[-1]


def read_end(run_dir: Path) -> dict[str, Any]:
    """Return all that a run ended with, and all that it measured on its way."""
    with RunFolder(run_dir, read_only=True) as folder:
        saved = folder.checkpoints()
        curves = folder.curves()
    content = torch.load(run_dir / "checkpoints" / saved[-1].name, weights_only=True)
    # The file's own: its name is in its bytes.
    del content["base_sha256"]
    content["base"] = torch.load(run_dir / "base.pt", weights_only=True)
    content["epochs"] = [(info.epoch, info.step, info.metrics) for info in saved if info.reason == "epoch"]
    # The rate is logged whenever the metrics are sent, and that goes by the clock.
    content["curves"] = {
        tag: (list(curve.steps), list(curve.values)) for tag, curve in curves.items() if tag != LEARNING_RATE
    }
    return content


def assert_same(ours: Any, theirs: Any, place: str) -> None:
    """Compare to the bit, and name the first place that differs."""
    assert type(ours) is type(theirs), place
    if isinstance(ours, Tensor):
        assert ours.dtype == theirs.dtype, place
        assert torch.equal(ours, theirs), place
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        for key, value in ours.items():
            assert_same(value, theirs[key], f"{place}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), place
        for idx, value in enumerate(ours):
            assert_same(value, theirs[idx], f"{place}/{idx}")
    else:
        assert ours == theirs, place
