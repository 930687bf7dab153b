"""What saving costs training, and what it takes of the disk.

The stall of the training thread for resnet50 with AdamW, everything trainable, beside a step's time and beside a plain
``torch.save`` of the same dict; and, for a frozen vgg19, a hundred head-only checkpoints with their base beside one
self-contained file. Medians of five, all in one process. Run it with ``python -m tests.benchmarks.bench_saving``, on a
machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from tests.benchmarks.bench_monitor import NUM_CLASSES, RandomImages
from trainer.checkpoints import copy_to_cpu, size_of
from trainer.config import CheckpointsConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.feature_batches import ModelBatch
from trainer.loop import Trainer
from trainer.models import build_model
from trainer.runs import RunFolder

NUM_RUNS = 5


def main() -> None:
    """Print the times and the sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--checkpoints", type=int, default=100, help="of the frozen vgg19")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} threads"
    print(f"{platform.platform()}, {where}, batches of {options.batch_size} at {options.image_size} px")
    with tempfile.TemporaryDirectory() as scratch:
        tell_stall(Path(scratch), device, options.batch_size, options.image_size)
    with tempfile.TemporaryDirectory() as scratch:
        tell_sizes(Path(scratch), options.checkpoints)


def tell_stall(scratch: Path, device: torch.device, batch_size: int, image_size: int) -> None:
    """Print what a save takes of the training thread."""
    bench = Bench(scratch, ModelConfig(name="resnet50", weights="random", frozen=[]), device)
    bench.make_batch(batch_size, image_size)
    for _ in range(3):
        bench.step()
    bench.trainer.save(reason="user")
    print(f"resnet50 with AdamW, {size_of(bench.state()) / 1e6:.0f} MB a checkpoint")
    step_ms = median_ms(bench.step)
    stall_ms = median_ms(lambda: bench.trainer.begin_save(reason="user"), bench.trainer.settle)
    print(f"a step:                              {step_ms:8.1f} ms")
    print(f"the stall of a save:                 {stall_ms:8.1f} ms, {stall_ms / step_ms:.2f} steps (to reach: 1)")
    print(f"until it is durable:                 {median_ms(lambda: bench.trainer.save(reason='user')):8.1f} ms")
    print(f"a plain torch.save of the same dict: {median_ms(lambda: bench.save_plainly(scratch)):8.1f} ms")
    bench.close()


def tell_sizes(scratch: Path, num_checkpoints: int) -> None:
    """Print what head-only checkpoints take of the disk."""
    heads = Bench(scratch, ModelConfig(name="vgg19", weights="random"), torch.device("cpu"))
    whole = Bench(
        scratch,
        ModelConfig(name="vgg19", weights="random"),
        torch.device("cpu"),
        CheckpointsConfig(self_contained=True),
    )
    sizes, own_bytes = heads.train_heads(num_checkpoints)
    one = whole.train_heads(1)[0][0]
    base_bytes = heads.folder.base_path.stat().st_size
    total = base_bytes + sum(sizes)
    print(f"vgg19, frozen: base.pt {base_bytes / 1e6:.1f} MB and {num_checkpoints} heads {sum(sizes) / 1e6:.1f} MB")
    print(f"  one self-contained file: {one / 1e6:.1f} MB; heads' and optimizer's own bytes: {own_bytes / 1e6:.1f} MB")
    print(f"  together {total / 1e6:.1f} MB; 1.05 × one and those own bytes: {(1.05 * one + own_bytes) / 1e6:.1f} MB")
    print(f"  beyond those own bytes: {(total - own_bytes) / one:.4f} of the self-contained file (to reach: 1.05)")
    heads.close()
    whole.close()


class Bench:
    """A run of random images."""

    def __init__(
        self, scratch: Path, model: ModelConfig, device: torch.device, rules: CheckpointsConfig | None = None
    ) -> None:
        config = RunConfig(
            model=model,
            optimizer=OptimizerConfig(name="AdamW"),
            training=TrainingConfig(epochs=10_000, precision="fp32", device=str(device), rewind_gb=0, rewind_disk_gb=0),
            checkpoints=rules or CheckpointsConfig(),
        )
        loaded = build_model(model, NUM_CLASSES, 0, 224, lambda *_: None, lambda: None)
        self.trainer = Trainer(config, loaded, cast(ImageData, RandomImages()), device, lambda _: None)
        self.folder = RunFolder.create(scratch, config)
        self.trainer.begin(self.folder)
        self.trainer.freeze_set.set_mode(training=True)

    def make_batch(self, batch_size: int, image_size: int) -> None:
        """Make the batch of every step."""
        images = torch.rand(batch_size, 3, image_size, image_size, device=self.trainer.device)
        self._batch = (images, torch.randint(NUM_CLASSES, (batch_size,), device=self.trainer.device))

    def step(self) -> None:
        """Train on the batch."""
        self.trainer.train_step([ModelBatch.of_images(self.trainer.module, *self._batch, self.trainer.device)])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {**self.trainer.content(), "model_state_dict": self.trainer.module.state_dict()}

    def save_plainly(self, scratch: Path) -> None:
        """Write the state as most scripts do."""
        torch.save(self.state(), scratch / "plain.pt")

    def train_heads(self, num: int) -> tuple[list[int], int]:
        """Change the head, as a step does, and save, so many times. Returns the sizes and the heads' own bytes."""
        parameters = [parameter for parameter in self.trainer.module.parameters() if parameter.requires_grad]
        sizes, own_bytes = [], 0
        for _ in range(num):
            for parameter in parameters:
                parameter.grad = torch.rand_like(parameter)
            self.trainer.optimizer.step()
            sizes.append(self.trainer.save(reason="user").size_bytes)
            changed = [parameter.detach() for parameter in parameters]
            own_bytes += size_of([copy_to_cpu(self.trainer.optimizer.state_dict()), changed])
        return sizes, own_bytes

    def close(self) -> None:
        """End the writer and close the folder."""
        self.trainer.close()
        self.folder.close()


def median_ms(do: Callable[[], object], afterwards: Callable[[], object] = lambda: None) -> float:
    """Return the median time of five calls in milliseconds; what is done afterwards is not counted."""
    times_ms: list[float] = []
    for _ in range(NUM_RUNS):
        started = time.perf_counter()
        do()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times_ms.append((time.perf_counter() - started) * 1000)
        afterwards()
    return statistics.median(times_ms)


if __name__ == "__main__":
    main()
