"""An errand for the window: a process of its own, whose outcome comes as a signal, and which ends with who waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.errands import Errand
from trainer.frames import as_json
from trainer.messages.export import ExportCheckpoint


def asked(folder: Path) -> ExportCheckpoint:
    return ExportCheckpoint(run_dir=str(folder / "nowhere"), checkpoint="best", to=str(folder / "model.pt"))


def errand_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if is_errand(child)]


def is_errand(process: psutil.Process) -> bool:
    try:
        return "trainer.errand" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


@pytest.fixture
def errand(qtbot):
    errand = Errand()
    yield errand
    errand.close()
    qtbot.waitUntil(lambda: not errand_processes(), timeout=20_000)


@pytest.mark.slow
def test_what_it_says_comes_as_signals_and_a_refusal_as_its_sentence(errand, qtbot, tmp_path):
    said = []
    errand.progressed.connect(said.append)
    with qtbot.waitSignal(errand.failed, timeout=60_000) as failed:
        errand.start(asked(tmp_path))
        assert errand.is_going
    assert said[0].what == "Loading PyTorch"
    assert "is not a run of Thaw" in failed.args[0]
    assert not errand.is_going


def test_a_cancelled_one_says_nothing_more_and_its_process_ends(errand, qtbot, tmp_path):
    said = []
    for signal in (errand.done, errand.failed):
        signal.connect(said.append)
    with qtbot.waitSignal(errand.progressed, timeout=20_000):
        errand.start(asked(tmp_path))
    with qtbot.waitSignal(errand.cancelled):
        errand.cancel()
    qtbot.waitUntil(lambda: not errand_processes(), timeout=20_000)
    assert said == []


def test_another_one_takes_the_place_of_the_first(errand, qtbot, tmp_path):
    with qtbot.waitSignal(errand.progressed, timeout=20_000):
        errand.start(asked(tmp_path))
    (first,) = errand_processes()
    errand.start(asked(tmp_path))
    qtbot.waitUntil(lambda: first not in errand_processes(), timeout=20_000)


def test_its_process_ends_when_the_one_that_waits_is_killed(tmp_path):
    script = f"""
import sys, time
from app.errand_process import ErrandProcess
from trainer.messages.export import ExportCheckpoint

process = ErrandProcess(ExportCheckpoint.model_validate_json({as_json(asked(tmp_path))!r}))
next(process.events())
print(process._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        errand = psutil.Process(int(waiting.stdout.readline()))
        waiting.kill()
    errand.wait(timeout=30)
