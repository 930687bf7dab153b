"""RunListItemModel: the runs in a folder, newest first, each above its branches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Qt

from app.viewmodels.quantities import MISSING, count_text, day_text, percent_text, time_text
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.messages.states import RunState
from trainer.run_list import by_branch, rails
from trainer.run_record import RunListing

RUN, MODEL, STATE, EPOCH, ACCURACY, STARTED, FOLDER = range(7)
NUM_COLUMNS = 7

SortRole = Qt.ItemDataRole.UserRole + 1
PathRole = Qt.ItemDataRole.UserRole + 2
RailsRole = Qt.ItemDataRole.UserRole + 4
"""For each level down to a branch in its tree, the root's first: whether the line there goes on below it."""
ToneRole = Qt.ItemDataRole.UserRole + 3
"""How the state reads: "live", "danger" or ""."""


class RunListItemModel(TableItemModel):
    """One row a run. Rows are replaced as a whole when the folder was read again, and only if others are there."""

    number_columns = frozenset({EPOCH, ACCURACY})

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._runs: list[RunListing] = []
        self._rails: list[tuple[bool, ...]] = []
        self._ambiguous: set[str] = set()
        """The titles that several runs have: the time when each began tells them apart."""

    def show_runs(self, runs: list[RunListing]) -> None:
        """Show these runs."""
        placed = by_branch(runs)
        before, now = self._runs, [run for run, _ in placed]
        lines = rails([depth for _, depth in placed])
        if [run.path for run in now] == [run.path for run in before] and lines == self._rails:
            # The same rows: nobody who looks at the list loses their place in it.
            self._take(now)
            for row in (row for row, (old, new) in enumerate(zip(before, now, strict=True)) if old != new):
                self.dataChanged.emit(self.index(row, 0), self.index(row, NUM_COLUMNS - 1))
            return
        self.beginResetModel()
        self._take(now)
        self._rails = lines
        self.endResetModel()

    def _take(self, runs: list[RunListing]) -> None:
        self._runs = runs
        num_of_title = Counter(run.title for run in runs)
        self._ambiguous = {title for title, count in num_of_title.items() if count > 1}

    def row_of(self, path: Path) -> int | None:
        """Return the row of a run's folder, or None."""
        return next((row for row, run in enumerate(self._runs) if run.path == path), None)

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._runs)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            self.tr("Run"),
            self.tr("Model"),
            self.tr("State"),
            self.tr("Epoch"),
            self.tr("Accuracy at best"),
            self.tr("Started"),
            self.tr("Folder"),
        )

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows, or its number for sorting."""
        run = self._runs[index.row()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(run, index.column())
            case Qt.ItemDataRole.ToolTipRole:
                origin = self.tr("Branched from {}").format(run.branched_from) if run.branched_from else ""
                return run.problem or "\n".join(filter(None, [origin, str(run.path)]))
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(index.column())
        if role == SortRole:
            # By when they began, trees stay together, in the order of their rows.
            is_by_time = index.column() == STARTED
            return -index.row() if is_by_time else self._sort_key(run, index.column())
        if role == RailsRole:
            return self._rails[index.row()]
        if role == PathRole:
            return str(run.path)
        if role == ToneRole:
            return "danger" if run.problem or run.was_interrupted else "live" if run.is_live else ""
        return None

    def _text(self, run: RunListing, column: int) -> str:
        match column:
            case 0:
                return f"{run.title} · {time_text(run.created_at)}" if run.title in self._ambiguous else run.title
            case 1:
                return run.model
            case 2:
                return self._state_text(run)
            case 3:
                if not run.num_epochs:
                    return MISSING
                return self.tr("{} of {}").format(count_text(run.epoch), count_text(run.num_epochs))
            case 4:
                return percent_text(run.best_accuracy)
            case 5:
                return day_text(run.created_at)
            case _:
                return run.path.name

    def _sort_key(self, run: RunListing, column: int) -> Any:
        match column:
            case 3:
                return run.epoch
            case 4:
                return -1.0 if run.best_accuracy is None else run.best_accuracy
            case _:
                return self._text(run, column).casefold()

    def _state_text(self, run: RunListing) -> str:
        if run.problem:
            return self.tr("damaged")
        if run.was_interrupted:
            return self.tr("interrupted")
        return {
            RunState.STARTING: self.tr("starting"),
            RunState.IDLE: self.tr("idle"),
            RunState.PREPARING: self.tr("preparing"),
            RunState.READY: self.tr("ready"),
            RunState.RUNNING: self.tr("running"),
            RunState.PAUSED: self.tr("paused"),
            RunState.STOPPING: self.tr("stopping"),
            RunState.FINISHED: self.tr("finished"),
            RunState.STOPPED: self.tr("stopped"),
            RunState.FAILED: self.tr("failed"),
        }[run.state]
