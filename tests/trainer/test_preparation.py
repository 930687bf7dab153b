"""Preparing a run in this process, without a worker."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from trainer.config import CheckpointsConfig, ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from trainer.messages.changes import CheckpointRestored
from trainer.messages.events import CheckpointSaved, LogWritten, RunPrepared
from trainer.models import build_model
from trainer.preparation import Preparation, PreparedRun, Report
from trainer.run_changes import RunChanged
from trainer.run_record import RunFolderError, WorkerAddress
from trainer.runs import RunFolder
from trainer.worker import failure_sentence

NOWHERE = "nowhere"


def preparation(report: Report = lambda *_: None) -> Preparation:
    here = psutil.Process()
    return Preparation(WorkerAddress(NOWHERE, b"", here.pid, here.create_time()), lambda _: None, report, lambda: None)


def leave(prepared: PreparedRun, worker: WorkerAddress) -> Path:
    """Leave a run as its worker does, and return its folder."""
    prepared.trainer.close()
    prepared.log.close()
    prepared.folder.remove_worker(worker)
    prepared.folder.close()
    return prepared.folder.path


def begin_and_save(config: RunConfig, runs_dir: Path) -> Path:
    """Begin a run, save a checkpoint, and leave it."""
    here = preparation()
    prepared = here.begin(config, runs_dir)
    prepared.folder.add_event(RunPrepared(run=prepared.info, step=0, epoch=0, segment=0))
    saved = prepared.trainer.save(reason="user")
    prepared.folder.add_event(CheckpointSaved(checkpoint=saved))
    return leave(prepared, here.worker)


def open_run(run_dir: Path, *, anyway: bool = False) -> list[str]:
    """Open a run at its last checkpoint. Returns what is told of it."""
    here = preparation()
    prepared = here.open(run_dir, None, is_to_start=True, anyway=anyway)
    # As the worker does.
    prepared.folder.add_event(RunPrepared(run=prepared.info, step=0, epoch=0, segment=1))
    leave(prepared, here.worker)
    return [event.text for event in prepared.events if isinstance(event, LogWritten)]


def changes_of(run_dir: Path) -> list[str]:
    with pytest.raises(RunChanged) as refused:
        open_run(run_dir)
    (said,) = str(refused.value).splitlines()
    assert said.startswith(f"{run_dir.name} would not go on exactly as it was")
    assert all(change in said for change in refused.value.changes)
    # It is free for the next one, which may choose to.
    with RunFolder(run_dir, read_only=True) as folder:
        assert folder.worker() is None
    return refused.value.changes


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
        preparation().open(run_dir, None, is_to_start=True, anyway=False)
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


def test_a_run_of_which_nothing_has_changed_is_opened_without_a_word(small_config: RunConfig, tmp_path: Path) -> None:
    assert open_run(begin_and_save(small_config, tmp_path / "runs")) == []


def test_images_that_are_others_by_now_are_counted_before_a_run_goes_on(
    small_config: RunConfig, tmp_path: Path
) -> None:
    run_dir = begin_and_save(small_config, tmp_path / "runs")
    with (run_dir / "split.csv").open() as file:
        held_back = next(row["path"] for row in csv.DictReader(file) if row["split"] == "validation")
    images = Path(small_config.data.path)
    (images / held_back).rename(images / "class_0" / "new.png")
    for name in ("000.png", "001.png"):
        Image.new("RGB", (20, 20), "red").save(images / "class_1" / name)
    expected = [
        "1 image added (class_0/new.png)",
        f"1 image removed ({held_back})",
        "2 images changed (class_1/000.png, class_1/001.png)",
    ]
    assert changes_of(run_dir) == expected
    ours, ours_too = open_run(run_dir, anyway=True)
    assert "The data set has changed since this checkpoint was saved" in ours
    assert ours_too.endswith(f"changed since: {'; '.join(expected)}.")


def test_images_of_the_same_size_with_another_content_are_told_by_name(small_config: RunConfig, tmp_path: Path) -> None:
    run_dir = begin_and_save(small_config, tmp_path / "runs")
    changed = [Path(small_config.data.path) / "class_1" / f"00{number}.png" for number in range(4)]
    for path in changed:
        content = bytearray(path.read_bytes())
        Image.new("RGB", (20, 20), "red").save(path)
        # What follows the end of a PNG's data is not read.
        path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))
        assert path.stat().st_size == len(content)
    named = ", ".join(f"class_1/00{number}.png" for number in range(3))
    assert changes_of(run_dir) == [f"4 images changed ({named}, …)"]


def test_a_run_of_which_only_the_sizes_are_known_is_opened_without_a_word(
    small_config: RunConfig, tmp_path: Path
) -> None:
    run_dir = begin_and_save(small_config, tmp_path / "runs")
    rows = [row.rpartition(",")[0] for row in (run_dir / "split.csv").read_text().splitlines()]
    (run_dir / "split.csv").write_text("\n".join(rows))
    with RunFolder(run_dir, read_only=True) as folder:
        trainer, _ = preparation()._load_again(folder, small_config, lambda _: None, None)
    trainer.close()
    with closing(sqlite3.connect(run_dir / "run.db")) as db, db:
        sql = "UPDATE events SET body = json_set(body, '$.run.data_fingerprint', ?) WHERE kind = 'RunPrepared'"
        db.execute(sql, (trainer.data.fingerprints[1],))
    assert open_run(run_dir) == []


def test_other_libraries_arithmetic_and_weights_are_named_before_a_run_goes_on(
    small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "start.pt"
    torch.save(build(small_config).state_dict(), weights)
    model = small_config.model.model_copy(update={"weights": str(weights)})
    run_dir = begin_and_save(small_config.model_copy(update={"model": model}), tmp_path / "runs")
    torch.save(build(small_config, seed=1).state_dict(), weights)
    was = torch.__version__
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    config = (run_dir / "run.toml").read_text()
    (run_dir / "run.toml").write_text(config.replace('precision = "fp32"', 'precision = "bf16"'))
    expected = [
        "start.pt holds other weights (the run goes on with its own)",
        f"torch {was} → 2.99.0",
        "precision fp32 → bf16",
    ]
    assert changes_of(run_dir) == expected
    (told,) = open_run(run_dir, anyway=True)
    assert "; ".join(expected) in told
    # The checkpoint is still the one of then.
    assert changes_of(run_dir) == expected


def test_a_run_that_did_not_note_what_it_was_made_with_is_opened(small_config: RunConfig, tmp_path: Path) -> None:
    run_dir = begin_and_save(small_config, tmp_path / "runs")
    # As an earlier Thaw left it: no sizes in its split, and no versions.
    rows = [row.rpartition(",")[0].rpartition(",")[0] for row in (run_dir / "split.csv").read_text().splitlines()]
    (run_dir / "split.csv").write_text("\n".join(rows))
    with closing(sqlite3.connect(run_dir / "run.db")) as db, db:
        db.execute(
            "UPDATE events SET body = json_remove(body, '$.run.made_with', '$.run.data_fingerprint') "
            "WHERE kind = 'RunPrepared'"
        )
    assert open_run(run_dir) == []


def test_a_metric_that_the_task_does_not_report_is_refused_before_there_is_a_run(
    small_config: RunConfig, tmp_path: Path
) -> None:
    config = small_config.model_copy(update={"checkpoints": CheckpointsConfig(best_metric="mean_ap")})
    assert faults_of(config, tmp_path / "runs") == {
        "checkpoints.best_metric": "A run of the task multi_class with 3 classes does not report mean_ap, so that its "
        "best checkpoint cannot be told by that. Choose auto, loss, accuracy, f1 or auroc."
    }


def build(config: RunConfig, seed: int = 0) -> torch.nn.Module:
    return build_model(config.model, 3, seed, 32, lambda *_: None, lambda: None).module


def test_a_run_that_is_to_be_repeatable_refuses_operators_that_are_not_and_the_next_run_takes_any(
    small_config: RunConfig, tmp_path: Path
) -> None:
    training = small_config.training.model_copy(update={"deterministic": True})
    begin_and_save(small_config.model_copy(update={"training": training}), tmp_path / "runs")
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation") as refused:
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    assert failure_sentence(refused.value, 4) == (
        "The model's operator put_ cannot give the same to the bit each time on this device. Begin a new run with "
        "training.deterministic = false."
    )
    begin_and_save(small_config, tmp_path / "runs")
    assert torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))[0] == 1


def test_a_run_goes_on_from_a_checkpoint_that_was_cut_off_before_it_was_listed(
    small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RunFolderError("Cannot write run.db.")

    here = preparation()
    prepared = here.begin(small_config, tmp_path / "runs")
    prepared.folder.add_event(RunPrepared(run=prepared.info, step=0, epoch=0, segment=0))
    monkeypatch.setattr(prepared.folder.checkpoints, "add", fail)
    with pytest.raises(RunFolderError, match=r"Cannot write run\.db"):
        prepared.trainer.save(reason="stop")
    run_dir = leave(prepared, here.worker)
    again = here.open(run_dir, None, is_to_start=True)
    (info,) = again.folder.checkpoints.listed()
    leave(again, here.worker)
    assert [event.name for event in again.events if isinstance(event, CheckpointRestored)] == [info.name]
