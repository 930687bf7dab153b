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
        "data.split_column": QCoreApplication.translate("RunForm", "Splits in"),
        "data.group_column": QCoreApplication.translate("RunForm", "Groups in"),
        "model.name": QCoreApplication.translate("RunForm", "Model"),
        "model.weights": QCoreApplication.translate("RunForm", "Weights"),
        "plan": QCoreApplication.translate("RunForm", "Plan"),
        "optimizer.name": QCoreApplication.translate("RunForm", "Optimizer"),
        "optimizer.rate": QCoreApplication.translate("RunForm", "Rate"),
        "optimizer.schedule": QCoreApplication.translate("RunForm", "Schedule"),
        "optimizer.weight_decay": QCoreApplication.translate("RunForm", "Decay"),
        "optimizer.momentum": QCoreApplication.translate("RunForm", "Momentum"),
        "training.epochs": QCoreApplication.translate("RunForm", "Epochs"),
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
        "data.validation_fraction": QCoreApplication.translate("RunForm", "Validation"),
    }
    return labels[field]


def section_title(section: str) -> str:
    """Return the heading of a section of the form."""
    titles = {
        "data": QCoreApplication.translate("RunForm", "Data"),
        "model": QCoreApplication.translate("RunForm", "Model"),
        "training": QCoreApplication.translate("RunForm", "Training"),
        "columns": QCoreApplication.translate("RunForm", "Columns of the table"),
        "images": QCoreApplication.translate("RunForm", "Images"),
        "more": QCoreApplication.translate("RunForm", "More"),
    }
    return titles[section]


def choice_text(value: str) -> str:
    """Return the words for a value that is chosen from a list; most values are words themselves."""
    words = {
        "class_folders": QCoreApplication.translate("RunForm", "class folders"),
        "split_folders": QCoreApplication.translate("RunForm", "train and val folders"),
        "table": QCoreApplication.translate("RunForm", "table"),
        "file_names": QCoreApplication.translate("RunForm", "file names"),
        "class_weights": QCoreApplication.translate("RunForm", "class weights"),
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
