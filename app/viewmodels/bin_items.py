"""BinItemModel: how many images have which size, or which shape, for a bar chart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication, QObject

from app.viewmodels.bar_items import ALL, BarItemModel
from app.viewmodels.quantities import count_text, number_text
from trainer.data_report import Bin, Measure
from trainer.messages.data_info import SPLITS


class BinItemModel(BarItemModel):
    """One row a bin, from the smallest to the largest, and all images before them."""

    def __init__(self, measure: Measure, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._measure = measure
        self.bins: list[Bin] = []

    def show(self, bins: Sequence[Bin]) -> None:
        """Show how many images there are in each bin."""
        self.bins = list(bins)
        of_all = [sum(each.counts[idx] for each in bins) for idx in range(len(SPLITS))]
        self.show_bars([bin_text(each) for each in bins], [each.counts for each in bins], of_all)

    def clear(self) -> None:
        """Show nothing."""
        self.bins = []
        super().clear()

    def all_text(self) -> str:
        """Return the name of the row of all images."""
        return self.tr("All sizes") if self._measure is Measure.SIZE else self.tr("All shapes")

    def what_text(self, bar_idx: int) -> str:
        """Return what a bin's images have in common."""
        if bar_idx == ALL:
            return self.all_text()
        each = self.bins[bar_idx]
        if self._measure is Measure.SIZE:
            return self.tr("Short side {} px").format(bin_text(each))
        if each.low == 0:
            bounds = self.tr("below {}").format(number_text(each.high, 2))
        elif math.isinf(each.high):
            bounds = self.tr("from {}").format(number_text(each.low, 2))
        else:
            bounds = self.tr("{} to {}").format(number_text(each.low, 2), number_text(each.high, 2))
        return self.tr("Width to height about {} ({})").format(bin_text(each), bounds)

    def headings(self) -> tuple[str, ...]:
        """Return the columns' headings."""
        return (
            self.tr("Short side, px") if self._measure is Measure.SIZE else self.tr("Width : height"),
            "",
            self.tr("Images"),
        )


def bin_text(each: Bin) -> str:
    """Return the name of a bin, without its unit: "200 – 249", "4 : 3"."""
    if each.measure is Measure.SHAPE:
        # The outermost ones hold whatever lies beyond.
        sign = "≤ " if each.low == 0 else "≥ " if math.isinf(each.high) else ""
        width, height = each.shape
        return f"{sign}{width} : {height}"
    low, high = count_text(round(each.low)), count_text(round(each.high) - 1)
    return low if low == high else QCoreApplication.translate("Bins", "{} – {}").format(low, high)
