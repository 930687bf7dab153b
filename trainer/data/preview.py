"""Pictures of what the model sees of one image, epoch by epoch: the very pixels that the run gets, mixed as it does."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from trainer.config import RunConfig
from trainer.data.dataset import ImageDataset
from trainer.data.images import DataError, displayed
from trainer.data.mixing import BatchMixer
from trainer.data.sampler import EpochSampler
from trainer.data.transforms import Preprocessing, train_transform, validation_transform
from trainer.data_report import DataReport
from trainer.messages.data_info import DataSummary, ImageView
from trainer.task import check_task

_KEPT_S = 3600.0


def write_views(
    report_path: Path,
    config: RunConfig,
    preprocessing: Preprocessing,
    path: str,
    folder: Path,
    num_views: int,
    present_epoch: int = 0,
    num_fixed: int = 0,
    check_cancelled: Callable[[], None] = lambda: None,
) -> list[ImageView]:
    """Write what the model sees of an image, as PNG files, from the present epoch of a run on.

    Nothing of a run that is under way is touched: neither its generators nor its loader.

    Args:
        report_path: The report of the run's data: its images in their order, and their splits.
        config: The run's configuration, which order, augmentation and mixing follow.
        preprocessing: How images are made to fit the model.
        path: The image, by its absolute path.
        folder: Where the files go; those of an hour ago are removed from it.
        num_views: Number of epochs, or fewer if the run has fewer. An image that is not trained on looks the same in
            all: then there is one view.
        present_epoch: Completed epochs of the run. Near its end, the last epochs are shown.
        num_fixed: Number of views that come in turn; 0: each epoch has a new one.
        check_cancelled: Called before each epoch; raises to end the work.

    Raises:
        ConfigError: Images of these data cannot be drawn by their classes.
        DataError: The image is none of the data set, or it or the one that is mixed in cannot be read.
        DataReportError: The report cannot be read.

    """
    summary, samples = _read(report_path)
    places = ((split, idx) for split in samples for idx, (known, _) in enumerate(samples[split]) if known == path)
    split, index = next(places, ("", 0))
    if not split:
        raise DataError(f"{displayed(path)} is no image of these data any more. Check the data again.")
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    said = f"{path} {report_path} {preprocessing} {config.model_dump_json()}"
    key = hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    if split != "train":
        dataset = ImageDataset(samples[split], validation_transform(preprocessing), config.training.seed)
        return [ImageView(file=_save(dataset[0, index], folder / f"{key}.png"), epoch=None)]
    num_epochs = config.training.epochs
    first = max(0, min(present_epoch, num_epochs - num_views))
    if config.data.balance == "sampler":
        # No other order or picture depends on how many classes an image has.
        check_task(config.data, summary)
    loop = _Loop(config, preprocessing, samples["train"], summary.class_names, num_fixed)
    views = []
    for epoch in range(first, min(first + num_views, num_epochs)):
        check_cancelled()
        views.append(_view(loop, epoch, index, folder / f"{key}_{epoch}.png"))
    return views


class _Loop:
    """What the training loop does with the images of an epoch, image by image."""

    def __init__(
        self,
        config: RunConfig,
        preprocessing: Preprocessing,
        samples: list[tuple[str, tuple[int, ...]]],
        class_names: list[str],
        num_fixed: int,
    ) -> None:
        data, training = config.data, config.training
        self.class_names = class_names
        self._num_fixed = num_fixed
        self._samples = samples
        self._preprocessing = preprocessing
        self._dataset = ImageDataset(samples, train_transform(preprocessing, data.augmentation), training.seed)
        labels = [class_idx for _, (class_idx,) in samples] if data.balance == "sampler" else None
        self._sampler = EpochSampler(len(samples), training.batch_size, training.seed, labels)
        # A pair of images is mixed as they would be within their batch.
        self._mixer = None if data.mixing == "none" else BatchMixer(data.mixing, 2, training.seed)

    def places(self, epoch: int, index: int) -> list[tuple[int, int]]:
        """Return for each time that an image comes in an epoch: the batch, and the index that it is mixed with."""
        return [
            (batch, indexes[BatchMixer.neighbour(position, len(indexes))])
            for batch, position, indexes in self._sampler.places(epoch, index)
        ]

    def label(self, index: int) -> str:
        """Return the name of an image's class, or classes."""
        return ", ".join(self.class_names[class_idx] for class_idx in self._samples[index][1])

    def pixels(self, epoch: int, batch: int, neighbour: int, index: int) -> tuple[Tensor, float]:
        """Return what the model sees of an image, uint8 (3, H, W), and the share of its neighbour in it, 0 to 1."""
        if self._mixer is None:
            return self._dataset[epoch % self._num_fixed if self._num_fixed else epoch, index], 0.0
        own = self._dataset[epoch, index]
        pair = self._dataset.normalize(torch.stack([self._dataset[epoch, neighbour], own]))
        mixed, shares = self._mixer(pair, torch.tensor([0, 1]), epoch, batch)
        return denormalized(mixed[1], self._preprocessing), float(shares[1, 0])


def denormalized(x: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return images as the model takes them, float32 (..., 3, H, W), as pixels to look at: uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _view(loop: _Loop, epoch: int, index: int, file: Path) -> ImageView:
    places = loop.places(epoch, index)
    if not places:
        return ImageView(file="", epoch=epoch + 1, num_times=0)
    batch, neighbour = places[0]
    pixels, share = loop.pixels(epoch, batch, neighbour, index)
    return ImageView(
        file=_save(pixels, file),
        epoch=epoch + 1,
        num_times=len(places),
        mixed_with=loop.label(neighbour) if share else "",
        mixed_share=share,
    )


def _save(pixels: Tensor, file: Path) -> str:
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
    return str(file)


@functools.lru_cache(maxsize=1)
def _read(report_path: Path) -> tuple[DataSummary, dict[str, list[tuple[str, tuple[int, ...]]]]]:
    # Once for picture after picture: a report is named by its content, and never written over.
    with closing(DataReport(report_path)) as report:
        return report.summary, report.samples()


def _remove_old(folder: Path) -> None:
    for file in folder.glob("*.png"):
        if time.time() - file.stat().st_mtime > _KEPT_S:
            file.unlink(missing_ok=True)
