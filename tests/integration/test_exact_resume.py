"""Runs whose workers are killed twice, in the midst of an epoch, end to the bit as one that was never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import make_images
from tests.integration import recording_worker
from tests.integration.conftest import Driver
from trainer.client import WorkerLost
from trainer.config import PlanPhase, RunConfig
from trainer.messages.commands import OpenRun, SaveCheckpoint
from trainer.messages.events import CheckpointSaved, MetricsLogged, RunPrepared
from trainer.messages.states import RunState
from trainer.metrics import LEARNING_RATE, TRAIN_LOSS
from trainer.runs import RunFolder

StartRecording = Callable[[str], Driver]

NUM_EPOCHS = 3
FIRST_CHANGE, SECOND_CHANGE = 5, 58
"""Steps of the plan's changes; an epoch has 21 steps."""
CACHED: dict[str, Any] = {
    "data": {"mixing": "none", "views": 2},
    "training": {"feature_disk_gb": 0.0, "precision": "bf16"},
}
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
    # In memory alone, so that a resumed run computes the features again, in other batches than at first.
    "cached": CACHED,
    # The cut moves back, and then on to where it was.
    "cached_plan": CACHED
    | {
        "plan": [
            PlanPhase(step=FIRST_CHANGE, unfreeze=["features.12"]),
            PlanPhase(step=SECOND_CHANGE, freeze=["features.12"]),
        ]
    },
}


@pytest.fixture
def config(tmp_path: Path, small_config: RunConfig) -> RunConfig:
    data = {"path": str(make_images(tmp_path / "many", num_per_class=36)), "augmentation": "strong", "mixing": "mixup"}
    model = {"name": "mobilenet_v3_small", "head_dropout": 0.2}
    return changed(small_config, {"data": data, "model": model, "training": {"batch_size": 4, "epochs": NUM_EPOCHS}})


@pytest.fixture
def start_recording(
    start_worker: Callable[[], Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StartRecording:
    """Start workers that note the samples of every step, in a file of the name that is given."""
    begin = subprocess.Popen

    def begin_recording(command: list[str], *args: Any, **options: Any) -> subprocess.Popen[bytes]:
        assert command[-2:] == ["-m", "trainer"]
        return begin([*command[:-1], recording_worker.__name__], *args, **options)

    def start(name: str) -> Driver:
        monkeypatch.setenv(recording_worker.VARIABLE, str(tmp_path / f"{name}.samples"))
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", begin_recording)
            return start_worker()

    return start


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
    start_recording: StartRecording, config: RunConfig, tmp_path: Path, kind: str, num_workers: int
) -> None:
    config = changed(changed(config, CHANGES[kind]), {"training": {"num_loader_workers": num_workers}})
    assert_exact(start_recording, config, tmp_path, random.Random(f"{kind} {num_workers}"))


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", CHANGES)
def test_on_a_gpu_a_run_with_deterministic_operators_that_is_killed_ends_as_the_run_that_was_never_killed(
    start_recording: StartRecording, config: RunConfig, tmp_path: Path, kind: str
) -> None:
    config = changed(changed(config, CHANGES[kind]), {"training": {"device": "cuda", "deterministic": True}})
    assert_exact(start_recording, config, tmp_path, random.Random(kind))


def assert_exact(start_recording: StartRecording, config: RunConfig, tmp_path: Path, drawn: random.Random) -> None:
    """Compare weights, optimizer, schedule, generators, metrics, the loss and the images of every step, in order."""
    whole = start_recording("whole")
    whole_dir = whole.prepare(config, tmp_path / "whole")
    steps_per_epoch = whole.wait(RunPrepared).run.steps_per_epoch
    first = start_recording("parts")
    run_dir = first.prepare(config, tmp_path / "parts")
    saved_at = save_and_kill(first, drawn.randrange(2, steps_per_epoch - 4), steps_per_epoch)
    newest = newest_on_disk(run_dir)
    second = start_recording("parts")
    resumed = second.ask(OpenRun(run_dir=str(run_dir)), RunPrepared)
    assert isinstance(resumed, RunPrepared)
    # The end of the epoch, too, may have been on the disk when the kill came.
    assert resumed.step == newest >= saved_at
    saved_again_at = save_and_kill(second, steps_per_epoch + drawn.randrange(2, steps_per_epoch - 4), steps_per_epoch)
    # Between two freezes, where there is a plan.
    assert FIRST_CHANGE < saved_again_at < SECOND_CHANGE
    third = start_recording("parts")
    assert isinstance(third.ask(OpenRun(run_dir=str(run_dir)), RunPrepared), RunPrepared)
    third.wait_state(RunState.FINISHED)
    whole.wait_state(RunState.FINISHED)
    ours, theirs = (read_end(path) for path in (run_dir, whole_dir))
    assert_same(ours, theirs, "")
    in_parts, in_whole = (read_samples(tmp_path / f"{name}.samples") for name in ("parts", "whole"))
    # What was trained on after a checkpoint and before the kill is trained on again, and is the same again.
    assert len(in_parts) > len(in_whole) == len(set(in_whole))
    assert list(dict.fromkeys(in_parts)) == in_whole


def read_samples(path: Path) -> list[str]:
    """Return of each batch that was trained on its place in the run, its images' indexes and their hash."""
    return path.read_text(encoding="utf-8").splitlines()


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


def newest_on_disk(run_dir: Path) -> int:
    """Return the step of the newest checkpoint of a killed run: one that is listed, or was about to be."""
    with RunFolder(run_dir, read_only=True) as folder:
        about_to_be = [
            each for each in folder.checkpoints.half_saved() if (folder.checkpoints_dir / each.name).is_file()
        ]
        return max(info.step for info in (*folder.checkpoints.listed(), *about_to_be))


def last_step(event: MetricsLogged) -> int:
    return event.series[TRAIN_LOSS].steps[-1]


def read_end(run_dir: Path) -> dict[str, Any]:
    """Return all that a run ended with, and all that it measured on its way."""
    with RunFolder(run_dir, read_only=True) as folder:
        saved = folder.checkpoints.listed()
        curves = folder.curves()
    content = torch.load(run_dir / "checkpoints" / saved[-1].name, weights_only=True)
    # The file's own: its name is in its bytes.
    del content["base_sha256"]
    # Numbers that a worker gives in its own way, to tell one change from another.
    content["rewinds"] = len(content["rewinds"])
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
