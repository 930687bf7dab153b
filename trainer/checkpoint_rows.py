"""The rows of a run's checkpoints in run.db: listed, found, marked, and taken off; and their confusion matrices."""

from __future__ import annotations

import bisect
import json
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer.config import CheckpointsConfig, Metric, RunConfig
from trainer.frames import event_from_json
from trainer.messages.events import CheckpointSaved
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix
from trainer.run_database import RunDatabase
from trainer.run_record import RunFolderError, best_checkpoint

_SAVING = "saving "
_DELETING = "deleting "
_CONFUSION = "confusion "
_TEST = f"{_CONFUSION}test"


class CheckpointRows:
    """What run.db says of a run's checkpoints, each the row of a file in ``checkpoints/``."""

    def __init__(
        self, path: Path, database: RunDatabase, config: Callable[[], RunConfig], best_metric: Callable[[], Metric]
    ) -> None:
        self._path = path
        self._database = database
        self._config = config
        self._best_metric = best_metric
        # To read thousands of rows at each save takes longer than to find what of them may go.
        self._lock = threading.Lock()
        self._known: list[CheckpointInfo] = []
        self._known_version = -1

    # -- writing ----------------------------------------------------------------------------------------------

    def begin_saving(self, info: CheckpointInfo) -> None:
        """Remember a checkpoint whose file is about to be written under a name that no file has yet.

        A kill before it is listed leaves a file that is known by this.
        """
        with self._database.writing(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{_SAVING}{info.name}", info.model_dump_json()))

    def forget_saving(self, name: str) -> None:
        """Take it that a checkpoint which was being saved has no file."""
        with self._database.writing() as db:
            db.execute("DELETE FROM meta WHERE key = ?", (f"{_SAVING}{name}",))

    def add(
        self,
        info: CheckpointInfo,
        confusion: ConfusionMatrix | None = None,
        best_metrics: Sequence[Metric] = CheckpointsConfig().best_metrics,
    ) -> None:
        """List a checkpoint, and keep its validation's confusion matrix. Its file must be durable already.

        A matrix of a thousand classes has a million numbers: only the latest and the best checkpoints' are kept, by all
        the ``best_metrics`` that may tell the best as the run goes on.
        """
        best_by = [f"best {metric}" for metric in best_metrics if confusion is not None and self._is_best(info, metric)]
        with self._changing([info.name], info), self._database.writing(durable=True) as db:
            if confusion is not None:
                _keep_confusion(db, ["latest", *best_by], confusion)
            db.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
                (info.name, info.step, info.saved_at, info.model_dump_json()),
            )
            db.execute("DELETE FROM meta WHERE key IN (?, ?)", (f"{_SAVING}{info.name}", f"{_DELETING}{info.name}"))

    def begin_deleting(self, names: Sequence[str]) -> None:
        """List checkpoints no longer, and remember that their files are to go: a kill before that leaves no trace."""
        with self._changing(names), self._database.writing(durable=True) as db:
            db.executemany("DELETE FROM checkpoints WHERE name = ?", [(name,) for name in names])
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, '')", [(f"{_DELETING}{name}",) for name in names])

    def end_deleting(self, names: Sequence[str]) -> None:
        """Take it that the files of deleted checkpoints are gone."""
        with self._database.writing() as db:
            db.executemany("DELETE FROM meta WHERE key = ?", [(f"{_DELETING}{name}",) for name in names])

    def change(self, info: CheckpointInfo) -> None:
        """Keep what a checkpoint that is listed is now. One that is not stays so."""
        # It comes back only where it is.
        listed = [info] if self.has(info.name) else []
        with self._changing([info.name], *listed), self._database.writing() as db:
            db.execute("UPDATE checkpoints SET body = ? WHERE name = ?", (info.model_dump_json(), info.name))

    def keep_test_confusion(self, confusion: ConfusionMatrix) -> None:
        """Keep the confusion matrix of the test split."""
        with self._database.writing() as db:
            _keep_confusion(db, ["test"], confusion)

    # -- reading ----------------------------------------------------------------------------------------------

    def listed(self) -> list[CheckpointInfo]:
        """List the checkpoints, oldest first."""
        with self._lock:
            return list(self._read_listed())

    def has(self, name: str) -> bool:
        """Tell whether a checkpoint of this very name is listed."""
        return bool(self._database.read("SELECT 1 FROM checkpoints WHERE name = ?", (name,)))

    def find(self, name: str) -> CheckpointInfo:
        """Return one checkpoint's row; a unique piece of its name will do, an epoch's number, or "best" or "last".

        Raises:
            RunFolderError: There is no such checkpoint.

        """
        listed = self.listed()
        if not listed:
            raise RunFolderError(f"{self._path.name} has no checkpoints yet. Let it finish an epoch first.")
        if name == "last":
            return listed[-1]
        if name == "best":
            return best_checkpoint(listed, self._best_metric()) or listed[-1]
        if name.isdecimal():
            # Never a piece of a name, which has a step, a loss and an accuracy in it.
            found = [info for info in listed if info.epoch == int(name) and info.reason == "epoch"]
            if not found:
                raise RunFolderError(
                    f"{self._path.name} has no checkpoint of the end of epoch {int(name)}. `thaw checkpoints` lists "
                    "those it has."
                )
            # The newest, where an epoch was trained again after a restore.
            return found[-1]
        found = [info for info in listed if info.name == name] or [info for info in listed if name in info.name]
        if len(found) != 1:
            count = "no checkpoint" if not found else f"{len(found)} checkpoints"
            raise RunFolderError(f"{self._path.name} has {count} named {name!r}. `thaw checkpoints` lists their names.")
        return found[0]

    def resume_point(self, listed: Sequence[CheckpointInfo] | None = None) -> CheckpointInfo | None:
        """Return the checkpoint from which the run goes on: the last one saved or restored. None: from its start.

        Where that is listed no more, it is the newest one before it on the way to where the run is. ``listed`` are the
        checkpoints, oldest first, where they are known.
        """
        listed, parents = self.listed() if listed is None else listed, self._database.parents()
        end_step, begun_by = math.inf, math.inf
        pieces = self._database.read("SELECT id, start_step, checkpoint FROM segments ORDER BY id DESC")
        for segment, start_step, restored in pieces:
            if segment >= begun_by:
                continue
            # One saved at that very step may have been saved after the change that was gone back before.
            found = [info for info in listed if info.segment == segment and info.step < end_step]
            found = found or [info for info in listed if info.name == restored and info.step <= end_step]
            if found:
                return found[-1]
            # Else another line's that was begun in between would be taken.
            saved = None if restored is None else self._saved(restored)
            begun_by = (parents.get(segment, segment - 1) if saved is None else saved.segment) + 1
            end_step = min(end_step, start_step)
        return None

    def left_behind(self, listed: Sequence[CheckpointInfo]) -> set[str]:
        """Name those of the listed checkpoints that led to nothing: the run has gone back behind them since."""
        parents = self._database.parents()
        pieces: dict[int, str | None] = dict(self._database.read("SELECT id, checkpoint FROM segments ORDER BY id"))
        on_way: set[str] = set()
        segment, saved_by = max(pieces, default=0), math.inf
        while True:
            on_way.update(info.name for info in listed if info.segment == segment and info.saved_at <= saved_by)
            begun_at = pieces.get(segment)
            if begun_at is None:
                return {info.name for info in listed} - on_way
            saved = next((info for info in listed if info.name == begun_at), None) or self._saved(begun_at)
            if saved is not None:
                segment, saved_by = saved.segment, saved.saved_at
            else:
                # It was never durable, so that there is none on the way since the one before it.
                segment, saved_by = parents.get(segment, segment - 1), math.inf

    def half_saved(self) -> list[CheckpointInfo]:
        """Return the checkpoints that are not listed yet, but may have a file. They have no size and no hash."""
        rows = self._database.read("SELECT value FROM meta WHERE key GLOB ?", (f"{_SAVING}*",))
        return [CheckpointInfo.model_validate_json(value) for (value,) in rows]

    def half_deleted(self) -> list[str]:
        """Return the names of checkpoints that are listed no longer, but may have a file."""
        rows = self._database.read("SELECT key FROM meta WHERE key GLOB ?", (f"{_DELETING}*",))
        return [key.removeprefix(_DELETING) for (key,) in rows]

    def problem_of(self, info: CheckpointInfo) -> str:
        """Say what is wrong with a checkpoint's file as far as a look at it tells, or ""."""
        try:
            size = (self._path / "checkpoints" / info.name).stat().st_size
        except OSError:
            return "file is missing"
        return "" if size == info.size_bytes else "file was altered"

    def confusion(self, which: str) -> ConfusionMatrix:
        """Return the confusion matrix of the "best" or the "latest" validation, or of the "test" split.

        Raises:
            RunFolderError: There is none of it.

        """
        kept = self._kept_confusions()
        if which == "best":
            # What was the best one as it was saved may be deleted by now.
            best = best_checkpoint(self.listed(), self._best_metric())
            keys = [key for key, name in kept.items() if best is not None and name == best.name and key != _TEST]
        else:
            keys = [key for key in kept if key == f"{_CONFUSION}{which}"]
        if keys:
            return self._read_confusion(keys[0])
        if which == "best" and kept.keys() - {_TEST}:
            raise RunFolderError(
                f"{self._path.name} has no confusion matrix of its best checkpoint: one that was better had its kept, "
                "and is deleted by now. Look at the latest one's."
            )
        if self._config().data.task == "multi_label":
            raise RunFolderError(
                f"{self._path.name} has no confusion matrix: its images may have several classes, so that none is "
                "taken for another. Look at its F1 and mean AP."
            )
        if which == "test":
            raise RunFolderError(
                f"{self._path.name} has no confusion matrix of a test split: it comes at the end of a run whose data "
                "have one."
            )
        raise RunFolderError(
            f"{self._path.name} has no confusion matrix: it comes with the validation at the end of an epoch."
        )

    def confusion_of(self, info: CheckpointInfo) -> ConfusionMatrix | None:
        """Return the confusion matrix of a checkpoint's validation, None where it is not kept any more."""
        keys = [key for key, name in self._kept_confusions().items() if name == info.name and key != _TEST]
        matrix = self._read_confusion(keys[0]) if keys else None
        # A deleted one of the same name may have left its matrix behind.
        return matrix if matrix is not None and matrix.step == info.step else None

    def _read_listed(self) -> list[CheckpointInfo]:
        # Asked for first: what is written in between makes it another one.
        version = self._database.version()
        if version != self._known_version:
            rows = self._database.read("SELECT body FROM checkpoints ORDER BY saved_at, step")
            self._known = [CheckpointInfo.model_validate_json(body) for (body,) in rows]
            self._known_version = version
        return self._known

    @contextmanager
    def _changing(self, names: Sequence[str], *instead: CheckpointInfo) -> Iterator[None]:
        """Bring what is known up to date with what is written inside: these rows are replaced, or go."""
        with self._lock:
            gone, known = set(names), self._read_listed()
            yield
            self._known = [info for info in known if info.name not in gone]
            for info in instead:
                bisect.insort(self._known, info, key=lambda each: (each.saved_at, each.step))

    def _kept_confusions(self) -> dict[str, str]:
        """Return the name of the checkpoint of each confusion matrix that is kept."""
        sql = "SELECT key, json_extract(value, '$.checkpoint') FROM meta WHERE key GLOB ?"
        return dict(self._database.read(sql, (f"{_CONFUSION}*",)))

    def _read_confusion(self, key: str) -> ConfusionMatrix:
        sql = "SELECT json_set(value, '$.counts', json_array()) FROM meta WHERE key = ?"
        ((body,),) = self._database.read(sql, (key,))
        # Row by row: a million numbers read in one call would hold up every other thread of the window.
        sql = "SELECT row.value FROM meta, json_each(meta.value, '$.counts') AS row WHERE meta.key = ?"
        counts = [json.loads(row) for (row,) in self._database.read(sql, (key,))]
        return ConfusionMatrix.model_validate_json(body).model_copy(update={"counts": counts})

    def _is_best(self, info: CheckpointInfo, metric: Metric) -> bool:
        """Tell whether a new checkpoint is better than all that are listed."""
        name = "SELECT json_extract(value, '$.checkpoint') FROM meta WHERE key = ?"
        sql = f"SELECT body FROM checkpoints WHERE name = ({name})"
        rows = self._database.read(sql, (f"{_CONFUSION}best {metric}",))
        # The best one before it has its matrix there, unless it was deleted: thousands of rows need not be read then.
        before = [CheckpointInfo.model_validate_json(body) for (body,) in rows] or self.listed()
        return best_checkpoint([*before, info], metric) is info

    def _saved(self, name: str) -> CheckpointInfo | None:
        """Return a checkpoint as it was saved, which may be deleted by now; None if it is not known."""
        sql = "SELECT body FROM events WHERE kind = 'CheckpointSaved' AND instr(body, ?) ORDER BY id DESC"
        for (body,) in self._database.read(sql, (json.dumps(name, ensure_ascii=False),)):
            event = event_from_json(body)
            if isinstance(event, CheckpointSaved) and event.checkpoint.name == name:
                return event.checkpoint
        return None


def _keep_confusion(db: sqlite3.Connection, names: list[str], confusion: ConfusionMatrix) -> None:
    body = confusion.model_dump_json()
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(f"{_CONFUSION}{name}", body) for name in names])
