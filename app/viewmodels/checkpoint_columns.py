"""The columns of the checkpoint table: how each is headed, what its cells show, and by what they are sorted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication

from app.checkpoint_filter import SHARES
from app.viewmodels.checkpoint_run import CheckpointRun
from app.viewmodels.quantities import (
    MISSING,
    ago_text,
    count_text,
    measure_text,
    moment_text,
    number_text,
    percent_text,
    rate_text,
    signed_text,
    size_text,
)
from trainer.messages.run_info import CheckpointInfo

STAR, EPOCH, STEP, LOSS, ACCURACY, FROZEN, SIZE, SAVED, TAGS, RATE, RUN, PARENT = range(12)
NUM_COLUMNS = 12
"""Of every run. Those of further metrics follow, as checkpoints come that have them."""

KEYS = ("star", "epoch", "step", "loss", "accuracy", "frozen", "size", "saved", "tags", "rate", "run", "parent")
"""Their names in the settings."""
NUMBERS = frozenset({EPOCH, STEP, LOSS, ACCURACY, SIZE, RATE})
OF_COLUMNS = frozenset({"Loss", "Accuracy"})
"""The metrics that have a column in every run."""

SortKey = Callable[[CheckpointRun, CheckpointInfo], Any]


def headings() -> tuple[str, ...]:
    """Return the headings of the columns of every run."""
    translate = QCoreApplication.translate
    return (
        "",
        translate("Checkpoints", "Epoch"),
        translate("Checkpoints", "Step"),
        translate("Checkpoints", "Loss"),
        translate("Checkpoints", "Accuracy"),
        translate("Checkpoints", "Frozen"),
        translate("Checkpoints", "Size"),
        translate("Checkpoints", "Saved"),
        translate("Checkpoints", "Tags"),
        translate("Checkpoints", "Rate"),
        translate("Checkpoints", "Run"),
        translate("Checkpoints", "Parent"),
    )


def metric_name(tag: str) -> str:
    """Return the metric of a tag: "Loss" of "Loss/validation"."""
    return tag.partition("/")[0]


def metric_heading(tag: str) -> str:
    """Return what a metric is called in a heading."""
    name = metric_name(tag)
    words = {
        "Loss": QCoreApplication.translate("Checkpoints", "Loss"),
        "Accuracy": QCoreApplication.translate("Checkpoints", "Accuracy"),
        "Top-5 accuracy": QCoreApplication.translate("Checkpoints", "Top-5"),
        "F1": QCoreApplication.translate("Checkpoints", "F1"),
        "AUROC": QCoreApplication.translate("Checkpoints", "AUROC"),
        "Mean AP": QCoreApplication.translate("Checkpoints", "Mean AP"),
    }
    return words.get(name, name)


def value_text(tag: str, value: float | None) -> str:
    """Write a metric's value."""
    return percent_text(value) if metric_name(tag) in SHARES else number_text(value, _decimals(tag))


def difference_text(tag: str, difference: float) -> str:
    """Write by how much a metric differs: "−0.0487", and of a share "+0.5 points", which are not per cent of it."""
    is_share = metric_name(tag) in SHARES
    size, decimals = (100 * abs(difference), 1) if is_share else (abs(difference), _decimals(tag))
    # A small difference is not none.
    text = measure_text(size) if size and not round(size, decimals) else number_text(size, decimals)
    text = signed_text(text, difference)
    return QCoreApplication.translate("Checkpoints", "{} points").format(text) if is_share else text


def _decimals(tag: str) -> int:
    return 4 if metric_name(tag) == "Loss" else 3


def sort_key(column: int, tag: str) -> SortKey:
    """Return what gives the key of a cell, None where it has no value; ``tag`` is the metric of a column of one."""
    match column:
        case 0:
            return lambda run, info: info.name == run.best_name
        case 1:
            return lambda _, info: info.epoch
        case 2:
            return lambda _, info: info.step
        case 3:
            return lambda _, info: _finite(info.loss)
        case 4:
            return lambda _, info: _finite(info.accuracy)
        case 5:
            return lambda _, info: info.frozen_summary.casefold() or None
        case 6:
            return lambda _, info: info.size_bytes
        case 7:
            return lambda _, info: info.saved_at
        case 8:
            return lambda run, info: ", ".join(run.tags_of(info)).casefold() or None
        case 9:
            return lambda _, info: info.rate
        case 10:
            return lambda run, _: run.path.name
        case 11:
            return lambda run, _: run.origin.casefold() or None
        case _:
            return lambda _, info: _finite(info.metrics.get(tag))


def cell_text(run: CheckpointRun, info: CheckpointInfo, column: int, tag: str) -> str:
    """Return what a cell shows."""
    match column:
        case 0:
            return ""
        case 1:
            return count_text(info.epoch)
        case 2:
            return count_text(info.step)
        case 3:
            return number_text(info.loss, 4)
        case 4:
            return percent_text(info.accuracy)
        case 5:
            return info.frozen_summary
        case 6:
            return size_text(info.size_bytes)
        case 7:
            return ago_text(time.time() - info.saved_at)
        case 8:
            return ", ".join(run.tags_of(info))
        case 9:
            return MISSING if info.rate is None else rate_text(info.rate)
        case 10:
            return run.title
        case 11:
            return run.origin or MISSING
        case _:
            return value_text(tag, info.metrics.get(tag))


def cell_tooltip(run: CheckpointRun, info: CheckpointInfo, column: int, tag: str) -> str:
    """Return what more there is to say of a cell."""
    match column:
        case 3:
            return "" if info.loss is None else repr(info.loss)
        case 4:
            return "" if info.accuracy is None else repr(info.accuracy)
        case 5:
            return ", ".join(info.frozen)
        case 6:
            return QCoreApplication.translate("Checkpoints", "{} bytes").format(count_text(info.size_bytes))
        case 7:
            return moment_text(info.saved_at)
        case 0 | 8:
            why = run.problems.get(info.name) or (run.best_sentence if info.name == run.best_name else "")
            return "\n".join(each for each in (why, info.note) if each) or info.name
        case 10:
            return str(run.path)
        case 11:
            branch = None if run.config is None else run.config.branch
            return "" if branch is None else str(Path(branch.run) / "checkpoints" / branch.checkpoint)
        case _ if column >= NUM_COLUMNS:
            value = info.metrics.get(tag)
            return "" if value is None else repr(value)
        case _:
            return run.problems.get(info.name) or info.name


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
