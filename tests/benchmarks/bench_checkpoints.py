"""How long a table of 10,000 checkpoints takes to open, to sort, to filter and to fill, and one more of them to save.

Run it with ``python -m tests.benchmarks.bench_checkpoints``. Medians of five, of one run and of twenty; beside a plain
QTableView over Qt's own QStandardItemModel with the same rows and columns. To reach: opened in 200 ms,
sorted in 100 ms, filtered in 50 ms.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import Qt
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication, QTableView

from app import theme
from app.viewmodels.checkpoint_columns import ACCURACY, FROZEN, LOSS, RUN
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.run_config import RunConfigViewModel
from app.views.checkpoints import CheckpointsView
from trainer.config import CheckpointsConfig, DataConfig, ModelConfig, RunConfig
from trainer.messages.run_info import CheckpointInfo
from trainer.retention import superfluous
from trainer.run_list import read_checkpoints
from trainer.run_record import RunCheckpoints
from trainer.runs import RunFolder

NUM_ROWS = 10_000
NUM_RUNS = 5
NUM_LISTED_RUNS = 20
SIZE = (1230, 200)


def main() -> None:
    """Print the times."""
    app = QApplication(sys.argv[:1])
    theme.apply(app, "light")
    listed = make_checkpoints(NUM_ROWS)
    opened = [time_ms(lambda: open_ours(app, listed)) for _ in range(NUM_RUNS)]
    plain = [time_ms(lambda: open_plain(app, listed)) for _ in range(NUM_RUNS)]
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    view.resize(*SIZE)
    view.show()
    checkpoints.reset(listed)
    app.processEvents()
    times = {
        f"sort by {name}": [time_ms(lambda: sort(app, view, column, number)) for number in range(NUM_RUNS)]  # noqa: B023
        for name, column in (("loss", LOSS), ("accuracy", ACCURACY), ("what is frozen", FROZEN))
    }
    times["filter, first letter"] = [time_ms(lambda: filter_by(app, view, "s"))]
    for name, texts in (
        ("filter by words", ("stage4", "", "pinned", "", "best", "nothing has this")),
        ("filter by a number", ("accuracy>0.985", "", "loss<0.5", "epoch>=3", "")),
        ("filter by both", ("accuracy>0.5 best", "loss<0.5 pinned", "epoch>=3 stage4")),
    ):
        times[name] = [time_ms(lambda: filter_by(app, view, text)) for text in texts]  # noqa: B023
    view.filter_box.clear()
    more = make_checkpoints(NUM_ROWS + NUM_RUNS)[NUM_ROWS:]
    times["add one to all these"] = [time_ms(lambda: add(app, checkpoints, [info])) for info in more]  # noqa: B023
    checkpoints.reset([])
    times["add 1,000 to none"] = [time_ms(lambda: add(app, checkpoints, listed[:1000]))]
    checkpoints.reset(listed[:-1000])
    times["add 1,000 to 9,000"] = [time_ms(lambda: add(app, checkpoints, listed[-1000:]))]
    names = [info.name for info in listed[:5000]]
    times["delete 5,000"] = [time_ms(lambda: checkpoints.remove(names))]
    times["put 5,000 back"] = [time_ms(lambda: checkpoints.put_back(listed[:5000]))]
    print(f"rows                          {NUM_ROWS}")
    print(f"open, Thaw                    {statistics.median(opened):.0f} ms")
    print(f"open, plain Qt                {statistics.median(plain):.0f} ms")
    print_times(times)
    print("in the thread that writes checkpoints, at each save")
    print_times(time_save(listed))
    print(f"of {NUM_LISTED_RUNS} runs")
    print_times(time_many(app, listed))


def print_times(times: dict[str, list[float]]) -> None:
    """Print the median of each."""
    for name, measured in times.items():
        print(f"{name:29} {statistics.median(measured):.1f} ms")


def time_save(listed: list[CheckpointInfo]) -> dict[str, list[float]]:
    """Return the times of listing one more checkpoint in run.db, and of finding which may go."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = write_run(Path(scratch), "saved", listed[:-NUM_RUNS])
        with RunFolder(path) as folder:
            folder.begin_segment(0, None, 1.0)
            rows, more = folder.checkpoints, listed[-NUM_RUNS:]
            times["the first time"] = [time_ms(rows.listed)]
            times["list one more"] = [time_ms(lambda: rows.add(info)) for info in more]  # noqa: B023

            def find(rules: CheckpointsConfig) -> None:
                point = rows.resume_point()
                assert point is not None
                assert not superfluous(rows.listed(), rules, "accuracy", point.name)

            for name, rules in (("all kept", CheckpointsConfig()), ("a disk budget", CheckpointsConfig(disk_gb=1000))):
                times[f"find which go, {name}"] = [time_ms(lambda: find(rules)) for _ in range(NUM_RUNS)]  # noqa: B023
    return times


def time_many(app: QApplication, listed: list[CheckpointInfo]) -> dict[str, list[float]]:
    """Return the times of the same rows where they are twenty runs', one of which is on display."""
    with tempfile.TemporaryDirectory() as scratch:
        readings = write_runs(Path(scratch), listed)
        read = [time_ms(lambda: read_checkpoints(Path(scratch))) for _ in range(NUM_RUNS)]
    present = readings[0]
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    view.resize(*SIZE)
    view.show()
    checkpoints.reset(present.checkpoints, present.path, present.config)

    def show(readings: list[RunCheckpoints]) -> None:
        checkpoints.show_others(readings)
        app.processEvents()

    times: dict[str, list[float]] = {"read, in a thread": read, "open": []}
    for _ in range(NUM_RUNS):
        show([])
        times["open"].append(time_ms(lambda: show(readings)))
    assert checkpoints.rowCount() == NUM_ROWS
    times["read again, the same"] = [time_ms(lambda: show(readings))]
    for is_grouped in (False, True):
        checkpoints.choose_column("grouped", is_grouped)
        words = ", grouped" if is_grouped else ""
        for name, column in (("loss", LOSS), ("run", RUN)):
            measured = [time_ms(lambda: sort(app, view, column, number)) for number in range(NUM_RUNS)]  # noqa: B023
            times[f"sort by {name}{words}"] = measured
        more = make_checkpoints(NUM_ROWS + 2 * NUM_RUNS)[NUM_ROWS + is_grouped * NUM_RUNS :][:NUM_RUNS]
        times[f"add one{words}"] = [time_ms(lambda: add(app, checkpoints, [info])) for info in more]  # noqa: B023
    times["filter"] = [time_ms(lambda: filter_by(app, view, text)) for text in ("stage4", "", "tiny-3", "", "best")]  # noqa: B023
    return times


def write_runs(runs_dir: Path, listed: list[CheckpointInfo]) -> list[RunCheckpoints]:
    """Write the checkpoints as those of twenty runs, without files, and read them."""
    for number in range(NUM_LISTED_RUNS):
        write_run(runs_dir, f"run{number}", listed[number::NUM_LISTED_RUNS])
    return read_checkpoints(runs_dir)


def write_run(runs_dir: Path, name: str, listed: list[CheckpointInfo]) -> Path:
    """Write a run that lists these checkpoints, without their files. Returns its folder."""
    config = RunConfig(name=name, data=DataConfig(path="images"), model=ModelConfig(name="tiny"))
    with RunFolder.create(runs_dir, config) as folder, closing(sqlite3.connect(folder.path / "run.db")) as db, db:
        rows = [(each.name, each.step, each.saved_at, each.model_dump_json()) for each in listed]
        db.executemany("INSERT INTO checkpoints VALUES (?, ?, ?, ?)", rows)
        return folder.path


def make_view(checkpoints: CheckpointItemModel) -> CheckpointsView:
    """Return the view without a model and curves."""
    details = CheckpointDetails(checkpoints, LayerTreeViewModel(), MetricHistory(), RunConfigViewModel())
    return CheckpointsView(checkpoints, details)


def make_checkpoints(number: int) -> list[CheckpointInfo]:
    """Make rows whose figures go up and down."""
    frozen = ["stage4.1", "conv1, stage2", "backbone", "nothing"]
    # As many as a checkpoint names where a backbone of fifty convolutions is frozen.
    layers = [f"layer{stage}.{block}.conv{number}" for stage in range(4) for block in range(10) for number in range(3)]
    return [
        CheckpointInfo(
            name=f"checkpoint_tiny_{epoch:05}.pt",
            epoch=epoch,
            step=45 * epoch,
            loss=(epoch * 7919 % 10_007) / 10_007,
            accuracy=(epoch * 104_729 % 10_009) / 10_009,
            metrics={"F1/validation": epoch / number, "AUROC/validation": epoch / number},
            frozen=[frozen[epoch % 4], *layers[: 30 * (epoch % 4)]],
            frozen_summary=frozen[epoch % 4],
            size_bytes=840_000 + epoch,
            sha256="0" * 64,
            saved_at=1000.0 + epoch,
            reason="epoch",
            segment=0,
            rate=1e-3,
            is_pinned=epoch % 100 == 0,
        )
        for epoch in range(1, number + 1)
    ]


def open_ours(app: QApplication, listed: list[CheckpointInfo]) -> None:
    """Show the table as the window does."""
    checkpoints = CheckpointItemModel()
    view = make_view(checkpoints)
    view.resize(*SIZE)
    view.show()
    checkpoints.reset(listed)
    app.processEvents()
    view.close()
    view.deleteLater()


def open_plain(app: QApplication, listed: list[CheckpointInfo]) -> None:
    """Show the same figures in Qt's own table."""
    model = QStandardItemModel()
    for info in listed:
        values = (info.epoch, info.step, info.loss, info.accuracy, info.frozen_summary, info.size_bytes, info.saved_at)
        model.appendRow([QStandardItem(str(value)) for value in values])
    view = QTableView()
    view.setModel(model)
    view.resize(*SIZE)
    view.show()
    app.processEvents()
    view.close()
    view.deleteLater()


def sort(app: QApplication, view: CheckpointsView, column: int, number: int) -> None:
    """Sort by a column, now up and now down."""
    order = Qt.SortOrder.DescendingOrder if number % 2 else Qt.SortOrder.AscendingOrder
    view._table.sortByColumn(column, order)
    app.processEvents()


def filter_by(app: QApplication, view: CheckpointsView, text: str) -> None:
    """Type into the filter box."""
    view.filter_box.setText(text)
    app.processEvents()


def add(app: QApplication, checkpoints: CheckpointItemModel, infos: list[CheckpointInfo]) -> None:
    """Add checkpoints one after another, as a run does."""
    for info in infos:
        checkpoints.add(info)
    app.processEvents()


def time_ms(act: Callable[[], object]) -> float:
    """Return how long something takes."""
    began_at = time.perf_counter()
    act()
    return (time.perf_counter() - began_at) * 1000


if __name__ == "__main__":
    main()
