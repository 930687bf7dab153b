"""Pictures of what the model sees of one image, epoch by epoch: the very pixels that the run normalizes."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from PIL import Image

from trainer.config import DataConfig
from trainer.data.dataset import ImageDataset
from trainer.data.images import DataError, displayed
from trainer.data.scan import ScannedData
from trainer.data.transforms import Preprocessing, train_transform, validation_transform

_KEPT_S = 3600.0


def write_views(
    scanned: ScannedData,
    data: DataConfig,
    seed: int,
    preprocessing: Preprocessing,
    path: str,
    folder: Path,
    num_views: int,
) -> list[Path]:
    """Write what the model sees of an image in the first epochs, as PNG files.

    Args:
        scanned: The images of the run and their splits.
        data: How they are augmented.
        seed: The run's seed, which the augmentation follows.
        preprocessing: How they are made to fit the model.
        path: The image, by its absolute path.
        folder: Where the files go; those of an hour ago are removed from it.
        num_views: Number of epochs. An image that is not trained on looks the same in all: then there is one file.

    Raises:
        DataError: The image is none of the data set, or cannot be read.

    """
    listed = list(zip(scanned.samples, scanned.splits, strict=True))
    split = next((split for (known, _), split in listed if known == path), "")
    if not split:
        raise DataError(f"{displayed(path)} is no image of these data any more. Check the data again.")
    samples = [sample for sample, other in listed if other == split]
    index = next(idx for idx, (known, _) in enumerate(samples) if known == path)
    is_trained = split == "train"
    transform = train_transform(preprocessing, data.augmentation) if is_trained else validation_transform(preprocessing)
    dataset = ImageDataset(samples, transform, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    key = hashlib.sha256(f"{path} {seed} {preprocessing} {data}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    files = []
    for epoch in range(num_views if is_trained else 1):
        file = folder / f"{key}_{epoch}.png"
        pixels, _ = dataset[epoch, index]
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
        files.append(file)
    return files


def _remove_old(folder: Path) -> None:
    for file in folder.glob("*.png"):
        if time.time() - file.stat().st_mtime > _KEPT_S:
            file.unlink(missing_ok=True)
