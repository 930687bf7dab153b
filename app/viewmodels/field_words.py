"""The words of the run form: its fields, the values that are chosen from a list, and the splits of the data."""

from __future__ import annotations

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

# Translated when they are read: there is no translator yet as this is imported.

_LABELS: dict[str, object] = {
    "name": QT_TRANSLATE_NOOP("RunForm", "Name"),
    "data.path": QT_TRANSLATE_NOOP("RunForm", "Path"),
    "data.layout": QT_TRANSLATE_NOOP("RunForm", "Layout"),
    "data.path_column": QT_TRANSLATE_NOOP("RunForm", "Paths in"),
    "data.label_column": QT_TRANSLATE_NOOP("RunForm", "Classes in"),
    "data.label_separator": QT_TRANSLATE_NOOP("RunForm", "Separator"),
    "data.split_column": QT_TRANSLATE_NOOP("RunForm", "Splits in"),
    "data.group_column": QT_TRANSLATE_NOOP("RunForm", "Groups in"),
    "data.task": QT_TRANSLATE_NOOP("RunForm", "Task"),
    "model.name": QT_TRANSLATE_NOOP("RunForm", "Model"),
    "model.weights": QT_TRANSLATE_NOOP("RunForm", "Weights"),
    "model.head": QT_TRANSLATE_NOOP("RunForm", "Head"),
    "model.head_dropout": QT_TRANSLATE_NOOP("RunForm", "Dropout"),
    "model.head_hidden": QT_TRANSLATE_NOOP("RunForm", "Hidden units"),
    "plan": QT_TRANSLATE_NOOP("RunForm", "Plan"),
    "optimizer.name": QT_TRANSLATE_NOOP("RunForm", "Optimizer"),
    "optimizer.rate": QT_TRANSLATE_NOOP("RunForm", "Rate"),
    "optimizer.schedule": QT_TRANSLATE_NOOP("RunForm", "Schedule"),
    "optimizer.weight_decay": QT_TRANSLATE_NOOP("RunForm", "Decay"),
    "optimizer.momentum": QT_TRANSLATE_NOOP("RunForm", "Momentum"),
    "optimizer.nesterov": QT_TRANSLATE_NOOP("RunForm", "Nesterov"),
    "optimizer.warmup_epochs": QT_TRANSLATE_NOOP("RunForm", "Warm-up"),
    "optimizer.decay_factor": QT_TRANSLATE_NOOP("RunForm", "Lower by"),
    "optimizer.decay_epochs": QT_TRANSLATE_NOOP("RunForm", "After"),
    "optimizer.clip_norm": QT_TRANSLATE_NOOP("RunForm", "Clip norm"),
    "optimizer.ramp_steps": QT_TRANSLATE_NOOP("RunForm", "Ramp"),
    "optimizer.state_on_unfreeze": QT_TRANSLATE_NOOP("RunForm", "Old state"),
    "training.label_smoothing": QT_TRANSLATE_NOOP("RunForm", "Soft labels"),
    "model.batchnorm": QT_TRANSLATE_NOOP("RunForm", "BatchNorm"),
    "training.accumulate_batches": QT_TRANSLATE_NOOP("RunForm", "Per step"),
    "training.advisor": QT_TRANSLATE_NOOP("RunForm", "Advice"),
    "training.epochs": QT_TRANSLATE_NOOP("RunForm", "Epochs"),
    "training.patience": QT_TRANSLATE_NOOP("RunForm", "Patience"),
    "training.stop_metric": QT_TRANSLATE_NOOP("RunForm", "Watches"),
    "training.min_change": QT_TRANSLATE_NOOP("RunForm", "Better by"),
    "training.restore_best": QT_TRANSLATE_NOOP("RunForm", "Keep best"),
    "training.batch_size": QT_TRANSLATE_NOOP("RunForm", "Batch"),
    "training.precision": QT_TRANSLATE_NOOP("RunForm", "Precision"),
    "training.channels_last": QT_TRANSLATE_NOOP("RunForm", "Chan. last"),
    "training.compile": QT_TRANSLATE_NOOP("RunForm", "Compile"),
    "training.device": QT_TRANSLATE_NOOP("RunForm", "Device"),
    "training.deterministic": QT_TRANSLATE_NOOP("RunForm", "Repeatable"),
    "training.seed": QT_TRANSLATE_NOOP("RunForm", "Seed"),
    "data.image_size": QT_TRANSLATE_NOOP("RunForm", "Image size"),
    "data.resize_size": QT_TRANSLATE_NOOP("RunForm", "Resized to"),
    "data.mean": QT_TRANSLATE_NOOP("RunForm", "Mean"),
    "data.std": QT_TRANSLATE_NOOP("RunForm", "Deviation"),
    "data.augmentation": QT_TRANSLATE_NOOP("RunForm", "Augment"),
    "data.views": QT_TRANSLATE_NOOP("RunForm", "Views"),
    "data.mixing": QT_TRANSLATE_NOOP("RunForm", "Mixing"),
    "data.balance": QT_TRANSLATE_NOOP("RunForm", "Balance"),
    "data.cache_gb": QT_TRANSLATE_NOOP("RunForm", "Cache, GB"),
    "training.feature_cache": QT_TRANSLATE_NOOP("RunForm", "Features"),
    "training.feature_precision": QT_TRANSLATE_NOOP("RunForm", "Kept"),
    "training.feature_memory_gb": QT_TRANSLATE_NOOP("RunForm", "Features, GB"),
    "training.feature_disk_gb": QT_TRANSLATE_NOOP("RunForm", "On disk, GB"),
    "training.rewind_gb": QT_TRANSLATE_NOOP("RunForm", "Rewind, GB"),
    "training.rewind_disk_gb": QT_TRANSLATE_NOOP("RunForm", "On disk, GB"),
    "data.validation_fraction": QT_TRANSLATE_NOOP("RunForm", "Validation"),
    "checkpoints.keep_last": QT_TRANSLATE_NOOP("RunForm", "Keep last"),
    "checkpoints.keep_best": QT_TRANSLATE_NOOP("RunForm", "Keep best"),
    "checkpoints.best_metric": QT_TRANSLATE_NOOP("RunForm", "Best by"),
    "checkpoints.every_epochs": QT_TRANSLATE_NOOP("RunForm", "Every nth"),
    "checkpoints.before_changes": QT_TRANSLATE_NOOP("RunForm", "At changes"),
    "checkpoints.every_minutes": QT_TRANSLATE_NOOP("RunForm", "Minutes"),
    "checkpoints.disk_gb": QT_TRANSLATE_NOOP("RunForm", "Disk, GB"),
    "checkpoints.self_contained": QT_TRANSLATE_NOOP("RunForm", "Whole files"),
}
_TIPS: dict[str, object] = {
    "model.head": QT_TRANSLATE_NOOP(
        "RunForm",
        "Where the task's own layers go: in place of the model's last layer, or after its 1,000 outputs, which "
        "keeps that layer",
    ),
    "model.head_dropout": QT_TRANSLATE_NOOP(
        "RunForm", "Share of the values that the head drops before each of its layers, 0 to 1"
    ),
    "model.head_hidden": QT_TRANSLATE_NOOP("RunForm", "Units of a hidden layer in the head; empty: none"),
    "data.label_column": QT_TRANSLATE_NOOP(
        "RunForm", "The column of classes; or one column of 0 and 1 for each class, with commas between their names"
    ),
    "data.label_separator": QT_TRANSLATE_NOOP(
        "RunForm",
        "What stands between the classes of an image in its cell; none: a cell is one class. With a separator, an "
        "empty cell is an image of no class",
    ),
    "data.task": QT_TRANSLATE_NOOP(
        "RunForm",
        "Which of the classes an image is, with an output for each; which of two, with one output; or all that it "
        "shows, with a yes or no for each: then accuracy counts the images of which each class is right",
    ),
    "training.label_smoothing": QT_TRANSLATE_NOOP(
        "RunForm", "Label smoothing: what of each target is spread over all classes, 0 to 1; in training only"
    ),
    "training.advisor": QT_TRANSLATE_NOOP(
        "RunForm", "Whether the next freeze or unfreeze is proposed, or made, or neither; never during a plan"
    ),
    "optimizer.nesterov": QT_TRANSLATE_NOOP("RunForm", "Whether the momentum is Nesterov's"),
    "optimizer.warmup_epochs": QT_TRANSLATE_NOOP("RunForm", "Epochs over which the rate rises from 0 first"),
    "optimizer.decay_factor": QT_TRANSLATE_NOOP("RunForm", "What the rate is multiplied by at each step down"),
    "optimizer.decay_epochs": QT_TRANSLATE_NOOP(
        "RunForm", "Epochs to the next step down; on a plateau, those without a lower validation loss"
    ),
    "optimizer.clip_norm": QT_TRANSLATE_NOOP(
        "RunForm", "Largest norm of the whole gradient: longer ones are shortened"
    ),
    "training.patience": QT_TRANSLATE_NOOP("RunForm", "Epochs without a better validation after which the run ends"),
    "training.stop_metric": QT_TRANSLATE_NOOP("RunForm", "What the patience watches on validation"),
    "training.min_change": QT_TRANSLATE_NOOP(
        "RunForm", "How much better an epoch must be to count; an accuracy goes from 0 to 1"
    ),
    "training.precision": QT_TRANSLATE_NOOP(
        "RunForm",
        "Arithmetic of the forward pass; weights are fp32 in any. auto takes the fastest by a short measurement, "
        "unless the run is to be repeatable or has fewer than 100 steps",
    ),
    "training.channels_last": QT_TRANSLATE_NOOP(
        "RunForm",
        "Whether the weights of convolutions have the channels of a pixel side by side; auto: where it is faster",
    ),
    "training.compile": QT_TRANSLATE_NOOP(
        "RunForm",
        "Whether the model goes through torch.compile: each change of what learns compiles it again, which takes up "
        "to minutes",
    ),
    "training.deterministic": QT_TRANSLATE_NOOP(
        "RunForm",
        "Whether only operators are used that give the same to the bit each time: on a GPU a resume is exact with it "
        "alone, and some models cannot be trained",
    ),
    "training.restore_best": QT_TRANSLATE_NOOP(
        "RunForm", "Whether a run that the patience ends is put back to its best checkpoint"
    ),
    "training.accumulate_batches": QT_TRANSLATE_NOOP(
        "RunForm", "Batches whose gradients make one step, as one large batch would"
    ),
    "data.views": QT_TRANSLATE_NOOP(
        "RunForm",
        "Augmented views of each training image, which come in turn while the layers before them are frozen: their "
        "features are computed once for each. Empty takes as many as the augmentation needs (light 2, standard and "
        "strong 8), 0 has a new view in every epoch, and every epoch computes it",
    ),
    "training.feature_cache": QT_TRANSLATE_NOOP(
        "RunForm",
        "Whether what the frozen layers give for an image is computed once and kept, where it can be, or again in "
        "every epoch",
    ),
    "training.feature_precision": QT_TRANSLATE_NOOP(
        "RunForm", "How cached features are kept: as they are computed, or in 16 bits, for half the room"
    ),
    "training.feature_memory_gb": QT_TRANSLATE_NOOP(
        "RunForm", "Memory of the worker for cached features; empty takes up to a quarter of what is free"
    ),
    "training.feature_disk_gb": QT_TRANSLATE_NOOP(
        "RunForm",
        "Disk for the cached features of all runs, so that later runs find them; empty takes what the disk can spare, "
        "0 keeps none there",
    ),
    "training.rewind_gb": QT_TRANSLATE_NOOP(
        "RunForm", "Memory of the worker for the states before each change, to go back to; 0 keeps none there"
    ),
    "training.rewind_disk_gb": QT_TRANSLATE_NOOP(
        "RunForm",
        "Files of the states before each change: more of them are kept, and they outlast the worker; 0 writes none",
    ),
    "checkpoints.keep_last": QT_TRANSLATE_NOOP(
        "RunForm",
        "How many of the newest checkpoints are kept; all, where this and the next two are empty. Pinned ones and "
        "those saved by hand always are",
    ),
    "checkpoints.keep_best": QT_TRANSLATE_NOOP(
        "RunForm", "How many of the best are kept, by what tells the best one, which always is"
    ),
    "checkpoints.best_metric": QT_TRANSLATE_NOOP(
        "RunForm",
        "By what of validation the best checkpoint is told; auto: by what the patience watches, or by accuracy",
    ),
    "checkpoints.every_epochs": QT_TRANSLATE_NOOP("RunForm", "Every how many epochs one is kept for good"),
    "checkpoints.before_changes": QT_TRANSLATE_NOOP(
        "RunForm", "Whether the last checkpoint before each freeze or unfreeze is kept"
    ),
    "checkpoints.every_minutes": QT_TRANSLATE_NOOP(
        "RunForm",
        "Minutes after which one is saved within an epoch, so that a crash loses no more; only the newest of these "
        "is kept",
    ),
    "checkpoints.disk_gb": QT_TRANSLATE_NOOP(
        "RunForm",
        "Disk that the run's checkpoints may take. Near it older ones go, those first that no rule keeps",
    ),
    "checkpoints.self_contained": QT_TRANSLATE_NOOP(
        "RunForm", "Whether each file holds the whole model, and not only what differs from base.pt"
    ),
    "optimizer.ramp_steps": QT_TRANSLATE_NOOP("RunForm", "Steps over which the rate of an unfrozen layer rises from 0"),
    "optimizer.state_on_unfreeze": QT_TRANSLATE_NOOP(
        "RunForm", "The optimizer's state of a layer that is unfrozen; auto drops it after an epoch or more"
    ),
    "model.batchnorm": QT_TRANSLATE_NOOP(
        "RunForm", "What the statistics of a frozen BatchNorm do: freeze with its weights, or adapt to the data"
    ),
}
_SECTION_TITLES: dict[str, object] = {
    "data": QT_TRANSLATE_NOOP("RunForm", "Data"),
    "model": QT_TRANSLATE_NOOP("RunForm", "Model"),
    "training": QT_TRANSLATE_NOOP("RunForm", "Training"),
    "columns": QT_TRANSLATE_NOOP("RunForm", "Columns of the table"),
    "images": QT_TRANSLATE_NOOP("RunForm", "Task, head and images"),
    "optimizer": QT_TRANSLATE_NOOP("RunForm", "Optimizer and rate"),
    "checkpoints": QT_TRANSLATE_NOOP("RunForm", "Checkpoints"),
    "more": QT_TRANSLATE_NOOP("RunForm", "More"),
}
_CHOICES: dict[str, object] = {
    "class_folders": QT_TRANSLATE_NOOP("RunForm", "class folders"),
    "split_folders": QT_TRANSLATE_NOOP("RunForm", "train and val folders"),
    "splits_in_classes": QT_TRANSLATE_NOOP("RunForm", "splits in classes"),
    "table": QT_TRANSLATE_NOOP("RunForm", "table"),
    "file_names": QT_TRANSLATE_NOOP("RunForm", "file names"),
    "replace": QT_TRANSLATE_NOOP("RunForm", "replace last layer"),
    "append": QT_TRANSLATE_NOOP("RunForm", "append a layer"),
    "multi_class": QT_TRANSLATE_NOOP("RunForm", "one of several"),
    "binary": QT_TRANSLATE_NOOP("RunForm", "one of two"),
    "multi_label": QT_TRANSLATE_NOOP("RunForm", "any of several"),
    ";": QT_TRANSLATE_NOOP("RunForm", "semicolon"),
    "|": QT_TRANSLATE_NOOP("RunForm", "bar"),
    ",": QT_TRANSLATE_NOOP("RunForm", "comma"),
    "class_weights": QT_TRANSLATE_NOOP("RunForm", "class weights"),
    "same": QT_TRANSLATE_NOOP("RunForm", "as computed"),
    "half": QT_TRANSLATE_NOOP("RunForm", "in 16 bits"),
    "top5_accuracy": QT_TRANSLATE_NOOP("RunForm", "top-5 accuracy"),
    "f1": QT_TRANSLATE_NOOP("RunForm", "F1"),
    "auroc": QT_TRANSLATE_NOOP("RunForm", "AUROC"),
    "mean_ap": QT_TRANSLATE_NOOP("RunForm", "mean AP"),
    "one_cycle": QT_TRANSLATE_NOOP("RunForm", "one cycle"),
    "True": QT_TRANSLATE_NOOP("RunForm", "yes"),
    "False": QT_TRANSLATE_NOOP("RunForm", "no"),
}
_SPLITS: dict[str, object] = {
    "train": QT_TRANSLATE_NOOP("RunForm", "train"),
    "validation": QT_TRANSLATE_NOOP("RunForm", "validation"),
    "test": QT_TRANSLATE_NOOP("RunForm", "test"),
}


def field_label(field: str) -> str:
    """Return the label of a field."""
    return _translated(_LABELS[field])


def field_tip(field: str) -> str:
    """Return what a field means and its unit, where the label has no room for that; "" where it says all."""
    return _translated(_TIPS.get(field, ""))


def section_title(section: str) -> str:
    """Return the heading of a section of the form."""
    return _translated(_SECTION_TITLES[section])


def choice_text(value: str) -> str:
    """Return the words for a value that is chosen from a list; most values are words themselves."""
    return _translated(_CHOICES.get(value, value))


def split_text(split: str) -> str:
    """Return the word for a split."""
    return _translated(_SPLITS[split])


def _translated(words: object) -> str:
    # PySide6 does not say that what QT_TRANSLATE_NOOP returns is its text.
    return QCoreApplication.translate("RunForm", str(words)) if words else ""
