"""The confusion matrix of any checkpoint: as its run kept it, or by evaluating it on the run's validation images."""

from __future__ import annotations

import torch

from trainer.data.dataset import ImageDataset
from trainer.data.images import DataError
from trainer.data.kept_split import read_split_rows
from trainer.data.stream import Stream
from trainer.data.transforms import validation_transform
from trainer.export.parity import Progress, data_root
from trainer.export.shared_model import SharedModel, read_shared_model
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix
from trainer.optim import autocast, choose_device
from trainer.run_list import runs_on
from trainer.runs import RunFolder
from trainer.task import make_task


def confusion_of(folder: RunFolder, info: CheckpointInfo, title: str, on_progress: Progress) -> ConfusionMatrix:
    """Return which classes a checkpoint takes for which on the validation split that its run began with.

    Args:
        folder: The run's folder, also of a live run: nothing in it is touched.
        info: The checkpoint.
        title: Its name for people, for the progress.
        on_progress: Called with (what, done, total, unit).

    Raises:
        ValueError: The images, the checkpoint or the model cannot be read any more.

    """
    kept = folder.checkpoints.confusion_of(info)
    if kept is not None:
        return kept
    model = read_shared_model(folder, info.name)
    samples = _validation_samples(folder, model, on_progress)
    return ConfusionMatrix(
        split="validation",
        checkpoint=info.name,
        step=info.step,
        class_names=model.class_names,
        counts=_evaluate(model, samples, *_place(folder, info), title, on_progress),
    )


def _validation_samples(
    folder: RunFolder, model: SharedModel, on_progress: Progress
) -> list[tuple[str, tuple[int, ...]]]:
    root, rows = data_root(model.config, on_progress), read_split_rows(folder.path)
    if root is None or rows is None:
        what = f"there are no images at {model.config.data.path} any more" if root is None else "its split was not kept"
        raise DataError(f"{model.checkpoint.name} cannot be evaluated: {what}. Put them back, and compare again.")
    index_of = {name: class_idx for class_idx, name in enumerate(model.class_names)}
    return [(str(root / place), (index_of[name],)) for place, name, split in rows if split == "validation"]


@torch.no_grad()
def _evaluate(
    model: SharedModel,
    samples: list[tuple[str, tuple[int, ...]]],
    device: torch.device,
    precision: str,
    title: str,
    on_progress: Progress,
) -> list[list[int]]:
    config = model.config
    task = make_task(config, model.class_names, [1] * len(model.class_names), len(samples), device)
    counts = task.new_counts(device)
    module, size = model.module.to(device), config.training.batch_size
    stream = Stream(
        ImageDataset(samples, validation_transform(model.preprocessing), config.training.seed), size, num_workers=0
    )
    starts = range(0, len(samples), size)
    keys = [[(0, idx) for idx in range(start, min(start + size, len(samples)))] for start in starts]
    num_done = 0
    for images, target in stream.batches(keys):
        with autocast(precision, device):
            logits = module(images.to(device))
        counts.add(task.log_odds(logits), target.to(device))
        num_done += len(target)
        on_progress(f"Evaluating {title}", num_done, len(samples), "images")
    confusion = counts.confusion
    assert confusion is not None, "who asks knows that each image has one class"
    rows: list[list[int]] = confusion.tolist()
    return rows


def _place(folder: RunFolder, info: CheckpointInfo) -> tuple[torch.device, str]:
    """Return the best device that no live run beside this one trains on, and the run's precision, or else fp32."""
    device = choose_device("auto")
    if runs_on(str(device), folder.path.parent):
        device = torch.device("cpu")
    prepared = folder.run_info(info.name)
    precision = "fp32" if prepared is None else prepared.computed_in.form.precision
    return device, "fp32" if precision == "fp16" and device.type != "cuda" else precision
