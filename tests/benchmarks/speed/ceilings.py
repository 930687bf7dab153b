"""The limits of the machine: arithmetic in fp32 and bf16, memory, and decoding. ``python -m …ceilings`` prints them.

Arithmetic is that of torch's own kernels on shapes that suit them; copying is as in STREAM (McCalpin 1995), where each
byte is read once and written once.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from tests.benchmarks.speed.images import QUALITY, SIDES
from tests.benchmarks.speed.stopwatch import IMAGE_SIZE
from tests.benchmarks.speed.table import Line, Table, spread

NUM_RUNS = 7
MATRIX_SIDE = 2048
CONVOLUTION = (32, 128, 40, 3)
"""Images, channels in and out, height and width, side of the kernel: as in the stages of resnet18."""
COPY_BYTES = 256 * 2**20
NUM_DECODED = 200


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at most, each as it was measured several times.

    Attributes:
        gflops: Thousand millions of floating point operations a second, by "matmul fp32", "convolution bf16" and so on.
        copy_gb_s: Thousand millions of bytes a second, read and written.
        decoded_per_s: JPEGs of the benchmark's size a second, by Pillow on all cores.

    """

    gflops: dict[str, list[float]]
    copy_gb_s: list[float]
    decoded_per_s: list[float]

    def best_gflops(self, precision: str) -> float:
        """Return the most operations a second in a precision, in thousand millions: what disturbs lowers it only."""
        return max(max(found) for name, found in self.gflops.items() if name.endswith(precision))


def measure(table: Table, num_runs: int = NUM_RUNS) -> None:
    """Add the limits to the table."""
    ceilings = read(num_runs)
    for name, found in ceilings.gflops.items():
        table.lines.append(Line("limits", name, {"machine": spread(found, "GFLOP/s")}))
    table.lines.append(
        Line("limits", "memory, a copy's bytes read and written", {"machine": spread(ceilings.copy_gb_s, "GB/s")})
    )
    table.lines.append(
        Line(
            "limits",
            f"JPEGs of {SIDES[0]} × {SIDES[1]} decoded",
            {"machine": spread(ceilings.decoded_per_s, "images/s")},
        )
    )


@cache
def read(num_runs: int = NUM_RUNS) -> Ceilings:
    """Measure them in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.speed.ceilings", str(num_runs)]
    return Ceilings(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Print the limits as JSON."""
    import torch

    num_runs = int(sys.argv[1])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gflops = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        side = torch.rand(MATRIX_SIDE, MATRIX_SIDE, device=device).to(dtype)
        gflops[f"matmul {name}"] = _rates(2 * MATRIX_SIDE**3 / 1e9, lambda: side @ side, num_runs)  # noqa: B023 (called at once)
        num_images, channels, height, kernel = CONVOLUTION
        images = torch.rand(num_images, channels, height, height, device=device).to(
            dtype, memory_format=torch.channels_last
        )
        layer = torch.nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False).to(device, dtype)
        layer = layer.to(memory_format=torch.channels_last).requires_grad_(False)
        operations = 2 * num_images * height**2 * channels**2 * kernel**2 / 1e9
        gflops[f"convolution {name}"] = _rates(operations, lambda: layer(images), num_runs)  # noqa: B023
    source = torch.zeros(COPY_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    copied = _rates(2 * COPY_BYTES / 1e9, lambda: target.copy_(source), num_runs)
    print(json.dumps(asdict(Ceilings(gflops, copied, _decoding(num_runs)))))


def _rates(amount: float, work: Callable[[], object], num_runs: int) -> list[float]:
    """Return how much of something is done in a second, several times; a first time is not counted."""
    import torch

    rates = []
    for _ in range(1 + num_runs):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        rates.append(amount / (time.perf_counter() - started))
    return rates[1:]


def _decoding(num_runs: int) -> list[float]:
    """Return how many JPEGs a second Pillow decodes, with a process on each core."""
    num_processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    content = _jpeg()
    rates = []
    with ProcessPoolExecutor(num_processes, get_context("spawn")) as pool:
        for _ in range(1 + num_runs):
            started = time.perf_counter()
            done = sum(pool.map(_decode, [content] * num_processes, [NUM_DECODED] * num_processes))
            rates.append(done / (time.perf_counter() - started))
    return rates[1:]


def _jpeg() -> bytes:
    import numpy as np

    from tests.benchmarks.speed.images import pixels_of

    buffer = io.BytesIO()
    Image.fromarray(pixels_of(0, np.random.default_rng(0))).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _decode(content: bytes, num_times: int) -> int:
    for _ in range(num_times):
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    return num_times


def image_gflop() -> tuple[float, float]:
    """Return the operations of a full training step and of a validation, for each image, in thousand millions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import resnet18

    from tests.benchmarks.speed.images import NUM_CLASSES

    model = resnet18(weights=None, num_classes=NUM_CLASSES)
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    with FlopCounterMode(display=False) as forward:
        logits = model(images)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    forward_flops, backward_flops = (each.get_total_flops() / len(images) / 1e9 for each in (forward, backward))
    return forward_flops + backward_flops, forward_flops


def count_images(root: Path) -> tuple[int, int]:
    """Return the number of training and of validation images."""
    train, validation = (sum(1 for _ in (root / split).glob("*/*.jpg")) for split in ("train", "val"))
    return train, validation


if __name__ == "__main__":
    main()
