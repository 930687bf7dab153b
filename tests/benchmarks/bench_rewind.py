"""What the state before a change costs training: resnet18 with AdamW, everything trainable, at 64 px in batches of 32.

Run it with ``python -m tests.benchmarks.bench_rewind``, on a machine with nothing else to do. A copy in memory is made
on the training thread; the writer's thread then takes its time, and the steps beside it are measured too. Medians of
five, all in one process.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import cast

import torch

from tests.benchmarks.bench_monitor import BATCH_SIZE, IMAGE_SIZE, NUM_CLASSES, RandomImages
from trainer.checkpoints import size_of
from trainer.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.feature_batches import ModelBatch
from trainer.loop import Trainer
from trainer.messages.events import RewindsKept
from trainer.models import build_model
from trainer.runs import RunFolder

NUM_RUNS = 5


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    with tempfile.TemporaryDirectory() as scratch:
        in_memory = Bench(Path(scratch), rewind_gb=10.0, rewind_disk_gb=0.0)
        in_files = Bench(Path(scratch), rewind_gb=10.0, rewind_disk_gb=10.0)
        state = f"{in_files.num_bytes / 1e6:.0f} MB a state"
        print(f"{platform.platform()}, {torch.get_num_threads()} threads, resnet18, {state}")
        print(f"a step:                                        {median_ms(in_memory.step):7.1f} ms")
        print(f"a change, its state copied in memory:          {median_ms(in_memory.change):7.1f} ms")
        print(f"a change, and its state handed to the writer:  {median_ms(in_files.change, in_files.settle):7.1f} ms")
        beside, written = in_files.steps_beside_writing()
        print(f"  until that is durable, with the steps beside it: {written:7.1f} ms, of {beside:.1f} ms a step")
        print(f"a plain torch.save of the same state:          {median_ms(in_files.save_plainly):7.1f} ms")
        print(f"  flushed to the disk:                         {median_ms(in_files.save_flushed):7.1f} ms")
        for bench in (in_memory, in_files):
            bench.close()


class Bench:
    """A run of random images that has made some steps, and whose rate is changed."""

    def __init__(self, scratch: Path, *, rewind_gb: float, rewind_disk_gb: float) -> None:
        training = TrainingConfig(
            epochs=10_000, batch_size=BATCH_SIZE, precision="fp32", device="cpu", rewind_gb=rewind_gb,
            rewind_disk_gb=rewind_disk_gb,
        )  # fmt: skip
        config = RunConfig(
            model=ModelConfig(name="resnet18", weights="random", frozen=[]),
            optimizer=OptimizerConfig(name="AdamW"),
            training=training,
        )
        self._events: list[object] = []
        loaded = build_model(config.model, NUM_CLASSES, 0, IMAGE_SIZE, lambda *_: None, lambda: None)
        images = cast(ImageData, RandomImages())
        self._trainer = Trainer(config, loaded, images, torch.device("cpu"), self._events.append)
        self._folder = RunFolder.create(scratch, config)
        self._trainer.begin(self._folder)
        self._trainer.freeze_set.set_mode(training=True)
        self._batch = (torch.rand(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE), torch.randint(NUM_CLASSES, (BATCH_SIZE,)))
        self._rates = cycle((0.001, 0.002))
        self._plain_path = scratch / "plain.pt"
        for _ in range(3):
            self.step()
        self._state = self._trainer.restoring._present_state()
        assert self._state is not None
        self.num_bytes = size_of(self._state)

    def step(self) -> None:
        """Train on a batch."""
        self._trainer.train_step([ModelBatch.of_images(self._trainer.module, *self._batch, self._trainer.device)])

    def change(self) -> None:
        """Change the rate."""
        self._trainer.changes.set_rate(next(self._rates))

    def settle(self) -> None:
        """Wait for the writer."""
        self._trainer._writer.finish()

    def steps_beside_writing(self) -> tuple[float, float]:
        """Return the median time of a step while a state is written, and of the writing, in milliseconds."""
        steps_ms: list[float] = []
        writings_ms: list[float] = []
        for _ in range(NUM_RUNS):
            disk_bytes = self._disk_bytes()
            self.change()
            started = time.perf_counter()
            while self._disk_bytes() == disk_bytes:
                began = time.perf_counter()
                self.step()
                steps_ms.append((time.perf_counter() - began) * 1000)
            writings_ms.append((time.perf_counter() - started) * 1000)
        return statistics.median(steps_ms), statistics.median(writings_ms)

    def save_plainly(self) -> None:
        """Write the state as most scripts do."""
        torch.save(self._state, self._plain_path)

    def save_flushed(self) -> None:
        """Write the state as most scripts do, and wait for the disk."""
        with self._plain_path.open("wb") as file:
            torch.save(self._state, file)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """End the writer and close the folder."""
        self._trainer.close()
        self._folder.close()

    def _disk_bytes(self) -> int:
        return next((event.disk_bytes for event in reversed(self._events) if isinstance(event, RewindsKept)), 0)


def median_ms(do: Callable[[], None], afterwards: Callable[[], None] = lambda: None) -> float:
    """Return the median time of five calls in milliseconds; what is done afterwards is not counted."""
    times_ms: list[float] = []
    for _ in range(NUM_RUNS):
        started = time.perf_counter()
        do()
        times_ms.append((time.perf_counter() - started) * 1000)
        afterwards()
    return statistics.median(times_ms)


if __name__ == "__main__":
    main()
