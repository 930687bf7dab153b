"""Keeps events under a file system whose n-th call fails, for each n, and prints what is kept: for test_every_call."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.faults.saver import MODES
from trainer.config import load_config
from trainer.messages.events import LogWritten, MetricsLogged, WorkerAttached
from trainer.messages.run_info import Series
from trainer.messages.states import RunState
from trainer.runs import RunFolder
from trainer.server import EventServer

NUM_EVENTS = 4


def main() -> None:
    """Keep some events for each call, with the failure that the arguments name, until that is more than they need."""
    library, config_path, folder, mode = sys.argv[1:]
    faults = ctypes.CDLL(library)
    with RunFolder.create(Path(folder), load_config(Path(config_path))) as made:
        made.begin_segment(0, None, 0.0)
    for n in range(1, 10_000):
        run_dir = Path(folder) / f"{n:04d}"
        shutil.copytree(made.path, run_dir)
        counted = keep(faults, run_dir, mode, n)
        print(json.dumps({"n": n, "counted": counted, **look(run_dir)}), flush=True)  # noqa: T201
        shutil.rmtree(run_dir)
        if counted < n:
            return


def keep(faults: ctypes.CDLL, run_dir: Path, mode: str, n: int) -> int:
    """Have a server keep events, and a measurement after each, to the end. Returns how many calls that took."""
    nobody_comes = SimpleNamespace(accept=threading.Event().wait)
    server = EventServer(nobody_comes, lambda _: None)  # type: ignore[arg-type]
    server.begin(WorkerAttached(state=RunState.IDLE, pid=1, torch_version="", devices=[]))
    with RunFolder(run_dir) as folder:
        # SQLite moves what is written from its log into run.db each time.
        folder.database.read("PRAGMA wal_autocheckpoint = 1")
        server.keep_in(folder, lambda _: None)
        faults.faults_arm(MODES[mode], ctypes.c_long(n), os.fsencode(run_dir))
        for step in range(NUM_EVENTS):
            server.publish(LogWritten(level="info", text=str(step)))
            server.publish(MetricsLogged(segment=0, series={"Loss/train": Series(steps=[step], values=[0.5])}))
        server.finish()
        counted: int = faults.faults_counted()
        faults.faults_disarm()
    return counted


def look(run_dir: Path) -> dict[str, Any]:
    """Read what is kept."""
    with RunFolder(run_dir, read_only=True) as folder:
        texts = [event.text for event in folder.read().log if isinstance(event, LogWritten)]
        steps = [step for curve in folder.curves().values() for step in curve.steps]
    return {"texts": texts, "steps": steps}


if __name__ == "__main__":
    main()
