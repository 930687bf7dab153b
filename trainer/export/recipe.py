"""The scripts of a bundle: what they must know of a model and of its run, as constants in plain Python."""

from __future__ import annotations

import csv
import io
import pprint
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from trainer.config import RunConfig
from trainer.data.kept_split import FILE_NAME
from trainer.data.kept_split import read_split_rows as read_rows
from trainer.export.shared_model import ExportError, SharedModel
from trainer.export.timeline import as_change, changes_until, decays, foreign_weights
from trainer.freezing import FreezeSet, has_statistics
from trainer.messages.run_info import RunInfo
from trainer.metrics import VALIDATION_LOSS
from trainer.models import APPENDED, stock_options
from trainer.run_record import Curve, RunRecord
from trainer.schedules import multiplied_units

_TEMPLATES = Path(__file__).parent / "templates"
_BLOCK = re.compile(r"(?<=\n)# --- the (?:model|run)\n(?P<constants>.*?)# --- end\n", re.DOTALL)
_CONSTANT = re.compile(r"^(?P<name>[A-Z][A-Z0-9_]*): (?P<type>.+?) = .*$", re.MULTILINE)
_WIDTH = 112


class RecipeError(ExportError):
    """A run that a plain script cannot repeat, with the sentence that says why."""


def predict_script(model: SharedModel) -> str:
    """Return predict.py for a model."""
    images = model.preprocessing
    return _with_constants(
        "predict.py",
        {
            "MODEL": model.config.model.name,
            "MODEL_OPTIONS": stock_options(model.config.model.name, images.image_size),
            "HEAD_NAME": model.head,
            "HEAD_LAYERS": _layers(model.module.get_submodule(model.head)),
            "IS_APPENDED": model.head == APPENDED,
            "TASK": model.config.data.task,
            "CLASS_NAMES": model.class_names,
            "IMAGE_SIZE": images.image_size,
            "RESIZE_SIZE": images.resize_size,
            "MEAN": list(images.mean),
            "STD": list(images.std),
            "INTERPOLATION": images.interpolation,
        },
    )


def train_script(model: SharedModel, record: RunRecord, curves: Mapping[str, Curve], root: Path | None) -> str:
    """Return train.py for a model's run, up to its checkpoint.

    Args:
        model: The model at the checkpoint.
        record: The run.
        curves: The measurements on the way to the checkpoint.
        root: The folder of the run's images, None where it is gone.

    Raises:
        RecipeError: A plain script cannot repeat the run.

    """
    info, config = record.info, model.config
    if info is None:
        raise RecipeError("train.py is left out: the run's folder does not say how it was prepared.")
    computed_in = info.computed_in
    if computed_in.is_compiled or computed_in.form.precision == "fp16":
        raise RecipeError(
            f"train.py is left out: the run was computed in {computed_in.text}, which a plain script would round "
            "otherwise."
        )
    info_row = model.checkpoint
    if config.branch is not None and config.branch.with_optimizer:
        raise RecipeError("train.py is left out: the run began with the optimizer's state of the one it branched from.")
    if restored := foreign_weights(info_row, record.log):
        raise RecipeError(f"train.py is left out: the run went on from the weights of {restored}, which no step made.")
    events = changes_until(info_row, record.log, record.checkpoints)
    lowered = decays(config.optimizer, curves.get(VALIDATION_LOSS, Curve()), info_row.step)
    if len(lowered) != model.scheduler_state["num_decays"]:
        raise RecipeError("train.py is left out: it cannot be told when the run's plateaus lowered the rate.")
    changes = sorted([*lowered, *(change for event in events for change in as_change(event))], key=lambda each: each[0])
    return _with_constants(
        "train.py",
        {
            "DATA": str(root if root is not None else config.data.path),
            "NUM_CLASSES": len(model.class_names),
            "STEPS": info_row.step,
            "SEED": config.training.seed,
            "PRECISION": info.precision,
            "CHANNELS_LAST": computed_in.form.channels_last,
            "TF32": computed_in.form.tf32,
            "DEVICE": info.device,
            "NUM_THREADS": info.num_threads,
            "CHANGES": [change for change in changes if change[0] < info_row.step],
            **_of_config(config),
            **_of_start(config, model),
        },
    )


def images_table(run_dir: Path, model: SharedModel, info: RunInfo | None) -> str:
    """Return images.csv: the place of each image in the data, its split, and the indexes of its classes.

    Raises:
        RecipeError: The run's folder does not tell, or no longer as the run trained.

    """
    rows = read_rows(run_dir)
    if rows is None:
        raise RecipeError(f"train.py is left out: the run's folder has no {FILE_NAME}, so that its order is not known.")
    indexes = {name: str(idx) for idx, name in enumerate(model.class_names)}
    is_multi_label = model.config.data.task == "multi_label"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "split", "classes"])
    num_train = 0
    for place, classes, split in rows:
        names = [name for name in classes.split("; ") if name] if is_multi_label else [classes]
        if not indexes.keys() >= set(names):
            raise RecipeError(f"train.py is left out: {FILE_NAME} has {classes!r}, which is no class of the run.")
        writer.writerow([place, split, " ".join(indexes[name] for name in names)])
        num_train += split == "train"
    if info is None or num_train != info.num_train:
        raise RecipeError("train.py is left out: the run's data changed since it began, and so did their order.")
    return text.getvalue()


def _of_config(config: RunConfig) -> dict[str, Any]:
    data, training, optimizer = config.data, config.training, config.optimizer
    return {
        "NUM_EPOCHS": training.epochs,
        "FEATURE_PRECISION": training.feature_precision,
        "BATCH_SIZE": training.batch_size,
        "ACCUMULATE_BATCHES": training.accumulate_batches,
        "AUGMENTATION": data.augmentation,
        "MIXING": data.mixing,
        "BALANCE": data.balance,
        "LABEL_SMOOTHING": training.label_smoothing,
        "OPTIMIZER": optimizer.name,
        "RATE": optimizer.rate,
        "WEIGHT_DECAY": optimizer.weight_decay,
        "MOMENTUM": optimizer.momentum,
        "NESTEROV": optimizer.nesterov,
        "CLIP_NORM": optimizer.clip_norm,
        "SCHEDULE": optimizer.schedule,
        "WARMUP_EPOCHS": optimizer.warmup_epochs,
        "DECAY_FACTOR": optimizer.decay_factor,
        "DECAY_EPOCHS": optimizer.decay_epochs,
        "RAMP_STEPS": optimizer.ramp_steps,
        "STATE_ON_UNFREEZE": optimizer.state_on_unfreeze,
    }


def _of_start(config: RunConfig, model: SharedModel) -> dict[str, Any]:
    freeze_set = FreezeSet(model.module, [model.head])
    adapting = [unit for layer in config.model.adapting for unit in freeze_set.with_statistics([layer])]
    if config.model.batchnorm == "adapting":
        adapting = [name for name, module in model.module.named_modules() if has_statistics(module)]
    multiplied = multiplied_units(config.optimizer.multipliers, freeze_set)
    return {
        "FROZEN": freeze_set.names_of(freeze_set.resolve(config.model.frozen)),
        "ADAPTING": adapting,
        "MULTIPLIERS": {unit: multiplier for units, multiplier in multiplied for unit in units},
    }


def _layers(head: nn.Module) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for layer in head if isinstance(head, nn.Sequential) else [head]:
        match layer:
            case nn.Linear():
                found.append(("Linear", layer.in_features, layer.out_features, layer.bias is not None))
            case nn.Conv2d():
                found.append(("Conv2d", layer.in_channels, layer.out_channels, 1))
            case nn.Dropout():
                found.append(("Dropout", layer.p))
            case _:
                assert isinstance(layer, nn.ReLU), "models._head_layers makes no other"
                found.append(("ReLU",))
    return found


def _with_constants(name: str, values: Mapping[str, Any]) -> str:
    template = (_TEMPLATES / name).read_text(encoding="utf-8")
    block = _BLOCK.search(template)
    assert block is not None, name
    types = {found["name"]: found["type"] for found in _CONSTANT.finditer(block["constants"])}
    assert types.keys() == values.keys(), types.keys() ^ values.keys()
    lines = [_assignment(constant, types[constant], values[constant]) for constant in types]
    return template[: block.start("constants")] + "\n".join(lines) + "\n" + template[block.end("constants") :]


def _assignment(name: str, kind: str, value: Any) -> str:
    text = pprint.pformat(value, width=_WIDTH, compact=True, sort_dicts=False)
    if "\n" not in text or text[0] not in "[{(":
        return f"{name}: {kind} = {text}"
    inner = "\n".join(f"   {line}" for line in f" {text[1:-1]}".splitlines())
    return f"{name}: {kind} = {text[0]}\n{inner},\n{text[-1]}"
