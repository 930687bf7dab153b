"""DataViewModel: what a check found in the data, for the Data tab: its classes, sizes, images and issues."""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.backlog import Backlog
from app.viewmodels.bin_items import BinItemModel, bin_text
from app.viewmodels.class_items import ClassItemModel
from app.viewmodels.image_items import ImageItemModel
from app.viewmodels.issue_items import IssueItemModel
from app.viewmodels.quantities import count_text, number_text, size_text
from app.viewmodels.report_queries import BinQuery, read_bins
from trainer.data_report import Bin, ImageChoice, IssueKind, Measure
from trainer.messages.data_info import DataSummary, ImageView
from trainer.messages.events import DataChecked


class DataState(Enum):
    """Where the check of the data stands."""

    EMPTY = auto()
    CHECKING = auto()
    CHECKED = auto()
    UNCHECKED = auto()


class DataViewModel(QObject):
    """The data set that was checked last, with the class, the size and the kind of issue that the user looks at."""

    changed = Signal()
    """The state, the summary or the problem is another."""
    views_shown = Signal(str, list)
    """An image's path, and list[ImageView]: what the model sees of it, epoch by epoch."""
    views_refused = Signal(str, str)
    """An image's path, and the sentence that says why nobody can tell what the model sees of it."""
    choice_changed = Signal()
    """Other images were chosen: of another class, or another size or shape."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = DataState.EMPTY
        self.summary: DataSummary | None = None
        self.problem = ""
        """Why the report of a finished check cannot be read; "" if it can."""
        self.class_idx: int | None = None
        self.bin: Bin | None = None
        """The size or the shape that was chosen, None for any."""
        self.issue_kind: IssueKind | None = None
        self.issue_text = ""
        self._path = ""
        self.report_path = Path()
        self._are_bins_wanted = False
        self.classes = ClassItemModel(self)
        self.bins = {measure: BinItemModel(measure, self) for measure in Measure}
        self._bin_backlog = Backlog(read_bins, parent=self)
        self._bin_backlog.answered.connect(self._take_bins)
        self.images = ImageItemModel(self)
        self.issues = IssueItemModel(self)
        self.images.failed.connect(self._fail)
        self.issues.failed.connect(self._fail)

    def show(self, event: DataChecked) -> None:
        """Show what a check found. The class that was chosen stays, if these are the same data."""
        before, is_same = self.summary, event.path == self._path
        self.state, self.summary, self.problem = DataState.CHECKED, event.summary, ""
        self._path, self.report_path = event.path, Path(event.report_path)
        if not is_same or before is None or before.class_names != event.summary.class_names:
            self.class_idx = None
        if not is_same:
            self.issue_kind, self.issue_text = None, ""
        elif self.issue_kind is not None and not event.summary.issue_counts.get(self.issue_kind.value):
            self.issue_kind = None
        self.bin = None
        self.classes.show(event.summary)
        self._ask_bins()
        self._show_images()
        self._show_issues()
        self.changed.emit()

    def show_checking(self) -> None:
        """Say that the data are being looked through."""
        self.state, self.problem = DataState.CHECKING, ""
        self.changed.emit()

    def show_unchecked(self) -> None:
        """Say that the user ended the check."""
        self.clear()
        self.state = DataState.UNCHECKED
        self.changed.emit()

    def refuse(self, reason: str) -> None:
        """Say why there is nothing to be shown of the data that are chosen."""
        self.clear()
        self._fail(reason)

    def clear(self) -> None:
        """Show nothing: no data are chosen."""
        self.state, self.summary, self.problem = DataState.EMPTY, None, ""
        self._path, self.class_idx, self.bin, self.issue_kind, self.issue_text = "", None, None, None, ""
        self.classes.clear()
        self._bin_backlog.want([])
        for bins in self.bins.values():
            bins.clear()
        self.images.clear()
        self.issues.clear()
        self.changed.emit()

    def show_views(self, path: str, views: list[ImageView]) -> None:
        """Show what the model sees of an image, epoch by epoch."""
        self.views_shown.emit(path, views)

    def refuse_views(self, path: str, sentence: str) -> None:
        """Say why nobody can tell what the model sees of an image."""
        self.views_refused.emit(path, sentence)

    def choose_class(self, class_idx: int | None) -> None:
        """Show the images of a class, or of all: of every size."""
        if class_idx != self.class_idx and self.summary is not None:
            self.class_idx, self.bin = class_idx, None
            self._ask_bins()
            self._show_images()
            self.choice_changed.emit()

    def want_bins(self, *, are_wanted: bool) -> None:
        """Count the images by size and by shape from now on, or no more: nobody looks at them."""
        if are_wanted != self._are_bins_wanted:
            self._are_bins_wanted = are_wanted
            self._ask_bins()

    def choose_bin(self, chosen: Bin | None) -> None:
        """Show the images of a size or of a shape, or of any."""
        if chosen != self.bin and self.summary is not None:
            self.bin = chosen
            self._show_images()
            self.choice_changed.emit()

    def filter_issues(self, kind: IssueKind | None, text: str) -> None:
        """Show the issues of a kind (None: any) with a text in a name or in the sentence."""
        self.issue_kind, self.issue_text = kind, text
        if self.summary is not None:
            self._show_issues()

    def images_text(self) -> str:
        """Say whose images are shown, and how many: "cat · 1,200 images", "cat · 200 – 249 px · 12 images"."""
        if self.summary is None:
            return ""
        name = self.tr("All classes") if self.class_idx is None else self.summary.class_names[self.class_idx]
        num_images = self._num_images()
        words = self.tr("1 image") if num_images == 1 else self.tr("{} images").format(count_text(num_images))
        return " · ".join([name, *self._bin_texts(), words])

    def _bin_texts(self) -> list[str]:
        if self.bin is None:
            return []
        text = bin_text(self.bin)
        return [self.tr("{} px").format(text) if self.bin.measure is Measure.SIZE else text]

    def figures_text(self) -> str:
        """Say how large all images are: "28 × 28 to 640 × 480 px · 1.2 GB"."""
        if self.summary is None or not self.summary.image_sides:
            return ""
        sides = [f"{count_text(width)} × {count_text(height)}" for width, height in self.summary.image_sides]
        range_text = sides[0] if sides[0] == sides[-1] else self.tr("{} to {}").format(sides[0], sides[-1])
        if self.class_idx is not None or self.bin is not None:
            # These figures are known of all images together only.
            return ""
        parts = [f"{range_text} px", size_text(self.summary.num_bytes)]
        if self.summary.aspects and self.summary.aspects[0] != self.summary.aspects[-1]:
            low, high = (number_text(self.summary.aspects[idx], 2) for idx in (0, -1))
            parts.insert(1, self.tr("width to height {} to {}").format(low, high))
        return " · ".join(parts)

    def _show_images(self) -> None:
        assert self.summary is not None
        choice = ImageChoice(self.class_idx, self.bin)
        self.images.show(self.report_path, self.summary.class_names, choice, self._num_images())

    def _num_images(self) -> int:
        return self.classes.num_images(self.class_idx) if self.bin is None else self.bin.num_images

    def _ask_bins(self) -> None:
        is_wanted = self._are_bins_wanted and self.summary is not None
        self._bin_backlog.want([BinQuery(self.report_path, self.class_idx)] if is_wanted else [])

    def _take_bins(self, query: BinQuery, answer: dict[Measure, list[Bin]] | str) -> None:
        if query != BinQuery(self.report_path, self.class_idx) or self.summary is None:
            return
        if isinstance(answer, str):
            self._fail(answer)
            return
        for measure, bins in answer.items():
            self.bins[measure].show(bins)

    def _show_issues(self) -> None:
        self.issues.show(self.report_path, self.issue_kind, self.issue_text, self._path)

    def _fail(self, sentence: str) -> None:
        if sentence != self.problem:
            self.problem = sentence
            self.changed.emit()
