"""RunConfig: everything that is needed to repeat a run, as TOML. Every field says what it means and its unit."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from trainer.config_error import ConfigError as ConfigError

_LONGEST_SHOWN = 60
_WEIGHT_SET = re.compile(r"IMAGENET1K_[A-Z0-9_]+")
_FOLDER_TIME = re.compile(r"^\d{4}-\d\d-\d\d_\d{6}_")
_CHECKPOINT_PLACE = re.compile(r"_(?P<epoch>\d{3,})_(?:step(?P<step>\d+)|\d+\.\d+_\d+\.\d+)(?:_\d+)?\.pt$")
_DATA_SUFFIXES = r"\.(zip|tar|tgz|tar\.gz|tar\.bz2|tar\.xz|csv|tsv)$"


PlateauMetric = Literal["loss", "accuracy"]
"""What of validation a patience and a plateau wait for."""
Metric = Literal[PlateauMetric, "top5_accuracy", "f1", "auroc", "mean_ap"]
"""What of validation tells one checkpoint from a better one."""
MAX_EPOCHS = 10_000
METRICS: tuple[Metric, ...] = get_args(Metric)

VIEWS = {"none": 1, "light": 2, "standard": 8, "strong": 8}
"""How many views of an image each augmentation needs: with as many, a head reached what it does with a new one in every
epoch (docs/performance.md)."""

_THREE = Field(min_length=3, max_length=3)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


class DataConfig(_Section):
    """Which images, and how they are split and shown to the model."""

    path: str = Field("", description="A folder, a zip or tar, or a CSV or TSV table of images.")
    layout: Literal["auto", "class_folders", "split_folders", "splits_in_classes", "table", "file_names"] = Field(
        "auto",
        description="Where an image's class stands: its folder, its folder below train/ and val/, or above them, a "
        'table, or its name ("cat.12.jpg"); auto looks.',
    )
    task: Literal["multi_class", "binary", "multi_label"] = Field(
        "multi_class",
        description="What is to be told of an image: which of the classes it is, with an output for each "
        "(multi_class); which of two, with one output, the logit of the second in natural order (binary); or which "
        "classes it shows, any number of them, with a yes or no for each (multi_label).",
    )
    path_column: str = Field("", description="A table's column of image paths; empty looks for it by its name.")
    label_column: str = Field(
        "",
        description="A table's column of classes, or one column of 0 and 1 for each class, with commas between their "
        "names; empty looks for it by its name, then for columns of 0 and 1.",
    )
    label_separator: Literal["auto", "none", ";", "|", ",", "space"] = Field(
        "auto",
        description="What stands between the classes of an image in a table's cell; none takes a cell as one class, "
        "auto takes ; or | where there are any. Where there is a separator, an empty cell is an image of no class.",
    )
    split_column: str = Field(
        "", description="A table's column of train, validation or test; empty looks for it by its name."
    )
    group_column: str = Field(
        "", description="A table's column of groups (patients, places) that must not be split; empty: there is none."
    )
    validation_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of each class kept for validation, 0 to 1; for data without a split of its own.",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="Side of the square that the model sees, in pixels; empty takes the weights' own.",
    )
    resize_size: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="Length of the short side before the square is cut from the centre, in pixels; empty takes the "
        "weights' own, in proportion.",
    )
    mean: Annotated[list[Annotated[float, Field(ge=0, le=1)]], _THREE] | None = Field(
        None, description="Mean of the red, green and blue values (0 to 1); empty takes the weights' own."
    )
    std: Annotated[list[Annotated[float, Field(gt=0, le=1)]], _THREE] | None = Field(
        None, description="Standard deviation of the red, green and blue values; empty takes the weights' own."
    )
    augmentation: Literal["none", "light", "standard", "strong"] = Field(
        "light",
        description="Changes of each training image: none; light (shift, scale); standard (crop, flip, colour); strong "
        "(TrivialAugment and random erasing on top).",
    )
    mixing: Literal["none", "mixup", "cutmix"] = Field(
        "none", description="Mixing of the images of a training batch and of their classes."
    )
    views: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Augmented views of each training image, which come in turn while the layers before them are "
        "frozen: their features are computed once for each. Empty takes as many as the augmentation needs (light 2, "
        "standard and strong 8). 0 has a new view in every epoch, as there is where nothing is cached, and every epoch "
        "computes it.",
    )
    balance: Literal["none", "class_weights", "sampler"] = Field(
        "none",
        description="What evens out classes of different size: nothing, weights in the loss, or drawing small classes "
        "more often.",
    )
    cache_gb: float | None = Field(
        None,
        ge=0,
        le=10_000,
        description="Disk space for decoded images, in GB, so that later epochs decode nothing; empty takes what the "
        "disk can spare, 0 keeps none.",
    )

    @property
    def fixed_views(self) -> int:
        """Return how many views of an image come in turn where features are cached; 0: each epoch has a new one."""
        if self.mixing != "none":
            return 0
        # Without augmentation all are the same.
        return VIEWS[self.augmentation] if self.views is None or self.augmentation == "none" else self.views

    def num_outputs(self, num_classes: int) -> int:
        """Return how many outputs a model needs for the task with so many classes."""
        return 1 if self.task == "binary" else num_classes


class ModelConfig(_Section):
    """Which pretrained network, and what of it is frozen at the start."""

    name: str = Field("resnet18", description="Name of a torchvision classification model.")
    weights: str = Field(
        "published",
        description='"published" (the best ones, downloaded once), the name of other published ones '
        '("IMAGENET1K_V1"), "random", or the path of a .pt or .safetensors file.',
    )
    head: Literal["replace", "append"] = Field(
        "replace",
        description="Where the task's own layers go: in place of the last layer, or after the model's 1,000 outputs.",
    )
    head_dropout: float = Field(
        0, ge=0, lt=1, description="Share of the values that the head drops before each of its layers, 0 to 1."
    )
    head_hidden: int | None = Field(
        None, ge=1, le=65_536, description="Units of a hidden layer in the head; empty has none."
    )
    frozen: list[str] = Field(
        default_factory=lambda: ["backbone"],
        description='Layers and parameters frozen at step 0, by qualified name, or patterns of either ("*.bias"); '
        '"backbone" is all but the head.',
    )
    batchnorm: Literal["frozen", "adapting"] = Field(
        "frozen",
        description="What the running statistics of a frozen BatchNorm do: they are frozen with the whole of it, or go "
        "on adapting to the data. Where its weight or its bias learns, they go on.",
    )
    adapting: list[str] = Field(
        default_factory=list,
        description="Layers whose running statistics go on adapting to the data while they are frozen, whatever those "
        'of the others do, by qualified name, or patterns ("*.bn1").',
    )

    @property
    def weight_set(self) -> str:
        """Return the name of the published weights, "" if they are the model's default ones, a file or random."""
        return self.weights if _WEIGHT_SET.fullmatch(self.weights) else ""

    @property
    def weights_file(self) -> str:
        """Return the path of the weights' file, "" if they are published or random."""
        return "" if self.weights in {"published", "random"} or self.weight_set else self.weights


class OptimizerConfig(_Section):
    """How the weights move."""

    name: Literal["SGD", "Adam", "AdamW", "RMSprop"] = Field("AdamW", description="The optimizer.")
    rate: float = Field(1e-3, gt=0, le=10, description="Learning rate; the largest of a schedule.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay, per unit of the learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum; SGD and RMSprop only.")
    nesterov: bool = Field(False, description="Whether the momentum is Nesterov's; SGD only, above a momentum of 0.")
    clip_norm: float | None = Field(
        None, gt=0, description="Largest norm of the whole gradient, longer ones are shortened; empty leaves them."
    )
    schedule: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = Field(
        "constant",
        description="How the rate goes over the run: constant; step (lower every few epochs); falling to 0 as a half "
        "cosine; one_cycle (rising, then falling); plateau (lower when the validation loss stays).",
    )
    warmup_epochs: float = Field(
        0, ge=0, le=1000, description="Epochs over which the rate rises from 0 first; one_cycle has its own rise."
    )
    decay_factor: float = Field(0.1, gt=0, lt=1, description="What a step or plateau schedule multiplies the rate by.")
    decay_epochs: int = Field(
        3, ge=1, le=1000, description="Epochs to the next step; or epochs without a lower loss that a plateau may last."
    )
    multipliers: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        default_factory=dict,
        description="What the rate is multiplied by in single layers, by qualified name; a later one holds over an "
        "earlier one.",
    )
    ramp_steps: int = Field(
        100,
        ge=0,
        le=1_000_000,
        description="Steps over which the rate of a layer rises from 0 when it, or some of it, was "
        "unfrozen; 0: at once.",
    )
    state_on_unfreeze: Literal["auto", "keep", "drop"] = Field(
        "auto",
        description="What becomes of the optimizer's state of a parameter when it is unfrozen: kept, dropped, or "
        "(auto) dropped if it was frozen for an epoch or longer.",
    )


class TrainingConfig(_Section):
    """How long, how much at once, and on what."""

    epochs: int = Field(10, ge=1, le=MAX_EPOCHS, description="Passes over the training data.")
    patience: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Epochs without a better validation after which the run ends; empty trains all epochs.",
    )
    stop_metric: PlateauMetric = Field("loss", description="What the patience watches on validation.")
    min_change: float = Field(
        0, ge=0, le=1000, description="How much better an epoch must be to count; an accuracy goes from 0 to 1."
    )
    advisor: Literal["off", "tell", "act"] = Field(
        "tell",
        description="Whether the next freeze or unfreeze is proposed after a validation (tell), or made (act); never "
        "while phases of a plan are to come.",
    )
    restore_best: bool = Field(
        True, description="Whether a run that the patience ends is put back to its best checkpoint."
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="Images that go through the model at once.")
    accumulate_batches: int = Field(
        1, ge=1, le=10_000, description="Batches whose gradients make one optimizer step: as one large batch would."
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="What of each target is spread evenly over the classes (over yes and no, where an image may have "
        "several), 0 to 1; in the training's loss only.",
    )
    rewind_gb: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="Memory of the worker for the states before each freeze or new rate, in GB; 0 keeps none there.",
    )
    rewind_disk_gb: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="Disk for files of these states in the run's folder, in GB, so that more of them are kept, and "
        "outlast the worker; 0 writes none, and a state is written only where ten times its size is free.",
    )
    feature_cache: Literal["auto", "off"] = Field(
        "auto",
        description="Whether what the frozen layers give for an image is computed once and kept (auto, where it can "
        "be), or again in every epoch (off).",
    )
    feature_precision: Literal["same", "half"] = Field(
        "same", description="How cached features are kept: as they are computed, or in 16 bits, for half the room."
    )
    feature_memory_gb: float | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Memory of the worker for cached features, in GB; empty takes up to a quarter of what is free.",
    )
    feature_disk_gb: float | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Disk for the cached features of all runs, in GB, so that later runs find them; empty takes what "
        "the disk can spare, 0 keeps none there.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Arithmetic of the forward pass, weights are fp32 in any: the fastest by a short measurement as "
        "the run begins (auto), fp32, bf16, or fp16 (on a GPU, with a scaled loss).",
    )
    channels_last: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether the weights of convolutions have the channels of a pixel side by side: where that is "
        "faster, by the same measurement (auto).",
    )
    compile: Literal["off", "on"] = Field(
        "off",
        description="Whether the model goes through torch.compile: each change of what learns compiles it again, which "
        "takes up to minutes, and needs a C++ compiler (on a GPU, Triton).",
    )
    device: str = Field("auto", description='"auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", or "mps".')
    deterministic: bool = Field(
        False,
        description="Whether only operators are used that give the same to the bit each time. On a GPU a resume is "
        "exact with it alone, and some models cannot be trained; on a CPU torchvision's models use no others anyway.",
    )
    seed: int = Field(7, ge=0, lt=2**31, description="Seed of the split, the order, the augmentation and the new head.")
    num_loader_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes that decode images; empty chooses by the machine, 0 decodes in the worker.",
    )
    num_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads for torch; empty takes all cores, or half of them where the measurement finds "
        "that faster.",
    )


class CheckpointsConfig(_Section):
    """What is saved of a run, and what of it is kept."""

    keep_last: int | None = Field(
        None, ge=1, le=10_000, description="How many of the newest are kept; empty keeps all, where no other rule says."
    )
    keep_best: int | None = Field(
        None, ge=1, le=10_000, description="How many of the best are kept; the best one always is."
    )
    best_metric: Literal["auto", Metric] = Field(
        "auto",
        description="By what of validation the best is told: by what the patience watches, by accuracy without one "
        "(auto); or by a metric that the task reports: top5_accuracy is of more than five classes, mean_ap of images "
        "of several.",
    )
    every_epochs: int | None = Field(None, ge=1, le=10_000, description="Every how many epochs one is kept for good.")
    before_changes: bool = Field(True, description="Whether the last one before each freeze or unfreeze is kept.")
    every_minutes: float | None = Field(
        10,
        gt=0,
        le=10_000,
        description="Minutes after which one is saved within an epoch, so that a crash loses no more; only the newest "
        "of these is kept. Empty saves at the end of epochs only.",
    )
    every_steps: int | None = Field(None, ge=1, description="Or the steps after which one is saved within an epoch.")
    disk_gb: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Disk that the run's checkpoints may take, in GB: near it older ones go, those first that no rule "
        "keeps. Empty: as much as there is.",
    )
    self_contained: bool = Field(
        False, description="Whether each file holds the whole model, and not only what differs from base.pt."
    )

    @property
    def is_thinning(self) -> bool:
        """Whether a rule says which are kept; without one, all are."""
        return (self.keep_last, self.keep_best, self.every_epochs) != (None, None, None)

    @property
    def best_metrics(self) -> tuple[Metric, ...]:
        """Return all by which the best may be told as the run goes on: its patience may come and go."""
        return get_args(PlateauMetric) if self.best_metric == "auto" else (self.best_metric,)


class PlanPhase(_Section):
    """A change of what learns, once its time has come and the phases before it have begun. One field says when."""

    epoch: int | None = Field(None, ge=1, description="Number of completed epochs at which this takes hold.")
    step: int | None = Field(None, ge=1, description="Or the number of completed optimizer steps.")
    plateau: int | None = Field(
        None,
        ge=1,
        description="Or the number of epochs for which validation got no better, since the phase before this began.",
    )
    metric: PlateauMetric = Field("loss", description="What of validation a plateau is of.")
    freeze: list[str] = Field(
        default_factory=list, description='Layers to freeze then, "layer4.*.bn1" or "*.bias" for several.'
    )
    unfreeze: list[str] = Field(default_factory=list, description="Layers to unfreeze then; they win over the others.")
    rates: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        default_factory=dict, description="What the rate of layers is multiplied by from then on."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> PlanPhase:
        if not self.freeze and not self.unfreeze and not self.rates:
            raise ValueError("a phase of the plan needs layers to freeze or to unfreeze, or rates to change")
        if sum(value is not None for value in (self.epoch, self.step, self.plateau)) != 1:
            raise ValueError("a phase of the plan needs one of epoch, step and plateau")
        return self

    @property
    def start(self) -> str:
        """Say when it begins: "epoch 3", "step 500", "a plateau of 2 epochs"."""
        if self.epoch is not None:
            return f"epoch {self.epoch}"
        return f"step {self.step}" if self.step is not None else f"a plateau of {self.plateau} epochs"

    def start_step(self, steps_per_epoch: int) -> int | None:
        """Return the number of completed updates at which it begins, None where validation decides."""
        return self.epoch * steps_per_epoch if self.epoch is not None else self.step

    def never_comes(self, num_epochs: int, steps_per_epoch: int) -> bool:
        """Tell whether a run of such a length is over before this could begin."""
        start = self.start_step(steps_per_epoch)
        if start is not None:
            return start >= num_epochs * steps_per_epoch
        # The first epoch sets what the next ones are held against.
        return self.plateau is not None and self.plateau >= num_epochs - 1


class BranchConfig(_Section):
    """The checkpoint of another run from which this one begins; its own base.pt has the weights once it has begun."""

    run: str = Field(description="Folder of the other run.")
    checkpoint: str = Field(description="Name of the checkpoint's file in it.")
    with_optimizer: bool = Field(
        False, description="Whether the optimizer's state is taken, too; the model and the optimizer must be the same."
    )

    @property
    def source(self) -> str:
        """Name the checkpoint for people: "digits-resnet18, epoch 5"."""
        run = _FOLDER_TIME.sub("", Path(self.run).name)
        found = _CHECKPOINT_PLACE.search(self.checkpoint)
        if found is None:
            return f"{run}, {self.checkpoint}"
        return f"{run}, step {int(found['step'])}" if found["step"] else f"{run}, epoch {int(found['epoch'])}"


class RunConfig(_Section):
    """The whole configuration of a run, as ``run.toml`` holds it."""

    name: str = Field(
        "", max_length=80, description="Name of the run, for the folder and the lists; empty takes the data's."
    )
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    checkpoints: CheckpointsConfig = Field(default_factory=CheckpointsConfig)
    plan: list[PlanPhase] = Field(default_factory=list)
    branch: BranchConfig | None = Field(None, description="What it branches from; empty: it begins by itself.")

    @property
    def title(self) -> str:
        """Return the run's name, or the name of its data."""
        return self.name or re.sub(_DATA_SUFFIXES, "", Path(self.data.path).name, flags=re.IGNORECASE) or "run"

    def best_metric(self, patience: int | None) -> Metric:
        """Return by what the best checkpoint is told: what is chosen, else what the patience watches, else accuracy.

        ``patience`` is the one that the run has now: it may change as the run goes on.
        """
        if self.checkpoints.best_metric != "auto":
            return self.checkpoints.best_metric
        return "accuracy" if patience is None else self.training.stop_metric


def config_from_dict(values: dict[str, Any], source: str = "") -> RunConfig:
    """Check plain values against the fields of RunConfig.

    Args:
        values: Nested dicts as TOML gives them.
        source: The file they came from, for the sentence.

    Raises:
        ConfigError: A field is unknown, missing or out of its range; names every one.

    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _as_config_error(error, source) from error


def load_config(path: Path) -> RunConfig:
    """Read a run's configuration from a TOML file. A relative data or weights path is taken beside the file.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or has a bad field.

    """
    return config_from_toml(read_toml(path), path)


def config_from_toml(values: dict[str, Any], path: Path) -> RunConfig:
    """Check what was read from a file, as ``load_config`` does.

    Raises:
        ConfigError: There is a bad field.

    """
    return resolve_paths(config_from_dict(values, str(path)), path.resolve().parent)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of TOML as plain values.

    Raises:
        ConfigError: The file cannot be read, or is no TOML.

    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend that line.") from error


def resolve_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Return the configuration with absolute paths of data, weights and the run that it branches from.

    Relative ones are taken from ``folder``.
    """
    weights = config.model.weights
    if config.model.weights_file:
        weights = _absolute(weights, folder)
    branch = config.branch
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"path": _absolute(config.data.path, folder)}),
            "model": config.model.model_copy(update={"weights": weights}),
            "branch": branch and branch.model_copy(update={"run": _absolute(branch.run, folder)}),
        }
    )


def config_to_toml(config: RunConfig) -> str:
    """Write a configuration as TOML; fields that are None are left out, which reads back as None."""
    return tomli_w.dumps(config.model_dump(exclude_none=True))


def _absolute(value: str, folder: Path) -> str:
    if not value:
        return value
    try:
        return str(folder / Path(value).expanduser())
    except RuntimeError:
        # "~name" of nobody: whoever opens it says so.
        return value


def _as_config_error(error: ValidationError, source: str) -> ConfigError:
    sentences: dict[str, str] = {}
    for details in error.errors():
        field = ".".join(str(part) for part in details["loc"])
        sentences.setdefault(field, _sentence(details, f"{source}: " if source else ""))
    return ConfigError("\n".join(sentences.values()), next(iter(sentences)), sentences)


def _sentence(error: ErrorDetails, prefix: str) -> str:
    what = f"{prefix}{_place(error['loc']) or 'the configuration'}"
    if error["type"] == "extra_forbidden":
        meant = _similar_field(".".join(str(part) for part in error["loc"]))
        mend = f"Did you mean {meant}?" if meant else "Remove it or mend its name."
        return f"{what} is not a field of a run. {mend}"
    if error["type"] == "missing":
        return f"{what} is missing. Add it."
    if error["type"] == "value_error":
        return f"{what}: {error['ctx']['error']}."
    return f"{what} is {_shown(error['input'])}, but should be {_wanted(error)}. Change it."


def _place(parts: Sequence[int | str]) -> str:
    """Write where a value stands for people, who count from 1: "plan, phase 1: epoch", "data.mean, entry 3"."""
    words = ""
    for before, part in pairwise(("", *parts)):
        if isinstance(part, int):
            words += f", {'phase' if before == 'plan' else 'entry'} {part + 1}"
        else:
            words += f"{': ' if isinstance(before, int) else '.' if words else ''}{part}"
    return words


def _similar_field(field: str) -> str:
    """Return the field that is spelt much alike, or has this name in another section; "" for none."""
    sections = {name: info.annotation for name, info in RunConfig.model_fields.items()}
    names = [
        f"{section}.{name}"
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, _Section)
        for name in kind.model_fields
    ]
    own_name = field.rpartition(".")[2]
    elsewhere = [name for name in names if name.rpartition(".")[2] == own_name]
    return next(iter((*elsewhere, *difflib.get_close_matches(field, [*names, *sections], n=1, cutoff=0.8))), "")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"


def _wanted(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind.startswith("int_"):
        return "a whole number"
    if kind.startswith("float_") or kind == "finite_number":
        return "a number"
    if kind == "string_too_long":
        return f"at most {error['ctx']['max_length']} characters long"
    if kind in {"too_short", "too_long"}:
        return "three numbers, for red, green and blue"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "a section with fields"
    return error["msg"].removeprefix("Input should be ")
