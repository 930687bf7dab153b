"""The fields of the run form: which there are, in which section, and what sort of value each has."""

from __future__ import annotations

COLUMN_FIELDS = ("data.path_column", "data.label_column", "data.split_column", "data.group_column")
"""The fields that name a column of a table of images."""

TABLE_FIELDS = (
    "data.path_column",
    "data.label_column",
    "data.label_separator",
    "data.split_column",
    "data.group_column",
)
"""The fields that only a table of images has."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "data": ("data.path", "data.layout", "data.validation_fraction"),
    "model": ("model.name", "model.weights", "plan"),
    "training": (
        "training.epochs",
        "training.batch_size",
        "optimizer.name",
        "optimizer.rate",
    ),
    "columns": TABLE_FIELDS,
    "images": (
        "data.task",
        "training.label_smoothing",
        "model.head",
        "model.head_dropout",
        "model.head_hidden",
        "data.augmentation",
        "data.views",
        "data.mixing",
        "data.balance",
        "data.image_size",
        "data.resize_size",
        "data.mean",
        "data.std",
    ),
    "optimizer": (
        "optimizer.schedule",
        "optimizer.weight_decay",
        "optimizer.momentum",
        "optimizer.nesterov",
        "optimizer.warmup_epochs",
        "optimizer.decay_factor",
        "optimizer.decay_epochs",
        "optimizer.clip_norm",
        "training.accumulate_batches",
        "optimizer.ramp_steps",
        "optimizer.state_on_unfreeze",
        "model.batchnorm",
    ),
    "checkpoints": (
        "checkpoints.keep_last",
        "checkpoints.keep_best",
        "checkpoints.best_metric",
        "checkpoints.every_epochs",
        "checkpoints.before_changes",
        "checkpoints.every_minutes",
        "checkpoints.disk_gb",
        "checkpoints.self_contained",
    ),
    "more": (
        "training.patience",
        "training.stop_metric",
        "training.min_change",
        "training.restore_best",
        "training.advisor",
        "training.precision",
        "training.channels_last",
        "training.compile",
        "training.device",
        "training.deterministic",
        "training.seed",
        "data.cache_gb",
        "training.feature_cache",
        "training.feature_precision",
        "training.feature_memory_gb",
        "training.feature_disk_gb",
        "training.rewind_gb",
        "training.rewind_disk_gb",
        "name",
    ),
}
"""The sections of the form with their fields: what every run needs first, then what is rarely changed."""

FIELDS = tuple(field for fields in SECTIONS.values() for field in fields)
"""The fields of the form by their dotted names in RunConfig; ``model.frozen`` comes from the model's tree."""

FIELDS_WITHOUT_EDITOR = ("training.num_loader_workers", "training.num_threads", "checkpoints.every_steps")
"""The fields that only a file gives, and that the form keeps as they are."""

CHECKED_FIELDS = ("data.path", "data.layout", *TABLE_FIELDS, "data.validation_fraction", "training.seed")
"""The fields that decide which images a run has and how they are split."""

MODEL_FIELDS = (
    "model.name",
    "model.weights",
    "model.head",
    "model.head_dropout",
    "model.head_hidden",
    "data.image_size",
    "data.task",
)
"""The fields that decide what the model's tree shows."""

TASK_FIELDS = ("data.task", "data.balance", "checkpoints.best_metric")
"""The fields that must go with the classes, and with each other."""

MODEL_FIELDS_THAT_NAME_LAYERS = frozenset(MODEL_FIELDS) - {"model.weights", "data.image_size", "data.task"}
"""The fields with which another model, or another head, is chosen."""

LIVE_FIELDS = {
    "rate": "optimizer.rate",
    "epochs": "training.epochs",
    "patience": "training.patience",
    "plan": "plan",
}
"""The fields that may change as a run goes on, by their names in ``InForce``."""

NUMBERS = frozenset(
    {
        "model.head_dropout",
        "optimizer.rate",
        "optimizer.weight_decay",
        "optimizer.momentum",
        "optimizer.warmup_epochs",
        "optimizer.decay_factor",
        "optimizer.clip_norm",
        "training.min_change",
        "training.rewind_gb",
        "training.rewind_disk_gb",
        "training.feature_memory_gb",
        "training.feature_disk_gb",
        "data.validation_fraction",
        "data.cache_gb",
        "training.label_smoothing",
        "checkpoints.every_minutes",
        "checkpoints.disk_gb",
    }
)
"""The fields whose value is a number that may have decimals."""

ONLY_WITH = {
    "optimizer.momentum": ("optimizer.name", {"SGD", "RMSprop"}),
    "optimizer.nesterov": ("optimizer.name", {"SGD"}),
    "optimizer.warmup_epochs": ("optimizer.schedule", {"constant", "step", "cosine", "plateau"}),
    "optimizer.decay_factor": ("optimizer.schedule", {"step", "plateau"}),
    "optimizer.decay_epochs": ("optimizer.schedule", {"step", "plateau"}),
    "data.views": ("data.augmentation", {"light", "standard", "strong"}),
    "training.feature_precision": ("training.feature_cache", {"auto"}),
    "training.feature_memory_gb": ("training.feature_cache", {"auto"}),
    "training.feature_disk_gb": ("training.feature_cache", {"auto"}),
}
"""The fields that matter with some values of another one only, and are out of sight with others."""

WITH_PATIENCE = ("training.stop_metric", "training.min_change", "training.restore_best")
"""The fields that matter where there is a patience only."""

CHANNELS = frozenset({"data.mean", "data.std"})
"""The fields whose value is a list of three numbers."""

OWN_OF_WEIGHTS = frozenset({"data.image_size", "data.resize_size"}) | CHANNELS
"""The fields that hold, left empty, what the weights were trained with."""

MAY_BE_EMPTY = OWN_OF_WEIGHTS | {
    "data.cache_gb",
    "data.views",
    "training.feature_memory_gb",
    "training.feature_disk_gb",
    "optimizer.clip_norm",
    "model.head_hidden",
    "training.patience",
    "checkpoints.keep_last",
    "checkpoints.keep_best",
    "checkpoints.every_epochs",
    "checkpoints.every_minutes",
    "checkpoints.disk_gb",
}
