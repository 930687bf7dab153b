"""The page that comes with a shared model: what it tells apart, how well, how it was trained, and how it is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trainer.export.shared_model import SharedModel
from trainer.export.timeline import Applied
from trainer.freezing import FreezeSet
from trainer.messages.changes import FreezeChanged, RateChanged, RateMultiplierChanged, TrainingChanged
from trainer.messages.events import FeaturesCached
from trainer.messages.export import Parity
from trainer.messages.run_info import RunInfo

_TASKS = {
    "multi_class": "one of {num} classes",
    "binary": "one of two classes, with one output",
    "multi_label": "any of {num} classes",
}
_MAX_CLASSES = 50


def model_card(
    model: SharedModel, info: RunInfo | None, changes: Sequence[Applied], parity: Parity, files: dict[str, str]
) -> str:
    """Return the page, in Markdown.

    Args:
        model: The model.
        info: What its run was prepared as, None where that is not known.
        changes: What changed on the way to the checkpoint.
        parity: How the weights in the bundle compare with the run's.
        files: What each file of the bundle is, by its name.

    """
    checkpoint, config = model.checkpoint, model.config
    task = _TASKS[config.data.task].format(num=len(model.class_names))
    sections = [
        f"# {_plain(config.title)}",
        f"{config.model.name}, fine-tuned to tell {task}. This is its state after step {checkpoint.step:,} "
        f"(epoch {checkpoint.epoch}).",
        "![Loss and accuracy by step](curves.png)",
        "## How well",
        _metrics(model),
        parity.sentence,
        "## What it tells apart",
        _classes(model.class_names),
        "## What it takes and gives",
        _images(model),
        "## How it was trained",
        _training(model, info),
    ]
    if told := change_sentences(changes):
        sections += ["What changed on the way:", _bullets(told)]
    sections += [
        "## How to use it",
        "```\npython predict.py IMAGE_OR_FOLDER…\n```",
        *(["```\npython train.py --data FOLDER\n```"] if "train.py" in files else []),
        "They need PyTorch, torchvision and Pillow; environment.json has the versions that were used. No file here "
        "executes code when it is loaded.",
        _bullets(f"`{name}`: {what}" for name, what in files.items()),
    ]
    return "\n\n".join(sections) + "\n"


def _metrics(model: SharedModel) -> str:
    metrics = model.checkpoint.metrics
    if not metrics:
        return "This checkpoint was saved within an epoch, where nothing is validated."
    rows = [f"| {_plain(tag.partition('/')[0])} | {value:.4f} |" for tag, value in metrics.items()]
    return "\n".join(["| On the validation split | |", "|---|---|", *rows])


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(_plain(name) for name in names[:_MAX_CLASSES])
    num_more = len(names) - _MAX_CLASSES
    return f"{shown} and {num_more:,} more (class_names.json)." if num_more > 0 else f"{shown}."


def _images(model: SharedModel) -> str:
    images = model.preprocessing
    is_square = images.image_size == images.resize_size
    fit = (
        f"resized to {images.image_size} × {images.image_size} pixels"
        if is_square
        else f"resized to a short side of {images.resize_size} pixels, cut to the {images.image_size} × "
        f"{images.image_size} in their centre"
    )
    output = model.description()["output"]
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (images.mean, images.std))
    return (
        f"Images in RGB, {fit} ({images.interpolation}), scaled to 0 to 1, minus the mean ({mean}), divided by the "
        f"standard deviation ({std}). {output['meaning']}"
    )


def _training(model: SharedModel, info: RunInfo | None) -> str:
    data, training, optimizer = model.config.data, model.config.training, model.config.optimizer
    freeze_set = FreezeSet(model.module, [model.head])
    frozen = freeze_set.describe(freeze_set.resolve(model.config.model.frozen))
    lines = [
        f"Began with {_weights(model)}; frozen at first: {frozen}.",
        f"{optimizer.name}, rate {optimizer.rate:g} ({optimizer.schedule.replace('_', ' ')}), weight decay "
        f"{optimizer.weight_decay:g}, batches of {training.batch_size}"
        + (f", {training.accumulate_batches} to a step" if training.accumulate_batches > 1 else "")
        + ".",
        f"Augmentation: {data.augmentation}; mixing: {data.mixing}; balance: {data.balance.replace('_', ' ')}; "
        f"label smoothing: {training.label_smoothing:g}; seed: {training.seed}.",
    ]
    if info is not None:
        lines.insert(
            0,
            f"{info.num_train:,} training and {info.num_validation:,} validation images; {info.steps_per_epoch:,} "
            f"steps to an epoch, on {info.device} in {info.computed_in.text}.",
        )
    return _bullets(lines)


def _weights(model: SharedModel) -> str:
    weights = model.config.model.weights
    if model.config.branch is not None:
        return f"the weights of {model.config.branch.source}"
    if model.config.model.weights_file:
        return "weights from a file"
    return {"published": "torchvision's published weights", "random": "random weights"}.get(
        weights, f"torchvision's weights {weights}"
    )


def change_sentences(changes: Sequence[Applied]) -> list[str]:
    """Say what changed and when, without what was told again as it was."""
    cached: FeaturesCached | None = None
    told = []
    for change in changes:
        if isinstance(change, FeaturesCached):
            what, cached = _cached_text(change, cached), change
        else:
            what = _change_text(change)
        if what:
            when = f"after step {change.applied_step:,}" if change.applied_step else "from the start"
            told.append(f"{when}: {what}")
    return told


def _change_text(change: Applied) -> str:
    """Say what is otherwise from a change on, "" where nothing is."""
    match change:
        case RateChanged():
            return f"rate {change.rate:g}, {change.before:g} before"
        case TrainingChanged():
            return _training_text(change)
        case FreezeChanged() | RateMultiplierChanged():
            return f"{_plain(change.sentence)}, by the {change.source}" if change.layers else ""
    return _plain(change.sentence)


def _cached_text(change: FeaturesCached, before: FeaturesCached | None) -> str:
    what = []
    if change.layers != ([] if before is None else before.layers):
        what.append(f"features of {_plain(change.sentence)} cached" if change.layers else "no features cached")
    num_views, num_before = change.fixed_views, 0 if before is None else before.fixed_views
    # One view is that of an image without augmentation, which is the same one in any epoch.
    if num_views != num_before and max(num_views, num_before) > 1:
        views = f"{num_views:,} fixed view{'s' * (num_views > 1)} in turn" if num_views else "a new view in each epoch"
        what.append(f"each training image in {views}")
    return ", ".join(what)


def _training_text(change: TrainingChanged) -> str:
    what = []
    if change.epochs != change.before_epochs:
        what.append(f"{change.epochs:,} epochs, {change.before_epochs:,} before")
    if change.patience != change.before_patience:
        now, before = (f"{each:,}" if each else "off" for each in (change.patience, change.before_patience))
        what.append(f"patience {now}, {before} before")
    if change.batch_parts != change.before_batch_parts:
        is_whole = change.batch_parts == 1
        what.append("batches whole again" if is_whole else f"batches in {change.batch_parts:,} parts")
    return "; ".join(what)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: names of classes and runs may hold anything."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
