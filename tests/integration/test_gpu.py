"""The same promises on a GPU, where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.integration.conftest import Driver
from trainer.checkpoints import copy_to_cpu
from trainer.compute import native_precisions
from trainer.config import RunConfig
from trainer.data.transforms import Preprocessing, validation_transform
from trainer.messages.changes import CheckpointRestored, LayersFrozen
from trainer.messages.commands import FreezeLayers, RestoreCheckpoint, SaveCheckpoint, StopRun
from trainer.messages.events import CheckpointSaved, FreezeVerified, MetricsLogged, RunPrepared
from trainer.messages.states import RunState

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_copy_off_the_gpu_is_of_its_moment_however_soon_the_next_step_comes() -> None:
    state = {"weights": [torch.full((4096, 4096), float(number), device="cuda") for number in range(8)], "step": 3}
    copies = []
    for _ in range(3):
        copies.append(copy_to_cpu(state, is_fast=True))
        for tensor in state["weights"]:
            tensor += 1
    for turn, copy in enumerate(copies):
        assert copy["step"] == 3
        for number, tensor in enumerate(copy["weights"]):
            assert tensor.device.type == "cpu"
            assert torch.equal(tensor, torch.full_like(tensor, float(number + turn)))


def test_images_for_a_gpu_are_the_same_in_memory_from_which_they_are_copied_meanwhile() -> None:
    transform = validation_transform(Preprocessing(32, 32))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    pinned = transform.normalize(images, is_for_gpu=True)
    assert pinned.is_pinned()
    assert torch.equal(pinned, transform.normalize(images))


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_run_on_a_gpu_freezes_saves_and_restores_without_drift(
    start_worker: Callable[[], Driver], small_config: RunConfig, tmp_path: Path, precision: str
) -> None:
    training = small_config.training.model_copy(update={"device": "auto", "precision": precision, "epochs": 500})
    model = small_config.model.model_copy(update={"frozen": []})
    driver = start_worker()
    run_dir = driver.prepare(small_config.model_copy(update={"training": training, "model": model}), tmp_path / "runs")
    run = driver.wait(RunPrepared).run
    assert run.device == "cuda:0"
    tried = {each.form.precision for each in run.computed_in.measured}
    assert tried == (set(native_precisions(torch.device("cuda"))) if precision == "auto" else set())
    assert run.precision in (tried or {"fp32"})
    driver.wait(MetricsLogged)
    driver.ask(FreezeLayers(layers=["stage2"]), LayersFrozen)
    first = driver.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(first, CheckpointSaved)
    driver.wait(CheckpointSaved, lambda event: event.checkpoint.step > first.checkpoint.step + 8)
    second = driver.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(second, CheckpointSaved)
    a, b = (
        torch.load(run_dir / "checkpoints" / event.checkpoint.name, weights_only=True)["model_state_dict"]
        for event in (first, second)
    )
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith("stage2"))
    assert not torch.equal(a["conv1.0.weight"], b["conv1.0.weight"])
    # A laptop without a GPU loads it, optimizer and all, without being told where to.
    script = "import sys, torch; torch.load(sys.argv[1], weights_only=True)"
    path = run_dir / "checkpoints" / first.checkpoint.name
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, env=environment)
    restored = driver.ask(RestoreCheckpoint(name=first.checkpoint.name), CheckpointRestored)
    assert isinstance(restored, CheckpointRestored)
    driver.wait(MetricsLogged, lambda event: event.segment == 1)
    driver.send(StopRun())
    driver.wait_state(RunState.STOPPED)
    assert all(event.drifted == [] for event in driver.seen if isinstance(event, FreezeVerified))
