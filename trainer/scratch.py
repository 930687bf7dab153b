"""Scratch: a copy of a run in which its steps can be made again, while the run itself is only read."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from trainer.checkpoints import CheckpointStore
from trainer.messages.run_info import CheckpointInfo
from trainer.runs import RunFolder


class Scratch:
    """A copy of a run, in a temporary folder. Use as a context manager: leaving it takes the copy away.

    The run may be live. Its checkpoints are not copied but referred to: one that the run thins out meanwhile is missed.

    Attributes:
        folder: The copy, from ``go_back_to`` on.

    """

    folder: RunFolder

    def __init__(self, original: RunFolder) -> None:
        self._original = original
        self._open = ExitStack()

    def __enter__(self) -> Scratch:
        scratch = tempfile.TemporaryDirectory(prefix="thaw-scratch-", ignore_cleanup_errors=True)
        with ExitStack() as begun:
            self._path = Path(begun.enter_context(scratch))
            shutil.copyfile(self._original.path / "run.toml", self._path / "run.toml")
            self._original.database.copy(self._path / "run.db")
            (self._path / "checkpoints").mkdir()
            self._open = begun.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the copy's run.db, before it is opened as a run's."""
        with closing(sqlite3.connect(self._path / "run.db")) as db, db:
            yield db

    def go_back_to(self, info: CheckpointInfo, event: int | None, others: Sequence[CheckpointInfo] = ()) -> None:
        """Let the copy be as the run was when it had a checkpoint: of the length that it then had, with none later.

        Args:
            info: The checkpoint.
            event: The last event before what came after it; None where nobody knows.
            others: Checkpoints to which the copy is to refer, too.

        Raises:
            CheckpointError: A file of these, or the base that it needs, is missing or damaged; it is named as the
                run's.

        """
        store = CheckpointStore(self._original, read_only=True)
        for each in (info, *others):
            # Whoever reads the copy would name the copy's files, which nobody can mend.
            store.check(each)
        with self.database() as db:
            if event is not None:
                db.execute("DELETE FROM events WHERE id > ?", (event,))
            db.execute("DELETE FROM metrics")
            db.execute("DELETE FROM checkpoints WHERE saved_at > ?", (info.saved_at,))
        if self._original.base_path.is_file():
            # Self-contained checkpoints need none.
            _refer(self._original.base_path, self._path / self._original.base_path.name)
        for each in (info, *others):
            _refer(self._original.checkpoints_dir / each.name, self._path / "checkpoints" / each.name)
        self.folder = self._open.enter_context(RunFolder(self._path))


def _refer(original: Path, link: Path) -> None:
    try:
        link.symlink_to(original.resolve())
    except OSError:
        # Windows lets few users make one.
        shutil.copyfile(original, link)
