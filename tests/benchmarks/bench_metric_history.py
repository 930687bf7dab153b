"""How long a frame of a million points takes, against plain pyqtgraph.

Run it with ``python -m tests.benchmarks.bench_metric_history``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import pyqtgraph as pg
from PySide6.QtWidgets import QApplication

from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.metric_history import MetricHistory
from app.views.metrics import MetricsView
from trainer.messages.events import MetricsLogged
from trainer.messages.run_info import Series

NUM_POINTS = 1_000_000
NUM_FRAMES = 10
NUM_PLAIN_FRAMES = 2
BATCH = 250
SIZE = (900, 600)


def main() -> None:
    """Print the frame times, and what writing costs."""
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    steps = np.arange(1, NUM_POINTS + 1)
    values = 2 * np.exp(-steps / 200_000) + np.random.default_rng(7).normal(0, 0.05, NUM_POINTS)

    history = MetricHistory()
    started = time.perf_counter()
    history.add(_event(steps, values))
    longest_ms = _settle(app, history)
    _tell(f"take in {NUM_POINTS:,} points", (time.perf_counter() - started) * 1000)
    _tell("  longest piece of it", longest_ms)

    started = time.perf_counter()
    for batch in range(100):
        first = NUM_POINTS + 1 + batch * BATCH
        history.add(_event(np.arange(first, first + BATCH), values[:BATCH]))
    _tell(f"add {BATCH} points live", (time.perf_counter() - started) * 10)

    view = MetricsView(history, CheckpointItemModel())
    view.resize(*SIZE)
    view.show()
    _tell("frame of both plots, followed", _frame_ms(lambda: _draw(view), NUM_FRAMES))
    view.set_following(False)
    view.accuracy.view_box.setXRange(400_000, 410_000, padding=0)
    _tell("frame of both plots, zoomed in", _frame_ms(lambda: _draw(view), NUM_FRAMES))

    for width in (1, 2):
        plain = pg.PlotWidget()
        plain.resize(SIZE[0], SIZE[1] // 2)
        curve = plain.plot(steps, values, pen=pg.mkPen("b", width=width))
        plain.show()
        frame_ms = _frame_ms(lambda: (curve.setData(steps, values), plain.grab()), NUM_PLAIN_FRAMES)  # noqa: B023
        _tell(f"frame of one plain pyqtgraph curve, pen {width} px", frame_ms)


def _draw(view: MetricsView) -> None:
    for _ in (view.loss, view.accuracy):
        view._repaint()
    view.grab()


def _event(steps: np.ndarray, values: np.ndarray) -> MetricsLogged:
    return MetricsLogged.model_construct(
        segment=0, series={"Loss/train": Series.model_construct(steps=steps, values=values)}
    )


def _settle(app: QApplication, history: MetricHistory) -> float:
    longest_ms = 0.0
    while history.is_catching_up:
        started = time.perf_counter()
        app.processEvents()
        longest_ms = max(longest_ms, (time.perf_counter() - started) * 1000)
    return longest_ms


def _frame_ms(draw: Callable[[], object], num_frames: int) -> float:
    draw()
    started = time.perf_counter()
    for _ in range(num_frames):
        draw()
    return (time.perf_counter() - started) * 1000 / num_frames


def _tell(what: str, ms: float) -> None:
    sys.stdout.write(f"{what:<48}{ms:>10.1f} ms\n")


if __name__ == "__main__":
    main()
