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
from trainer.messages.events import LogWritten, RunPrepared
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
        return CheckpointStore(folder, read_only=True).load(folder.checkpoints.find(name))


def branch_of(run_dir: Path, **changes: object) -> RunConfig:
    with RunFolder(run_dir, read_only=True) as folder:
        return branch_config(folder.config(), run_dir, folder.checkpoints.find("last")).model_copy(update=changes)


def test_a_branch_begins_with_the_checkpoints_weights_and_all_else_anew(parent: Path, tmp_path: Path) -> None:
    prepared = preparation().begin(branch_of(parent), tmp_path / "runs")
    try:
        trainer, theirs = prepared.trainer, content_of(parent)
        own = trainer.module.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in theirs["model_state_dict"].items())
        assert (trainer.step, trainer.epoch, trainer.optimizer.state) == (0, 0, {})
        assert sorted(trainer.freeze_set.frozen) == theirs["freeze"]
        assert "conv5.0" not in theirs["freeze"]
        # By the fewest names, of which the checkpoint has a hundred.
        kept = load_config(prepared.folder.path / "run.toml").model.frozen
        assert kept == trainer.config.model.frozen == ["conv1", "stage2", "stage3", "stage4"]
        assert read_split(prepared.folder.path) == read_split(parent)
        (told,) = (event for event in prepared.events if isinstance(event, LogWritten))
        assert told.text.startswith("Branched from small-shufflenet_v2_x0_5, epoch 1. All ")
        assert told.text.endswith("tensors fit, the head's too.")
    finally:
        end(prepared)


def test_a_branch_has_the_rates_and_the_adapting_statistics_of_its_checkpoint(
    small_config: RunConfig, tmp_path: Path
) -> None:
    """Also where the run's own configuration says another thing of them."""
    optimizer = OptimizerConfig(multipliers={"conv1": 0.5})
    config = with_epochs(small_config, 1).model_copy(update={"optimizer": optimizer})
    steering = {
        1: lambda trainer: trainer.changes.set_rate_multiplier(["stage4"], 0.4),
        2: lambda trainer: trainer.changes.set_rate_multiplier(["conv1"], 1),
        3: lambda trainer: trainer.changes.set_batchnorm(["stage3"], is_adapting=True),
    }
    parent = record_run(config, tmp_path / "runs", steering)
    prepared = preparation().begin(branch_of(parent), tmp_path / "runs")
    try:
        trainer, theirs = prepared.trainer, content_of(parent)
        assert trainer.freeze_set.adapting == set(theirs["adapting"]) != set()
        assert trainer.rates.multipliers == dict.fromkeys(trainer.freeze_set.resolve_units(["stage4"]), 0.4)
        for config in (prepared.trainer.config, load_config(prepared.folder.path / "run.toml")):
            assert (config.model.batchnorm, config.model.adapting) == ("frozen", ["stage3"])
            assert config.optimizer.multipliers == {"stage4": 0.4}
    finally:
        end(prepared)


def test_a_checkpoint_of_an_earlier_thaw_leaves_a_branch_the_rates_of_the_run(parent: Path) -> None:
    with RunFolder(parent, read_only=True) as folder:
        optimizer, info = OptimizerConfig(multipliers={"conv1": 0.5}), folder.checkpoints.find("last")
        config = folder.config().model_copy(update={"optimizer": optimizer})
    earlier = info.model_copy(update={"multipliers": None, "adapting": None})
    branch = branch_config(config, parent, earlier)
    assert (branch.optimizer, branch.model.adapting) == (optimizer, config.model.adapting)


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


def test_a_branch_names_no_file_of_weights_that_only_its_parent_has_read(parent: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(torch.load(parent / "base.pt", weights_only=True), file)
    config = branch_of(parent)
    from_file = config.model_copy(update={"model": config.model.model_copy(update={"weights": str(file)})})
    branch = record_run(from_file, tmp_path / "runs")
    assert str(file) not in (branch / "run.toml").read_text(encoding="utf-8")
    assert load_config(branch / "run.toml").branch == config.branch
    plain = record_run(config, tmp_path / "plain")
    ours, theirs = content_of(branch)["model_state_dict"], content_of(plain)["model_state_dict"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # One that an earlier Thaw began does not ask for the file back when it is resumed.
    (branch / "run.toml").write_text(config_to_toml(from_file), encoding="utf-8")
    with RunFolder(branch) as folder:
        run = folder.run_info().model_copy(update={"config": from_file, "weights_sha256": "0" * 64})
        folder.add_event(RunPrepared(run=run, step=0, epoch=0))
    end(preparation().open(branch, None, is_to_start=True, num_epochs=2))


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


def test_a_branch_that_is_killed_before_its_first_step_goes_on_with_the_optimizers_state(
    parent: Path, tmp_path: Path
) -> None:
    asked = branch_of(parent)
    assert asked.branch is not None
    branch = asked.branch.model_copy(update={"with_optimizer": True})
    prepared = preparation().begin(asked.model_copy(update={"branch": branch}), tmp_path / "a")
    # As the worker does once the run is told.
    prepared.trainer.save_if_due()
    prepared.trainer.settle()
    (saved,) = prepared.folder.checkpoints.listed()
    assert (saved.step, saved.reason) == (0, "branch")
    end(prepared)
    again = preparation().open(prepared.folder.path, None, is_to_start=True)
    try:
        theirs = content_of(parent)["optimizer_state_dict"]["state"]
        own = again.trainer.optimizer.state_dict()["state"]
        assert theirs
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[index]["exp_avg"], theirs[index]["exp_avg"]) for index in theirs)
        again.trainer.save_if_due()
        assert again.folder.checkpoints.listed() == [saved]
    finally:
        end(again)


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
