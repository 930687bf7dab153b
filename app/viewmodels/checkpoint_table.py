"""CheckpointItemModel: the checkpoints of the run on display, and the proxy that sorts them."""

from __future__ import annotations

import math
import time
from typing import Any

from PySide6.QtCore import QModelIndex, QObject, QSortFilterProxyModel, Qt

from app.viewmodels.quantities import ago_text, count_text, moment_text, number_text, percent_text, size_text
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.config import Metric
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import best_checkpoint

STAR, EPOCH, STEP, LOSS, ACCURACY, FROZEN, SIZE, SAVED, TAGS = range(9)
NUM_COLUMNS = 9

SortRole = Qt.ItemDataRole.UserRole + 1
NameRole = Qt.ItemDataRole.UserRole + 2
IsBestRole = Qt.ItemDataRole.UserRole + 3
IsDamagedRole = Qt.ItemDataRole.UserRole + 4

_NUMBERS = frozenset({EPOCH, STEP, LOSS, ACCURACY, SIZE})


class CheckpointItemModel(TableItemModel):
    """One row a checkpoint, in the order in which they were saved."""

    number_columns = frozenset({EPOCH, STEP, LOSS, ACCURACY, SIZE})

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._checkpoints: list[CheckpointInfo] = []
        self._problems: dict[str, str] = {}
        self._metric: Metric = "accuracy"
        self._best_name: str | None = None

    def rank_by(self, metric: Metric) -> None:
        """Give the star to the best by another metric of validation."""
        if metric != self._metric:
            self._metric = metric
            self._find_best()
            self._refresh(0, NUM_COLUMNS - 1)

    def reset(self, checkpoints: list[CheckpointInfo]) -> None:
        """Show these checkpoints, oldest first; an empty list clears the table."""
        self.beginResetModel()
        self._checkpoints = list(checkpoints)
        self._problems = {}
        self._find_best()
        self.endResetModel()

    def add(self, checkpoint: CheckpointInfo) -> None:
        """Add a checkpoint that was just saved; one of the same name is replaced."""
        row = next((row for row, known in enumerate(self._checkpoints) if known.name == checkpoint.name), None)
        if row is None:
            self.beginInsertRows(QModelIndex(), len(self._checkpoints), len(self._checkpoints))
            self._checkpoints.append(checkpoint)
            self.endInsertRows()
        else:
            self._checkpoints[row] = checkpoint
        self._problems.pop(checkpoint.name, None)
        self._find_best()
        self._refresh(0, NUM_COLUMNS - 1)

    def show_problems(self, problems: dict[str, str]) -> None:
        """Mark checkpoints whose files are missing or altered: problem by name, "" or absent for none."""
        found = {name: problem for name, problem in problems.items() if problem}
        if found != self._problems:
            self._problems = found
            self._refresh(0, NUM_COLUMNS - 1)

    def refresh_ages(self) -> None:
        """Say anew how long ago each was saved."""
        self._refresh(SAVED, SAVED)

    def checkpoints(self) -> list[CheckpointInfo]:
        """Return what is listed, oldest first."""
        return list(self._checkpoints)

    def longest_tags(self) -> str:
        """Return the longest that a checkpoint's tags may be, as long as its file is whole."""
        return ", ".join((self.tr("best"), self.tr("last"), self._reason_text("stop")))

    def problem_of(self, name: str) -> str:
        """Say what is wrong with a checkpoint's file, "" if nothing is known to be."""
        return self._problems.get(name, "")

    # -- TableItemModel ---------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Return the number of rows."""
        return len(self._checkpoints)

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
        )

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading, and of which split its figures are."""
        if role == Qt.ItemDataRole.ToolTipRole and section in {LOSS, ACCURACY}:
            return self.tr("Measured on the validation split")
        return super().headerData(section, orientation, role)

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows, or its number for sorting."""
        checkpoint = self._checkpoints[index.row()]
        column = index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(checkpoint, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tooltip(checkpoint, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(column)
            case Qt.ItemDataRole.AccessibleTextRole:
                is_best = column == STAR and checkpoint.name == self._best_name
                return self._best_text() if is_best else self._text(checkpoint, column)
        if role == SortRole:
            return self._sort_key(index.row(), column)
        if role == NameRole:
            return checkpoint.name
        if role == IsBestRole:
            return checkpoint.name == self._best_name
        if role == IsDamagedRole:
            return checkpoint.name in self._problems
        return None

    def _text(self, checkpoint: CheckpointInfo, column: int) -> str:
        match column:
            case 1:
                return count_text(checkpoint.epoch)
            case 2:
                return count_text(checkpoint.step)
            case 3:
                return number_text(checkpoint.loss, 4)
            case 4:
                return percent_text(checkpoint.accuracy)
            case 5:
                return checkpoint.frozen_summary
            case 6:
                return size_text(checkpoint.size_bytes)
            case 7:
                return ago_text(time.time() - checkpoint.saved_at)
            case 8:
                return ", ".join(self._tags(checkpoint))
            case _:
                return ""

    def _tags(self, checkpoint: CheckpointInfo) -> list[str]:
        problem = self._problems.get(checkpoint.name)
        tags = [self.tr("damaged: {}").format(problem)] if problem else []
        if checkpoint.name == self._best_name:
            tags.append(self.tr("best"))
        if checkpoint is self._checkpoints[-1]:
            tags.append(self.tr("last"))
        if checkpoint.reason != "epoch":
            tags.append(self._reason_text(checkpoint.reason))
        return tags

    def _best_text(self) -> str:
        return {"loss": self.tr("best by loss"), "accuracy": self.tr("best by accuracy")}[self._metric]

    def _best_sentence(self) -> str:
        return {
            "loss": self.tr("The lowest validation loss so far: the patience watches the loss."),
            "accuracy": self.tr("The highest validation accuracy so far."),
        }[self._metric]

    def _reason_text(self, reason: str) -> str:
        return {"user": self.tr("saved by hand"), "stop": self.tr("saved at the stop")}.get(reason, reason)

    def _tooltip(self, checkpoint: CheckpointInfo, column: int) -> str:
        match column:
            case 3:
                return "" if checkpoint.loss is None else repr(checkpoint.loss)
            case 4:
                return "" if checkpoint.accuracy is None else repr(checkpoint.accuracy)
            case 5:
                return ", ".join(checkpoint.frozen)
            case 6:
                return self.tr("{} bytes").format(count_text(checkpoint.size_bytes))
            case 7:
                return moment_text(checkpoint.saved_at)
            case 0 | 8 if checkpoint.name == self._best_name and checkpoint.name not in self._problems:
                return self._best_sentence()
            case _:
                return self._problems.get(checkpoint.name) or checkpoint.name

    def _sort_key(self, row: int, column: int) -> Any:
        checkpoint = self._checkpoints[row]
        match column:
            case 0:
                return 1 if checkpoint.name == self._best_name else 0
            case 1:
                return checkpoint.epoch
            case 2:
                return checkpoint.step
            case 3:
                # A loss that is none, or NaN, ranks behind every number.
                is_number = checkpoint.loss is not None and not math.isnan(checkpoint.loss)
                return checkpoint.loss if is_number else math.inf
            case 4:
                return -1.0 if checkpoint.accuracy is None else checkpoint.accuracy
            case 6:
                return checkpoint.size_bytes
            case 7:
                return checkpoint.saved_at
            case _:
                return self._text(checkpoint, column).casefold()

    def _find_best(self) -> None:
        best = best_checkpoint(self._checkpoints, self._metric)
        self._best_name = best.name if best is not None else None

    def _refresh(self, first_column: int, last_column: int) -> None:
        if self._checkpoints:
            last_row = len(self._checkpoints) - 1
            self.dataChanged.emit(self.index(0, first_column), self.index(last_row, last_column))


class CheckpointSortModel(QSortFilterProxyModel):
    """Sorts checkpoints by their numbers, newest first to begin with."""

    def __init__(self, checkpoints: CheckpointItemModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.setSourceModel(checkpoints)
        self.setSortRole(SortRole)
        self.sort(SAVED, Qt.SortOrder.DescendingOrder)
