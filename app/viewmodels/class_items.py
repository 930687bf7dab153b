"""ClassItemModel: the classes of a data set with their images in each split, for a bar chart."""

from __future__ import annotations

from PySide6.QtCore import Qt

from app.viewmodels.bar_items import ALL, NAME, BarItemModel
from trainer.messages.data_info import SPLITS, DataSummary


class ClassItemModel(BarItemModel):
    """One row a class, and "All classes" before them, in whatever order."""

    def show(self, summary: DataSummary) -> None:
        """Show what a scan found, in the order of the data set."""
        by_split = [summary.counts.get(split, [0] * len(summary.class_names)) for split in SPLITS]
        of_all = [summary.num_images.get(split, 0) for split in SPLITS]
        self.show_bars(summary.class_names, list(zip(*by_split, strict=True)), of_all)

    def all_text(self) -> str:
        """Return the name of the row of all images."""
        return self.tr("All classes")

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            self.tr("Class"),
            "",
            self.tr("Images"),
        )

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by name, as the data set does ("2" before "10"), or by number of images. "All classes" stays first."""
        classes = sorted(class_idx for class_idx in self._rows if class_idx != ALL)
        if column != NAME:
            classes.sort(key=self.num_images, reverse=order == Qt.SortOrder.DescendingOrder)
        elif order == Qt.SortOrder.DescendingOrder:
            classes.reverse()
        self.put_in_order([*self._rows[:1], *classes])
