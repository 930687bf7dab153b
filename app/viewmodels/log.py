"""LogItemModel: every event that a person may want to read back, one row each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QModelIndex, QObject, Qt

from app.plan_syntax import plan_text
from app.viewmodels.cached_layers import place_text, share_text
from app.viewmodels.quantities import (
    clock_text,
    count_text,
    moment_text,
    number_text,
    percent_text,
    rate_text,
    size_text,
)
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.client import WorkerLost
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.events import (
    AnyEvent,
    ChangeAdvised,
    CheckpointEdited,
    CheckpointSaved,
    CheckpointsDeleted,
    CheckpointsPutBack,
    CommandRejected,
    FeaturesCached,
    FreezeVerified,
    LogWritten,
    StateChanged,
)
from trainer.messages.states import RunState

MAX_ROWS = 10_000
MAX_NAMES = 5
TIME, WHAT, ASKED, APPLIED, RESULT = range(5)

LevelRole = Qt.ItemDataRole.UserRole + 1
"""The row's weight: "info", "warning" or "error"."""


@dataclass(frozen=True)
class LogRow:
    """A row of the log. Steps count completed updates; None where the event has none."""

    time: float
    what: str
    asked_step: int | None
    applied_step: int | None
    result: str
    level: str = "info"


class LogItemModel(TableItemModel):
    """The log of the run on display, oldest first; beyond MAX_ROWS the oldest leave (run.db keeps them all)."""

    number_columns = frozenset({ASKED, APPLIED})

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[LogRow] = []

    def reset(self, events: list[AnyEvent]) -> None:
        """Show the events of a run that was opened; an empty list clears the log."""
        self.beginResetModel()
        rows = [self._row_of(event) for event in events]
        self._rows = [row for row in rows if row is not None][-MAX_ROWS:]
        self.endResetModel()

    def add(self, event: AnyEvent | WorkerLost) -> None:
        """Add a row for an event, if it is one to be read."""
        row = self._row_of(event)
        if row is None:
            return
        if len(self._rows) >= MAX_ROWS:
            self.beginRemoveRows(QModelIndex(), 0, 0)
            del self._rows[0]
            self.endRemoveRows()
        self.beginInsertRows(QModelIndex(), len(self._rows), len(self._rows))
        self._rows.append(row)
        self.endInsertRows()

    def rows_text(self, rows: list[int]) -> str:
        """Return rows as tab-separated text, for the clipboard."""
        return "\n".join("\t".join(self._text(self._rows[row], column) for column in range(5)) for row in rows)

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            self.tr("Time"),
            self.tr("What"),
            self.tr("Asked at step"),
            self.tr("Applied at step"),
            self.tr("Result"),
        )

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        row = self._rows[index.row()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(row, index.column())
            case Qt.ItemDataRole.ToolTipRole:
                if index.column() == TIME:
                    return moment_text(row.time)
                return row.what if index.column() == WHAT else row.result or row.what
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(index.column())
            case _:
                return row.level if role == LevelRole else None

    def _text(self, row: LogRow, column: int) -> str:
        match column:
            case 0:
                return clock_text(row.time)
            case 1:
                return row.what
            case 2:
                return "" if row.asked_step is None else count_text(row.asked_step)
            case 3:
                return "" if row.applied_step is None else count_text(row.applied_step)
            case _:
                return row.result

    # -- events in words --------------------------------------------------------------------------------------

    def _row_of(self, event: AnyEvent | WorkerLost) -> LogRow | None:
        match event:
            case WorkerLost():
                if event.was_expected and not event.sentence:
                    return None
                level = "info" if event.was_expected else "error"
                return LogRow(time.time(), self.tr("Worker ended"), None, None, event.sentence, level)
            case StateChanged():
                # Time 0 marks a state that the window tells itself: no fact about the run.
                return self._state_row(event) if event.time else None
            case LayersFrozen() | LayersUnfrozen() | RateMultiplierChanged() | BatchNormChanged():
                if not event.layers:
                    return None
                what = self._source_text(event.source)
                return LogRow(event.time, event.sentence, event.requested_step, event.applied_step, what)
            case RateChanged():
                what = self.tr("{} before").format(rate_text(event.before))
                rate = self.tr("Rate {}").format(rate_text(event.rate))
                return LogRow(event.time, rate, event.requested_step, event.applied_step, what)
            case PlanChanged():
                what = plan_text([phase.model_dump() for phase in event.plan[event.num_begun :]])
                return LogRow(event.time, self.tr("Plan changed"), event.requested_step, event.applied_step, what)
            case ChangeAdvised():
                return LogRow(event.time, self.tr("Advice"), None, event.step, event.sentence)
            case TrainingChanged():
                return self._training_row(event)
            case CheckpointSaved():
                saved = event.checkpoint
                figures = self.tr("loss {} · accuracy {} · {}").format(
                    number_text(saved.loss, 4), percent_text(saved.accuracy), saved.name
                )
                return LogRow(event.time, self.tr("Checkpoint saved"), None, saved.step, figures)
            case CheckpointEdited() | CheckpointsDeleted() | CheckpointsPutBack():
                return self._list_row(event)
            case CheckpointRestored():
                what = self.tr("Weights restored") if event.weights_only else self.tr("Checkpoint restored")
                return LogRow(event.time, what, None, event.step, event.name)
            case RunRewound():
                result = self.tr("to before: {}").format(event.sentence)
                return LogRow(event.time, self.tr("Rewound"), None, event.step, result)
            case RewindUndone():
                return LogRow(event.time, self.tr("Going back undone"), None, event.step, self.tr("as before it"))
            case CommandRejected():
                return LogRow(
                    event.time,
                    self._refusal_text(event.command),
                    None,
                    None,
                    " ".join(event.reason.splitlines()),
                    "warning",
                )
            case FreezeVerified():
                return self._verified_row(event)
            case FeaturesCached():
                return self._cached_row(event)
            case LogWritten():
                return LogRow(event.time, self._level_text(event.level), None, None, event.text, event.level)
            case _:
                return None

    def _level_text(self, level: str) -> str:
        return {
            "info": self.tr("Note"),
            "warning": self.tr("Warning"),
            "error": self.tr("Error"),
        }[level]

    def _state_row(self, event: StateChanged) -> LogRow:
        what = {
            RunState.STARTING: self.tr("Worker started"),
            RunState.IDLE: self.tr("Worker ready"),
            RunState.PREPARING: self.tr("Preparing the run"),
            RunState.READY: self.tr("Run ready"),
            RunState.RUNNING: self.tr("Running"),
            RunState.PAUSED: self.tr("Paused"),
            RunState.STOPPING: self.tr("Stopping"),
            RunState.FINISHED: self.tr("Finished"),
            RunState.STOPPED: self.tr("Stopped"),
            RunState.FAILED: self.tr("Failed"),
        }[event.state]
        level = "error" if event.state is RunState.FAILED else "info"
        return LogRow(event.time, what, None, None, event.sentence, level)

    def _list_row(self, event: CheckpointEdited | CheckpointsDeleted | CheckpointsPutBack) -> LogRow:
        if isinstance(event, CheckpointEdited):
            info = event.checkpoint
            words = [info.name, self.tr("pinned") if info.is_pinned else "", info.label, " ".join(info.note.split())]
            result = " · ".join(filter(None, words))
            return LogRow(event.time, self.tr("Checkpoint marked"), None, info.step, result)
        if isinstance(event, CheckpointsPutBack):
            words = [self._names_text([info.name for info in event.checkpoints]), event.problem]
            level = "warning" if event.problem else "info"
            return LogRow(
                event.time, self.tr("Checkpoints put back"), None, None, " · ".join(filter(None, words)), level
            )
        freed = self.tr("{} freed: {}").format(size_text(event.freed_bytes), self._names_text(event.names))
        level = "warning" if event.problem else "info"
        return LogRow(event.time, self.tr("Checkpoints deleted"), None, None, event.problem or freed, level)

    def _names_text(self, names: list[str]) -> str:
        shown = ", ".join(names[:MAX_NAMES])
        if len(names) <= MAX_NAMES:
            return shown
        return self.tr("{} and {} more").format(shown, count_text(len(names) - MAX_NAMES))

    def _training_row(self, event: TrainingChanged) -> LogRow:
        off = self.tr("off")
        what, before = [], []
        if event.epochs != event.before_epochs:
            what.append(self.tr("Epochs {}").format(count_text(event.epochs)))
            before.append(count_text(event.before_epochs))
        if event.patience != event.before_patience:
            what.append(self.tr("Patience {}").format(count_text(event.patience) if event.patience else off))
            before.append(count_text(event.before_patience) if event.before_patience else off)
        if event.batch_parts != event.before_batch_parts:
            what.append(self.tr("Parts of a batch {}").format(count_text(event.batch_parts)))
            before.append(count_text(event.before_batch_parts))
        result = self.tr("{} before").format(", ".join(before)) if before else self.tr("unchanged")
        words = ", ".join(what) or self.tr("Epochs and patience")
        return LogRow(event.time, words, event.requested_step, event.applied_step, result)

    def _verified_row(self, event: FreezeVerified) -> LogRow:
        if event.drifted:
            result = self.tr("Drifted: {}").format(", ".join(event.drifted))
            return LogRow(event.time, self.tr("Freeze broken"), None, event.step, result, "error")
        result = self.tr("frozen layers unchanged to the bit: {}").format(count_text(event.num_verified))
        return LogRow(event.time, self.tr("Freeze verified"), None, event.step, result)

    def _cached_row(self, event: FeaturesCached) -> LogRow:
        if not event.layers:
            return LogRow(event.time, self.tr("Features not cached"), None, event.applied_step, event.reason)
        views = self.tr("validation only") if not event.views else self.tr("{} views").format(count_text(event.views))
        views = self.tr("1 view") if event.views == 1 else views
        takes = f"{size_text(event.num_bytes)} {place_text(event)}"
        saves = self.tr("{} of the forward computing saved").format(share_text(event.saved_share))
        result = " · ".join(filter(None, (event.sentence, views, takes, saves, event.reason)))
        return LogRow(event.time, self.tr("Features cached"), None, event.applied_step, result)

    def _refusal_text(self, command: str) -> str:
        return {
            "InspectModel": self.tr("Look at the model refused"),
            "ListModels": self.tr("List of models refused"),
            "CheckData": self.tr("Check of the data refused"),
            "EstimateRun": self.tr("Estimate of the run refused"),
            "FindRate": self.tr("Search for a rate refused"),
            "PreviewImage": self.tr("Preview of the image refused"),
            "CancelLookUp": self.tr("Cancel refused"),
            "PrepareRun": self.tr("New run refused"),
            "OpenRun": self.tr("Resume refused"),
            "StartRun": self.tr("Start refused"),
            "PauseRun": self.tr("Pause refused"),
            "UnpauseRun": self.tr("Unpause refused"),
            "StopRun": self.tr("Stop refused"),
            "FreezeLayers": self.tr("Freeze refused"),
            "UnfreezeLayers": self.tr("Unfreeze refused"),
            "SetRate": self.tr("Change of the rate refused"),
            "SetBatchNorm": self.tr("Change of the statistics refused"),
            "SetRateMultiplier": self.tr("Change of a rate multiplier refused"),
            "SetPlan": self.tr("Change of the plan refused"),
            "ChangeTraining": self.tr("Change of the epochs or the patience refused"),
            "Rewind": self.tr("Going back refused"),
            "SaveCheckpoint": self.tr("Checkpoint refused"),
            "RestoreCheckpoint": self.tr("Restore refused"),
            "EditCheckpoint": self.tr("Pin, label or note refused"),
            "DeleteCheckpoints": self.tr("Deletion refused"),
            "PutCheckpointsBack": self.tr("Putting back refused"),
        }.get(command, self.tr("Refused"))

    def _source_text(self, source: str) -> str:
        return {
            "user": self.tr("by hand"),
            "plan": self.tr("by the plan"),
            "restore": self.tr("by a restore"),
            "advisor": self.tr("as advised"),
        }.get(source, source)
