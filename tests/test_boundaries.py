"""The two programs stay apart: proved in fresh interpreters, since one import anywhere would do."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "tensorboard", "tensorflow")
QT = ("PySide6", "pyqtgraph")


def loaded_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "app.main_window",
        "app.window",
        "app.views.metrics",
        "app.views.layer_tree",
        "app.cli",
        "app.terminal",
        "trainer.client",
        "trainer.retention",
    ],
)
def test_the_app_loads_no_torch(module: str) -> None:
    assert not loaded_after(f"import {module}").intersection(HEAVY)


def test_drawing_a_long_curve_for_the_first_time_imports_nothing() -> None:
    # As numpy.unique would: 6 to 15 ms in which the window does not answer.
    script = """
import sys
from app.viewmodels.metric_history import MetricHistory
from app.views import metrics
from trainer.messages.events import MetricsLogged
from trainer.messages.run_info import Series
history = MetricHistory()
before = set(sys.modules)
series = Series(steps=list(range(1, 9001)), values=[1.0] * 9000)
history.add(MetricsLogged(segment=0, series={"Loss/train": series}))
print(len(history.query("Loss/train", 0, 9000, 1000, smoothed=True)), *(set(sys.modules) - before))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    num_points, *imported = result.stdout.split()
    assert 100 < int(num_points) < 2000
    assert imported == []


@pytest.mark.parametrize("module", ["app.cli", "app.terminal"])
def test_the_terminal_loads_no_qt(module: str) -> None:
    assert not loaded_after(f"import {module}").intersection(QT)


def test_the_trainer_loads_neither_qt_nor_the_app() -> None:
    statement = (
        "import trainer.worker, trainer.loop, trainer.models, trainer.logs, trainer.data.loader, trainer.data.scan"
    )
    loaded = loaded_after(statement)
    assert "torch" in loaded
    assert not loaded.intersection({*QT, "app", "typer", "rich"})


def test_importing_the_trainer_package_imports_nothing_heavy() -> None:
    assert not loaded_after("import trainer").intersection({*HEAVY, *QT, "pydantic", "numpy"})


def test_what_decodes_images_starts_light() -> None:
    # Each of its processes imports the worker's main module again, and this.
    assert not loaded_after("import trainer.__main__, trainer.data.decoding").intersection(
        {*HEAVY, *QT, "pydantic", "numpy", "trainer.worker"}
    )


def test_the_worker_answers_before_torch_is_loaded() -> None:
    assert not loaded_after("import trainer.worker").intersection({*HEAVY, *QT})
