"""The words of the run form: its fields, the values that are chosen from a list, and the splits of the data."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication


def field_label(field: str) -> str:
    """Return the label of a field."""
    labels = {
        "name": QCoreApplication.translate("RunForm", "Name"),
        "data.path": QCoreApplication.translate("RunForm", "Path"),
        "data.layout": QCoreApplication.translate("RunForm", "Layout"),
        "data.path_column": QCoreApplication.translate("RunForm", "Paths in"),
        "data.label_column": QCoreApplication.translate("RunForm", "Classes in"),
        "data.label_separator": QCoreApplication.translate("RunForm", "Separator"),
        "data.split_column": QCoreApplication.translate("RunForm", "Splits in"),
        "data.group_column": QCoreApplication.translate("RunForm", "Groups in"),
        "data.task": QCoreApplication.translate("RunForm", "Task"),
        "model.name": QCoreApplication.translate("RunForm", "Model"),
        "model.weights": QCoreApplication.translate("RunForm", "Weights"),
        "model.head": QCoreApplication.translate("RunForm", "Head"),
        "model.head_dropout": QCoreApplication.translate("RunForm", "Dropout"),
        "model.head_hidden": QCoreApplication.translate("RunForm", "Hidden units"),
        "plan": QCoreApplication.translate("RunForm", "Plan"),
        "optimizer.name": QCoreApplication.translate("RunForm", "Optimizer"),
        "optimizer.rate": QCoreApplication.translate("RunForm", "Rate"),
        "optimizer.schedule": QCoreApplication.translate("RunForm", "Schedule"),
        "optimizer.weight_decay": QCoreApplication.translate("RunForm", "Decay"),
        "optimizer.momentum": QCoreApplication.translate("RunForm", "Momentum"),
        "optimizer.nesterov": QCoreApplication.translate("RunForm", "Nesterov"),
        "optimizer.warmup_epochs": QCoreApplication.translate("RunForm", "Warm-up"),
        "optimizer.decay_factor": QCoreApplication.translate("RunForm", "Lower by"),
        "optimizer.decay_epochs": QCoreApplication.translate("RunForm", "After"),
        "optimizer.clip_norm": QCoreApplication.translate("RunForm", "Clip norm"),
        "optimizer.ramp_steps": QCoreApplication.translate("RunForm", "Ramp"),
        "optimizer.state_on_unfreeze": QCoreApplication.translate("RunForm", "Old state"),
        "training.label_smoothing": QCoreApplication.translate("RunForm", "Soft labels"),
        "model.batchnorm": QCoreApplication.translate("RunForm", "BatchNorm"),
        "training.accumulate_batches": QCoreApplication.translate("RunForm", "Per step"),
        "training.advisor": QCoreApplication.translate("RunForm", "Advice"),
        "training.epochs": QCoreApplication.translate("RunForm", "Epochs"),
        "training.patience": QCoreApplication.translate("RunForm", "Patience"),
        "training.stop_metric": QCoreApplication.translate("RunForm", "Watches"),
        "training.min_change": QCoreApplication.translate("RunForm", "Better by"),
        "training.restore_best": QCoreApplication.translate("RunForm", "Keep best"),
        "training.batch_size": QCoreApplication.translate("RunForm", "Batch"),
        "training.precision": QCoreApplication.translate("RunForm", "Precision"),
        "training.device": QCoreApplication.translate("RunForm", "Device"),
        "training.seed": QCoreApplication.translate("RunForm", "Seed"),
        "data.image_size": QCoreApplication.translate("RunForm", "Image size"),
        "data.resize_size": QCoreApplication.translate("RunForm", "Resized to"),
        "data.mean": QCoreApplication.translate("RunForm", "Mean"),
        "data.std": QCoreApplication.translate("RunForm", "Deviation"),
        "data.augmentation": QCoreApplication.translate("RunForm", "Augment"),
        "data.mixing": QCoreApplication.translate("RunForm", "Mixing"),
        "data.balance": QCoreApplication.translate("RunForm", "Balance"),
        "data.cache_gb": QCoreApplication.translate("RunForm", "Cache, GB"),
        "training.rewind_gb": QCoreApplication.translate("RunForm", "Rewind, GB"),
        "training.rewind_disk_gb": QCoreApplication.translate("RunForm", "On disk, GB"),
        "data.validation_fraction": QCoreApplication.translate("RunForm", "Validation"),
        "checkpoints.keep_last": QCoreApplication.translate("RunForm", "Keep last"),
        "checkpoints.keep_best": QCoreApplication.translate("RunForm", "Keep best"),
        "checkpoints.every_epochs": QCoreApplication.translate("RunForm", "Every nth"),
        "checkpoints.before_changes": QCoreApplication.translate("RunForm", "At changes"),
        "checkpoints.every_minutes": QCoreApplication.translate("RunForm", "Minutes"),
        "checkpoints.disk_gb": QCoreApplication.translate("RunForm", "Disk, GB"),
        "checkpoints.self_contained": QCoreApplication.translate("RunForm", "Whole files"),
    }
    return labels[field]


def field_tip(field: str) -> str:
    """Return what a field means and its unit, where the label has no room for that; "" where it says all."""
    tips = {
        "model.head": QCoreApplication.translate(
            "RunForm",
            "Where the task's own layers go: in place of the model's last layer, or after its 1,000 outputs, which "
            "keeps that layer",
        ),
        "model.head_dropout": QCoreApplication.translate(
            "RunForm", "Share of the values that the head drops before each of its layers, 0 to 1"
        ),
        "model.head_hidden": QCoreApplication.translate("RunForm", "Units of a hidden layer in the head; empty: none"),
        "data.label_column": QCoreApplication.translate(
            "RunForm", "The column of classes; or one column of 0 and 1 for each class, with commas between their names"
        ),
        "data.label_separator": QCoreApplication.translate(
            "RunForm",
            "What stands between the classes of an image in its cell; none: a cell is one class. With a separator, an "
            "empty cell is an image of no class",
        ),
        "data.task": QCoreApplication.translate(
            "RunForm",
            "Which of the classes an image is, with an output for each; which of two, with one output; or all that it "
            "shows, with a yes or no for each: then accuracy counts the images of which each class is right",
        ),
        "training.label_smoothing": QCoreApplication.translate(
            "RunForm", "Label smoothing: what of each target is spread over all classes, 0 to 1; in training only"
        ),
        "training.advisor": QCoreApplication.translate(
            "RunForm", "Whether the next freeze or unfreeze is proposed, or made, or neither; never during a plan"
        ),
        "optimizer.nesterov": QCoreApplication.translate("RunForm", "Whether the momentum is Nesterov's"),
        "optimizer.warmup_epochs": QCoreApplication.translate(
            "RunForm", "Epochs over which the rate rises from 0 first"
        ),
        "optimizer.decay_factor": QCoreApplication.translate(
            "RunForm", "What the rate is multiplied by at each step down"
        ),
        "optimizer.decay_epochs": QCoreApplication.translate(
            "RunForm", "Epochs to the next step down; on a plateau, those without a lower validation loss"
        ),
        "optimizer.clip_norm": QCoreApplication.translate(
            "RunForm", "Largest norm of the whole gradient: longer ones are shortened"
        ),
        "training.patience": QCoreApplication.translate(
            "RunForm", "Epochs without a better validation after which the run ends"
        ),
        "training.stop_metric": QCoreApplication.translate("RunForm", "What the patience watches on validation"),
        "training.min_change": QCoreApplication.translate(
            "RunForm", "How much better an epoch must be to count; an accuracy goes from 0 to 1"
        ),
        "training.restore_best": QCoreApplication.translate(
            "RunForm", "Whether a run that the patience ends is put back to its best checkpoint"
        ),
        "training.accumulate_batches": QCoreApplication.translate(
            "RunForm", "Batches whose gradients make one step, as one large batch would"
        ),
        "training.rewind_gb": QCoreApplication.translate(
            "RunForm", "Memory of the worker for the states before each change, to go back to; 0 keeps none there"
        ),
        "training.rewind_disk_gb": QCoreApplication.translate(
            "RunForm",
            "Files of the states before each change: more of them are kept, and they outlast the worker; 0 writes none",
        ),
        "checkpoints.keep_last": QCoreApplication.translate(
            "RunForm",
            "How many of the newest checkpoints are kept; all, where this and the next two are empty. Pinned ones and "
            "those saved by hand always are",
        ),
        "checkpoints.keep_best": QCoreApplication.translate(
            "RunForm", "How many of the best are kept, by what tells the best one, which always is"
        ),
        "checkpoints.every_epochs": QCoreApplication.translate("RunForm", "Every how many epochs one is kept for good"),
        "checkpoints.before_changes": QCoreApplication.translate(
            "RunForm", "Whether the last checkpoint before each freeze or unfreeze is kept"
        ),
        "checkpoints.every_minutes": QCoreApplication.translate(
            "RunForm",
            "Minutes after which one is saved within an epoch, so that a crash loses no more; only the newest of these "
            "is kept",
        ),
        "checkpoints.disk_gb": QCoreApplication.translate(
            "RunForm",
            "Disk that the run's checkpoints may take. Near it older ones go, those first that no rule keeps",
        ),
        "checkpoints.self_contained": QCoreApplication.translate(
            "RunForm", "Whether each file holds the whole model, and not only what differs from base.pt"
        ),
        "optimizer.ramp_steps": QCoreApplication.translate(
            "RunForm", "Steps over which the rate of an unfrozen layer rises from 0"
        ),
        "optimizer.state_on_unfreeze": QCoreApplication.translate(
            "RunForm", "The optimizer's state of a layer that is unfrozen; auto drops it after an epoch or more"
        ),
        "model.batchnorm": QCoreApplication.translate(
            "RunForm", "What the statistics of a frozen BatchNorm do: freeze with its weights, or adapt to the data"
        ),
    }
    return tips.get(field, "")


def section_title(section: str) -> str:
    """Return the heading of a section of the form."""
    titles = {
        "data": QCoreApplication.translate("RunForm", "Data"),
        "model": QCoreApplication.translate("RunForm", "Model"),
        "training": QCoreApplication.translate("RunForm", "Training"),
        "columns": QCoreApplication.translate("RunForm", "Columns of the table"),
        "images": QCoreApplication.translate("RunForm", "Task, head and images"),
        "optimizer": QCoreApplication.translate("RunForm", "Optimizer and rate"),
        "checkpoints": QCoreApplication.translate("RunForm", "Checkpoints"),
        "more": QCoreApplication.translate("RunForm", "More"),
    }
    return titles[section]


def choice_text(value: str) -> str:
    """Return the words for a value that is chosen from a list; most values are words themselves."""
    words = {
        "class_folders": QCoreApplication.translate("RunForm", "class folders"),
        "split_folders": QCoreApplication.translate("RunForm", "train and val folders"),
        "splits_in_classes": QCoreApplication.translate("RunForm", "splits in classes"),
        "table": QCoreApplication.translate("RunForm", "table"),
        "file_names": QCoreApplication.translate("RunForm", "file names"),
        "replace": QCoreApplication.translate("RunForm", "replace last layer"),
        "append": QCoreApplication.translate("RunForm", "append a layer"),
        "multi_class": QCoreApplication.translate("RunForm", "one of several"),
        "binary": QCoreApplication.translate("RunForm", "one of two"),
        "multi_label": QCoreApplication.translate("RunForm", "any of several"),
        ";": QCoreApplication.translate("RunForm", "semicolon"),
        "|": QCoreApplication.translate("RunForm", "bar"),
        ",": QCoreApplication.translate("RunForm", "comma"),
        "class_weights": QCoreApplication.translate("RunForm", "class weights"),
        "one_cycle": QCoreApplication.translate("RunForm", "one cycle"),
        "True": QCoreApplication.translate("RunForm", "yes"),
        "False": QCoreApplication.translate("RunForm", "no"),
    }
    return words.get(value, value)


def split_text(split: str) -> str:
    """Return the word for a split."""
    words = {
        "train": QCoreApplication.translate("RunForm", "train"),
        "validation": QCoreApplication.translate("RunForm", "validation"),
        "test": QCoreApplication.translate("RunForm", "test"),
    }
    return words[split]
