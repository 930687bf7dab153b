"""How long checking JPEGs takes, beside decoding them with Pillow alone on the same number of processes.

Run it with ``python -m tests.benchmarks.bench_scan`` (``--num 10000`` for the figure of the issue). Medians of five,
all taken in turns, each with the start of its processes. The files are in the disk's cache for all. "Examination" is
the decoding (to grey, where Pillow alone makes colors) and the hashing; "whole check" is all that ``thaw check`` has
the worker do: listing, examination, duplicates, split, issues and report. There are 2,000 distinct pictures: of 10,000
files, nearly all have near duplicates. Then the second check of the same files, which decodes nothing. A first round of
all, which also loads the modules, is not counted.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# Nothing heavier here: each process of either side imports this module again.
import PIL
from PIL import Image

NUM_RUNS = 5
NUM_DISTINCT = 2_000
SIZE = (500, 375)
QUALITY = 90
NUM_CLASSES = 10
TARGET_RATIO = 1.10

PLAIN = "decode, Pillow alone"
EXAMINATION = "examination, first time"
FIRST_CHECK = "whole check, first time"
SECOND_CHECK = "whole check, second time"


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=2_000, help="number of files")
    num_files = parser.parse_args().num
    from trainer.data.decoding import MAX_PROCESSES, num_usable_cores

    num_processes = min(num_usable_cores(), MAX_PROCESSES)
    with tempfile.TemporaryDirectory() as folder:
        root, cache_dir = Path(folder) / "images", Path(folder) / "cache"
        paths = make_jpegs(root, num_files)
        num_bytes = sum(path.stat().st_size for path in paths)
        times_s: dict[str, list[float]] = {name: [] for name in (PLAIN, EXAMINATION, FIRST_CHECK, SECOND_CHECK)}
        for _ in range(1 + NUM_RUNS):
            times_s[PLAIN].append(time_s(lambda: decode_plainly(paths, num_processes)))
            shutil.rmtree(cache_dir, ignore_errors=True)
            times_s[EXAMINATION].append(time_s(lambda: examine_all(paths, cache_dir / "facts.db")))
            shutil.rmtree(cache_dir)
            times_s[FIRST_CHECK].append(time_s(lambda: check(root, cache_dir, num_files)))
            times_s[SECOND_CHECK].append(time_s(lambda: check(root, cache_dir, num_files)))
    times_s = {name: some[1:] for name, some in times_s.items()}
    medians = {name: statistics.median(some) for name, some in times_s.items()}
    print(f"{platform.platform()}, {num_usable_cores()} cores, {num_processes} processes")
    print(f"Python {platform.python_version()}, Pillow {PIL.__version__}")
    print(f"{num_files:,} JPEGs of {SIZE[0]} × {SIZE[1]}, {num_bytes / num_files / 1000:.0f} kB each")
    for name, median in medians.items():
        print(f"{name:25} {median:7.2f} s   {num_files / median:8.0f} images/s   {spread(times_s[name])}")
    for name in (EXAMINATION, FIRST_CHECK):
        ratio = medians[name] / medians[PLAIN]
        print(f"{name:25} {ratio:7.2f} times the time of Pillow alone (target: at most {TARGET_RATIO:.2f})")


def make_jpegs(folder: Path, num_files: int) -> list[Path]:
    """Write JPEGs of smooth color and noise into class folders; a few distinct ones, each file with its own tail."""
    import numpy as np

    generator = np.random.default_rng(0)
    contents = []
    for _ in range(min(NUM_DISTINCT, num_files)):
        colors = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(colors).resize(SIZE, Image.Resampling.BICUBIC)).astype(np.float32)
        pixels = np.clip(smooth + generator.normal(0, 14, smooth.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
        contents.append(buffer.getvalue())
    for class_idx in range(NUM_CLASSES):
        (folder / f"class_{class_idx}").mkdir(parents=True)
    paths = []
    for number in range(num_files):
        path = folder / f"class_{number % NUM_CLASSES}" / f"{number:06d}.jpg"
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
    """Decode and hash every file as a check does."""
    from trainer.data.examination import examine

    facts = examine(paths, cache_path, lambda *_: None, lambda: None)
    assert not any(found.reason for found in facts)


def check(root: Path, cache_dir: Path, num_files: int) -> None:
    """Check a data set, and leave its report, as the worker does it."""
    from trainer.config import DataConfig
    from trainer.data.scan import scan

    found = scan(DataConfig(path=str(root)), 7, cache_dir, lambda *_: None, lambda: None)
    assert len(found.samples) == num_files
    assert found.report_path.is_file()


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
