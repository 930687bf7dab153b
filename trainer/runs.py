"""The run folder and its run.db: write, read, list. What is here is the truth about a run; a socket is only faster."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.config import METRICS, Metric, RunConfig, config_to_toml, load_config
from trainer.frames import as_json, event_from_json
from trainer.messages.base import Event
from trainer.messages.changes import LayersFrozen, LayersUnfrozen, follow
from trainer.messages.events import AnyEvent, LayerStatsReported, RunPrepared, StateChanged
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix, RewindInfo, RunInfo, Series
from trainer.messages.states import RunState
from trainer.run_record import Curve, RunFolderError, RunListing, RunRecord, WorkerAddress, best_checkpoint, best_metric

SCHEMA_VERSION = 1
_MAX_SLUG_BYTES = 180

# Keys of the meta table: a table of their own would be another format.
_REWIND = "rewind "
_UNDOES = "undoes "
_DELETING = "deleting "

_LOGGED_KINDS = (
    "StateChanged",
    "LayersFrozen",
    "LayersUnfrozen",
    "RateChanged",
    "RateMultiplierChanged",
    "PhaseBegan",
    "PlanChanged",
    "BatchNormChanged",
    "TrainingChanged",
    "ChangeAdvised",
    "FreezeVerified",
    "CheckpointSaved",
    "CheckpointEdited",
    "CheckpointsDeleted",
    "CheckpointsPutBack",
    "CheckpointRestored",
    "RunRewound",
    "RewindUndone",
    "CommandRejected",
    "LogWritten",
)

_CHANGING_KINDS = (
    "RateChanged",
    "TrainingChanged",
    "PhaseBegan",
    "PlanChanged",
    "CheckpointRestored",
    "RunRewound",
    "RewindUndone",
)
"""The kinds of events that change what a run trains with."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE segments (id INTEGER PRIMARY KEY, start_step INTEGER NOT NULL, checkpoint TEXT, time REAL NOT NULL);
CREATE TABLE metrics (segment INTEGER NOT NULL, tag TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
                      PRIMARY KEY (tag, segment, step)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL,
                     requested_step INTEGER, applied_step INTEGER, body TEXT NOT NULL);
CREATE INDEX events_by_kind ON events (kind, id);
CREATE TABLE checkpoints (name TEXT PRIMARY KEY, step INTEGER NOT NULL, saved_at REAL NOT NULL, body TEXT NOT NULL);
"""


class RunFolder:
    """A run's folder with an open run.db. Safe to use from several threads; close it when done."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        database = path / "run.db"
        if not database.is_file():
            raise RunFolderError(f"{path} is not a run of Thaw: it has no run.db. Choose a folder under runs/.")
        try:
            self._db = sqlite3.connect(
                f"{_sqlite_uri(database)}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                timeout=10,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
            except sqlite3.Error:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise RunFolderError(f"Cannot read {database}: {error}. Restore the file from a copy.") from error
        if version != SCHEMA_VERSION:
            self._db.close()
            raise RunFolderError(
                f"{database} has format {version}, but this Thaw reads format {SCHEMA_VERSION}. "
                "Use the version that wrote it."
            )

    @classmethod
    def create(cls, runs_dir: Path, config: RunConfig) -> RunFolder:
        """Make a new run folder under ``runs_dir``, named by time, run and model, with its run.toml and empty run.db.

        Raises:
            RunFolderError: The folder cannot be written.

        """
        now = datetime.datetime.now()
        slug = re.sub(r"[^\w.-]+", "-", f"{config.title}-{config.model.name}").strip("-.")
        # A file system's limit counts bytes, and a letter may take four.
        slug = slug.encode()[:_MAX_SLUG_BYTES].decode(errors="ignore")
        stem = f"{now:%Y-%m-%d_%H%M%S}_{slug}"
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            path = _make_new_folder(runs_dir, stem)
            (path / "checkpoints").mkdir()
            (path / "run.toml").write_text(config_to_toml(config), encoding="utf-8")
            with closing(sqlite3.connect(path / "run.db")) as database, database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(_SCHEMA)
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RunFolderError(
                f"Cannot make a run folder in {runs_dir}: {reason}. Choose a folder that you can write to."
            ) from error
        return cls(path)

    def close(self) -> None:
        """Close run.db."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- where things are -------------------------------------------------------------------------------------

    @property
    def checkpoints_dir(self) -> Path:
        """Return the folder of the checkpoint files."""
        return self.path / "checkpoints"

    @property
    def rewinds_dir(self) -> Path:
        """Return the folder of the states before changes."""
        return self.path / "rewinds"

    @property
    def tensorboard_dir(self) -> Path:
        """Return the folder of the TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def base_path(self) -> Path:
        """Return the file of the state_dict at the start."""
        return self.path / "base.pt"

    @property
    def log_path(self) -> Path:
        """Return the file that holds what the worker printed."""
        return self.path / "worker.log"

    def config(self) -> RunConfig:
        """Read run.toml.

        Raises:
            ConfigError: It is damaged.

        """
        config = load_config(self.path / "run.toml")
        if "label_separator" in config.data.model_fields_set:
            return config
        # Of an earlier Thaw, for which a cell of a table was one class, whatever stood in it.
        return config.model_copy(update={"data": config.data.model_copy(update={"label_separator": "none"})})

    # -- the worker's address ---------------------------------------------------------------------------------

    def claim(self, worker: WorkerAddress) -> None:
        """Make this the run's one worker, and say where it listens, readable by the user alone.

        Raises:
            RunFolderError: Another worker has the run.

        """
        # Two workers may ask at once, and find the same dead one before them: the database's lock lets one in.
        with self._writing():
            if self.worker() is not None:
                raise RunFolderError(f"{self.path.name} has a worker already. Open the run to attach to it.")
            self._write_worker(worker)

    def _write_worker(self, worker: WorkerAddress) -> None:
        text = json.dumps(
            {"address": worker.address, "key": worker.key.hex(), "pid": worker.pid, "started_at": worker.started_at}
        )
        path = self.path / "worker.json"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    def remove_worker(self, worker: WorkerAddress) -> None:
        """Say that this worker does not serve the run any more. Another one's claim stays."""
        if self.worker() == worker:
            (self.path / "worker.json").unlink(missing_ok=True)

    # -- writing ----------------------------------------------------------------------------------------------

    def begin_segment(self, start_step: int, checkpoint: str | None, time: float, undoes: int | None = None) -> int:
        """Begin a new piece of the curve that goes on from ``start_step``. Returns its number; the first is 0.

        It goes on from the piece before it, or (``undoes``) from what another one had left behind as it began.
        """
        with self._writing() as db:
            number: int = db.execute("SELECT COALESCE(MAX(id) + 1, 0) FROM segments").fetchone()[0]
            db.execute("INSERT INTO segments VALUES (?, ?, ?, ?)", (number, start_step, checkpoint, time))
            if undoes is not None:
                db.execute("INSERT INTO meta VALUES (?, ?)", (f"{_UNDOES}{number}", str(undoes)))
        return number

    def keep_rewind(self, info: RewindInfo) -> None:
        """List a state before a change. Its file must be durable already."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{_REWIND}{info.change}", info.model_dump_json()))

    def forget_rewind(self, change: int) -> None:
        """List the state before a change no longer."""
        with self._writing() as db:
            db.execute("DELETE FROM meta WHERE key = ?", (f"{_REWIND}{change}",))

    def add_metrics(self, segment: int, series: dict[str, Series]) -> None:
        """Keep measurements by tag."""
        rows = [
            (segment, tag, step, value)
            for tag, points in series.items()
            for step, value in zip(points.steps, points.values, strict=True)
        ]
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)", rows)

    def add_event(self, event: Event) -> int:
        """Keep an event, with the steps at which it was asked for and took hold. Returns its id, from 1."""
        body = as_json(event)
        row = (
            event.time,
            type(event).__name__,
            getattr(event, "requested_step", None),
            getattr(event, "applied_step", None),
            body,
        )
        with self._writing() as db:
            sql = "INSERT INTO events (time, kind, requested_step, applied_step, body) VALUES (?, ?, ?, ?, ?)"
            event_id = db.execute(sql, row).lastrowid
        assert event_id is not None
        return event_id

    def keep_base_sha256(self, sha256: str) -> None:
        """Keep the SHA-256 of base.pt."""
        with self._writing(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('base_sha256', ?)", (sha256,))

    def keep_layer_stats(self, event: LayerStatsReported) -> None:
        """Keep what was last measured in each layer, in place of what was kept before."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('layer_stats', ?)", (as_json(event),))

    def add_checkpoint(self, info: CheckpointInfo, confusion: ConfusionMatrix | None = None) -> None:
        """List a checkpoint, and keep its validation's confusion matrix. Its file must be durable already.

        A matrix of a thousand classes has a million numbers: only the latest and the best checkpoints' are kept.
        """
        listed = [*self.checkpoints(), info]
        # By what the best is told may change as the run goes on.
        best_by = [f"best {metric}" for metric in METRICS if best_checkpoint(listed, metric) is info]
        with self._writing(durable=True) as db:
            if confusion is not None:
                _keep_confusion(db, ["latest", *best_by], confusion)
            db.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
                (info.name, info.step, info.saved_at, info.model_dump_json()),
            )
            db.execute("DELETE FROM meta WHERE key = ?", (f"{_DELETING}{info.name}",))

    def begin_deleting(self, names: Sequence[str]) -> None:
        """List checkpoints no longer, and remember that their files are to go: a kill before that leaves no trace."""
        with self._writing(durable=True) as db:
            db.executemany("DELETE FROM checkpoints WHERE name = ?", [(name,) for name in names])
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, '')", [(f"{_DELETING}{name}",) for name in names])

    def end_deleting(self, names: Sequence[str]) -> None:
        """Take it that the files of deleted checkpoints are gone."""
        with self._writing() as db:
            db.executemany("DELETE FROM meta WHERE key = ?", [(f"{_DELETING}{name}",) for name in names])

    def change_checkpoint(self, info: CheckpointInfo) -> None:
        """Keep what a checkpoint that is listed is now. One that is not stays so."""
        with self._writing() as db:
            db.execute("UPDATE checkpoints SET body = ? WHERE name = ?", (info.model_dump_json(), info.name))

    def keep_test_confusion(self, confusion: ConfusionMatrix) -> None:
        """Keep the confusion matrix of the test split."""
        with self._writing() as db:
            _keep_confusion(db, ["test"], confusion)

    # -- reading ----------------------------------------------------------------------------------------------

    def confusion(self, which: str) -> ConfusionMatrix:
        """Return the confusion matrix of the "best" or the "latest" validation, or of the "test" split.

        Raises:
            RunFolderError: There is none of it.

        """
        # An earlier Thaw kept one of the best, by accuracy.
        names = [f"best {self.best_metric()}", "best"] if which == "best" else [which]
        for key in ((f"confusion {name}",) for name in names):
            rows = self._read("SELECT json_set(value, '$.counts', json_array()) FROM meta WHERE key = ?", key)
            if not rows:
                continue
            # Row by row: a million numbers read in one call would hold up every other thread of the window.
            sql = "SELECT row.value FROM meta, json_each(meta.value, '$.counts') AS row WHERE meta.key = ?"
            counts = [json.loads(row) for (row,) in self._read(sql, key)]
            return ConfusionMatrix.model_validate_json(rows[0][0]).model_copy(update={"counts": counts})
        if self.config().data.task == "multi_label":
            raise RunFolderError(
                f"{self.path.name} has no confusion matrix: its images may have several classes, so that none is taken "
                "for another. Look at its F1 and mean AP."
            )
        if which == "test":
            raise RunFolderError(
                f"{self.path.name} has no confusion matrix of a test split: it comes at the end of a run whose data "
                "have one."
            )
        raise RunFolderError(
            f"{self.path.name} has no confusion matrix: it comes with the validation at the end of an epoch."
        )

    def worker(self) -> WorkerAddress | None:
        """Return where this run's living worker listens, or None."""
        return _read_worker(self.path)

    def checkpoints(self) -> list[CheckpointInfo]:
        """List the checkpoints, oldest first."""
        rows = self._read("SELECT body FROM checkpoints ORDER BY saved_at, step")
        return [CheckpointInfo.model_validate_json(body) for (body,) in rows]

    def checkpoint(self, name: str) -> CheckpointInfo:
        """Return one checkpoint's row; a unique piece of its name will do, an epoch's number, or "best" or "last".

        Raises:
            RunFolderError: There is no such checkpoint.

        """
        listed = self.checkpoints()
        if not listed:
            raise RunFolderError(f"{self.path.name} has no checkpoints yet. Let it finish an epoch first.")
        if name == "last":
            return listed[-1]
        if name == "best":
            return best_checkpoint(listed, self.best_metric()) or listed[-1]
        exact = [info for info in listed if info.name == name]
        if name.isdecimal():
            # The newest, where an epoch was trained again after a restore.
            exact = [info for info in listed if info.epoch == int(name) and info.reason == "epoch"][-1:]
        found = exact or [info for info in listed if name in info.name]
        if len(found) != 1:
            count = "no checkpoint" if not found else f"{len(found)} checkpoints"
            raise RunFolderError(f"{self.path.name} has {count} named {name!r}. `thaw checkpoints` lists their names.")
        return found[0]

    def resume_point(self) -> CheckpointInfo | None:
        """Return the checkpoint from which the run goes on: the last one saved or restored. None: from its start.

        Where that is listed no more, it is the newest one before it on the way to where the run is.
        """
        listed, undoes = self.checkpoints(), self._undoes()
        end_step, begun_by = math.inf, math.inf
        pieces = self._read("SELECT id, start_step, checkpoint FROM segments ORDER BY id DESC")
        for segment, start_step, restored in pieces:
            if segment >= begun_by:
                continue
            # One saved at that very step may have been saved after the change that was gone back before.
            found = [info for info in listed if info.segment == segment and info.step < end_step]
            found = found or [info for info in listed if info.name == restored and info.step <= end_step]
            if found:
                return found[-1]
            end_step, begun_by = min(end_step, start_step), undoes.get(segment, segment)
        return None

    def last_event_id(self) -> int:
        """Return the id of the last event that is kept, 0 before there is one."""
        last: int = self._read("SELECT COALESCE(MAX(id), 0) FROM events")[0][0]
        return last

    def rewinds(self) -> list[RewindInfo]:
        """List the states before changes that have a file, oldest first."""
        rows = self._read("SELECT value FROM meta WHERE key GLOB ?", (f"{_REWIND}*",))
        return sorted((RewindInfo.model_validate_json(value) for (value,) in rows), key=lambda info: info.change)

    def half_deleted(self) -> list[str]:
        """Return the names of checkpoints that are listed no longer, but may have a file."""
        rows = self._read("SELECT key FROM meta WHERE key GLOB ?", (f"{_DELETING}*",))
        return [key.removeprefix(_DELETING) for (key,) in rows]

    def base_sha256(self) -> str:
        """Return the SHA-256 that base.pt had when it was written, "" if it never was."""
        rows = self._read("SELECT value FROM meta WHERE key = 'base_sha256'")
        return rows[0][0] if rows else ""

    def layer_stats(self) -> LayerStatsReported | None:
        """Return what was last measured in each layer, or None if nothing was."""
        rows = self._read("SELECT value FROM meta WHERE key = 'layer_stats'")
        event = event_from_json(rows[0][0]) if rows else None
        return event if isinstance(event, LayerStatsReported) else None

    def problem_of(self, info: CheckpointInfo) -> str:
        """Say what is wrong with a checkpoint's file as far as a look at it tells, or ""."""
        try:
            size = (self.checkpoints_dir / info.name).stat().st_size
        except OSError:
            return "file is missing"
        return "" if size == info.size_bytes else "file was altered"

    def run_info(self) -> RunInfo | None:
        """Return the run as it was last prepared, with what it trains with by now, or None if it never was."""
        event = self._last_event("RunPrepared")
        if not isinstance(event, RunPrepared):
            return None
        run = event.run
        marks = ", ".join("?" * len(_CHANGING_KINDS))
        since = "(SELECT MAX(id) FROM events WHERE kind = 'RunPrepared')"
        sql = f"SELECT body FROM events WHERE kind IN ({marks}) AND id > {since} ORDER BY id"
        for (body,) in self._read(sql, _CHANGING_KINDS):
            run = follow(run, event_from_json(body))
        return run

    def best_metric(self) -> Metric:
        """Return by what the best checkpoint is told by now."""
        return best_metric(self.config(), self.run_info())

    def prepared_before(self, checkpoint: str | None) -> RunInfo | None:
        """Return the run as it was prepared by the worker that saved a checkpoint (None: by the last worker).

        None where that is not known.
        """
        saved = "kind = 'CheckpointSaved' AND json_extract(body, '$.checkpoint.name') = ?"
        before = f"id < ifnull((SELECT MAX(id) FROM events WHERE {saved}), id + 1)"
        sql = f"SELECT body FROM events WHERE kind = 'RunPrepared' AND {before} ORDER BY id DESC LIMIT 1"
        rows = self._read(sql, (checkpoint,))
        event = event_from_json(rows[0][0]) if rows else None
        return event.run if isinstance(event, RunPrepared) else None

    def num_epochs(self) -> int:
        """Return how many epochs the run is to have by now."""
        info = self.run_info()
        return self.config().training.epochs if info is None else info.present.epochs

    def curves(self, last_segment: int | None = None) -> dict[str, Curve]:
        """Read every tag's points, along the run as it went on; up to the end of one of its segments, if one is named.

        A checkpoint that a restore has left behind is on the line of its own segment.
        """
        pieces = self._pieces()
        if last_segment is not None:
            del pieces[last_segment + 1 :]
        curves: dict[str, Curve] = {}
        sql = "SELECT tag, segment, step, value FROM metrics WHERE segment < ? ORDER BY tag, segment, step"
        for tag, segment, step, value in self._read(sql, (len(pieces),)):
            curve = curves.setdefault(tag, Curve())
            curve.go_on(pieces, segment)
            curve.steps.append(step)
            # SQLite keeps a NaN as NULL.
            curve.values.append(math.nan if value is None else value)
        for curve in curves.values():
            curve.go_on(pieces, len(pieces) - 1)
        return curves

    def _pieces(self) -> list[tuple[int, int | None]]:
        """Return where each piece of the curve starts, and the piece that it undoes, if any."""
        undoes = self._undoes()
        rows = self._read("SELECT id, start_step FROM segments ORDER BY id")
        return [(start_step, undoes.get(number)) for number, start_step in rows]

    def _undoes(self) -> dict[int, int]:
        return {
            int(key.removeprefix(_UNDOES)): int(value)
            for key, value in self._read("SELECT key, value FROM meta WHERE key GLOB ?", (f"{_UNDOES}*",))
        }

    def read(self) -> RunRecord:
        """Read everything that a view shows of the run."""
        # First, so that an event that comes while the rest is read is shown twice rather than not at all.
        last_event_id = self.last_event_id()
        state, sentence = self.recorded_state()
        worker = self.worker()
        was_interrupted = worker is None and state.is_live
        freeze_events = [
            event
            for event in self._events("LayersFrozen", "LayersUnfrozen")
            if isinstance(event, LayersFrozen | LayersUnfrozen)
        ]
        segment = self._read("SELECT COALESCE(MAX(id), 0) FROM segments")[0][0]
        info = self.run_info()
        step, epoch = self._position(info)
        return RunRecord(
            path=self.path,
            config=self.config(),
            state=RunState.STOPPED if was_interrupted else state,
            was_interrupted=was_interrupted,
            sentence=sentence,
            info=info,
            step=step,
            epoch=epoch,
            segment=segment,
            curves=self.curves(),
            checkpoints=self.checkpoints(),
            freeze_events=freeze_events,
            log=self._events(*_LOGGED_KINDS),
            last_event_id=last_event_id,
            layer_stats=self.layer_stats(),
        )

    def copy_database(self, path: Path) -> None:
        """Write a copy of run.db, as it is at this moment.

        Raises:
            RunFolderError: It cannot be read, or not be written there.

        """
        with self._lock:
            try:
                with closing(sqlite3.connect(path)) as copy:
                    self._db.backup(copy)
            except sqlite3.Error as error:
                raise RunFolderError(f"Cannot copy {self.path / 'run.db'} to {path}: {error}. Make room.") from error

    def listing(self) -> RunListing:
        """Read what the list of runs shows."""
        state, _ = self.recorded_state()
        worker = self.worker()
        config = self.config()
        info = self.run_info()
        best = best_checkpoint(self.checkpoints(), best_metric(config, info))
        step, epoch = self._position(info)
        return RunListing(
            path=self.path,
            title=config.title,
            model=config.model.name,
            state=state,
            is_live=worker is not None and state.is_live,
            was_interrupted=worker is None and state.is_live,
            epoch=epoch,
            num_epochs=(config.training if info is None else info.present).epochs,
            step=step,
            best_accuracy=best.accuracy if best else None,
            created_at=created_at(self.path),
            parent=None if config.branch is None else Path(config.branch.run),
            branched_from="" if config.branch is None else config.branch.source,
        )

    def recorded_state(self) -> tuple[RunState, str]:
        """Return the state that was recorded last, with its sentence."""
        event = self._last_event("StateChanged")
        return (event.state, event.sentence) if isinstance(event, StateChanged) else (RunState.PREPARING, "")

    def _position(self, info: RunInfo | None) -> tuple[int, int]:
        rows = self._read("SELECT id, start_step FROM segments ORDER BY id DESC LIMIT 1")
        if not rows:
            return 0, 0
        segment, start_step = rows[0]
        newest: int | None = self._read("SELECT MAX(step) FROM metrics WHERE segment = ?", (segment,))[0][0]
        step = start_step if newest is None else newest
        return step, step // info.steps_per_epoch if info else 0

    def _events(self, *kinds: str) -> list[AnyEvent]:
        marks = ", ".join("?" * len(kinds))
        rows = self._read(f"SELECT body FROM events WHERE kind IN ({marks}) ORDER BY id", kinds)
        return [event_from_json(body) for (body,) in rows]

    def _last_event(self, kind: str) -> AnyEvent | None:
        rows = self._read("SELECT body FROM events WHERE kind = ? ORDER BY id DESC LIMIT 1", (kind,))
        return event_from_json(rows[0][0]) if rows else None

    def _read(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise RunFolderError(
                    f"Cannot read {self.path / 'run.db'}: {error}. Restore the file from a copy."
                ) from error

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise RunFolderError(
                    f"Cannot write {self.path / 'run.db'}: {error}. Make room, or close what holds the file, and "
                    "try again."
                ) from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")


def _keep_confusion(db: sqlite3.Connection, names: list[str], confusion: ConfusionMatrix) -> None:
    body = confusion.model_dump_json()
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(f"confusion {name}", body) for name in names])


def created_at(path: Path) -> float:
    """Return when a run was begun, in Unix time, from its folder's name."""
    try:
        return datetime.datetime.strptime(path.name[:17], "%Y-%m-%d_%H%M%S").timestamp()
    except ValueError:
        return path.stat().st_mtime


def _sqlite_uri(path: Path) -> str:
    """Write a path as SQLite reads it: a host's share as ``file:////host``, which ``as_uri`` writes otherwise."""
    posix = path.resolve().as_posix()
    return f"file://{quote(posix if posix.startswith('/') else f'/{posix}')}"


def _read_worker(path: Path) -> WorkerAddress | None:
    try:
        values = json.loads((path / "worker.json").read_text(encoding="utf-8"))
        worker = WorkerAddress(values["address"], bytes.fromhex(values["key"]), values["pid"], values["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return worker if worker.is_alive else None


def _make_new_folder(runs_dir: Path, stem: str) -> Path:
    for number in range(1, 1000):
        path = runs_dir / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise OSError(f"{runs_dir} already has 999 runs of this second")
