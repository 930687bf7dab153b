"""A real worker: states, freezing at a known step, saving, restoring, several clients, kill and resume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from tests.integration.conftest import Driver
from trainer.client import RunOpened, WorkerLost
from trainer.config import DataConfig, PlanPhase, RunConfig
from trainer.data_report import DataReport
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.commands import (
    ALLOWED_COMMANDS,
    CancelLookUp,
    ChangeTraining,
    CheckData,
    DeleteCheckpoints,
    EditCheckpoint,
    EstimateRun,
    FindRate,
    FreezeLayers,
    InspectModel,
    ListModels,
    OpenRun,
    PauseRun,
    PrepareRun,
    PreviewImage,
    PutCheckpointsBack,
    RestoreCheckpoint,
    Rewind,
    SaveCheckpoint,
    SetBatchNorm,
    SetPlan,
    SetRate,
    SetRateMultiplier,
    StartRun,
    StopRun,
    UnfreezeLayers,
    UnpauseRun,
)
from trainer.messages.events import (
    CheckpointEdited,
    CheckpointSaved,
    CheckpointsDeleted,
    CheckpointsPutBack,
    CommandRejected,
    DataChecked,
    FeaturesCached,
    FreezeVerified,
    ImagePreviewed,
    LayerStatsReported,
    LogWritten,
    MetricsLogged,
    ModelInspected,
    ModelsListed,
    PreparationProgressed,
    ProgressReported,
    RateFound,
    RewindsKept,
    RunEstimated,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.run_info import CheckpointInfo
from trainer.messages.states import RunState
from trainer.runs import RunFolder
from trainer.tensor_bytes import is_same
from trainer.worker import LOOK_UP_CANCELLED

Start = Callable[[], Driver]


def longer(config: RunConfig, epochs: int = 500) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})


def points(driver: Driver, tag: str) -> list[tuple[int, float]]:
    return [
        point
        for event in driver.seen
        if isinstance(event, MetricsLogged) and tag in event.series
        for point in zip(event.series[tag].steps, event.series[tag].values, strict=True)
    ]


def test_a_run_goes_from_prepared_to_finished_and_everything_it_said_is_in_its_folder(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    run_dir = driver.prepare(small_config, tmp_path / "runs")
    driver.wait_state(RunState.FINISHED)
    states = [event.state for event in driver.seen if isinstance(event, StateChanged)]
    assert states == [RunState.IDLE, RunState.PREPARING, RunState.READY, RunState.RUNNING, RunState.FINISHED]
    saved = [event.checkpoint for event in driver.seen if isinstance(event, CheckpointSaved)]
    assert [info.epoch for info in saved] == [1, 2, 3]
    assert all(info.frozen_summary == "backbone" for info in saved)
    assert all(event.drifted == [] for event in driver.seen if isinstance(event, FreezeVerified))
    with RunFolder(run_dir, read_only=True) as folder:
        record = folder.read()
    assert record.checkpoints == saved
    cached = driver.wait(FeaturesCached)
    assert (cached.sentence, cached.views, cached.reason) == ("backbone", 2, "")
    assert [event.layers for event in record.log if isinstance(event, FeaturesCached)] == [cached.layers]
    shares = [event.cached_share for event in driver.seen if isinstance(event, ProgressReported)]
    assert 1 in shares, "the last batch of an epoch has computed the last features of its view"
    stats = [event for event in driver.seen if isinstance(event, LayerStatsReported)]
    assert record.layer_stats == stats[-1]
    for tag in ("Loss/train", "Accuracy/train", "Loss/validation", "Accuracy/validation", "Learning rate"):
        curve = record.curves[tag]
        assert list(zip(curve.steps, curve.values, strict=True)) == points(driver, tag)
    # 27 training images in batches of 8: the last batch has 3.
    assert list(record.curves["Loss/train"].steps) == list(range(1, 13))
    assert list(record.curves["Loss/validation"].steps) == [4, 8, 12]


@pytest.mark.slow
def test_a_checkpoint_is_read_by_plain_pytorch_with_the_documented_keys(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    run_dir = driver.prepare(longer(small_config, 1), tmp_path / "runs")
    driver.wait_state(RunState.FINISHED)
    (path,) = (run_dir / "checkpoints").iterdir()
    script = (
        "import sys, torch, torchvision\n"
        "checkpoint = torch.load(sys.argv[2], weights_only=True)\n"
        "model = torchvision.models.shufflenet_v2_x0_5(num_classes=len(checkpoint['class_names']))\n"
        "base = torch.load(sys.argv[1], weights_only=True)\n"
        "base.update(checkpoint['model_state_dict'])\n"
        "model.load_state_dict(base)\n"
        "assert not any(name.split('.')[0] in ('trainer', 'app') for name in sys.modules)\n"
        "print(sorted(checkpoint))\n"
    )
    command = [sys.executable, "-c", script, str(run_dir / "base.pt"), str(path)]
    keys = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    for key in (
        "epoch", "model_state_dict", "optimizer_state_dict", "loss", "step", "metrics", "scheduler_state_dict", "rng",
        "freeze", "class_names", "config", "format_version", "base_sha256",
    ):  # fmt: skip
        assert f"'{key}'" in keys
    assert path.name.startswith("checkpoint_shufflenet_v2_x0_5_001_")
    # Only the head has moved, so only the head is in the file.
    assert set(torch.load(path, weights_only=True)["model_state_dict"]) == {"fc.weight", "fc.bias"}


def test_a_freeze_and_a_multiplier_take_hold_at_the_next_step_boundary_and_are_recorded_with_both_steps(
    start_worker: Start, attach: Callable[[Path], Driver], small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    run_dir = driver.prepare(longer(small_config), tmp_path / "runs")
    driver.wait(MetricsLogged)
    unfrozen = driver.ask(UnfreezeLayers(layers=["stage4", "conv5"]), LayersUnfrozen)
    assert isinstance(unfrozen, LayersUnfrozen)
    assert unfrozen.sentence == "stage4, conv5 unfrozen"
    assert 0 <= unfrozen.applied_step - unfrozen.requested_step <= 1
    frozen = driver.ask(FreezeLayers(layers=["stage4.1"]), LayersFrozen)
    assert isinstance(frozen, LayersFrozen)
    refused = driver.ask(FreezeLayers(layers=["backbone", "head"]), LayersFrozen)
    assert isinstance(refused, CommandRejected)
    assert "nothing would be left to train" in refused.reason
    unknown = driver.ask(FreezeLayers(layers=["stage9"]), LayersFrozen)
    assert isinstance(unknown, CommandRejected)
    assert "stage" in unknown.reason
    multiplied = driver.ask(SetRateMultiplier(layers=["stage4"], multiplier=0.1), RateMultiplierChanged)
    assert isinstance(multiplied, RateMultiplierChanged)
    assert multiplied.sentence == "stage4 at rate × 0.1"
    assert 0 <= multiplied.applied_step - multiplied.requested_step <= 1
    unknown = driver.ask(SetRateMultiplier(layers=["stage9"], multiplier=0.1), RateMultiplierChanged)
    assert isinstance(unknown, CommandRejected)
    attached = attach(run_dir).wait(WorkerAttached)
    assert attached.run is not None
    assert attached.run.summary.multipliers == multiplied.multipliers
    with RunFolder(run_dir, read_only=True) as folder:
        record = folder.read()
        recorded = record.freeze_events
    assert [event for event in record.log if isinstance(event, RateMultiplierChanged)] == [
        multiplied.model_copy(update={"event_id": 0})
    ]
    assert [(e.requested_step, e.applied_step) for e in recorded] == [
        (e.requested_step, e.applied_step) for e in (unfrozen, frozen)
    ]


def test_frozen_weights_and_buffers_of_a_real_run_do_not_move(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    config = longer(small_config)
    config = config.model_copy(update={"model": config.model.model_copy(update={"frozen": []})})
    driver = start_worker()
    run_dir = driver.prepare(config, tmp_path / "runs")
    driver.wait(MetricsLogged)
    driver.ask(FreezeLayers(layers=["stage2"]), LayersFrozen)
    first = driver.ask(SaveCheckpoint(), CheckpointSaved)
    after = len(driver.seen)
    driver.wait(CheckpointSaved, after=after)
    second = driver.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(first, CheckpointSaved)
    assert isinstance(second, CheckpointSaved)
    assert second.checkpoint.step > first.checkpoint.step
    a, b = (
        torch.load(run_dir / "checkpoints" / event.checkpoint.name, weights_only=True)["model_state_dict"]
        for event in (first, second)
    )
    stage2 = [name for name in a if name.startswith("stage2")]
    assert any("running_mean" in name for name in stage2)
    assert all(torch.equal(a[name], b[name]) for name in stage2)
    assert not torch.equal(a["stage3.0.branch1.0.weight"], b["stage3.0.branch1.0.weight"])


@pytest.mark.slow
def test_every_command_is_answered_in_every_state_as_the_table_says(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    """Walk the state table with a real worker: what the table forbids is refused, and the sentence names the state."""
    commands = {
        "InspectModel": InspectModel(model=small_config.model, num_classes=3),
        "ListModels": ListModels(),
        "CheckData": CheckData(data=small_config.data),
        "EstimateRun": EstimateRun(config=small_config, runs_dir=str(tmp_path / "other")),
        "FindRate": FindRate(),
        "CancelLookUp": CancelLookUp(),
        "PreviewImage": PreviewImage(config=small_config, report_path=str(tmp_path / "none.db"), path="none.png"),
        "PrepareRun": PrepareRun(config=small_config, runs_dir=str(tmp_path / "other")),
        "OpenRun": OpenRun(run_dir=str(tmp_path / "none")),
        "StartRun": StartRun(),
        "PauseRun": PauseRun(),
        "UnpauseRun": UnpauseRun(),
        "StopRun": StopRun(),
        "FreezeLayers": FreezeLayers(layers=["conv1"]),
        "UnfreezeLayers": UnfreezeLayers(layers=["conv1"]),
        "SetRate": SetRate(rate=0.01),
        "SetPlan": SetPlan(phases=[PlanPhase(epoch=1, unfreeze=["conv5"])]),
        "SetBatchNorm": SetBatchNorm(layers=["conv1"], is_adapting=True),
        "SetRateMultiplier": SetRateMultiplier(layers=["fc"], multiplier=0.5),
        "ChangeTraining": ChangeTraining(epochs=400, patience=0),
        "Rewind": Rewind(),
        "SaveCheckpoint": SaveCheckpoint(),
        "RestoreCheckpoint": RestoreCheckpoint(name="last"),
        "EditCheckpoint": EditCheckpoint(name="last.pt"),
        "DeleteCheckpoints": DeleteCheckpoints(names=["last.pt"]),
        "PutCheckpointsBack": PutCheckpointsBack(checkpoints=[]),
    }
    driver = start_worker()

    def walk(state: RunState) -> None:
        for kind, command in commands.items():
            if state in ALLOWED_COMMANDS[kind]:
                continue
            answer = driver.ask(command, StateChanged)
            assert isinstance(answer, CommandRejected), (state, kind)
            assert f"not possible while the run is {state}" in answer.reason
        # Allowed in each of these states: it is the report that is not there.
        assert "none.db" in driver.ask(commands["PreviewImage"], ImagePreviewed).reason

    driver.wait_state(RunState.IDLE)
    walk(RunState.IDLE)
    assert isinstance(driver.ask(commands["ListModels"], ModelsListed), ModelsListed)
    assert isinstance(driver.ask(commands["InspectModel"], ModelInspected), ModelInspected)
    assert isinstance(driver.ask(commands["CheckData"], DataChecked), DataChecked)
    no_run = driver.ask(commands["FindRate"], RateFound)
    assert isinstance(no_run, CommandRejected)
    assert "has no run to find a rate for" in no_run.reason
    refused = driver.ask(commands["OpenRun"], RunPrepared)
    assert isinstance(refused, CommandRejected)
    driver.prepare(longer(small_config), tmp_path / "runs", start=False)
    driver.wait_state(RunState.READY)
    walk(RunState.READY)
    for kind, answer in (
        ("FreezeLayers", LayersFrozen), ("UnfreezeLayers", LayersUnfrozen),
        ("SetRateMultiplier", RateMultiplierChanged), ("SetPlan", PlanChanged), ("SetBatchNorm", BatchNormChanged),
    ):  # fmt: skip
        assert isinstance(driver.ask(commands[kind], answer), answer)
    rate = driver.ask(commands["SetRate"], RateChanged)
    assert isinstance(rate, RateChanged)
    assert (rate.rate, rate.before, rate.applied_step) == (0.01, small_config.optimizer.rate, 0)
    length = driver.ask(commands["ChangeTraining"], TrainingChanged)
    assert isinstance(length, TrainingChanged)
    assert (length.epochs, length.before_epochs, length.patience, length.applied_step) == (400, 500, None, 0)
    rewound = driver.ask(commands["Rewind"], RunRewound)
    assert isinstance(rewound, RunRewound)
    assert (rewound.change, rewound.rate) == (rate.change, small_config.optimizer.rate)
    assert isinstance(driver.ask(commands["SaveCheckpoint"], CheckpointSaved), CheckpointSaved)
    driver.ask(commands["StartRun"], StateChanged)
    walk(RunState.RUNNING)
    driver.ask(commands["PauseRun"], StateChanged)
    walk(RunState.PAUSED)
    # What the run is to do next does not wait for the search.
    search = driver.send(commands["FindRate"])
    driver.wait(PreparationProgressed, lambda event: event.what == "Trying rates")
    driver.send(commands["CancelLookUp"])
    cancelled = driver.wait(CommandRejected, lambda event: event.command_id == search)
    assert cancelled.is_cancelled
    assert isinstance(driver.ask(commands["RestoreCheckpoint"], CheckpointRestored), CheckpointRestored)
    driver.ask(commands["UnpauseRun"], StateChanged)
    driver.send(commands["StopRun"])
    driver.wait_state(RunState.STOPPED)
    walk(RunState.STOPPED)
    assert isinstance(driver.ask(commands["RestoreCheckpoint"], CheckpointRestored), CheckpointRestored)

    finished = start_worker()
    finished.prepare(small_config, tmp_path / "runs")
    finished.wait_state(RunState.FINISHED)
    driver = finished
    walk(RunState.FINISHED)
    # Its patience alone gives it nothing to train.
    assert isinstance(driver.ask(ChangeTraining(patience=5), TrainingChanged), TrainingChanged)
    assert isinstance(driver.ask(StartRun(), StateChanged), CommandRejected)
    after = len(driver.seen)
    assert isinstance(driver.ask(ChangeTraining(epochs=4), TrainingChanged), TrainingChanged)
    assert driver.wait_state(RunState.READY, after).sentence == "The run has 4 epochs now. Start goes on from there."
    driver.send(StartRun())
    saved = driver.wait(CheckpointSaved, after=after).checkpoint
    assert saved.epoch == 4
    driver.wait_state(RunState.FINISHED, after)


@pytest.mark.slow
def test_pause_holds_the_step_and_unpause_goes_on(start_worker: Start, small_config: RunConfig, tmp_path: Path) -> None:
    driver = start_worker()
    driver.prepare(longer(small_config), tmp_path / "runs")
    driver.wait(MetricsLogged)
    driver.ask(PauseRun(), StateChanged)
    after = len(driver.seen)
    first = driver.ask(SaveCheckpoint(), CheckpointSaved)
    second = driver.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(first, CheckpointSaved)
    assert isinstance(second, CheckpointSaved)
    assert first.checkpoint.step == second.checkpoint.step
    assert first.checkpoint.name != second.checkpoint.name
    assert first.checkpoint.rate == small_config.optimizer.rate
    check_list_changes(driver, first.checkpoint, second.checkpoint)
    driver.ask(UnpauseRun(), StateChanged)
    driver.wait(ProgressReported, lambda event: event.step > second.checkpoint.step, after)


def check_list_changes(driver: Driver, first: CheckpointInfo, last: CheckpointInfo) -> None:
    """See that the worker pins, deletes and lists again, and keeps what a resume would begin at."""
    edited = driver.ask(EditCheckpoint(name=first.name, is_pinned=True, label="for the paper"), CheckpointEdited)
    assert isinstance(edited, CheckpointEdited)
    pinned = edited.checkpoint
    assert (pinned.is_pinned, pinned.label, pinned.note) == (True, "for the paper", "")
    for names, reason in (
        ([first.name], "is pinned"),
        ([last.name], "would go on from it after a crash"),
        (["gone.pt"], "no checkpoint gone.pt any more"),
    ):
        refused = driver.ask(DeleteCheckpoints(names=names), CheckpointsDeleted)
        assert isinstance(refused, CommandRejected)
        assert reason in refused.reason
    driver.ask(EditCheckpoint(name=first.name, is_pinned=False), CheckpointEdited)
    deleted = driver.ask(DeleteCheckpoints(names=[first.name], leaves_files=True), CheckpointsDeleted)
    assert isinstance(deleted, CheckpointsDeleted)
    assert (deleted.names, deleted.freed_bytes) == ([first.name], first.size_bytes)
    back = driver.ask(PutCheckpointsBack(checkpoints=[first]), CheckpointsPutBack)
    assert isinstance(back, CheckpointsPutBack)
    assert back.checkpoints == [first]
    driver.ask(DeleteCheckpoints(names=[first.name]), CheckpointsDeleted)
    lost = driver.ask(PutCheckpointsBack(checkpoints=[first]), CheckpointsPutBack)
    assert isinstance(lost, CommandRejected)
    assert "file is missing" in lost.reason


@pytest.mark.slow
def test_restore_puts_weights_freeze_set_and_step_back_and_the_curve_begins_a_new_piece(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    run_dir = driver.prepare(longer(small_config), tmp_path / "runs")
    saved = driver.wait(CheckpointSaved).checkpoint
    driver.ask(UnfreezeLayers(layers=["conv5"]), LayersUnfrozen)
    driver.wait(
        MetricsLogged, lambda e: e.series.get("Loss/train") and e.series["Loss/train"].steps[-1] > saved.step + 5
    )
    restored = driver.ask(RestoreCheckpoint(name=saved.name), CheckpointRestored)
    assert isinstance(restored, CheckpointRestored)
    assert (restored.step, restored.epoch, restored.segment) == (saved.step, saved.epoch, 1)
    assert restored.frozen == saved.frozen
    driver.wait(MetricsLogged, lambda event: event.segment == 1)
    weights = driver.ask(RestoreCheckpoint(name=saved.name, weights_only=True), CheckpointRestored)
    assert isinstance(weights, CheckpointRestored)
    assert (weights.weights_only, weights.segment) == (True, 2)
    assert weights.step > saved.step
    # Else a kill before the next checkpoint would lose them.
    with_weights = driver.wait(CheckpointSaved, lambda event: event.checkpoint.segment == 2).checkpoint
    assert (with_weights.reason, with_weights.step) == ("weights", weights.step)
    driver.wait(MetricsLogged, lambda event: event.segment == 2)
    driver.send(StopRun())
    driver.wait_state(RunState.STOPPED)
    with RunFolder(run_dir, read_only=True) as folder:
        curve = folder.curves()["Loss/train"]
    assert list(curve.steps) == sorted(set(curve.steps))
    assert next(iter(curve.abandoned.values()))[0][0] == saved.step + 1


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [pytest.param(["backbone"], id="head only"), pytest.param([], id="everything")])
def test_stop_saves_and_resume_equals_the_run_that_was_never_stopped_to_the_bit(
    start_worker: Start, small_config: RunConfig, tmp_path: Path, frozen: list[str]
) -> None:
    """Two runs of three epochs; one is stopped in mid-epoch, its process ended, and resumed by another process."""
    model = small_config.model.model_copy(update={"frozen": frozen})
    small_config = small_config.model_copy(update={"model": model})
    whole = start_worker()
    whole_dir = whole.prepare(small_config, tmp_path / "whole")
    whole.wait_state(RunState.FINISHED)

    first = start_worker()
    run_dir = first.prepare(small_config, tmp_path / "parts", start=False)
    # Sent together, the stop is met at the first step boundary after some steps have been made.
    first.send(StartRun())
    first.wait(ProgressReported, lambda event: event.step > 0)
    first.send(StopRun())
    first.wait_state(RunState.STOPPED)
    stopped_at = next(
        e.checkpoint.step for e in first.seen if isinstance(e, CheckpointSaved) and e.checkpoint.reason == "stop"
    )
    assert 0 < stopped_at <= 12
    first.end()
    first.wait(WorkerLost)

    second = start_worker()
    answer = second.ask(OpenRun(run_dir=str(run_dir)), RunPrepared)
    assert isinstance(answer, RunPrepared)
    assert answer.step == stopped_at
    second.wait_state(RunState.FINISHED)
    last = [read_last(path) for path in (whole_dir, run_dir)]
    assert last[0]["step"] == last[1]["step"] == 12
    assert all(
        torch.equal(last[0]["model_state_dict"][k], last[1]["model_state_dict"][k]) for k in last[0]["model_state_dict"]
    )
    assert last[0]["metrics"] == last[1]["metrics"]


@pytest.mark.slow
def test_a_binary_run_is_estimated_shown_trained_with_one_output_and_resumed(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    shutil.rmtree(Path(small_config.data.path) / "class_2")
    data = small_config.data.model_copy(update={"task": "binary", "mixing": "mixup", "balance": "class_weights"})
    config = small_config.model_copy(update={"data": data})
    first = start_worker()
    estimated = first.ask(EstimateRun(config=config, runs_dir=str(tmp_path / "runs")), RunEstimated)
    assert isinstance(estimated, RunEstimated)
    run_dir = first.prepare(config, tmp_path / "runs")
    report_path = first.wait(RunPrepared).run.report_path
    assert isinstance(first.ask(preview_of(config, report_path), ImagePreviewed), ImagePreviewed)
    first.wait_state(RunState.FINISHED)
    first.end()
    first.wait(WorkerLost)
    with RunFolder(run_dir, read_only=True) as folder:
        saved = folder.checkpoints.listed()
        confusion = folder.checkpoints.confusion("latest")
    assert read_last(run_dir)["model_state_dict"]["fc.weight"].shape == (1, 1024)
    assert {"Loss/validation", "Accuracy/validation", "F1/validation", "AUROC/validation"} == saved[-1].metrics.keys()
    assert [sum(row) for row in confusion.counts] == [3, 3]

    second = start_worker()
    answer = second.ask(OpenRun(run_dir=str(run_dir), checkpoint=saved[1].name), RunPrepared)
    assert isinstance(answer, RunPrepared)
    second.wait_state(RunState.FINISHED)
    with RunFolder(run_dir, read_only=True) as folder:
        again = folder.checkpoints.listed()[-1]
    assert (again.epoch, again.metrics) == (saved[-1].epoch, saved[-1].metrics)


def read_last(run_dir: Path) -> dict:
    with RunFolder(run_dir, read_only=True) as folder:
        return torch.load(run_dir / "checkpoints" / folder.checkpoints.find("last").name, weights_only=True)


@pytest.mark.slow
def test_a_killed_worker_is_noticed_within_two_seconds_and_its_run_resumes(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    run_dir = driver.prepare(longer(small_config), tmp_path / "runs")
    driver.wait(CheckpointSaved)
    driver.wait(MetricsLogged, after=len(driver.seen))
    killed_at = time.monotonic()
    os.kill(driver.client.pid, signal.SIGKILL)
    lost = driver.wait(WorkerLost)
    assert time.monotonic() - killed_at < 2
    assert not lost.was_expected
    assert "killed" in lost.sentence
    assert "resume" in lost.sentence
    with RunFolder(run_dir, read_only=True) as folder:
        record = folder.read()
    assert record.was_interrupted
    for info in record.checkpoints:
        torch.load(run_dir / "checkpoints" / info.name, weights_only=True)
    again = start_worker()
    resumed = again.ask(OpenRun(run_dir=str(run_dir)), RunPrepared)
    assert isinstance(resumed, RunPrepared)
    assert resumed.step == record.checkpoints[-1].step
    again.wait(MetricsLogged)


@pytest.mark.slow
def test_a_killed_run_that_is_resumed_goes_back_before_a_change_of_the_worker_that_was_killed(
    start_worker: Start, attach: Callable[[Path], Driver], small_config: RunConfig, tmp_path: Path
) -> None:
    first = start_worker()
    run_dir = first.prepare(longer(small_config), tmp_path / "runs")
    first.wait(MetricsLogged)
    first.ask(PauseRun(), StateChanged)
    before = first.ask(SaveCheckpoint(), CheckpointSaved)
    unfrozen = first.ask(UnfreezeLayers(layers=["conv5"]), LayersUnfrozen)
    first.ask(UnpauseRun(), StateChanged)
    first.wait(MetricsLogged, after=len(first.seen))
    first.ask(PauseRun(), StateChanged)
    after = first.ask(SaveCheckpoint(), CheckpointSaved)
    # Nothing that is resumed has led to this one.
    abandoned = first.ask(SetRate(rate=0.5), RateChanged)
    assert isinstance(before, CheckpointSaved)
    assert isinstance(unfrozen, LayersUnfrozen)
    assert isinstance(after, CheckpointSaved)
    assert isinstance(abandoned, RateChanged)
    with RunFolder(run_dir, read_only=True) as folder:
        first.wait(RewindsKept, lambda event: abandoned.change in [info.change for info in folder.rewinds()])
    os.kill(first.client.pid, signal.SIGKILL)
    first.wait(WorkerLost)

    second = start_worker()
    resumed = second.ask(OpenRun(run_dir=str(run_dir), start=False), RunPrepared)
    assert isinstance(resumed, RunPrepared)
    assert (resumed.step, resumed.parent) == (after.checkpoint.step, after.checkpoint.segment)
    restored = second.wait(CheckpointRestored)
    assert (restored.command_id, restored.parent) == (resumed.command_id, resumed.parent)
    kept = second.wait(RewindsKept)
    assert (kept.changes, kept.num_bytes, kept.undo_step) == ([unfrozen.change], 0, None)
    assert attach(run_dir).wait(WorkerAttached).rewinds == kept
    rewound = second.ask(Rewind(change=unfrozen.change), RunRewound)
    assert isinstance(rewound, RunRewound)
    again = second.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(again, CheckpointSaved)
    ours, theirs = (
        torch.load(run_dir / "checkpoints" / saved.checkpoint.name, weights_only=True) for saved in (again, before)
    )
    assert ours["step"] == theirs["step"] == rewound.step
    for part in ("model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "rng", "batch", "freeze", "plan"):
        assert same(ours[part], theirs[part]), part
    undone = second.ask(Rewind(is_undo=True), RewindUndone)
    assert isinstance(undone, RewindUndone)
    assert undone.step == resumed.step


def same(a: object, b: object) -> bool:
    """Compare two pieces of a checkpoint to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return is_same(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.slow
def test_a_killed_run_with_dropout_and_a_plan_ends_as_the_run_that_was_never_killed(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    config = small_config.model_copy(
        update={
            "model": small_config.model.model_copy(update={"name": "mobilenet_v3_small"}),
            "plan": [PlanPhase(epoch=2, unfreeze=["classifier", "features.12"])],
            "training": small_config.training.model_copy(update={"epochs": 5}),
        }
    )
    whole = start_worker()
    whole_dir = whole.prepare(config, tmp_path / "whole")
    whole.wait_state(RunState.FINISHED)
    first = start_worker()
    run_dir = first.prepare(config, tmp_path / "parts")
    first.wait(CheckpointSaved, lambda event: event.checkpoint.epoch == 2)
    os.kill(first.client.pid, signal.SIGKILL)
    first.wait(WorkerLost)
    second = start_worker()
    assert isinstance(second.ask(OpenRun(run_dir=str(run_dir)), RunPrepared), RunPrepared)
    second.wait_state(RunState.FINISHED)
    ours, theirs = read_last(run_dir), read_last(whole_dir)
    assert ours["step"] == theirs["step"]
    assert ours["freeze"] == theirs["freeze"]
    assert all(
        torch.equal(ours["model_state_dict"][k], theirs["model_state_dict"][k]) for k in theirs["model_state_dict"]
    )


@pytest.mark.slow
def test_two_clients_see_the_same_events_and_either_may_steer(
    start_worker: Start, attach: Callable[[Path], Driver], small_config: RunConfig, tmp_path: Path
) -> None:
    first = start_worker()
    run_dir = first.prepare(longer(small_config), tmp_path / "runs")
    first.wait(MetricsLogged)
    second = attach(run_dir)
    opened = second.wait(RunOpened)
    attached = second.wait(WorkerAttached)
    assert attached.state is RunState.RUNNING
    assert attached.run is not None
    event = second.ask(UnfreezeLayers(layers=["conv5"]), LayersUnfrozen)
    assert first.wait(LayersUnfrozen) == event
    first.ask(PauseRun(), StateChanged)
    second.wait_state(RunState.PAUSED)
    # The curve that the second client has, from the folder and then the socket, has no gap.
    second.send(UnpauseRun())
    second.wait(CheckpointSaved)
    steps = [*opened.record.curves["Loss/train"].steps]
    steps += [step for step, _ in points(second, "Loss/train") if not steps or step > steps[-1]]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_closing_the_client_leaves_the_run_going_until_it_finishes(
    start_worker: Start, attach: Callable[[Path], Driver], small_config: RunConfig, tmp_path: Path
) -> None:
    first = start_worker()
    run_dir = first.prepare(longer(small_config, 30), tmp_path / "runs")
    first.wait(MetricsLogged)
    first.client.close()
    second = attach(run_dir)
    assert second.wait_state(RunState.FINISHED).sentence == ""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="named pipes have no such limit")
def test_a_long_temporary_folder_does_not_keep_the_worker_from_serving(
    start_worker: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert start_worker().wait_state(RunState.IDLE).sentence == ""


@pytest.mark.slow
def test_a_wrong_key_is_turned_away_and_the_worker_goes_on(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    from multiprocessing import AuthenticationError
    from multiprocessing.connection import Client

    driver = start_worker()
    run_dir = driver.prepare(longer(small_config), tmp_path / "runs")
    with RunFolder(run_dir, read_only=True) as folder:
        worker = folder.worker()
    assert worker is not None
    if os.name == "posix":
        assert (run_dir / "worker.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises((AuthenticationError, ConnectionError, EOFError)):
        Client(worker.address, authkey=b"wrong")
    assert isinstance(driver.ask(SaveCheckpoint(), CheckpointSaved), CheckpointSaved)


@pytest.mark.slow
def test_bad_input_is_refused_with_one_sentence_and_leaves_no_run_behind(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    not_data = tmp_path / "notes.txt"
    not_data.write_text("hello")
    one_class = tmp_path / "one" / "cats"
    one_class.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(one_class / "a.png")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the runs should go")

    def refuse(update: dict[str, dict[str, object]], runs_dir: Path = tmp_path / "runs") -> CommandRejected:
        values = small_config.model_dump()
        for section, fields in update.items():
            values[section] |= fields
        command = PrepareRun(config=RunConfig.model_validate(values), runs_dir=str(runs_dir))
        answer = driver.ask(command, RunPrepared)
        assert isinstance(answer, CommandRejected)
        assert "Traceback" not in answer.reason
        return answer

    for path in ("", str(tmp_path / "nowhere"), str(not_data), str(one_class.parent), str(tmp_path / "runs")):
        assert refuse({"data": {"path": path}}).field == "data.path"
    assert refuse({"model": {"name": "resnet19"}}).field == "model.name"
    assert refuse({"model": {"weights": str(not_data)}}).field == "model.weights"
    assert refuse({"data": {"task": "binary"}}).field == "data.task"
    assert refuse({"training": {"device": "cuda:77"}}).field == "training.device"
    both = refuse({"model": {"name": "resnet19"}, "training": {"device": "cuda:77"}})
    assert set(both.by_field) == {"model.name", "training.device"}
    assert "write" in refuse({}, blocked / "runs").reason
    assert not list(tmp_path.glob("runs/*/run.db"))
    # And the worker is as good as new.
    driver.prepare(small_config, tmp_path / "runs")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_by_name_and_the_run_goes_on(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    run_dir = driver.prepare(longer(small_config), tmp_path / "runs")
    saved = driver.wait(CheckpointSaved).checkpoint
    path = run_dir / "checkpoints" / saved.name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    answer = driver.ask(RestoreCheckpoint(name=saved.name), CheckpointRestored)
    assert isinstance(answer, CommandRejected)
    assert saved.name in answer.reason
    assert "damaged" in answer.reason
    driver.wait(MetricsLogged, after=len(driver.seen))


def slow_to_scan(root: Path, num_images: int = 3000) -> Path:
    """Make a data set that takes seconds to look through: large images, many names for each."""
    for class_idx in range(2):
        folder = root / f"class_{class_idx}"
        folder.mkdir(parents=True)
        Image.effect_noise((1500, 1500), 50).save(folder / "0.png")
        for number in range(1, num_images // 2):
            os.link(folder / "0.png", folder / f"{number}.png")
    return root


@pytest.mark.slow
def test_a_start_ends_a_check_and_goes_on_at_once(start_worker: Start, small_config: RunConfig, tmp_path: Path) -> None:
    driver = start_worker()
    driver.wait_state(RunState.IDLE)
    check_id = driver.send(CheckData(data=DataConfig(path=str(slow_to_scan(tmp_path / "slow")))))
    driver.wait(PreparationProgressed)
    driver.prepare(small_config, tmp_path / "runs")
    refused = driver.wait(CommandRejected)
    assert refused.command_id == check_id
    assert "something else was asked for" in refused.reason
    assert not refused.is_cancelled
    driver.wait_state(RunState.FINISHED)


@pytest.mark.slow
def test_a_resume_keeps_to_the_split_that_the_run_began_with(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    run_dir = driver.prepare(longer(small_config), tmp_path / "runs")
    driver.wait(CheckpointSaved)
    driver.send(StopRun())
    driver.wait_state(RunState.STOPPED)
    driver.end()

    def split() -> dict[str, str]:
        rows = (run_dir / "split.csv").read_text().splitlines()[1:]
        return {place: name for place, _, name, *_ in (row.split(",") for row in rows)}

    before = split()
    assert sorted(before.values()).count("validation") == 9
    # One image is gone and another is new: drawn again, most of the class would change places.
    gone = next(place for place, name in before.items() if name == "validation")
    folder = Path(small_config.data.path)
    (folder / gone).rename(folder / "class_2" / "new.png")
    again = start_worker()
    refused = again.ask(OpenRun(run_dir=str(run_dir)), RunPrepared)
    assert isinstance(refused, CommandRejected)
    assert refused.changes == ["1 image added (class_2/new.png)", f"1 image removed ({gone})"]
    again.send(OpenRun(run_dir=str(run_dir), anyway=True))
    info = again.wait(RunPrepared).run
    with closing(DataReport(Path(info.report_path))) as report:
        after = {Path(image.path).relative_to(folder).as_posix(): image.split for image in report.images()}
    assert after == {**{place: name for place, name in before.items() if place != gone}, "class_2/new.png": "train"}
    assert "The data set has changed" in again.wait(LogWritten, lambda event: "data set" in event.text).text


@pytest.mark.slow
def test_a_look_up_that_fails_leaves_the_worker_idle(
    start_worker: Start, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "thaw").mkdir(parents=True)
    (tmp_path / "cache" / "thaw" / "views").write_text("a file where a folder is wanted")
    driver = start_worker()
    driver.wait_state(RunState.IDLE)
    checked = driver.ask(CheckData(data=small_config.data), DataChecked)
    assert isinstance(checked, DataChecked)
    preview = preview_of(small_config, checked.report_path)
    refused = driver.ask(preview, ImagePreviewed)
    assert isinstance(refused, CommandRejected)
    assert refused.reason.startswith("Previewing an image failed: FileExistsError")
    gone = preview.model_copy(update={"report_path": str(tmp_path / "gone.db")})
    refused = driver.ask(gone, ImagePreviewed)
    assert isinstance(refused, CommandRejected)
    assert "Check the data again." in refused.reason
    assert isinstance(driver.ask(CheckData(data=small_config.data), DataChecked), DataChecked)


def preview_of(config: RunConfig, report_path: str) -> PreviewImage:
    image = next(Path(config.data.path).rglob("*.png"))
    return PreviewImage(config=config, report_path=report_path, path=str(image), num_views=2)


@pytest.mark.slow
def test_a_preview_is_answered_before_in_and_after_a_run(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    config = longer(small_config)
    driver = start_worker()
    run_dir = driver.prepare(config, tmp_path / "runs", start=False)
    info = driver.wait(RunPrepared).run
    with closing(DataReport(Path(info.report_path))) as report:
        path = next(image.path for image in report.images() if image.split == "train")
    preview = PreviewImage(config=info.config, report_path=info.report_path, path=path, num_views=2)

    def epochs() -> list[int | None]:
        answer = driver.ask(preview, ImagePreviewed)
        assert isinstance(answer, ImagePreviewed), answer
        assert len({Path(view.file).read_bytes() for view in answer.views}) == 2, "each epoch augments anew"
        return [view.epoch for view in answer.views]

    assert epochs() == [1, 2]
    driver.ask(StartRun(), StateChanged)
    driver.wait(CheckpointSaved)
    first, second = epochs()
    assert first >= 2, "from the present epoch on"
    assert second == first + 1
    driver.ask(PauseRun(), StateChanged)
    driver.wait_state(RunState.PAUSED)
    paused = epochs()
    assert epochs() == paused, "nothing moves on"
    # Its own end is not put off, and loses nothing.
    driver.send(preview)
    driver.end()
    driver.wait_state(RunState.STOPPED)
    driver.wait(WorkerLost)
    with RunFolder(run_dir, read_only=True) as folder:
        assert folder.checkpoints.listed()[-1].reason == "stop"
    driver = start_worker()
    driver.wait_state(RunState.IDLE)
    assert epochs() == [1, 2], "a worker without the run shows its beginning"


@pytest.mark.slow
def test_a_start_waits_for_no_preview(start_worker: Start, small_config: RunConfig, tmp_path: Path) -> None:
    driver = start_worker()
    driver.wait_state(RunState.IDLE)
    sent = [driver.send(CheckData(data=DataConfig(path=str(slow_to_scan(tmp_path / "slow")))))]
    driver.wait(PreparationProgressed)
    sent += [driver.send(preview_of(small_config, "")) for _ in range(8)]
    driver.prepare(small_config, tmp_path / "runs")
    overtaken = [event for event in driver.seen if isinstance(event, CommandRejected)]
    assert {event.command_id for event in overtaken} == set(sent)
    assert all("something else was asked for" in event.reason for event in overtaken)


@pytest.mark.slow
def test_a_check_can_be_cancelled_and_the_worker_is_free_again(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    driver = start_worker()
    driver.wait_state(RunState.IDLE)
    check_id = driver.send(CheckData(data=DataConfig(path=str(slow_to_scan(tmp_path / "slow")))))
    driver.wait(PreparationProgressed)
    driver.send(CancelLookUp())
    refused = driver.wait(CommandRejected)
    assert (refused.command_id, refused.reason) == (check_id, LOOK_UP_CANCELLED)
    assert refused.is_cancelled
    assert isinstance(driver.ask(CheckData(data=small_config.data), DataChecked), DataChecked)
    # One worker answers this as well: what a table lacks comes with what it has.
    table = tmp_path / "birds.csv"
    table.write_text("path,species\n1.png,jay\n")
    refused = driver.ask(CheckData(data=DataConfig(path=str(table))), DataChecked)
    assert (refused.field, refused.choices) == ("data.label_column", ["path", "species"])
    assert not refused.is_cancelled


@pytest.mark.slow
def test_a_preparation_can_be_stopped_and_refuses_all_else(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    data = small_config.data.model_copy(update={"path": str(slow_to_scan(tmp_path / "slow"))})
    driver = start_worker()
    driver.send(PrepareRun(config=small_config.model_copy(update={"data": data}), runs_dir=str(tmp_path / "runs")))
    driver.wait(PreparationProgressed)
    refused = driver.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(refused, CommandRejected)
    assert "not possible while the run is preparing" in refused.reason
    driver.send(StopRun())
    driver.wait_state(RunState.IDLE, after=len(driver.seen))
    assert not list(tmp_path.glob("runs/*"))
    driver.prepare(small_config, tmp_path / "runs")


@pytest.mark.slow
def test_a_worker_that_is_to_end_leaves_a_check_and_ends_well(start_worker: Start, tmp_path: Path) -> None:
    driver = start_worker()
    driver.send(CheckData(data=DataConfig(path=str(slow_to_scan(tmp_path / "slow")))))
    driver.wait(PreparationProgressed)
    driver.end()
    assert driver.wait(WorkerLost).was_expected


@pytest.mark.slow
def test_of_two_workers_that_resume_a_run_at_once_one_gets_it(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    first = start_worker()
    run_dir = first.prepare(longer(small_config), tmp_path / "runs")
    first.wait(CheckpointSaved)
    first.end()
    first.wait(WorkerLost)
    workers = [start_worker(), start_worker()]
    for worker in workers:
        worker.wait_state(RunState.IDLE)
    ids = [worker.send(OpenRun(run_dir=str(run_dir))) for worker in workers]
    answers = [
        worker.wait((RunPrepared, CommandRejected), lambda event, own=own: event.command_id == own)  # type: ignore[arg-type]
        for worker, own in zip(workers, ids, strict=True)
    ]
    assert sorted(type(answer).__name__ for answer in answers) == ["CommandRejected", "RunPrepared"]
    (refused,) = [answer for answer in answers if isinstance(answer, CommandRejected)]
    assert "has a worker already" in refused.reason


@pytest.mark.slow
def test_each_divergence_pauses_the_run(start_worker: Start, small_config: RunConfig, tmp_path: Path) -> None:
    optimizer = small_config.optimizer.model_copy(update={"name": "SGD", "rate": 10.0, "momentum": 0.99})
    model = small_config.model.model_copy(update={"frozen": []})
    driver = start_worker()
    config = longer(small_config).model_copy(update={"optimizer": optimizer, "model": model})
    driver.prepare(config, tmp_path / "runs", start=False)
    saved = driver.ask(SaveCheckpoint(), CheckpointSaved)
    assert isinstance(saved, CheckpointSaved)
    driver.send(StartRun())
    assert "NaN" in driver.wait_state(RunState.PAUSED).sentence
    after = len(driver.seen)
    driver.ask(RestoreCheckpoint(name=saved.checkpoint.name), CheckpointRestored)
    driver.send(UnpauseRun())
    assert "NaN" in driver.wait_state(RunState.PAUSED, after).sentence


@pytest.mark.slow
def test_files_of_the_users_folder_are_not_run_by_the_worker(
    start_worker: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("trainer.py", "queue.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit('the user's file was run')")
    monkeypatch.chdir(tmp_path)
    assert start_worker().wait_state(RunState.IDLE).sentence == ""


@pytest.mark.slow
def test_a_relative_data_path_still_holds_for_a_resume_from_elsewhere(
    start_worker: Start, small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(small_config.data.path).parent)
    data = small_config.data.model_copy(update={"path": Path(small_config.data.path).name})
    first = start_worker()
    run_dir = first.prepare(longer(small_config).model_copy(update={"data": data}), tmp_path / "runs")
    first.wait(CheckpointSaved)
    first.end()
    first.wait(WorkerLost)
    monkeypatch.chdir(tmp_path)
    second = start_worker()
    assert isinstance(second.ask(OpenRun(run_dir=str(run_dir)), RunPrepared), RunPrepared)


@pytest.mark.slow
def test_a_run_trains_on_whatever_can_be_read_of_a_bad_data_set(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    folder = Path(small_config.data.path) / "class_0"
    whole = (folder / "000.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    (folder / "copy.png").write_bytes(whole)
    (folder.parent / "class_1" / "conflict.png").write_bytes(whole)
    (folder / "nested.zip").write_bytes(b"PK")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (2, 400)).save(folder / "sliver.png")
    Image.new("CMYK", (20, 20)).save(folder / "print.jpg")
    Image.new("I;16", (20, 20)).save(folder / "deep.png")
    Image.new("1", (12_000, 12_000)).save(folder / "bomb.png")
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    if sys.platform == "linux":
        os.mkfifo(folder / "pipe.png")
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(whole[:-1] + b"x")
    (folder.parent / "empty class").mkdir()
    driver = start_worker()
    driver.prepare(small_config, tmp_path / "runs")
    info = driver.wait(RunPrepared).run
    assert info.class_names == ["class_0", "class_1", "class_2"]
    driver.wait_state(RunState.FINISHED)
    told = [event.text for event in driver.seen if isinstance(event, LogWritten)]
    named = ("cut.png", "empty.jpg", "text.jpg", "nested.zip", "loop", "sliver.png", "bomb.png", "empty class")
    assert [name for name in named if not any(name in text for text in told)] == []


@pytest.mark.slow
def test_an_unreadable_image_is_skipped_by_name_and_never_touched(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    bad = Path(small_config.data.path) / "class_0" / "zz.png"
    bad.write_text("no image")
    driver = start_worker()
    driver.prepare(small_config, tmp_path / "runs")
    driver.wait(LogWritten, lambda event: "zz.png" in event.text)
    assert bad.read_text() == "no image"


@pytest.mark.slow
def test_images_that_are_deleted_under_a_run_that_keeps_them_are_told_once_and_it_trains_on(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    training = small_config.training.model_copy(update={"epochs": 500})
    driver = start_worker()
    driver.prepare(small_config.model_copy(update={"training": training}), tmp_path / "runs")
    driver.wait(CheckpointSaved, lambda event: event.checkpoint.epoch == 2)
    driver.send(StopRun())
    driver.wait_state(RunState.STOPPED)
    for file in (Path(small_config.data.path) / "class_1").iterdir():
        file.unlink()
    driver.send(StartRun())
    told = driver.wait(LogWritten, lambda event: "cannot be found any more" in event.text)
    assert told.level == "warning"
    assert str(Path(small_config.data.path) / "class_1" / "000.png and 11 more images") in told.text
    mark = len(driver.seen)
    epoch = driver.wait(CheckpointSaved, after=mark).checkpoint.epoch
    driver.wait(CheckpointSaved, lambda event: event.checkpoint.epoch > epoch + 1, after=mark)
    driver.send(StopRun())
    driver.wait_state(RunState.STOPPED, after=mark)
    assert [e for e in driver.seen if isinstance(e, LogWritten) and "found any more" in e.text] == [told]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_pauses_the_run_before_it_does_harm(
    start_worker: Start, small_config: RunConfig, tmp_path: Path
) -> None:
    module = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None)
    # Each weight is finite, as a file's must be; what is computed with them is not.
    torch.nn.init.constant_(module.conv5[1].weight, torch.finfo(torch.float32).max)
    torch.save(module.state_dict(), tmp_path / "huge.pt")
    model = small_config.model.model_copy(update={"weights": str(tmp_path / "huge.pt")})
    driver = start_worker()
    run_dir = driver.prepare(small_config.model_copy(update={"model": model}), tmp_path / "runs")
    paused = driver.wait_state(RunState.PAUSED)
    assert "NaN or infinite at step 1;" in paused.sentence
    assert paused.offered_rate == small_config.optimizer.rate / 2
    changed = driver.ask(SetRate(rate=paused.offered_rate), RateChanged)
    assert isinstance(changed, RateChanged)
    # Every further one is told as well.
    mark = len(driver.seen)
    driver.send(UnpauseRun())
    again = driver.wait_state(RunState.PAUSED, after=mark)
    assert "at step 2;" in again.sentence
    assert again.offered_rate == paused.offered_rate / 2
    driver.send(StopRun())
    driver.wait_state(RunState.STOPPED)
    with RunFolder(run_dir, read_only=True) as folder:
        kept = torch.load(run_dir / "checkpoints" / folder.checkpoints.find("last").name, weights_only=True)
        assert [event.rate for event in folder.read().log if isinstance(event, RateChanged)] == [paused.offered_rate]
    assert "fc.weight" not in kept["model_state_dict"], "it is still that of the base"


@pytest.mark.slow
def test_images_that_cannot_be_kept_are_told_and_the_run_trains(
    start_worker: Start, small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "thaw").mkdir(parents=True)
    (tmp_path / "cache" / "thaw" / "decoded").write_text("a file where a folder is wanted")
    driver = start_worker()
    driver.prepare(small_config, tmp_path / "runs")
    driver.wait_state(RunState.FINISHED)
    warnings = [event.text for event in driver.seen if isinstance(event, LogWritten) and event.level == "warning"]
    assert any(text.startswith("Decoded images are not kept: ") for text in warnings), warnings


# Read by every Python that starts below the folder it lies in: here, by the worker.
SMALL_DEVICE = """
from importlib.machinery import PathFinder
import sys

class SmallDevice(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name == "trainer.loop" else None
        if spec is not None:
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (load(module), limit(module.torch, module.Trainer))
        return spec

def limit(torch, trainer):
    backward = trainer._backward
    def checked(self, batches):
        sums = backward(self, batches)
        if any(len(batch) > 4 * self.batch_parts for batch in batches):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sums
    trainer._backward = checked

sys.meta_path.insert(0, SmallDevice)
"""


@pytest.mark.slow
def test_too_little_memory_pauses_the_run_which_trains_on_with_batches_in_parts(
    start_worker: Start, small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the device's own, raised after the gradients are there: the worst moment."""
    (tmp_path / "fault").mkdir()
    (tmp_path / "fault" / "sitecustomize.py").write_text(SMALL_DEVICE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fault"), prepend=os.pathsep)
    driver = start_worker()
    run_dir = driver.prepare(small_config, tmp_path / "runs")
    paused = driver.wait_state(RunState.PAUSED)
    assert paused.sentence.startswith("The device cpu has no memory for step 1 with 8 images at a time;")
    assert paused.sentence.endswith("though BatchNorm sees fewer images at once.")
    assert paused.offered_parts == 2
    # As it was: told again.
    mark = len(driver.seen)
    driver.send(UnpauseRun())
    again = driver.wait_state(RunState.PAUSED, after=mark)
    assert again.sentence == paused.sentence
    changed = driver.ask(ChangeTraining(batch_parts=paused.offered_parts), TrainingChanged)
    assert isinstance(changed, TrainingChanged)
    assert (changed.batch_parts, changed.before_batch_parts) == (2, 1)
    driver.send(UnpauseRun())
    driver.wait_state(RunState.FINISHED)
    with RunFolder(run_dir, read_only=True) as folder:
        steps = folder.curves()["Loss/train"].steps
        assert list(steps) == list(range(1, len(steps) + 1))
        info = folder.run_info()
    assert info is not None
    assert info.present.batch_parts == 2
