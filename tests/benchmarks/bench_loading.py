"""How many images a second are loaded, against torchvision's ImageFolder and DataLoader with the stock transforms.

Run it with ``python -m tests.benchmarks.bench_loading [NUM_IMAGES]``. Both sides give batches of 32 normalized float32
images of 224 px, from random crops that are resized; ours keeps what it has decoded ("light"), theirs also flips, which
takes a hundredth of the time. Each side has a process of its own, ours with a worker's environment. The processes that
load are started before the clock is. Rounds of both sides take turns; medians of five.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from trainer.config import DataConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.data.scan import ScannedData
from trainer.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from trainer.memory import KEEP_FREED_MEMORY
from trainer.messages.data_info import DataSummary

NUM_IMAGES = 2000
NUM_ROUNDS = 5
SIDES = (500, 375)
IMAGE_SIZE, RESIZE_SIZE = 224, 256
BATCH_SIZE = 32
NUM_CLASSES = 2
JPEG_QUALITY = 88


def main() -> None:
    """Print the rates."""
    num_images = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_IMAGES
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        samples = write_images(root, num_images)
        size_kb = statistics.mean(Path(path).stat().st_size for path, _ in samples) / 1e3
        print(f"{num_images} JPEG images of {SIDES[0]}x{SIDES[1]} px, {size_kb:.0f} kB each, to {IMAGE_SIZE} px")
        for num_workers in (0, 2):
            compare(root, samples, num_workers)


def compare(root: Path, samples: list[tuple[str, tuple[int, ...]]], num_workers: int) -> None:
    """Print the rates with a number of loader processes."""
    rates: dict[str, list[float]] = {"stock": [], "first": [], "second": []}
    with side({}) as stock, side(KEEP_FREED_MEMORY) as ours:
        for _ in range(NUM_ROUNDS):
            first, second = ours.submit(our_rates, root, samples, num_workers).result()
            rates["first"].append(first)
            rates["second"].append(second)
            rates["stock"].append(stock.submit(stock_rate, root, num_workers).result())
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{num_workers} loader processes")
    print(f"  stock                       {median['stock']:7.0f} images/s")
    for name in ("first", "second"):
        print(f"  Thaw, {name + ' epoch':21} {median[name]:7.0f} images/s   ({median[name] / median['stock']:.1f} x)")


@contextlib.contextmanager
def side(environment: dict[str, str]) -> Iterator[ProcessPoolExecutor]:
    """Yield a process that is started with this beside our environment."""
    # As in loader processes: threads that wait for each other make both sides slower on a busy machine.
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,)) as process:
        os.environ.update(environment)
        process.submit(os.getpid).result()
        for name in environment:
            del os.environ[name]
        yield process


def our_rates(root: Path, samples: list[tuple[str, tuple[int, ...]]], num_workers: int) -> tuple[float, float]:
    """Return the rates of our first and our second epoch."""
    with tempfile.TemporaryDirectory() as store_dir:
        data = our_data(root, samples, num_workers, Path(store_dir))
        # Starts the processes, as the stock loader's are when its epoch begins, and decodes one batch.
        next(data.train_batches(0, data.batches_per_epoch - 1))
        first, second = (images_per_s(data.train_batches(epoch)) for epoch in (0, 1))
        data.close()
    return first, second


_stock_loaders: dict[int, DataLoader[tuple[torch.Tensor, torch.Tensor]]] = {}


def stock_rate(root: Path, num_workers: int) -> float:
    """Return the rate of a later epoch of torchvision's side, which decodes in every one."""
    if num_workers not in _stock_loaders:
        _stock_loaders[num_workers] = stock_loader(root, num_workers)
    return images_per_s(_stock_loaders[num_workers])


def our_data(root: Path, samples: list[tuple[str, tuple[int, ...]]], num_workers: int, store_dir: Path) -> ImageData:
    """Return our side: everything trains, and everything is kept."""
    num_images = len(samples)
    scanned = ScannedData(
        root=root,
        class_names=[str(class_idx) for class_idx in range(NUM_CLASSES)],
        samples=samples,
        splits=["train"] * num_images,
        sides=[SIDES] * num_images,
        skipped=[],
        summary=DataSummary.model_construct(),
    )
    data = ImageData(
        DataConfig(path=str(root), augmentation="light"),
        TrainingConfig(batch_size=BATCH_SIZE, num_loader_workers=num_workers),
        Preprocessing(IMAGE_SIZE, RESIZE_SIZE),
        scanned,
        store_dir,
    )
    assert data.num_kept == num_images
    return data


def stock_loader(root: Path, num_workers: int) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return torchvision's side: the transforms of its own references."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(IMAGE_SIZE),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(root), transform),
        BATCH_SIZE,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    next(iter(loader))
    return loader


def images_per_s(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Load an epoch."""
    started = time.perf_counter()
    num_images = sum(len(x) for x, _ in batches)
    return num_images / (time.perf_counter() - started)


def write_images(root: Path, num_images: int) -> list[tuple[str, tuple[int, ...]]]:
    """Write images with the size and the amount of detail of photographs. Returns (path, class indexes) of each."""
    generator = np.random.default_rng(0)
    width, height = SIDES
    samples = []
    for number in range(num_images):
        path = root / str(number % NUM_CLASSES) / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(SIDES, Image.Resampling.BICUBIC)).astype(np.float32)
        grain = generator.normal(0, 8, (height, width, 1)).astype(np.float32)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=JPEG_QUALITY)
        samples.append((str(path), (number % NUM_CLASSES,)))
    return samples


if __name__ == "__main__":
    main()
