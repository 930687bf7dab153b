"""CheckpointWords: which of the listed checkpoints have some words, at each letter that is typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.viewmodels.checkpoint_run import CheckpointRun
from trainer.messages.run_info import CheckpointInfo


class CheckpointWords:
    """Keeps by which words each checkpoint is found, beside its tags, which may change."""

    def __init__(self) -> None:
        # By id, as long as they are listed; of text alone, as the collector goes through all else.
        self._texts: dict[int, str] = {}
        self._frozen: dict[int, str] = {}
        self._each_frozen: dict[str, str] = {}

    def forget(self, info: CheckpointInfo) -> None:
        """Forget a checkpoint that is not listed any more."""
        self._texts.pop(id(info), None)

    def forget_all(self) -> None:
        """Forget all that were listed."""
        self._texts, self._frozen, self._each_frozen = {}, {}, {}

    def rows_with(
        self,
        words: Sequence[str],
        rows: Iterable[int],
        listed: Sequence[tuple[CheckpointRun, CheckpointInfo]],
        *,
        are_runs_named: bool,
    ) -> list[int]:
        """Return those rows of what is listed that have all the words, in small letters, or have them as pieces."""
        # What is frozen is a long text, and the same one for many.
        left_by: dict[str, list[str]] = {}
        found = []
        for row in rows:
            run, info = listed[row]
            if id(info) not in self._texts:
                self._keep(run, info, are_runs_named=are_runs_named)
            text, frozen = self._texts[id(info)], self._frozen[id(info)]
            left = left_by.get(frozen)
            if left is None:
                left = left_by[frozen] = [word for word in words if word not in frozen]
            left = [word for word in left if word not in text]
            if left:
                tags = " ".join(run.tags_of(info)).casefold()
                left = [word for word in left if word not in tags]
            if not left:
                found.append(row)
        return found

    def _keep(self, run: CheckpointRun, info: CheckpointInfo, *, are_runs_named: bool) -> None:
        names = (run.path.name, run.title, run.origin) if are_runs_named else ()
        self._texts[id(info)] = " ".join((info.name, *names, info.note, info.frozen_summary)).casefold()
        frozen = " ".join(info.frozen).casefold()
        self._frozen[id(info)] = self._each_frozen.setdefault(frozen, frozen)
