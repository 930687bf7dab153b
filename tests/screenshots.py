"""Takes pictures of the real window while it runs the demo, light and dark, small and large.

python -m tests.screenshots [FOLDER]        # docs/images by default; under Xvfb or on a desktop
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEventLoop, QLocale, QSettings, QTimer
from PySide6.QtWidgets import QApplication

from app import theme
from app.cli import DEMO_CONFIG_PATH
from app.main_window import MainWindow
from app.session import TrainingSession
from app.settings import Settings
from trainer.config import load_config
from trainer.messages.states import RunState

SIZES = {"small": (1280, 800), "large": (1920, 1080)}
PATIENCE_S = 180


def main() -> int:
    """Run the demo in a window and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/images"))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    app = QApplication(sys.argv[:1])
    QLocale.setDefault(QLocale(QLocale.Language.English, QLocale.Country.UnitedStates))
    theme.apply(app, "light")
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(QSettings(f"{scratch}/settings.ini", QSettings.Format.IniFormat))
        window = MainWindow(TrainingSession(Path(scratch) / "runs"), settings)
        window.load_views()
        window.show()
        wait(lambda: window.session.state is RunState.IDLE and not window.display.layer_tree.is_empty)
        shoot(app, window, folder, "empty", ["light"], ["small"])
        window.show_config(load_config(DEMO_CONFIG_PATH), start=True)
        # Some epochs past the plan's unfreezing, so that its marker is on the curves.
        wait(lambda: (point := window.display.history.at("Loss/train", 1e9)) is not None and point[0] > 420)
        shoot(app, window, folder, "running", ["light", "dark"], ["small", "large"])
        window.tabs.setCurrentWidget(window.data_view)
        shoot(app, window, folder, "data", ["light", "dark"], ["small"])
        window.session.stop()
        # It may have come to its end before.
        wait(lambda: window.session.state in {RunState.STOPPED, RunState.FINISHED})
        window.close()
    return 0


def shoot(
    app: QApplication, window: MainWindow, folder: Path, name: str, schemes: list[theme.Scheme], sizes: list[str]
) -> None:
    """Take one picture for each theme and size."""
    for scheme in schemes:
        theme.apply(app, scheme)
        for size in sizes:
            window.resize(*SIZES[size])
            pause_ms(600)
            window.grab().save(str(folder / f"{name}-{scheme}-{size}.png"))


def wait(holds: Callable[[], bool]) -> None:
    """Let the window go on until a condition holds."""
    for _ in range(PATIENCE_S * 20):
        if holds():
            return
        pause_ms(50)
    raise TimeoutError("The demo did not get there.")


def pause_ms(milliseconds: int) -> None:
    """Let the window go on for a while, as a person would look at it."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


if __name__ == "__main__":
    sys.exit(main())
