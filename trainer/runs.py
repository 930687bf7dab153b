"""The run folder and its run.db: write, read, list. What is here is the truth about a run; a socket is only faster."""

from __future__ import annotations

import datetime
import itertools
import math
import re
import sqlite3
from array import array
from operator import itemgetter
from pathlib import Path

from trainer.checkpoint_rows import CheckpointRows
from trainer.config import Metric, RunConfig, config_to_toml, load_config
from trainer.frames import as_json, event_from_json
from trainer.lineage import Lineage
from trainer.messages.base import Event
from trainer.messages.changes import LayersFrozen, LayersUnfrozen, follow
from trainer.messages.events import AnyEvent, LayerStatsReported, RunPrepared, StateChanged
from trainer.messages.run_info import RewindInfo, RunInfo, Series
from trainer.messages.states import RunState
from trainer.run_database import PARENT, RunDatabase
from trainer.run_record import Curve, RunFolderError, RunListing, RunRecord, WorkerAddress, best_checkpoint, best_metric
from trainer.sqlite_rows import insert_rows

_MAX_SLUG_BYTES = 180

# A key of the meta table: a table of its own would be another format.
_REWIND = "rewind "

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
    "FeaturesCached",
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


class RunFolder:
    """A run's folder with an open run.db. Safe to use from several threads; close it when done."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.database = RunDatabase(path, read_only=read_only)
        self.checkpoints = CheckpointRows(path, self.database, self.config, self.best_metric)

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
            RunDatabase.create(path)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RunFolderError(
                f"Cannot make a run folder in {runs_dir}: {reason}. Choose a folder that you can write to."
            ) from error
        return cls(path)

    def close(self) -> None:
        """Close run.db."""
        self.database.close()

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
        with self.database.writing():
            if self.worker() is not None:
                raise RunFolderError(f"{self.path.name} has a worker already. Open the run to attach to it.")
            worker.write(self.path)

    def remove_worker(self, worker: WorkerAddress) -> None:
        """Say that this worker does not serve the run any more. Another one's claim stays."""
        if self.worker() == worker:
            (self.path / "worker.json").unlink(missing_ok=True)

    # -- writing ----------------------------------------------------------------------------------------------

    def begin_segment(self, start_step: int, checkpoint: str | None, time: float, parent: int | None = None) -> int:
        """Begin a new piece of the curve that goes on from ``start_step``. Returns its number; the first is 0.

        ``parent`` is the piece that it goes on from, None for the one before it.
        """
        with self.database.writing() as db:
            number: int = db.execute("SELECT COALESCE(MAX(id) + 1, 0) FROM segments").fetchone()[0]
            db.execute("INSERT INTO segments VALUES (?, ?, ?, ?)", (number, start_step, checkpoint, time))
            if parent is not None:
                db.execute("INSERT INTO meta VALUES (?, ?)", (f"{PARENT}{number}", str(parent)))
        return number

    def keep_rewind(self, info: RewindInfo) -> None:
        """List a state before a change. Its file must be durable already."""
        with self.database.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{_REWIND}{info.change}", info.model_dump_json()))

    def forget_rewind(self, change: int) -> None:
        """List the state before a change no longer."""
        with self.database.writing() as db:
            db.execute("DELETE FROM meta WHERE key = ?", (f"{_REWIND}{change}",))

    def add_metrics(self, segment: int, series: dict[str, Series]) -> None:
        """Keep measurements by tag."""
        rows = (
            (segment, tag, step, value)
            for tag, points in series.items()
            for step, value in zip(points.steps, points.values, strict=True)
        )
        with self.database.writing() as db:
            insert_rows(db, "INSERT OR REPLACE INTO metrics", rows)

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
        with self.database.writing() as db:
            sql = "INSERT INTO events (time, kind, requested_step, applied_step, body) VALUES (?, ?, ?, ?, ?)"
            event_id = db.execute(sql, row).lastrowid
        assert event_id is not None
        return event_id

    def keep_base_sha256(self, sha256: str) -> None:
        """Keep the SHA-256 of base.pt."""
        with self.database.writing(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('base_sha256', ?)", (sha256,))

    def keep_layer_stats(self, event: LayerStatsReported) -> None:
        """Keep what was last measured in each layer, in place of what was kept before."""
        with self.database.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('layer_stats', ?)", (as_json(event),))

    # -- reading ----------------------------------------------------------------------------------------------

    def worker(self) -> WorkerAddress | None:
        """Return where this run's living worker listens, or None."""
        return WorkerAddress.read(self.path)

    def last_event_id(self) -> int:
        """Return the id of the last event that is kept, 0 before there is one."""
        last: int = self.database.read("SELECT COALESCE(MAX(id), 0) FROM events")[0][0]
        return last

    def rewinds(self) -> list[RewindInfo]:
        """List the states before changes that have a file, oldest first."""
        rows = self.database.read("SELECT value FROM meta WHERE key GLOB ?", (f"{_REWIND}*",))
        return sorted((RewindInfo.model_validate_json(value) for (value,) in rows), key=lambda info: info.change)

    def base_sha256(self) -> str:
        """Return the SHA-256 that base.pt had when it was written, "" if it never was."""
        rows = self.database.read("SELECT value FROM meta WHERE key = 'base_sha256'")
        return rows[0][0] if rows else ""

    def layer_stats(self) -> LayerStatsReported | None:
        """Return what was last measured in each layer, or None if nothing was."""
        rows = self.database.read("SELECT value FROM meta WHERE key = 'layer_stats'")
        event = event_from_json(rows[0][0]) if rows else None
        return event if isinstance(event, LayerStatsReported) else None

    def run_info(self, checkpoint: str | None = None) -> RunInfo | None:
        """Return the run as it was last prepared, with what it trains with by now, or None if it never was.

        Of a ``checkpoint``: as it was when that was saved, by the worker that did; now where that is not known.
        """
        end = math.inf if checkpoint is None else self._saved_as(checkpoint)
        sql = "SELECT id, body FROM events WHERE kind = 'RunPrepared' AND id < ? ORDER BY id DESC LIMIT 1"
        rows = self.database.read(sql, (end,))
        prepared = event_from_json(rows[0][1]) if rows else None
        if not isinstance(prepared, RunPrepared):
            return None
        run = prepared.run
        marks = ", ".join("?" * len(_CHANGING_KINDS))
        # A change may come while a checkpoint is still being written: it was copied at a time that it says.
        copied_at = "(SELECT json_extract(body, '$.checkpoint.saved_at') FROM events WHERE id = ?)"
        sql = (
            f"SELECT body FROM events WHERE kind IN ({marks}) AND id > ? AND id < ? "
            f"AND time <= ifnull({copied_at}, ?) ORDER BY id"
        )
        for (body,) in self.database.read(sql, (*_CHANGING_KINDS, rows[0][0], end, end, math.inf)):
            run = follow(run, event_from_json(body))
        return run

    def best_metric(self) -> Metric:
        """Return by what the best checkpoint is told by now."""
        return best_metric(self.config(), self.run_info())

    def num_epochs(self) -> int:
        """Return how many epochs the run is to have by now."""
        info = self.run_info()
        return self.config().training.epochs if info is None else info.present.epochs

    def curves(self, last_segment: int | None = None) -> dict[str, Curve]:
        """Read every tag's points, along the line that led to where the run is, or to the end of one of its segments.

        A checkpoint that a restore has left behind is on the line of its own segment.
        """
        return self._curves_along(self.lineage(last_segment))

    def lineage(self, last_segment: int | None = None) -> Lineage:
        """Read which piece of the curve goes on from which, up to one of them, if one is named."""
        parents = self.database.parents()
        sql = "SELECT json_extract(body, '$.segment'), json_extract(body, '$.change') FROM events WHERE kind = ?"
        before_changes: dict[int, int] = dict(self.database.read(sql, ("RunRewound",)))
        lineage = Lineage()
        rows = self.database.read("SELECT id, start_step FROM segments WHERE id > 0 ORDER BY id")
        for number, start_step in rows:
            if last_segment is None or number <= last_segment:
                lineage.begin(number, start_step, parents.get(number), before_changes.get(number))
        return lineage

    def _curves_along(self, lineage: Lineage) -> dict[str, Curve]:
        sql = "SELECT tag, segment, step, value FROM metrics WHERE segment <= ? ORDER BY tag, segment, step"
        rows = self.database.read(sql, (lineage.segment,))
        measured: dict[str, dict[int, tuple[array[int], array[float]]]] = {}
        for (tag, segment), points in itertools.groupby(rows, itemgetter(0, 1)):
            steps, values = measured.setdefault(tag, {})[segment] = array("q"), array("d")
            for _, _, step, value in points:
                steps.append(step)
                # SQLite keeps a NaN as NULL.
                values.append(math.nan if value is None else value)
        return {tag: Curve.along(lineage, pieces) for tag, pieces in measured.items()}

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
        lineage = self.lineage()
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
            lineage=lineage,
            curves=self._curves_along(lineage),
            checkpoints=self.checkpoints.listed(),
            freeze_events=freeze_events,
            log=self._events(*_LOGGED_KINDS),
            last_event_id=last_event_id,
            layer_stats=self.layer_stats(),
        )

    def listing(self) -> RunListing:
        """Read what the list of runs shows."""
        state, _ = self.recorded_state()
        worker = self.worker()
        config = self.config()
        info = self.run_info()
        best = best_checkpoint(self.checkpoints.listed(), best_metric(config, info))
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
        rows = self.database.read("SELECT id, start_step FROM segments ORDER BY id DESC LIMIT 1")
        if not rows:
            return 0, 0
        segment, start_step = rows[0]
        newest: int | None = self.database.read("SELECT MAX(step) FROM metrics WHERE segment = ?", (segment,))[0][0]
        step = start_step if newest is None else newest
        return step, step // info.steps_per_epoch if info else 0

    def _saved_as(self, checkpoint: str) -> float:
        """Return the id of the event that said that a checkpoint is saved, beyond all where there is none."""
        sql = (
            "SELECT MAX(id) FROM events WHERE kind = 'CheckpointSaved' AND json_extract(body, '$.checkpoint.name') = ?"
        )
        ((event_id,),) = self.database.read(sql, (checkpoint,))
        return math.inf if event_id is None else event_id

    def _events(self, *kinds: str) -> list[AnyEvent]:
        marks = ", ".join("?" * len(kinds))
        rows = self.database.read(f"SELECT body FROM events WHERE kind IN ({marks}) ORDER BY id", kinds)
        return [event_from_json(body) for (body,) in rows]

    def _last_event(self, kind: str) -> AnyEvent | None:
        rows = self.database.read("SELECT body FROM events WHERE kind = ? ORDER BY id DESC LIMIT 1", (kind,))
        return event_from_json(rows[0][0]) if rows else None


def created_at(path: Path) -> float:
    """Return when a run was begun, in Unix time, from its folder's name."""
    try:
        return datetime.datetime.strptime(path.name[:17], "%Y-%m-%d_%H%M%S").timestamp()
    except ValueError:
        return path.stat().st_mtime


def _make_new_folder(runs_dir: Path, stem: str) -> Path:
    for number in range(1, 1000):
        path = runs_dir / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise OSError(f"{runs_dir} already has 999 runs of this second")
