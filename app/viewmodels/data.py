"""DataViewModel: what a check found in the data, for the Data tab: its classes, images and issues."""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.viewmodels.class_items import ClassItemModel
from app.viewmodels.image_items import ImageItemModel
from app.viewmodels.issue_items import IssueItemModel
from app.viewmodels.quantities import count_text, number_text, size_text
from trainer.data_report import IssueKind
from trainer.messages import DataChecked, DataSummary


class DataState(Enum):
    """Where the check of the data stands."""

    EMPTY = auto()
    CHECKING = auto()
    CHECKED = auto()


class DataViewModel(QObject):
    """The data set that was checked last, with the class and the kind of issue that the user looks at."""

    changed = Signal()
    """The state, the summary or the problem is another."""
    views_shown = Signal(str, list)
    """An image's path, and the files that show what the model sees of it in the first epochs."""
    class_changed = Signal()
    """Another class was chosen."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = DataState.EMPTY
        self.summary: DataSummary | None = None
        self.problem = ""
        """Why the report of a finished check cannot be read; "" if it can."""
        self.class_idx: int | None = None
        self.issue_kind: IssueKind | None = None
        self.issue_text = ""
        self._path = ""
        self._report_path = Path()
        self.classes = ClassItemModel(self)
        self.images = ImageItemModel(self)
        self.issues = IssueItemModel(self)
        self.images.failed.connect(self._fail)
        self.issues.failed.connect(self._fail)

    def show(self, event: DataChecked) -> None:
        """Show what a check found. The class that was chosen stays, if these are the same data."""
        before, is_same = self.summary, event.path == self._path
        self.state, self.summary, self.problem = DataState.CHECKED, event.summary, ""
        self._path, self._report_path = event.path, Path(event.report_path)
        if not is_same or before is None or before.class_names != event.summary.class_names:
            self.class_idx = None
        if not is_same:
            self.issue_kind, self.issue_text = None, ""
        elif self.issue_kind is not None and not event.summary.issue_counts.get(self.issue_kind.value):
            self.issue_kind = None
        self.classes.show(event.summary)
        self._show_images()
        self._show_issues()
        self.changed.emit()

    def show_checking(self) -> None:
        """Say that the data are being looked through."""
        self.state, self.problem = DataState.CHECKING, ""
        self.changed.emit()

    def refuse(self, reason: str) -> None:
        """Say why there is nothing to be shown of the data that are chosen."""
        self.clear()
        self._fail(reason)

    def clear(self) -> None:
        """Show nothing: no data are chosen."""
        self.state, self.summary, self.problem = DataState.EMPTY, None, ""
        self._path, self.class_idx, self.issue_kind, self.issue_text = "", None, None, ""
        self.classes.clear()
        self.images.clear()
        self.issues.clear()
        self.changed.emit()

    def show_views(self, path: str, views: list[str]) -> None:
        """Show what the model sees of an image in the first epochs: a picture file for each."""
        self.views_shown.emit(path, views)

    def choose_class(self, class_idx: int | None) -> None:
        """Show the images of a class, or of all."""
        if class_idx != self.class_idx and self.summary is not None:
            self.class_idx = class_idx
            self._show_images()
            self.class_changed.emit()

    def filter_issues(self, kind: IssueKind | None, text: str) -> None:
        """Show the issues of a kind (None: any) with a text in a name or in the sentence."""
        self.issue_kind, self.issue_text = kind, text
        if self.summary is not None:
            self._show_issues()

    def images_text(self) -> str:
        """Say whose images are shown, and how many: "cat · 1,200 images"."""
        if self.summary is None:
            return ""
        name = self.tr("All classes") if self.class_idx is None else self.summary.class_names[self.class_idx]
        num_images = self.classes.num_images(self.class_idx)
        words = self.tr("1 image") if num_images == 1 else self.tr("{} images").format(count_text(num_images))
        return f"{name} · {words}"

    def figures_text(self) -> str:
        """Say how large all images are: "28 × 28 to 640 × 480 px · 1.2 GB"."""
        if self.summary is None or not self.summary.image_sides:
            return ""
        sides = [f"{count_text(width)} × {count_text(height)}" for width, height in self.summary.image_sides]
        range_text = sides[0] if sides[0] == sides[-1] else self.tr("{} to {}").format(sides[0], sides[-1])
        if self.class_idx is not None:
            # These figures are known of all classes together only.
            return ""
        parts = [f"{range_text} px", size_text(self.summary.num_bytes)]
        if self.summary.aspects and self.summary.aspects[0] != self.summary.aspects[-1]:
            low, high = (number_text(self.summary.aspects[idx], 2) for idx in (0, -1))
            parts.insert(1, self.tr("width to height {} to {}").format(low, high))
        return " · ".join(parts)

    def _show_images(self) -> None:
        assert self.summary is not None
        num_images = self.classes.num_images(self.class_idx)
        self.images.show(self._report_path, self.summary.class_names, self.class_idx, num_images)

    def _show_issues(self) -> None:
        self.issues.show(self._report_path, self.issue_kind, self.issue_text, self._path)

    def _fail(self, sentence: str) -> None:
        if sentence != self.problem:
            self.problem = sentence
            self.changed.emit()
