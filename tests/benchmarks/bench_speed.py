"""Thaw beside plain PyTorch, Lightning and fastai, and beside itself: one command, one table.

    python -m tests.benchmarks.bench_speed [--quick] [--rows head,last,full,start,memory,monitor,growth,ceilings]

On a machine with nothing else to do. The peers are in the extra "bench"; one that is not installed is said to be so.
All train resnet18 with random weights on the same JPEGs at 160 px, in batches of 32, with Thaw's default augmentation
and validation after each epoch. Each turn of a contender is a process of its own, and the contenders take turns. What
is printed are medians with their quartiles. docs/performance.md has what was measured, and what it means.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tests.benchmarks.speed import ceilings, growth, monitor, starting, training
from tests.benchmarks.speed.images import SIDES, make_images
from tests.benchmarks.speed.stopwatch import BATCH_SIZE, IMAGE_SIZE
from tests.benchmarks.speed.table import Table, load, machine
from tests.benchmarks.speed.turns import CONTENDERS, Length

ROWS = ("head", "last", "full", "start", "memory", "monitor", "growth", "ceilings")
COLUMNS = [each.column for each in CONTENDERS]
OTHER_COLUMNS = ["monitor off", "bare Qt", "small", "large", "machine"]
NUM_FEW = 320
SIZES = {"epochs": [10, 100], "layers": [50, 1000], "images": [1000, 1_000_000], "checkpoints": [10, 10_000]}
QUICK_SIZES = {"epochs": [2, 8], "layers": [50, 200], "images": [1000, 10_000], "checkpoints": [10, 200]}


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = parse(arguments)
    is_quick: bool = options.quick
    started = time.monotonic()
    table = Table([*COLUMNS, *OTHER_COLUMNS])
    where, load_before = machine(), load()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        images = make_images(options.images or scratch / "images", options.num_images)
        length = Length(images, scratch, options.turns, options.epochs, 5.0 if is_quick else 150.0)
        num_windows = 1 if is_quick else starting.NUM_WINDOWS
        measurements: dict[str, Callable[[], None]] = {
            "head": lambda: training.measure(table, "head", length),
            "last": lambda: training.measure(table, "last", length),
            "full": lambda: training.measure(table, "full", length),
            "start": lambda: starting.measure(table, length, num_windows),
            "memory": lambda: starting.measure_memory(table, few_images(length), num_windows),
            "monitor": lambda: monitor.measure(table, 2 if is_quick else monitor.NUM_TURNS),
            "growth": lambda: growth.measure(table, scratch, QUICK_SIZES if is_quick else SIZES),
            "ceilings": lambda: ceilings.measure(table),
        }
        for row in options.rows:
            print(f"{datetime.datetime.now():%H:%M:%S}  {row}", file=sys.stderr, flush=True)
            measurements[row]()
            # Each part as it is done: an interruption loses no more than the one under way.
            print(table.take(is_markdown=options.markdown), flush=True)
    threads = os.environ.get("OMP_NUM_THREADS")
    table.notes.append(f"{where}; load over 1, 5 and 15 minutes: {load_before} at the start, {load()} at the end")
    table.notes.append(
        f"resnet18 with random weights, {options.num_images:,} JPEGs of {SIDES[0]} × {SIDES[1]} (a fifth validates) at "
        f"{IMAGE_SIZE} px, batches of {BATCH_SIZE}; threads: {threads or 'each one’s default'}; "
        f"Qt on {os.environ['QT_QPA_PLATFORM']}; medians (quartiles, number of values); "
        f"{datetime.date.today()}, {(time.monotonic() - started) / 60:.0f} minutes."
    )
    print(table.take(is_markdown=options.markdown))


def few_images(length: Length) -> Length:
    """Return the same with fewer images: the most memory is held within some steps and a validation."""
    return replace(length, images=make_images(length.scratch / "few images", NUM_FEW))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="which, separated by commas")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which show only that it works")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--turns", type=int, help="of each contender (5)")
    parser.add_argument("--epochs", type=int, default=2, help="in a turn, at least")
    parser.add_argument("--num-images", type=int, help="2,000")
    parser.add_argument("--images", type=Path, help="folder in which the images are made once")
    options = parser.parse_args(arguments)
    options.rows = options.rows.split(",")
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}: choose from {', '.join(ROWS)}")
    if options.epochs < 2:
        parser.error("a turn needs two epochs: the first one and a later one")
    options.turns = options.turns or (1 if options.quick else 5)
    options.num_images = options.num_images or (100 if options.quick else 2_000)
    return options


if __name__ == "__main__":
    main()
