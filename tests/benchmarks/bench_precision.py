"""What the precision of the forward pass does to the accuracy: fp32 against bf16 with channels last, equal epochs.

Run it with ``python -m tests.benchmarks.bench_precision``. The demo (digits, pretrained, its own plan), and 8,000
generated images of ten classes with a network trained from nothing: both for three seeds, each seed once in either form
with the same split, order and augmentation. It needs no quiet machine: no time is taken.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, ImageDraw
from torchvision import __version__ as torchvision_version

from tests.benchmarks.demo_story import DEMO, with_seed
from trainer.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig, load_config
from trainer.messages.base import Event
from trainer.metrics import VALIDATION_ACCURACY
from trainer.preparation import Preparation
from trainer.run_record import WorkerAddress

NUM_IMAGES = 8000
NUM_EPOCHS = 12
IMAGE_SIZE = 32
SHAPES = ("circle", "square", "triangle", "cross", "ring")
FORMS = {"fp32": ("fp32", "off"), "bf16": ("bf16", "on")}


def main() -> None:
    """Train all runs and print what they reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=["demo", "generated"], help="one of the two data sets")
    options = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    print(f"{machine}, {options.threads} threads, torch {torch.__version__}, torchvision {torchvision_version}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in configs(options.only, Path(scratch)):
            compare(name, config, options.seeds, options.threads, Path(scratch))


def configs(only: str | None, scratch: Path) -> Iterator[tuple[str, RunConfig]]:
    """Yield the runs, by name."""
    if only != "generated":
        yield "demo", load_config(DEMO)
    if only == "demo":
        return
    images = generate(scratch / "shapes")
    yield (
        f"{NUM_IMAGES:,} generated images, {NUM_EPOCHS} epochs",
        RunConfig(
            data=DataConfig(path=str(images), image_size=IMAGE_SIZE, augmentation="light"),
            model=ModelConfig(name="resnet18", weights="random", frozen=[]),
            optimizer=OptimizerConfig(rate=2e-3, schedule="one_cycle"),
            training=TrainingConfig(epochs=NUM_EPOCHS, batch_size=64),
        ),
    )


def compare(name: str, config: RunConfig, num_seeds: int, num_threads: int, scratch: Path) -> None:
    """Train each seed in both forms, and print the accuracies and how they differ."""
    reached: dict[str, list[float]] = {form: [] for form in FORMS}
    for seed in range(num_seeds):
        for form, (precision, layout) in FORMS.items():
            training = with_seed(config, seed).training.model_copy(
                update={
                    "precision": precision,
                    "channels_last": layout,
                    "num_threads": num_threads,
                    "num_loader_workers": 0,
                    "device": "cpu",
                }
            )
            started = time.perf_counter()
            accuracy = train(config.model_copy(update={"training": training}), scratch / "runs")
            reached[form].append(100 * accuracy)
            print(f"  seed {seed}, {form}: {100 * accuracy:.2f} % ({time.perf_counter() - started:.0f} s)", flush=True)
    fp32, bf16 = reached["fp32"], reached["bf16"]
    differences = ", ".join(f"{b - a:+.2f}" for a, b in zip(fp32, bf16, strict=True))
    means = statistics.mean(fp32), statistics.mean(bf16)
    print(
        f"{name}: fp32 {means[0]:.2f} %, bf16 {means[1]:.2f} %, difference {means[1] - means[0]:+.2f} points "
        f"(by seed {differences}); fp32 alone differs by {max(fp32) - min(fp32):.2f} from seed to seed",
        flush=True,
    )


def train(config: RunConfig, runs_dir: Path) -> float:
    """Train a run to its end. Returns the accuracy of its last validation."""
    told: list[Event] = []
    process = psutil.Process()
    address = WorkerAddress("", b"", process.pid, process.create_time())
    prepared = Preparation(address, told.append, lambda *_: None, lambda: None).begin(config, runs_dir)
    try:
        prepared.trainer.fit(lambda: None)
        return prepared.folder.checkpoints.listed()[-1].metrics[VALIDATION_ACCURACY]
    finally:
        prepared.trainer.close()
        prepared.log.close()
        prepared.folder.remove_worker(address)
        prepared.folder.close()


def generate(root: Path) -> Path:
    """Draw a shape on each image, filled or not: ten classes, wherever it is, whatever its size and colours."""
    random = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        shape, is_filled = SHAPES[number % len(SHAPES)], bool(number // len(SHAPES) % 2)
        folder = root / f"{shape}_{'filled' if is_filled else 'outlined'}"
        folder.mkdir(parents=True, exist_ok=True)
        draw_image(random, shape, is_filled=is_filled).save(folder / f"{number:05d}.png", compress_level=1)
    return root


def draw_image(random: np.random.Generator, shape: str, *, is_filled: bool) -> Image.Image:
    """Draw one image, with a line across and noise all over."""
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    draw.line(random.integers(0, IMAGE_SIZE, 4).tolist(), fill=tuple(random.integers(0, 256, 3).tolist()))
    radius = int(random.integers(5, 11))
    x, y = random.integers(radius, IMAGE_SIZE - radius, 2).tolist()
    color = tuple(random.integers(0, 256, 3).tolist())
    fill = color if is_filled else None
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=fill, outline=color, width=2)
    elif shape == "square":
        draw.rectangle(box, fill=fill, outline=color, width=2)
    elif shape == "triangle":
        corners = [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
        draw.polygon(corners, fill=fill, outline=color, width=2)
    elif shape == "cross":
        wide = max(1, radius // 3)
        draw.rectangle((x - radius, y - wide, x + radius, y + wide), fill=fill, outline=color, width=2)
        draw.rectangle((x - wide, y - radius, x + wide, y + radius), fill=fill, outline=color, width=2)
    else:
        inner = radius // 2
        draw.ellipse(box, fill=fill, outline=color, width=2)
        draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=(0, 0, 0), outline=color, width=2)
    noise = random.normal(0, 10, (IMAGE_SIZE, IMAGE_SIZE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
