"""What a run will need, reckoned before it begins: near to what it then needs, and without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.config import OptimizerConfig, PlanPhase, RunConfig
from trainer.freezing import hash_layer
from trainer.preparation import Preparation, PreparationCancelled
from trainer.run_record import WorkerAddress


def preparation(check_cancelled=lambda: None) -> Preparation:
    return Preparation(WorkerAddress("nowhere", b"", 1, 0.0), lambda _: None, lambda *_: None, check_cancelled)


def with_model(config: RunConfig, **changes: object) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("frozen", [["backbone"], []])
def test_the_disk_that_a_run_needs_is_reckoned_to_a_few_percent(
    small_config: RunConfig, tmp_path: Path, optimizer: str, frozen: list[str]
) -> None:
    config = with_model(small_config, frozen=frozen).model_copy(
        update={"optimizer": OptimizerConfig(name=optimizer), "plan": [PlanPhase(epoch=2, unfreeze=["conv5"])]}
    )
    prepared = preparation()
    estimate = prepared.estimate(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    run = prepared.begin(config, tmp_path / "runs")
    run.trainer.fit(lambda: None)
    sizes = [info.size_bytes for info in run.folder.checkpoints()]
    base, kept = run.folder.base_path.stat().st_size, run.trainer.data.store_bytes
    run.trainer.close()
    run.folder.close()
    assert len(sizes) == estimate.num_epochs == 3
    assert estimate.checkpoint_bytes == pytest.approx(max(sizes), rel=0.05, abs=30_000)
    assert estimate.disk_bytes == pytest.approx(sum(sizes) + base + kept, rel=0.05, abs=150_000)
    assert estimate.free_bytes > 0


def test_time_and_memory_are_measured(small_config: RunConfig, tmp_path: Path) -> None:
    estimate = preparation().estimate(small_config, tmp_path)
    assert 0 < estimate.step_ms < 60_000
    assert estimate.seconds_per_epoch >= 4 * estimate.step_ms / 1000
    assert estimate.memory_bytes > 50_000_000
    assert estimate.device == "cpu"


def test_a_run_is_the_same_to_the_bit_whether_it_was_tried_before_or_not(
    small_config: RunConfig, tmp_path: Path
) -> None:
    def trained(name: str, *, is_tried: bool) -> str:
        prepared = preparation()
        if is_tried:
            prepared.estimate(small_config, tmp_path)
        run = prepared.begin(small_config, tmp_path / name)
        run.trainer.fit(lambda: None)
        run.trainer.close()
        run.folder.close()
        return "".join(hash_layer(child) for child in run.trainer.module.modules())

    assert trained("tried", is_tried=True) == trained("not", is_tried=False)


def test_a_trial_ends_when_it_is_cancelled(small_config: RunConfig, tmp_path: Path) -> None:
    steps = []

    def cancel() -> None:
        steps.append(torch.get_num_threads())
        if len(steps) > 8:
            raise PreparationCancelled

    with pytest.raises(PreparationCancelled):
        preparation(cancel).estimate(small_config, tmp_path)
