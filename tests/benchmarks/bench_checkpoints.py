"""How long a table of 10,000 checkpoints takes to open, to sort, to filter and to fill row by row.

Run it with ``python -m tests.benchmarks.bench_checkpoints``. Medians of five; beside a plain QTableView over Qt's own
QStandardItemModel with the same rows and columns. To reach: opened in 200 ms, sorted in 100 ms.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import Qt
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication, QTableView

from app import theme
from app.viewmodels.checkpoint_details import CheckpointDetails
from app.viewmodels.checkpoint_table import ACCURACY, FROZEN, LOSS, CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.views.checkpoints import CheckpointsView
from trainer.messages.run_info import CheckpointInfo

NUM_ROWS = 10_000
NUM_RUNS = 5
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
    texts = ("stage4", "", "pinned", "", "best")
    times["filter"] = [time_ms(lambda: filter_by(app, view, text)) for text in texts]  # noqa: B023
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
    print(f"rows                    {NUM_ROWS}")
    print(f"open, Thaw              {statistics.median(opened):.0f} ms")
    print(f"open, plain Qt          {statistics.median(plain):.0f} ms")
    for name, measured in times.items():
        print(f"{name:23} {statistics.median(measured):.1f} ms")


def make_view(checkpoints: CheckpointItemModel) -> CheckpointsView:
    """Return the view without a model and curves."""
    return CheckpointsView(checkpoints, CheckpointDetails(checkpoints, LayerTreeViewModel(), MetricHistory()))


def make_checkpoints(number: int) -> list[CheckpointInfo]:
    """Make rows whose figures go up and down."""
    frozen = ["stage4.1", "conv1, stage2", "backbone", "nothing"]
    return [
        CheckpointInfo(
            name=f"checkpoint_tiny_{epoch:05}.pt",
            epoch=epoch,
            step=45 * epoch,
            loss=(epoch * 7919 % 10_007) / 10_007,
            accuracy=(epoch * 104_729 % 10_009) / 10_009,
            metrics={"F1/validation": epoch / number, "AUROC/validation": epoch / number},
            frozen=[frozen[epoch % 4]],
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
