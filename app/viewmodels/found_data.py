"""FoundData: what the last look through the form's data set found in it, in words."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QLocale

from app.viewmodels.field_words import choice_text, split_text
from trainer.messages.data_info import DataSummary
from trainer.validation_metrics import TOP, reported_metrics

_NUM_BINARY_CLASSES = 2


class FoundData:
    """The classes, the layout and the columns of a data set; none of them before it was looked through."""

    def __init__(self) -> None:
        self.class_names: list[str] = []
        self.columns: list[str] = []
        """Columns of a table, to choose from."""
        self.layout = ""
        self.is_multi_label: bool | None = None
        """Whether some images have several classes, or none; None while that is not known."""
        self._taken: dict[str, str] | None = None
        """The column that is read for each field of a table; None while that is not known."""

    def take(self, summary: DataSummary) -> None:
        """Take what a scan found."""
        self.class_names, self.layout = summary.class_names, summary.layout
        self.is_multi_label = summary.is_multi_label
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

    def separator_text(self) -> str:
        """Say what was found between the classes of an image, "" while that is not known."""
        if self._taken is None:
            return ""
        separator = self._taken.get("data.label_separator", "none")
        return QCoreApplication.translate("RunForm", "found: {}").format(choice_text(separator))

    def fitting_task(self, task: str) -> str:
        """Return a task that goes with how many classes an image has: the one given, if it does."""
        if not self.task_error(task):
            return task
        return "multi_label" if self.is_multi_label else "multi_class"

    def task_error(self, task: str) -> str:
        """Say why a task does not go with how many classes an image has, "" if it does."""
        if self.is_multi_label is None or self.is_multi_label == (task == "multi_label"):
            return ""
        if self.is_multi_label:
            text = QCoreApplication.translate("RunForm", 'Some images have several classes, or none: choose "{}".')
            return text.format(choice_text("multi_label"))
        text = QCoreApplication.translate(
            "RunForm", 'Each image has one class: choose "{}", or what separates the classes in a cell of the table.'
        )
        return text.format(choice_text("multi_class"))

    def metric_error(self, metric: str, task: str) -> str:
        """Say why the best checkpoint cannot be told by a metric, "" if it can, or as far as the classes are known."""
        if metric == "auto" or metric in reported_metrics(task, len(self.class_names) or TOP + 1):
            return ""
        if metric == "top5_accuracy" and task == "multi_class":
            return QCoreApplication.translate("RunForm", "Reported of more than five classes only: choose another.")
        text = QCoreApplication.translate("RunForm", 'Not reported of the task "{}": choose another.')
        return text.format(choice_text(task))

    def task_text(self, task: str) -> str:
        """Say what a task makes of the classes."""
        if task == "multi_label" and self.class_names:
            text = QCoreApplication.translate("RunForm", "{} outputs, yes or no each.")
            return text.format(QLocale().toString(len(self.class_names)))
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
    parts += [f"{locale.toString(number)} {split_text(split)}" for split, number in summary.num_images.items()]
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
