"""Preparing a run in this process, without a worker."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from trainer.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from trainer.preparation import Preparation, Report
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder


def preparation(report: Report = lambda *_: None) -> Preparation:
    here = psutil.Process()
    return Preparation(
        WorkerAddress("nowhere", b"", here.pid, here.create_time()), lambda _: None, report, lambda: None
    )


def faults_of(config: RunConfig, runs_dir: Path) -> dict[str, str]:
    """Return what is wrong with each field of a run that cannot begin."""
    with pytest.raises(ConfigError) as refused:
        preparation().begin(config, runs_dir)
    assert str(refused.value).splitlines() == list(refused.value.sentences.values())
    assert not list(runs_dir.glob("*/run.toml"))
    return refused.value.sentences


def test_a_run_whose_data_are_gone_says_what_to_do_before_it_goes_on(tmp_path: Path) -> None:
    gone = tmp_path / "digits"
    config = RunConfig(data=DataConfig(path=str(gone)))
    with RunFolder.create(tmp_path / "runs", config) as folder:
        run_dir = folder.path
    with pytest.raises(ConfigError) as refused:
        preparation().open(run_dir, None, is_to_start=True)
    sentence = str(refused.value)
    assert sentence.startswith(f"{run_dir.name} cannot go on without its data. There is no file or folder {gone}.")
    assert sentence.endswith("Put the data back where they were and resume again, or begin a new run with others.")
    assert refused.value.field == "data.path"
    assert not (run_dir / "worker.json").exists()


def test_all_that_is_wrong_with_a_run_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the runs should go")
    sentences = faults_of(
        RunConfig(
            data=DataConfig(path=str(tmp_path / "nowhere")),
            model=ModelConfig(name="resnet19", weights=str(tmp_path / "notes.txt")),
            training=TrainingConfig(device="cuda:77"),
        ),
        blocked / "runs",
    )
    assert list(sentences) == ["", "training.device", "model.weights", "model.name", "data.path"]
    assert sentences[""].startswith(f"Cannot write to {blocked / 'runs'}: ")
    assert sentences["training.device"].startswith("The device cuda:77 is not on this machine.")
    assert sentences["model.weights"].startswith(f"{tmp_path / 'notes.txt'} is no weights file")
    assert sentences["model.name"].startswith('There is no torchvision classification model "resnet19".')
    assert sentences["data.path"] == f"There is no file or folder {tmp_path / 'nowhere'}. Check the path."


def test_layers_a_plan_and_sides_that_a_model_has_not_are_said_at_once_with_the_columns_of_a_table(
    small_config: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "birds.csv").write_text("file,species\n1.png,jay\n2.png,owl\n")
    values = small_config.model_dump()
    values["data"] |= {
        "path": str(tmp_path / "birds.csv"),
        "path_column": "photo",
        "label_column": "bird",
        "resize_size": 16,
    }
    values["model"] |= {"frozen": ["stem"], "adapting": ["conv1", "stage2.0.branch1.*.nothing"]}
    values["optimizer"]["multipliers"] = {"stage9": 0.5}
    values["plan"] = [{"epoch": 1, "unfreeze": ["stage?.*.nothing"]}]
    sentences = faults_of(RunConfig.model_validate(values), tmp_path / "runs")
    assert sentences["model.frozen"].startswith("The model has no layer 'stem'.")
    assert sentences["model.adapting"].startswith("The pattern 'stage2.0.branch1.*.nothing' matches no layer")
    assert sentences["plan"].startswith("The plan's phase at epoch 1: The pattern 'stage?.*.nothing' matches no layer")
    assert sentences["optimizer.multipliers"].startswith("The rate multiplier 0.5: The model has no layer 'stage9'")
    assert sentences["data.resize_size"].startswith("A square of 32 pixels cannot be cut from images of 16.")
    assert 'has no column "photo". It has "file", "species": choose' in sentences["data.path_column"]
    assert 'has no column "bird". It has "file", "species": choose' in sentences["data.label_column"]
    assert len(sentences) == 7


def test_a_layer_without_statistics_cannot_be_said_to_have_them_adapt_beside_one_that_has_some(
    small_config: RunConfig, tmp_path: Path
) -> None:
    model = small_config.model.model_copy(update={"adapting": ["conv1", "fc"]})
    sentences = faults_of(small_config.model_copy(update={"model": model}), tmp_path / "runs")
    assert sentences == {
        "model.adapting": "There are no running statistics in 'fc'. Name a BatchNorm, or a layer above one."
    }


def test_no_image_is_decoded_for_a_run_that_something_else_keeps_from_beginning(
    small_config: RunConfig, tmp_path: Path
) -> None:
    told: list[str] = []
    config = small_config.model_copy(update={"training": TrainingConfig(device="cuda:77")})
    with pytest.raises(ConfigError, match=r"^The device cuda:77 is not on this machine\.") as refused:
        preparation(lambda what, *_: told.append(what)).begin(config, tmp_path / "runs")
    assert list(refused.value.sentences) == ["training.device"]
    assert "Listing files" in told
    assert "Checking images" not in told


def test_a_file_of_weights_that_does_not_fit_is_said_before_any_image_is_decoded(
    small_config: RunConfig, tmp_path: Path
) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    model = ModelConfig(name="shufflenet_v2_x0_5", weights=str(tmp_path / "other.pt"))
    data = DataConfig(path=str(tmp_path / "nowhere"))
    sentences = faults_of(small_config.model_copy(update={"model": model, "data": data}), tmp_path / "runs")
    assert list(sentences) == ["model.weights", "data.path"]
    assert "does not fit shufflenet_v2_x0_5" in sentences["model.weights"]
