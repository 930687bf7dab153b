"""Retention: which checkpoints are kept and why, as a function of their rows; and what a run then has on the disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_loop import Make, make_trainer
from trainer.checkpoint_list import delete_checkpoints
from trainer.checkpoints import CheckpointStore, size_of
from trainer.config import CheckpointsConfig, RunConfig
from trainer.loop import RunStopped
from trainer.messages.events import CheckpointSaved, CheckpointsDeleted, LogWritten
from trainer.messages.run_info import CheckpointInfo
from trainer.retention import most_bytes, superfluous, why_kept
from trainer.run_record import best_checkpoint

__all__ = ["make_trainer"]

MB = 1_000_000


def info(epoch: int, loss: float | None = None, **changes: object) -> CheckpointInfo:
    values: dict[str, object] = {
        "name": f"{epoch}.pt",
        "epoch": epoch,
        "step": 10 * epoch,
        "loss": loss,
        "accuracy": None if loss is None else 0.5,
        "frozen": ["backbone"],
        "frozen_summary": "backbone",
        "size_bytes": MB,
        "sha256": "",
        "saved_at": float(epoch),
        "reason": "epoch",
        "segment": 0,
    }
    return CheckpointInfo.model_validate({**values, **changes})


def of_losses(*losses: float) -> list[CheckpointInfo]:
    return [info(epoch, loss) for epoch, loss in enumerate(losses, start=1)]


def kept(listed: Sequence[CheckpointInfo], **rules: object) -> list[int]:
    gone = superfluous(listed, CheckpointsConfig(**rules), "loss", listed[-1].name)
    return [each.epoch for each in listed if each not in gone]


def test_without_a_rule_all_are_kept() -> None:
    assert kept(of_losses(3, 2, 1, 4)) == [1, 2, 3, 4]


def test_a_limit_of_one_keeps_exactly_one() -> None:
    assert kept(of_losses(4, 3, 2, 1), keep_last=1) == [4]
    assert kept(of_losses(4, 3, 2, 1), keep_best=1) == [4]
    # The best one is what the end of the run restores and tests.
    assert kept(of_losses(1, 2, 3, 4), keep_last=1) == [1, 4]


def test_a_nan_ranks_last_and_one_that_was_not_validated_is_none_of_the_best() -> None:
    listed = [info(1, math.nan), info(2, 5.0), info(3, 1.0), info(4, math.nan), info(5)]
    reasons = why_kept(listed, CheckpointsConfig(keep_best=3), "loss", "5.pt")
    assert {name: why for name, why in reasons.items() if why} == {
        "2.pt": ["best"],
        "3.pt": ["best"],
        "5.pt": ["resume point", "last"],
    }


def test_the_best_k_are_kept_by_the_metric_that_is_chosen() -> None:
    areas = [0.7, 0.9, None, 0.8, 0.6]
    listed = [
        info(epoch, float(epoch), metrics={} if area is None else {"AUROC/validation": area})
        for epoch, area in enumerate(areas, start=1)
    ]
    gone = superfluous(listed, CheckpointsConfig(keep_best=2, best_metric="auroc"), "auroc", "5.pt")
    assert [each.epoch for each in listed if each not in gone] == [2, 4, 5]
    budget = CheckpointsConfig(keep_best=3, best_metric="auroc", disk_gb=0.0041)
    gone = superfluous(listed, budget, "auroc", "5.pt")
    assert [each.epoch for each in listed if each not in gone] == [2, 4, 5], "the worst of them goes first"


def test_each_rule_keeps_its_own_and_says_so() -> None:
    listed = of_losses(9, 8, 7, 6, 5, 4, 3, 2)
    listed[0] = info(1, 9, is_pinned=True)
    listed[1] = info(2, 8, reason="user")
    listed[4:] = [each.model_copy(update={"frozen": []}) for each in listed[4:]]
    listed.insert(6, info(60, name="within.pt", reason="periodic", saved_at=6.5))
    reasons = why_kept(listed, CheckpointsConfig(keep_last=2, keep_best=1, every_epochs=3), "loss", "8.pt")
    assert reasons == {
        "1.pt": ["pinned"],
        "2.pt": ["saved by hand"],
        "3.pt": ["every n epochs"],
        "4.pt": ["before a change"],
        "5.pt": [],
        "6.pt": ["every n epochs"],
        "within.pt": [],
        "7.pt": ["last"],
        "8.pt": ["resume point", "best", "last"],
    }
    without = why_kept(listed, CheckpointsConfig(keep_last=2, before_changes=False), "loss", "8.pt")
    assert without["4.pt"] == []


def test_of_those_within_an_epoch_only_the_one_to_resume_from_is_kept() -> None:
    listed = [info(1, 2.0), *(info(n, name=f"within{n}.pt", reason="periodic", saved_at=n) for n in (2, 3))]
    assert [each.name for each in superfluous(listed, CheckpointsConfig(), "loss", "within3.pt")] == ["within2.pt"]
    listed.append(info(4, 1.0))
    gone = superfluous(listed, CheckpointsConfig(), "loss", "4.pt")
    assert [each.name for each in gone] == ["within2.pt", "within3.pt"]


def test_near_the_budget_those_that_no_rule_asks_for_go_first_and_then_the_least_of_the_others() -> None:
    listed = of_losses(1, 2, 6, 5, 4, 3)
    # With room for the next one: five of 1 MB and it.
    assert kept(listed, disk_gb=0.007) == [1, 2, 3, 4, 5, 6]
    assert kept(listed, disk_gb=0.006) == [1, 3, 4, 5, 6]
    assert kept(listed, keep_last=3, keep_best=2, every_epochs=3, disk_gb=0.0051) == [1, 2, 5, 6]
    assert kept(listed, keep_last=3, keep_best=2, every_epochs=3, disk_gb=0.0041) == [1, 2, 6]
    # The best and the newest stay whatever it is.
    assert kept(listed, keep_last=3, disk_gb=0.001) == [1, 6]
    listed[1] = info(2, 2.0, is_pinned=True)
    assert kept(listed, keep_last=3, disk_gb=0.001) == [1, 2, 6]


@settings(max_examples=100, deadline=None)
@given(
    losses=st.lists(st.one_of(st.none(), st.just(math.nan), st.floats(-5, 5)), min_size=1, max_size=12),
    keep_last=st.one_of(st.none(), st.integers(1, 4)),
    keep_best=st.one_of(st.none(), st.integers(1, 4)),
    disk_gb=st.one_of(st.none(), st.floats(0.0005, 0.02)),
    data=st.data(),
)
def test_the_newest_the_best_the_pinned_and_the_one_to_resume_from_are_never_deleted(
    losses: list[float | None], keep_last: int | None, keep_best: int | None, disk_gb: float | None, data: st.DataObject
) -> None:
    listed = [info(epoch, loss, is_pinned=data.draw(st.booleans())) for epoch, loss in enumerate(losses, start=1)]
    point = data.draw(st.sampled_from(listed)).name
    rules = CheckpointsConfig(keep_last=keep_last, keep_best=keep_best, disk_gb=disk_gb)
    gone = {each.name for each in superfluous(listed, rules, "loss", point)}
    assert point not in gone
    assert gone.isdisjoint(each.name for each in listed if each.is_pinned)
    numbers = [loss for loss in losses if loss is not None and not math.isnan(loss)]
    if numbers:
        assert listed[losses.index(min(numbers))].name not in gone
    # Deleting again what is left of them deletes no more, where no budget presses.
    left = [each for each in listed if each.name not in gone]
    if disk_gb is None:
        assert superfluous(left, rules, "loss", point) == []


def test_what_is_to_be_kept_is_reckoned_before_the_run() -> None:
    sizes = [MB] * 10 + [3 * MB] * 10
    assert most_bytes(sizes, CheckpointsConfig(), 0) == 40 * MB
    assert most_bytes(sizes, CheckpointsConfig(disk_gb=0.02), MB) == 19 * MB
    # The best (the first), the one before the change, the last two, and the next one while both are there.
    assert most_bytes(sizes, CheckpointsConfig(keep_last=2), 0) == (1 + 1 + 3 + 3 + 3) * MB


# -- with real files ------------------------------------------------------------------------------------------


def with_rules(config: RunConfig, **rules: object) -> RunConfig:
    return config.model_copy(update={"checkpoints": CheckpointsConfig(**rules)})


def names_on_disk(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_a_run_deletes_what_no_rule_keeps_and_only_after_the_newer_one_is_durable(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(with_rules(small_config, keep_last=1))
    trainer.fit(lambda: None)
    folder = trainer._folder
    told = [event for event in events if isinstance(event, CheckpointSaved | CheckpointsDeleted)]
    assert isinstance(told[0], CheckpointSaved)
    listed = folder.checkpoints.listed()
    saved = [event.checkpoint for event in told if isinstance(event, CheckpointSaved)]
    best = best_checkpoint(saved, trainer.best_metric)
    assert best is not None
    assert {each.name for each in listed} == {best.name, saved[-1].name}
    assert listed[-1].epoch == 3
    assert names_on_disk(folder.path) == sorted(each.name for each in listed)
    deleted = [name for event in told if isinstance(event, CheckpointsDeleted) for name in event.names]
    assert len(deleted) + len(listed) == 3
    assert all(trainer._store.load(each)["step"] == each.step for each in listed)
    assert folder.checkpoints.half_deleted() == []


@pytest.mark.parametrize("often", [{"every_steps": 1, "every_minutes": None}, {"every_minutes": 1e-6}])
def test_within_an_epoch_the_newest_point_is_kept_and_a_killed_run_ends_as_the_straight_one(
    make_trainer: Make, small_config: RunConfig, often: dict[str, Any]
) -> None:
    config = with_rules(small_config, **often)
    straight, _ = make_trainer(with_rules(small_config, every_minutes=None))
    straight.fit(lambda: None)
    first, _ = make_trainer(config)

    def kill() -> None:
        first._writer.finish()
        if first.step == 7:
            raise RunStopped

    with pytest.raises(RunStopped):
        first.fit(kill)
    folder = first._folder
    assert [(each.step, each.reason) for each in folder.checkpoints.listed()] == [(4, "epoch"), (6, "periodic")]
    assert len(names_on_disk(folder.path)) == 2
    second, _ = make_trainer(config)
    point = folder.checkpoints.resume_point()
    assert point is not None
    assert point.step == 6
    second.go_on(folder, point)
    second.fit(lambda: None)
    ours, theirs = second.module.state_dict(), straight.module.state_dict()
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert [each.reason for each in folder.checkpoints.listed()] == ["epoch"] * 3


def test_near_its_budget_a_run_warns_once_then_thins_and_goes_on(make_trainer: Make, small_config: RunConfig) -> None:
    probe, _ = make_trainer(small_config)
    probe.fit(lambda: None)
    size_bytes, base_bytes = probe._folder.checkpoints.listed()[-1].size_bytes, probe._folder.base_path.stat().st_size
    rules = {"disk_gb": (base_bytes + 3.5 * size_bytes) / 1e9, "every_minutes": None}
    config = with_rules(small_config, **rules)
    training = config.training.model_copy(update={"epochs": 6})
    trainer, events = make_trainer(config.model_copy(update={"training": training}))
    trainer.fit(lambda: None)
    warnings = [event.text for event in events if isinstance(event, LogWritten) and event.level == "warning"]
    assert [text for text in warnings if "disk_gb" in text] == warnings
    assert len(warnings) == 1
    first = next(position for position, event in enumerate(events) if isinstance(event, CheckpointsDeleted))
    assert "older ones go" in warnings[0]
    assert any(isinstance(event, LogWritten) and event.level == "warning" for event in events[:first])
    on_disk = sum(path.stat().st_size for path in (trainer._folder.path / "checkpoints").iterdir())
    assert base_bytes + on_disk <= rules["disk_gb"] * 1e9
    assert trainer._folder.checkpoints.listed()[-1].epoch == 6


@pytest.mark.parametrize("killed_at", ["before the files", "after the files"])
def test_a_kill_in_mid_deletion_leaves_no_row_without_a_file_and_no_file_after_the_next_opening(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    trainer, _ = make_trainer(small_config)
    infos = [trainer.save(reason="user") for _ in range(3)]
    folder = trainer._folder
    with monkeypatch.context() as patch:
        if killed_at == "after the files":
            patch.setattr(folder.checkpoints, "end_deleting", kill)
        with pytest.raises(Killed):
            delete_checkpoints(
                folder, [info.name for info in infos[:2]], kill if killed_at == "before the files" else Path.unlink
            )
    assert folder.checkpoints.listed() == infos[2:]
    assert all(folder.checkpoints.problem_of(each) == "" for each in folder.checkpoints.listed())
    store = CheckpointStore(folder)
    assert names_on_disk(folder.path) == [infos[2].name]
    assert folder.checkpoints.half_deleted() == []
    assert store.load(infos[2])["step"] == 0


def test_a_file_that_cannot_be_deleted_stays_listed_is_told_once_and_goes_after_a_later_save(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(with_rules(small_config, keep_last=1, before_changes=False))
    folder = trainer._folder

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.saving.delete_checkpoints", partial(delete_checkpoints, discard=refuse))
        for _ in range(3):
            trainer.save(reason="stop")
        trainer.settle()
        trainer._writer.finish()
    warnings = [event.text for event in events if isinstance(event, LogWritten) and event.level == "warning"]
    assert len(warnings) == 1
    assert "Permission denied" in warnings[0]
    assert not [event for event in events if isinstance(event, CheckpointsDeleted)]
    assert sorted(each.name for each in folder.checkpoints.listed()) == names_on_disk(folder.path)
    assert len(folder.checkpoints.listed()) == 3
    last = trainer.save(reason="stop")
    assert [each.name for each in folder.checkpoints.listed()] == [last.name]
    assert names_on_disk(folder.path) == [last.name]


def test_a_self_contained_file_needs_no_base_and_loads_in_plain_pytorch(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(with_rules(small_config, self_contained=True))
    compact, _ = make_trainer(small_config)
    saved = trainer.save(reason="user")
    assert saved.size_bytes > compact.save(reason="user").size_bytes
    trainer._folder.base_path.unlink()
    content = CheckpointStore(trainer._folder).load(saved)
    assert content["model_state_dict"].keys() == trainer.module.state_dict().keys()
    trainer.module.load_state_dict(content["model_state_dict"])


def test_the_checkpoints_of_a_frozen_backbone_take_hardly_more_than_one_file_and_what_their_heads_are(
    make_trainer: Make, small_config: RunConfig
) -> None:
    """The promise is of a hundred, within a twentieth of one file; here it is of twenty, within a hundredth."""
    config = small_config.model_copy(
        update={"model": small_config.model.model_copy(update={"name": "resnet18", "weights": "random"})}
    )
    trainer, _ = make_trainer(config)
    whole, _ = make_trainer(with_rules(config, self_contained=True))
    head = [parameter for parameter in trainer.module.parameters() if parameter.requires_grad]
    folder = trainer._folder
    own_bytes = 0
    for _ in range(20):
        for parameter in head:
            parameter.grad = torch.rand_like(parameter)
        trainer.optimizer.step()
        trainer.save(reason="user")
        own_bytes += size_of([dict(trainer.optimizer.state_dict()), [parameter.detach() for parameter in head]])
    total = folder.base_path.stat().st_size + sum(info.size_bytes for info in folder.checkpoints.listed())
    one = whole.save(reason="user").size_bytes
    assert one > 40 * MB
    assert total - own_bytes <= 1.01 * one
