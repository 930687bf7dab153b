"""Thaw: a real worker, driven as the window and ``thaw train`` do. ``python -m tests.benchmarks.speed.thaw_loop TURN``.

What is in this process is the client: the worker is its child.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks.speed.stopwatch import (
    ALL_EPOCHS,
    BATCH_SIZE,
    IMAGE_SIZE,
    ONE_VIEW,
    RATE,
    RESIZE_SIZE,
    Layers,
    Stopwatch,
    Turn,
)
from trainer.client import ClientEvent, RunOpened, WorkerClient, WorkerLost
from trainer.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from trainer.messages.commands import PrepareRun
from trainer.messages.events import CommandRejected, MetricsLogged, StateChanged
from trainer.messages.states import RunState

LOSS, VALIDATION_LOSS, ACCURACY = "Loss/train", "Loss/validation", "Accuracy/validation"
CACHE_FIELD = "feature_cache"
VARIANTS: dict[str, dict[str, str]] = {
    "": {},
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "no cache": {CACHE_FIELD: "off"},
    ONE_VIEW: {},
}
FROZEN: dict[Layers, list[str]] = {
    "head": ["backbone"],
    "last": ["conv1", "bn1", "layer1", "layer2", "layer3"],
    "full": [],
}
PATIENCE_S = 600.0
E = TypeVar("E")


def main() -> None:
    """Take a turn."""
    watch = Stopwatch(Turn.read(sys.argv[1]))
    turn = watch.turn
    driver = Driver()
    try:
        if turn.is_first_step:
            tell_first_steps(watch, driver)
        else:
            train(watch, driver)
    finally:
        driver.close()
    watch.write()


def has_cache() -> bool:
    """Tell whether this Thaw can keep the features of what is frozen."""
    return CACHE_FIELD in TrainingConfig.model_fields


def make_config(images: str, layers: Layers, variant: str) -> RunConfig:
    """Return the run that a turn asks for: Thaw's defaults, but for what all contenders share."""
    settings: dict[str, Any] = {
        name: said for name, said in VARIANTS[variant].items() if name != CACHE_FIELD or has_cache()
    }
    return RunConfig(
        name="speed",
        data=DataConfig(
            path=images,
            image_size=IMAGE_SIZE,
            resize_size=RESIZE_SIZE,
            augmentation="none" if variant == ONE_VIEW else "light",
        ),
        model=ModelConfig(name="resnet18", weights="random", frozen=FROZEN[layers]),
        optimizer=OptimizerConfig(name="AdamW", rate=RATE),
        training=TrainingConfig(epochs=ALL_EPOCHS, batch_size=BATCH_SIZE, **settings),
    )


def train(watch: Stopwatch, driver: Driver) -> None:
    """Train until the turn is over."""
    turn = watch.turn
    driver.begin(make_config(turn.images, turn.layers, turn.variant), turn.scratch)
    watch.begin(driver.wait(StateChanged, lambda event: event.state is RunState.RUNNING).time)
    while True:
        event = driver.wait(MetricsLogged)
        if LOSS in event.series:
            watch.end_step(event.time)
        if VALIDATION_LOSS in event.series and not watch.end_epoch(event.series[ACCURACY].values[-1], event.time):
            break
    if len(watch.times.epoch_ends) == ALL_EPOCHS:
        driver.wait(StateChanged, lambda event: event.state is RunState.FINISHED)


def tell_first_steps(watch: Stopwatch, driver: Driver) -> None:
    """Note how long a first step takes: from the process's start on data never seen, again, and with a worker ready.

    Again: from the start of a new worker, on data that were examined before. The window has a worker ready.
    """
    turn = watch.turn
    config = make_config(turn.images, turn.layers, turn.variant)
    for number, is_ready in enumerate((False, False, True)):
        began_at = time.time() if number else turn.started_at
        if number:
            driver.start()
        if is_ready:
            driver.wait(StateChanged, lambda event: event.state is RunState.IDLE)
            began_at = time.time()
        driver.begin(config, turn.scratch)
        driver.wait(MetricsLogged, lambda event: LOSS in event.series)
        watch.times.first_steps_s.append(time.time() - began_at)
        driver.close()


class Driver:
    """A worker, and the events that it sends."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start another worker."""
        self._client = WorkerClient.start()

    def begin(self, config: RunConfig, scratch: str) -> None:
        """Have the worker prepare a run and start it."""
        self._client.send(PrepareRun(config=config, runs_dir=str(Path(scratch) / "runs"), start=True))

    def wait(self, kind: type[E], where: Callable[[E], bool] = lambda _: True) -> E:
        """Return the next event of a kind for which ``where`` holds."""
        while True:
            event: ClientEvent = self._client.events.get(timeout=PATIENCE_S)
            if isinstance(event, kind) and where(event):
                return event
            problem = problem_of(event)
            if problem:
                raise RuntimeError(problem)

    def close(self) -> None:
        """End the worker at once."""
        self._client.kill()
        self._client.close()


def problem_of(event: ClientEvent) -> str:
    """Say what an event tells of a run that will not go on; "" if it goes on."""
    match event:
        case CommandRejected():
            return f"The run was refused: {event.reason}"
        case WorkerLost():
            return f"The worker is gone: {event.sentence}\n{event.log_tail}"
        case RunOpened():
            return "Metrics were left out on the way, so that the times of this turn are not whole."
        case StateChanged(state=RunState.FAILED):
            return f"The run failed: {event.sentence}"
    return ""


if __name__ == "__main__":
    main()
