"""How long examining JPEGs takes, beside decoding them with Pillow alone on the same number of processes.

Run it with ``python -m tests.benchmarks.bench_scan`` (``--num 10000`` for the figure of the issue). Medians of five,
the two taken in turns, each with the start of its processes. The files are in the disk's cache for both. Then the
second examination of the same files, which decodes nothing.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from trainer.data.decoding import MAX_PROCESSES, num_usable_cores
from trainer.data.examination import examine

NUM_RUNS = 5
NUM_DISTINCT = 50
SIZE = (500, 375)
QUALITY = 90
TARGET_RATIO = 1.10


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=2_000, help="number of files")
    num_files = parser.parse_args().num
    num_processes = min(num_usable_cores(), MAX_PROCESSES)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_jpegs(Path(folder), num_files)
        num_bytes = sum(path.stat().st_size for path in paths)
        cache_path = Path(folder) / "facts.db"
        plain_s, first_s, second_s = [], [], []
        for _ in range(NUM_RUNS):
            plain_s.append(time_s(lambda: decode_plainly(paths, num_processes)))
            cache_path.unlink(missing_ok=True)
            first_s.append(time_s(lambda: examine_all(paths, cache_path)))
            second_s.append(time_s(lambda: examine_all(paths, cache_path)))
    plain, first, second = map(statistics.median, (plain_s, first_s, second_s))
    print(f"{platform.platform()}, {num_usable_cores()} cores, {num_processes} processes")
    print(f"Python {platform.python_version()}, Pillow {PIL.__version__}, numpy {np.__version__}")
    print(f"{num_files:,} JPEGs of {SIZE[0]} × {SIZE[1]}, {num_bytes / num_files / 1000:.0f} kB each")
    print(f"decode, Pillow alone    {plain:7.2f} s   {num_files / plain:8.0f} images/s   {spread(plain_s)}")
    print(f"examine, first time     {first:7.2f} s   {num_files / first:8.0f} images/s   {spread(first_s)}")
    print(f"examine, second time    {second:7.2f} s   {num_files / second:8.0f} images/s   {spread(second_s)}")
    print(f"ratio of the first two  {first / plain:7.2f}     (target: at most {TARGET_RATIO:.2f})")


def make_jpegs(folder: Path, num_files: int) -> list[Path]:
    """Write JPEGs of smooth color, shapes and noise; a few distinct ones, each file with a tail of its own."""
    generator = np.random.default_rng(0)
    contents = []
    for _ in range(min(NUM_DISTINCT, num_files)):
        colors = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(colors).resize(SIZE, Image.Resampling.BICUBIC)).astype(np.float32)
        pixels = np.clip(smooth + generator.normal(0, 14, smooth.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
        contents.append(buffer.getvalue())
    paths = []
    for number in range(num_files):
        path = folder / f"{number:06d}.jpg"
        # Bytes behind a JPEG's end are not decoded, but they are hashed.
        path.write_bytes(contents[number % len(contents)] + str(number).encode())
        paths.append(path)
    return paths


def decode_plainly(paths: list[Path], num_processes: int) -> None:
    """Decode every file with Pillow, in a stock pool of processes."""
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        assert sum(pool.map(decode_one, map(os.fspath, paths), chunksize=32)) == len(paths)


def decode_one(path: str) -> bool:
    """Decode one file fully."""
    with Image.open(path) as image:
        image.load()
    return True


def examine_all(paths: list[Path], cache_path: Path) -> None:
    """Examine every file as a scan does."""
    facts = examine(paths, cache_path, lambda *_: None, lambda: None)
    assert not any(found.reason for found in facts)


def time_s(work: Callable[[], None]) -> float:
    """Return how long a piece of work takes, in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(times_s: list[float]) -> str:
    """Return the shortest and the longest of some times as text."""
    return f"({min(times_s):.2f}–{max(times_s):.2f})"


if __name__ == "__main__":
    main()
