"""CheckpointItemModel: the checkpoints of the run on display, one row each."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import QModelIndex, QObject, Qt, Signal

from app.viewmodels.kept_for import kept_for
from app.viewmodels.quantities import (
    ago_text,
    count_text,
    moment_text,
    number_text,
    percent_text,
    rate_text,
    size_text,
)
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.config import CheckpointsConfig, Metric
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import best_checkpoint, checkpoint_rank

STAR, EPOCH, STEP, LOSS, ACCURACY, FROZEN, SIZE, SAVED, TAGS, RATE = range(10)
NUM_COLUMNS = 10
"""Of every run. Those of further metrics follow, as checkpoints come that have them."""

SortRole = Qt.ItemDataRole.UserRole + 1
NameRole = Qt.ItemDataRole.UserRole + 2
IsBestRole = Qt.ItemDataRole.UserRole + 3
IsDamagedRole = Qt.ItemDataRole.UserRole + 4
InfoRole = Qt.ItemDataRole.UserRole + 5

_KEYS = ("star", "epoch", "step", "loss", "accuracy", "frozen", "size", "saved", "tags", "rate")
_NUMBERS = frozenset({EPOCH, STEP, LOSS, ACCURACY, SIZE, RATE})
_FIELDS = {EPOCH: "epoch", STEP: "step", SIZE: "size_bytes", SAVED: "saved_at", RATE: "rate"}
_OF_COLUMNS = frozenset({"Loss", "Accuracy"})
"""The metrics that have a column in every run."""
_SHARES = frozenset({"Top-5 accuracy"})


class CheckpointItemModel(TableItemModel):
    """One row a checkpoint, in the order in which they were saved."""

    columns_chosen = Signal()
    """The user chose which columns to see."""
    selected = Signal()
    """Other checkpoints are selected."""
    selection_wanted = Signal(object)
    """These checkpoints (list[str]) are to be selected, as one was chosen elsewhere."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.columns: dict[str, bool] = {}
        """The columns that the user chose to see or not to see, by key; the others are shown where there is room."""
        self.selected_names: list[str] = []
        self.can_restore = False
        """Whether the run's state allows that a checkpoint is restored."""
        self._checkpoints: list[CheckpointInfo] = []
        self._row_of: dict[str, int] = {}
        self._tags_of_metrics: list[str] = []
        self._present: set[str] = set()
        self._summaries: set[str] = set()
        self._problems: dict[str, str] = {}
        self._metric: Metric = "accuracy"
        self._best_name: str | None = None
        self._rules = CheckpointsConfig()
        self._kept_for: dict[str, list[str]] | None = None

    # -- what comes in ----------------------------------------------------------------------------------------

    def rank_by(self, metric: Metric) -> None:
        """Give the star to the best by another metric of validation."""
        if metric != self._metric:
            self._metric, self._kept_for = metric, None
            self._find_best()
            self._refresh_tags(range(len(self._checkpoints)))

    def keep_by(self, rules: CheckpointsConfig) -> None:
        """Say of each why it is kept, by a run's rules."""
        if rules != self._rules:
            self._rules = rules
            self._forget_reasons()

    def reset(self, checkpoints: list[CheckpointInfo]) -> None:
        """Show these checkpoints, oldest first; an empty list clears the table."""
        self.beginResetModel()
        self._take(checkpoints)
        self._problems = {}
        self.endResetModel()

    def add(self, checkpoint: CheckpointInfo) -> None:
        """Add a checkpoint that was just saved; one of the same name is replaced."""
        self._problems.pop(checkpoint.name, None)
        self._add_columns(checkpoint)
        self._note_values(checkpoint)
        row = self._row_of.get(checkpoint.name)
        if row is not None:
            self._replace(row, checkpoint)
            return
        row, best_before = len(self._checkpoints), self._best_name
        self.beginInsertRows(QModelIndex(), row, row)
        self._checkpoints.append(checkpoint)
        self._row_of[checkpoint.name] = row
        self._compare_with_best(checkpoint)
        self.endInsertRows()
        if row:
            self._refresh_tags([row - 1])
        if best_before != self._best_name and best_before in self._row_of:
            self._refresh_tags([self._row_of[best_before]])
        self._forget_reasons()

    def put_back(self, checkpoints: Sequence[CheckpointInfo]) -> None:
        """List checkpoints again that were deleted, each where it was."""
        back = {info.name for info in checkpoints}
        kept = [info for info in self._checkpoints if info.name not in back]
        self.beginResetModel()
        self._take(sorted([*kept, *checkpoints], key=lambda info: (info.saved_at, info.step)))
        self.endResetModel()

    def remove(self, names: Sequence[str]) -> None:
        """Drop checkpoints that were deleted."""
        gone = {name for name in names if name in self._row_of}
        if not gone:
            return
        self.beginResetModel()
        self._take([info for info in self._checkpoints if info.name not in gone])
        self._problems = {name: problem for name, problem in self._problems.items() if name not in gone}
        self.endResetModel()

    def show_problems(self, problems: dict[str, str]) -> None:
        """Mark checkpoints whose files are missing or altered: problem by name, "" or absent for none."""
        found = {name: problem for name, problem in problems.items() if problem and name in self._row_of}
        if found != self._problems:
            changed = found.keys() | self._problems.keys()
            self._problems = found
            self._refresh_tags([self._row_of[name] for name in changed if name in self._row_of])

    def refresh_ages(self) -> None:
        """Say anew how long ago each was saved."""
        if self._checkpoints:
            self.dataChanged.emit(self.index(0, SAVED), self.index(len(self._checkpoints) - 1, SAVED))

    def choose_column(self, key: str, is_shown: bool) -> None:
        """Show a column or not, whatever room there is."""
        self.columns = {**self.columns, key: is_shown}
        self.columns_chosen.emit()

    def forget_columns(self) -> None:
        """Leave it to the room again which columns are shown."""
        self.columns = {}
        self.columns_chosen.emit()

    def note_selected(self, names: list[str]) -> None:
        """Take over which checkpoints are selected in the table."""
        if names != self.selected_names:
            self.selected_names = names
            self.selected.emit()

    # -- what is known ----------------------------------------------------------------------------------------

    def checkpoints(self) -> list[CheckpointInfo]:
        """Return what is listed, oldest first."""
        return list(self._checkpoints)

    def checkpoint(self, name: str) -> CheckpointInfo | None:
        """Return what is known of a checkpoint, None if it is not listed."""
        row = self._row_of.get(name)
        return None if row is None else self._checkpoints[row]

    def at(self, row: int) -> CheckpointInfo:
        """Return the checkpoint of a row."""
        return self._checkpoints[row]

    def key(self, column: int) -> str:
        """Name a column in the settings."""
        return _KEYS[column] if column < NUM_COLUMNS else _metric_name(self._tags_of_metrics[column - NUM_COLUMNS])

    def has_values(self, column: int) -> bool:
        """Tell whether any checkpoint has the value of a column: a metric may be another run's."""
        return self.key(column) in self._present if column >= RATE else True

    @property
    def frozen_summaries(self) -> set[str]:
        """Return what is frozen in the checkpoints, each once."""
        return self._summaries

    def longest_tags(self) -> str:
        """Return the longest that a checkpoint's tags may be, as long as its file is whole and has no label."""
        return ", ".join((self.tr("best"), self.tr("last"), self._reason_text("stop")))

    def problem_of(self, name: str) -> str:
        """Say what is wrong with a checkpoint's file, "" if nothing is known to be."""
        return self._problems.get(name, "")

    def words_of(self, row: int) -> str:
        """Return all words by which a checkpoint is found, in small letters."""
        info = self._checkpoints[row]
        tags = [*self.tags_of(info), info.label, info.note]
        return " ".join((info.name, *tags, info.frozen_summary, *info.frozen)).casefold()

    def sort_key(self, row: int, column: int) -> Any:
        """Return what a cell is sorted by, None where it has no value: those come last in every order."""
        return self._key_of(column)(self._checkpoints[row])

    def sort_keys(self, column: int) -> list[Any]:
        """Return what every cell of a column is sorted by."""
        return list(map(self._key_of(column), self._checkpoints))

    def _key_of(self, column: int) -> Callable[[CheckpointInfo], Any]:
        match column:
            case 0:
                return lambda info: info.name == self._best_name
            case 3:
                return lambda info: _finite(info.loss)
            case 4:
                return lambda info: _finite(info.accuracy)
            case 5:
                return lambda info: info.frozen_summary.casefold() or None
            case 8:
                return lambda info: ", ".join(self.tags_of(info)).casefold() or None
            case 1 | 2 | 6 | 7 | 9:
                return operator.attrgetter(_FIELDS[column])
            case _:
                tag = self._tags_of_metrics[column - NUM_COLUMNS]
                return lambda info: _finite(info.metrics.get(tag))

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._checkpoints)

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of columns, which grows with the metrics."""
        return 0 if parent.isValid() else NUM_COLUMNS + len(self._tags_of_metrics)

    def alignment(self, column: int) -> Qt.AlignmentFlag:
        """Return how a column's heading and cells are aligned."""
        is_number = column in _NUMBERS or column >= NUM_COLUMNS
        side = Qt.AlignmentFlag.AlignRight if is_number else Qt.AlignmentFlag.AlignLeft
        return side | Qt.AlignmentFlag.AlignVCenter

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            "",
            self.tr("Epoch"),
            self.tr("Step"),
            self.tr("Loss"),
            self.tr("Accuracy"),
            self.tr("Frozen"),
            self.tr("Size"),
            self.tr("Saved"),
            self.tr("Tags"),
            self.tr("Rate"),
            *(self.metric_heading(tag) for tag in self._tags_of_metrics),
        )

    def metric_heading(self, tag: str) -> str:
        """Return what a metric is called in a heading."""
        name = _metric_name(tag)
        words = {
            "Loss": self.tr("Loss"),
            "Accuracy": self.tr("Accuracy"),
            "Top-5 accuracy": self.tr("Top-5"),
            "F1": self.tr("F1"),
            "AUROC": self.tr("AUROC"),
            "Mean AP": self.tr("Mean AP"),
        }
        return words.get(name, name)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading, and of which split its figures are."""
        if role == Qt.ItemDataRole.ToolTipRole and (section in {LOSS, ACCURACY} or section >= NUM_COLUMNS):
            return self.tr("Measured on the validation split")
        return super().headerData(section, orientation, role)

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows, or its number for sorting."""
        return self.cell(index.row(), index.column(), role)

    def cell(self, row: int, column: int, role: int) -> Any:
        """Return what ``data`` does, for a row and a column."""
        info = self._checkpoints[row]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(row, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tooltip(row, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(column)
            case Qt.ItemDataRole.AccessibleTextRole:
                is_best = column == STAR and info.name == self._best_name
                return self._best_text() if is_best else self._text(row, column)
        if role == SortRole:
            return self.sort_key(row, column)
        if role == NameRole:
            return info.name
        if role == IsBestRole:
            return info.name == self._best_name
        if role == IsDamagedRole:
            return info.name in self._problems
        return info if role == InfoRole else None

    def value_text(self, tag: str, value: float | None) -> str:
        """Write a metric's value."""
        name = _metric_name(tag)
        if name == "Accuracy" or name in _SHARES:
            return percent_text(value)
        return number_text(value, 4 if name == "Loss" else 3)

    def _text(self, row: int, column: int) -> str:
        info = self._checkpoints[row]
        match column:
            case 0:
                return ""
            case 1:
                return count_text(info.epoch)
            case 2:
                return count_text(info.step)
            case 3:
                return number_text(info.loss, 4)
            case 4:
                return percent_text(info.accuracy)
            case 5:
                return info.frozen_summary
            case 6:
                return size_text(info.size_bytes)
            case 7:
                return ago_text(time.time() - info.saved_at)
            case 8:
                return ", ".join(self.tags_of(info))
            case 9:
                return number_text(None, 0) if info.rate is None else rate_text(info.rate)
            case _:
                tag = self._tags_of_metrics[column - NUM_COLUMNS]
                return self.value_text(tag, info.metrics.get(tag))

    def tags_of(self, info: CheckpointInfo) -> list[str]:
        """Return what sets a checkpoint apart from the others."""
        problem = self._problems.get(info.name)
        tags = [self.tr("damaged: {}").format(problem)] if problem else []
        if info.label:
            tags.append(info.label)
        if info.name == self._best_name:
            tags.append(self.tr("best"))
        if info is self._checkpoints[-1]:
            tags.append(self.tr("last"))
        if info.is_pinned:
            tags.append(self.tr("pinned"))
        if info.reason != "epoch":
            tags.append(self._reason_text(info.reason))
        return tags + self._reasons.get(info.name, [])

    def _best_text(self) -> str:
        return {"loss": self.tr("best by loss"), "accuracy": self.tr("best by accuracy")}[self._metric]

    def _best_sentence(self) -> str:
        return {
            "loss": self.tr("The lowest validation loss so far: the patience watches the loss."),
            "accuracy": self.tr("The highest validation accuracy so far."),
        }[self._metric]

    def _reason_text(self, reason: str) -> str:
        words = {
            "user": self.tr("saved by hand"),
            "stop": self.tr("saved at the stop"),
            "periodic": self.tr("within an epoch"),
        }
        return words.get(reason, reason)

    def _tooltip(self, row: int, column: int) -> str:
        info = self._checkpoints[row]
        match column:
            case 3:
                return "" if info.loss is None else repr(info.loss)
            case 4:
                return "" if info.accuracy is None else repr(info.accuracy)
            case 5:
                return ", ".join(info.frozen)
            case 6:
                return self.tr("{} bytes").format(count_text(info.size_bytes))
            case 7:
                return moment_text(info.saved_at)
            case 0 | 8:
                is_best = info.name == self._best_name
                why = self._problems.get(info.name) or (self._best_sentence() if is_best else "")
                return "\n".join(each for each in (why, info.note) if each) or info.name
            case _ if column >= NUM_COLUMNS:
                value = info.metrics.get(self._tags_of_metrics[column - NUM_COLUMNS])
                return "" if value is None else repr(value)
            case _:
                return self._problems.get(info.name) or info.name

    # -- inside -----------------------------------------------------------------------------------------------

    def _take(self, checkpoints: list[CheckpointInfo]) -> None:
        self._checkpoints = list(checkpoints)
        self._present, self._summaries = set(), set()
        for info in self._checkpoints:
            self._note_values(info)
            self._tags_of_metrics += self._new_metrics(info)
        self._row_of = {info.name: row for row, info in enumerate(self._checkpoints)}
        self._find_best()
        self._kept_for = None

    @property
    def _reasons(self) -> dict[str, list[str]]:
        """Return which rules keep a checkpoint, by its name, in words."""
        if self._kept_for is None:
            self._kept_for = kept_for(self._checkpoints, self._rules, self._metric)
        return self._kept_for

    def _forget_reasons(self) -> None:
        self._kept_for = None
        if self._rules.is_thinning:
            self._refresh_tags(range(len(self._checkpoints)))

    def _note_values(self, info: CheckpointInfo) -> None:
        self._summaries.add(info.frozen_summary)
        self._present.update(map(_metric_name, info.metrics))
        if info.rate is not None:
            self._present.add(_KEYS[RATE])

    def _new_metrics(self, info: CheckpointInfo) -> list[str]:
        known = self._tags_of_metrics
        return [tag for tag in info.metrics if _metric_name(tag) not in _OF_COLUMNS and tag not in known]

    def _add_columns(self, checkpoint: CheckpointInfo) -> None:
        if new := self._new_metrics(checkpoint):
            place = self.columnCount()
            self.beginInsertColumns(QModelIndex(), place, place + len(new) - 1)
            self._tags_of_metrics += new
            self.endInsertColumns()

    def _replace(self, row: int, checkpoint: CheckpointInfo) -> None:
        before, self._checkpoints[row] = self._checkpoints[row], checkpoint
        best_before = self._best_name
        if checkpoint_rank(before, self._metric) != checkpoint_rank(checkpoint, self._metric):
            self._find_best()
        changed = {row, *(self._row_of[name] for name in (best_before, self._best_name) if name is not None)}
        for each in changed:
            self.dataChanged.emit(self.index(each, 0), self.index(each, self.columnCount() - 1))
        self._forget_reasons()

    def _find_best(self) -> None:
        best = best_checkpoint(self._checkpoints, self._metric)
        self._best_name = best.name if best is not None else None
        self._kept_for = kept_for(self._checkpoints, self._rules, self._metric)

    def _compare_with_best(self, checkpoint: CheckpointInfo) -> None:
        rank = checkpoint_rank(checkpoint, self._metric)
        best = None if self._best_name is None else self._checkpoints[self._row_of[self._best_name]]
        best_rank = None if best is None else checkpoint_rank(best, self._metric)
        if rank is not None and (best_rank is None or rank < best_rank):
            self._best_name = checkpoint.name

    def _refresh_tags(self, rows: Sequence[int]) -> None:
        """Say that the stars and tags of rows have changed; both are drawn in other colours, so whole rows are."""
        if not rows:
            return
        spans = [(rows[0], rows[-1])] if len(rows) > 2 else [(row, row) for row in rows]
        for first, last in spans:
            self.dataChanged.emit(self.index(min(first, last), 0), self.index(max(first, last), self.columnCount() - 1))


def _metric_name(tag: str) -> str:
    return tag.partition("/")[0]


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
