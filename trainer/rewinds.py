"""The states just before each change of a live run, kept in memory and in files so that the run can go back there."""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from trainer.checkpoints import BaseError, CheckpointError, CheckpointStore, size_of
from trainer.config import TrainingConfig
from trainer.file_writer import FileWriter
from trainer.messages.base import Event
from trainer.messages.events import LogWritten, RewindsKept
from trainer.messages.run_info import RewindInfo
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

FREE_TIMES = 10
"""How many times its size must be free on the disk before a state is written: checkpoints matter more."""


class RewindError(ValueError):
    """A state that is not kept, with the sentence for the user."""


@dataclass(frozen=True)
class UndoneRewind:
    """What a rewind or a restore did, of the state before it: where to, and what could be gone back to before that.

    ``segment`` is the piece of the curve that it began, at ``step``.
    """

    segment: int
    step: int
    changes: Collection[int]


@dataclass(eq=False)
class KeptState:
    """A state of the run, and the change that it came before: a rewind or a restore where ``undone`` is not None.

    ``content`` is as a checkpoint has it, of the model what differs from the run's start; None where only the file has
    it. There is a file once ``info`` has its hash.
    """

    info: RewindInfo
    content: dict[str, Any] | None
    undone: UndoneRewind | None = None
    num_bytes: int = field(init=False)
    """What it takes of memory, counted once: with hundreds kept, all of them anew would take longer than a step."""

    def __post_init__(self) -> None:
        self.num_bytes = self.info.size_bytes if self.content is None else size_of(self.content)

    @property
    def is_written(self) -> bool:
        """Whether the file has it."""
        return bool(self.info.sha256)


class Rewinds:
    """The kept states, oldest first: each is in memory, in a file, or in both, as far as the two budgets go.

    Each is written as it comes, on the writer's thread. In memory and on the disk the oldest make room for new ones.
    Those that the run has gone back behind are kept as long as that rewind can be undone: until another change.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: RunFolder,
        store: CheckpointStore,
        writer: FileWriter,
        emit: Callable[[Event], None],
    ) -> None:
        self._memory_bytes = round(config.rewind_gb * 1e9)
        self._disk_bytes = round(config.rewind_disk_gb * 1e9)
        self._folder = folder
        self._store = store
        self._emit = emit
        self._states: list[KeptState] = []
        self._line: set[int] = set()
        """The changes that led to where the run is now."""
        self._writing: KeptState | None = None
        self._told: set[str] = set()
        self._writer = writer
        # The states are the training thread's, but for what the writer's thread says of their files.
        self._lock = threading.RLock()

    def load(self) -> None:
        """Find the states in files that an earlier worker of the run left; ``go_to`` says which are of use."""
        infos = [info for info in self._folder.rewinds() if _size_of_file(self._path(info)) == info.size_bytes]
        self._states = [KeptState(info, None) for info in infos]
        names = {self._path(info).name for info in infos}
        for path in self._folder.rewinds_dir.glob("*"):
            if path.name not in names:
                # A kill before it had its row left it.
                path.unlink(missing_ok=True)

    # -- keeping ----------------------------------------------------------------------------------------------

    @property
    def keeps_any(self) -> bool:
        """Whether there is a budget."""
        return bool(self._memory_bytes or self._disk_bytes)

    def has_room(self, num_bytes: int) -> bool:
        """Tell whether a state of this size can be kept. Where it cannot, that is said once."""
        if num_bytes <= self._memory_bytes:
            return True
        with self._lock:
            is_one_waiting = any(state.content is not None and self._is_large(state) for state in self._states)
        if num_bytes > self._disk_bytes:
            reason = (
                f"it takes {num_bytes / 1e9:.3g} GB, and rewind_gb is {self._memory_bytes / 1e9:g}, rewind_disk_gb "
                f"{self._disk_bytes / 1e9:g}"
            )
            self._tell_once("large", f"The state before a change is not kept for a rewind: {reason}.")
        elif is_one_waiting:
            text = "the one before is still being written, and rewind_gb has no room for it"
            self._tell_once("slow", f"The state before a change is not kept for a rewind: {text}.")
        else:
            return True
        return False

    def keep(self, state: KeptState) -> None:
        """Keep the state before a change, which ``has_room``. Rewinds before it cannot be undone any more."""
        with self._lock:
            self._forget_undone()
            self._line.add(state.info.change)
            self._add(state)
            self._emit(self.event())

    # -- going back and forth ---------------------------------------------------------------------------------

    @property
    def changes(self) -> list[int]:
        """Return the changes that can be gone back before from here, by their numbers."""
        with self._lock:
            return [state.info.change for state in self._states if self._is_on_line(state)]

    def find(self, change: int | None, step: int | None) -> KeptState:
        """Return the state before a change, or before the first one at a step; the newest if neither is given.

        Raises:
            RewindError: It is not kept.

        """
        with self._lock:
            kept = [state for state in self._states if self._is_on_line(state)]
        if change is not None:
            found = [state for state in kept if state.info.change == change]
        elif step is not None:
            found = [state for state in kept if state.info.step == step]
        else:
            found = kept[-1:]
        if found:
            return found[0]
        if not kept:
            raise RewindError("No state is kept to go back to: no change led here whose state before it is kept.")
        listed = "; ".join(f"before the change at step {s.info.step:,} ({s.info.sentence})" for s in kept)
        raise RewindError(f"That state is not kept. What is: {listed}. Further back lie checkpoints.")

    def find_undone(self) -> tuple[KeptState, UndoneRewind]:
        """Return the state before the last rewind or restore, and what that did.

        Raises:
            RewindError: It is not kept.

        """
        with self._lock:
            for state in reversed(self._states):
                if state.undone is not None:
                    return state, state.undone
        raise RewindError("No rewind can be undone: there was none, or the run was changed since.")

    def read(self, state: KeptState) -> dict[str, Any]:
        """Return the content of a state, with a whole model; nothing of it is shared with what is kept.

        Raises:
            BaseError: The run's ``base.pt`` is missing or damaged.
            CheckpointError: Its own file is; it is not kept any longer then.

        """
        content = state.content
        if content is not None:
            # load_state_dict of an optimizer takes the tensors themselves; that of a model copies them.
            beside_model = {key: value for key, value in content.items() if key != "model_state_dict"}
            return {**copy.deepcopy(beside_model), "model_state_dict": self._store.whole(content["model_state_dict"])}
        try:
            return self._store.read(
                self._path(state.info), state.info.sha256, f"The state before {state.info.sentence}"
            )
        except BaseError:
            raise
        except CheckpointError:
            with self._lock:
                self._remove(state)
                self._emit(self.event())
            raise

    def go_forth(self, state: KeptState, undone: UndoneRewind) -> None:
        """Take it that the run is again where it was before a rewind."""
        with self._lock:
            self._line = set(undone.changes)
            # Not the rewinds before that one: they can be undone in turn.
            self._states.remove(state)
            self._delete_later(state)
            self._prune()

    def go_to(self, changes: Collection[int], left: KeptState | None = None) -> bool:
        """Take it that the run has gone back to a state to which ``changes`` led. Returns whether others are kept.

        ``left`` is the state before that, None where none is kept, so that going back cannot be undone.
        """
        with self._lock:
            before = self._states[:]
            had_line = self.changes
            self._line = set(changes)
            if left is None:
                self._forget_undone()
            else:
                self._add(left)
            return before != self._states or had_line != self.changes

    def event(self) -> RewindsKept:
        """Say which are kept."""
        with self._lock:
            undone = [state.info.step for state in self._states if state.undone is not None]
            return RewindsKept(
                changes=self.changes,
                num_bytes=sum(state.num_bytes for state in self._states if state.content is not None),
                budget_bytes=self._memory_bytes,
                disk_bytes=sum(state.info.size_bytes for state in self._states if state.is_written),
                disk_budget_bytes=self._disk_bytes,
                undo_step=undone[-1] if undone else None,
            )

    # -- inside -----------------------------------------------------------------------------------------------

    def _is_on_line(self, state: KeptState) -> bool:
        return state.undone is None and state.info.change in self._line

    def _is_large(self, state: KeptState) -> bool:
        """Tell whether memory holds it only until it is written."""
        return state.num_bytes > self._memory_bytes

    def _add(self, state: KeptState) -> None:
        self._states.append(state)
        if state.num_bytes <= self._disk_bytes:
            self._writer.put(partial(self._write, state))
        self._make_room()

    def _make_room(self) -> None:
        in_memory = [state for state in self._states if state.content is not None]
        held = sum(state.num_bytes for state in in_memory if not self._is_large(state))
        for state in in_memory:
            if self._is_large(state):
                state.content = None if state.is_written else state.content
            elif held > self._memory_bytes and state is not self._writing:
                held -= state.num_bytes
                if state.is_written:
                    state.content = None
                else:
                    # No file is allowed, or the disk is slower than the changes come.
                    self._remove(state)
        in_files = [state for state in self._states if state.is_written]
        written = sum(state.info.size_bytes for state in in_files)
        for state in in_files:
            if written <= self._disk_bytes:
                break
            written -= state.info.size_bytes
            if state.content is None:
                self._remove(state)
            else:
                state.info = state.info.model_copy(update={"sha256": ""})
                self._delete_later(state)
        self._prune()

    def _forget_undone(self) -> None:
        for state in [kept for kept in self._states if kept.undone is not None]:
            self._remove(state)
        self._prune()

    def _prune(self) -> None:
        """Forget what neither led here nor to where an undone rewind would lead."""
        wanted = self._line.union(*(state.undone.changes for state in self._states if state.undone is not None))
        for state in [kept for kept in self._states if kept.undone is None and kept.info.change not in wanted]:
            self._remove(state)

    def _remove(self, state: KeptState) -> None:
        if state not in self._states:
            return
        position = self._states.index(state)
        self._states.remove(state)
        self._delete_later(state)
        if state.undone is not None:
            # Rewinds are undone in turn: those before it are out of reach.
            for older in [kept for kept in self._states[:position] if kept.undone is not None]:
                self._remove(older)

    def _delete_later(self, state: KeptState) -> None:
        # After its writing, if that waits or is under way.
        if self._disk_bytes:
            self._writer.put(partial(self._delete, state.info))

    # -- the writer's thread ----------------------------------------------------------------------------------

    def _write(self, state: KeptState) -> None:
        with self._lock:
            content = state.content
            if state not in self._states or content is None:
                return
            self._writing = state
        failure = ""
        try:
            info = self._written(state, content)
        except (CheckpointError, RunFolderError, OSError) as error:
            failure = str(error)
        with self._lock:
            self._writing = None
            if not failure:
                state.info = info
            elif self._is_large(state) and state in self._states:
                self._remove(state)
            self._make_room()
            self._emit(self.event())
        if failure:
            self._delete(state.info)
            text = "The state before a change is not kept in a file for a rewind; memory keeps what it has room for."
            self._tell_once("disk", f"{text} {failure}")

    def _written(self, state: KeptState, content: dict[str, Any]) -> RewindInfo:
        path = self._path(state.info)
        path.parent.mkdir(exist_ok=True)
        free_bytes = shutil.disk_usage(path.parent).free
        if state.num_bytes * FREE_TIMES > free_bytes:
            raise CheckpointError(
                f"It takes {state.num_bytes / 1e9:.3g} GB, and the disk has {free_bytes / 1e9:.3g} GB free: "
                f"{FREE_TIMES} times its size must be, so that checkpoints have room."
            )
        size_bytes, sha256 = self._store.write(path, content)
        info = state.info.model_copy(update={"size_bytes": size_bytes, "sha256": sha256})
        if state.undone is None:
            # A rewind cannot be undone by a later worker, which goes on from a checkpoint.
            self._folder.keep_rewind(info)
        return info

    def _delete(self, info: RewindInfo) -> None:
        try:
            self._folder.forget_rewind(info.change)
            self._path(info).unlink(missing_ok=True)
        except (RunFolderError, OSError) as error:
            self._tell_once("delete", f"A state that is of no use any more could not be deleted. {error}")

    def _path(self, info: RewindInfo) -> Path:
        return self._folder.rewinds_dir / f"before_{info.change:06d}.pt"

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._emit(LogWritten(level="warning", text=text))


def _size_of_file(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
