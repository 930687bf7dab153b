"""Comparing checkpoints in a process of its own: ``thaw compare`` prints what differs, and the window shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtWidgets import QWidget

from app.cli import main
from app.viewmodels.compared_layers import LAYER, MOVED
from app.viewmodels.comparison import ComparisonViewModel
from app.views.comparison import ComparisonDialog
from tests.conftest import make_images
from tests.trainer.recorded_runs import record_run
from trainer.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from trainer.messages.comparison import CheckpointsCompared
from trainer.runs import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two runs that differ in their rate; conv1 is frozen in both."""
    folder = tmp_path_factory.mktemp("compared")
    make_images(folder / "images")
    return [
        record_run(
            RunConfig(
                name=f"rate{number}",
                data=DataConfig(path=str(folder / "images"), image_size=32, validation_fraction=0.25),
                model=ModelConfig(name="shufflenet_v2_x0_5", weights="random", frozen=["conv1"]),
                optimizer=OptimizerConfig(rate=rate),
                training=TrainingConfig(epochs=2, batch_size=8, device="cpu", num_threads=1),
            ),
            folder / "runs",
        )
        for number, rate in enumerate((1e-3, 1e-2))
    ]


def test_compare_prints_metrics_layers_and_what_is_mistaken(run_dirs, capsys):
    assert main(["compare", str(run_dirs[0]), "1", "2", "--layers", "1"]) == 0
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    (loss,) = (line for line in lines if line[:1] == ["Loss"])
    assert loss[-1] in {"better", "worse"}
    layers = {line[0]: line for line in lines if line}
    assert layers["conv1"][-2:] == ["frozen,", "equal"]
    assert layers["conv1"][-3:-2] == ["1.0000"]
    assert layers["fc"][-1] != "equal"
    assert "They were trained with the same configuration, rate and freeze set." in said.out
    assert "epoch 2: " in said.out
    assert "of 9 validation images right" in said.out
    assert " (the reference)" in said.out.splitlines()[0]


def test_layers_that_are_equal_share_a_line(run_dirs, capsys):
    assert main(["compare", str(run_dirs[0]), "1", "2", "--no-confusion"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "are equal" in line] == ["2 layers are equal and frozen: `--json` has them all."]
    assert not any(line.startswith("conv1") for line in lines)


def test_compare_of_two_runs_gives_all_of_it_as_json(run_dirs, capsys):
    first, other = run_dirs
    runs = ["--runs", str(first.parent)]
    assert main(["compare", "rate0", "last", f"{other.name}:last", "--json", "--no-confusion", *runs]) == 0
    compared = CheckpointsCompared.model_validate(json.loads(capsys.readouterr().out))
    assert [each.run_dir for each in compared.checkpoints] == [str(path) for path in run_dirs]
    assert {each.name: each.values for each in compared.settings} == {
        "checkpoint.rate": [1e-3, 1e-2],
        "name": ["rate0", "rate1"],
        "optimizer.rate": [1e-3, 1e-2],
    }


@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_the_window_shows_what_was_found(run_dirs, qtbot):
    host = QWidget()
    qtbot.addWidget(host)
    comparison = ComparisonViewModel()
    dialog = ComparisonDialog(comparison, host)
    dialog.show()
    with RunFolder(run_dirs[0], read_only=True) as folder:
        comparison.begin([(run_dirs[0], info.name) for info in folder.checkpoints.listed()])
    qtbot.waitUntil(lambda: not comparison.is_going, timeout=120_000)
    assert comparison.sentence == ""
    assert dialog.windowTitle() == "epoch 2 compared with epoch 1"
    layers = comparison.layers
    rows = {layers.index(row, LAYER).data(): layers.index(row, MOVED).data() for row in range(layers.rowCount())}
    assert rows["conv1"] == "0"
    assert rows["fc"].endswith(" %")
    qtbot.waitUntil(dialog.map.isVisible)


def test_one_checkpoint_alone_or_an_unknown_one_is_refused_with_a_sentence(run_dirs, capsys):
    assert main(["compare", str(run_dirs[0]), "1"]) == 2
    assert "Name two checkpoints or more" in capsys.readouterr().err
    assert main(["compare", str(run_dirs[0]), "1", "none"]) == 2
    assert "has no checkpoint named 'none'" in capsys.readouterr().err
