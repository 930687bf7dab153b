"""CheckpointItemModel: the checkpoints of the run on display, and of other runs beside it, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PySide6.QtCore import QModelIndex, QObject, Qt, Signal

from app.checkpoint_filter import CheckpointFilter
from app.viewmodels.checkpoint_columns import (
    ACCURACY,
    FROZEN,
    KEYS,
    LOSS,
    NUM_COLUMNS,
    NUMBERS,
    OF_COLUMNS,
    PARENT,
    RATE,
    RUN,
    SAVED,
    STAR,
    TAGS,
    SortKey,
    cell_text,
    cell_tooltip,
    headings,
    metric_heading,
    metric_name,
    sort_key,
)
from app.viewmodels.checkpoint_run import CheckpointKey, CheckpointRun, reason_text
from app.viewmodels.checkpoint_words import CheckpointWords
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.config import CheckpointsConfig, Metric, RunConfig
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import RunCheckpoints

Scope = Literal["run", "lineage", "all"]
"""Whose checkpoints are listed: the run's on display, also its parents' and branches', or those of all runs."""


class Standing(NamedTuple):
    """How a checkpoint stands among those of its run."""

    is_best: bool
    is_damaged: bool
    is_left_behind: bool
    """Whether a restore went back to before it."""


class CheckpointItemModel(TableItemModel):
    """One row a checkpoint: other runs' first, then those of the run on display, in the order of their saving."""

    columns_chosen = Signal()
    """The user chose which columns to see."""
    selected = Signal()
    """Other checkpoints are selected."""
    selection_wanted = Signal(object)
    """These checkpoints (list[CheckpointKey]) are to be selected, as one was chosen elsewhere."""
    scope_chosen = Signal()
    """Other runs' checkpoints are to be listed, or none."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.columns: dict[str, bool] = {}
        """The columns that the user chose to see or not to see, by key; the others are shown where there is room."""
        self.selected_keys: list[CheckpointKey] = []
        self.can_restore = False
        """Whether the run's state allows that a checkpoint is restored."""
        self.scope: Scope = "run"
        self.present = CheckpointRun()
        """The run on display; of the others nothing can be changed."""
        self._others: list[CheckpointRun] = []
        self._readings: list[RunCheckpoints] = []
        self._rows: list[tuple[CheckpointRun, CheckpointInfo]] = []
        self._row_of: dict[CheckpointKey, int] = {}
        self._tags_of_metrics: list[str] = []
        self._headings: tuple[str, ...] = ()
        self._shown_keys: set[str] = set()
        self._summaries: set[str] = set()
        self._words = CheckpointWords()

    # -- what comes in ----------------------------------------------------------------------------------------

    def rank_by(self, metric: Metric) -> None:
        """Give the star to the best by another metric of validation."""
        if metric != self.present.metric:
            self.present.metric = metric
            self.present.find_best()
            self._refresh_rows(self._present_rows())

    def keep_by(self, rules: CheckpointsConfig) -> None:
        """Say of each why it is kept, by a run's rules."""
        if rules != self.present.rules:
            self.present.rules = rules
            self._forget_reasons()

    def reset(self, checkpoints: list[CheckpointInfo], path: Path = Path(), config: RunConfig | None = None) -> None:
        """Have these checkpoints, oldest first, of the run at ``path`` on display; an empty list for none."""
        self.beginResetModel()
        before, self.present = self.present, CheckpointRun(path, config)
        self.present.metric, self.present.rules = before.metric, before.rules
        self.present.take(checkpoints)
        self._take_readings()
        self._take_rows()
        self.endResetModel()

    def show_others(self, readings: list[RunCheckpoints]) -> None:
        """List the checkpoints of other runs as well, as their folders were read; those of the present one are here."""
        if readings != self._readings:
            self.beginResetModel()
            self._readings = readings
            self._take_readings()
            self._take_rows()
            self.endResetModel()

    def add(self, checkpoint: CheckpointInfo) -> None:
        """Add a checkpoint of the present run that was just saved; one of the same name is replaced."""
        run = self.present
        run.problems.pop(checkpoint.name, None)
        self._add_columns(checkpoint)
        self._note_values(checkpoint)
        best_before, point_before = run.best_name, run.resume_point
        row = self._row_of.get(run.key(checkpoint.name))
        if row is None:
            row = len(self._rows)
            self.beginInsertRows(QModelIndex(), row, row)
            self._rows.append((run, checkpoint))
            self._row_of[run.key(checkpoint.name)] = row
            run.append(checkpoint)
            self.endInsertRows()
            # It was the last one, and the run would have gone on from that.
            changed = {row - 1} & set(self._present_rows()) | self._rows_of({point_before})
        else:
            self._words.forget(self._rows[row][1])
            self._rows[row] = (run, checkpoint)
            run.replace(checkpoint)
            changed = {row}
        if best_before != run.best_name:
            changed |= self._rows_of({best_before, run.best_name})
        for each in changed:
            self._refresh_rows(range(each, each + 1))
        self._forget_reasons()

    def put_back(self, checkpoints: Sequence[CheckpointInfo]) -> None:
        """List checkpoints again that were deleted, each where it was."""
        back = {info.name for info in checkpoints}
        kept = [info for info in self.present.infos if info.name not in back]
        self._take(sorted([*kept, *checkpoints], key=lambda info: (info.saved_at, info.step)))

    def remove(self, names: Sequence[str]) -> None:
        """Drop checkpoints that were deleted."""
        gone = {name for name in names if self.present.info(name) is not None}
        if gone:
            self._take([info for info in self.present.infos if info.name not in gone])

    def show_problems(self, problems: dict[str, str]) -> None:
        """Mark checkpoints whose files are missing or altered: problem by name, "" or absent for none."""
        run = self.present
        found = {name: problem for name, problem in problems.items() if problem and run.info(name) is not None}
        if found != run.problems:
            changed = found.keys() | run.problems.keys()
            run.problems = found
            rows = sorted(self._row_of[run.key(name)] for name in changed)
            self._refresh_rows(range(rows[0], rows[-1] + 1))

    def show_left_behind(self, names: set[str]) -> None:
        """Mark checkpoints that led to nothing, as the run has gone back behind them since."""
        run = self.present
        changed, run.left_behind = names ^ run.left_behind, names
        rows = sorted(self._row_of[run.key(name)] for name in changed if run.info(name) is not None)
        if rows:
            self._refresh_rows(range(rows[0], rows[-1] + 1))

    def show_resume_point(self, name: str | None) -> None:
        """Mark the checkpoint from which the run would go on, None for its start."""
        run = self.present
        if name != run.resume_point:
            changed, run.resume_point = self._rows_of({name, run.resume_point}), name
            run.forget_reasons()
            for each in changed:
                self._refresh_rows(range(each, each + 1))

    def refresh_ages(self) -> None:
        """Say anew how long ago each was saved."""
        if self._rows:
            self.dataChanged.emit(self.index(0, SAVED), self.index(len(self._rows) - 1, SAVED))

    def choose_column(self, key: str, is_shown: bool) -> None:
        """Show a column or not, whatever room there is."""
        self.columns = {**self.columns, key: is_shown}
        self.columns_chosen.emit()

    def forget_columns(self) -> None:
        """Leave it to the room again which columns are shown."""
        self.columns = {}
        self.columns_chosen.emit()

    def choose_scope(self, scope: Scope) -> None:
        """List the checkpoints of other runs, too, or of no others."""
        if scope != self.scope:
            self.scope = scope
            self.scope_chosen.emit()

    def note_selected(self, keys: list[CheckpointKey]) -> None:
        """Take over which checkpoints are selected in the table."""
        if keys != self.selected_keys:
            self.selected_keys = keys
            self.selected.emit()

    # -- what is known ----------------------------------------------------------------------------------------

    def checkpoint(self, key: CheckpointKey) -> CheckpointInfo | None:
        """Return what is known of a checkpoint, None if it is not listed."""
        row = self._row_of.get(key)
        return None if row is None else self._rows[row][1]

    def run_of(self, key: CheckpointKey) -> CheckpointRun:
        """Return the run of a checkpoint that is listed."""
        return self._rows[self._row_of[key]][0]

    def problem_of(self, key: CheckpointKey) -> str:
        """Say what is wrong with a checkpoint's file, "" if nothing is known to be."""
        return self.run_of(key).problems.get(key.name, "") if key in self._row_of else ""

    def row_of(self, key: CheckpointKey) -> int | None:
        """Return the row of a checkpoint, None if it is not listed."""
        return self._row_of.get(key)

    def key_at(self, row: int) -> CheckpointKey:
        """Name the checkpoint of a row."""
        run, info = self._rows[row]
        return run.key(info.name)

    def rank_of_run(self, row: int) -> int:
        """Return the place of a row's run where rows are grouped: the present one's first, then the newest."""
        run = self._rows[row][0]
        return 0 if run is self.present else 1 + self._others.index(run)

    def key(self, column: int) -> str:
        """Name a column in the settings."""
        return KEYS[column] if column < NUM_COLUMNS else metric_name(self._tag(column))

    def has_values(self, column: int) -> bool:
        """Tell whether a column says anything: a metric may be another run's, and one run needs no name."""
        return self.key(column) in self._shown_keys if column >= RATE else True

    @property
    def has_others(self) -> bool:
        """Tell whether other runs' checkpoints are listed, too."""
        return bool(self._others)

    @property
    def frozen_summaries(self) -> set[str]:
        """Return what is frozen in the checkpoints, each once."""
        return self._summaries

    @property
    def metric_tags(self) -> list[str]:
        """Return the tags of the metrics that have a column of their own."""
        return self._tags_of_metrics

    def longest_tags(self) -> str:
        """Return the longest that a checkpoint's tags may be, as long as its file is whole and has no label."""
        return ", ".join((self.tr("best"), self.tr("last"), reason_text("stop")))

    def found_by(self, wanted: CheckpointFilter, rows: range | None = None) -> list[int]:
        """Return the rows, of these or of all, whose checkpoints have the words and the numbers that are wanted."""
        rows = range(len(self._rows)) if rows is None else rows
        if wanted.is_empty:
            return list(rows)
        within = [row for row in rows if wanted.has_numbers(self._rows[row][1])]
        if not wanted.words:
            return within
        return self._words.rows_with(wanted.words, within, self._rows, are_runs_named=self.has_others)

    def sort_key(self, row: int, column: int) -> Any:
        """Return what a cell is sorted by, None where it has no value: those come last in every order."""
        return self._sort_key(column)(*self._rows[row])

    def sort_keys(self, column: int) -> list[Any]:
        """Return what every cell of a column is sorted by."""
        of = self._sort_key(column)
        return [of(run, info) for run, info in self._rows]

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of columns, which grows with the metrics."""
        return 0 if parent.isValid() else NUM_COLUMNS + len(self._tags_of_metrics)

    def alignment(self, column: int) -> Qt.AlignmentFlag:
        """Return how a column's heading and cells are aligned."""
        is_number = column in NUMBERS or column >= NUM_COLUMNS
        side = Qt.AlignmentFlag.AlignRight if is_number else Qt.AlignmentFlag.AlignLeft
        return side | Qt.AlignmentFlag.AlignVCenter

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        # Qt asks for each of them many times as a row is added, and they are translated.
        if len(self._headings) != self.columnCount():
            self._headings = (*headings(), *map(metric_heading, self._tags_of_metrics))
        return self._headings

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading, and of which split its figures are."""
        if role == Qt.ItemDataRole.ToolTipRole and (section in {LOSS, ACCURACY} or section >= NUM_COLUMNS):
            return self.tr("Measured on the validation split")
        if role == Qt.ItemDataRole.InitialSortOrderRole:
            # What is best, largest or newest comes first at the first click.
            is_ascending = section in {LOSS, FROZEN, TAGS, RUN, PARENT}
            return Qt.SortOrder.AscendingOrder if is_ascending else Qt.SortOrder.DescendingOrder
        return super().headerData(section, orientation, role)

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows, or its number for sorting."""
        return self.cell(index.row(), index.column(), role)

    def cell(self, row: int, column: int, role: int) -> Any:
        """Return what ``data`` does, for a row and a column."""
        run, info = self._rows[row]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return cell_text(run, info, column, self._tag(column))
            case Qt.ItemDataRole.ToolTipRole:
                return cell_tooltip(run, info, column, self._tag(column))
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(column)
            case Qt.ItemDataRole.AccessibleTextRole:
                is_best = column == STAR and info.name == run.best_name
                return run.best_text if is_best else cell_text(run, info, column, self._tag(column))
        return None

    def standing(self, row: int) -> Standing:
        """Return how the checkpoint of a row stands."""
        run, info = self._rows[row]
        return Standing(info.name == run.best_name, info.name in run.problems, info.name in run.left_behind)

    # -- inside -----------------------------------------------------------------------------------------------

    def _tag(self, column: int) -> str:
        return self._tags_of_metrics[column - NUM_COLUMNS] if column >= NUM_COLUMNS else ""

    def _sort_key(self, column: int) -> SortKey:
        return sort_key(column, self._tag(column))

    def _present_rows(self) -> range:
        return range(len(self._rows) - len(self.present.infos), len(self._rows))

    def _rows_of(self, names: set[str | None]) -> set[int]:
        """Return the rows of those of the present run's checkpoints that are listed."""
        keys = (self.present.key(name) for name in names if name is not None)
        return {self._row_of[key] for key in keys if key in self._row_of}

    def _take(self, checkpoints: list[CheckpointInfo]) -> None:
        self.beginResetModel()
        self.present.take(checkpoints)
        self._take_rows()
        self.endResetModel()

    def _take_readings(self) -> None:
        readable = [reading for reading in self._readings if not reading.damage]
        self._others = [CheckpointRun.of_reading(each) for each in readable if each.path != self.present.path]

    def _take_rows(self) -> None:
        self._rows = [(run, info) for run in (*reversed(self._others), self.present) for info in run.infos]
        self._row_of = {run.key(info.name): row for row, (run, info) in enumerate(self._rows)}
        self._shown_keys, self._summaries = set(), set()
        self._words.forget_all()
        if self._others:
            self._shown_keys.add(KEYS[RUN])
        if self._others and any(run.origin for run in (*self._others, self.present)):
            self._shown_keys.add(KEYS[PARENT])
        for _, info in self._rows:
            self._note_values(info)
            self._tags_of_metrics += self._new_metrics(info)

    def _forget_reasons(self) -> None:
        self.present.forget_reasons()
        if self.present.rules.is_thinning or self.present.rules.disk_gb is not None:
            self._refresh_rows(self._present_rows())

    def _note_values(self, info: CheckpointInfo) -> None:
        self._summaries.add(info.frozen_summary)
        self._shown_keys.update(map(metric_name, info.metrics))
        if info.rate is not None:
            self._shown_keys.add(KEYS[RATE])

    def _new_metrics(self, info: CheckpointInfo) -> list[str]:
        known = self._tags_of_metrics
        return [tag for tag in info.metrics if metric_name(tag) not in OF_COLUMNS and tag not in known]

    def _add_columns(self, checkpoint: CheckpointInfo) -> None:
        if new := self._new_metrics(checkpoint):
            place = self.columnCount()
            self.beginInsertColumns(QModelIndex(), place, place + len(new) - 1)
            self._tags_of_metrics += new
            self.endInsertColumns()

    def _refresh_rows(self, rows: range) -> None:
        """Say that the stars and tags of rows have changed; both are drawn in other colours, so whole rows are."""
        if rows:
            self.dataChanged.emit(self.index(rows[0], 0), self.index(rows[-1], self.columnCount() - 1))
