"""What is read of a run: its curves, its record for a view, its row in a list, its worker's address."""

from __future__ import annotations

import itertools
import json
import math
import os
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trainer.config import Metric, RunConfig
from trainer.lineage import Lineage
from trainer.messages.changes import LayersFrozen, LayersUnfrozen
from trainer.messages.events import AnyEvent, LayerStatsReported
from trainer.messages.run_info import CheckpointInfo, RunInfo
from trainer.messages.states import RunState
from trainer.validation_metrics import METRIC_TAGS


class RunFolderError(ValueError):
    """A run folder that cannot be made, read or used, with the sentence for the user."""


@dataclass(frozen=True)
class WorkerAddress:
    """Where a run's worker listens, as ``worker.json`` holds it. ``key`` authenticates a client."""

    address: str
    key: bytes
    pid: int
    started_at: float

    @property
    def is_alive(self) -> bool:
        """Whether that very process still runs (a later process with the same id started at another time)."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started_at) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    @classmethod
    def read(cls, run_dir: Path) -> WorkerAddress | None:
        """Return where the living worker of a run listens, or None. That of a run is not that of its folder's copy."""
        try:
            values = json.loads((run_dir / "worker.json").read_text(encoding="utf-8"))
            worker = cls(values["address"], bytes.fromhex(values["key"]), values["pid"], values["started_at"])
            is_copy = _is_copy(run_dir, values)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return worker if worker.is_alive and not is_copy else None

    def write(self, run_dir: Path) -> None:
        """Say in a run's folder where its worker listens, readable by the user alone."""
        values = {
            "address": self.address,
            "key": self.key.hex(),
            "pid": self.pid,
            "started_at": self.started_at,
            "run_dir": str(run_dir.resolve()),
            "inode": run_dir.stat().st_ino,
        }
        path = run_dir / "worker.json"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(values))


def _is_copy(run_dir: Path, values: dict[str, Any]) -> bool:
    """Tell whether the folder of an address is a copy of the one that it was written for, which is where it was."""
    if "run_dir" not in values or values.get("inode") == run_dir.stat().st_ino:
        # It keeps its number where it is moved on its disk.
        return False
    served = Path(values["run_dir"])
    return served.is_dir() and not served.samefile(run_dir)


@dataclass
class Curve:
    """One tag's points along the line that led to where the run is, and by piece what it left behind.

    ``num_points`` counts the line's points of each piece, in their order.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    abandoned: dict[int, tuple[array[int], array[float]]] = field(default_factory=dict)
    num_points: dict[int, int] = field(default_factory=dict)

    @classmethod
    def along(cls, lineage: Lineage, measured: Mapping[int, tuple[array[int], array[float]]]) -> Curve:
        """Put together what the pieces of a run have measured of a tag."""
        curve, last_steps = cls(), dict(lineage.path())
        new = {number: _only_new(lineage, measured, number) for number in measured}
        for number in [*last_steps, *(left for left in measured if left not in last_steps)]:
            steps, values = new.get(number, (array("q"), array("d")))
            keep = bisect_right(steps, last_steps.get(number, -1))
            if keep:
                curve.steps.extend(steps[:keep])
                curve.values.extend(values[:keep])
                curve.num_points[number] = keep
            if keep < len(steps):
                curve.abandoned[number] = steps[keep:], values[keep:]
        return curve


def _only_new(
    lineage: Lineage, measured: Mapping[int, tuple[array[int], array[float]]], number: int
) -> tuple[array[int], array[float]]:
    """Return what a piece measured after all that had led to it: a step may be validated again after a restore."""
    steps, values = measured[number]
    first = 0
    for before, last_step in itertools.islice(lineage.way_back(number), 1, None):
        earlier = measured[before][0] if before in measured else array("q")
        if keep := bisect_right(earlier, last_step):
            first = bisect_right(steps, earlier[keep - 1])
            break
    return steps[first:], values[first:]


@dataclass(frozen=True)
class RunRecord:
    """Everything a view shows of a run, read from its folder in one go."""

    path: Path
    config: RunConfig
    state: RunState
    was_interrupted: bool
    sentence: str
    info: RunInfo | None
    step: int
    epoch: int
    lineage: Lineage
    curves: dict[str, Curve]
    checkpoints: list[CheckpointInfo]
    freeze_events: list[LayersFrozen | LayersUnfrozen]
    log: list[AnyEvent]
    last_event_id: int
    layer_stats: LayerStatsReported | None = None

    @property
    def segment(self) -> int:
        """Return the number of the present piece of the curve."""
        return self.lineage.segment

    @property
    def best_metric(self) -> Metric:
        """Return by what the run's best checkpoint is told."""
        return best_metric(self.config, self.info)


@dataclass(frozen=True)
class RunListing:
    """One row of the list of runs."""

    path: Path
    title: str
    model: str
    state: RunState
    is_live: bool
    was_interrupted: bool
    epoch: int
    num_epochs: int
    step: int
    best_accuracy: float | None
    created_at: float
    problem: str = ""
    parent: Path | None = None
    """The folder of the run that it branches from, as it was then."""
    branched_from: str = ""
    """The checkpoint that it branches from, in words."""


@dataclass(frozen=True)
class RunCheckpoints:
    """What a table of several runs shows of one of them: its checkpoints, oldest first, and what tells them apart.

    ``problems`` says by name what is wrong with a checkpoint's file, ``left_behind`` names those that the run has gone
    back behind, ``resume_point`` that from which it would go on; ``damage`` says why nothing of the run can be read,
    and ``config`` is None then. ``fingerprint`` stands for the checkpoints where two readings are compared.
    """

    path: Path
    config: RunConfig | None
    metric: Metric = "accuracy"
    checkpoints: list[CheckpointInfo] = field(default_factory=list, compare=False)
    problems: dict[str, str] = field(default_factory=dict)
    left_behind: set[str] = field(default_factory=set)
    resume_point: str | None = None
    damage: str = ""
    fingerprint: int = 0


def metric_word(tag: str) -> str:
    """Return the name of a metric within a sentence: "loss" of the tag "Loss/validation", but "AUROC" as it is."""
    name = tag.partition("/")[0]
    return name if name.isupper() else name[:1].lower() + name[1:]


def metrics_text(values: dict[str, float]) -> str:
    """Write a split's metrics by tag as one line: "loss 0.2014, accuracy 0.9310, F1 0.9282"."""
    return ", ".join(f"{metric_word(tag)} {value:.4f}" for tag, value in values.items())


def best_word(metric: Metric) -> str:
    """Return what a metric is called where the best checkpoint is told by it: "accuracy", "F1"."""
    return metric_word(METRIC_TAGS[metric])


def best_metric(config: RunConfig, info: RunInfo | None) -> Metric:
    """Return by what a run's best checkpoint is told; ``info`` is None where it was never prepared."""
    return config.best_metric(config.training.patience) if info is None else info.best_metric


def best_checkpoint(listed: list[CheckpointInfo], metric: Metric) -> CheckpointInfo | None:
    """Return the first checkpoint with the lowest validation loss, or with the highest of another metric, or None."""
    ranked = [(rank, position) for position, info in enumerate(listed) if (rank := checkpoint_rank(info, metric))]
    return listed[min(ranked)[-1]] if ranked else None


def checkpoint_rank(info: CheckpointInfo, metric: Metric) -> tuple[float, float] | None:
    """Return what is the lower the better a checkpoint is: by a metric, among equals by the loss, or by accuracy.

    One that was not validated, or with a NaN, or without that metric, has no rank.
    """
    value, loss, accuracy = metric_value(info, metric), info.loss, info.accuracy
    if value is None or loss is None or accuracy is None:
        return None
    if math.isnan(value) or math.isnan(loss) or math.isnan(accuracy):
        return None
    return (loss, -accuracy) if metric == "loss" else (-value, loss)


def metric_value(info: CheckpointInfo, metric: Metric) -> float | None:
    """Return what validation measured of a checkpoint, None where it did not."""
    if metric == "loss":
        return info.loss
    return info.accuracy if metric == "accuracy" else info.metrics.get(METRIC_TAGS[metric])
