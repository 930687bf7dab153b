"""What a live run tells of how it goes: measurements that gather from step to step, sent when it is time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import psutil
import torch
from torch import Tensor

from trainer.advisor import AdviceInput
from trainer.layer_norms import LayerNorms
from trainer.messages.base import Event
from trainer.messages.events import MetricsLogged, ProgressReported
from trainer.messages.run_info import Series
from trainer.metrics import LEARNING_RATE, TRAIN_LOSS, StepMetrics
from trainer.pace import Pace

if TYPE_CHECKING:
    from trainer.live_run import LiveRun

FLUSH_INTERVAL_S = 0.05
PROGRESS_INTERVAL_S = 0.25

Phase = Literal["train", "validation"]


class Reporter:
    """Gathers what the steps of a run measure, and sends it with the run's progress.

    Attributes:
        metrics: Of the steps since the last flush.
        layer_norms: Of an update now and then.
        pace: Of the most recent steps.
        advice: What advice is based on, since what learns was changed last.

    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        are_right: Callable[[Tensor, Tensor], Tensor],
        emit: Callable[[Event], None],
    ) -> None:
        self.metrics = StepMetrics(are_right)
        self.layer_norms = LayerNorms(optimizer)
        self.pace = Pace()
        self.advice = AdviceInput()
        self._optimizer, self._are_right = optimizer, are_right
        self._emit = emit
        self._process = psutil.Process()

    def report(self, run: LiveRun, phase: Phase, *, force: bool = False) -> None:
        """Send the metrics that have gathered, and the progress, if it is time (or ``force``)."""
        now = time.perf_counter()
        is_progress_due = force or now - self.pace.reported_at >= PROGRESS_INTERVAL_S
        # Before anything is sent: beside the thread that records it, a look at the memory takes a millisecond.
        progress = self._progress(run, phase) if is_progress_due else None
        if force or now - self.pace.flushed_at >= FLUSH_INTERVAL_S:
            self.pace.flushed_at = now
            self.flush(run)
        if progress is not None:
            self.pace.reported_at = now
            self._emit(progress)

    def flush(self, run: LiveRun) -> None:
        """Send the metrics that have gathered."""
        series = self.metrics.flush()
        if not series:
            return
        series[LEARNING_RATE] = Series(steps=[run.step], values=[run.rates.applied])
        self.advice.take_losses(series[TRAIN_LOSS].values)
        self.log(run, series)
        stats = self.layer_norms.take()
        if stats is not None:
            self.advice.take_norms(stats)
            self._emit(stats)

    def log(self, run: LiveRun, series: dict[str, Series]) -> None:
        """Send measurements, by tag."""
        self._emit(MetricsLogged(segment=run.segment, series=series))

    def forget(self) -> None:
        """Begin anew: the steps before and after a change cost differently, and a pace over both would tell neither."""
        self.pace.forget()
        self.advice = AdviceInput()

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Send and keep nothing of the steps that are made inside."""
        metrics, layer_norms = self.metrics, self.layer_norms
        self.metrics, self.layer_norms = StepMetrics(self._are_right), LayerNorms(self._optimizer)
        try:
            yield
        finally:
            self.metrics, self.layer_norms = metrics, layer_norms

    def _progress(self, run: LiveRun, phase: Phase) -> ProgressReported:
        return ProgressReported(
            epoch=run.epoch,
            num_epochs=run.num_epochs,
            step=run.step,
            total_steps=run.total_steps,
            samples_per_s=self.pace.samples_per_s,
            seconds_left=self.pace.seconds_left(run.total_steps - run.step, run.num_epochs - run.epoch),
            step_ms=self.pace.step_s * 1000,
            worker_bytes=self._process.memory_info().rss,
            phase=phase,
            num_epochs_no_better=run.early_stopping.num_epochs,
            patience=run.early_stopping.patience,
            cached_share=run.features.known_share(run.epoch),
            num_compiled=0 if run.compilation is None else run.compilation.num_graphs,
            is_compile_limit_reached=run.compilation is not None and run.compilation.is_at_limit,
        )
