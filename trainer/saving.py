"""Saving beside the steps: a checkpoint is copied between two of them, and one thread makes it durable."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from trainer.checkpoints import CheckpointError, CheckpointStore, DiskFullError, size_of
from trainer.file_writer import FileWriter
from trainer.messages.base import Event
from trainer.messages.events import CheckpointSaved, CommandRejected
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

ASKED_FOR = frozenset({"user", "stop"})
"""The reasons of checkpoints whose failure is an answer: whoever asked may ask again. The others are tried again."""
_OVERHEAD_BYTES = 1_000_000


@dataclass(eq=False)
class PendingSave:
    """A checkpoint on its way to the disk.

    ``content`` and ``model_state`` are copies of the run's; ``info`` has no size and no hash before the file is
    durable. ``is_done`` is set when that, or ``error``, is so.
    """

    info: CheckpointInfo
    content: dict[str, Any]
    model_state: dict[str, Tensor]
    confusion: ConfusionMatrix | None
    command_id: str
    is_awaited: bool
    error: ValueError | None = None
    is_done: threading.Event = field(default_factory=threading.Event)

    @property
    def is_to_be_retried(self) -> bool:
        """Whether it failed, and the run must not go on without it."""
        return self.is_done.is_set() and self.error is not None and self.info.reason not in ASKED_FOR


class Saver:
    """Writes a run's checkpoints on the writer's thread, one at a time.

    One that could not be written stays in memory as it was, and is tried again.
    """

    def __init__(
        self,
        folder: RunFolder,
        store: CheckpointStore,
        writer: FileWriter,
        emit: Callable[[Event], None],
    ) -> None:
        self._folder = folder
        self._store = store
        self._writer = writer
        self._emit = emit
        self._pending: PendingSave | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one is being written, or waits to be tried again."""
        return self._pending is not None and (not self._pending.is_done.is_set() or self._pending.is_to_be_retried)

    @property
    def pending_name(self) -> str | None:
        """Return the name of the checkpoint that is to be durable soon."""
        return self._pending.info.name if self._pending is not None and self.is_busy else None

    def check(self) -> None:
        """Tell whether the last one failed, without waiting.

        Raises:
            CheckpointError: It did; ``settle`` tries it again.
            RunFolderError: As above; its row could not be written.

        """
        if self._pending is not None and self._pending.is_to_be_retried:
            assert self._pending.error is not None
            raise self._pending.error

    def wait(self) -> None:
        """Return when nothing is being written, whatever became of it."""
        if self._pending is not None:
            self._pending.is_done.wait()

    def settle(self) -> None:
        """Return when the last one is durable. One that had failed is tried again.

        Raises:
            CheckpointError: It cannot be written; it stays in memory.
            RunFolderError: As above; its row cannot be written.

        """
        self.wait()
        if self._pending is not None and self._pending.is_to_be_retried:
            self._put(self._pending)
            self.wait()
        self.check()
        self._pending = None

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
        if save.error is not None and save.info.reason in ASKED_FOR and not save.is_awaited:
            self._emit(CommandRejected(command="SaveCheckpoint", reason=str(save.error), command_id=save.command_id))
        save.is_done.set()

    def _write_durably(self, save: PendingSave) -> None:
        # Compared here and not between two steps: that reads the whole model.
        content = {**save.content, "model_state_dict": self._store.changed(save.model_state)}
        try:
            size_bytes, sha256 = self._store.write(self._folder.checkpoints_dir / save.info.name, content)
            info = save.info.model_copy(update={"size_bytes": size_bytes, "sha256": sha256})
            self._folder.add_checkpoint(info, save.confusion)
        except (CheckpointError, RunFolderError) as error:
            needed_bytes = round(size_of(content) * 1.1) + _OVERHEAD_BYTES
            if shutil.disk_usage(self._folder.path).free < needed_bytes and save.info.reason not in ASKED_FOR:
                raise DiskFullError(
                    f"{error} The run goes on by itself when {needed_bytes / 1e6:,.0f} MB are free.", needed_bytes
                ) from error
            raise
        save.info = info
        self._emit(CheckpointSaved(checkpoint=info, command_id=save.command_id))
