"""The rows of growth: what a step, a table or a list costs as a run, a model or a data set grows."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.speed.table import Line, Table, spread, times

LINEAR = "≤ 1 × (linear)"
FLAT = "≈ 1 ×"
_KINDS = ("epochs", "layers", "images", "checkpoints")
NUM_RUNS = 5
NUM_CLASSES = 10
_FEW_IMAGES = 4
"""In a batch of the many-layered models, whose own arithmetic would hide the monitor's otherwise."""


def measure(table: Table, scratch: Path, sizes: dict[str, list[int]]) -> None:
    """Add the lines to the table: each kind of growth is measured in a process of its own."""
    for kind in _KINDS:
        print(f"  growth: {kind}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "tests.benchmarks.speed.growth", kind, json.dumps(sizes[kind])]
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"growth of {kind} failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
        for each in json.loads(done.stdout.splitlines()[-1]):
            table.lines.append(Line("growth", **each))


def main() -> None:
    """Measure one kind of growth, and print its lines as JSON."""
    kind, sizes, scratch = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
    measurements: dict[str, Callable[[Sequence[int], Path], list[dict[str, Any]]]] = {
        "epochs": of_epochs,
        "layers": of_layers,
        "images": of_images,
        "checkpoints": of_checkpoints,
    }
    print(json.dumps(measurements[kind](sizes, scratch)))


# -- epochs ---------------------------------------------------------------------------------------------------


def of_epochs(sizes: Sequence[int], scratch: Path) -> list[dict[str, Any]]:
    """Return what a step and an epoch cost in the first and in the last epochs of a run of a tiny model."""
    from tests.benchmarks.speed.thaw_loop import LOSS, VALIDATION_LOSS, Driver
    from tests.conftest import make_images
    from trainer.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
    from trainer.messages.events import MetricsLogged, StateChanged
    from trainer.messages.states import RunState

    num_shown, num_epochs = sizes
    images = make_images(scratch / "images", num_per_class=80, size=32)
    config = RunConfig(
        name="growth",
        data=DataConfig(path=str(images), image_size=32),
        model=ModelConfig(name="shufflenet_v2_x0_5", weights="random", frozen=[]),
        training=TrainingConfig(epochs=num_epochs, batch_size=8, num_threads=1),
    )
    driver = Driver()
    trained_s: list[float] = []
    validated: list[float] = []
    steps: list[tuple[float, int]] = []
    try:
        driver.begin(config, str(scratch))
        began_at = driver.wait(StateChanged, lambda event: event.state is RunState.RUNNING).time
        while len(validated) < num_epochs:
            event = driver.wait(MetricsLogged)
            if LOSS in event.series:
                steps.append((event.time, event.series[LOSS].steps[-1]))
            if VALIDATION_LOSS in event.series:
                # From the first to the last report of its steps: neither the loading of the first nor the saving.
                of_epoch = [each for each in steps if each[0] > began_at]
                (first_at, first), (last_at, last) = of_epoch[0], of_epoch[-1]
                trained_s.append((last_at - first_at) / max(1, last - first))
                validated.append(event.time - began_at)
                began_at, steps = event.time, []
    finally:
        driver.close()
    lines = []
    for what, seconds, scale, unit in (
        ("a step", trained_s, 1000, "ms"),
        ("an epoch with validation and its checkpoint", validated, 1, "s"),
    ):
        # The very first one begins with a cold cache.
        early = [scale * each for each in seconds[1 : 1 + num_shown]]
        late = [scale * each for each in seconds[-num_shown:]]
        lines.append(
            {
                "what": f"{what}, epochs 2–{1 + num_shown} → {num_epochs - num_shown + 1}–{num_epochs}",
                "cells": {"small": spread(early, unit), "large": spread(late, unit)},
                "ratio": times(statistics.median(late) / statistics.median(early)),
                "goal": FLAT,
            }
        )
    return lines


# -- layers ---------------------------------------------------------------------------------------------------


def of_layers(sizes: Sequence[int], scratch: Path) -> list[dict[str, Any]]:
    """Return what the monitor adds to a step, for models of so many layers."""
    import torch
    from torch import nn

    from tests.benchmarks import bench_monitor as bench
    from trainer.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
    from trainer.models import LoadedModel

    torch.set_num_threads(1)
    config = RunConfig(
        model=ModelConfig(name="resnet18", weights="random", frozen=[]),
        optimizer=OptimizerConfig(name="AdamW"),
        training=TrainingConfig(epochs=10_000, batch_size=_FEW_IMAGES, precision="fp32", device="cpu"),
    )
    device = torch.device("cpu")
    batches = [
        (torch.rand(_FEW_IMAGES, 3, 8, 8), torch.randint(NUM_CLASSES, (_FEW_IMAGES,))) for _ in range(bench.NUM_BATCHES)
    ]
    added_ms: dict[int, list[float]] = {}
    plain_ms: dict[int, list[float]] = {}
    for num_layers in sizes:
        blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)) for _ in range(num_layers // 2 - 1)]
        body = [nn.Conv2d(3, 4, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        module = nn.Sequential(*body, nn.Linear(4, NUM_CLASSES))
        loaded = LoadedModel(module, [f"{len(module) - 1}"], bench.RandomImages.preprocessing)
        with bench.worker_steps(config, device, loaded) as steps:
            for step in steps.values():
                bench.run(step, batches, device, bench.NUM_BATCHES)
            turns = [
                {loop: bench.run(steps[loop], batches, device, bench.NUM_BATCHES)[0] * 1000 for loop in steps}
                for _ in range(3 * NUM_RUNS)
            ]
        added_ms[num_layers] = [each["thaw"] - each["bare"] for each in turns]
        plain_ms[num_layers] = [each["bare"] for each in turns]
    return [
        _grown(f"the monitor's part of a step, layers {_arrow(sizes)}", added_ms, "ms", LINEAR),
        _grown(f"the same step without it, layers {_arrow(sizes)}", plain_ms, "ms", ""),
    ]


# -- images ---------------------------------------------------------------------------------------------------


def of_images(sizes: Sequence[int], scratch: Path) -> list[dict[str, Any]]:
    """Return what an index of so many images costs: the scan's results without decoding, the order, the table."""
    took: dict[str, dict[int, list[float]]] = {
        name: {}
        for name in (
            "scan: duplicates, split, issues, report",
            "the order of an epoch",
            "table: a page in the middle",
            "table: sizes and shapes counted",
        )
    }
    scanned, order, page, bins = took.values()
    for num_images in sizes:
        num_runs = NUM_RUNS if num_images <= 100_000 else 1
        report = scratch / f"{num_images}.db"
        index = _make_index(num_images)
        scanned[num_images] = [_time_ms(lambda: _scan_index(index, report)) for _ in range(num_runs)]  # noqa: B023
        order[num_images] = [_time_ms(lambda: _order(num_images)) for _ in range(NUM_RUNS)]  # noqa: B023
        page[num_images] = [_time_ms(lambda: _read_page(report, num_images)) for _ in range(NUM_RUNS)]  # noqa: B023
        bins[num_images] = [_time_ms(lambda: _read_bins(report)) for _ in range(num_runs)]  # noqa: B023
    return [
        _grown(f"{name}, images {_arrow(sizes)}", found, "ms", FLAT if name.startswith("table: a page") else LINEAR)
        for name, found in took.items()
    ]


def _make_index(num_images: int) -> tuple[list[Any], list[tuple[int, ...]]]:
    """Return what an examination of files would have found, and their classes; none of these files exists."""
    from trainer.data.file_facts import FileFacts

    generator = random.Random(0)
    facts = [
        FileFacts("", 500 + idx % 97, 375 + idx % 13, 80_000, f"{idx:064x}", generator.getrandbits(64))
        for idx in range(num_images)
    ]
    return facts, [(idx % NUM_CLASSES,) for idx in range(num_images)]


def _scan_index(index: tuple[list[Any], list[tuple[int, ...]]], report: Path) -> None:
    """Do with the facts what a scan does after the examination."""
    from trainer.data.doctor import find_issues
    from trainer.data.duplicates import find_pairs
    from trainer.data.split import assign_splits
    from trainer.data_report import ReportedImage, write_report
    from trainer.messages.data_info import DataSummary

    facts, labels = index
    names = [f"class_{idx}" for idx in range(NUM_CLASSES)]
    pairs = find_pairs(facts)
    splits = assign_splits(labels, [""] * len(facts), list(range(len(facts))), 0.2, 7)
    images = [
        ReportedImage(
            f"/images/{idx:07}.jpg", f"{idx:07}.jpg", classes, split, fact.width, fact.height, fact.size_bytes
        )
        for idx, (fact, classes, split) in enumerate(zip(facts, labels, splits, strict=True))
    ]
    issues = find_issues(images, names, pairs, [""] * len(images), False, [], [])
    counts = {"train": [len(images) // NUM_CLASSES] * NUM_CLASSES}
    summary = DataSummary(layout="class_folders", class_names=names, counts=counts, image_sides=[(500, 375)] * 3)
    write_report(report, summary, images, issues)


def _order(num_images: int) -> None:
    from trainer.data.sampler import EpochSampler

    for _ in EpochSampler(num_images, 32, 7).batches(0, 0):
        pass


def _read_page(report: Path, num_images: int) -> None:
    from app.viewmodels.report_queries import PAGE_ROWS, ImagePage, read_images
    from trainer.data_report import ALL_IMAGES

    found = read_images(ImagePage(report, ALL_IMAGES, num_images // PAGE_ROWS // 2))
    assert not isinstance(found, str), found


def _read_bins(report: Path) -> None:
    from app.viewmodels.report_queries import BinQuery, read_bins

    found = read_bins(BinQuery(report, None))
    assert not isinstance(found, str), found


# -- checkpoints ----------------------------------------------------------------------------------------------


def of_checkpoints(sizes: Sequence[int], scratch: Path) -> list[dict[str, Any]]:
    """Return what so many checkpoints cost: the list in run.db as one more is saved, and the window's table."""
    from PySide6.QtWidgets import QApplication

    from app import theme
    from app.viewmodels.checkpoint_table import CheckpointItemModel
    from tests.benchmarks import bench_checkpoints as bench
    from trainer.config import DataConfig, ModelConfig, RunConfig
    from trainer.runs import RunFolder

    app = QApplication(sys.argv[:1])
    theme.apply(app, "light")
    took: dict[str, dict[int, list[float]]] = {
        name: {}
        for name in ("one more is listed in run.db", "all are read", "the table opens", "the table takes one more")
    }
    listed, read, opened, added = took.values()
    config = RunConfig(name="growth", data=DataConfig(path="images"), model=ModelConfig(name="tiny"))
    for size in sizes:
        every = bench.make_checkpoints(size + NUM_RUNS)
        infos, more = every[:size], every[size:]
        with RunFolder.create(scratch, config) as folder:
            for info in infos:
                folder.checkpoints.add(info)
            read[size] = [_time_ms(lambda: _list_anew(folder)) for _ in range(NUM_RUNS)]
            listed[size] = [_time_ms(lambda: folder.checkpoints.add(info)) for info in more]  # noqa: B023
        opened[size] = [_time_ms(lambda: bench.open_ours(app, infos)) for _ in range(NUM_RUNS)]  # noqa: B023
        checkpoints = CheckpointItemModel()
        view = bench.make_view(checkpoints)
        view.resize(*bench.SIZE)
        view.show()
        checkpoints.reset(infos)
        app.processEvents()
        added[size] = [_time_ms(lambda: bench.add(app, checkpoints, [info])) for info in more]  # noqa: B023
        view.close()
    return [
        _grown(f"{name}, checkpoints {_arrow(sizes)}", found, "ms", FLAT if "one more" in name else LINEAR)
        for name, found in took.items()
    ]


def _list_anew(folder: Any) -> None:
    from trainer.runs import RunFolder

    with RunFolder(folder.path, read_only=True) as reader:
        reader.checkpoints.listed()


# -- both -----------------------------------------------------------------------------------------------------


def _grown(what: str, found: dict[int, list[float]], unit: str, goal: str) -> dict[str, Any]:
    """Return a line: the smallest and the largest size, and the cost of the largest beside linear growth."""
    small, large = min(found), max(found)
    grown = statistics.median(found[large]) / statistics.median(found[small])
    ratio = times(grown) if goal == FLAT else f"{times(grown)}, {times(grown / (large / small))} of linear"
    cells = {"small": spread(found[small], unit), "large": spread(found[large], unit)}
    return {"what": what, "cells": cells, "ratio": ratio, "goal": goal}


def _arrow(sizes: Sequence[int]) -> str:
    return f"{min(sizes):,} → {max(sizes):,}"


def _time_ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
