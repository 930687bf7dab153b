"""The item models of a comparison: metrics, settings, and where two confusion matrices differ."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from PySide6.QtCore import QModelIndex, QObject, Qt

from app.comparison import MetricRow, metric_rows
from app.confusion_difference import ConfusionDifference
from app.viewmodels.checkpoint_columns import difference_text, metric_heading, value_text
from app.viewmodels.confusion_items import ClassMatrixItemModel, Levels, Sides, on_diagonal
from app.viewmodels.field_values import shown_value
from app.viewmodels.quantities import MISSING, count_text, percent_text, signed_text
from app.viewmodels.setting_words import setting_name, setting_text
from app.viewmodels.table_item_model import Index, TableItemModel
from trainer.messages.comparison import CheckpointsCompared

IsBetterRole = Qt.ItemDataRole.UserRole + 1
"""bool | None: whether a difference is for the better, None where it is neither, or none."""


class _ComparedItemModel(TableItemModel):
    """A table with columns for each of the checkpoints, however many these are."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._titles: list[str] = []

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        """Return the number of columns, which is another one with more checkpoints."""
        return 0 if parent.isValid() else len(self.headings())

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return a column's heading, and as its tooltip as well: there may be no room for all of it."""
        is_tip = role == Qt.ItemDataRole.ToolTipRole
        return super().headerData(section, orientation, int(Qt.ItemDataRole.DisplayRole) if is_tip else role)


class ComparedMetricItemModel(_ComparedItemModel):
    """A row for each metric; a column for each checkpoint, and beside all but the first the difference to it."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[MetricRow] = []

    def show(self, compared: CheckpointsCompared) -> None:
        """Show what was found."""
        self.beginResetModel()
        self._titles = [each.title for each in compared.checkpoints]
        self._rows = metric_rows(compared)
        self.number_columns = frozenset(range(1, 2 * len(self._titles))) - self.difference_columns
        self.endResetModel()

    @property
    def difference_columns(self) -> frozenset[int]:
        """Return the columns of differences, which stand to the left, beside their values."""
        return frozenset(range(3, 2 * len(self._titles), 2))

    def num_rows(self) -> int:
        """Return the number of metrics."""
        return len(self._rows)

    def headings(self) -> list[str]:
        """Return the columns' headings."""
        first, *others = self._titles or [""]
        beside = [each for title in others for each in (title, self.tr("difference"))]
        return [self.tr("Validation"), self.tr("{} (reference)").format(first), *beside]

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        row, column = self._rows[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole | Qt.ItemDataRole.AccessibleTextRole:
                return self._text(row, column)
            case Qt.ItemDataRole.ToolTipRole:
                value = row.values[column // 2] if column else None
                return "" if value is None else repr(value)
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(column)
        return self._is_better(row, column // 2) if role == IsBetterRole and column in self.difference_columns else None

    def _text(self, row: MetricRow, column: int) -> str:
        if not column:
            return metric_heading(row.tag)
        if column not in self.difference_columns:
            return value_text(row.tag, row.values[column // 2])
        difference, is_better = row.difference(column // 2), self._is_better(row, column // 2)
        if difference is None:
            return ""
        if not difference:
            return self.tr("the same")
        text = difference_text(row.tag, difference)
        if is_better is None:
            return text
        return (self.tr("▲ {} better") if is_better else self.tr("▼ {} worse")).format(text)

    def _is_better(self, row: MetricRow, number: int) -> bool | None:
        return row.is_better_as_shown(number, partial(value_text, row.tag))


class SettingItemModel(_ComparedItemModel):
    """A row for each setting that is not the same in all checkpoints, a column for each of these."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._settings: list[tuple[str, list[str]]] = []
        self._whole: list[list[str]] = []

    def show(self, compared: CheckpointsCompared) -> None:
        """Show what was found."""
        self.beginResetModel()
        self._titles = [each.title for each in compared.checkpoints]
        self._settings = [
            (each.name, [setting_text(each.name, value) for value in each.values]) for each in compared.settings
        ]
        self._whole = [[shown_value(value) or MISSING for value in each.values] for each in compared.settings]
        self.endResetModel()

    def num_rows(self) -> int:
        """Return the number of settings."""
        return len(self._settings)

    def headings(self) -> list[str]:
        """Return the columns' headings."""
        return [self.tr("Setting"), *self._titles]

    def data(self, index: Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what a cell shows."""
        name, texts = self._settings[index.row()]
        text = texts[index.column() - 1] if index.column() else setting_name(name)
        match role:
            case Qt.ItemDataRole.DisplayRole | Qt.ItemDataRole.AccessibleTextRole:
                return text
            case Qt.ItemDataRole.ToolTipRole:
                return self._whole[index.row()][index.column() - 1] if index.column() else name
            case Qt.ItemDataRole.TextAlignmentRole:
                return self.alignment(index.column())
        return None


class ConfusionDifferenceItemModel(ClassMatrixItemModel):
    """How many images more, or fewer, of each class another checkpoint takes for each class than the first does.

    A colour is the difference of the shares of the class's images: blue where more is right or less is wrong.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.difference: ConfusionDifference | None = None

    def show(self, difference: ConfusionDifference | None) -> None:
        """Show where two matrices differ; None shows nothing."""
        self.beginResetModel()
        self.difference = difference
        self.endResetModel()

    @property
    def class_names(self) -> list[str]:
        """Return the names of the classes, by index."""
        return [] if self.difference is None else self.difference.class_names

    def levels(self, rows: range, columns: range) -> tuple[Levels, Sides]:
        """Return the differences of the shares in some cells, and whether these are for the better."""
        assert self.difference is not None
        place = np.s_[rows.start : rows.stop, columns.start : columns.stop]
        return self.difference.levels[place], self.difference.is_more[place] == on_diagonal(rows, columns)

    def number_text(self, true_idx: int, taken_idx: int) -> str:
        """Return by how many images two cells differ, with its sign."""
        assert self.difference is not None
        difference = int(self.difference.other[true_idx, taken_idx]) - int(self.difference.first[true_idx, taken_idx])
        return signed_text(count_text(abs(difference)), difference) if difference else ""

    def cell_text(self, true_idx: int, taken_idx: int) -> str:
        """Write a cell as a sentence: "7 taken for 1: 12 → 9 images (6.7 % → 5.0 % of its own)"."""
        assert self.difference is not None
        first, other = self.difference.first[true_idx], self.difference.other[true_idx]
        return self.tr("{name} taken for {other}: {before} → {after} images ({before_share} → {after_share})").format(
            name=self.class_names[true_idx],
            other=self.class_names[taken_idx],
            before=count_text(int(first[taken_idx])),
            after=count_text(int(other[taken_idx])),
            before_share=percent_text(first[taken_idx] / max(first.sum(), 1)),
            after_share=percent_text(other[taken_idx] / max(other.sum(), 1)),
        )
