"""The Trainer by itself: the plan, the jump of a restore, the same data for any number of loader processes."""

from __future__ import annotations

import copy
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torchvision
from torch.nn.functional import cross_entropy

from tests.conftest import make_images
from trainer.checkpoints import CheckpointError
from trainer.config import CheckpointsConfig, ConfigError, OptimizerConfig, PlanPhase, RunConfig
from trainer.data.loader import ImageData
from trainer.data.mixing import BatchMixer
from trainer.data.scan import scan
from trainer.feature_batches import ModelBatch
from trainer.freezing import FreezeError
from trainer.loop import RunStopped, Trainer
from trainer.messages.base import Event
from trainer.messages.changes import (
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PhaseBegan,
    RateMultiplierChanged,
    TrainingChanged,
)
from trainer.messages.events import (
    CheckpointSaved,
    CommandRejected,
    FreezeVerified,
    LayerStatsReported,
    LogWritten,
    MetricsLogged,
)
from trainer.metrics import TRAIN_LOSS, VALIDATION_LOSS
from trainer.models import build_model
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder
from trainer.saving import PendingSave
from trainer.task import MultiClass

Make = Callable[[RunConfig], tuple[Trainer, list[Event]]]


@pytest.fixture
def make_trainer(tmp_path: Path) -> Iterator[Make]:
    """Make trainers with a run folder of their own, and the list that their events go to."""
    trainers: list[Trainer] = []
    folders: list[RunFolder] = []

    def make(config: RunConfig) -> tuple[Trainer, list[Event]]:
        events: list[Event] = []
        scanned = scan(config.data, config.training.seed, tmp_path / "cache", lambda *_: None, lambda: None)
        loaded = build_model(
            config.model,
            config.data.num_outputs(len(scanned.class_names)),
            config.training.seed,
            config.data.image_size,
            lambda *_: None,
            lambda: None,
        )
        data = ImageData(config.data, config.training, loaded.preprocessing, scanned)
        trainer = Trainer(config, loaded, data, torch.device("cpu"), events.append)
        trainers.append(trainer)
        folders.append(RunFolder.create(tmp_path / "runs", config))
        trainer.begin(folders[-1])
        return trainer, events

    yield make
    for made in (*trainers, *folders):
        made.close()


def batch_of(trainer: Trainer, images: torch.Tensor, target: torch.Tensor) -> ModelBatch:
    return ModelBatch.of_images(trainer.module, images, target, trainer.device)


def with_data(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def make_two_classes(root: Path) -> None:
    """Make class_1 of the images of class_2 as well: twice as many as class_0 has."""
    for file in (root / "class_2").iterdir():
        file.rename(root / "class_1" / f"2_{file.name}")
    (root / "class_2").rmdir()


def with_plan(config: RunConfig, *phases: PlanPhase) -> RunConfig:
    return config.model_copy(update={"plan": list(phases)})


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}


def test_the_plan_unfreezes_at_the_start_of_its_epoch(make_trainer: Make, small_config: RunConfig) -> None:
    plan = (PlanPhase(epoch=1, unfreeze=["conv5"]), PlanPhase(epoch=2, freeze=["conv5"]))
    trainer, events = make_trainer(with_plan(small_config, *plan))
    trainer.fit(lambda: None)
    changes = [event for event in events if isinstance(event, LayersFrozen | LayersUnfrozen)]
    assert [(e.sentence, e.applied_step, e.source) for e in changes] == [
        ("conv5 unfrozen", 4, "plan"),
        ("conv5 frozen", 8, "plan"),
    ]
    assert next(e.checkpoint.frozen_summary for e in events if isinstance(e, CheckpointSaved)) == "backbone"


def test_a_plan_goes_by_steps_swaps_what_learns_and_changes_rates(make_trainer: Make, small_config: RunConfig) -> None:
    plan = (
        PlanPhase(step=2, unfreeze=["conv5"], freeze=["head"], rates={"conv5.0.weight": 0.5, "conv5.1": 0.5}),
        PlanPhase(epoch=2, unfreeze=["head"], freeze=["backbone"]),
    )
    trainer, events = make_trainer(with_plan(small_config, *plan))
    trainer.fit(lambda: None)
    told = [
        (event.sentence, event.applied_step, event.source)
        for event in events
        if isinstance(event, LayersFrozen | LayersUnfrozen | RateMultiplierChanged)
    ]
    assert told == [
        ("conv5 unfrozen", 2, "plan"),
        ("head frozen", 2, "plan"),
        ("conv5 at rate × 0.5", 2, "plan"),
        ("head unfrozen", 8, "plan"),
        ("conv5 frozen", 8, "plan"),
    ]
    assert [(e.num_begun, e.step) for e in events if isinstance(e, PhaseBegan)] == [(1, 2), (2, 8)]


def test_a_plan_that_is_changed_as_it_runs_goes_on_from_what_has_begun_after_a_restore_too(
    make_trainer: Make, small_config: RunConfig
) -> None:
    plan = (PlanPhase(step=1, unfreeze=["conv5"]), PlanPhase(step=9, unfreeze=["stage4"]))
    trainer, events = make_trainer(with_plan(small_config, *plan))
    names: list[str] = []

    def meddle() -> None:
        if trainer.step == 2 and not names:
            names.append(trainer.save(reason="user").name)
            changed = trainer.changes.set_plan([PlanPhase(step=3, freeze=["conv5"])])
            assert (changed.num_begun, [phase.step for phase in changed.plan]) == (1, [1, 3])
            with pytest.raises(ConfigError, match="stage9"):
                trainer.changes.set_plan([PlanPhase(step=3, freeze=["stage9"])])
            with pytest.raises(ConfigError, match="step 1 is in the past: the run is at step 2, in epoch 1"):
                trainer.changes.set_plan([PlanPhase(step=1, freeze=["conv5"])])
        if trainer.step == 5 and len(names) == 1:
            restored = trainer.restore(names[0])[0]
            assert isinstance(restored, CheckpointRestored)
            assert (restored.plan, restored.num_phases_begun) == ([plan[0], PlanPhase(step=3, freeze=["conv5"])], 1)
            names.append("restored")

    trainer.fit(meddle)
    assert [(e.num_begun, e.step) for e in events if isinstance(e, PhaseBegan)] == [(1, 1), (2, 3), (2, 3)]
    assert trainer.freeze_set.describe(trainer.freeze_set.frozen) == "backbone"


def test_a_hand_made_change_at_the_plans_epoch_stays(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(with_plan(small_config, PlanPhase(epoch=1, unfreeze=["conv5"])))
    done: list[str] = []

    def meddle() -> None:
        if trainer.step == 6 and not done:
            trainer.settle()
            (first, *_) = [e.checkpoint.name for e in events if isinstance(e, CheckpointSaved)]
            done.extend(type(event).__name__ for event in trainer.restore(first))
            trainer.changes.freeze(["conv5"])

    trainer.fit(meddle)
    # The checkpoint is of before the plan's change, which is made anew.
    assert done == ["CheckpointRestored", "PhaseBegan", "LayersUnfrozen", "RewindsKept"]
    assert trainer.freeze_set.describe(trainer.freeze_set.frozen) == "backbone"


def test_an_epoch_that_could_not_be_saved_is_told_at_a_step_boundary_and_saved_as_it_was_when_the_run_goes_on(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(small_config)
    straight, straight_events = make_trainer(small_config)
    straight.fit(lambda: None)

    def fail(*_: object, **__: object) -> None:
        raise CheckpointError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(trainer._store, "write", fail)
        with pytest.raises(CheckpointError):
            trainer.fit(lambda: trainer._writer.finish())
        assert (trainer.step, trainer.batch) == (4, 0)
        # Still no room: nothing is trained, and nothing lost.
        with pytest.raises(CheckpointError):
            trainer.fit(lambda: None)
        assert trainer.step == 4
    assert not [event for event in events if isinstance(event, CheckpointSaved)]
    trainer.fit(lambda: None)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    assert [(info.epoch, info.step) for info in saved] == [(1, 4), (2, 8), (3, 12)]
    theirs = [event.checkpoint for event in straight_events if isinstance(event, CheckpointSaved)]
    assert [info.metrics for info in saved] == [info.metrics for info in theirs]
    for ours, other in zip(saved, theirs, strict=True):
        a, b = trainer._store.load(ours)["model_state_dict"], straight._store.load(other)["model_state_dict"]
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_is_of_its_moment_and_told_once_durable_however_far_the_run_has_gone_on_meanwhile(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(small_config)
    write, may_write, at_save = trainer._store.write, threading.Event(), {}

    def write_late(path: Path, content: dict[str, Any], **whether: bool) -> tuple[int, str]:
        assert may_write.wait(60)
        assert threading.current_thread() is not threading.main_thread()
        return write(path, content, **whether)

    monkeypatch.setattr(trainer._store, "write", write_late)

    def between_steps() -> None:
        if trainer.step == 4 and trainer.batch == 0 and not at_save:
            at_save.update(weights(trainer))
        if trainer.step == 7:
            assert trainer._folder.checkpoints.listed() == []
            assert not [event for event in events if isinstance(event, CheckpointSaved)]
            may_write.set()

    trainer.fit(between_steps)
    first, *_ = trainer._folder.checkpoints.listed()
    assert [e.checkpoint for e in events if isinstance(e, CheckpointSaved)] == trainer._folder.checkpoints.listed()
    assert all(trainer._folder.checkpoints.problem_of(info) == "" for info in trainer._folder.checkpoints.listed())
    loaded = trainer._store.load(first)
    assert loaded["step"] == 4
    assert all(torch.equal(tensor, at_save[name]) for name, tensor in loaded["model_state_dict"].items())


def test_what_is_frozen_is_written_from_where_it_is(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    begin, shared = trainer._saver.begin, set()

    def note(save: PendingSave) -> None:
        own = {key: tensor.data_ptr() for key, tensor in trainer.module.state_dict().items()}
        assert list(save.model_state) == list(own)
        shared.update(key for key, tensor in save.model_state.items() if tensor.data_ptr() == own[key])
        begin(save)

    trainer._saver.begin = note
    trainer.save(reason="user")
    assert shared == {key for key in trainer.module.state_dict() if not key.startswith("fc.")}
    shared.clear()
    trainer.changes.set_batchnorm(["conv5"], is_adapting=True)
    trainer.save(reason="user")
    moving = {"conv5.1.running_mean", "conv5.1.running_var", "conv5.1.num_batches_tracked"}
    assert shared == {key for key in trainer.module.state_dict() if not key.startswith("fc.")} - moving


@pytest.mark.parametrize("change", ["unfreeze", "statistics", "weights"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_checkpoint_is_of_its_moment_whatever_is_no_longer_frozen_while_it_is_written(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, change: str, fails: bool
) -> None:
    trainer, events = make_trainer(small_config)
    at_save, is_asked, written = weights(trainer), threading.Event(), []
    write, let_go = trainer._store.write, trainer._let_go_of_weights

    def noted() -> None:
        is_asked.set()
        let_go()

    def write_late(path: Path, content: dict[str, Any], **whether: bool) -> tuple[int, str]:
        assert is_asked.wait(60)
        if fails and not written:
            written.append("not yet")
            raise CheckpointError("no room")
        written.append(path.parent.name)
        return write(path, content, **whether)

    monkeypatch.setattr(trainer, "_let_go_of_weights", noted)
    monkeypatch.setattr(trainer.freeze_set, "before_frozen_changes", noted)
    monkeypatch.setattr(trainer._store, "write", write_late)
    trainer.begin_save(reason="epoch")
    match change:
        case "unfreeze":
            trainer.changes.unfreeze(["conv5"])
        case "statistics":
            trainer.changes.set_batchnorm(["conv5"], is_adapting=True)
        case _:
            trainer.load_model(weights(trainer), "The same weights")
    # The state before the change is written, too.
    assert written[0] == ("not yet" if fails else "checkpoints")
    with torch.no_grad():
        for tensor in trainer.module.state_dict().values():
            tensor.zero_()
    trainer.settle()
    (info,) = trainer._folder.checkpoints.listed()
    loaded = trainer._store.load(info)["model_state_dict"]
    assert all(torch.equal(tensor, at_save[name]) for name, tensor in loaded.items())
    assert [event.drifted for event in events if isinstance(event, FreezeVerified)] == [[]] * (1 + fails)


def test_the_copy_of_a_checkpoint_is_let_go_as_soon_as_it_is_durable(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(small_config)
    begin, copies = trainer._saver.begin, []

    def note(save: PendingSave) -> None:
        copies.append(weakref.ref(save))
        copies.append(weakref.ref(save.model_state["fc.weight"]))
        begin(save)

    trainer._saver.begin = note
    trainer.begin_save(reason="user")
    trainer.settle()
    # The writer's thread goes on to wait for the next job.
    deadline = time.monotonic() + 30
    while any(copy() is not None for copy in copies) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [copy() for copy in copies] == [None, None]
    assert trainer._writer._thread.is_alive()


def test_a_checkpoint_that_a_person_asked_for_and_that_fails_is_refused_and_the_run_goes_on(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(small_config)
    write = trainer._store.write

    def write_epochs(path: Path, content: dict[str, Any], **whether: bool) -> tuple[int, str]:
        if content["step"] == 2:
            raise CheckpointError("no room")
        return write(path, content, **whether)

    monkeypatch.setattr(trainer._store, "write", write_epochs)
    trainer.fit(lambda: trainer.begin_save(reason="user", command_id="mine") if trainer.step == 2 else None)
    (refused,) = [event for event in events if isinstance(event, CommandRejected)]
    assert (refused.command, refused.command_id, refused.reason) == ("SaveCheckpoint", "mine", "no room")
    assert [info.step for info in trainer._folder.checkpoints.listed()] == [4, 8, 12]


def test_a_plan_that_would_freeze_all_that_is_left_in_mid_run_is_passed_over_with_a_warning(
    make_trainer: Make, small_config: RunConfig
) -> None:
    model = small_config.model.model_copy(update={"frozen": []})
    config = with_plan(small_config.model_copy(update={"model": model}), PlanPhase(epoch=1, freeze=["backbone"]))
    trainer, events = make_trainer(config)
    trainer.changes.freeze(["head"])
    trainer.fit(lambda: None)
    (warning,) = [event for event in events if isinstance(event, LogWritten) and event.level == "warning"]
    assert "nothing would be left to train" in warning.text


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (PlanPhase(epoch=1, unfreeze=["stage9"]), "stage9"),
        (PlanPhase(epoch=3, unfreeze=["conv5"]), "never comes"),
        (PlanPhase(epoch=1, freeze=["head"]), "nothing would be left to train"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_before_the_run(
    make_trainer: Make, small_config: RunConfig, phase: PlanPhase, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make_trainer(with_plan(small_config, phase))
    assert caught.value.field == "plan"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixing": "mixup", "augmentation": "standard", "balance": "class_weights"},
        {"mixing": "cutmix", "augmentation": "strong", "balance": "sampler"},
        {"mixing": "cutmix", "task": "binary", "balance": "class_weights"},
    ],
)
def test_a_restore_in_mid_epoch_goes_on_from_there_and_ends_where_the_straight_run_ends(
    make_trainer: Make, small_config: RunConfig, changes: dict[str, str]
) -> None:
    """To the bit, with dropout-free head and augmentation, whatever happened between."""
    if changes.get("task") == "binary":
        make_two_classes(Path(small_config.data.path))
    small_config = with_data(small_config, **changes)
    straight, _ = make_trainer(small_config)
    straight.fit(lambda: None)

    trainer, events = make_trainer(small_config)
    done: list[str] = []

    def meddle() -> None:
        if trainer.step == 5 and not done:
            done.append(trainer.save(reason="user").name)
        if trainer.step == 7 and len(done) == 1:
            trainer.changes.unfreeze(["stage4"])
        if trainer.step == 10 and len(done) == 1:
            trainer.restore(done[0])
            done.append("restored")
            assert (trainer.step, trainer.epoch, trainer.batch) == (5, 1, 1)

    trainer.fit(meddle)
    assert done[1:] == ["restored"]
    ours, theirs = weights(trainer), weights(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {e.segment for e in events if isinstance(e, MetricsLogged)} == {0, 1}


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_restore_that_is_refused_has_changed_nothing(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch, weights_only: bool
) -> None:
    trainer, _ = make_trainer(with_training(small_config, epochs=1))
    first = trainer.save(reason="user")
    trainer.fit(lambda: None)
    before, step = weights(trainer), trainer.step

    def refuse(*_: object) -> int:
        raise RunFolderError("Cannot write run.db: database or disk is full. Make room and try again.")

    monkeypatch.setattr(trainer._folder, "begin_segment", refuse)
    put_back = trainer.restoring.put_weights_back if weights_only else trainer.restoring.put_checkpoint_back
    with pytest.raises(RunFolderError, match="Make room"):
        put_back(first.name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())
    assert (trainer.step, trainer.segment, trainer._has_jumped) == (step, 0, False)


def test_restored_weights_go_on_where_the_run_stands_without_the_optimizers_state(
    make_trainer: Make, small_config: RunConfig, tmp_path: Path
) -> None:
    trainer, events = make_trainer(with_training(small_config, epochs=2))
    at_first: dict[str, torch.Tensor] = {}
    restored: list[Event] = []
    checked: list[int] = []

    def meddle() -> None:
        if trainer.step == 1 and not at_first:
            trainer.save(reason="user")
            at_first.update(weights(trainer))
        if trainer.step == 4 and not restored and trainer.epoch == 0:
            # The validation of the first epoch: what it is of must be one set of weights.
            trainer.changes.unfreeze(["conv5"])
            rate, position = trainer.rates.applied, (trainer.step, trainer.epoch, trainer.batch)
            restored.extend(trainer.restore("step000001", weights_only=True))
            assert (trainer.step, trainer.epoch, trainer.batch) == position
            assert trainer.rates.applied == rate
            assert not trainer.optimizer.state
            assert "conv5" not in " ".join(trainer.freeze_set.frozen)
            assert all(torch.equal(tensor, at_first[name]) for name, tensor in weights(trainer).items())
            assert not trainer.freeze_set.find_drifted()
        if trainer.step == 5 and not checked:
            checked.append(trainer.segment)

    trainer.fit(meddle)
    (event,) = (each for each in restored if isinstance(each, CheckpointRestored))
    assert (event.weights_only, event.step, event.segment) == (True, 4, 1)
    assert checked == [1]
    # Nothing was left behind: the curve goes on, in another piece.
    losses = [e for e in events if isinstance(e, MetricsLogged) and TRAIN_LOSS in e.series]
    assert [(e.segment, step) for e in losses for step in e.series[TRAIN_LOSS].steps] == [
        (0 if step <= 4 else 1, step) for step in range(1, 9)
    ]
    validated = [(e.segment, e.series[VALIDATION_LOSS].steps) for e in events if is_validation(e)]
    assert validated == [(1, [4]), (1, [8])]
    assert [e.drifted for e in events if isinstance(e, FreezeVerified)][-1] == []


def test_restored_weights_outlive_a_kill_before_the_next_checkpoint(
    make_trainer: Make, small_config: RunConfig
) -> None:
    config = small_config.model_copy(update={"checkpoints": CheckpointsConfig(keep_best=1)})
    trainer, _ = make_trainer(config)
    restored: dict[str, torch.Tensor] = {}

    def kill_later() -> None:
        if trainer.step == 4 and trainer.epoch == 1 and not restored:
            trainer.restore("1", weights_only=True)
            restored.update(weights(trainer))
        if trainer.step == 6:
            trainer._writer.finish()
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(kill_later)
    folder = trainer._folder
    point = folder.checkpoints.resume_point()
    assert (point.reason, point.step, point.segment) == ("weights", 4, 1)
    second, _ = make_trainer(config)
    second.go_on(folder, point)
    assert all(torch.equal(tensor, restored[name]) for name, tensor in weights(second).items())
    assert second.step == 4
    assert not second.optimizer.state


def test_restored_weights_are_taken_back_by_a_rewind(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(with_training(small_config, epochs=1))
    before: dict[str, torch.Tensor] = {}

    def meddle() -> None:
        if trainer.step == 1 and not before:
            trainer.save(reason="user")
        if trainer.step == 3 and not before:
            before.update(weights(trainer))
            trainer.restore("last", weights_only=True)
            assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())
            trainer.restoring.rewind(None, None)
            assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())
            assert trainer.optimizer.state

    trainer.fit(meddle)
    assert before


def test_weights_are_not_restored_where_nothing_is_left_to_train(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(with_training(small_config, epochs=1))
    trainer.fit(lambda: None)
    ended = weights(trainer)
    with pytest.raises(CheckpointError, match=r"at its end.*train on for more epochs"):
        trainer.restore("last", weights_only=True)
    assert all(torch.equal(tensor, ended[name]) for name, tensor in weights(trainer).items())


def is_validation(event: Event) -> bool:
    return isinstance(event, MetricsLogged) and VALIDATION_LOSS in event.series


def test_a_model_that_asks_for_the_version_of_its_weights_is_restored_and_loaded_by_plain_torch(
    make_trainer: Make, small_config: RunConfig
) -> None:
    small_config = small_config.model_copy(
        update={"model": small_config.model.model_copy(update={"name": "mnasnet0_5"})}
    )
    trainer, _ = make_trainer(small_config)
    trainer.fit(lambda: None)
    saved = trainer._folder.checkpoints.find("last")
    trained = weights(trainer)
    trainer.restore(saved.name)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in weights(trainer).items())
    # The lines of the README.
    base = torch.load(trainer._folder.base_path, weights_only=True)
    base.update(torch.load(trainer._folder.checkpoints_dir / saved.name, weights_only=True)["model_state_dict"])
    model = torchvision.models.mnasnet0_5(num_classes=3)
    model.load_state_dict(base)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


def test_a_run_tells_what_its_updates_do_in_the_layers_that_learn(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(small_config)
    trainer.fit(lambda: None)
    first, *_ = [event for event in events if isinstance(event, LayerStatsReported)]
    assert (first.step, first.segment, first.layers) == (1, 0, ["fc"])
    (step, total), *_ = [
        (logged.steps[0], logged.values[0])
        for event in events
        if isinstance(event, MetricsLogged) and (logged := event.series.get("Gradient norm"))
    ]
    assert step == 1
    assert first.gradient_norms == pytest.approx([total], rel=1e-3)
    # AdamW's first step is as long as the rate in each weight that has a gradient, and shorter in the others.
    assert 0 < first.update_norms[0] < 1.01e-3 * (1024 * 3 + 3) ** 0.5


def test_adapting_statistics_go_on_in_a_frozen_backbone_and_into_its_checkpoints(
    make_trainer: Make, small_config: RunConfig
) -> None:
    model = small_config.model.model_copy(update={"batchnorm": "adapting"})
    trainer, events = make_trainer(small_config.model_copy(update={"model": model}))
    before, step_names = weights(trainer), {}

    def meddle() -> None:
        if trainer.step == 4 and not step_names:
            step_names["adapting"] = trainer.save(reason="user").name
            changed = trainer.changes.set_batchnorm(["conv1"], is_adapting=False, requested_step=3)
            assert (changed.layers, changed.requested_step, changed.applied_step) == (["conv1.1"], 3, 4)
            assert changed.sentence == "statistics of conv1 freeze with the layer"
        elif trainer.step == 8:
            assert "conv1.1" not in trainer.freeze_set.adapting
            restored = trainer.restore(step_names["adapting"])[0]
            assert "conv1.1" in restored.adapting
            assert trainer.summary().adapting == restored.adapting
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(meddle)
    after = weights(trainer)
    moved = {name.rpartition(".")[2] for name in after if not torch.equal(after[name], before[name])}
    assert {"running_mean", "running_var"} < moved
    assert {name for name in after if "running" not in name and "batches" not in name} - {
        name for name in after if torch.equal(after[name], before[name])
    } == {"fc.weight", "fc.bias"}
    verified = [event for event in events if isinstance(event, FreezeVerified)]
    assert all(event.drifted == [] and event.num_adapting > 0 for event in verified)


def test_the_statistics_of_the_layers_that_a_configuration_names_adapt_from_the_start_and_no_others(
    make_trainer: Make, small_config: RunConfig
) -> None:
    model = small_config.model.model_copy(update={"adapting": ["conv1", "stage2.0.branch?.1"]})
    trainer, _ = make_trainer(small_config.model_copy(update={"model": model}))
    adapting = ["conv1.1", "stage2.0.branch1.1", "stage2.0.branch2.1"]
    assert trainer.summary().adapting == adapting
    before = weights(trainer)
    trainer.train_step(trainer.take_batches(trainer.features.train_batches(0)))
    after = weights(trainer)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name.rpartition(".")[0] for name in moved if name.endswith("running_mean")} == set(adapting)
    assert {name for name in moved if name.endswith((".weight", ".bias"))} == {"fc.weight", "fc.bias"}
    assert trainer.freeze_set.find_drifted() == []


def rates_of(trainer: Trainer, *layers: str) -> list[float]:
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    return [rates[layer] for layer in layers]


def test_a_rate_multiplier_holds_from_the_next_update_on_and_a_restore_brings_it_back(
    make_trainer: Make, small_config: RunConfig
) -> None:
    optimizer = small_config.optimizer.model_copy(update={"multipliers": {"backbone": 0.5, "conv5": 0.1}})
    trainer, _ = make_trainer(small_config.model_copy(update={"optimizer": optimizer}))
    assert trainer.summary().multipliers["conv5.0"] == 0.1
    name, changes = "", []

    def meddle() -> None:
        nonlocal name
        if trainer.step == 3 and not changes:
            assert rates_of(trainer, "stage4.0.branch1.0", "conv5.0", "fc") == pytest.approx([5e-4, 1e-4, 1e-3])
            changes.append(trainer.changes.set_rate_multiplier(["fc", "conv5"], 2.0, requested_step=2))
            name = trainer.save(reason="user").name
            changes.append(trainer.changes.set_rate_multiplier(["conv5"], 1.0))
            changes.append(trainer.changes.set_rate_multiplier(["conv5"], 1.0))
        elif trainer.step == 4 and len(changes) == 3:
            assert rates_of(trainer, "stage4.0.branch1.0", "conv5.0", "fc") == pytest.approx([5e-4, 1e-3, 2e-3])
            changes.append(trainer.restore(name)[0])
        elif trainer.step == 4:
            assert rates_of(trainer, "stage4.0.branch1.0", "conv5.0", "fc") == pytest.approx([5e-4, 2e-3, 2e-3])
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(meddle)
    first, second, nothing, restored = changes
    assert (first.sentence, first.requested_step, first.applied_step) == ("conv5, head at rate × 2", 2, 3)
    assert first.multipliers["fc"] == 2.0
    assert "conv5.0" not in second.multipliers
    assert nothing.layers == []
    assert restored.multipliers == first.multipliers


def test_a_rate_multiplier_of_a_layer_that_is_none_is_refused(make_trainer: Make, small_config: RunConfig) -> None:
    optimizer = small_config.optimizer.model_copy(update={"multipliers": {"stage9": 0.5}})
    with pytest.raises(ConfigError, match="no layer 'stage9'") as caught:
        make_trainer(small_config.model_copy(update={"optimizer": optimizer}))
    assert caught.value.field == "optimizer.multipliers"


def test_a_rate_is_of_a_whole_layer_by_its_name_or_by_all_its_parameters(
    make_trainer: Make, small_config: RunConfig
) -> None:
    config = small_config.optimizer.model_copy(update={"multipliers": {"fc.weight": 0.5, "fc.bias": 0.5}})
    trainer, _ = make_trainer(small_config.model_copy(update={"optimizer": config}))
    assert trainer.summary().multipliers == {"fc": 0.5}
    with pytest.raises(FreezeError, match=r"'fc\.bias' is only a part of the layer 'fc'\. Name the whole layer"):
        trainer.changes.set_rate_multiplier(["fc.bias"], 0.1)
    config = small_config.optimizer.model_copy(update={"multipliers": {"*.bias": 0.5}})
    with pytest.raises(ConfigError, match="only a part of the layer"):
        make_trainer(small_config.model_copy(update={"optimizer": config}))


def test_the_number_of_loader_processes_changes_nothing(make_trainer: Make, small_config: RunConfig) -> None:
    trained = []
    for num_workers in (0, 2):
        training = small_config.training.model_copy(update={"num_loader_workers": num_workers, "epochs": 1})
        trainer, _ = make_trainer(small_config.model_copy(update={"training": training}))
        trainer.fit(lambda: None)
        trained.append(weights(trainer))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_stop_leaves_the_fit_at_a_step_boundary(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)

    def stop() -> None:
        if trainer.step == 3:
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(stop)
    assert trainer.step == trainer.batch == 3


@pytest.mark.parametrize("name", get_args(OptimizerConfig.model_fields["name"].annotation))
def test_a_step_whose_loss_is_not_finite_changes_nothing_and_is_told(
    make_trainer: Make, small_config: RunConfig, name: str
) -> None:
    """Not even BatchNorm's statistics, which the forward pass has spoilt by then."""
    trainer, _ = make_trainer(with_optimizer(small_config, name=name))
    trainer.changes.unfreeze(["stage4"])
    batches = trainer.features.train_batches(0)
    trainer.freeze_set.set_mode(training=True)
    trainer.train_step(trainer.take_batches(batches))
    before, state = weights(trainer), copy.deepcopy(trainer.optimizer.state_dict()["state"])
    (batch,) = trainer.take_batches(batches)
    (images,) = batch.inputs()
    trainer.train_step([replace(batch, inputs=lambda: (images * float("nan"),))])
    assert (trainer.step, trainer.batch, trainer.non_finite_step) == (2, 2, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())
    after = trainer.optimizer.state_dict()["state"]
    assert {
        (idx, key) for idx in state for key in state[idx] if not torch.equal(state[idx][key], after[idx][key])
    } == set()
    trainer.train_step([batch])
    assert all(tensor.isfinite().all() for tensor in weights(trainer).values())
    assert not torch.equal(weights(trainer)["fc.weight"], before["fc.weight"])


# -- accumulation, clipping and rates -------------------------------------------------------------------------


def with_optimizer(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"optimizer": config.optimizer.model_copy(update=changes)})


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def test_accumulated_batches_train_as_one_large_batch(make_trainer: Make, small_config: RunConfig) -> None:
    """Also where the last one is smaller."""
    large, _ = make_trainer(with_training(small_config, batch_size=8))
    small, _ = make_trainer(with_training(small_config, batch_size=3, accumulate_batches=3))
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 0, 1, 1, 2, 0, 2, 1])
    for trainer in (large, small):
        trainer.freeze_set.set_mode(training=False)  # BatchNorm sees smaller batches, whatever one does
    large.train_step([batch_of(large, images, target)])
    small.train_step([batch_of(small, *part) for part in zip(images.split(3), target.split(3), strict=True)])
    assert torch.allclose(weights(large)["fc.weight"], weights(small)["fc.weight"], atol=1e-6)
    assert (small.step, small.batch) == (1, 3)


@pytest.mark.parametrize("changes", [{}, {"balance": "class_weights"}, {"mixing": "mixup"}])
def test_a_batch_in_parts_trains_as_the_whole(make_trainer: Make, small_config: RunConfig, changes: dict) -> None:
    config = with_data(with_training(small_config, batch_size=8), **changes)
    whole, _ = make_trainer(config)
    parted, _ = make_trainer(config)
    parted.batch_parts = 3
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 0, 1, 1, 2, 0, 2, 1])
    for trainer in (whole, parted):
        trainer.freeze_set.set_mode(training=False)  # BatchNorm sees smaller batches, whatever one does
        trainer.train_step([batch_of(trainer, images, target)])
    assert torch.allclose(weights(whole)["fc.weight"], weights(parted)["fc.weight"], atol=1e-6)
    assert (parted.step, parted.batch) == (1, 1)


def lack_memory_for(trainer: Trainer, num_images: int) -> list[int]:
    """Have the model's last layers raise what a GPU raises, for as many images or more. Returns what went through."""
    seen: list[int] = []

    def check(_: object, args: tuple[torch.Tensor]) -> None:
        seen.append(len(args[0]))
        if len(args[0]) >= num_images and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer.module.conv5.register_forward_pre_hook(check)
    return seen


def test_an_update_without_the_memory_for_it_changes_nothing_and_is_made_in_parts(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(small_config)
    seen = lack_memory_for(trainer, 5)
    before: list[dict[str, torch.Tensor]] = [weights(trainer)]
    told: list[tuple[int, int]] = []

    def between_steps() -> None:
        if not trainer.lacks_memory:
            return
        trainer.lacks_memory = False
        told.append((trainer.step, trainer.batch))
        assert all(torch.equal(tensor, before[0][name]) for name, tensor in weights(trainer).items())
        assert all(parameter.grad is None for parameter in trainer.module.parameters())
        # The first time, it is tried again as it is.
        if len(told) == 2:
            changed, *_ = trainer.changes.change_training(None, None, 2 * trainer.batch_parts)
            assert isinstance(changed, TrainingChanged)
            assert (changed.batch_parts, changed.before_batch_parts, changed.epochs) == (2, 1, 3)

    trainer.fit(between_steps)
    assert told == [(0, 0), (0, 0)]
    assert seen[:4] == [8, 8, 4, 4]
    assert (trainer.step, trainer.epoch) == (12, 3)
    assert trainer.in_force.batch_parts == 2
    series = [event.series for event in events if isinstance(event, MetricsLogged) and TRAIN_LOSS in event.series]
    logged = [step for each in series for step in each[TRAIN_LOSS].steps]
    assert logged == list(range(1, 13))


@pytest.mark.parametrize(("num_images", "parts", "sizes"), [(3, 2, [3]), (5, 4, [3, 2]), (8, 4, [2, 2, 2, 2])])
def test_no_part_is_a_single_image_which_batchnorm_could_not_take(
    make_trainer: Make, small_config: RunConfig, num_images: int, parts: int, sizes: list[int]
) -> None:
    trainer, _ = make_trainer(small_config)
    seen = lack_memory_for(trainer, 100)
    trainer.batch_parts = parts
    trainer.freeze_set.set_mode(training=True)
    trainer.train_step([batch_of(trainer, torch.rand(num_images, 3, 32, 32), torch.arange(num_images) % 3)])
    assert seen == sizes


def test_a_restore_leaves_the_want_of_memory_behind(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    info = trainer.save(reason="user")
    trainer.lacks_memory = True
    trainer.restore(info.name)
    assert not trainer.lacks_memory


def test_no_batch_has_more_parts_than_pairs_of_images(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    with pytest.raises(ConfigError, match="A batch of 8 goes through the model in 4 parts at most"):
        trainer.changes.change_training(None, None, 5)
    assert trainer.batch_parts == 1
    assert len(trainer.changes.change_training(None, None, 4)) == 1, "every BatchNorm is frozen"
    trainer.changes.change_training(None, None, 1)
    trainer.changes.unfreeze(["backbone"])
    _, told = trainer.changes.change_training(None, None, 4)
    assert isinstance(told, LogWritten)
    assert told.text.startswith("BatchNorm now takes its statistics from 2 images at a time")
    assert len(trainer.changes.change_training(None, None, 2)) == 1, "more at a time than before is no trouble"


def test_an_epoch_of_accumulated_batches_ends_with_what_is_left(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(with_training(small_config, accumulate_batches=3))
    assert trainer.data.batches_per_epoch == 4
    trainer.fit(lambda: None)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    assert [(info.epoch, info.step) for info in saved] == [(1, 2), (2, 4), (3, 6)]
    assert (trainer.steps_per_epoch, trainer.total_steps) == (2, 6)


def test_the_gradient_is_shortened_to_the_norm_that_the_run_asks_for(
    make_trainer: Make, small_config: RunConfig
) -> None:
    def moved(clip_norm: float | None) -> tuple[float, float]:
        config = with_optimizer(small_config, name="SGD", momentum=0.0, weight_decay=0.0, rate=1.0, clip_norm=clip_norm)
        trainer, events = make_trainer(config)
        before = weights(trainer)
        trainer.freeze_set.set_mode(training=True)
        trainer.train_step(trainer.take_batches(trainer.features.train_batches(0)))
        trainer.report(force=True)
        told = next(e.series["Gradient norm"].values[0] for e in events if isinstance(e, MetricsLogged))
        change = [tensor - before[name] for name, tensor in weights(trainer).items() if name.startswith("fc.")]
        return float(torch.cat([part.flatten() for part in change]).norm()), told

    free, told = moved(None)
    assert free == pytest.approx(told, rel=1e-4)
    clipped, told_clipped = moved(free / 3)
    assert clipped == pytest.approx(free / 3, rel=1e-3)
    assert told_clipped == pytest.approx(told)


def test_a_plateau_lowers_the_rate_and_says_so(make_trainer: Make, small_config: RunConfig) -> None:
    # So small a rate changes no loss by a ten-thousandth.
    config = with_optimizer(small_config, rate=1e-12, schedule="plateau", decay_epochs=1, decay_factor=0.5)
    trainer, events = make_trainer(config)
    trainer.fit(lambda: None)
    told = [event.text for event in events if isinstance(event, LogWritten) and "plateau" not in event.text]
    assert [text for text in told if "has not fallen" in text] == [
        "The validation loss has not fallen for more than 1 epochs: the rate is multiplied by 0.5."
    ]
    assert trainer.optimizer.param_groups[0]["lr"] == 1e-12
    assert trainer.rates.factor(trainer.step) == 0.5


# -- the optimizer's state of a layer that is unfrozen --------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "num_steps_frozen", "is_kept"),
    [("auto", 2, True), ("auto", 4, False), ("keep", 4, True), ("drop", 1, False)],
)
def test_the_state_of_an_unfrozen_layer_is_kept_after_a_short_freeze_and_dropped_after_a_long_one(
    make_trainer: Make, small_config: RunConfig, choice: str, num_steps_frozen: int, is_kept: bool
) -> None:
    trainer, _ = make_trainer(with_optimizer(small_config, state_on_unfreeze=choice, ramp_steps=10))
    conv5 = trainer.freeze_set.parameters(trainer.freeze_set.resolve(["conv5"]))
    trainer.freeze_set.set_mode(training=True)
    trainer.changes.unfreeze(["conv5"])

    def train(num_steps: int) -> None:
        batches = trainer.features.train_batches(0)
        for _ in range(num_steps):
            trainer.batch = 0
            trainer.train_step(trainer.take_batches(batches))

    train(2)
    assert all(parameter in trainer.optimizer.state for parameter in conv5)
    trainer.changes.freeze(["conv5"])
    train(num_steps_frozen)
    trainer.changes.unfreeze(["conv5"])
    assert all((parameter in trainer.optimizer.state) == is_kept for parameter in conv5)
    train(1)
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates["conv5.0"] == pytest.approx(small_config.optimizer.rate / 10)
    assert rates["fc"] == pytest.approx(small_config.optimizer.rate)


def test_the_state_is_kept_by_parameter_and_the_rate_rises_by_layer(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(with_optimizer(small_config, state_on_unfreeze="drop", ramp_steps=10))
    weight, bias = trainer.freeze_set.parameters(["fc.weight", "fc.bias"])
    trainer.freeze_set.set_mode(training=True)
    trainer.train_step(trainer.take_batches(trainer.features.train_batches(0)))
    trainer.changes.freeze(["fc.weight"])
    assert trainer.freeze_set.frozen >= {"fc.weight"}
    trainer.train_step(trainer.take_batches(trainer.features.train_batches(0)))
    event = trainer.changes.unfreeze(["fc"])
    assert (event.layers, event.sentence) == (["fc.weight"], "fc.weight unfrozen")
    assert (weight in trainer.optimizer.state, bias in trainer.optimizer.state) == (False, True)
    trainer.train_step(trainer.take_batches(trainer.features.train_batches(0)))
    (rate,) = {group["lr"] for group in trainer.optimizer.param_groups if group["name"] == "fc"}
    assert rate == pytest.approx(small_config.optimizer.rate / 10)


def test_a_weight_unfrozen_beside_a_bias_that_learned_goes_on_with_momentum(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(with_optimizer(small_config, name="SGD", momentum=0.9))
    trainer.freeze_set.set_mode(training=True)
    trainer.changes.freeze(["fc.weight"])
    trainer.train_step(trainer.take_batches(trainer.features.train_batches(0)))
    trainer.changes.unfreeze(["fc.weight"])
    before = trainer.module.fc.weight.detach().clone()
    trainer.train_step(trainer.take_batches(trainer.features.train_batches(0)))
    assert not torch.equal(trainer.module.fc.weight, before)


def test_a_bias_alone_comes_back_frozen_from_a_checkpoint_and_so_does_one_that_names_layers(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(small_config)
    trainer.changes.freeze(["fc.bias"])
    saved = trainer.save(reason="user")
    assert "fc.bias" in saved.frozen
    content = trainer.content()
    trainer.changes.unfreeze(["*.bias"])
    trainer.restore(saved.name)
    assert {"fc.bias"} == {name for name in trainer.freeze_set.frozen if name.startswith("fc")}
    # As an earlier Thaw wrote it: since when a layer was frozen, and not its parameters.
    layers = {atom.rpartition(".")[0]: step for atom, step in content["frozen_since"].items()}
    state = {**content, "frozen_since": layers, "model_state_dict": trainer.module.state_dict()}
    trainer.load_state(state, "The checkpoint")
    assert trainer.changes.unfreeze(["conv1"]).layers == ["conv1.0", "conv1.1"]


# -- mixing and balance ---------------------------------------------------------------------------------------


def step_loss(trainer: Trainer, events: list[Event], images: torch.Tensor, target: torch.Tensor) -> float:
    """Make one step and return the loss that it tells."""
    trainer.train_step([batch_of(trainer, images, target)])
    trainer.report(force=True)
    logged = [event.series["Loss/train"] for event in events if isinstance(event, MetricsLogged)]
    return logged[-1].values[-1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
def test_the_training_loss_is_weighted_and_of_the_mixed_images(
    make_trainer: Make, small_config: RunConfig, mixing: str, precision: str
) -> None:
    """A class that is left with a third of its images weighs about three times as much."""
    for file in sorted((Path(small_config.data.path) / "class_0").iterdir())[4:]:
        file.unlink()
    training = small_config.training.model_copy(update={"precision": precision})
    config = with_data(small_config.model_copy(update={"training": training}), mixing=mixing, balance="class_weights")
    trainer, events = make_trainer(config)
    counts = torch.tensor([3.0, 9.0, 9.0])
    assert trainer.data.class_counts == counts.tolist()
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 0, 1, 1, 2, 0])
    trainer.module.eval()  # BatchNorm's statistics stay, so that the same logits can be had again
    with torch.no_grad():
        # At random all images are alike to the network: whatever is mixed, the same classes give the same mean loss.
        trainer.module.fc.weight.mul_(1e6)
    trainer.batch = 5
    if mixing == "none":
        seen, shares = images, target
    else:
        seen, shares = BatchMixer(mixing, 3, config.training.seed)(images, target, 0, 5)  # type: ignore[arg-type]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = trainer.module(seen).float()
    expected = cross_entropy(logits, shares, weight=21 / 3 / counts)
    assert step_loss(trainer, events, images, target) == pytest.approx(expected.item(), rel=1e-5)


def test_the_validation_loss_is_neither_weighted_nor_mixed(make_trainer: Make, small_config: RunConfig) -> None:
    for file in sorted((Path(small_config.data.path) / "class_0").iterdir())[4:]:
        file.unlink()

    def first_validation(**changes: Any) -> dict[str, float]:
        optimizer = small_config.optimizer.model_copy(update={"name": "SGD", "rate": 1e-30, "weight_decay": 0.0})
        trainer, events = make_trainer(with_data(small_config.model_copy(update={"optimizer": optimizer}), **changes))
        trainer.fit(lambda: None)
        return next(event.checkpoint.metrics for event in events if isinstance(event, CheckpointSaved))

    assert first_validation(mixing="mixup", balance="class_weights") == first_validation()


def test_a_mixed_image_counts_as_the_class_with_the_larger_share() -> None:
    logits = torch.eye(3)[[0, 1, 2, 0]]
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.6, 0.4, 0.0], [0.0, 0.1, 0.9], [0.2, 0.8, 0.0]])
    assert MultiClass(["a", "b", "c"], 0.0, None).are_right(logits, shares).sum() == 2


def test_every_validation_is_kept_with_its_checkpoint_and_its_confusion_matrix(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(small_config)
    trainer.fit(lambda: None)
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    tags = {f"{name}/validation" for name in ("Loss", "Accuracy", "F1", "AUROC")}
    logged = [event.series for event in events if isinstance(event, MetricsLogged) and tags <= event.series.keys()]
    assert [{tag: series[tag].values[0] for tag in tags} for series in logged] == [info.metrics for info in saved]
    assert trainer._store.load(saved[-1])["metrics"] == saved[-1].metrics
    latest = trainer._folder.checkpoints.confusion("latest")
    assert (latest.checkpoint, latest.step, latest.class_names) == (
        saved[-1].name,
        12,
        ["class_0", "class_1", "class_2"],
    )
    assert [sum(row) for row in latest.counts] == [3, 3, 3]
    assert sum(latest.counts[idx][idx] for idx in range(3)) / 9 == pytest.approx(saved[-1].accuracy)


def test_smoothed_labels_change_what_is_trained_and_not_what_is_reported(
    make_trainer: Make, small_config: RunConfig
) -> None:
    def first_losses(smoothing: float, rate: float) -> tuple[float, float]:
        optimizer = small_config.optimizer.model_copy(update={"name": "SGD", "rate": rate, "weight_decay": 0.0})
        training = small_config.training.model_copy(update={"label_smoothing": smoothing, "epochs": 1})
        changed = small_config.model_copy(update={"optimizer": optimizer, "training": training})
        trainer, events = make_trainer(changed)
        trainer.fit(lambda: None)
        series = {tag: s for event in events if isinstance(event, MetricsLogged) for tag, s in event.series.items()}
        return series["Loss/train"].values[0], series["Loss/validation"].values[0]

    plain, smoothed = first_losses(0.0, 1e-30), first_losses(0.3, 1e-30)
    assert smoothed[0] != plain[0]
    assert smoothed[1] == plain[1]


def with_test_split(config: RunConfig, root: Path) -> RunConfig:
    for split, num_per_class in (("train", 8), ("val", 4), ("test", 5)):
        make_images(root / split, num_per_class=num_per_class)
    return with_data(config, path=str(root))


def test_the_test_split_is_evaluated_once_on_the_best_checkpoint(
    make_trainer: Make, small_config: RunConfig, tmp_path: Path
) -> None:
    trainer, events = make_trainer(with_test_split(small_config, tmp_path / "split"))
    trainer.fit(lambda: None)
    tested = [event for event in events if isinstance(event, MetricsLogged) and "Loss/test" in event.series]
    (series,) = [event.series for event in tested]
    saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
    best = max(saved, key=lambda info: (info.accuracy, -info.loss))
    assert series["Loss/test"].steps == series["Accuracy/test"].steps == [best.step]
    *loading, cached, line = [event.text for event in events if isinstance(event, LogWritten)]
    assert [text.split(" at ")[0] for text in loading] == [f"Epoch {epoch}: images are loaded" for epoch in (1, 2)]
    assert cached.startswith("Epoch 3 is trained in ")
    assert re.fullmatch(
        rf"Test split \(15 images\), {re.escape(best.name)}: loss [\d.]+, accuracy [\d.]+, F1 [\d.]+, AUROC [\d.]+\.",
        line,
    )
    of_test = trainer._folder.checkpoints.confusion("test")
    assert (of_test.checkpoint, sum(map(sum, of_test.counts))) == (best.name, 15)
    # The model in memory is the one that was trained last, whichever was best.
    last = trainer._store.load(saved[-1])["model_state_dict"]
    assert all(torch.equal(tensor, last[name]) for name, tensor in weights(trainer).items())


def test_a_run_whose_best_checkpoint_is_damaged_ends_without_the_test(
    make_trainer: Make, small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(with_test_split(small_config, tmp_path / "split"))
    settle = trainer.settle

    def settle_and_damage() -> None:
        settle()
        for path in trainer._folder.path.glob("checkpoints/*.pt"):
            path.write_bytes(path.read_bytes()[:-1] + b"?")

    monkeypatch.setattr(trainer, "settle", settle_and_damage)
    trainer.fit(lambda: None)
    assert trainer.epoch == 3
    (warning,) = [event.text for event in events if isinstance(event, LogWritten) and event.level == "warning"]
    assert warning.startswith("The test split was not evaluated. ")
    assert ".pt" in warning
    assert not [event for event in events if isinstance(event, MetricsLogged) and "Loss/test" in event.series]


def test_a_restore_during_the_test_goes_on_from_there(
    make_trainer: Make, small_config: RunConfig, tmp_path: Path
) -> None:
    trainer, events = make_trainer(with_test_split(small_config, tmp_path / "split"))
    restored: list[str] = []

    def go_back_once() -> None:
        saved = [event.checkpoint for event in events if isinstance(event, CheckpointSaved)]
        if len(saved) == 3 and not restored:
            restored.append(saved[0].name)
            trainer.restore(saved[0].name)

    trainer.fit(go_back_once)
    assert len([event for event in events if isinstance(event, CheckpointSaved)]) == 5
    assert len([event for event in events if isinstance(event, MetricsLogged) and "Loss/test" in event.series]) == 1
