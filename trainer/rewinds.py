"""The states just before each change of a live run, kept in memory so that the run can go back there."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from trainer.messages.events import RewindsKept
from trainer.metrics import Evaluation


class RewindError(ValueError):
    """A state that is not kept, with the sentence for the user."""


@dataclass(frozen=True)
class KeptState:
    """A state of the run, as a checkpoint's content has it, and the change that it came before.

    ``resume_from`` is the checkpoint from which a run that is killed would have gone on then, None for its start.
    ``unsaved`` is the validation of an epoch that was over, but not saved.
    """

    change: int
    sentence: str
    source: str
    content: dict[str, Any]
    resume_from: str | None
    unsaved: Evaluation | None

    @property
    def step(self) -> int:
        """Return the completed optimizer updates."""
        step: int = self.content["step"]
        return step

    @functools.cached_property
    def num_bytes(self) -> int:
        """Return what it takes of memory."""
        # Counted once: with hundreds kept, all of them anew at each change would take longer than a step.
        return size_of(self.content)


class Rewinds:
    """The kept states, oldest first, within a budget: a new one drives out the oldest."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._kept: list[KeptState] = []

    def keep(self, state: KeptState) -> None:
        """Keep a state, which by itself is no larger than the budget."""
        assert state.num_bytes <= self.budget_bytes
        self._kept.append(state)
        while self.num_bytes > self.budget_bytes:
            del self._kept[0]

    def find(self, change: int | None, step: int | None) -> KeptState:
        """Return the state before a change, or before the first one at a step; the newest if neither is given.

        Raises:
            RewindError: It is not kept.

        """
        if change is not None:
            found = [state for state in self._kept if state.change == change]
        elif step is not None:
            found = [state for state in self._kept if state.step == step]
        else:
            found = self._kept[-1:]
        if found:
            return found[0]
        if not self._kept:
            raise RewindError("No state is kept to go back to: none was changed since this worker has the run.")
        listed = "; ".join(f"before the change at step {state.step:,} ({state.sentence})" for state in self._kept)
        raise RewindError(f"That state is not kept. What is: {listed}. Further back lie checkpoints.")

    def forget_from(self, change: int) -> None:
        """Forget the states before this and later changes: the run has gone back to before it."""
        self._kept = [state for state in self._kept if state.change < change]

    def forget_after(self, step: int) -> bool:
        """Forget the states after a step: the run has gone back to it. Returns whether there were any."""
        num_kept = len(self._kept)
        self._kept = [state for state in self._kept if state.step <= step]
        return len(self._kept) < num_kept

    @property
    def num_bytes(self) -> int:
        """Return what all of them take of memory."""
        return sum(state.num_bytes for state in self._kept)

    def event(self) -> RewindsKept:
        """Say which are kept."""
        changes = [state.change for state in self._kept]
        return RewindsKept(changes=changes, num_bytes=self.num_bytes, budget_bytes=self.budget_bytes)


def size_of(content: dict[str, Any]) -> int:
    """Return the bytes that the tensors of a state take."""
    return sum(tensor.nbytes for tensor in _tensors(content))


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
