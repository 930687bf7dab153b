"""The steps after a checkpoint, made again and compared: exact, or different from the right step on, and why."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from trainer.checkpoints import hash_file
from trainer.config import PlanPhase, RunConfig
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.events import MetricsLogged, RewindsKept, RunPrepared
from trainer.preparation import Preparation, PreparationCancelled
from trainer.run_record import RunFolderError, WorkerAddress
from trainer.runs import RunFolder

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


def saved_name(run_dir: Path) -> str:
    with RunFolder(run_dir, read_only=True) as folder:
        return next(info.name for info in folder.checkpoints() if info.reason == "user")


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
    replay = preparation().verify(run_dir, saved_name(run_dir), 20)
    assert (replay.first_step, replay.num_steps) == (SAVED_AT, LAST_STEP - SAVED_AT)
    assert replay.later.startswith("checkpoint_shufflenet_v2_x0_5_002_")
    assert replay.difference is None
    assert replay.causes == []
    assert bytes_of(run_dir) == before
    fewer = preparation().verify(run_dir, saved_name(run_dir), 2)
    assert (fewer.num_steps, fewer.later, fewer.difference) == (2, "", None)
    # The newest checkpoint that has steps after it is that of the second epoch.
    newest = preparation().verify(run_dir, None, 20)
    assert (newest.first_step, newest.num_steps, newest.difference) == (8, 4, None)


def bytes_of(run_dir: Path) -> dict[str, str]:
    # What SQLite puts beside a database that is read is gone when it is closed.
    return {
        str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and not path.name.startswith("run.db-")
    }


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
    replay = preparation().verify(run_dir, name, 20)
    assert replay.difference is not None
    assert (replay.difference.step, replay.difference.what) == (SAVED_AT + 1, "Loss/train")
    assert replay.difference.difference > 0
    assert replay.causes == cause


def relist(run_dir: Path, name: str) -> None:
    """List a checkpoint's file as it is now."""
    with closing(RunFolder(run_dir)) as folder:
        info = folder.checkpoint(name)
        folder.add_checkpoint(info.model_copy(update={"sha256": hash_file(run_dir / "checkpoints" / name)}))


def test_an_image_that_was_changed_is_found_at_the_step_that_trains_on_it(config: RunConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"data": config.data.model_copy(update={"mixing": "none"})})
    image: list[tuple[int, str]] = []

    def choose_image(trainer: Trainer) -> None:
        if not image:
            # One of the second batch after the checkpoint, which is the third of the second epoch.
            batch = list(trainer.data._sampler.batches(1, 0))[2]
            image.append((1 * 4 + 3, trainer.data._train._dataset._samples[batch[0][1]][0]))

    run_dir = train(config, tmp_path / "runs", choose_image)
    ((step, path),) = image
    Image.new("RGB", (20, 20), "red").save(path)
    replay = preparation().verify(run_dir, saved_name(run_dir), 20)
    assert replay.difference is not None
    assert (replay.difference.step, replay.causes) == (step, ["1 image changed"])


def test_steps_are_compared_up_to_the_first_change_by_hand(config: RunConfig, tmp_path: Path) -> None:
    def meddle(trainer: Trainer) -> None:
        if trainer.step == 9 and "stage4" in trainer.freeze_set.describe(trainer.freeze_set.frozen):
            recorded = trainer.changes.unfreeze(["stage4"])
            trainer._emit(recorded)

    run_dir = train(config, tmp_path / "runs", meddle)
    replay = preparation().verify(run_dir, saved_name(run_dir), 20)
    assert (replay.num_steps, replay.difference) == (9 - SAVED_AT, None)


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
            (name,) = [info.name for info in trainer._folder.checkpoints() if info.reason == "user"]
            for event in trainer.restore(name):
                trainer._emit(event)

    run_dir = train(config, tmp_path / "runs", meddle)
    with RunFolder(run_dir, read_only=True) as folder:
        assert {info.segment for info in folder.checkpoints()} == {0, 1}
    replay = preparation().verify(run_dir, saved_name(run_dir), 20)
    assert (replay.num_steps, replay.difference, bool(replay.later)) == (LAST_STEP - SAVED_AT, None, True)


def test_where_weights_alone_were_restored_no_run_went_on_from_their_checkpoint(
    config: RunConfig, tmp_path: Path
) -> None:
    done: list[int] = []

    def meddle(trainer: Trainer) -> None:
        if trainer.step == 10 and not done:
            done.append(trainer.step)
            (name,) = [info.name for info in trainer._folder.checkpoints() if info.reason == "user"]
            for event in trainer.restore(name, weights_only=True):
                trainer._emit(event)

    run_dir = train(config, tmp_path / "runs", meddle)
    replay = preparation().verify(run_dir, saved_name(run_dir), 20)
    assert (replay.num_steps, replay.difference) == (10 - SAVED_AT, None)


def test_a_run_without_steps_after_a_checkpoint_says_so(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    with pytest.raises(RunFolderError, match=r"has no steps to compare with: none was made after checkpoint_.*_003_"):
        preparation().verify(run_dir, "3", 20)


def test_weights_that_differ_are_named_though_all_that_was_measured_is_equal(config: RunConfig, tmp_path: Path) -> None:
    run_dir = train(config, tmp_path / "runs")
    with RunFolder(run_dir, read_only=True) as folder:
        later = folder.checkpoint("2").name
    path = run_dir / "checkpoints" / later
    content = torch.load(path, weights_only=True)
    content["model_state_dict"]["fc.1.bias"][0] += 0.25
    torch.save(content, path)
    relist(run_dir, later)
    replay = preparation().verify(run_dir, saved_name(run_dir), 20)
    assert replay.difference is not None
    assert (replay.difference.step, replay.difference.what, replay.later) == (8, "fc.1.bias", later)
    assert replay.difference.difference == pytest.approx(0.25)


def test_a_replay_can_be_stopped_and_leaves_nothing_behind(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = train(config, tmp_path / "runs")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    steps: list[int] = []

    def check() -> None:
        if len(steps) == 2:
            raise PreparationCancelled

    here = psutil.Process()
    stopped = Preparation(
        WorkerAddress("nowhere", b"", here.pid, here.create_time()),
        lambda _: None,
        lambda what, done, *_: steps.append(done) if what == "Making steps again" else None,
        check,
    )
    with pytest.raises(PreparationCancelled):
        stopped.verify(run_dir, saved_name(run_dir), 20)
    assert steps == [0, 1]
    assert not list((tmp_path / "scratch").iterdir())
