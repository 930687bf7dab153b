"""What Thaw costs in a step on cached features, of which a plain loop makes thousands a second.

Run it with ``python -m tests.benchmarks.bench_cached``, on a machine with nothing else to do. resnet18 with a frozen
backbone, batches of 32, one thread: only the last layer is computed, from 512 numbers an image. Whole epochs are timed,
without their validation, with all that a run has around its steps; once with a client, run.db and TensorBoard's files
attached, once with events that go nowhere; beside the loop that a person would write on the same features. They take
turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.benchmarks.bench_monitor import monitored
from tests.conftest import make_images
from trainer.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.data.scan import scan
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.models import build_model
from trainer.runs import RunFolder

NUM_CLASSES, NUM_PER_CLASS, BATCH_SIZE = 4, 800, 32
EPOCHS_A_TURN = 5


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15, help="of each loop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = make_images(Path(scratch) / "images", NUM_CLASSES, NUM_PER_CLASS, size=32)
        config = RunConfig(
            name="cached",
            data=DataConfig(path=str(root), image_size=32, augmentation="none"),
            model=ModelConfig(name="resnet18", weights="random"),
            training=TrainingConfig(epochs=10_000, batch_size=BATCH_SIZE, num_threads=1, precision="fp32"),
        )
        with (
            monitored(config) as (folder, publish),
            RunFolder.create(Path(scratch) / "alone", config) as folder_alone,
        ):
            attached = _trainer(config, Path(scratch), publish, folder)
            alone = _trainer(config, Path(scratch), lambda _: None, folder_alone)
            loops = {
                "Thaw, with the monitor attached": lambda: _epochs(attached),
                "Thaw, with events that go nowhere": lambda: _epochs(alone),
                "the plain loop": _plain(attached),
            }
            for loop in loops.values():
                loop()
            times: dict[str, list[float]] = {name: [] for name in loops}
            for _ in range(arguments.turns):
                for name, loop in loops.items():
                    started = time.perf_counter()
                    num_steps = loop()
                    times[name].append((time.perf_counter() - started) / num_steps)
            attached.close()
            alone.close()
    plain = statistics.median(times["the plain loop"])
    print(f"torch {torch.__version__}, {arguments.turns} turns of {EPOCHS_A_TURN} epochs each; medians (quartiles)")
    for name, seconds in times.items():
        low, median, high = (value * 1e6 for value in statistics.quantiles(seconds, n=4))
        ratio = median / 1e6 / plain
        print(
            f"{name + ':':36} {median:7.0f} µs a step ({low:.0f} to {high:.0f}), {1e6 / median:6,.0f} steps a second",
            end="",
        )
        print(f", {ratio:.2f} × the plain loop's time")


def _trainer(config: RunConfig, scratch: Path, emit: Callable[[Event], None], folder: RunFolder) -> Trainer:
    """Return a trainer whose features are all there."""
    scanned = scan(config.data, config.training.seed, scratch / "cache", lambda *_: None, lambda: None)
    loaded = build_model(config.model, NUM_CLASSES, 7, 32, lambda *_: None, lambda: None)
    data = ImageData(config.data, config.training, loaded.preprocessing, scanned)
    trainer = Trainer(config, loaded, data, torch.device("cpu"), emit)
    trainer.begin(folder)
    trainer.features.follow()
    _epoch(trainer)
    return trainer


def _epochs(trainer: Trainer) -> int:
    return sum(_epoch(trainer) for _ in range(EPOCHS_A_TURN))


def _epoch(trainer: Trainer) -> int:
    before = trainer.step
    trainer._train_epoch(lambda: None)
    trainer.epoch, trainer.batch = trainer.epoch + 1, 0
    return trainer.step - before


def _plain(trainer: Trainer) -> Callable[[], int]:
    """Return some epochs of the loop that a person would write, on the features that the trainer has."""
    taken = [(batch.inputs()[0], batch.target) for batch in trainer.features.train_batches(0)]
    features, targets = (torch.cat(each) for each in zip(*taken, strict=True))
    head = nn.Linear(features.shape[1], NUM_CLASSES)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)

    def step(x: Tensor, y: Tensor) -> None:
        loss = cross_entropy(head(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def epochs() -> int:
        num_steps = 0
        for _ in range(EPOCHS_A_TURN):
            for batch in torch.randperm(len(features)).split(BATCH_SIZE):
                step(features[batch], targets[batch])
                num_steps += 1
        return num_steps

    return epochs


if __name__ == "__main__":
    main()
