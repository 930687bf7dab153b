"""ImageItemModel: the images that were chosen, read from the report a page at a time as they come into sight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal

from app.backlog import Backlog
from app.viewmodels.field_words import split_text
from app.viewmodels.picture_page import PageRole, Picture, PicturePage
from app.viewmodels.quantities import count_text, size_text
from app.viewmodels.report_queries import PAGE_ROWS, ImagePage, read_images
from trainer.data_report import ALL_IMAGES, ImageChoice, ReportedImage

MAX_PAGES = 16
"""Pages that are kept: 4,096 rows, a few screens more than the largest one shows."""

PathRole = Qt.ItemDataRole.UserRole + 1
"""Where the file lies; "" while the row was not read yet."""
SplitRole = Qt.ItemDataRole.UserRole + 2
"""The image's split ("train"); "" while the row was not read yet."""

_Index = QModelIndex | QPersistentModelIndex


class ImageItemModel(QAbstractListModel):
    """One row an image, in the order of the data set. A row that was not read yet has no data."""

    failed = Signal(str)
    """The sentence that says why the report cannot be read."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._report_path = Path()
        self._choice = ALL_IMAGES
        self._class_names: Sequence[str] = ()
        self._num_images = 0
        self._pages: OrderedDict[int, list[ReportedImage]] = OrderedDict()
        self._backlog = Backlog(read_images, parent=self)
        self._backlog.answered.connect(self._take)

    def show(self, report_path: Path, class_names: Sequence[str], choice: ImageChoice, num_images: int) -> None:
        """Show the chosen images of a report, of which there are so many."""
        self.beginResetModel()
        self._report_path, self._class_names, self._choice = report_path, class_names, choice
        self._num_images = num_images
        self._pages.clear()
        self._backlog.want([])
        self.endResetModel()

    def clear(self) -> None:
        """Show nothing."""
        self.show(Path(), (), ALL_IMAGES, 0)

    def want_rows(self, first: int, last: int) -> None:
        """Read these rows (both are included), and no others that were wanted before."""
        wanted = range(max(0, first) // PAGE_ROWS, max(0, min(last, self._num_images - 1)) // PAGE_ROWS + 1)
        missing = [page_idx for page_idx in wanted if page_idx not in self._pages] if self._num_images else []
        self._backlog.want([ImagePage(self._report_path, self._choice, page_idx) for page_idx in missing])

    def image(self, row: int) -> ReportedImage | None:
        """Return a row's image, None while it was not read yet."""
        page = self._pages.get(row // PAGE_ROWS, [])
        return page[row % PAGE_ROWS] if row % PAGE_ROWS < len(page) else None

    # -- QAbstractListModel -----------------------------------------------------------------------------------

    def rowCount(self, parent: _Index = QModelIndex()) -> int:
        """Return the number of images."""
        return 0 if parent.isValid() else self._num_images

    def data(self, index: _Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return what is known of an image."""
        image = self.image(index.row())
        if image is None:
            return "" if role in {PathRole, SplitRole} else None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return PurePath(image.shown).name
            case Qt.ItemDataRole.ToolTipRole:
                return f"{image.shown}\n{self._figures(image)}"
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{PurePath(image.shown).name}, {self._figures(image)}"
            case _:
                return self._own_data(image, role)

    def _own_data(self, image: ReportedImage, role: int) -> Any:
        if role == PathRole:
            return image.path
        if role == SplitRole:
            return image.split
        if role == PageRole:
            return PicturePage(self._figures(image), (Picture(image.path, image.shown),))
        return None

    # -- inside -----------------------------------------------------------------------------------------------

    def _figures(self, image: ReportedImage) -> str:
        sides = self.tr("{width} × {height} px").format(width=count_text(image.width), height=count_text(image.height))
        names = ", ".join(self._class_names[class_idx] for class_idx in image.class_idxs) or self.tr("no class")
        return " · ".join([names, split_text(image.split), sides, size_text(image.size_bytes)])

    def _take(self, page: ImagePage, answer: list[ReportedImage] | str) -> None:
        if (page.report_path, page.choice) != (self._report_path, self._choice):
            # Others were chosen meanwhile.
            return
        if isinstance(answer, str):
            self.failed.emit(answer)
            return
        self._pages[page.page_idx] = answer
        self._pages.move_to_end(page.page_idx)
        while len(self._pages) > MAX_PAGES:
            self._pages.popitem(last=False)
        first = page.page_idx * PAGE_ROWS
        last = min(first + PAGE_ROWS, self._num_images) - 1
        if first <= last:
            self.dataChanged.emit(self.index(first), self.index(last))
