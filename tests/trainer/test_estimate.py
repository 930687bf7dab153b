"""What a run will need, reckoned before it begins: near to what it then needs, and without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

import trainer.preparation
from trainer.config import CheckpointsConfig, ConfigError, OptimizerConfig, PlanPhase, RunConfig
from trainer.estimate import check_no_run_uses
from trainer.freezing import hash_layer
from trainer.look_ups import answer
from trainer.messages.commands import EstimateRun, FindRate
from trainer.messages.events import RunPrepared, StateChanged
from trainer.messages.model_info import ModelSummary
from trainer.messages.run_info import RunInfo
from trainer.messages.states import RunState
from trainer.preparation import Preparation, PreparationCancelled
from trainer.record_store import MAX_CHOSEN_BYTES
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder


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
    sizes = [info.size_bytes for info in run.folder.checkpoints.listed()]
    base, kept = run.folder.base_path.stat().st_size, run.trainer.data.store_bytes
    run.trainer.close()
    run.folder.close()
    assert len(sizes) == estimate.num_epochs == 3
    assert estimate.checkpoint_bytes == pytest.approx(max(sizes), rel=0.05, abs=30_000)
    assert estimate.disk_bytes == pytest.approx(sum(sizes) + base + kept, rel=0.05, abs=150_000)
    assert estimate.free_bytes > 0
    assert estimate.kept_bytes == estimate.decoded_bytes == kept > 0
    assert kept < estimate.budget_bytes <= MAX_CHOSEN_BYTES
    assert estimate.unfreezes is bool(frozen), "all are trained from the first step on, or conv5 later"


def test_a_trial_refuses_a_file_of_weights_that_the_run_could_not_begin_with(
    small_config: RunConfig, tmp_path: Path
) -> None:
    config = with_model(small_config, weights=str(tmp_path / "gone.pt"))
    with pytest.raises(ValueError, match=r"There is no weights file .*gone.pt") as refused:
        preparation().estimate(config, tmp_path / "runs")
    assert refused.value.field == "model.weights"


@pytest.mark.slow
def test_the_need_of_the_disk_follows_the_rules_for_checkpoints(small_config: RunConfig, tmp_path: Path) -> None:
    def estimated(**rules: object) -> tuple[int, int]:
        config = small_config.model_copy(update={"checkpoints": CheckpointsConfig(**rules)})
        estimate = preparation().estimate(config, tmp_path / "runs")
        return estimate.disk_bytes, estimate.checkpoint_bytes

    every, compact = estimated(every_minutes=None)
    whole, contained = estimated(every_minutes=None, self_contained=True)
    assert whole - every == 3 * (contained - compact) > 3_000_000
    assert estimated(every_minutes=None, every_steps=1) == (every + compact, compact)
    # The decoded images are beside that budget.
    assert estimated(every_minutes=None, disk_gb=0.001)[0] == every - 3 * compact
    config = small_config.model_copy(update={"checkpoints": CheckpointsConfig(self_contained=True)})
    run = preparation().begin(config, tmp_path / "runs")
    run.trainer.fit(lambda: None)
    sizes = [info.size_bytes for info in run.folder.checkpoints.listed()]
    run.trainer.close()
    run.folder.close()
    assert contained == pytest.approx(max(sizes), rel=0.05)


def test_images_that_will_not_be_kept_are_reckoned(small_config: RunConfig, tmp_path: Path) -> None:
    # 36 images of 32 pixels and a margin, three bytes each.
    part_gb = 60_000 / 1e9
    config = small_config.model_copy(update={"data": small_config.data.model_copy(update={"cache_gb": part_gb})})
    estimate = preparation().estimate(config, tmp_path)
    assert 36 * 3 * 32 * 32 < estimate.decoded_bytes < 36 * 3 * 38 * 38
    assert 50_000 < estimate.kept_bytes <= estimate.budget_bytes == 60_000


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


# -- beside a run on the same GPU -----------------------------------------------------------------------------


def is_refused(device: str, runs_dir: Path) -> bool:
    with suppress(ValueError):
        check_no_run_uses(torch.device(device), runs_dir)
        return False
    return True


def on_device(config: RunConfig, device: str) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"device": device})})


@pytest.fixture
def ours() -> WorkerAddress:
    process = psutil.Process()
    return WorkerAddress("nowhere", b"key", process.pid, process.create_time())


@pytest.fixture
def gpu_run(small_config: RunConfig, tmp_path: Path, ours: WorkerAddress) -> Iterator[RunFolder]:
    """Return a run that is under way on the GPU cuda:1, with this process as its worker."""
    info = RunInfo(
        run_dir="", config=small_config, summary=ModelSummary(model="", layers=[], frozen=[], num_params=0,
        num_trainable=0), class_names=[], num_train=0, num_validation=0, num_skipped=0, steps_per_epoch=1,
        total_steps=1, device="cuda:1", precision="fp32", num_threads=1, image_size=32,
    )  # fmt: skip
    with RunFolder.create(tmp_path / "runs", on_device(small_config, "auto")) as folder:
        folder.claim(ours)
        folder.add_event(RunPrepared(run=info, step=0, epoch=0, segment=0))
        folder.add_event(StateChanged(state=RunState.RUNNING))
        yield folder


def test_no_trial_is_made_on_the_gpu_of_a_live_run(gpu_run: RunFolder) -> None:
    runs_dir = gpu_run.path.parent
    with pytest.raises(ValueError, match=rf"^No trial was made, because the run {gpu_run.path.name} uses cuda:1 and"):
        check_no_run_uses(torch.device("cuda:1"), runs_dir)
    assert not is_refused("cuda:0", runs_dir)
    assert not is_refused("cpu", runs_dir)
    gpu_run.add_event(StateChanged(state=RunState.PAUSED))
    assert is_refused("cuda:1", runs_dir)


def test_a_run_that_has_ended_or_lost_its_worker_is_no_hindrance(gpu_run: RunFolder, ours: WorkerAddress) -> None:
    gpu_run.remove_worker(ours)
    assert not is_refused("cuda:1", gpu_run.path.parent)
    gpu_run.claim(ours)
    assert is_refused("cuda:1", gpu_run.path.parent)
    gpu_run.add_event(StateChanged(state=RunState.FINISHED))
    assert not is_refused("cuda:1", gpu_run.path.parent)
    assert not is_refused("cuda:1", gpu_run.path.parent / "nowhere")


@pytest.mark.parametrize(
    ("asked_for", "hinders"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "")]
)
def test_a_run_that_is_still_being_prepared_counts_by_what_it_asks_for(
    small_config: RunConfig, tmp_path: Path, ours: WorkerAddress, asked_for: str, hinders: str
) -> None:
    with RunFolder.create(tmp_path / "runs", on_device(small_config, asked_for)) as folder:
        folder.claim(ours)
    assert [device for device in ("cpu", "cuda:0", "cuda:1") if is_refused(device, tmp_path / "runs")] == (
        [hinders] if hinders else []
    )


def test_a_refused_trial_has_touched_neither_data_nor_gpu(
    gpu_run: RunFolder, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There need be no GPU: it is refused before one is asked for anything.
    monkeypatch.setattr(trainer.preparation, "choose_device", lambda _: torch.device("cuda:1"))
    monkeypatch.setattr(Preparation, "scan", lambda *_: pytest.fail("the data were looked through"))
    with pytest.raises(ValueError, match="No trial was made"):
        preparation().estimate(small_config, gpu_run.path.parent)


@pytest.mark.parametrize("kind", [EstimateRun, FindRate])
def test_a_trial_that_finds_no_memory_says_which_field_to_change(
    small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    def backward(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("trainer.loop.Trainer._backward", backward)
    with pytest.raises(ConfigError, match=r"ran out of memory\. Choose a smaller batch") as caught:
        answer(kind(config=small_config, runs_dir=str(tmp_path / "runs")), preparation())
    assert caught.value.field == "training.batch_size"
