"""The steps after a checkpoint, made again and compared: exact, or different from the right step on, and why."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from trainer import feature_store, replay
from trainer.checkpoints import CheckpointError, hash_file
from trainer.config import PlanPhase, RunConfig
from trainer.data.archive import Progress
from trainer.feature_cache import FeatureCache
from trainer.feature_cut import CutError
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.events import MetricsLogged, RewindsKept, RunPrepared
from trainer.messages.replay import Replay, VerifyResume
from trainer.preparation import Preparation
from trainer.run_record import RunFolderError, WorkerAddress
from trainer.runs import RunFolder

pytestmark = pytest.mark.slow

SAVED_AT = 5
LAST_STEP = 12


class Recorder:
    """Keeps the events of a run in its folder, as the worker's server does."""

    def __init__(self) -> None:
        self.folder: RunFolder | None = None

    def emit(self, event: Event) -> None:
        assert self.folder is not None
        if isinstance(event, MetricsLogged):
            self.folder.add_metrics(event.segment, event.series)
        elif not isinstance(event, RewindsKept):
            self.folder.add_event(event)


def preparation(emit: Callable[[Event], None] = lambda _: None) -> Preparation:
    here = psutil.Process()
    return Preparation(WorkerAddress("nowhere", b"", here.pid, here.create_time()), emit, lambda *_: None, lambda: None)


def train(config: RunConfig, runs_dir: Path, meddle: Callable[[Trainer], None] = lambda _: None) -> Path:
    """Train a run of three epochs of four steps, with a checkpoint in the second one. Returns its folder."""
    recorder = Recorder()
    here = preparation(recorder.emit)
    prepared = here.begin(config, runs_dir)
    recorder.folder = prepared.folder
    recorder.emit(RunPrepared(run=prepared.info, step=0, epoch=0, segment=0))
    saved: list[str] = []

    def between_steps() -> None:
        if prepared.trainer.step == SAVED_AT and not saved:
            saved.append(prepared.trainer.save(reason="user").name)
        meddle(prepared.trainer)

    prepared.trainer.fit(between_steps)
    prepared.trainer.report(force=True)
    prepared.trainer.close()
    prepared.log.close()
    prepared.folder.remove_worker(here.worker)
    prepared.folder.close()
    return prepared.folder.path


def verify(run_dir: Path, checkpoint: str | None, num_steps: int, on_progress: Progress = lambda *_: None) -> Replay:
    errand = Preparation(None, lambda _: None, on_progress, lambda: None)
    command = VerifyResume(run_dir=str(run_dir), checkpoint=checkpoint, num_steps=num_steps)
    return replay.verify(errand, command, on_progress).replay


def saved_name(run_dir: Path) -> str:
    with RunFolder(run_dir, read_only=True) as folder:
        return next(info.name for info in folder.checkpoints.listed() if info.reason == "user")


@pytest.fixture
def config(small_config: RunConfig) -> RunConfig:
    model = small_config.model.model_copy(update={"head_dropout": 0.5})
    data = small_config.data.model_copy(update={"augmentation": "standard", "mixing": "cutmix"})
    return small_config.model_copy(
        update={"model": model, "data": data, "plan": [PlanPhase(step=7, unfreeze=["conv5"])]}
    )


def test_the_steps_after_a_checkpoint_are_exact_and_the_run_stays_as_it_was(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    before = bytes_of(run_dir)
    found = verify(run_dir, saved_name(run_dir), 20)
    assert (found.first_step, found.num_steps) == (SAVED_AT, LAST_STEP - SAVED_AT)
    assert found.later.startswith("checkpoint_shufflenet_v2_x0_5_002_")
    assert found.difference is None
    assert found.causes == []
    assert bytes_of(run_dir) == before
    fewer = verify(run_dir, saved_name(run_dir), 2)
    assert (fewer.num_steps, fewer.later, fewer.difference) == (2, "", None)
    # The newest checkpoint that has steps after it is that of the second epoch.
    newest = verify(run_dir, None, 20)
    assert (newest.first_step, newest.num_steps, newest.difference) == (8, 4, None)


def bytes_of(run_dir: Path) -> dict[str, str]:
    # What SQLite puts beside a database that is read is gone when it is closed.
    return {
        str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and not path.name.startswith("run.db-")
    }


def test_images_that_come_in_other_views_are_a_cause_and_want_of_room_makes_no_difference(
    small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_config.data.model_copy(update={"augmentation": "light", "views": 1})
    run_dir = train(small_config.model_copy(update={"data": data}), tmp_path / "runs")
    monkeypatch.setattr(feature_store, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(feature_store, "make_room", lambda *_: 0)
    assert verify(run_dir, saved_name(run_dir), 20).difference is None

    def fail(*_: object) -> None:
        raise CutError("It is another one.")

    monkeypatch.setattr(FeatureCache, "_prove", fail)
    found = verify(run_dir, saved_name(run_dir), 20)
    assert found.difference is not None
    assert found.causes == ["its images came in 1 fixed view, and now come in a new view in each epoch"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda rng: rng.pop("torch"), ["the state of the generator torch is not in the checkpoint"]),
        (lambda rng: rng.update(torch=torch.Generator().manual_seed(1).get_state()), []),
    ],
    ids=["dropped", "another"],
)
def test_a_generator_whose_state_is_not_that_of_then_is_found_at_the_first_step(
    config: RunConfig, tmp_path: Path, change: Callable[[dict[str, Any]], None], cause: list[str]
) -> None:
    run_dir = train(config, tmp_path / "runs")
    name = saved_name(run_dir)
    path = run_dir / "checkpoints" / name
    content = torch.load(path, weights_only=True)
    change(content["rng"])
    torch.save(content, path)
    relist(run_dir, name)
    found = verify(run_dir, name, 20)
    assert found.difference is not None
    assert (found.difference.step, found.difference.what) == (SAVED_AT + 1, "Loss/train")
    assert found.difference.difference > 0
    assert found.causes == cause


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def relist(run_dir: Path, name: str) -> None:
    """List a checkpoint's file as it is now."""
    with closing(RunFolder(run_dir)) as folder:
        info = folder.checkpoints.find(name)
        folder.checkpoints.add(info.model_copy(update={"sha256": hash_file(run_dir / "checkpoints" / name)}))


def test_an_image_that_was_changed_is_found_at_the_step_that_trains_on_it(config: RunConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"data": config.data.model_copy(update={"mixing": "none"})})
    image: list[tuple[int, str]] = []

    def choose_image(trainer: Trainer) -> None:
        if not image:
            # One of the second batch after the checkpoint, which is the third of the second epoch.
            batch = list(trainer.data.sampler.batches(1, 0))[2]
            image.append((1 * 4 + 3, trainer.data.train._dataset._samples[batch[0][1]][0]))

    run_dir = train(config, tmp_path / "runs", choose_image)
    ((step, path),) = image
    Image.new("RGB", (20, 20), "red").save(path)
    found = verify(run_dir, saved_name(run_dir), 20)
    assert found.difference is not None
    assert (found.difference.step, found.causes) == (
        step,
        [f"1 image changed ({Path(path).parent.name}/{Path(path).name})"],
    )


def test_steps_are_compared_up_to_the_first_change_by_hand(config: RunConfig, tmp_path: Path) -> None:
    def meddle(trainer: Trainer) -> None:
        if trainer.step == 9 and "stage4" in trainer.freeze_set.describe(trainer.freeze_set.frozen):
            recorded = trainer.changes.unfreeze(["stage4"])
            trainer._emit(recorded)

    run_dir = train(config, tmp_path / "runs", meddle)
    found = verify(run_dir, saved_name(run_dir), 20)
    assert (found.num_steps, found.difference) == (9 - SAVED_AT, None)


def test_the_newest_piece_of_the_curve_that_began_at_a_checkpoint_is_compared(
    config: RunConfig, tmp_path: Path
) -> None:
    done: list[str] = []

    def meddle(trainer: Trainer) -> None:
        if trainer.step == 6 and not done:
            done.append("changed")
            trainer._emit(trainer.changes.unfreeze(["stage4"]))
        if trainer.step == 10 and len(done) == 1:
            done.append("restored")
            (name,) = [info.name for info in trainer._folder.checkpoints.listed() if info.reason == "user"]
            for event in trainer.restore(name):
                trainer._emit(event)

    run_dir = train(config, tmp_path / "runs", meddle)
    with RunFolder(run_dir, read_only=True) as folder:
        assert {info.segment for info in folder.checkpoints.listed()} == {0, 1}
    found = verify(run_dir, saved_name(run_dir), 20)
    assert (found.num_steps, found.difference, bool(found.later)) == (LAST_STEP - SAVED_AT, None, True)


def test_where_weights_alone_were_restored_no_run_went_on_from_their_checkpoint(
    config: RunConfig, tmp_path: Path
) -> None:
    done: list[int] = []

    def meddle(trainer: Trainer) -> None:
        if trainer.step == 10 and not done:
            done.append(trainer.step)
            (name,) = [info.name for info in trainer._folder.checkpoints.listed() if info.reason == "user"]
            for event in trainer.restore(name, weights_only=True):
                trainer._emit(event)

    run_dir = train(config, tmp_path / "runs", meddle)
    found = verify(run_dir, saved_name(run_dir), 20)
    assert (found.num_steps, found.difference) == (10 - SAVED_AT, None)


def test_a_run_without_steps_after_a_checkpoint_says_so(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    with pytest.raises(RunFolderError, match=r"has no steps to compare with: none was made after checkpoint_.*_003_"):
        verify(run_dir, "3", 20)


@pytest.mark.parametrize("num_steps", [3, 20], ids=["not reached", "reached"])
@pytest.mark.parametrize("spoil", [flip_last_byte, cut, empty], ids=["flipped", "cut", "empty"])
def test_a_damaged_last_checkpoint_is_refused_though_none_is_named(
    config: RunConfig, tmp_path: Path, spoil: Callable[[Path], None], num_steps: int
) -> None:
    run_dir = train(config, tmp_path / "runs")
    with RunFolder(run_dir, read_only=True) as folder:
        last = folder.checkpoints.find("last").name
    spoil(run_dir / "checkpoints" / last)
    with pytest.raises(CheckpointError, match=f"^The checkpoint {last} is damaged: its bytes changed since it was"):
        verify(run_dir, None, num_steps)
    # An earlier one that is named is verified, as long as it need not be compared with that.
    assert verify(run_dir, saved_name(run_dir), 3).difference is None


def test_a_file_that_is_missing_is_named_in_the_run_and_not_in_the_copy(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    name = saved_name(run_dir)
    (run_dir / "base.pt").rename(tmp_path / "base.pt")
    for checkpoint in (None, name):
        with pytest.raises(CheckpointError, match="is missing, and every checkpoint") as refused:
            verify(run_dir, checkpoint, 20)
        assert str(refused.value).startswith(f"{run_dir / 'base.pt'} is missing")
    (tmp_path / "base.pt").rename(run_dir / "base.pt")
    (run_dir / "checkpoints" / name).unlink()
    with pytest.raises(CheckpointError) as refused:
        verify(run_dir, name, 20)
    assert f"is missing from {run_dir / 'checkpoints'}." in str(refused.value)


def test_whole_files_are_verified_without_the_base(config: RunConfig, tmp_path: Path) -> None:
    whole = config.checkpoints.model_copy(update={"self_contained": True})
    run_dir = train(config.model_copy(update={"checkpoints": whole}), tmp_path / "runs")
    (run_dir / "base.pt").unlink()
    assert verify(run_dir, saved_name(run_dir), 20).difference is None


def test_weights_that_differ_are_named_though_all_that_was_measured_is_equal(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    with RunFolder(run_dir, read_only=True) as folder:
        later = folder.checkpoints.find("2").name
    path = run_dir / "checkpoints" / later
    content = torch.load(path, weights_only=True)
    content["model_state_dict"]["fc.1.bias"][0] += 0.25
    torch.save(content, path)
    relist(run_dir, later)
    found = verify(run_dir, saved_name(run_dir), 20)
    assert found.difference is not None
    assert (found.difference.step, found.difference.what, found.later) == (8, "fc.1.bias", later)
    assert found.difference.difference == pytest.approx(0.25)


def test_a_replay_that_is_ended_leaves_nothing_behind(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = train(config, tmp_path / "runs")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    steps: list[int] = []

    def end(what: str, done: int, *_: object) -> None:
        if what == "Making steps again":
            assert list((tmp_path / "scratch").iterdir())
            steps.append(done)
            if done == 2:
                # As the signal does that ends an errand.
                sys.exit(130)

    with pytest.raises(SystemExit):
        verify(run_dir, saved_name(run_dir), 20, end)
    assert steps == [0, 1, 2]
    assert not list((tmp_path / "scratch").iterdir())


def test_a_gpu_that_a_live_run_uses_is_left_to_it(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = train(config, tmp_path / "runs")
    monkeypatch.setattr("trainer.preparation.choose_device", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr("trainer.estimate.runs_on", lambda *_: ["digits-resnet18"])
    with pytest.raises(ValueError, match="because the run digits-resnet18 uses cuda:0"):
        verify(run_dir, saved_name(run_dir), 20)


def test_a_live_run_is_verified_as_it_trains_and_nothing_of_it_changes(config: RunConfig, tmp_path: Path) -> None:
    found: list[Replay] = []

    def meddle(trainer: Trainer) -> None:
        if trainer.step == 10 and not found:
            trainer.report(force=True)
            assert trainer._folder is not None
            trainer.settle()
            run_dir = trainer._folder.path
            before = bytes_of(run_dir)
            with trainer.trial():
                # Of this process's generators, which an errand has of its own, all is put back.
                found.append(verify(run_dir, saved_name(run_dir), 20))
            assert bytes_of(run_dir) == before

    train(config, tmp_path / "runs", meddle)
    (of_live,) = found
    assert (of_live.first_step, of_live.num_steps, of_live.difference) == (SAVED_AT, 10 - SAVED_AT, None)
    assert of_live.later
