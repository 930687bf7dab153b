"""What is read of a run: its curves, its record for a view, its row in a list, its worker's address."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from trainer.config import Metric, RunConfig
from trainer.messages.changes import LayersFrozen, LayersUnfrozen
from trainer.messages.events import AnyEvent, LayerStatsReported
from trainer.messages.run_info import CheckpointInfo, RunInfo
from trainer.messages.states import RunState


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


@dataclass
class Curve:
    """One tag's points along the run as it went on, and what was left behind, by the piece that began then."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    abandoned: dict[int, tuple[array[int], array[float]]] = field(default_factory=dict)
    _segment: int = 0

    def go_on(self, pieces: Sequence[tuple[int, int | None]], segment: int) -> None:
        """Begin the pieces up to ``segment``: of each, where it starts, and which one it undoes, if any."""
        for number in range(self._segment + 1, segment + 1):
            start_step, undoes = pieces[number]
            if undoes is None:
                self._cut_after(start_step, number)
            else:
                self._cut_after(pieces[undoes][0], number)
                steps, values = self.abandoned.pop(undoes, (array("q"), array("d")))
                self.steps.extend(steps)
                self.values.extend(values)
        self._segment = max(self._segment, segment)

    def _cut_after(self, step: int, segment: int) -> None:
        keep = len(self.steps)
        while keep and self.steps[keep - 1] > step:
            keep -= 1
        if keep < len(self.steps):
            self.abandoned[segment] = self.steps[keep:], self.values[keep:]
            del self.steps[keep:], self.values[keep:]


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
    segment: int
    curves: dict[str, Curve]
    checkpoints: list[CheckpointInfo]
    freeze_events: list[LayersFrozen | LayersUnfrozen]
    log: list[AnyEvent]
    last_event_id: int
    layer_stats: LayerStatsReported | None = None

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


def metric_word(tag: str) -> str:
    """Return the name of a metric within a sentence: "loss" of the tag "Loss/validation", but "AUROC" as it is."""
    name = tag.partition("/")[0]
    return name if name.isupper() else name[:1].lower() + name[1:]


def metrics_text(values: dict[str, float]) -> str:
    """Write a split's metrics by tag as one line: "loss 0.2014, accuracy 0.9310, F1 0.9282"."""
    return ", ".join(f"{metric_word(tag)} {value:.4f}" for tag, value in values.items())


def best_metric(config: RunConfig, info: RunInfo | None) -> Metric:
    """Return by what a run's best checkpoint is told; ``info`` is None where it was never prepared."""
    return config.training.best_metric(config.training.patience) if info is None else info.best_metric


def best_checkpoint(listed: list[CheckpointInfo], metric: Metric) -> CheckpointInfo | None:
    """Return the first checkpoint with the lowest validation loss, or with the highest accuracy, or None."""
    ranked = [(rank, position) for position, info in enumerate(listed) if (rank := checkpoint_rank(info, metric))]
    return listed[min(ranked)[-1]] if ranked else None


def checkpoint_rank(info: CheckpointInfo, metric: Metric) -> tuple[float, float] | None:
    """Return what is the lower the better a checkpoint is: by a metric, among equals by the other one.

    One that was not validated, or with a NaN, has no rank.
    """
    if info.loss is None or info.accuracy is None or math.isnan(info.loss) or math.isnan(info.accuracy):
        return None
    return (info.loss, -info.accuracy) if metric == "loss" else (-info.accuracy, info.loss)
