"""Runs that are trained here and now and kept in a folder as the worker keeps them, and changed at chosen steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from tests.conftest import make_images
from trainer.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.events import LayerStatsReported, MetricsLogged, PreparationProgressed, RunPrepared
from trainer.preparation import Preparation
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder

Steering = Mapping[int, Callable[[Trainer], Event | list[Event] | object]]
"""What is done once at the boundary after so many updates; events that come of it are kept."""


def record_small_run(folder: Path) -> Path:
    """Train one epoch of a small model on images made here, all in a folder. Returns the run's folder."""
    config = RunConfig(
        name="small",
        data=DataConfig(path=str(make_images(folder / "images")), image_size=32, validation_fraction=0.25),
        model=ModelConfig(name="shufflenet_v2_x0_5", weights="random"),
        training=TrainingConfig(epochs=1, batch_size=8, device="cpu", num_threads=1),
    )
    return record_run(config, folder / "runs")


def record_run(config: RunConfig, runs_dir: Path, steering: Steering | None = None) -> Path:
    """Train a run to its end. Returns its folder."""
    folder: RunFolder | None = None

    def keep(event: Event) -> None:
        assert folder is not None
        event = event.model_copy(update={"time": time.time()})
        if isinstance(event, MetricsLogged):
            folder.add_metrics(event.segment, event.series)
        elif not isinstance(event, LayerStatsReported | PreparationProgressed):
            folder.add_event(event)

    process = psutil.Process()
    address = WorkerAddress("", b"", process.pid, process.create_time())
    prepared = Preparation(address, keep, lambda *_: None, lambda: None).begin(config, runs_dir)
    folder, trainer = prepared.folder, prepared.trainer
    keep(RunPrepared(run=prepared.info, step=0, epoch=0, segment=trainer.segment))
    to_come = dict(steering or {})

    def between_steps() -> None:
        act = to_come.pop(trainer.step, None)
        done = act(trainer) if act is not None else None
        for event in done if isinstance(done, list) else [done]:
            if isinstance(event, Event):
                keep(event)

    try:
        trainer.fit(between_steps)
        trainer.report(force=True)
    finally:
        trainer.close()
        prepared.log.close()
        folder.remove_worker(address)
        folder.close()
    assert not to_come, f"the run has no step {min(to_come)}"
    return folder.path
