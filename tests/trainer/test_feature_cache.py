"""The feature cache of a run: the same training, with what is frozen computed once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from trainer.config import PlanPhase, RunConfig
from trainer.data.loader import ImageData
from trainer.data.preview import write_views
from trainer.data.scan import scan
from trainer.data.transforms import ImageTransform
from trainer.feature_batches import CachedSplit, FrozenPart, ModelBatch
from trainer.feature_cache import FeatureCache
from trainer.feature_cut import CutError
from trainer.feature_store import FeatureContent, FeatureStore, open_stores
from trainer.loop import OutOfMemory, RunStopped, Trainer
from trainer.messages.base import Event
from trainer.messages.events import FeaturesCached, LogWritten, ProgressReported
from trainer.models import build_model
from trainer.runs import RunFolder
from trainer.schedules import Plan

Make = Callable[..., Trainer]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def make(tmp_path: Path, small_config: RunConfig, events: list[Event]) -> Iterator[Make]:
    """Make trainers of a small run, with other values in some fields of its sections, and a folder for features."""
    made: list[Trainer | RunFolder] = []

    def make_trainer(features_dir: Path | None = tmp_path / "features", **sections: dict[str, Any]) -> Trainer:
        config = with_changes(small_config, **sections)
        scanned = scan(config.data, config.training.seed, tmp_path / "cache", lambda *_: None, lambda: None)
        size = config.data.image_size or 32
        loaded = build_model(config.model, 3, config.training.seed, size, lambda *_: None, lambda: None)
        preprocessing = loaded.preprocessing.edited(config.data)
        data = ImageData(config.data, config.training, preprocessing, scanned)
        trainer = Trainer(config, loaded, data, torch.device("cpu"), events.append, features_dir)
        folder = RunFolder.create(tmp_path / "runs", config)
        trainer.begin(folder)
        made.extend((trainer, folder))
        return trainer

    yield make_trainer
    for each in made:
        each.close()


def with_changes(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    )


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}


def train_to(trainer: Trainer, step: int) -> None:
    """Train up to a step, and stop there."""

    def between_steps() -> None:
        if trainer.step >= step:
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(between_steps)


def inputs_of(batches: Iterator[ModelBatch]) -> list[tuple[Tensor, ...]]:
    return [batch.inputs() for batch in batches]


def told(events: list[Event]) -> list[FeaturesCached]:
    return [event for event in events if isinstance(event, FeaturesCached)]


def assert_same(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert all(map(torch.equal, one, other))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which the path of each image is added as it is decoded."""
    paths: list[str] = []
    read = ImageTransform.read

    def noted(self: ImageTransform, path: str) -> Tensor:
        paths.append(path)
        return read(self, path)

    monkeypatch.setattr(ImageTransform, "read", noted)
    return paths


# -- the same training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", [["backbone"], ["conv1", "stage2", "stage3"]])
def test_without_augmentation_a_run_is_the_same_to_the_bit_with_the_cache_and_without(
    make: Make, events: list[Event], frozen: list[str], precision: str
) -> None:
    """But for a last batch of another size, which has other roundings: there is none here."""
    changes = {
        "data": {"augmentation": "none", "validation_fraction": 1 / 3},
        "model": {"frozen": frozen},
        "training": {"precision": precision},
    }
    ends = []
    for choice in ("off", "auto"):
        trainer = make(**with_training(changes, feature_cache=choice))
        trainer.fit(lambda: None)
        ends.append(state_of(trainer))
    assert_same([ends[0].values()], [ends[1].values()])
    assert [event.views for event in told(events)] == [1]


def with_training(sections: dict[str, dict[str, Any]], **values: Any) -> dict[str, dict[str, Any]]:
    return sections | {"training": sections.get("training", {}) | values}


def test_a_last_batch_of_another_size_differs_by_roundings_alone(make: Make) -> None:
    whole, cached = (
        make(data={"augmentation": "none"}, training={"feature_cache": choice}) for choice in ("off", "auto")
    )
    for trainer in (whole, cached):
        trainer.fit(lambda: None)
    for name, tensor in state_of(whole).items():
        assert torch.allclose(tensor, state_of(cached)[name], rtol=0, atol=1e-4), name


def test_each_image_is_decoded_once_for_each_view_and_once_for_validation(
    make: Make, events: list[Event], reads: list[str]
) -> None:
    trainer = make(data={"views": 2}, training={"epochs": 5})
    trainer.fit(lambda: None)
    assert len(reads) == 2 * trainer.data.num_train + trainer.data.num_validation
    (event,) = told(events)
    assert (event.views, event.layers != [], event.reason) == (2, True, "")
    said = [event.text for event in events if isinstance(event, LogWritten) and "cache" in event.text]
    assert [text.split(" in ")[0] for text in said] == ["Epoch 3 is trained"]


def test_the_views_are_those_of_the_first_epochs_in_turn(make: Make) -> None:
    cached, plain = make(data={"views": 2}), make(training={"feature_cache": "off"})
    cached.freeze_set.set_mode(training=True)
    for epoch in range(4):
        order = [idx for keys in cached.data.sampler.batches(epoch) for _, idx in keys]
        features = torch.cat([inputs[0] for inputs in inputs_of(cached.features.train_batches(epoch))])
        images = plain.data.train.load([(epoch % 2, idx) for idx in order])
        part = cached.features._train.part
        assert torch.equal(features, part.compute(images)[0])


def test_a_preview_shows_the_views_in_turn(make: Make, tmp_path: Path) -> None:
    trainer = make(data={"views": 2})
    scanned = scan(trainer.config.data, trainer.config.training.seed, tmp_path / "cache", lambda *_: None, lambda: None)
    (path, _) = next(sample for sample, split in zip(scanned.samples, scanned.splits, strict=True) if split == "train")
    shown = write_views(
        scanned.report_path, trainer.config, trainer.data.preprocessing, path, tmp_path / "views", 3, 0, num_fixed=2
    )
    first, second, third = (Path(view.file).read_bytes() for view in shown)
    assert first == third != second


def test_what_is_known_of_an_epoch_is_told(make: Make, events: list[Event]) -> None:
    trainer = make(data={"views": 1}, training={"epochs": 2})
    assert trainer.features.known_share(0) is None
    trainer.fit(lambda: trainer.report(force=True))
    shares = [event.cached_share for event in events if isinstance(event, ProgressReported)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


# -- what changes the cut -------------------------------------------------------------------------------------


def test_an_unfreeze_drops_the_cache_at_that_step_and_the_layer_learns(make: Make, events: list[Event]) -> None:
    trainer = make(training={"epochs": 2})
    train_to(trainer, 2)
    before = state_of(trainer)
    trainer.changes.unfreeze(["conv1"])
    train_to(trainer, 3)
    moved = {name for name, tensor in state_of(trainer).items() if not torch.equal(tensor, before[name])}
    assert "conv1.0.weight" in moved
    assert [(event.applied_step, event.layers == []) for event in told(events)] == [(0, False), (2, True)]
    assert "conv1" in told(events)[-1].reason
    assert trainer.features.views == 0


def test_a_freeze_moves_the_cut_on_and_decodes_nothing_again(make: Make, events: list[Event], reads: list[str]) -> None:
    """And what it then trains on is to the bit what the images would give."""
    stages = ["conv1", "stage2", "stage3"]
    trainer = make(data={"views": 1}, model={"frozen": stages}, training={"epochs": 3})
    train_to(trainer, trainer.steps_per_epoch + 1)
    num_decoded = len(reads)
    trainer.changes.freeze(["stage4", "conv5"])
    trainer.changes.freeze(["stage4"])
    train_to(trainer, 2 * trainer.steps_per_epoch)
    assert len(reads) == num_decoded
    assert [event.applied_step for event in told(events)] == [0, trainer.steps_per_epoch + 1]
    direct = make(None, data={"views": 1}, model={"frozen": [*stages, "stage4", "conv5"]})
    direct.module.load_state_dict(trainer.module.state_dict())
    direct.freeze_set.take_hashes()
    assert_same(
        inputs_of(trainer.features.train_batches(2)),
        inputs_of(direct.features.train_batches(2)),
    )


def test_once_all_features_have_moved_those_of_the_earlier_cut_are_let_go(make: Make, tmp_path: Path) -> None:
    def open_files() -> set[str]:
        return {file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path / "features"))}

    trainer = make(data={"views": 1}, model={"frozen": ["conv1", "stage2", "stage3"]}, training={"epochs": 4})
    train_to(trainer, trainer.steps_per_epoch + 1)
    before = open_files()
    trainer.changes.freeze(["stage4"])
    train_to(trainer, 3 * trainer.steps_per_epoch + 1)
    # One of each split, before and after.
    assert len(before) == len(open_files()) == 2
    assert not before & open_files()


def test_memory_goes_back_to_the_system_when_nothing_holds_the_features_any_more(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where they are dropped: the batches that are under way still have them."""
    before = {id(each) for each in gc.get_objects() if type(each) is FeatureStore}
    trainer = make(data={"views": 1}, training={"epochs": 4})
    stores: list[weakref.ref[FeatureStore]] = []
    held: list[int] = []

    def between_steps() -> None:
        if trainer.step == trainer.steps_per_epoch + 1:
            new = (each for each in gc.get_objects() if type(each) is FeatureStore and id(each) not in before)
            stores.extend(map(weakref.ref, new))
            trainer.changes.unfreeze(["backbone"])
        if trainer.step == 2 * trainer.steps_per_epoch:
            raise RunStopped

    monkeypatch.setattr(
        "trainer.feature_cache.give_memory_back", lambda: held.append(sum(store() is not None for store in stores))
    )
    with pytest.raises(RunStopped):
        trainer.fit(between_steps)
    assert len(stores) == 2
    assert held == [0]


def test_features_of_an_earlier_cut_count_as_what_they_take_and_not_as_what_they_would(tmp_path: Path) -> None:
    """They are filled no more. As others see it, a run that has begun to fill its file will."""
    rows, num = [torch.zeros(1000)], 100

    def opened(key: str, *left: FeatureStore) -> FeatureStore:
        content, budget_gb = FeatureContent(key, num), 1.5 * num * rows[0].nbytes / 1e9
        (store,) = open_stores(tmp_path, [content], rows, budget_gb, 0.0, left)
        assert store is not None
        return store

    first = opened("first")
    assert first.is_on_disk
    assert not opened("other").is_on_disk
    assert opened("second", first).is_on_disk


def test_back_at_an_earlier_cut_its_features_are_found_on_the_disk(make: Make, reads: list[str]) -> None:
    trainer = make(data={"views": 1}, training={"epochs": 9})
    train_to(trainer, trainer.steps_per_epoch)
    before = inputs_of(trainer.features.train_batches(1))
    trainer.changes.unfreeze(["conv5"])
    inputs_of(trainer.features.train_batches(1))
    reads.clear()
    trainer.changes.freeze(["conv5"])
    assert_same(inputs_of(trainer.features.train_batches(1)), before)
    assert reads == []


def test_other_weights_above_the_cut_are_other_features(make: Make) -> None:
    trainer = make(data={"views": 1}, training={"epochs": 9})
    before = inputs_of(trainer.features.train_batches(0))
    with torch.no_grad():
        trainer.module.conv1[0].weight.mul_(2)
    trainer.freeze_set.take_hashes()
    after = inputs_of(trainer.features.train_batches(0))
    assert not any(torch.equal(one, other) for one, other in zip(before[0], after[0], strict=True))


def test_statistics_that_adapt_above_the_cut_end_it(make: Make, events: list[Event]) -> None:
    trainer = make(model={"batchnorm": "adapting"})
    train_to(trainer, 1)
    assert [event.layers for event in told(events)] == [["conv1.0"]]


@pytest.mark.parametrize("data", [{"mixing": "mixup"}, {"views": 0}])
def test_where_training_images_are_new_in_each_epoch_only_validation_is_cached(
    make: Make, events: list[Event], reads: list[str], data: dict[str, Any]
) -> None:
    trainer = make(data=data, training={"epochs": 3})
    trainer.fit(lambda: None)
    assert len(reads) == 3 * trainer.data.num_train + trainer.data.num_validation
    (event,) = told(events)
    assert event.views == 0
    assert event.layers
    assert "only validation" in event.reason


def test_with_views_of_one_epoch_nothing_is_cached_where_nothing_is_frozen(make: Make, events: list[Event]) -> None:
    trainer = make(model={"frozen": []})
    train_to(trainer, 1)
    assert [event.reason for event in told(events)] == ["No features can be cached: nothing is frozen."]


# -- what is kept ---------------------------------------------------------------------------------------------


def test_a_later_run_finds_the_features_of_an_earlier_one(make: Make, reads: list[str]) -> None:
    first = make(data={"views": 1}, training={"epochs": 1})
    first.fit(lambda: None)
    reads.clear()
    later = make(data={"views": 1}, training={"epochs": 1}, optimizer={"rate": 0.1, "name": "SGD"})
    later.fit(lambda: None)
    assert reads == []


@pytest.mark.parametrize("changes", [{"seed": 8}, {"batch_size": 6}, {"precision": "bf16"}])
def test_a_run_whose_features_would_be_others_does_not_take_them(
    make: Make, reads: list[str], changes: dict[str, Any]
) -> None:
    make(data={"views": 1}, training={"epochs": 1}).fit(lambda: None)
    reads.clear()
    other = make(data={"views": 1}, training={"epochs": 1} | changes)
    other.fit(lambda: None)
    assert len(reads) >= other.data.num_train


@pytest.mark.parametrize(
    ("first", "second", "is_validation_another"),
    [
        ({}, {"mean": [0.5, 0.5, 0.5]}, True),
        ({}, {"std": [0.5, 0.5, 0.5]}, True),
        ({"resize_size": 40}, {"resize_size": 40, "image_size": 24}, True),
        ({"resize_size": 40, "augmentation": "standard"}, {"resize_size": 40, "augmentation": "strong"}, False),
    ],
)
def test_images_that_the_model_gets_otherwise_have_features_of_their_own(
    make: Make, reads: list[str], first: dict[str, Any], second: dict[str, Any], is_validation_another: bool
) -> None:
    """Also where what is decoded is the same, and only scaled, cut or changed at random in another way."""
    make(data={"views": 1, **first}, training={"epochs": 1}).fit(lambda: None)
    reads.clear()
    other = make(data={"views": 1, **second}, training={"epochs": 1})
    other.fit(lambda: None)
    assert len(reads) == other.data.num_train + is_validation_another * other.data.num_validation


def test_features_stay_on_the_disk_where_there_is_no_memory(make: Make, events: list[Event], reads: list[str]) -> None:
    ends = []
    for memory_gb in (None, 0.0):
        trainer = make(data={"views": 1}, training={"epochs": 3, "feature_memory_gb": memory_gb})
        trainer.fit(lambda: None)
        ends.append(state_of(trainer))
    assert_same([ends[0].values()], [ends[1].values()])
    assert [(event.is_in_memory, event.is_on_disk) for event in told(events)] == [(True, True), (False, True)]


@pytest.mark.parametrize("balance", ["none", "sampler"])
def test_where_there_is_room_for_nothing_the_run_is_the_same_to_the_bit_and_says_so(
    make: Make, events: list[Event], balance: str
) -> None:
    ends = []
    for memory_gb in (None, 0.0):
        changes = {"epochs": 3, "feature_memory_gb": memory_gb, "feature_disk_gb": 0.0}
        trainer = make(data={"views": 2, "balance": balance}, training=changes)
        trainer.fit(lambda: None)
        assert (trainer.features.known_share(0) is None) is (memory_gb == 0)
        ends.append(state_of(trainer))
    assert_same([ends[0].values()], [ends[1].values()])
    kept, not_kept = told(events)
    assert (kept.views, kept.fixed_views, kept.layers == []) == (2, 2, False)
    assert (not_kept.views, not_kept.fixed_views, not_kept.layers) == (0, 2, [])
    assert "neither memory nor disk" in not_kept.reason


def test_a_file_that_is_broken_is_computed_anew(make: Make, reads: list[str], tmp_path: Path) -> None:
    ends = []
    for _ in range(2):
        trainer = make(data={"views": 1}, training={"epochs": 2})
        trainer.fit(lambda: None)
        ends.append(state_of(trainer))
        trainer.close()
        for path in (tmp_path / "features").iterdir():
            content = bytearray(path.read_bytes())
            content[-3] ^= 1
            path.write_bytes(content)
        reads.clear()
    trainer = make(data={"views": 1}, training={"epochs": 2})
    trainer.fit(lambda: None)
    assert_same([state_of(trainer).values()], [ends[0].values()])
    # The batch that it is in, of each split.
    assert 2 <= len(reads) <= 16


def test_a_disk_that_keeps_nothing_any_more_ends_the_cache_and_not_the_run(
    make: Make, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(data={"views": 1}, training={"epochs": 2, "feature_memory_gb": 0.0})
    train_to(trainer, 2)
    monkeypatch.setattr("trainer.record_store.MIN_FREE_BYTES", 10**18)
    trainer.fit(lambda: None)
    assert trainer.epoch == 2
    assert told(events)[-1].views == 0


def test_half_precision_takes_half_the_room_and_trains_nearly_the_same(make: Make, events: list[Event]) -> None:
    ends = []
    for kept in ("same", "half"):
        trainer = make(data={"views": 1}, training={"epochs": 1, "feature_precision": kept})
        trainer.fit(lambda: None)
        ends.append(state_of(trainer)["fc.weight"])
    whole, half = (event.num_bytes for event in told(events))
    assert half == whole / 2
    assert torch.allclose(*ends, atol=1e-2)
    assert not torch.equal(*ends)


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.2),
        ({"data": {"views": 1}}, 0.1),
        ({"data": {"views": 10}}, 1.0),
        ({"data": {"views": 0}}, 1.0),
        ({"model": {"frozen": []}}, 1.0),
        ({"training": {"epochs": 10, "feature_cache": "off"}}, 1.0),
    ],
)
def test_what_of_a_run_is_left_to_compute_is_predicted(make: Make, changes: dict[str, Any], share: float) -> None:
    trainer = make(**{"data": {"views": 2}, "training": {"epochs": 10}, **changes})
    assert trainer.features.computed_share() == pytest.approx(share, abs=0.02)


def test_of_a_run_whose_plan_unfreezes_all_is_predicted_to_be_computed(make: Make) -> None:
    trainer = make(data={"views": 2}, training={"epochs": 10})
    trainer.config.plan.append(PlanPhase(epoch=3, unfreeze=["conv5"]))
    assert trainer.features.computed_share() == 1.0


def test_in_half_precision_a_feature_beyond_its_range_is_the_largest_and_not_infinite() -> None:
    part = FrozenPart(torch.nn.Identity(), 1, "fp32", torch.device("cpu"), is_halved=True)
    kept = part.as_kept(torch.tensor([1e6, -1e6, 0.5, torch.inf]))
    assert kept.tolist() == [65504, -65504, 0.5, torch.inf]


def test_a_store_that_was_filled_by_half_is_filled_on(make: Make, reads: list[str]) -> None:
    first = make(data={"views": 1}, training={"epochs": 1})
    train_to(first, 2)
    first.close()
    num_decoded = len(reads)
    later = make(data={"views": 1}, training={"epochs": 1})
    later.fit(lambda: None)
    assert len(reads) - num_decoded == later.data.num_train - 16 + later.data.num_validation


# -- memory ---------------------------------------------------------------------------------------------------


def test_where_the_device_lacks_memory_for_features_they_are_computed_again_in_smaller_parts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(data={"views": 1})
    trainer.freeze_set.set_mode(training=True)
    (batch,) = trainer.take_batches(trainer.features.train_batches(0))

    def lacking(*_: Any) -> tuple[Tensor, ...]:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(CachedSplit, "_put", lacking)
        (batch,) = trainer.take_batches(trainer.features.train_batches(0))
        with pytest.raises(OutOfMemory):
            trainer.train_step([batch])
    assert trainer.step == 0
    trainer.changes.change_training(None, None, 2)
    assert trainer.features.follow()
    (smaller,) = trainer.take_batches(trainer.features.train_batches(0))
    assert torch.allclose(smaller.inputs()[0], batch.inputs()[0], atol=1e-5)
    trainer.train_step([smaller])
    assert trainer.step == 1


def test_a_batch_can_be_asked_for_its_inputs_twice(make: Make) -> None:
    trainer = make(data={"views": 1})
    (batch,) = trainer.take_batches(trainer.features.train_batches(0))
    assert_same([batch.inputs()], [replace(batch).inputs()])


def test_drawing_small_classes_more_often_computes_an_image_once_that_comes_twice(make: Make, reads: list[str]) -> None:
    trainer = make(data={"views": 1, "balance": "sampler"}, training={"epochs": 2})
    for path in sorted(Path(trainer.config.data.path).glob("class_0/*"))[4:]:
        path.unlink()
    trainer = make(data={"views": 1, "balance": "sampler"}, training={"epochs": 2})
    trainer.fit(lambda: None)
    assert len(reads) <= trainer.data.num_train + trainer.data.num_validation


# -- going back and on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_proven", [True, False])
def test_a_restored_run_says_where_its_images_come_otherwise_than_before(
    make: Make, events: list[Event], monkeypatch: pytest.MonkeyPatch, is_proven: bool
) -> None:
    trainer = make(training={"epochs": 3})
    train_to(trainer, 2)
    saved = trainer.save(reason="user")
    # As on another machine, on whose arithmetic the proof may fail.
    trainer.features = FeatureCache(trainer, None)
    if not is_proven:

        def fail(*_: object) -> None:
            raise CutError("It is another one.")

        monkeypatch.setattr(FeatureCache, "_prove", fail)
    trainer.restore(saved.name)
    train_to(trainer, 3)
    said = [event.text for event in events if isinstance(event, LogWritten) and "exactly" in event.text]
    assert len(said) == (not is_proven)
    assert all("came in 2 fixed views, and now come in a new view" in text for text in said)
    assert (trainer.features.other_views == "") is is_proven


def test_a_state_from_before_the_first_step_tells_of_no_other_views(make: Make, events: list[Event]) -> None:
    trainer = make()
    saved = trainer.save(reason="user")
    with trainer.trial():
        pass
    train_to(trainer, 2)
    trainer.restore(saved.name)
    train_to(trainer, 2)
    assert {event.views for event in told(events)} == {2}
    assert not [event for event in events if isinstance(event, LogWritten) and "exactly" in event.text]


@pytest.mark.parametrize(
    ("frozen", "plan", "noted", "epochs"),
    [
        (["backbone"], [], [(6, 2), (8, 2), (12, 2)], [1, 1, 0, 0, 0, 0, 1, 1]),
        (
            ["backbone"],
            [PlanPhase(step=9, unfreeze=["conv1"])],
            [(6, 2), (8, 2), (9, 0), (12, 0)],
            [1, 1, 0, 2, 2, 2, 3, 3],
        ),
        ([], [], [(6, 0), (8, 0), (12, 0)], [1, 1, 2, 2, 2, 2, 3, 3]),
    ],
    ids=["cached", "cached at first", "not cached"],
)
def test_two_trials_take_the_same_images_whatever_is_cached_in_them(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    frozen: list[str],
    plan: list[PlanPhase],
    noted: list[tuple[int, int]],
    epochs: list[int],
) -> None:
    trainer = make(data={"views": 2}, training={"epochs": 9}, model={"frozen": frozen})
    trainer.plan = Plan(plan)
    train_to(trainer, 6)
    with trainer.trial(), trainer.features.noting_views() as views:
        train_to(trainer, 14)
    assert views == noted
    inputs: list[Tensor] = []
    step = Trainer.train_step

    def note(self: Trainer, batches: Sequence[ModelBatch]) -> Tensor:
        inputs.extend(batch.inputs()[0] for batch in batches)
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", note)
    with trainer.trial(), trainer.features.taking_views(views):
        if frozen:
            trainer.changes.unfreeze(["backbone"])
        else:
            trainer.changes.freeze(["backbone"])
        train_to(trainer, 14)
        assert (trainer.features.passed_up != "") is (not frozen)
    keys = [batch for epoch in (1, 2, 3) for batch in trainer.data.sampler.batches(epoch)][2:10]
    for images, shown_as, batch in zip(inputs, epochs, keys, strict=True):
        assert torch.equal(images, trainer.data.train.load([(shown_as, idx) for _, idx in batch]))
    # Afterwards it is as it was.
    assert trainer.features.passed_up == ""
    trainer.features.follow()
    assert trainer.features.views == (2 if frozen else 0)


def test_a_restore_to_before_an_unfreeze_takes_the_features_up_again(make: Make, events: list[Event]) -> None:
    trainer = make(training={"epochs": 3})
    train_to(trainer, 1)
    saved = trainer.save(reason="user")
    trainer.changes.unfreeze(["conv1"])
    train_to(trainer, 2)
    trainer.restore(saved.name)
    train_to(trainer, 2)
    assert [event.views for event in told(events)] == [2, 0, 2]
    assert not [event for event in events if isinstance(event, LogWritten) and "exactly" in event.text]


def test_each_piece_of_the_curve_is_told_what_is_cached_in_it(make: Make, events: list[Event]) -> None:
    trainer = make(training={"epochs": 3})
    train_to(trainer, 1)
    trainer.changes.unfreeze(["conv1"])
    # What follows from the change is told after that state: whoever goes on from there must hear of it, too.
    saved = trainer.save(reason="user")
    train_to(trainer, 2)
    trainer.restore(saved.name)
    train_to(trainer, 2)
    assert [(event.segment, event.views) for event in told(events)] == [(0, 2), (0, 0), (1, 0)]
