"""The preview of an image: the very pixels that the training loop gives to the model, mixed as it mixes them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import make_images
from trainer.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from trainer.data.images import DataError
from trainer.data.loader import ImageData
from trainer.data.preview import denormalized, write_views
from trainer.data.scan import ScannedData, scan
from trainer.loop import Trainer
from trainer.messages.data_info import ImageView
from trainer.models import build_model
from trainer.runs import RunFolder

NUM_EPOCHS = 3


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    images = make_images(tmp_path / "images", size=40)
    # A class of few images, so that a balanced sampler draws them again and again.
    for path in sorted((images / "class_0").iterdir())[4:]:
        path.unlink()
    return RunConfig(
        data=DataConfig(path=str(images), augmentation="strong", image_size=32),
        model=ModelConfig(name="shufflenet_v2_x0_5", weights="random"),
        # The model itself is watched, and so is every image.
        training=TrainingConfig(epochs=NUM_EPOCHS, batch_size=6, device="cpu", num_threads=1, feature_cache="off"),
    )


def with_data(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def scanned_data(config: RunConfig, tmp_path: Path) -> ScannedData:
    return scan(config.data, config.training.seed, tmp_path / "cache", lambda *_: None, lambda: None)


class Run:
    """A real run, and what its model was given: the hash of each image with its mixed classes, epoch by epoch."""

    def __init__(self, config: RunConfig, tmp_path: Path) -> None:
        self.config = config
        self.scanned = scanned_data(config, tmp_path)
        loaded = build_model(
            config.model, len(self.scanned.class_names), config.training.seed, 32, lambda *_: None, lambda: None
        )
        self.preprocessing = loaded.preprocessing
        data = ImageData(config.data, config.training, loaded.preprocessing, self.scanned)
        self.trainer = Trainer(config, loaded, data, torch.device("cpu"), lambda _: None)
        self.folder = RunFolder.create(tmp_path / "runs", config)
        self.trainer.begin(self.folder)
        self.seen: list[dict[str, Tensor]] = [{} for _ in range(NUM_EPOCHS)]
        self.num_seen = Counter[int]()

    def fit(self, monkeypatch: pytest.MonkeyPatch, between_steps: Callable[[], None] = lambda: None) -> None:
        images: list[Tensor] = []
        task = self.trainer.task
        real = task.training_loss

        def record(logits: Tensor, target: Tensor) -> Tensor:
            classes = target if target.ndim == 2 else torch.eye(3)[target]
            for image, shares in zip(images[-1], classes, strict=True):
                self.seen[self.trainer.epoch][fingerprint(denormalized(image, self.preprocessing))] = shares
            self.num_seen[self.trainer.epoch] += len(target)
            return real(logits, target)

        hook = self.trainer.module.register_forward_pre_hook(lambda _, given: images.append(given[0]))
        monkeypatch.setattr(task, "training_loss", record)
        self.trainer.fit(between_steps)
        hook.remove()

    def views(self, path: str, folder: Path, num_views: int = 6, present_epoch: int = 0) -> list[ImageView]:
        report_path = self.scanned.report_path
        return write_views(report_path, self.config, self.preprocessing, path, folder, num_views, present_epoch)

    def paths(self, split: str) -> list[str]:
        listed = zip(self.scanned.samples, self.scanned.splits, strict=True)
        return [path for (path, _), other in listed if other == split]

    def class_of(self, path: str) -> int:
        (class_idx,) = dict(self.scanned.samples)[path]
        return class_idx


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[RunConfig], Run]]:
    begun: list[Run] = []

    def make(config: RunConfig) -> Run:
        begun.append(Run(config, tmp_path))
        return begun[-1]

    yield make
    for run in begun:
        run.trainer.close()
        run.folder.close()


def fingerprint(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()


def hash_of(file: str) -> str:
    with Image.open(file) as picture:
        return hashlib.sha256(picture.tobytes()).hexdigest()


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
def test_the_views_of_all_images_are_what_the_loop_feeds_the_model(
    config: RunConfig, begin: Callable[[RunConfig], Run], mixing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(with_data(config, mixing=mixing))
    run.fit(monkeypatch)
    found: list[dict[str, Tensor]] = [{} for _ in range(NUM_EPOCHS)]
    for path in run.paths("train"):
        views = run.views(path, tmp_path / "views")
        assert [view.epoch for view in views] == [1, 2, 3], "no more epochs than the run has"
        for epoch, view in enumerate(views):
            if not view.num_times:
                continue
            shares = torch.zeros(3)
            shares[run.class_of(path)] = 1 - view.mixed_share
            if view.mixed_with:
                shares[run.scanned.class_names.index(view.mixed_with)] += view.mixed_share
            found[epoch][hash_of(view.file)] = shares
    for seen, shown in zip(run.seen, found, strict=True):
        assert shown.keys() == seen.keys()
        assert all(torch.allclose(shown[key], seen[key], atol=1e-6) for key in seen)
    is_mixed = any(shares.max() < 1 for shares in found[0].values())
    assert is_mixed is (mixing != "none")


def test_a_balanced_run_says_how_often_an_epoch_has_an_image(
    config: RunConfig, begin: Callable[[RunConfig], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(with_data(config, mixing="mixup", balance="sampler"))
    run.fit(monkeypatch)
    num_times = Counter[int]()
    most = 0
    for path in run.paths("train"):
        for epoch, view in enumerate(run.views(path, tmp_path / "views")):
            num_times[epoch] += view.num_times
            most = max(most, view.num_times)
            assert (view.file != "") is (view.num_times > 0)
            assert not view.file or hash_of(view.file) in run.seen[epoch]
    assert num_times == run.num_seen
    assert most > 1


def test_a_live_run_shows_the_epochs_from_the_present_one_on(
    config: RunConfig, begin: Callable[[RunConfig], Run], tmp_path: Path
) -> None:
    run = begin(config)

    def epochs(present: int, num_views: int) -> list[int | None]:
        path = run.paths("train")[0]
        return [view.epoch for view in run.views(path, tmp_path / "views", num_views, present)]

    assert epochs(1, 2) == [2, 3]
    assert epochs(1, 6) == [1, 2, 3]
    assert epochs(2, 2) == [2, 3], "near the end, the last ones"
    assert epochs(3, 2) == [2, 3], "and after it"


def test_a_preview_between_two_steps_changes_nothing_in_the_run(
    config: RunConfig, begin: Callable[[RunConfig], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_data(config, mixing="cutmix", balance="sampler")
    plain, watched = begin(config), begin(config)
    plain.fit(monkeypatch)
    monkeypatch.undo()
    paths = iter([*watched.paths("train"), *watched.paths("validation")])

    def look() -> None:
        if (path := next(paths, None)) is not None:
            watched.views(path, tmp_path / "views")

    watched.fit(monkeypatch, look)
    ours, theirs = watched.trainer.module.state_dict(), plain.trainer.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [seen.keys() for seen in watched.seen] == [seen.keys() for seen in plain.seen]


def test_a_validation_image_looks_the_same_in_every_epoch(
    config: RunConfig, begin: Callable[[RunConfig], Run], tmp_path: Path
) -> None:
    run = begin(with_data(config, mixing="mixup"))
    (view,) = run.views(run.paths("validation")[0], tmp_path / "views")
    assert (view.epoch, view.mixed_with) == (None, "")
    images, _ = next(run.trainer.data.validation_batches())
    assert hash_of(view.file) == fingerprint(denormalized(images[0], run.preprocessing))


def test_an_image_that_is_no_longer_there_is_named(
    config: RunConfig, begin: Callable[[RunConfig], Run], tmp_path: Path
) -> None:
    run = begin(config)
    with pytest.raises(DataError, match=r"other\.png is no image of these data any more"):
        run.views("/nowhere/other.png", tmp_path / "views")
    path = Path(run.paths("train")[0])
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        run.views(str(path), tmp_path / "views")
