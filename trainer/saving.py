"""Saving beside the steps: what moves is copied between two of them, and one thread makes a checkpoint durable."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from trainer.checkpoint_list import delete_checkpoints
from trainer.checkpoints import OVERHEAD_BYTES, CheckpointError, CheckpointStore, DiskFullError, size_of
from trainer.config import CheckpointsConfig, Metric
from trainer.file_writer import FileWriter
from trainer.messages.base import Event
from trainer.messages.events import CheckpointSaved, CommandRejected, FreezeVerified, LogWritten
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix
from trainer.retention import bytes_with_next, superfluous
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

ASKED_FOR = frozenset({"user", "stop"})
"""The reasons of checkpoints whose failure is an answer: whoever asked may ask again. The others are tried again."""


@dataclass(eq=False)
class PendingSave:
    """A checkpoint on its way to the disk.

    ``content`` and ``model_state`` are copies of the run's, but for the ``live`` tensors of the latter, which are
    frozen; ``verify`` says whether what is frozen is as it was frozen. ``info`` has no size and no hash before the file
    is durable. ``is_done`` is set when that, or ``error``, is so.
    """

    info: CheckpointInfo
    content: dict[str, Any]
    model_state: dict[str, Tensor]
    confusion: ConfusionMatrix | None
    verify: Callable[[], FreezeVerified]
    command_id: str
    is_awaited: bool
    live: list[Tensor] = field(default_factory=list)
    error: ValueError | None = None
    is_done: threading.Event = field(default_factory=threading.Event)


class Saver:
    """Writes a run's checkpoints on the writer's thread, one at a time.

    One that could not be written stays in memory as it was, and is tried again.
    """

    def __init__(
        self,
        rules: CheckpointsConfig,
        folder: RunFolder,
        store: CheckpointStore,
        writer: FileWriter,
        emit: Callable[[Event], None],
        best_metric: Callable[[], Metric],
    ) -> None:
        self._rules = rules
        self._best_metric = best_metric
        self._told: set[str] = set()
        self._folder = folder
        self._store = store
        self._writer = writer
        self._emit = emit
        # Let go, with its copy, by the writer's thread once it is durable; one that failed stays.
        self._pending: PendingSave | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one is being written, or waits to be tried again."""
        return self._pending is not None

    @property
    def pending(self) -> CheckpointInfo | None:
        """Return the checkpoint that is to be durable soon."""
        pending = self._pending
        return None if pending is None else pending.info

    def check(self) -> None:
        """Tell whether the last one failed, without waiting.

        Raises:
            CheckpointError: It did; ``settle`` tries it again.
            RunFolderError: As above; its row could not be written.

        """
        pending = self._pending
        if pending is not None and pending.is_done.is_set() and pending.error is not None:
            raise pending.error

    def wait(self) -> None:
        """Return when nothing is being written, whatever became of it."""
        pending = self._pending
        if pending is not None:
            pending.is_done.wait()

    def let_go_of_weights(self) -> None:
        """Return when the weights that were frozen may change: what was to be written is, or has a copy of them.

        The wait for the disk is meant: a copy would take the memory of a second backbone just where a larger part of
        the model begins to learn.
        """
        self.wait()
        pending = self._pending
        if pending is not None:
            # It could not be written, and is tried again.
            for tensor in pending.live:
                tensor.data = tensor.data.clone()
            pending.live.clear()

    def settle(self) -> None:
        """Return when the last one is durable. One that had failed is tried again.

        Raises:
            CheckpointError: It cannot be written; it stays in memory.
            RunFolderError: As above; its row cannot be written.

        """
        self.wait()
        if self._pending is not None:
            self._put(self._pending)
            self.wait()
        self.check()

    def begin(self, save: PendingSave) -> None:
        """Have a checkpoint written soon; the one before must be settled."""
        assert not self.is_busy, "at most one is in flight"
        self._pending = save
        self._put(save)

    def finish(self, save: PendingSave) -> CheckpointInfo:
        """Write a checkpoint, durable when this returns.

        Raises:
            CheckpointError: It cannot be written.
            RunFolderError: Its row cannot be written.

        """
        self.begin(save)
        self.wait()
        if save.error is not None:
            raise save.error
        return save.info

    # -- the writer's thread ----------------------------------------------------------------------------------

    def _put(self, save: PendingSave) -> None:
        save.error = None
        save.is_done.clear()
        self._writer.put(partial(self._write, save))

    def _write(self, save: PendingSave) -> None:
        try:
            self._write_durably(save)
        except (CheckpointError, RunFolderError) as error:
            save.error = error
        except Exception as error:  # noqa: BLE001 (whatever it was, the training thread waits to hear of it)
            save.error = CheckpointError(
                f"Cannot save {save.info.name}: {type(error).__name__}: {error}. Mend that, then go on."
            )
        else:
            self._thin()
        is_given_up = save.error is not None and save.info.reason in ASKED_FOR
        if is_given_up:
            self._store.let_go(save.info.name)
            if not save.is_awaited:
                self._emit(
                    CommandRejected(command="SaveCheckpoint", reason=str(save.error), command_id=save.command_id)
                )
        if save.error is None or is_given_up:
            self._pending = None
        save.is_done.set()

    def _write_durably(self, save: PendingSave) -> None:
        self._emit(save.verify())
        # Compared here and not between two steps: that reads the whole model.
        is_whole = self._rules.self_contained
        model_state = save.model_state if is_whole else self._store.changed(save.model_state)
        content = {**save.content, "model_state_dict": model_state}
        path = self._folder.checkpoints_dir / save.info.name
        try:
            self._folder.checkpoints.begin_saving(save.info)
            size_bytes, sha256 = self._store.write(path, content, is_whole=is_whole)
            info = save.info.model_copy(update={"size_bytes": size_bytes, "sha256": sha256})
            self._folder.checkpoints.add(info, save.confusion, self._rules.best_metrics)
        except (CheckpointError, RunFolderError) as error:
            needed_bytes = round(size_of(content) * 1.1) + OVERHEAD_BYTES
            if shutil.disk_usage(self._folder.path).free < needed_bytes and save.info.reason not in ASKED_FOR:
                raise DiskFullError(str(error), needed_bytes) from error
            raise
        save.info = info
        self._emit(CheckpointSaved(checkpoint=info, command_id=save.command_id))

    def _thin(self) -> None:
        """Delete what no rule keeps, now that the newest one is durable."""
        try:
            listed, point = self._folder.checkpoints.listed(), self._folder.checkpoints.resume_point()
            base_bytes = 0 if not self._folder.base_path.exists() else self._folder.base_path.stat().st_size
            gone = superfluous(
                listed, self._rules, self._best_metric(), None if point is None else point.name, base_bytes
            )
            if gone:
                deleted = delete_checkpoints(self._folder, [info.name for info in gone])
                if deleted.problem:
                    self._tell_once("delete", f"{deleted.problem} It is tried again after the next checkpoint, too.")
                if deleted.names:
                    self._emit(deleted)
            gone_names = {info.name for info in gone}
            self._tell_of_budget([info for info in listed if info.name not in gone_names], base_bytes)
        except (ValueError, OSError) as error:
            # What was saved is saved; the same ones go after the next.
            self._tell_once("thin", f"Checkpoints that no rule keeps could not be deleted. {error}")

    def _tell_of_budget(self, kept: Sequence[CheckpointInfo], base_bytes: int) -> None:
        if self._rules.disk_gb is None or not kept:
            return
        next_bytes, budget_bytes = bytes_with_next(kept, base_bytes), self._rules.disk_gb * 1e9
        taken = f"With the next one the checkpoints take {next_bytes / 1e9:.3g} GB, and disk_gb is"
        if next_bytes > budget_bytes:
            text = (
                f"{taken} {self._rules.disk_gb:g}: those left are the best, the newest, pinned or saved by hand, and "
                "are kept all the same. Raise disk_gb in the next run, or delete some."
            )
            self._tell_once("over budget", text)
        elif next_bytes + kept[-1].size_bytes > budget_bytes:
            text = f"{taken} {self._rules.disk_gb:g}: from then on older ones go, those first that no rule keeps."
            self._tell_once("near budget", text)

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._emit(LogWritten(level="warning", text=text))
