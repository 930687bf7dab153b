"""What a run will need, from a few steps that are thrown away: seconds an epoch, memory, disk."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

import psutil
import torch
from torch import Tensor, nn

from trainer.compute import wait_for
from trainer.data.archive import Progress
from trainer.freezing import FreezeSet
from trainer.loop import Trainer
from trainer.memory import give_memory_back
from trainer.messages.run_info import RunEstimate
from trainer.optim import autocast
from trainer.retention import most_bytes
from trainer.run_list import runs_on
from trainer.schedules import Plan, frozen_after

MAX_STEPS = 4
MAX_SECONDS = 4.0
"""Whichever comes first ends the trial, but one measured step there must be."""
_SAMPLE_INTERVAL_S = 0.01
_STATES_PER_PARAMETER = {"SGD": 0, "Adam": 2, "AdamW": 2, "RMSprop": 1}
_WITH_MOMENTUM = frozenset({"SGD", "RMSprop"})
"""Have one state more where their momentum is not 0."""
_FILE_BYTES_PER_TENSOR = 450
"""A tensor's record in a zip of torch.save, beside its values."""


def check_no_run_uses(device: torch.device, runs_dir: Path) -> None:
    """Refuse a trial on a GPU that a live run uses: it could take the memory that the run's next step needs.

    Raises:
        ValueError: There is such a run; names it.

    """
    users = runs_on(str(device), runs_dir) if device.type == "cuda" else []
    if users:
        raise ValueError(
            f"No trial was made, because the run {users[0]} uses {device} and might miss the memory. Ask again when it "
            "has ended, or choose another device."
        )


def estimate(
    trainer: Trainer, runs_dir: Path, on_progress: Progress, check_cancelled: Callable[[], None]
) -> RunEstimate:
    """Take a few steps, and reckon from them what the whole run needs. The trainer is of no use afterwards.

    Args:
        trainer: A run that has not begun; it has no folder, and gets none.
        runs_dir: Where the run's folder would be.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called between steps; raises to end the trial.

    """
    data, config = trainer.data, trainer.config
    with _PeakMemory(trainer.device) as memory:
        trainer.features.follow()
        step_s = _step_s(trainer, on_progress, check_cancelled)
        validation_batch_s = _validation_batch_s(trainer)
        images_per_s = data.images_per_s.get(0, 0.0)
        if images_per_s:
            # What loader processes had ready beforehand makes the few steps look faster than they go on.
            num_images = config.training.batch_size * config.training.accumulate_batches
            step_s = max(step_s, num_images / images_per_s)
        features = trainer.features.told
        views = 0 if features is None else features.views
        # The same batches again: their features are there by now.
        cached_step_s = _step_s(trainer, on_progress, check_cancelled) if views else step_s
        cached_validation_s = _validation_batch_s(trainer)
    trained = _trained(trainer)
    checkpoint_bytes = _checkpoint_bytes(trainer, trained)
    num_validation_batches = -(-data.num_validation // config.training.batch_size)
    return RunEstimate(
        step_ms=step_s * 1000,
        seconds_per_epoch=step_s * trainer.steps_per_epoch + validation_batch_s * num_validation_batches,
        cached_step_ms=cached_step_s * 1000,
        cached_seconds_per_epoch=cached_step_s * trainer.steps_per_epoch + cached_validation_s * num_validation_batches,
        cached_layers="" if features is None else features.sentence,
        cached_views=views,
        cached_bytes=0 if features is None else features.num_bytes,
        cached_saved_share=0.0 if features is None else features.saved_share,
        not_cached="" if features is None else features.reason,
        unfreezes=trained[-1] > trained[0],
        num_epochs=config.training.epochs,
        memory_bytes=memory.peak_bytes,
        device=str(trainer.device),
        checkpoint_bytes=max(checkpoint_bytes),
        disk_bytes=_kept_bytes(trainer, checkpoint_bytes, step_s) + data.store_bytes,
        kept_bytes=data.store_bytes,
        decoded_bytes=data.all_store_bytes,
        budget_bytes=data.store_budget_bytes,
        free_bytes=_free_bytes(runs_dir),
    )


def _step_s(trainer: Trainer, on_progress: Progress, check_cancelled: Callable[[], None]) -> float:
    """Return the seconds of a training step, its images' loading included."""
    seconds: list[float] = []
    started = time.perf_counter()
    trainer.freeze_set.set_mode(training=True)
    # From the epoch's first batch on, whatever an earlier trial has taken of it.
    trainer.batch = 0
    batches = trainer.features.train_batches(0)
    # The first step allocates and warms up; where there is no other, it must do.
    while len(seconds) < MAX_STEPS and time.perf_counter() - started < MAX_SECONDS:
        check_cancelled()
        on_progress("Trying steps", len(seconds), MAX_STEPS, "steps")
        step_started = time.perf_counter()
        taken = trainer.take_batches(batches)
        if not taken:
            break
        trainer.train_step(taken)
        wait_for(trainer.device)
        seconds.append(time.perf_counter() - step_started)
    check_cancelled()
    return statistics.median(seconds[1:] or seconds)


def _validation_batch_s(trainer: Trainer) -> float:
    """Return the seconds of a batch in validation."""
    trainer.freeze_set.set_mode(training=False)
    started = time.perf_counter()
    with torch.no_grad(), autocast(trainer.precision, trainer.device):
        for batch in trainer.features.validation_batches():
            batch.model(*batch.inputs())
            break
    wait_for(trainer.device)
    return time.perf_counter() - started


def _trained(trainer: Trainer) -> list[set[str]]:
    """Return the atoms that were trained by the end of each epoch."""
    freeze_set = trainer.freeze_set
    frozen, trained = freeze_set.frozen_atoms, set(freeze_set.atoms) - freeze_set.frozen_atoms
    by_epoch: list[set[str]] = []
    plan = Plan(trainer.config.plan)
    for epoch in range(1, trainer.config.training.epochs + 1):
        by_epoch.append(trained)
        # As if validation never got better: the earliest plateau takes the most time and room.
        plan.end_epoch(loss=0.0, accuracy=0.0)
        while phase := plan.due(epoch, epoch * trainer.steps_per_epoch):
            frozen = frozen_after(phase, freeze_set, frozen)
            trained = trained | (set(freeze_set.atoms) - frozen)
            plan.begin_next()
    return by_epoch


def _checkpoint_bytes(trainer: Trainer, trained: Sequence[set[str]]) -> list[int]:
    """Reckon the size of each epoch's checkpoint: what differs from the base by then, and the optimizer's state."""
    optimizer, freeze_set = trainer.config.optimizer, trainer.freeze_set
    has_momentum = optimizer.name in _WITH_MOMENTUM and optimizer.momentum > 0
    num_states = _STATES_PER_PARAMETER[optimizer.name] + has_momentum
    # Only a phase of the plan makes them larger.
    by_count: dict[int, int] = {}
    for atoms in trained:
        if len(atoms) not in by_count:
            size = _size_of(freeze_set, atoms, num_states)
            if trainer.config.checkpoints.self_contained:
                size += _base_bytes(trainer.module) - _size_of(freeze_set, atoms, 0)
            by_count[len(atoms)] = size
    return [by_count[len(atoms)] for atoms in trained]


def _kept_bytes(trainer: Trainer, sizes: list[int], step_s: float) -> int:
    """Reckon what the checkpoints that are kept take at most, with their base and one within an epoch."""
    rules, base_bytes = trainer.config.checkpoints, _base_bytes(trainer.module)
    is_within = rules.every_steps is not None and rules.every_steps < trainer.steps_per_epoch
    if rules.every_minutes is not None and rules.every_minutes * 60 < step_s * trainer.steps_per_epoch:
        is_within = True
    return most_bytes(sizes, rules, base_bytes) + base_bytes + (max(sizes) if is_within else 0)


def _size_of(freeze_set: FreezeSet, trained: set[str], num_states: int) -> int:
    parameters = freeze_set.parameters(trained)
    buffers = freeze_set.buffers(freeze_set.units_of(trained))
    num_tensors = (1 + num_states) * len(parameters) + len(buffers)
    return (1 + num_states) * _bytes_of(parameters) + _bytes_of(buffers) + _FILE_BYTES_PER_TENSOR * num_tensors


def _base_bytes(module: nn.Module) -> int:
    state = module.state_dict()
    return _bytes_of(state.values()) + _FILE_BYTES_PER_TENSOR * len(state)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _free_bytes(folder: Path) -> int:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(existing).free


class _PeakMemory:
    """The most memory that the trial holds: of the device where that is a GPU, else of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Of an earlier trial, with larger batches perhaps.
        give_memory_back()
        self._process = psutil.Process()
        self._is_over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory-sampler", daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> _PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_reserved(self._device)
        else:
            self._is_over.set()
            self._sampler.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
            if self._is_over.wait(_SAMPLE_INTERVAL_S):
                return
