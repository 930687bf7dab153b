"""Branching: a new run from a checkpoint of another one, whole by itself, and told as what it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import make_images
from tests.trainer.recorded_runs import record_run
from trainer.checkpoints import CheckpointStore
from trainer.config import (
    BranchConfig,
    ConfigError,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    config_to_toml,
    load_config,
)
from trainer.data.kept_split import read_split
from trainer.messages.events import LogWritten
from trainer.models import ModelError
from trainer.preparation import Preparation, PreparedRun
from trainer.run_list import branch_config, by_branch, list_runs
from trainer.run_record import RunFolderError, WorkerAddress
from trainer.runs import RunFolder


def preparation() -> Preparation:
    here = psutil.Process()
    worker = WorkerAddress("nowhere", b"", here.pid, here.create_time())
    return Preparation(worker, lambda _: None, lambda *_: None, lambda: None)


def end(prepared: PreparedRun) -> None:
    prepared.trainer.close()
    prepared.log.close()
    prepared.folder.remove_worker(preparation().worker)
    prepared.folder.close()


def with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})


@pytest.fixture
def parent(small_config: RunConfig, tmp_path: Path) -> Path:
    """Return a run of one epoch that unfroze a stage on its way."""
    steering = {2: lambda trainer: trainer.changes.unfreeze(["conv5"])}
    return record_run(with_epochs(small_config, 1), tmp_path / "runs", steering)


def content_of(run_dir: Path, name: str = "last") -> dict:
    with RunFolder(run_dir, read_only=True) as folder:
        return CheckpointStore(folder, read_only=True).load(folder.checkpoint(name))


def branch_of(run_dir: Path, **changes: object) -> RunConfig:
    with RunFolder(run_dir, read_only=True) as folder:
        return branch_config(folder.config(), run_dir, folder.checkpoint("last")).model_copy(update=changes)


def test_a_branch_begins_with_the_checkpoints_weights_and_all_else_anew(parent: Path, tmp_path: Path) -> None:
    prepared = preparation().begin(branch_of(parent), tmp_path / "runs")
    try:
        trainer, theirs = prepared.trainer, content_of(parent)
        own = trainer.module.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in theirs["model_state_dict"].items())
        assert (trainer.step, trainer.epoch, trainer.optimizer.state) == (0, 0, {})
        assert sorted(trainer.freeze_set.frozen) == theirs["freeze"]
        assert "conv5.0" not in theirs["freeze"]
        assert read_split(prepared.folder.path) == read_split(parent)
        (told,) = (event for event in prepared.events if isinstance(event, LogWritten))
        assert told.text.startswith("Branched from small-shufflenet_v2_x0_5, epoch 1. All ")
        assert told.text.endswith("tensors fit, the head's too.")
    finally:
        end(prepared)


def test_a_branch_outlives_its_parent_and_is_repeated_by_its_file_while_that_is_there(
    parent: Path, tmp_path: Path
) -> None:
    branch = record_run(branch_of(parent), tmp_path / "runs")
    again = record_run(load_config(branch / "run.toml"), tmp_path / "again")
    ours, theirs = content_of(branch)["model_state_dict"], content_of(again)["model_state_dict"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    at_start = torch.load(branch / "base.pt", weights_only=True)
    assert all(torch.equal(at_start[name], tensor) for name, tensor in content_of(parent)["model_state_dict"].items())
    (listed,) = (run for run in list_runs(tmp_path / "runs") if run.path == branch)
    assert (listed.parent, listed.branched_from) == (parent, "small-shufflenet_v2_x0_5, epoch 1")
    shutil.rmtree(parent)
    prepared = preparation().open(branch, None, is_to_start=True, num_epochs=2)
    try:
        assert prepared.trainer.epoch == 1
    finally:
        end(prepared)
    with pytest.raises(RunFolderError, match=r"The run to branch from is not at .*Put it back there"):
        preparation().begin(load_config(branch / "run.toml"), tmp_path / "third")


@pytest.mark.parametrize("num_classes", [3, 4])
def test_other_classes_get_a_new_head_which_is_told(parent: Path, tmp_path: Path, num_classes: int) -> None:
    data = make_images(tmp_path / "others", num_classes)
    for folder in list(data.iterdir()):
        folder.rename(data / f"other_{folder.name}")
    config = branch_of(parent)
    config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(data)})})
    prepared = preparation().begin(config, tmp_path / "runs")
    try:
        own, theirs = prepared.trainer.module.state_dict(), content_of(parent)["model_state_dict"]
        assert own["fc.weight"].shape[0] == num_classes
        assert own["fc.weight"].shape != theirs["fc.weight"].shape or not torch.equal(
            own["fc.weight"], theirs["fc.weight"]
        )
        assert all(torch.equal(own[name], tensor) for name, tensor in theirs.items() if not name.startswith("fc."))
        (told,) = (event for event in prepared.events if isinstance(event, LogWritten))
        assert f"the head begins anew. Its classes were others: 3, and here {num_classes}." in told.text
    finally:
        end(prepared)


def test_another_model_is_refused_and_leaves_no_run_behind(parent: Path, tmp_path: Path) -> None:
    config = branch_of(parent, model=ModelConfig(name="shufflenet_v2_x1_0", weights="random"))
    with pytest.raises(
        ModelError, match=r"small-shufflenet_v2_x0_5, epoch 1 does not fit shufflenet_v2_x1_0"
    ) as refused:
        preparation().begin(config, tmp_path / "other")
    assert refused.value.field == "model.name"
    assert not list((tmp_path / "other").glob("*"))


def test_the_optimizers_state_is_taken_where_it_is_asked_for_and_fits(parent: Path, tmp_path: Path) -> None:
    asked = branch_of(parent)
    assert asked.branch is not None
    branch = asked.branch.model_copy(update={"with_optimizer": True})
    slower = OptimizerConfig(rate=1e-5)
    prepared = preparation().begin(asked.model_copy(update={"branch": branch, "optimizer": slower}), tmp_path / "a")
    try:
        own = prepared.trainer.optimizer.state_dict()
        theirs = content_of(parent)["optimizer_state_dict"]["state"]
        assert own["state"].keys() == theirs.keys()
        assert all(torch.equal(own["state"][index]["exp_avg"], theirs[index]["exp_avg"]) for index in theirs)
        assert {group["lr"] for group in own["param_groups"]} == {1e-5}
        prepared.trainer.fit(lambda: None)
    finally:
        end(prepared)
    other = asked.model_copy(update={"branch": branch, "optimizer": OptimizerConfig(name="SGD")})
    with pytest.raises(ConfigError, match=r"is that of AdamW, and this run has SGD") as refused:
        preparation().begin(other, tmp_path / "b")
    assert refused.value.field == "optimizer.name"


def test_a_branch_in_a_file_is_found_from_beside_it_and_written_as_it_was_read(tmp_path: Path) -> None:
    config = RunConfig(branch=BranchConfig(run="runs/2026-11-20_153012_digits-resnet18", checkpoint="last"))
    (tmp_path / "run.toml").write_text(config_to_toml(config))
    read = load_config(tmp_path / "run.toml").branch
    assert read == BranchConfig(run=str(tmp_path / "runs/2026-11-20_153012_digits-resnet18"), checkpoint="last")


@pytest.mark.parametrize(
    ("checkpoint", "source"),
    [
        ("checkpoint_shufflenet_v2_x0_5_005_0.1551_0.9721.pt", "digits-resnet18, epoch 5"),
        ("checkpoint_resnet18_012_0.1551_0.9721_2.pt", "digits-resnet18, epoch 12"),
        ("checkpoint_resnet18_012_step000123.pt", "digits-resnet18, step 123"),
        ("best", "digits-resnet18, best"),
    ],
)
def test_what_a_run_branches_from_is_named_for_people(checkpoint: str, source: str) -> None:
    assert BranchConfig(run="runs/2026-11-20_153012_digits-resnet18", checkpoint=checkpoint).source == source


def test_branches_come_below_their_run_wherever_its_folder_is_by_now(parent: Path, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "runs", branch_of(parent)) as folder:
        branch = folder.path
    with RunFolder.create(tmp_path / "runs", branch_of(parent, name="of-the-branch")) as folder:
        last = folder.path
        moved = (last / "run.toml").read_text().replace(parent.name, branch.name)
        (last / "run.toml").write_text(moved)
    moved_dir = tmp_path / "moved"
    (tmp_path / "runs").rename(moved_dir)
    placed = [(run.path.name, depth) for run, depth in by_branch(list_runs(moved_dir))]
    assert placed == [(parent.name, 0), (branch.name, 1), (last.name, 2)]
