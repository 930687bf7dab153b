"""Starts the window: QApplication, session, theme. The window is painted first; the plots load after it."""

from __future__ import annotations

import gc
import signal
import sys
from functools import partial
from pathlib import Path

from PySide6.QtCore import QLocale
from PySide6.QtWidgets import QApplication

from app import theme
from app.first_paint import FirstPaint
from app.main_window import MainWindow
from app.session import TrainingSession
from app.settings import Settings
from trainer.config import RunConfig


def run_window(run: Path | None, config: RunConfig | None, runs_dir: Path, *, start: bool) -> int:
    """Open the window and stay until it is closed.

    Args:
        run: A run's folder to show, or None.
        config: A configuration to fill the form with, or None for what it last held.
        runs_dir: The folder of the runs.
        start: Begin ``config``, or go on with ``run`` if no worker trains it.

    Returns:
        The exit code of the program.

    """
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        app = QApplication(sys.argv[:1])
    app.setApplicationName("thaw-studio")
    app.setApplicationDisplayName("Thaw")
    app.setDesktopFileName("thaw-studio")
    app.setWindowIcon(theme.app_icon())
    if QLocale.system().language() == QLocale.Language.C:
        # A bare system names no language; its numbers would run together ("352042").
        QLocale.setDefault(QLocale(QLocale.Language.English, QLocale.Country.UnitedStates))
    settings = Settings()
    colors = theme.apply_colors(app, settings.scheme)
    session = TrainingSession(runs_dir)
    window = MainWindow(session, settings)
    theme.apply_sheet(app, colors)
    first_paint = FirstPaint(window, partial(begin, window, run, config, start=start))
    window.closed.connect(first_paint.stop)
    window.show()
    app.styleHints().colorSchemeChanged.connect(window.follow_system_scheme)
    # Ctrl+C in the terminal closes the window's end; a run goes on in the background. The session's timer lets
    # Python see the signal.
    previous = signal.signal(signal.SIGINT, lambda *_: app.quit())
    try:
        return app.exec()
    finally:
        signal.signal(signal.SIGINT, previous)
        session.detach()


def begin(window: MainWindow, run: Path | None, config: RunConfig | None, *, start: bool) -> None:
    """Load the rest of a window that is on the screen, and begin with what it was opened for."""
    try:
        window.load_views()
    finally:
        # ``thaw`` turned it off.
        gc.enable()
    if run is not None:
        window.session.open_run(run, resume=start)
    elif config is not None:
        window.show_config(config, start=start)
