"""The preview of an image: the very pixels that the training loop will get of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import make_images
from trainer.config import DataConfig, TrainingConfig
from trainer.data.images import DataError
from trainer.data.loader import ImageData
from trainer.data.preview import write_views
from trainer.data.scan import ScannedData, scan
from trainer.data.transforms import Preprocessing

SEED = 5
PREPROCESSING = Preprocessing(image_size=24, resize_size=32)


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    return DataConfig(path=str(make_images(tmp_path / "images", size=40)), augmentation="strong")


@pytest.fixture
def scanned(data: DataConfig, tmp_path: Path) -> ScannedData:
    return scan(data, SEED, tmp_path / "cache", lambda *_: None, lambda: None)


def views(scanned: ScannedData, data: DataConfig, tmp_path: Path, split: str, position: int) -> list[Path]:
    paths = [path for (path, _), other in zip(scanned.samples, scanned.splits, strict=True) if other == split]
    return write_views(scanned, data, SEED, PREPROCESSING, paths[position], tmp_path / "views", 3)


def test_each_epoch_is_shown_as_the_loop_will_see_it(scanned: ScannedData, data: DataConfig, tmp_path: Path) -> None:
    num_train = scanned.splits.count("train")
    batches = ImageData(data, TrainingConfig(batch_size=num_train, seed=SEED), PREPROCESSING, scanned)
    files = views(scanned, data, tmp_path, "train", 4)
    assert len(files) == 3
    for epoch, file in enumerate(files):
        (images, _) = next(iter(batches.train_batches(epoch)))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
        pixels = ((images * std + mean) * 255).round().to(torch.uint8)
        seen = [image.permute(1, 2, 0).numpy().tobytes() for image in pixels]
        with Image.open(file) as picture:
            assert picture.tobytes() in seen
    assert len({file.read_bytes() for file in files}) == 3
    batches.close()


def test_a_validation_image_looks_the_same_in_every_epoch(
    scanned: ScannedData, data: DataConfig, tmp_path: Path
) -> None:
    (file,) = views(scanned, data, tmp_path, "validation", 0)
    with Image.open(file) as picture:
        assert picture.size == (24, 24)


def test_an_image_that_is_no_longer_there_is_named(scanned: ScannedData, data: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other\.png is no image of these data any more"):
        write_views(scanned, data, SEED, PREPROCESSING, "/nowhere/other.png", tmp_path / "views", 3)
