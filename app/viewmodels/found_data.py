"""FoundData: what the last look through the form's data set found in it, in words."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QLocale

from app.viewmodels.field_words import split_text
from trainer.messages.data_info import DataSummary

_NUM_BINARY_CLASSES = 2


class FoundData:
    """The classes, the layout and the columns of a data set; none of them before it was looked through."""

    def __init__(self) -> None:
        self.class_names: list[str] = []
        self.columns: list[str] = []
        """Columns of a table, to choose from."""
        self.layout = ""
        self._taken: dict[str, str] | None = None
        """The column that is read for each field of a table; None while that is not known."""

    def take(self, summary: DataSummary) -> None:
        """Take what a scan found."""
        self.class_names, self.layout = summary.class_names, summary.layout
        if summary.columns is not None:
            self.columns = summary.columns.names
            self._taken = {f"data.{field}": name for field, name in summary.columns.taken.items()}

    def forget_taken(self) -> None:
        """Forget which columns are read: what the next check takes is another question."""
        self._taken = None

    def column_text(self, field: str) -> str:
        """Return which column is read where a field for one is left empty."""
        if self._taken is None:
            is_group = field == "data.group_column"
            return (
                QCoreApplication.translate("RunForm", "none")
                if is_group
                else QCoreApplication.translate("RunForm", "found by its name")
            )
        name = self._taken.get(field)
        if not name:
            return QCoreApplication.translate("RunForm", "none")
        return QCoreApplication.translate("RunForm", "found: {}").format(name)

    def task_text(self, task: str) -> str:
        """Say what a task makes of the classes."""
        if task != "binary":
            return ""
        if len(self.class_names) != _NUM_BINARY_CLASSES:
            return QCoreApplication.translate("RunForm", "The second of two classes is the positive one.")
        return QCoreApplication.translate("RunForm", "Positive: {}.").format(self.class_names[1])


def summary_text(summary: DataSummary) -> str:
    """Say how many classes and images of each split a scan found, and how many it could not use."""
    locale = QLocale()
    num_classes = locale.toString(len(summary.class_names))
    parts = [QCoreApplication.translate("RunForm", "{} classes").format(num_classes)]
    parts += [f"{locale.toString(sum(counts))} {split_text(split)}" for split, counts in summary.counts.items()]
    if summary.num_skipped == 1:
        parts.append(QCoreApplication.translate("RunForm", "1 file skipped"))
    elif summary.num_skipped:
        skipped = QCoreApplication.translate("RunForm", "{} files skipped")
        parts.append(skipped.format(locale.toString(summary.num_skipped)))
    num_leaks = summary.issue_counts.get("leak", 0)
    if num_leaks == 1:
        parts.append(QCoreApplication.translate("RunForm", "1 leak"))
    elif num_leaks:
        parts.append(QCoreApplication.translate("RunForm", "{} leaks").format(locale.toString(num_leaks)))
    return " · ".join(parts)
