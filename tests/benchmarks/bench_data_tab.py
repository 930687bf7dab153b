"""How the Data tab opens on 100,000 images and scrolls through them, beside Pillow's thumbnails of the same files.

Run it with ``python -m tests.benchmarks.bench_data_tab``. It is the whole window, whose worker is played: it says that
it has checked the data. The report has 100,000 rows that refer to 500 real JPEGs of 500 × 375 pixels, each again and
again under another name, and 10,000 issues.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import psutil
from PIL import Image
from PySide6.QtCore import QEventLoop, QSettings, QTimer
from PySide6.QtWidgets import QApplication

from app import theme
from app.main_window import MainWindow
from app.session import TrainingSession
from app.settings import Settings
from app.viewmodels.data import DataViewModel
from app.views.data import DataView
from tests.app.conftest import ScriptedClient
from trainer.data_report import IssueKind, Measure, ReportedImage, ReportedIssue, write_report
from trainer.messages.data_info import DataSummary
from trainer.messages.events import DataChecked
from trainer.messages.states import RunState

NUM_IMAGES, NUM_FILES, NUM_CLASSES, NUM_ISSUES = 100_000, 500, 100, 10_000
SIDES = (500, 375)
SIZE = (1920, 1080)
NUM_SCROLLS = 300
SCROLL_INTERVAL_MS = 16
BEAT_MS = 1


def main() -> None:
    """Print the figures."""
    app = QApplication(sys.argv[:1])
    theme.apply(app, "light")
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as scratch:
        event, files = make_report(Path(scratch))
        # What making it took is no part of the window.
        gc.collect()
        bare = process.memory_info().rss
        client = ScriptedClient()
        window = make_window(Path(scratch), client)
        data, view = window.display.data, window.data_view
        before = process.memory_info().rss
        pulse = Pulse()
        window.display.run_config.set_text("data.path", event.path)
        window.display.check_data()
        started = time.perf_counter()
        client.say(event.model_copy(update={"command_id": client.id_of_last("CheckData")}))
        wait(lambda: has_thumbnails(view, data))
        first_s = time.perf_counter() - started
        num_first = len(view.grid.visible_rows())
        wait(lambda: data.issues.rowCount() == NUM_ISSUES)
        opening_ms = pulse.longest_ms()
        opened = process.memory_info().rss
        started = time.perf_counter()
        view.chart.button(1).click()
        wait(lambda: data.bins[Measure.SIZE].rowCount() > 0)
        sizes_s, sizes_ms = time.perf_counter() - started, pulse.longest_ms()
        data.choose_bin(data.bins[Measure.SIZE].bins[-1])
        wait(lambda: has_thumbnails(view, data))
        filter_ms = pulse.longest_ms()
        view.chart.button(0).click()
        wait(lambda: has_thumbnails(view, data))
        scroll_ms = scroll_to_end(view, pulse)
        wait(lambda: has_thumbnails(view, data))
        scrolled = process.memory_info().rss
        pulse.longest_ms()
        window.resize(SIZE[0] - 200, SIZE[1])
        pause_ms(200)
        resize_ms = pulse.longest_ms()
        started = time.perf_counter()
        for file in files[:num_first]:
            with Image.open(file) as image:
                image.thumbnail((86, 86))
        pillow_s = time.perf_counter() - started
        window.close()
    print(f"first thumbnails ({num_first})                {first_s:.2f} s   (goal 1 s)")
    print(f"the same with Pillow, one thread     {pillow_s:.2f} s")
    print(f"longest block while opening          {opening_ms:.0f} ms   (goal 50 ms)")
    print(f"sizes and shapes are counted         {sizes_s:.2f} s   (longest block {sizes_ms:.0f} ms)")
    print(f"longest block while filtering        {filter_ms:.0f} ms")
    print(f"longest block while scrolling        {scroll_ms:.0f} ms   ({NUM_SCROLLS} steps over {NUM_IMAGES:,} images)")
    print(f"longest block while resizing         {resize_ms:.0f} ms")
    print(f"memory, without a window             {bare / 1e6:.0f} MB   (Qt and what this benchmark imports)")
    print(f"memory, the whole window before      {before / 1e6:.0f} MB")
    print(f"memory, opened                       {opened / 1e6:.0f} MB   (goal 300 MB)")
    thumbnails = view.grid.loader.num_bytes
    print(f"memory, scrolled to the end          {scrolled / 1e6:.0f} MB   (thumbnails {thumbnails / 1e6:.0f} MB)")


def make_window(folder: Path, client: ScriptedClient) -> MainWindow:
    """Show the window as a user has it: its views are loaded, its worker is ready, the Data tab is raised."""
    session = TrainingSession(folder / "runs", start_worker=lambda: client)  # type: ignore[arg-type,return-value]
    settings = Settings(QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat))
    window = MainWindow(session, settings)
    window.resize(*SIZE)
    window.show()
    window.load_views()
    client.serve()
    wait(lambda: session.state is RunState.IDLE)
    window.tabs.setCurrentWidget(window.data_view)
    wait(lambda: True)
    return window


class Pulse:
    """Beats on the GUI thread: what comes late was blocked."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._longest_s = 0.0
        self._timer = QTimer()
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def longest_ms(self) -> float:
        """Return the longest block since the last call, in milliseconds."""
        self._beat()
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s * 1000

    def _beat(self) -> None:
        now = time.perf_counter()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now


def make_report(folder: Path) -> tuple[DataChecked, list[Path]]:
    """Write the files and the report."""
    generator = np.random.default_rng(0)
    files = []
    for number in range(NUM_FILES):
        coarse = Image.fromarray(generator.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        files.append(folder / f"{number:03}.jpg")
        coarse.resize(SIDES, Image.Resampling.BICUBIC).save(files[-1], quality=85)
    per_class = NUM_IMAGES // NUM_CLASSES
    # Every row under a path of its own, as 100,000 files would be: no thumbnail is found again.
    images = (
        ReportedImage(
            path=f"{folder}{'/.' * (row // NUM_FILES)}/{row % NUM_FILES:03}.jpg",
            shown=f"animals/class_{row // per_class:03}/{row:06}.jpg",
            class_idxs=(row // per_class,),
            split="validation" if row % 5 == 0 else "train",
            # Each size once or twice, as pictures from many cameras have them: the most that is to be counted.
            width=SIDES[0] + row % 997,
            height=SIDES[1] + row % 113,
            size_bytes=30_000,
        )
        for row in range(NUM_IMAGES)
    )
    issues = (
        ReportedIssue(
            IssueKind.NEAR_DUPLICATE,
            str(files[row % NUM_FILES]),
            f"animals/class_000/{row:06}.jpg",
            "Nearly the same picture twice.",
            str(files[(row + 1) % NUM_FILES]),
            f"animals/class_001/{row:06}.jpg",
        )
        for row in range(NUM_ISSUES)
    )
    validation = per_class // 5
    summary = DataSummary(
        layout="class_folders",
        class_names=[f"class_{idx:03}" for idx in range(NUM_CLASSES)],
        counts={"train": [per_class - validation] * NUM_CLASSES, "validation": [validation] * NUM_CLASSES},
        issue_counts={IssueKind.NEAR_DUPLICATE.value: NUM_ISSUES},
        image_sides=[SIDES] * 3,
        num_bytes=30_000 * NUM_IMAGES,
    )
    report_path = folder / "report.db"
    write_report(report_path, summary, images, issues)
    return DataChecked(path=str(folder), summary=summary, report_path=str(report_path)), files


def scroll_to_end(view: DataView, pulse: Pulse) -> float:
    """Drag the grid from its first to its last line, and return the longest block in milliseconds."""
    bar = view.grid.verticalScrollBar()
    pulse.longest_ms()
    for step in range(1, NUM_SCROLLS + 1):
        bar.setValue(bar.maximum() * step // NUM_SCROLLS)
        pause_ms(SCROLL_INTERVAL_MS)
    return pulse.longest_ms()


def has_thumbnails(view: DataView, data: DataViewModel) -> bool:
    """Tell whether every picture in sight is there."""
    images = [data.images.image(row) for row in view.grid.visible_rows()]
    return bool(images) and all(image and view.grid.loader.pixmap(image.path) is not None for image in images)


def wait(holds: Callable[[], bool]) -> None:
    """Let the window go on until a condition holds."""
    pause_ms(1)
    while not holds():
        pause_ms(5)


def pause_ms(milliseconds: int) -> None:
    """Let the window go on for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


if __name__ == "__main__":
    main()
